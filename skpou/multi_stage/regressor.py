"""MultiStageRegressor: stages that each fit what the ones before left over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skpou.base import (
    AUTO,
    COUNT,
    DENSITY,
    NOT_NEGATIVE,
    POSITIVE,
    Prepared,
    StrOptions,
    fit_context,
    sections_of,
    unless_auto,
)
from skpou.core import Rows, TrainingResult
from skpou.equations import PHYSICS_CONSTRAINTS, EquationOptions, Physics, Problem
from skpou.lsgd import SearchedRegressor, check_network_for, network_sizes
from skpou.multi_stage.equations import EquationStages
from skpou.multi_stage.fit import fit_multi_stage
from skpou.multi_stage.options import MultiStageOptions
from skpou.networks import ACTIVATIONS, Network

#: Parameters that only shape networks of a given size, with their defaults.
OF_FIXED_SIZES = {"activation": "tanh", "scale_factor": "auto", "solver": "varpro"}
SOLVERS = ("varpro", "adam_lbfgs")


class MultiStageRegressor(SearchedRegressor):
    """Regression in stages, down to machine precision between the samples.

    Every stage fits what the ones before left over, in units of its own size [1]_. By default the
    bases are chosen, and no network is descended: polynomials, random sine features, splines with
    a knot at every row and units grown one by one compete for the first stage, with four columns
    and more sums of functions of one, two and three of them (for a single target), with fewer the
    pieces of HierarchicalPOURegressor where kinks or jumps separate some, and sparse grids for
    5000 rows without noise of six columns and more. Further stages are sine features. All of it
    is judged by errors at left-out rows, calibrated for the places between the rows, so that
    noise is recognised and the error between the samples goes down with that at the samples: a
    stage that memorises the samples is no gain. A further stage must halve what is left.

    Parameters
    ----------
    n_stages : "auto" or int, default="auto"
        Most stages, at least 1; ``"auto"``: as many as are worth it, at most 4.
    hidden_layer_sizes : "auto", int or tuple of int, default="auto"
        ``"auto"``: bases are chosen; activation, scale_factor and solver must then keep their
        defaults. Else widths of the hidden layers of networks, at least 1.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function of every hidden unit of a network. From the second stage of ``"adam_lbfgs"`` on,
        the first layer's is the sine.
    scale_factor : "auto" or float, default="auto"
        Factor inside of the first layer's activation from the second stage of ``"adam_lbfgs"``
        on, positive. ``"auto"``: 2 pi times the dominant frequency of what is left, by a Fourier
        transform over the points, even or scattered.
    solver : {"varpro", "adam_lbfgs"}, default="varpro"
        How networks of given sizes are trained. ``"varpro"``: a network whose last layer is
        solved for, handed over when its residual is small; then stages of sine features.
        ``"adam_lbfgs"``: the papers' recipe, a network in every stage, descended by Adam, then by
        L-BFGS, on all of its parameters. It stops where the residue is white noise, and where a
        stage fails to halve the residual, but it looks at the samples alone: between them the
        error may be larger by many powers of ten.
    density : {"auto", "gaussian", "mixture"}, default="auto"
        Of y about its mean. ``"mixture"``: up to 8 Gaussians whose weights depend on the point,
        fitted to exact leave-one-out errors: for noise that is not the same everywhere.
        ``"auto"``: that one where it predicts left-out rows better, else one Gaussian. Unless it is
        ``"gaussian"`` rows count by their precision where the noise of one target varies.
    physics : Equation or list of Equation, default=None
        Differential equations that the solution obeys, see `skpou.physics.Equation`, and
        symmetries that it has. X and y are then boundary, initial and measured values; they may
        be empty. With ``hidden_layer_sizes="auto"`` all stages are random sine features, else
        networks, by either solver. Each after the first solves the equations for what is left
        over, and must halve the residual on fresh points; the scale factor is 2 pi times the
        dominant frequency of the residual.
    unknowns : dict of str to Unknown, default=None
        Constants of the equations that are fitted, see `skpou.physics.Unknown`.
    max_iter : int, default=1000
        Most iterations of a stage, of each of its optimisers.
    tol : float, default=1e-14
        Residual, relative to the rms of y, below which a fit counts as exact.
    batch_size : int, default=None
        Rows a block in predictions; None: as many as fit into memory. With
        ``hidden_layer_sizes="auto"`` also rows that are read together from disk, see the guide.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: bandwidths and
        shapes of sine features, sums of functions of few columns, and errors at left-out rows.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. Networks are trained in it, and have no further stages
        of sine features in float32; bases are always chosen in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is an iteration, or a model that was tried.

    Attributes
    ----------
    stages_ : list of dict
        Basis (name under ``"kind"``, its arrays), coefficients and posterior factor of every
        stage, in scaled units.
    residual_rms_ : ndarray of shape (k,) or (k, n_outputs)
        Root mean square of what is left at the samples after each of the k stages, in units of y.
    scale_factors_ : ndarray of shape (k,)
        Largest angular frequency of a stage's sine features, or factor inside of its first
        activation, for points from -1 to 1 in every column; 0 where a stage has none.
    n_stages_ : int
        Number of stages.
    basis_ : list of str
        Names of the stages' bases.
    coef_ : ndarray of shape (p,) or (p, n_outputs)
        Coefficients of all columns in units of y, the bases one after the other.
    intercept_ : float or ndarray of shape (n_outputs,)
        Mean of y, which the columns add to.
    noise_ : float or ndarray of shape (n_outputs,)
        Standard deviation of the noise, in units of y.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that were set apart as outliers; the fit is that of the others,
        and so is `noise_`. Not with `physics`.
    hidden_layer_sizes_ : tuple of int
        Widths; with ``"auto"`` the number of columns that are no polynomials.
    alpha_ : float
        Ridge of the last stage.
    n_iter_ : int
        Iterations, or models that were tried.
    loss_curve_ : list of float
        Mean square of the residual, in units of the mean square of y about its mean; with
        ``"auto"`` the score after each step of the search.
    density_ : list of dict, or None
        Gates and variances of every target where the density is a mixture, in scaled units;
        else None.
    unknowns_ : dict of str to float
        Fitted constants of the equations; only with `physics`.
    unknowns_std_ : dict of str to float
        Their standard deviations by the Gauss-Newton matrix; only with `physics`.
    equation_residual_ : float or list of float
        Root mean square of each equation's residual on fresh points; only with `physics`. It
        ranks solutions of one problem, but is no estimate of their error.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, in the order of the fit, offset, width), mean and scale
        of the targets.
    model_ : dict
        State in scaled units: stages, noise, slope.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    See Also
    --------
    LSGDRegressor : One network, or units and sine features, without splines.
    HierarchicalPOURegressor : Pieces of polynomials, for targets with kinks and jumps.

    References
    ----------
    .. [1] Y. Wang, C.-Y. Lai, "Multi-stage neural networks: function approximator of machine
       precision", Journal of Computational Physics 504, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import MultiStageRegressor
    >>> target = lambda x: np.sin(2 * x + 1) + 0.2 * np.exp(1.3 * x)
    >>> x = np.linspace(-1, 1, 300)
    >>> model = MultiStageRegressor().fit(x[:, None], target(x))
    >>> between = np.linspace(-1, 1, 10_001)
    >>> error = model.predict(between[:, None]) - target(between)
    >>> bool(np.abs(error).max() < 1e-13)
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **SearchedRegressor._parameter_constraints,
        "n_stages": [AUTO, COUNT],
        "hidden_layer_sizes": [AUTO, COUNT, tuple, list],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "scale_factor": [AUTO, POSITIVE],
        "solver": [StrOptions(set(SOLVERS))],
        "density": [DENSITY],
        **PHYSICS_CONSTRAINTS,
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
        "batch_size": [None, COUNT],
    }
    _size_parameters = "n_stages or hidden_layer_sizes"

    def __init__(
        self,
        n_stages="auto",
        *,
        hidden_layer_sizes="auto",
        activation="tanh",
        scale_factor="auto",
        solver="varpro",
        density="auto",
        physics=None,
        unknowns=None,
        max_iter=1000,
        tol=1e-14,
        batch_size=None,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.n_stages = n_stages
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.scale_factor = scale_factor
        self.solver = solver
        self.density = density
        self.physics = physics
        self.unknowns = unknowns
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(SearchedRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> MultiStageRegressor:
        """Fit stage after stage.

        Several outputs share the bases.
        """
        sizes = network_sizes(self, OF_FIXED_SIZES)
        self._check_scale_factor()
        return self._fit(X, y, sample_weight, sizes)

    def _check_scale_factor(self) -> None:
        if self.scale_factor != "auto" and self.solver != "adam_lbfgs":
            raise ValueError(
                f"scale_factor={self.scale_factor!r} is that of networks in later stages: it "
                f"must be 'auto' while solver={self.solver!r}."
            )

    def _options(self, sizes: tuple[int, ...] | None, rows: Rows) -> MultiStageOptions:
        network = None
        if sizes is not None:
            network = Network(rows.n_features, sizes, activation=self.activation)
        return MultiStageOptions(
            network,
            solver=self.solver,
            n_stages=unless_auto(self.n_stages, int),
            scale_factor=unless_auto(self.scale_factor),
            max_iter=int(self.max_iter),
            tol=float(self.tol),
        )

    def _training_on_equations(
        self, sizes: tuple[int, ...] | None, rows: Rows, problem: Problem, physics: Physics
    ):
        """What `_train_and_store` calls."""
        if sizes is None:
            search = EquationOptions(
                max_iter=int(self.max_iter),
                tol=float(self.tol),
                n_stages=unless_auto(self.n_stages, int),
            )
            return self._equation_training(rows, problem, physics, search)
        check_network_for(self, problem, physics)
        rows, report = rows.to(torch.float64), self._reporter()
        options = self._options(sizes, rows)
        return lambda rng: EquationStages(rows, problem, options, rng, report).run()

    def _training(self, sizes: tuple[int, ...] | None, rows: Rows):
        """What `_train_and_store` calls."""
        options, report = self._options(sizes, rows), self._reporter()
        return lambda rng: fit_multi_stage(rows, options, rng, report)

    def _may_lean(self) -> bool:
        # Stages of a given number are what was asked for.
        return super()._may_lean() and isinstance(self.n_stages, str)

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        rows, residue, left = prepared.rows, prepared.rows.y.double(), []
        for stage in result.state.stages:
            residue = residue - stage.mean(rows.X.double())
            square = rows.weight.double() @ residue.square() / (rows.total_weight or 1.0)
            left.append(square.sqrt() * prepared.scaling.scale)
        super()._store_result(result, prepared)
        self.__dict__.update(
            residual_rms_=self._of_targets(torch.stack(left).cpu().numpy()),
            scale_factors_=np.asarray(result.chosen["scale_factors"], dtype=np.float64),
        )

    @property
    def stages_(self) -> list[dict[str, Any]]:
        """State of every stage."""
        check_is_fitted(self)
        return self.model_["stages"]

    @property
    def n_stages_(self) -> int:
        """Number of stages."""
        return len(self.stages_)

    def staged_predict(self, X) -> Iterator[Any]:
        """Predict after each stage.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Yields
        ------
        ndarray or Tensor of shape (n,) or (n, n_outputs)
            Mean of the stages so far; the last is what `predict` returns.
        """
        for count in range(1, self.n_stages_):

            def first(model, count=count):
                # Their mean is asked for alone, whatever density lies about the last.
                model = getattr(model, "model", model)
                return replace(model, stages=model.stages[:count])

            yield self._predict(X, False, first)
        yield self._predict(X, False)
