"""Ridge regression on one sparse grid: level, solver, ridge, noise and posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult
from skpou.core.linalg import LEAST_ALPHA, NO_VARIANCE
from skpou.sparse_grids.basis.grid import SparseGrid, count_points
from skpou.sparse_grids.model import COLUMNS, ROWS, Posterior, SparseGridModel
from skpou.sparse_grids.solvers.ridge import (
    EXACT_ALPHA,
    GramProblem,
    IterativeProblem,
    KernelProblem,
    RidgeProblem,
    RidgeSolution,
    best_ridge,
)
from skpou.sparse_grids.solvers.rows import GridRows

#: Most columns, or rows, whose Gram matrix solver="auto" makes.
DIRECT_LIMIT = 4500
#: Columns up to which the columns' Gram matrix is made even where rows are fewer.
FEW_COLUMNS = 1000
#: Columns from which on the ridge is chosen by some of the rows ...
MANY_COLUMNS = 1500
#: ... and the number of these rows.
RIDGE_ROWS = 1500
#: Ridge's growth from level to level where alpha is given.
GIVEN_DECAY = 4.0
#: Steps that polish a solution: by a given ridge, which may be next to nothing and then needs them,
#: and by one of largest evidence, which is above what a Cholesky factor loses.
POLISH, FEW_POLISH = 30, 2
#: Levels by default, of a grid that is refined and of one that is not.
LEVEL_REFINED, LEVEL = 3, 4
#: Ridges up to so many times the least are the least: those tried are half decades apart.
AS_THE_LEAST = 1.01
#: Degrees of freedom relative to the rows: fewer say nothing of the noise, and none is divided by.
FEW_FREEDOMS, NO_FREEDOM = 0.05, 1e-6
#: Columns whose joint posterior is known after an iterative solution.
N_EXACT = 2000
#: Residual, relative to the targets' rms, that counts as none.
ROUND_OFF = 1e-15


@dataclass(frozen=True)
class GridOptions:
    """What to fit.

    Attributes
    ----------
    level : int or None
        Level of the regular grid; None: at most 4, lowered until `max_points` holds.
    boundary : str
        See `SparseGrid`.
    alpha : float or None
        Ridge relative to the largest column norm; None: by log evidence.
    solver : {"auto", "direct", "iterative"}
        Gram matrix or conjugate gradients.
    n_refinements : int
        Steps of refinement.
    refine_fraction : float
        Share of the points that are refined in a step.
    max_points : int
        Most points of the grid.
    batch_size : int or None
        Rows a block, evaluated anew for every product; None: rows are kept where they fit.
    basis : str
        See `SparseGrid`.
    """

    level: int | None = None
    boundary: str = "modified"
    alpha: float | None = None
    solver: str = "auto"
    n_refinements: int = 0
    refine_fraction: float = 0.05
    max_points: int = 10_000
    batch_size: int | None = None
    basis: str = "linear"

    def grid(self, n_features: int, level: int) -> SparseGrid:
        """The regular grid of a level."""
        return SparseGrid(n_features, level, self.boundary, basis=self.basis)


def choose_level(n_features: int, options: GridOptions) -> int:
    """Level of the regular grid, which a refined one starts from.

    Raises
    ------
    ValueError
        If the given level has more points than `max_points`, or if level 1 has.
    """
    level = options.level
    if level is not None:
        count, _ = count_points(n_features, level, options.boundary)
        if count > options.max_points:
            raise ValueError(
                f"level={level} with boundary={options.boundary!r} in {n_features} dimensions has "
                f"{count} grid points, more than max_points={options.max_points}. Lower level, "
                "raise max_points, or use level='auto'."
            )
        return level
    highest = LEVEL_REFINED if options.n_refinements else LEVEL
    for level in range(highest, 0, -1):
        if count_points(n_features, level, options.boundary)[0] <= options.max_points:
            return level
    count, _ = count_points(n_features, 1, options.boundary)
    raise ValueError(
        f"Even level 1 with boundary={options.boundary!r} in {n_features} dimensions has {count} "
        f"grid points, more than max_points={options.max_points}. Use boundary='modified'."
    )


def pick_solver(n_rows: int, n_columns: int, solver: str) -> str:
    """``"columns"``, ``"rows"`` (the dual) or ``"iterative"``."""
    if solver == "iterative":
        return solver
    by_rows = n_columns > max(n_rows, FEW_COLUMNS)
    smaller = n_rows if by_rows else n_columns
    if solver == "auto" and smaller > DIRECT_LIMIT:
        return "iterative"
    return ROWS if by_rows else COLUMNS


def direct_problem(
    matrix: GridRows, y: Tensor, *, gram: Tensor | None = None, scale: float | None = None
) -> GramProblem | KernelProblem:
    """Ridge regression by the Gram matrix of the columns, or of the rows where they are fewer.

    Parameters
    ----------
    y : Tensor of shape (n, m)
        Targets.
    gram : Tensor of shape (p, p), default=None
        Gram matrix of the columns where it is known.
    scale : float, default=None
        Unit of the ridge; None: the largest column norm.
    """
    if pick_solver(matrix.n_rows, matrix.n_columns, "direct") == ROWS:
        return KernelProblem(matrix, y, scale)
    problem = GramProblem(matrix, y, matrix.costs(), gram)
    problem.scale = problem.scale if scale is None else scale
    return problem


def fit_on_grid(
    rows: Rows,
    grid: SparseGrid,
    active: Tensor | None,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None = None,
    gram: Tensor | None = None,
    ridge: tuple[float, float] | None = None,
) -> TrainingResult:
    """Ridge regression on the columns of a grid.

    Parameters
    ----------
    rows, options, rng, report
        As in `fit_sparse_grid`.
    active : Tensor of shape (p,) or None
        Functions that are columns; None: all.
    gram : Tensor of shape (p, p), default=None
        Gram matrix of the weighted columns where it is known.
    ridge : tuple of float, default=None
        Alpha and decay near which the best are looked for; None: anywhere.
    """
    n_columns = grid.n_columns if active is None else len(active)
    method = pick_solver(rows.n_rows, n_columns, options.solver)
    iterative = method == "iterative"
    matrix = GridRows(grid, rows.X, rows.weight, active, options.batch_size, iterative)
    if iterative:
        return _fit_iterative(rows, matrix, active, options, rng, report)
    problem = direct_problem(matrix, rows.y, gram=gram)
    likeliest = False
    if options.alpha is not None:
        solution = problem.solve(options.alpha, GIVEN_DECAY, polish=POLISH)
    elif n_columns > MANY_COLUMNS and rows.n_rows > RIDGE_ROWS and active is None:
        alpha, decay = ridge_of_some_rows(rows, grid, problem.scale, rng, report)
        solution = problem.solve(alpha, decay, polish=FEW_POLISH)
    else:
        solution = best_of_evidence(problem, rows, ridge, report)
        likeliest = True
    # A ridge chosen by some rows is not that of all rows' largest evidence.
    n_parameters = None if likeliest else problem.effective_parameters(solution)
    noise = noise_variance(rows, solution, n_parameters)
    posterior = posterior_of(method, solution, problem.scale, rows)
    model = SparseGridModel(grid, active, problem.of_columns(solution), noise, posterior)
    return result_of_evidence(model, solution, rows)


def result_of_evidence(
    model: SparseGridModel, solution: RidgeSolution, rows: Rows
) -> TrainingResult:
    """A solve without iterations, ranked by its evidence."""
    score = solution.score(rows.total_weight, rows.within.sum(0))
    chosen = {"alpha": solution.alpha, "decay": solution.decay, "level": model.grid.level}
    return TrainingResult(model, score, 1, [score], chosen=chosen)


def best_of_evidence(
    problem: RidgeProblem,
    rows: Rows,
    ridge: tuple[float, float] | None,
    report: Report | None = None,
) -> RidgeSolution:
    """Solution with the ridge of largest evidence, near a given one or anywhere."""
    total, within = rows.total_weight, rows.within.sum(0)
    if ridge is None:
        best = best_ridge(problem, total, within, report=report)
    else:
        best = best_ridge(
            problem, total, within, decays=ridge[1:], start=ridge, stride=1, report=report
        )
    solution = problem.solve(best.alpha, best.decay, polish=FEW_POLISH)
    if best.alpha > AS_THE_LEAST * LEAST_ALPHA or not isinstance(problem, GramProblem):
        return solution
    # Without a ridge nothing would be known of columns that no row determines, nor of their error.
    if problem.effective_parameters(solution) < len(solution.factor) - 0.5:
        return solution
    # The ridge wants to vanish: the columns may represent the data.
    exact = problem.solve(EXACT_ALPHA, best.decay, polish=POLISH)
    return exact if _is_likelier(exact, solution, rows) else solution


def _is_likelier(exact: RidgeSolution, solution: RidgeSolution, rows: Rows) -> bool:
    """Whether almost no ridge has the larger evidence, the log determinant at its largest."""
    within = rows.within.sum(0) + ROUND_OFF**2 * rows.total_weight
    ratio = (within + solution.rss + solution.size) / (within + exact.rss + exact.size)
    gain = rows.total_weight * float(ratio.log().mean())
    return gain > 2 * len(solution.factor) * math.log(solution.alpha / exact.alpha)


def noise_variance(rows: Rows, solution: RidgeSolution, n_parameters: float | None) -> Tensor:
    """Noise variance of each target (m,).

    For a ridge of largest evidence the most probable one, which is also the residuals' sum of
    squares over the degrees of freedom that are left; for another ridge the latter, where any are
    left.
    """
    n = rows.total_weight
    residual = rows.within.sum(0) + solution.rss
    variance = (residual + solution.size) / n
    if n_parameters is not None:
        left = n - n_parameters
        by_freedom = residual / max(left, NO_FREEDOM * n)
        variance = by_freedom if left > FEW_FREEDOMS * n else torch.maximum(variance, by_freedom)
    variance = variance + ROUND_OFF**2
    # One target says nothing about noise: its own size stands for it.
    return torch.where((variance > NO_VARIANCE) | (rows.n_rows > 1), variance, 1.0)


def posterior_of(
    method: str, solution: RidgeSolution, scale: float, rows: Rows, rest: Tensor | None = None
) -> Posterior:
    """Covariance of the coefficients; `rest` is the diagonal of the columns beyond its factor."""
    ridge = (max(solution.alpha, LEAST_ALPHA) * scale) ** 2
    of_rows = method == ROWS
    points = rows.X if of_rows else rows.X[:0]
    root = (rows.weight if of_rows else rows.weight[:0]).sqrt()[:, None]
    rest = rows.weight[:0] if rest is None else rest
    return Posterior(method, solution.factor, rest, solution.decay, ridge, points, root)


def _fit_iterative(
    rows: Rows,
    matrix: GridRows,
    active: Tensor | None,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None,
) -> TrainingResult:
    """Conjugate gradients, the ridge by the evidence of some rows."""
    problem = IterativeProblem(matrix, rows.y, matrix.costs(), N_EXACT)
    alpha, decay = options.alpha, GIVEN_DECAY
    if alpha is None:
        # Chosen points have no closed kernel; a regular grid stands for them.
        grid = matrix.grid
        if active is not None:
            level = choose_level(grid.n_features, GridOptions(boundary=grid.boundary))
            grid = grid.of_level(level)
        alpha, decay = ridge_of_some_rows(rows, grid, problem.scale, rng, report)
    solution = problem.solve(alpha, decay)
    n_iter = max(problem.n_iter, 1)
    if report is not None:
        report(f"{n_iter} iterations, alpha {alpha:.1e}")
    given = options.alpha is not None
    n_parameters = problem.effective_parameters(solution) if given else None
    noise = noise_variance(rows, solution, n_parameters)
    posterior = posterior_of(
        COLUMNS, solution, problem.scale, rows, problem.blocks(alpha, decay)[1]
    )
    model = SparseGridModel(matrix.grid, active, solution.coef, noise, posterior)
    score = float(solution.rss.sum() / rows.total_weight)
    chosen = {"alpha": alpha, "decay": decay, "level": matrix.grid.level}
    converged = problem.n_iter < problem.max_iter
    message = "" if converged else f"Conjugate gradients took all {n_iter} iterations. Raise alpha."
    code = "converged" if converged else "max_iter"
    return TrainingResult(model, score, n_iter, [score], code, message, chosen)


def ridge_of_some_rows(
    rows: Rows, grid: SparseGrid, scale: float, rng: np.random.Generator, report: Report | None
) -> tuple[float, float]:
    """Alpha and decay of largest evidence for a random part of the rows, on a regular grid.

    Noise and prior are the same for a part of the rows, hence ``alpha * scale`` is.
    """
    some = rows
    if rows.n_rows > RIDGE_ROWS:
        picked = torch.as_tensor(np.sort(rng.permutation(rows.n_rows)[:RIDGE_ROWS]), device="cpu")
        some = rows.subset(picked.to(rows.X.device))
    problem = KernelProblem(GridRows(grid, some.X, some.weight), some.y)
    best = best_ridge(problem, some.total_weight, some.within.sum(0), report=report)
    return best.alpha * problem.scale / scale, best.decay
