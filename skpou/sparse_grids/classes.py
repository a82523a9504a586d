"""Classes on a sparse grid: by densities, by regression on indicators, by logistic regression."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, TrainingResult
from skpou.core.classes import LeftOutClasses, observations_at
from skpou.core.linalg import LEAST_ALPHA, factored, rows_within
from skpou.core.optim import logits_of_shares, shares_of_classes
from skpou.sparse_grids.basis.grid import SparseGrid, count_points
from skpou.sparse_grids.class_model import GridClasses, log_shares
from skpou.sparse_grids.model import SparseGridModel
from skpou.sparse_grids.solution import (
    GIVEN_DECAY,
    N_EXACT,
    RIDGE_ROWS,
    GridOptions,
    Report,
    choose_level,
    fit_on_grid,
)
from skpou.sparse_grids.solvers.multinomial import GridMultinomialRidge
from skpou.sparse_grids.solvers.ridge import INDIFFERENCE, search_ridge
from skpou.sparse_grids.solvers.rows import GridRows

METHODS = ("density", "one_hot", "softmax")

#: Highest level and most grid points of level="auto", which spares all methods long fits: of few
#: columns, and of more, whose main effects a logistic regression beside the grid knows better.
AUTO_LEVEL, AUTO_POINTS, AUTO_POINTS_OF_MANY = 6, 800, 400
#: Columns up to which they are few.
FEW_FEATURES = 4
#: Most grid points for which the ridge of densities is chosen on the grid itself.
SPECTRUM_POINTS = 1500
#: Parts of the rows, each of which judges the ridge of a logistic regression on the others.
N_FOLDS = 3
#: First alpha and decay of a logistic regression that are tried, and all its decays.
START, DECAYS = (1e-2, 4.0), (4.0, 16.0)
#: Steps of diffusion by which a density is smoothed.
N_STEPS = 4
#: Points of the box at which negative densities are looked for.
N_PROBES = 2000
#: Alphas of a density that are tried: from the whole box to a thousandth of it.
ALPHAS = tuple(10.0 ** (-k / 8) for k in range(25))
#: Decrease, relative to the objective, that ends a Newton iteration: in the search, and at last.
SEARCH_TOL, TOL = 1e-4, 1e-10
#: Most Newton steps.
MAX_NEWTON = 100
#: Least part of a row that is not its own: round-off.
LEAST_FREE = 1e-9


def choose_class_level(n_features: int, options: GridOptions, method: str) -> int:
    """Level of the grid: the given one, or at most 6 with at most 800 points, 400 in many columns.

    Raises
    ------
    ValueError
        As `choose_level` does, and where densities, whose matrices are dense, would have more
        points than can be waited for although no level was asked for.
    """
    if options.level is not None:
        return choose_level(n_features, options)
    most = AUTO_POINTS if n_features <= FEW_FEATURES else AUTO_POINTS_OF_MANY
    limit = min(most, options.max_points)
    for level in range(AUTO_LEVEL, 1, -1):
        if count_points(n_features, level, options.boundary)[0] <= limit:
            return level
    level = choose_level(n_features, options)
    count, _ = count_points(n_features, level, options.boundary)
    if method == "density" and count > SPECTRUM_POINTS:
        raise ValueError(
            f"Even level {level} with boundary={options.boundary!r} in {n_features} dimensions has "
            f"{count} grid points, more than the {SPECTRUM_POINTS} of which method='density' finds "
            "its smoothing. Use boundary='modified', or another method."
        )
    return level


def fit_classes(
    rows: Rows,
    method: str,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None = None,
) -> TrainingResult:
    """Fit probabilities of classes to distinct points.

    Parameters
    ----------
    rows : Rows
        Points in the unit box; targets (n, K) are the shares of the classes at each point.
    options : GridOptions
        Level, boundary, alpha, most points.
    rng : numpy.random.Generator
        Source of the rows that choose a ridge.

    Returns
    -------
    TrainingResult
        Its state is a `GridClasses`.
    """
    rows = rows.to(torch.float64)
    level = choose_class_level(rows.n_features, options, method)
    grid = options.grid(rows.n_features, level)
    fit = {"density": _fit_density, "one_hot": _fit_one_hot, "softmax": _fit_softmax}[method]
    return fit(rows, grid, options, rng, report)


# Densities


class DensityProblem:
    """Joint densities of point and class, smoothed by diffusion.

    For every class the function ``g = sum_j c_j phi_j`` that minimises
    ``int g^2 dx - 2/W sum_n w_n g(x_n) + lambda int |grad g|^2 dx``, the sum over its rows, W the
    weight of all rows, solves ``(R + lambda S) c = b`` with mass matrix R, stiffness matrix S and
    ``b_j = 1/W sum_n w_n phi_j(x_n)`` (Hegland, Hooker, Roberts 2000; Peherstorfer, Franzelin,
    Pflueger, Bungartz 2014). This is a step of length lambda of the implicit Euler method for the
    heat equation from the rows as point masses; several shorter steps,
    ``(R + lambda/m S) c_new = R c_old``, come nearer to its Gaussian kernel, of standard deviation
    ``sqrt(2 lambda)``, with walls that reflect. ``lambda = alpha^2`` in units of the box.

    Parameters
    ----------
    rows : Rows
        Points and shares of classes.
    right : Tensor of shape (G, K), default=None
        The vector b of more rows than these, where it is known.
    total : float, default=None
        Their weight W.
    """

    def __init__(
        self, rows: Rows, grid: SparseGrid, right: Tensor | None = None, total: float | None = None
    ):
        self.rows = rows
        self.grid = grid
        self.mass, self.stiffness = grid.mass_and_stiffness(rows.X)
        self.weight = rows.total_weight if total is None else total
        self.spectrum: tuple[Tensor, Tensor] | None = None
        if right is not None:
            self.right = right
            return
        matrix = GridRows(grid, rows.X, rows.weight)
        self.right = matrix.rmatmul(matrix.root * rows.y) / self.weight

    def solve(self, alpha: float, right: Tensor | None = None, n_steps: int = N_STEPS) -> Tensor:
        """Coefficients (G, K) after some of the steps, from the rows or another right side."""
        root = self.mass.diagonal().rsqrt()[:, None]
        matrix = (self.mass + alpha**2 / N_STEPS * self.stiffness).mul_(root).mul_(root.T)
        factor, _ = factored(matrix, LEAST_ALPHA**2)
        right = self.right if right is None else right
        for step in range(n_steps):
            coef = root * torch.cholesky_solve(root * right, factor)
            right = self.mass @ coef if step < n_steps - 1 else right
        return coef

    def best_alpha(self, judged: Tensor, report: Report | None) -> float:
        """Alpha for which some rows' classes are most likely when each is left out.

        Parameters
        ----------
        judged : Tensor of shape (k,), int64
            Numbers of these rows.
        """
        part = self.rows.subset(judged)
        own = part.weight[:, None] * part.y
        # In the eigenvectors of S v = mu R v a step divides by 1 + lambda mu.
        root = self.mass.diagonal().rsqrt()[:, None]
        factor, _ = factored(self.mass * root * root.T, LEAST_ALPHA**2)
        half = torch.linalg.solve_triangular(factor, self.stiffness * root * root.T, upper=False)
        values, vectors = torch.linalg.eigh(
            torch.linalg.solve_triangular(factor, half.T, upper=False)
        )
        vectors = root * torch.linalg.solve_triangular(factor.T, vectors, upper=True)
        columns, right = self.grid.matrix(part.X) @ vectors, vectors.T @ self.right
        squares = columns.square()
        self.spectrum = squares, values.clamp_min(0)
        scores = []
        for alpha in ALPHAS:
            shrink = _diffused(self.spectrum[1], alpha)
            # Without its row b loses w_n t_n phi(x_n) / W, and g what that contributes.
            itself = own * (squares @ shrink)[:, None] / self.weight
            density = columns @ (shrink[:, None] * right) - itself
            scores.append(-2 * float((own * log_shares(density, 1 / self.weight)).sum()))
            if report is not None:
                report(f"alpha {alpha:.1e}: score {scores[-1]:.6g}")
        least = min(scores)
        return next(a for a, s in zip(ALPHAS, scores, strict=True) if s <= least + INDIFFERENCE)

    def left_out(self, model: GridClasses, alpha: float, judged: Tensor) -> LeftOutClasses:
        """What a model says of the classes of some rows when it does not know them.

        Parameters
        ----------
        model : GridClasses
            For this alpha.
        judged : Tensor of shape (k,), int64
            Numbers of the rows; those of `best_alpha` if it has been called.
        """
        number, place = observations_at(self.rows, judged)
        X, pairs = self.rows.X[judged], self.rows.pairs()
        if self.spectrum is not None:
            itself = self.spectrum[0] @ _diffused(self.spectrum[1], alpha)
        else:
            # Half of the steps, from the row and to the row: the matrix is symmetric.
            half = self.solve(alpha, self.grid.matrix(X).T, N_STEPS // 2)
            itself = (half * (self.mass @ half)).sum(0)
        taken = itself[place] * pairs.weight[number].clamp_max(1.0) / self.weight
        values = model.functions(X)[place] - taken[:, None] * pairs.y[number]
        return LeftOutClasses(number, log_shares(values, model.floor))

    def error(self, coef: Tensor, rng: np.random.Generator) -> float:
        """Size of the densities' errors where there is nothing: that of their negative values.

        At least the density of one row that is spread over the box.
        """
        points = rng.random((N_PROBES, self.grid.n_features))
        values = self.grid.evaluate(torch.as_tensor(points, device="cpu").to(coef), coef)
        negative = values[values < 0]
        size = float(negative.square().mean().sqrt()) if len(negative) else 0.0
        return max(size, 1 / self.weight)


def _diffused(values: Tensor, alpha: float) -> Tensor:
    """What is left of eigenvectors of the stiffness after all steps."""
    return (1 + alpha**2 / N_STEPS * values) ** -N_STEPS


def _coarse_grid(grid: SparseGrid, options: GridOptions) -> SparseGrid | None:
    """Grid that the smoothing is searched for on, where that is another one.

    Raises
    ------
    ValueError
        As `choose_class_level` does.
    """
    if options.alpha is not None or grid.n_columns <= SPECTRUM_POINTS:
        return None
    level = choose_class_level(grid.n_features, replace(options, level=None), "density")
    return grid.of_level(level)


def density_classes(
    problem: DensityProblem,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None = None,
) -> TrainingResult:
    """One density a class, smoothed so that classes left out are most likely."""
    rows, grid, alpha = problem.rows, problem.grid, options.alpha
    judged = judged_rows(rows, rng)
    if alpha is None:
        coarse = _coarse_grid(grid, options)
        searched = problem if coarse is None else DensityProblem(rows, coarse)
        alpha = searched.best_alpha(judged, report)
    coef = problem.solve(alpha)
    offset = coef.new_zeros(coef.shape[1])
    model = GridClasses(grid, coef, offset, "density", problem.error(coef, rng))
    return result_of(model, rows, alpha, left_out=problem.left_out(model, alpha, judged))


def _fit_density(
    rows: Rows,
    grid: SparseGrid,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None,
) -> TrainingResult:
    """See `density_classes`."""
    _coarse_grid(grid, options)  # Refuses before matrices of thousands of columns are made.
    return density_classes(DensityProblem(rows, grid), options, rng, report)


# Regression on indicators


def spread_of_shares(share: Tensor) -> Tensor:
    """Standard deviations of indicators by their means; 1 of a class that is all or none."""
    spread = (share * (1 - share)).clamp_min(0.0).sqrt()
    return torch.where(spread > 0, spread, 1.0)


def indicators(rows: Rows, like: Rows | None = None) -> tuple[Rows, Tensor]:
    """Centred indicators of the classes in units of their spread, and these units.

    Of two classes only the second. Centre and units are those of the rows `like`, if given.
    """
    share = shares_of_classes(rows if like is None else like)
    first = 1 if rows.n_outputs == 2 else 0  # One regression serves two classes.
    spread = spread_of_shares(share)[first:]
    targets = Rows(rows.X, rows.y[:, first:], rows.weight, rows.within[:, first:])
    return targets.in_units(share[first:], spread, rows.y.dtype), spread


def one_hot_model(grid: SparseGrid, coef: Tensor, spread: Tensor, rows: Rows) -> GridClasses:
    """Probabilities from the coefficients of a regression on `indicators`."""
    floor = 1 / math.sqrt(rows.total_weight)
    coef = coef * spread
    coef = torch.cat([-coef, coef], 1) if rows.n_outputs == 2 else coef
    return GridClasses(grid, coef, shares_of_classes(rows), "one_hot", floor)


def _fit_one_hot(
    rows: Rows,
    grid: SparseGrid,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None,
) -> TrainingResult:
    """Ridge regression on the classes' indicators, the ridge by evidence."""
    targets, spread = indicators(rows)
    result = fit_on_grid(targets, grid, None, options, rng, report)
    model = one_hot_model(grid, result.state.coef, spread, rows)
    left_out = one_hot_left_out(model, result.state, rows, judged_rows(rows, rng))
    found = result_of(model, rows, result.chosen["alpha"], result.n_iter, left_out)
    return replace(found, code=result.code, message=result.message)


def one_hot_left_out(
    model: GridClasses, regression: SparseGridModel, rows: Rows, judged: Tensor
) -> LeftOutClasses:
    """What a ridge regression says of the classes of some rows when it does not know them.

    An observation moves the value there by ``v / (1 - v)`` times its residual, v the variance of
    the value for unit noise.
    """
    number, place = observations_at(rows, judged)
    pairs, X = rows.pairs(), rows.X[judged]
    v = regression.variance(X)[place] * pairs.weight[number].clamp_max(1.0)
    values = model.functions(X)[place]
    moved = (v / (1 - v).clamp_min(LEAST_FREE))[:, None] * (values - pairs.y[number])
    return LeftOutClasses(number, log_shares(values + moved, model.floor))


# Logistic regression


def _fit_softmax(
    rows: Rows,
    grid: SparseGrid,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None,
) -> TrainingResult:
    """Multinomial logistic regression, the ridge by the likelihood of rows held out."""
    problem, folds = _logistic(rows, grid), _Folds(rows, grid, rng)
    alpha, decay = options.alpha, GIVEN_DECAY
    if alpha is None:
        absolute, decay = search_ridge(folds.score, decays=DECAYS, start=START, report=report)
        alpha = absolute * folds.scale / problem.scale
    theta, n_iter = problem.fit(alpha, decay, tol=TOL, max_iter=MAX_NEWTON)
    floor = 1 / rows.total_weight
    model = GridClasses(grid, theta, problem.offset, "softmax", floor)
    left_out = folds.left_out(alpha * problem.scale / folds.scale, decay)
    result = result_of(model, rows, alpha, n_iter, left_out)
    if n_iter < MAX_NEWTON:
        return result
    return replace(
        result, code="max_iter", message=f"Newton's method took all {n_iter} steps. Raise alpha."
    )


def _logistic(rows: Rows, grid: SparseGrid) -> GridMultinomialRidge:
    costs = torch.as_tensor(grid.costs(), device=rows.X.device).to(rows.X.dtype)
    matrix = GridRows(grid, rows.X, rows.weight)
    return GridMultinomialRidge(matrix, rows.y, logits_of_shares(rows), costs, N_EXACT)


class _Folds:
    """Some of the rows in parts, each of which is predicted by the others.

    The prior is the same for a part of the rows, hence ``alpha * scale`` is.
    """

    def __init__(self, rows: Rows, grid: SparseGrid, rng: np.random.Generator):
        self.rows, self.judged = rows, judged_rows(rows, rng)
        some = rows.subset(self.judged)
        self.scale = _logistic(some, grid).scale
        numbers = torch.as_tensor(rng.permutation(some.n_rows) % N_FOLDS, device=rows.X.device)
        self.folds = []
        for fold in range(min(N_FOLDS, some.n_rows)):
            outside, inside = (
                torch.nonzero(m).squeeze(1) for m in (numbers != fold, numbers == fold)
            )
            if len(outside):
                part = some.subset(inside)
                matrix = GridRows(grid, part.X, part.weight)
                self.folds.append((_logistic(some.subset(outside), grid), inside, part, matrix))
        self.starts: list[Tensor | None] = [None] * len(self.folds)

    def _logits(self, fold: int, alpha: float, decay: float) -> Tensor:
        """Logits of the rows of one part by the others."""
        problem, _, _, matrix = self.folds[fold]
        ridge = alpha * self.scale / problem.scale
        theta, _ = problem.fit(ridge, decay, self.starts[fold], tol=SEARCH_TOL)
        self.starts[fold] = theta
        return problem.offset + matrix.matmul(theta) / matrix.root

    def score(self, alpha: float, decay: float) -> float:
        """Twice the negative log likelihood of the rows, each by the other parts."""
        total = 0.0
        for fold, (_, _, part, _) in enumerate(self.folds):
            terms = part.y * torch.log_softmax(self._logits(fold, alpha, decay), 1)
            total -= 2 * float((part.weight[:, None] * terms).sum())
        return total

    def left_out(self, alpha: float, decay: float) -> LeftOutClasses | None:
        """Logits of the observations at these rows, by the other parts."""
        if not self.folds:
            return None
        logits = self.rows.y.new_zeros((len(self.judged), self.rows.n_outputs))
        for fold, (_, inside, _, _) in enumerate(self.folds):
            logits[inside] = self._logits(fold, alpha, decay)
        number, place = observations_at(self.rows, self.judged)
        return LeftOutClasses(number, logits[place])


# All methods


def judged_rows(rows: Rows, rng: np.random.Generator) -> Tensor:
    """Numbers of the rows that choose a ridge, in their order."""
    picked = np.sort(rng.permutation(rows.n_rows)[:RIDGE_ROWS])
    return torch.as_tensor(picked, device=rows.X.device)


def result_of(
    model: GridClasses,
    rows: Rows,
    alpha: float,
    n_iter: int = 1,
    left_out: LeftOutClasses | None = None,
) -> TrainingResult:
    """Record with the mean negative log likelihood of the rows' classes as score."""
    size = rows_within(model.numbers_per_row())
    terms = [
        (w[:, None] * y * model.log_proba(X)).sum()
        for X, y, w in zip(
            rows.X.split(size), rows.y.split(size), rows.weight.split(size), strict=True
        )
    ]
    score = -float(torch.stack(terms).sum()) / rows.total_weight
    chosen = {"alpha": alpha, "level": model.grid.level}
    return TrainingResult(model, score, max(n_iter, 1), [score], chosen=chosen, left_out=left_out)
