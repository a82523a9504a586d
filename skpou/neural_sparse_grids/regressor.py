"""NeuralSparseGridRegressor: regression on a sparse grid behind an encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import (
    FittedModelRegressor,
    Prepared,
    SampledRegressor,
    StrOptions,
    fit_context,
    is_by_default,
    lies_on_disk,
    sections_of,
    unless_auto,
)
from skpou.core import Report, Rows, Scaling, TrainingResult
from skpou.core.linalg import count
from skpou.neural_sparse_grids.apart import MOST_APART, GridsApart, fit_apart, together
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderForm
from skpou.neural_sparse_grids.encoders.starts import STARTS
from skpou.neural_sparse_grids.estimator import NeuralGridEstimator, parts_of
from skpou.neural_sparse_grids.fit import fit_head, pick_coef_solver
from skpou.neural_sparse_grids.many_rows import fit_head_to_blocks
from skpou.neural_sparse_grids.model import NeuralGrid, embedded


class NeuralSparseGridRegressor(NeuralGridEstimator, SampledRegressor, FittedModelRegressor):
    """Regression on a sparse grid of few dimensions into which a network maps the data.

    A neural network, the encoder, maps a point into the unit box, and a function on a sparse grid
    of that box is the prediction (Eq. 3.2 of [1]_): columns may be many, and the grid stays
    small. By default both are found together by second-order steps, from coarse grids to fine
    ones, with the encoder's and the grid's ridges chosen by the evidence of the data.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int, default=(25, 25)
        Widths of the hidden layers of ``encoder="mlp"``, at least 1.
    n_components : int, default=2
        Dimension of the embedding and of the grid, at least 1.
    level : int, default=6
        Level of the sparse grid, from 1 to 30. ``"varpro"`` begins with coarser ones, and keeps
        one where the evidence is against finer ones: see `level_`.
    boundary : {"modified", "zero", "full", "truncated"}, default="modified"
        The functions at the faces of the grid's box; see `SparseGridRegressor`. Under ``"zero"``
        training stops for rows whose embeddings reach a face.
    margin : float, default=0.0
        Distance of the embeddings from the faces, from 0 to below 0.5.
    encoder : {"mlp", "cnn"} or function, default="mlp"
        ``"mlp"``: a plain network. ``"cnn"``: three convolutions of 3 x 3 with batch
        normalisation and pooling, for images. A function ``(n_features_in, n_components) ->
        torch.nn.Module`` that can be imported: its module maps (n, n_features_in) to
        (n, n_components) finite numbers, in float64 unless `dtype` is another, which are
        scaled and squashed into the box.
    image_shape : tuple of int, default=None
        Channels, height and width of the images in the rows of X; for ``encoder="cnn"``.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function of the hidden units of ``"mlp"``.
    init : {"auto", "whiten", "isomap", "scale"}, default="auto"
        First embedding of ``"mlp"``. ``"whiten"``: uncorrelated coordinates that fill the box.
        ``"isomap"``: coordinates along the manifold on which the data lie. ``"scale"``: each
        coordinate scaled by itself. ``"auto"``: isomap where there is a curved manifold of
        `n_components` dimensions, else whiten. Other encoders are scaled.
    coef_solver : {"auto", "gradient", "direct", "iterative", "varpro"}, default="auto"
        How the coefficients of the grid are found. ``"gradient"``: by minibatch steps, along with
        the encoder (SGD in [1]_). ``"direct"``: by least squares before every step of the encoder
        (LS). ``"iterative"``: by some steps of conjugate gradients before every step (ILS).
        ``"varpro"``: eliminated; Levenberg-Marquardt steps of the encoder. ``"auto"``: varpro
        for an ``"mlp"`` whose matrices are small, else gradient.
    optimizer : {"adam", "sgd"}, default="adam"
        Steps of all solvers but ``"varpro"``.
    learning_rate : float, default=1e-2
        Highest rate of the one-cycle schedule, positive.
    batch_size : int, default=256
        Rows a step of ``"gradient"``.
    max_iter : int, default=200
        Passes over the rows, or steps of ``"varpro"``.
    tol : float, default=1e-8
        Relative residual that counts as none, and relative change of the loss over
        `n_iter_no_change` passes that ends training.
    alpha : "auto" or float, default="auto"
        Ridge of the coefficients relative to the largest column norm, at least 0; it grows by 4
        from level to level. ``"auto"``: by log evidence, 1e-4 during first-order training.
    early_stopping : "auto" or bool, default="auto"
        Whether rows are held out to judge the iterates, of which the best is returned. ``"auto"``:
        from 10,000 rows on.
    validation_fraction : float, default=0.1
        Share of the rows held out, between 0 and 1.
    n_iter_no_change : int, default=10
        Passes without a better score on the rows held out after which training stops.
    bounds : array-like of shape (d, 2), default=None
        Lower and upper bound of every column, from which points are scaled. None: those of the
        rows, in `partial_fit` of those of its first call.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: errors at left-out
        rows.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. The encoder is trained in it; ``"varpro"`` and the last
        coefficients are computed in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        start and the minibatches.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is a pass, or a round of steps.

    Attributes
    ----------
    coef_ : ndarray of shape (n_points,) or (n_points, n_outputs)
        Coefficients (surpluses) in units of y; of outputs apart zero beyond an output's own level.
    intercept_ : float or ndarray of shape (n_outputs,)
        Mean of y, which the grid's function adds to.
    noise_ : float or ndarray of shape (n_outputs,)
        Noise standard deviation in units of y.
    grid_points_ : ndarray of shape (n_points, n_components)
        Grid points in the unit box of the embedding.
    active_fraction_ : float
        Share of the grid's functions that are not zero at some training point.
    level_ : int
        Level of the grid; of outputs apart that of the finest.
    alpha_ : float
        Ridge of level 1; of outputs apart the largest.
    coef_solver_ : str
        How the coefficients were found.
    n_iter_ : int
        Passes, or steps.
    loss_curve_ : list of float
        Mean square of the residual, in units of the variance of y, for each pass or each round of
        steps; of outputs apart their mean.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, in the order of the fit, offset, width), mean and scale
        of the targets.
    model_ : dict
        State in scaled units: encoder, grid, coefficients, posterior, noise; of outputs apart a
        list ``"own"`` of these.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Notes
    -----
    Where ``"varpro"`` finds the coefficients, two to four outputs have encoders and grids of their
    own, as if each were alone; an output goes on from the encoder of another that leaves clearly
    less noise, or, where one has found nothing, from that of all together. `transform` then has
    `n_components` columns for each output, one output after the other.

    Error bars are those of the coefficients for the encoder that was found, and of what rows that
    are left out are missed by, the encoder free to first order; outside the box of the data they
    grow with the distance. By default a Gaussian process predicts in place of the form where rows
    are few, at most 150, and left-out ones are met better by it; `model_` is the form's.

    References
    ----------
    .. [1] Zhen Zhang, "Neural Sparse Grids for High-Dimensional Data" (TU Munich, 2021), chapter 3.

    Examples
    --------
    >>> from skpou import NeuralSparseGridRegressor
    >>> from skpou.datasets import make_swiss_roll
    >>> X, y = make_swiss_roll(800, random_state=0)
    >>> model = NeuralSparseGridRegressor(level=3).fit(X[:300], y[:300])
    >>> model.transform(X).shape
    (800, 2)
    >>> model.score(X[300:], y[300:]) > 0.999
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **FittedModelRegressor._parameter_constraints,
        **NeuralGridEstimator._own_constraints,
        "init": [StrOptions(set(STARTS))],
    }

    def __init__(
        self,
        hidden_layer_sizes=(25, 25),
        *,
        n_components=2,
        level=6,
        boundary="modified",
        margin=0.0,
        encoder="mlp",
        image_shape=None,
        activation="tanh",
        init="auto",
        coef_solver="auto",
        optimizer="adam",
        learning_rate=1e-2,
        batch_size=256,
        max_iter=200,
        tol=1e-8,
        alpha="auto",
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        bounds=None,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.level = level
        self.boundary = boundary
        self.margin = margin
        self.encoder = encoder
        self.image_shape = image_shape
        self.activation = activation
        self.init = init
        self.coef_solver = coef_solver
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.alpha = alpha
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.bounds = bounds
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(FittedModelRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> NeuralSparseGridRegressor:
        """Train the encoder and solve for the coefficients of the grid.

        Few outputs are fitted apart, see Notes; others, and all of rows on disk, share the encoder
        and the grid. Of rows on disk a sample finds the encoder, with ``coef_solver="gradient"``
        steps on all rows; all rows tell the coefficients.
        """
        form = self._form()
        with self._fitting(X, y, sample_weight):
            if self._streams(X):
                result = self._fit_streamed(form, X, y, sample_weight)
            else:
                result = self._fit_in_memory(form, X, y, sample_weight)
        self._warn_if_not_converged(result)
        self._warn_of_faces(result)
        return self

    def _streams(self, X: Any) -> bool:
        """Whether fit reads rows in blocks: those on the disk of one process."""
        return lies_on_disk(X) and count() == 1

    def _fit_streamed(self, form: EncoderForm, X: Any, y: Any, sample_weight: Any) -> Any:
        """Encoder of a sample, or by steps on all rows, then coefficients of all rows."""
        sampled = self._sampled(X, y, sample_weight)
        prepared = sampled.prepared
        more = self._more(X, prepared.rows, sampled.others)
        seen = prepared.rows.to(self._torch_dtype())

        def go_on(found: TrainingResult) -> TrainingResult:
            return fit_head_to_blocks(found, seen, sampled.others, unless_auto(self.alpha))

        return self._train_on_sample(
            sampled, lambda _: self._train(form, prepared.rows, prepared.scaling, more), 1, go_on
        )

    def _fit_in_memory(self, form: EncoderForm, X: Any, y: Any, sample_weight: Any) -> Any:
        prepared = self._prepare(X, y, sample_weight)
        return self._train_and_store(
            lambda _: self._train_outputs(form, prepared.rows, prepared.scaling), 1, prepared
        )

    def _train_outputs(self, form: EncoderForm, rows: Rows, scaling: Scaling) -> TrainingResult:
        """Few outputs each by itself, as if there were no other; more of them together."""
        m, report = rows.n_outputs, self._reporter()
        options = self._options(self._form_of_columns(form), rows.n_rows)
        solver = pick_coef_solver(options, rows.n_rows, rows.n_features, m)
        if not 1 < m <= MOST_APART or solver != "varpro":
            return self._train(form, rows, scaling, report=report)

        apart = [_one_output(rows, output) for output in range(m)]

        def train(
            output: int | None, report: Report | None, start: Encoder | None
        ) -> TrainingResult:
            part = rows if output is None else apart[output]
            return self._train(form, part, scaling, report=report, start=start)

        def noise_on(output: int, model: NeuralGrid) -> float:
            latent, rng = embedded(model.encoder, apart[output]), np.random.default_rng(0)
            return float(fit_head(latent, model.head.grid, options, rng).state.noise)

        return fit_apart(m, train, noise_on, report)

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(FittedModelRegressor.fit)
    def refit_grid(self, X, y, sample_weight=None) -> NeuralSparseGridRegressor:
        """Solve for the coefficients of the grid again, the encoder as it is: ``NSG*``."""
        check_is_fitted(self)
        with self._earlier_fit_kept():
            prepared = self._prepare(X, y, sample_weight, box=self._box())
            result = self._refit_outputs(self._model(prepared.rows.X), prepared.rows)
            result = self._no_worse_than_the_mean(result, prepared)
            self._judge_between_rows(result.state, prepared)
            self._store_result(result, prepared)
        self._warn_if_not_converged(result)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(FittedModelRegressor.fit)
    def partial_fit(self, X, y, sample_weight=None) -> Any:
        """Take minibatch steps through a block of rows, after those through earlier blocks.

        One pass over the rows in shuffled batches of `batch_size`, at a constant `learning_rate`,
        for the encoder and the coefficients together, as with ``coef_solver="gradient"``. The
        first block sets the level, the start, the units of y and, unless `bounds` are given, the
        box; it should be like all others. Error bars are those of the last block's rows. The first
        call after `fit` starts anew.
        """
        form, state = self._form(), self.__dict__.get("_steps")
        with self._earlier_fit_kept():
            prepared = self._block(X, y, sample_weight, state)
            result, after = self._take_steps(form, prepared.rows, prepared.scaling, state)
            self._form_error, self._restraint = None, None
            self._store_result(result, prepared)
        self._steps = after
        self._warn_if_not_converged(result)
        return self

    def _block(self, X, y, sample_weight, state) -> Prepared:
        """Rows in the units of the first block."""
        if state is None:
            return self._prepare(X, y, sample_weight)
        X, y, weight = self._given_rows(X, y, sample_weight, reset=False)
        ndim, y = y.ndim, y.reshape(len(y), -1)
        scaling = Scaling.from_arrays(self.scaling_, X)
        if y.shape[1] != len(scaling.scale):
            raise ValueError(
                f"y has {y.shape[1]} outputs, but {len(scaling.scale)} in the first partial_fit."
            )
        return Prepared(self._rows_in(scaling, X, scaling.targets(y), weight), scaling, ndim)

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            **self._state_of(result),
        )

    @property
    def coef_(self) -> Any:
        """Coefficients in units of y."""
        check_is_fitted(self)
        parts = [part["head"]["coef"] for part in parts_of(self.model_)]
        # Functions of a lower grid come first: those beyond it have no share.
        more = [len(self.grid_points_) - len(part) for part in parts]
        coef = np.hstack(
            [np.pad(part, ((0, n), (0, 0))) for part, n in zip(parts, more, strict=True)]
        )
        return self._of_targets(coef * self.scaling_["scale"])

    def _may_interpolate(self) -> bool:
        # An embedding, or a grid, of a given size is what was asked for.
        return is_by_default(self)

    def _model(self, like: Tensor) -> NeuralGrid | GridsApart:
        return (GridsApart if "own" in self.model_ else NeuralGrid).from_arrays(self.model_, like)

    def _refit_outputs(self, model: NeuralGrid | GridsApart, rows: Rows) -> TrainingResult:
        """New coefficients for the encoders as they are."""
        if isinstance(model, NeuralGrid):
            return self._refit(model, rows)
        found = [self._refit(own, _one_output(rows, k)) for k, own in enumerate(model.own)]
        return replace(together(found), curve=self.loss_curve_)

    def _noise_variance(self) -> np.ndarray:
        return np.concatenate([part["head"]["noise"] for part in parts_of(self.model_)])


def _one_output(rows: Rows, output: int) -> Rows:
    """The rows with one of the outputs."""
    return rows.of_targets(torch.tensor([output], device=rows.X.device))
