"""SparseGridClassifier: classes by functions on a sparse grid."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import (
    AUTO,
    COUNT,
    NOT_NEGATIVE,
    PreparedClasses,
    StrOptions,
    Summary,
    SummedClassifier,
    TorchEstimator,
    fit_context,
    random_generator,
    sections_of,
    unless_auto,
)
from skpou.core import Scaling, TrainingResult
from skpou.sparse_grids.basis.grid import BASES, BOUNDARIES, SparseGrid
from skpou.sparse_grids.class_model import GridClasses
from skpou.sparse_grids.classes import ALPHAS, METHODS, choose_class_level, fit_classes
from skpou.sparse_grids.integrals import integrate
from skpou.sparse_grids.regressor import LEVEL
from skpou.sparse_grids.solution import GridOptions
from skpou.sparse_grids.sums import GridColumns, check_size, fit_class_sums


class SparseGridClassifier(SummedClassifier):
    """Classification on a sparse grid of hierarchical hat functions.

    One function on a sparse grid (Eq. 2.14 of [1]_) for each class is a density, a probability or
    a logit. The grid does not follow the rows, so that a fit costs little more for many rows than
    for few, and a prediction costs the same.

    Parameters
    ----------
    level : "auto" or int, default="auto"
        Level n of the grid, from 1 to 30: the mesh width along one column is ``2**-n`` of the
        data's range. ``"auto"``: at most 6, lowered until the grid has at most 800 points, of
        more than four columns 400, and no more than `max_points`.
    method : {"density", "one_hot", "softmax"}, default="density"
        ``"density"``: a density for each class, by mass and stiffness matrices of the grid, and
        Bayes' rule ([2]_); the fastest for many rows, for few columns.
        ``"one_hot"``: ridge regression on the classes' indicators, as `SparseGridRegressor` does
        it. ``"softmax"``: multinomial logistic regression, by Newton's method; the slowest, with
        the best probabilities.
    boundary : {"modified", "zero", "full", "truncated"}, default="modified"
        The functions at the faces of the data's box; see `SparseGridRegressor`.
    basis : {"linear", "quadratic"}, default="linear"
        The functions of one column: hats, or parabolas on the hats' supports, which are better
        for smooth targets.
    alpha : "auto" or float, default="auto"
        At least 0. For ``"one_hot"`` and ``"softmax"`` the ridge of level 1 relative to the
        largest column norm, which grows by 4 from level to level where it is given; for
        ``"density"`` the length over which densities are smoothed, in units of the box: the
        squared gradient has the weight ``alpha**2``. ``"auto"``: by log evidence, by the
        likelihood of rows held out in turn, and by that of rows left out one at a time.
    max_points : int, default=10000
        Most grid points.
    batch_size : int, default=None
        Rows a block in predictions. Given, rows on disk (``np.memmap``, HDF5, zarr), and those of
        many processes, are summed block by block and never held together, but for
        ``method="softmax"``, which is no sum over rows. None: as many as fit into memory.
    bounds : array-like of shape (d, 2), default=None
        Lower and upper bound of every column: the box of the grid. None: that of the rows, in
        `partial_fit` those of its first call.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: nothing.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. Coefficients are solved for in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        rows that choose `alpha`.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is an alpha that was tried.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels in their order.
    coef_ : ndarray of shape (n_points, n_classes)
        Surpluses of one function a class.
    grid_points_ : ndarray of shape (n_points, d)
        Grid points in units of X; NaN along constant columns, which have no part.
    level_ : int
        Level of the grid.
    alpha_ : float
        Ridge, or length, that was given or chosen.
    n_iter_ : int
        Newton steps of ``"softmax"``, iterations of a ridge regression of many points, else 1.
    loss_ : float
        Mean negative log likelihood of the training rows' classes by the grid alone.
    scaling_ : dict of ndarray
        Box of the data: columns that vary, offset, width.
    model_ : dict
        State in scaled units: grid, surpluses, floor.
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

    A density or a probability may come out negative. Each value v is replaced by the positive
    ``(v + sqrt(v**2 + f**2)) / 2`` before they are made to add up to one; f is the size of the
    negative densities, which are mere errors, or ``1 / sqrt(n)`` for ``"one_hot"``. So
    probabilities of ``"density"`` come near to each other where there are no rows.

    References
    ----------
    .. [1] Zhen Zhang, "Neural Sparse Grids for High-Dimensional Data" (TU Munich, 2021), chapter 2.
    .. [2] B. Peherstorfer, F. Franzelin, D. Pflueger, H.-J. Bungartz, "Classification with
       probability density estimation on sparse grids", Sparse Grids and Applications 2012,
       pages 255-270, Springer 2014.

    Examples
    --------
    >>> from skpou import SparseGridClassifier
    >>> from skpou.datasets import make_two_moons_3d
    >>> X, y = make_two_moons_3d(2000, noise=0.1, random_state=0)
    >>> model = SparseGridClassifier().fit(X[:1000, :2], y[:1000])
    >>> model.score(X[1000:, :2], y[1000:]) > 0.99
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **TorchEstimator._parameter_constraints,
        "level": [AUTO, LEVEL],
        "method": [StrOptions(set(METHODS))],
        "boundary": [StrOptions(set(BOUNDARIES))],
        "basis": [StrOptions(set(BASES))],
        "alpha": [AUTO, NOT_NEGATIVE],
        "max_points": [COUNT],
        "batch_size": [None, COUNT],
        "bounds": [None, "array-like"],
    }

    _size_parameters = "level or max_points"

    def __init__(
        self,
        level="auto",
        *,
        method="density",
        boundary="modified",
        basis="linear",
        alpha="auto",
        max_points=10_000,
        batch_size=None,
        bounds=None,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.level = level
        self.method = method
        self.boundary = boundary
        self.basis = basis
        self.alpha = alpha
        self.max_points = max_points
        self.batch_size = batch_size
        self.bounds = bounds
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(SummedClassifier.fit)
    def fit(self, X, y, sample_weight=None) -> SparseGridClassifier:
        """Choose the grid and alpha, and solve for the surpluses."""
        options = self._options()
        with self._fitting(X, y, sample_weight):
            if self._streams(X):
                result = self._fit_streamed(X, y, sample_weight)
            else:
                prepared = self._prepare_classes(X, y, sample_weight)
                rng = random_generator(self.random_state)
                result = self._train_and_store(
                    lambda data: fit_classes(
                        data.rows, self.method, options, rng, self._reporter(stoppable=False)
                    ),
                    prepared,
                )
        self._warn_if_not_converged(result)
        return self

    def _options(self) -> GridOptions:
        return GridOptions(
            level=unless_auto(self.level, int),
            boundary=self.boundary,
            basis=self.basis,
            alpha=unless_auto(self.alpha),
            max_points=int(self.max_points),
        )

    def _why_no_sum(self) -> str:
        if self.method == "softmax":
            return "method='softmax' needs all rows in memory. Use 'density' or 'one_hot'."
        return ""

    def _grid(self, n_features: int) -> SparseGrid:
        level = choose_class_level(n_features, self._options(), self.method)
        return SparseGrid(n_features, level, self.boundary, basis=self.basis)

    def _summed_columns(self, box: Scaling) -> tuple[GridColumns, int]:
        grid = self._grid(len(box.columns))
        check_size(grid)
        columns = GridColumns(grid, clamped=True)
        return columns, columns.n_columns

    def _fit_sums(self, summary: Summary, prepared: PreparedClasses) -> TrainingResult:
        grid = self._grid(len(prepared.scaling.columns))
        rng, report = random_generator(self.random_state), self._reporter(stoppable=False)
        sample = prepared.rows.to(torch.float64)
        return fit_class_sums(summary.sums, sample, self.method, grid, self._options(), rng, report)

    def _most_lines(self) -> int | None:
        # Other methods look for the best of a curve, and stop where they have found it.
        return len(ALPHAS) if self.method == "density" and self.alpha == "auto" else None

    def _state_of(self, result: TrainingResult) -> dict[str, Any]:
        return {
            "model_": result.state.arrays(),
            "level_": result.chosen["level"],
            "alpha_": result.chosen["alpha"],
            "n_iter_": result.n_iter,
            "loss_": result.score,
        }

    def _model(self, like: Tensor) -> GridClasses:
        return GridClasses.from_arrays(self.model_, like)

    def _summary_lines(self) -> list[str]:
        state = self.model_
        grid = f"level {self.level_}, boundary {state['boundary']!r}, {len(state['coef'])} points"
        lines = ["", f"Probabilities by {state['method']!r} on a sparse grid: {grid}"]
        return [*lines, *self._calibration_lines()]

    def integrate(self, density=None) -> Any:
        """Integrals of the classes' functions over the box of the data, or their means there.

        Parameters
        ----------
        density : None, "uniform" or sequence, default=None
            As in `SparseGridRegressor.integrate`: None is the integral, in units of X.

        Returns
        -------
        ndarray of shape (n_classes,)
            Of the functions before negative values are replaced. With ``method="density"`` they
            are densities of the unit box: their means are the shares of the classes.

        Raises
        ------
        ValueError
            With ``method="softmax"``, whose functions are logits.
        """
        check_is_fitted(self)
        if self.model_["method"] == "softmax":
            raise ValueError(
                "Functions of method='softmax' are logits, whose integrals mean nothing. Take "
                "method='density' or 'one_hot'."
            )
        model = self._model(torch.zeros(0, dtype=torch.float64, device="cpu"))
        size = self.scaling_, self.n_features_in_
        mean, volume = integrate(model.grid, model.coef, density, *size)
        return volume * (mean + model.offset.numpy())

    @property
    def coef_(self) -> Any:
        """Surpluses."""
        check_is_fitted(self)
        return self.model_["coef"]

    @property
    def grid_points_(self) -> Any:
        """Grid points in units of X."""
        check_is_fitted(self)
        points = self._model(torch.zeros(0, dtype=torch.float64, device="cpu")).grid.points()
        return self._original_points(points)
