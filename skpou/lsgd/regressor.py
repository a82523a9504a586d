"""LSGDRegressor: networks whose last layer is solved for, and bases grown unit by unit."""

from __future__ import annotations

from typing import Any

import torch

from skpou.base import (
    AUTO,
    COUNT,
    DENSITY,
    NOT_NEGATIVE,
    POSITIVE,
    StrOptions,
    fit_context,
    sections_of,
    unless_auto,
)
from skpou.core import Rows
from skpou.equations import PHYSICS_CONSTRAINTS, EquationOptions, Physics, Problem
from skpou.lsgd.equations import fit_equation_network
from skpou.lsgd.fit import QUICK_STEPS, SOLVERS, NetworkOptions, fit_network, is_dual
from skpou.lsgd.searched import SearchedRegressor
from skpou.lsgd.sizes import check_memory, check_network_for, network_sizes, pick_init
from skpou.networks import ACTIVATIONS, ARCHITECTURES, INITIALIZATIONS, Network
from skpou.search import AutomaticOptions, fit_automatic

#: Copies that training holds of the units at the rows: values, slopes, those of a trial step, and
#: what these are made of.
AT_ROWS = 4.0
#: Parameters that only shape a network of a given size, with their defaults.
OF_FIXED_SIZES = {
    "activation": "tanh",
    "architecture": "plain",
    "init": "auto",
    "solver": "varpro",
    "learning_rate": 5e-3,
}


class LSGDRegressor(SearchedRegressor):
    """Separable networks: the last layer is solved for, by least squares, instead of descended.

    The units of a network's last hidden layer are a basis that adapts to the data, and for given
    hidden layers the best output layer is a linear least-squares problem [1]_. So only the hidden
    layers are searched for. By default there is no network of a given size: units are placed one
    by one where they explain most of what is left, all of them are polished together after each
    addition, and smooth targets get random sine features instead, whichever predicts better.

    Parameters
    ----------
    hidden_layer_sizes : "auto", int or tuple of int, default="auto"
        Widths of the hidden layers, at least 1. ``"auto"``: basis and size chosen by evidence
        and by leave-one-out errors, calibrated between the points; activation, architecture,
        init, solver and learning_rate must then keep their defaults.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function of every hidden unit.
    architecture : {"plain", "residual"}, default="plain"
        Eq. 9 or 10 of [1]_. In a ``"residual"`` network all layers but the first add to their
        input, and all have the same width.
    init : {"auto", "box", "data_box", "he", "glorot"}, default="auto"
        First hidden layers. ``"box"``: cut planes scattered over the box of every layer's input
        (Eq. 13 of [1]_). ``"data_box"``: scattered over the image of the data. ``"he"`` and
        ``"glorot"``: random weights, zero biases. ``"auto"``: data_box for residual networks;
        for plain ones box, and he from 16 layers on, where box collapses.
    solver : {"varpro", "lsgd", "lbfgs", "gd"}, default="varpro"
        ``"varpro"``: Levenberg-Marquardt on what least squares leaves over; with more
        parameters than rows in its dual form, which needs no Jacobian. ``"lsgd"``: least
        squares, then a step of Adam, in turn (Algorithm 1 of [1]_). ``"lbfgs"``: L-BFGS on what
        least squares leaves over. ``"gd"``: Adam on all parameters.
    alpha : "auto" or float, default="auto"
        Ridge of the last layer relative to the largest column norm, at least 0. ``"auto"``: by log
        evidence, and so is one on the hidden layers, for ``"varpro"`` where these have some
        hundreds of parameters at most; else tied to the progress of the descent, at the end by log
        evidence or leave-one-out.
    learning_rate : float, default=5e-3
        Adam's step, positive.
    density : {"auto", "gaussian", "mixture"}, default="auto"
        Of y about its mean. ``"mixture"``: up to 8 Gaussians whose weights depend on the point,
        fitted to exact leave-one-out errors: for noise that is not the same everywhere.
        ``"auto"``: that one where it predicts left-out rows better, else one Gaussian. Unless it is
        ``"gaussian"`` rows count by their precision where the noise of one target varies.
    batch_size : int, default=None
        Rows a step of ``"gd"`` and ``"lsgd"``; None: all. Rows a block of the derivatives of
        ``"varpro"`` and of predictions; None: as many as fit into some memory. With
        ``hidden_layer_sizes="auto"`` also rows that are read together from disk, see the guide.
    physics : Equation or list of Equation, default=None
        Differential equations that the solution obeys, see `skpou.physics.Equation`, and
        symmetries that it has. X and y are then boundary, initial and measured values; they may
        be empty. With ``hidden_layer_sizes="auto"`` the basis is random sine features, their
        bandwidth chosen by the residual on fresh points; max_iter bounds the Gauss-Newton steps
        for a bandwidth.
    unknowns : dict of str to Unknown, default=None
        Constants of the equations that are fitted, see `skpou.physics.Unknown`.
    n_init : int, default=1
        Number of starts, of which the one with the best leave-one-out error is kept.
    max_iter : int, default=1000
        Most iterations: steps of ``"varpro"`` and ``"lbfgs"``, passes over the rows otherwise.
    tol : float, default=1e-14
        Residual, relative to the rms of y, below which a fit counts as exact. ``"gd"`` and
        ``"lsgd"`` also stop when 100 passes improve the loss by less than this share.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: starts, bandwidths
        and shapes of sine features, and errors at left-out rows.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. Networks are trained in it; the automatic search always
        computes in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        starts.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is an iteration, or a model that was tried.

    Attributes
    ----------
    coef_ : ndarray of shape (p,) or (p, n_outputs)
        Coefficients of all columns in units of y: the constant and the units of the last hidden
        layer, or the columns of the chosen bases one after the other.
    intercept_ : float or ndarray of shape (n_outputs,)
        Mean of y, which the columns add to.
    noise_ : float or ndarray of shape (n_outputs,)
        Standard deviation of the noise, in units of y.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that were set apart as outliers; the fit is that of the others,
        and so is `noise_`. Not with `physics`.
    basis_ : list of str
        Bases whose sum is the model: ``"network"``, or those that were chosen.
    hidden_layer_sizes_ : tuple of int
        Widths; with ``"auto"`` the number of nonlinear columns.
    alpha_ : float
        Ridge.
    n_iter_ : int
        Iterations.
    loss_curve_ : list of float
        Mean square of the residual, in units of the mean square of y about its mean, at each
        iteration; with ``"auto"`` the score after each step of the search.
    density_ : list of dict, or None
        Gates and variances of every target where the density is a mixture, in scaled units;
        else None.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, in the order of the fit, offset, width), mean and scale
        of the targets.
    model_ : dict
        State in scaled units: bases, coefficients, posterior factors, noise.
    unknowns_ : dict of str to float
        Fitted constants of the equations; only with `physics`.
    unknowns_std_ : dict of str to float
        Their standard deviations by the Gauss-Newton matrix; only with `physics`.
    equation_residual_ : float or list of float
        Root mean square of each equation's residual on fresh points; only with `physics`. It
        ranks solutions of one problem, but is no estimate of their error.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    References
    ----------
    .. [1] E. C. Cyr, M. A. Gulian, R. G. Patel, M. Perego, N. A. Trask, "Robust training and
       initialization of deep neural networks: an adaptive basis viewpoint", MSML 2020; equations
       numbered as in M. Gulian's talk on it.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import LSGDRegressor
    >>> X = np.linspace(0, 1, 256)[:, None]
    >>> y = np.sin(2 * np.pi * X[:, 0])
    >>> model = LSGDRegressor((32,), init="box").fit(X, y)
    >>> grid = np.linspace(0, 1, 999)
    >>> error = model.predict(grid[:, None]) - np.sin(2 * np.pi * grid)
    >>> bool(np.abs(error).max() < 1e-10)
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **SearchedRegressor._parameter_constraints,
        "hidden_layer_sizes": [AUTO, COUNT, tuple, list],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "architecture": [StrOptions(set(ARCHITECTURES))],
        "init": [StrOptions({"auto", *INITIALIZATIONS})],
        "solver": [StrOptions(set(SOLVERS))],
        "alpha": [AUTO, NOT_NEGATIVE],
        "learning_rate": [POSITIVE],
        "density": [DENSITY],
        "batch_size": [None, COUNT],
        **PHYSICS_CONSTRAINTS,
        "n_init": [COUNT],
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
    }
    _size_parameters = "hidden_layer_sizes"

    def __init__(
        self,
        hidden_layer_sizes="auto",
        *,
        activation="tanh",
        architecture="plain",
        init="auto",
        solver="varpro",
        alpha="auto",
        learning_rate=5e-3,
        density="auto",
        batch_size=None,
        physics=None,
        unknowns=None,
        n_init=1,
        max_iter=1000,
        tol=1e-14,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.architecture = architecture
        self.init = init
        self.solver = solver
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.density = density
        self.batch_size = batch_size
        self.physics = physics
        self.unknowns = unknowns
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(SearchedRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> LSGDRegressor:
        """Search for the hidden layers, or for the basis, and solve for the coefficients.

        Several outputs share the hidden layers.
        """
        sizes = network_sizes(self, OF_FIXED_SIZES)
        return self._fit(X, y, sample_weight, sizes, int(self.n_init))

    def _most_lines(self) -> int | None:
        # Line searches of L-BFGS and the search for sizes take as many as they need.
        if self.hidden_layer_sizes == "auto" or self.physics is not None or self.solver == "lbfgs":
            return None
        most = int(self.max_iter)
        quick = min(QUICK_STEPS, most) if self.solver == "varpro" else 0
        return int(self.n_init) * (quick + most)

    def _training(self, sizes: tuple[int, ...] | None, rows: Rows):
        """What `_best_of` calls for every start."""
        report = self._reporter()
        if sizes is None:
            automatic = AutomaticOptions(**self._common_options())
            return lambda rng: fit_automatic(rows, automatic, rng, report)
        options = self._network_options(sizes, rows)
        return lambda rng: fit_network(rows, options, rng, report)

    def _common_options(self) -> dict[str, Any]:
        return {
            "alpha": unless_auto(self.alpha),
            "max_iter": int(self.max_iter),
            "tol": float(self.tol),
        }

    def _network_options(self, sizes: tuple[int, ...], rows: Rows) -> NetworkOptions:
        network = Network(rows.n_features, sizes, self.architecture, self.activation)
        n, m, k = rows.n_rows, rows.n_outputs, network.n_parameters
        at_rows = AT_ROWS * n * sum(network.hidden_layer_sizes)
        step = ((n + network.n_columns) * m) ** 2 if is_dual(network, rows) else k**2
        check_memory(self, network, at_rows, network.n_columns, step, f"{n} distinct rows")
        return NetworkOptions(
            network,
            init=pick_init(self.init, network),
            solver=self.solver,
            learning_rate=float(self.learning_rate),
            batch_size=unless_auto(self.batch_size, int),
            **self._common_options(),
        )

    def _training_on_equations(
        self, sizes: tuple[int, ...] | None, rows: Rows, problem: Problem, physics: Physics
    ):
        """What `_best_of` calls for every start."""
        if sizes is None:
            search = EquationOptions(**self._common_options())
            return self._equation_training(rows, problem, physics, search)
        check_network_for(self, problem, physics)
        report, rows = self._reporter(), rows.to(torch.float64)
        options = self._network_options(sizes, rows)
        return lambda rng: fit_equation_network(rows, problem, options, rng, report)

    def _may_lean(self) -> bool:
        return super()._may_lean() and isinstance(self.alpha, str)
