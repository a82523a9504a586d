"""Sparse grids fitted to sums over rows, which need not be in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult
from skpou.core.linalg import RowSums
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.classes import (
    DensityProblem,
    density_classes,
    judged_rows,
    one_hot_left_out,
    one_hot_model,
    result_of,
    spread_of_shares,
)
from skpou.sparse_grids.model import COLUMNS, SparseGridModel
from skpou.sparse_grids.solution import (
    DIRECT_LIMIT,
    GIVEN_DECAY,
    POLISH,
    GridOptions,
    best_of_evidence,
    noise_variance,
    posterior_of,
    result_of_evidence,
)
from skpou.sparse_grids.solvers.ridge import GramProblem


class GridColumns:
    """A constant, then the functions of a sparse grid.

    Parameters
    ----------
    clamped : bool, default=False
        Whether points outside the unit box have the values of its nearest point.
    """

    def __init__(self, grid: SparseGrid, clamped: bool = False):
        self.grid, self.clamped = grid, clamped
        self.n_columns = 1 + grid.n_columns

    def __call__(self, X: Tensor) -> Tensor:
        """Columns (n, 1 + G) at points X (n, d)."""
        X = X.clamp(0.0, 1.0) if self.clamped else X
        return torch.cat([X.new_ones((len(X), 1)), self.grid.matrix(X)], 1)


class FactorRows:
    """Rows of a triangular factor, which stand for all rows of a least-squares problem.

    Parameters
    ----------
    A : Tensor of shape (k, p)
        Columns at these rows.
    """

    def __init__(self, A: Tensor):
        self.A = A
        self.root = A.new_ones((len(A), 1))

    def matmul(self, coef: Tensor) -> Tensor:
        """Products (k, m) with coefficients (p, m)."""
        return self.A @ coef

    def rmatmul(self, residual: Tensor) -> Tensor:
        """Products (p, m) of the transposed rows with residuals (k, m)."""
        return self.A.T @ residual

    def gram(self) -> Tensor:
        """Gram matrix (p, p) of the columns."""
        return self.A.T @ self.A


def check_size(grid: SparseGrid) -> None:
    """Refuse a grid of more points than sums are kept for.

    Raises
    ------
    ValueError
        If so.
    """
    if grid.n_columns > DIRECT_LIMIT:
        raise ValueError(
            f"The grid has {grid.n_columns} points, more than the {DIRECT_LIMIT} whose sums over "
            "rows are kept. Lower level or max_points."
        )


def _stand_in(sums: RowSums, y: Tensor) -> Rows:
    """Rows that know how many there are, and nothing else."""
    n = min(sums.count, 2)
    weight = y.new_full((n,), sums.total / n)
    nothing = y.new_zeros((n, y.shape[1]))
    return Rows(y.new_zeros((n, 0)), nothing, weight, nothing)


def fit_sums(
    sums: RowSums, y: Tensor, grid: SparseGrid, options: GridOptions, report: Report | None = None
) -> TrainingResult:
    """Ridge regression on a grid, as `fit_on_grid` does it, from sums over rows.

    Parameters
    ----------
    sums : RowSums
        Of `GridColumns`.
    y : Tensor of shape (k, m)
        Targets, of about unit rms and zero mean, of the rows that stand for all.
    """
    matrix: Any = FactorRows(sums.columns[:, 1:])
    costs = torch.as_tensor(grid.costs(), device=y.device).to(y.dtype)
    problem = GramProblem(matrix, y, costs)
    rows = _stand_in(sums, y)
    n_parameters = None
    if options.alpha is not None:
        solution = problem.solve(options.alpha, GIVEN_DECAY, polish=POLISH)
        n_parameters = problem.effective_parameters(solution)
    else:
        solution = best_of_evidence(problem, rows, None, report)
    noise = noise_variance(rows, solution, n_parameters)
    points = Rows(y.new_zeros((0, grid.n_features)), rows.y, rows.weight, rows.within)
    posterior = posterior_of(COLUMNS, solution, problem.scale, points)
    model = SparseGridModel(grid, None, solution.coef, noise, posterior)
    return result_of_evidence(model, solution, rows)


def fit_class_sums(
    sums: RowSums,
    sample: Rows,
    method: str,
    grid: SparseGrid,
    options: GridOptions,
    rng: np.random.Generator,
    report: Report | None = None,
) -> TrainingResult:
    """Probabilities of classes, as `fit_classes` has them, from sums over rows.

    Parameters
    ----------
    sums : RowSums
        Of `GridColumns`; targets are the classes' indicators.
    sample : Rows
        Some rows: they choose how much densities are smoothed, and measure the loss.
    grid, options, rng, report
        As in `fit_sums`.
    """
    share = sums.mean()
    if method == "one_hot":
        # Of two classes one regression serves both.
        first = 1 if len(share) == 2 else 0
        spread = spread_of_shares(share)
        y = sums.targets(share, spread)[:, first:]
        found = fit_sums(sums, y, grid, options, report)
        one = Rows(y.new_zeros((1, 0)), share[None], y.new_full((1,), sums.total), 0 * share[None])
        model = one_hot_model(grid, found.state.coef, spread[first:], one)
        left_out = one_hot_left_out(model, found.state, sample, judged_rows(sample, rng))
        return result_of(model, sample, found.chosen["alpha"], left_out=left_out)
    right = sums.columns[:, 1:].T @ sums.factor[:, sums.n_columns :] / sums.total
    return density_classes(DensityProblem(sample, grid, right, sums.total), options, rng, report)
