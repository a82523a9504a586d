"""LSGDClassifier: networks whose last layer is found by Newton's method."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import (
    AUTO,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    BaseClassifier,
    StrOptions,
    fit_context,
    sections_of,
    unless_auto,
)
from skpou.core import Rows, TrainingResult
from skpou.lsgd.class_model import NetworkClasses
from skpou.lsgd.classes import CLASS_SOLVERS, fit_network_classes
from skpou.lsgd.fit import NetworkOptions
from skpou.lsgd.sizes import check_memory, given_sizes, pick_init
from skpou.networks import ACTIVATIONS, ARCHITECTURES, INITIALIZATIONS, Network

#: Copies that training holds of the units' and the coefficients' columns at the rows: values,
#: slopes, weighted ones, and those of trial steps.
AT_ROWS = 6.0


class LSGDClassifier(BaseClassifier):
    """Classification networks whose last layer is found by Newton's method, not by descent.

    The classes' logits are linear in the units of the last hidden layer (Eq. 3 of [1]_), and for
    given hidden layers the cross entropy is convex in the output layer. So only the hidden layers
    are searched for. The ridges of both parts are those of largest evidence ([2]_), and
    probabilities are calibrated on rows that are left out.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int, default=(32,)
        Widths of the hidden layers, at least 1.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function of every hidden unit.
    architecture : {"plain", "residual"}, default="plain"
        In a ``"residual"`` network all layers but the first add to their input, and all have the
        same width.
    init : {"auto", "box", "data_box", "he", "glorot"}, default="auto"
        First hidden layers, see `LSGDRegressor`.
    solver : {"varpro", "lsgd", "gd"}, default="varpro"
        ``"varpro"``: Gauss-Newton steps of the hidden layers on what Newton's method leaves over,
        with ridges by evidence; for up to some thousand parameters. ``"lsgd"``: Newton's method
        to its end, then a step of Adam of the hidden layers, in turn (Algorithm 1 of [1]_).
        ``"gd"``: Adam on all parameters.
    alpha : "auto" or float, default="auto"
        Ridge of the last layer relative to the norm of its constant column, the root of the sum
        of the weights; at least 0. ``"auto"``: by evidence; 1e-2 for ``"gd"``.
    learning_rate : float, default=5e-3
        Adam's step, positive.
    batch_size : int, default=None
        Rows a step of ``"gd"`` and ``"lsgd"``, and of predictions; None: all, and as many as fit
        into some memory.
    n_init : int, default=1
        Number of starts, of which the one with the least cross entropy of rows that are left out
        is kept.
    max_iter : int, default=200
        Most iterations: steps of ``"varpro"``, passes over the rows otherwise.
    tol : float, default=1e-4
        Mean cross entropy of ``"varpro"`` below which a fit counts as exact. ``"gd"`` and
        ``"lsgd"`` stop when it is below the square of `tol`, or 100 passes lower it by less than
        this share.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: starts.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. The network is trained in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are
        starts and minibatches.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is an iteration.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels in their order.
    coef_ : ndarray of shape (p, n_classes)
        Coefficients of the logits: the constant and the units of the last hidden layer.
    hidden_layer_sizes_ : tuple of int
        Widths.
    alpha_ : float
        Ridge.
    n_iter_ : int
        Iterations.
    loss_curve_ : list of float
        Mean cross entropy of the rows at each iteration.
    loss_ : float
        Mean cross entropy of rows that are left out, by a step of Newton's method for each, of the
        network alone.
    scaling_ : dict of ndarray
        Box of the data: columns that vary, in the order of the fit, offset, width.
    model_ : dict
        State in scaled units: network, coefficients, logits of the classes' shares.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Notes
    -----
    Outside the box of the data probabilities are those at the nearest point of the box.

    Probabilities are calibrated on left-out observations: a factor on what the logits add to those
    of the classes' shares makes their classes most likely. A logistic regression of the same rows,
    in the columns and in ramps between their quantiles, is joined to the logits by a factor of its
    own where left-out observations are better for it.

    Observations are left out in all parameters under ``"varpro"``, and where these are few; else
    the hidden layers stay as they are, and long descents are surer of themselves than they should
    be.

    References
    ----------
    .. [1] E. C. Cyr, M. A. Gulian, R. G. Patel, M. Perego, N. A. Trask, "Robust training and
       initialization of deep neural networks: an adaptive basis viewpoint", MSML 2020; equations
       numbered as in M. Gulian's talk on it.
    .. [2] D. J. C. MacKay, "The evidence framework applied to classification networks", Neural
       Computation 4 (1992), 720-736.

    Examples
    --------
    >>> from skpou import LSGDClassifier
    >>> from skpou.datasets import make_two_moons_3d
    >>> X, y = make_two_moons_3d(2000, noise=0.1, random_state=0)
    >>> model = LSGDClassifier((10,)).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.99
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **BaseClassifier._parameter_constraints,
        "hidden_layer_sizes": [COUNT, tuple, list],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "architecture": [StrOptions(set(ARCHITECTURES))],
        "init": [StrOptions({"auto", *INITIALIZATIONS})],
        "solver": [StrOptions(set(CLASS_SOLVERS))],
        "alpha": [AUTO, NOT_NEGATIVE],
        "learning_rate": [POSITIVE],
        "batch_size": [None, COUNT],
        "n_init": [COUNT],
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
    }
    _size_parameters = "hidden_layer_sizes"

    def __init__(
        self,
        hidden_layer_sizes=(32,),
        *,
        activation="tanh",
        architecture="plain",
        init="auto",
        solver="varpro",
        alpha="auto",
        learning_rate=5e-3,
        batch_size=None,
        n_init=1,
        max_iter=200,
        tol=1e-4,
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
        self.batch_size = batch_size
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BaseClassifier.fit)
    def fit(self, X, y, sample_weight=None) -> LSGDClassifier:
        """Search for the hidden layers, and solve for the coefficients."""
        sizes = given_sizes(self)
        with self._fitting(X, y, sample_weight):
            prepared = self._prepare_classes(X, y, sample_weight)
            options, report = self._options(sizes, prepared.rows), self._reporter()

            def train(rng: np.random.Generator) -> TrainingResult:
                return fit_network_classes(prepared.rows, options, rng, report)

            result = self._train_and_store(
                lambda _: self._best_of(train, int(self.n_init)), prepared
            )
        self._warn_if_not_converged(result)
        return self

    def _sorts_columns(self) -> bool:
        # The first units are drawn column by column.
        return True

    def _most_lines(self) -> int:
        # A round of "varpro" begins with a line, and each has one step at least.
        rounds = 2 if self.solver == "varpro" else 1
        return rounds * int(self.n_init) * int(self.max_iter)

    def _options(self, sizes: tuple[int, ...], rows: Rows) -> NetworkOptions:
        network = Network(rows.n_features, sizes, self.architecture, self.activation)
        n, K, k = rows.n_rows, rows.n_outputs, network.n_parameters
        coefficients = K * network.n_columns
        at_rows = AT_ROWS * n * (sum(network.hidden_layer_sizes) + coefficients)
        words = f"{n} distinct rows of {K} classes"
        check_memory(self, network, at_rows, coefficients, (k + coefficients) ** 2, words)
        return NetworkOptions(
            network,
            init=pick_init(self.init, network),
            solver=self.solver,
            alpha=unless_auto(self.alpha),
            learning_rate=float(self.learning_rate),
            batch_size=unless_auto(self.batch_size, int),
            max_iter=int(self.max_iter),
            tol=float(self.tol),
        )

    def _state_of(self, result: TrainingResult) -> dict[str, Any]:
        return {
            "model_": result.state.arrays(),
            "hidden_layer_sizes_": result.chosen["hidden_layer_sizes"],
            "alpha_": result.chosen["alpha"],
            "n_iter_": result.n_iter,
            "loss_curve_": result.curve,
            "loss_": result.score,
        }

    def _model(self, like: Tensor) -> NetworkClasses:
        return NetworkClasses.from_arrays(self.model_, like)

    def _summary_lines(self) -> list[str]:
        state = self.model_["network"]
        sizes = ", ".join(map(str, self.hidden_layer_sizes_))
        return [
            "",
            f"Network: {state['architecture']}, {state['activation']}, hidden layers ({sizes})",
            f"Cross entropy of rows that are left out: {self.loss_:.3g}",
            *self._calibration_lines(),
        ]

    @property
    def coef_(self) -> Any:
        """Coefficients of the logits."""
        check_is_fitted(self)
        return self.model_["coef"]
