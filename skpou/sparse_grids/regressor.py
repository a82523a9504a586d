"""SparseGridRegressor: regression on a sparse grid."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import (
    AUTO,
    COUNT,
    COUNT_OR_NONE,
    DENSITY,
    NOT_NEGATIVE,
    FittedModelRegressor,
    Interval,
    Prepared,
    ResidueDensityMixin,
    StrOptions,
    Summary,
    SummedRegressor,
    fit_context,
    is_by_default,
    noise_lines,
    sections_of,
    unless_auto,
)
from skpou.core import Scaling, TrainingResult
from skpou.sparse_grids.basis.grid import BASES, BOUNDARIES, HIGHEST_LEVEL, SparseGrid
from skpou.sparse_grids.fit import fit_sparse_grid
from skpou.sparse_grids.integrals import integrate
from skpou.sparse_grids.model import SparseGridModel
from skpou.sparse_grids.solution import GridOptions, choose_level
from skpou.sparse_grids.sums import GridColumns, check_size, fit_sums

#: Levels of a regular grid.
LEVEL = Interval(Integral, 1, HIGHEST_LEVEL, closed="both")


class SparseGridRegressor(SummedRegressor, ResidueDensityMixin, FittedModelRegressor):
    """Regression on a sparse grid of hierarchical hat functions, with error bars.

    The model is a sum of products of piecewise linear hat functions whose levels add up to a
    bounded sum (Eq. 2.14 of [1]_), so that the number of grid points grows slowly with the
    dimension. Coefficients solve one ridge regression, in which finer levels are held closer to
    zero; the strength of the ridge and its growth from level to level are chosen by the evidence
    of the data. Grid points can be added where the surpluses are large.

    Parameters
    ----------
    level : "auto" or int, default="auto"
        Level n of the regular grid, from 1 to 30: the mesh width along one column is ``2**-n`` of
        the data's range. ``"auto"``: at most 4, or at most 3 before a refinement, lowered until
        `max_points` holds.
    boundary : {"modified", "zero", "full", "truncated"}, default="modified"
        ``"modified"``: no grid points on the faces of the data's box; the outermost functions
        grow linearly towards them. ``"zero"``: the function equals the mean of y on the faces.
        ``"full"``: grid points on the faces, level 0 (Eq. 2.15). ``"truncated"``: the faces'
        points belong to level 1 (Eq. 2.16). The last two suit few columns.
    basis : {"linear", "quadratic"}, default="linear"
        The functions of one column: hats, or parabolas on the hats' supports, which are better
        for smooth targets.
    alpha : "auto" or float, default="auto"
        Ridge of level 1 relative to the largest column norm, at least 0. ``"auto"``: by log
        evidence, together with its growth. A given ridge grows by 4 from level to level.
    solver : {"auto", "direct", "iterative"}, default="auto"
        ``"direct"``: by the Gram matrix of the grid points' columns, or of the rows where these
        are fewer. ``"iterative"``: by preconditioned conjugate gradients; the standard deviation
        then takes all but the 2000 coarsest functions for independent. ``"auto"``: direct up to
        4500 grid points or rows.
    n_refinements : int, default=0
        Most steps of refinement. Each adds the children of the grid points that carry most of the
        prediction, along the columns where these lower the squares by more than noise gives;
        refinement ends when held-out rows are predicted worse twice.
    refine_fraction : float, default=0.05
        Share of the grid points that are refined in a step, between 0 and 1; at least 10 are.
    max_points : int, default=10000
        Most grid points.
    density : {"auto", "gaussian", "mixture"}, default="auto"
        Of y about its mean. ``"mixture"``: up to 8 Gaussians whose weights depend on the point,
        fitted to exact leave-one-out errors: for noise that is not the same everywhere.
        ``"auto"``: that one where it predicts left-out rows better, else one Gaussian. Unless it is
        ``"gaussian"`` rows count by their precision where the noise of one target varies.
    batch_size : int, default=None
        Rows a block: in predictions and in fit, where the rows of the basis matrix are then
        evaluated anew for every product. None: they are kept up to some 1 GB. Given, rows on disk
        (``np.memmap``, HDF5, zarr), and those of many processes, are summed block by block and
        never held together.
    bounds : array-like of shape (d, 2), default=None
        Lower and upper bound of every column: the box of the grid. None: that of the rows, in
        `partial_fit` those of its first call.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: errors at left-out
        rows.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. Coefficients are solved for in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        rows held out and those that choose a ridge.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known.

    Attributes
    ----------
    coef_ : ndarray of shape (n_points,) or (n_points, n_outputs)
        Surpluses in units of y: the prediction is `intercept_` plus the sum of surpluses times
        hat functions.
    intercept_ : float or ndarray of shape (n_outputs,)
        Mean of y.
    grid_points_ : ndarray of shape (n_points, d)
        Grid points in units of X; NaN along constant columns, which have no part.
    level_ : int
        Level of the regular grid, from which a refined grid started.
    alpha_ : float
        Ridge of level 1.
    level_weight_ : float
        Factor by which the ridge grows from one level to the next.
    noise_ : float or ndarray of shape (n_outputs,)
        Noise standard deviation in units of y.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that were set apart as outliers; the fit is that of the others,
        and so is `noise_`. It is missing where rows are
        streamed.
    n_iter_ : int
        Iterations of an iterative solution, grids of a refinement, 1 otherwise.
    loss_curve_ : list of float
        Mean square error on the held-out rows, in units of the variance of y, for each grid of a
        refinement; otherwise the score of the one grid; lower is better.
    density_ : list of dict, or None
        Gates and variances of every target where the density is a mixture, in scaled units;
        else None.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, offset, width), mean and scale of the targets.
    model_ : dict
        State in scaled units: level vectors, surpluses, posterior, noise.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Notes
    -----
    Outside the box of the data the outermost linear pieces go on: the mean extrapolates linearly
    along each column, and the standard deviation grows with it.

    References
    ----------
    .. [1] Zhen Zhang, "Neural Sparse Grids for High-Dimensional Data" (TU Munich, 2021),
       section 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import SparseGridRegressor
    >>> X = np.random.default_rng(0).random((1000, 3))
    >>> y = X[:, 0] * X[:, 1] + np.abs(X[:, 2] - 0.5)
    >>> model = SparseGridRegressor(level=4).fit(X, y)
    >>> len(model.coef_)
    111
    >>> mean, std = model.predict([[0.5, 0.5, 0.5]], return_std=True)
    >>> bool(abs(mean[0] - 0.25) < 3e-3)
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **FittedModelRegressor._parameter_constraints,
        "level": [AUTO, LEVEL],
        "boundary": [StrOptions(set(BOUNDARIES))],
        "basis": [StrOptions(set(BASES))],
        "alpha": [AUTO, NOT_NEGATIVE],
        "solver": [StrOptions({"auto", "direct", "iterative"})],
        "n_refinements": [COUNT_OR_NONE],
        "refine_fraction": [Interval(Real, 0, 1, closed="right")],
        "max_points": [COUNT],
        "density": [DENSITY],
        "batch_size": [None, COUNT],
        "bounds": [None, "array-like"],
    }

    _size_parameters = "level or max_points"

    def __init__(
        self,
        level="auto",
        *,
        boundary="modified",
        basis="linear",
        alpha="auto",
        solver="auto",
        n_refinements=0,
        refine_fraction=0.05,
        max_points=10_000,
        density="auto",
        batch_size=None,
        bounds=None,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.level = level
        self.boundary = boundary
        self.basis = basis
        self.alpha = alpha
        self.solver = solver
        self.n_refinements = n_refinements
        self.refine_fraction = refine_fraction
        self.max_points = max_points
        self.density = density
        self.batch_size = batch_size
        self.bounds = bounds
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(SummedRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> SparseGridRegressor:
        """Choose the grid and the ridge, and solve for the surpluses.

        Several outputs share grid and ridge.
        """
        options = self._options()
        with self._fitting(X, y, sample_weight):
            if self._streams(X):
                result = self._fit_streamed(X, y, sample_weight)
            else:
                prepared = self._prepare(X, y, sample_weight)
                choose_level(prepared.rows.n_features, options)  # refuses one that does not fit
                report = self._reporter(stoppable=options.n_refinements > 0)

                def training(prepared: Prepared) -> Any:
                    return lambda rng: fit_sparse_grid(prepared.rows, options, rng, report)

                result = self._train_and_store(training(prepared), 1, prepared, training)
        self._warn_if_not_converged(result)
        return self

    def _why_no_sum(self) -> str:
        if self.n_refinements:
            return f"n_refinements={self.n_refinements} needs all rows in memory: it must be 0."
        if self.solver == "iterative":
            return "solver='iterative' needs all rows in memory. Use 'auto' or 'direct'."
        return ""

    def _may_interpolate(self) -> bool:
        # A grid of a given level, or refined, is what was asked for.
        return is_by_default(self)

    def _grid(self, n_features: int) -> SparseGrid:
        level = choose_level(n_features, self._options())
        return SparseGrid(n_features, level, self.boundary, basis=self.basis)

    def _summed_columns(self, box: Scaling) -> tuple[GridColumns, int]:
        grid = self._grid(len(box.columns))
        check_size(grid)
        columns = GridColumns(grid)
        return columns, columns.n_columns

    def _fit_sums(
        self, summary: Summary, prepared: Prepared, columns: GridColumns
    ) -> TrainingResult:
        scaling, sums = prepared.scaling, summary.sums
        y, report = sums.targets(scaling.mean, scaling.scale), self._reporter(stoppable=False)
        return fit_sums(sums, y, columns.grid, self._options(), report)

    def _options(self) -> GridOptions:
        return GridOptions(
            level=unless_auto(self.level, int),
            boundary=self.boundary,
            basis=self.basis,
            alpha=unless_auto(self.alpha),
            solver=self.solver,
            n_refinements=int(self.n_refinements),
            refine_fraction=float(self.refine_fraction),
            max_points=int(self.max_points),
            batch_size=unless_auto(self.batch_size, int),
        )

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            model_=result.state.arrays(),
            level_=choose_level(prepared.rows.n_features, self._options()),
            density_=self._fitted_density(result.state, prepared.rows),
            alpha_=result.chosen["alpha"],
            level_weight_=result.chosen["decay"],
            n_iter_=result.n_iter,
            loss_curve_=result.curve,
        )

    def _gaussian_model(self, like: Tensor) -> SparseGridModel:
        return SparseGridModel.from_arrays(self.model_, like)

    def _summary_lines(self) -> list[str]:
        points = len(self.model_["coef"])
        basis = self.model_.get("basis", "linear")
        kind = "" if basis == "linear" else f", {basis}"
        grid = f"level {self.level_}, boundary {self.model_['boundary']!r}{kind}, {points} points"
        refined = " after refinement" if "vectors" in self.model_ else ""
        weight = f"the ridge times {self.level_weight_:.3g} on each further level"
        return ["", f"Sparse grid: {grid}{refined}; {weight}", *noise_lines(self.noise_)]

    def integrate(self, density=None) -> Any:
        """Integral of the fitted function over the box of the data, or its mean there.

        Parameters
        ----------
        density : None, "uniform" or sequence, default=None
            None: the integral, in units of y times those of the columns of X that vary.
            ``"uniform"``: the mean. A sequence of one entry a column of X: the mean where the
            columns are independent, each with the density that the entry gives in units of X, a
            function of an array or a distribution with the method ``pdf`` as in ``scipy.stats``;
            None is uniform. Densities are cut off at the box. They must be smooth on a thousandth
            of it.

        Returns
        -------
        float or ndarray of shape (n_outputs,)
            Exact for None and ``"uniform"``: integrals of products are products of integrals,
            which have a closed form. Densities are integrated by Gauss's rule.
        """
        check_is_fitted(self)
        box = self.scaling_
        model = self._gaussian_model(torch.zeros(0, dtype=torch.float64, device="cpu"))
        coef = model.of_all_functions()
        mean, volume = integrate(model.grid, coef, density, box, self.n_features_in_)
        found = self._of_targets(volume * (box["mean"] + box["scale"] * mean))
        return found if found.ndim else float(found)

    @property
    def coef_(self) -> Any:
        """Surpluses in units of y."""
        check_is_fitted(self)
        return self._of_targets(self.model_["coef"] * self.scaling_["scale"])

    @property
    def grid_points_(self) -> Any:
        """Grid points in units of X."""
        check_is_fitted(self)
        model = self._gaussian_model(torch.zeros(0, dtype=torch.float64, device="cpu"))
        active = slice(None) if model.active is None else model.active.numpy()
        return self._original_points(model.grid.points()[active])
