"""The family of sparse grids: hats that adapt to nothing, for many rows in many columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from skpou.core import Basis
from skpou.core.linalg import COPIES_EVALUATED, row_blocks, rows_within
from skpou.core.models import Stage
from skpou.search import Candidate, Seen, Task
from skpou.sparse_grids import GridOptions, SparseGrid, SparseGridModel, fit_sparse_grid

#: Columns and rows from which grids are tried. Of twelve functions on 10,000 rows without noise
#: they were the best for four, all of them products of kinks in six to eight columns, and for none
#: of five; with 2500 and 6000 rows of three columns and 3000 of five they never were.
FEWEST_COLUMNS, FEWEST_ROWS = 6, 5000
#: Most functions: their factor, 72 MB, is kept, and solved with for every prediction.
MOST_FUNCTIONS = 3000
#: Error relative to the rms of y below which smooth bases resolve what hats do not.
ENOUGH = 1e-4
#: Largest leverage that errors at left-out rows are divided by one minus of: beyond, that is
#: round-off.
LARGEST_LEVERAGE = 1 - 1e-10
#: Stream of the task's seed: any number that no other family has.
STREAM = 13


class GridColumns(Basis, kind="sparse_grid"):
    """Functions of a sparse grid in units of their prior deviations.

    Parameters
    ----------
    decay : float
        Growth of the ridge from one level to the next.
    """

    def __init__(self, grid: SparseGrid, decay: float):
        self.grid, self.decay = grid, decay
        self.n_features, self.n_columns = grid.n_features, grid.n_columns
        self.deviations = decay ** (-0.5 * torch.as_tensor(grid.costs(), device="cpu").double())

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate; see `Basis.matrix`."""
        return self.grid.matrix(X) * self.deviations.to(X)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives along one coordinate; see `Basis.partial`."""
        return self.grid.partial(X, feature) * self.deviations.to(X)

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """By the grid's own evaluation; see `Basis.evaluate`."""
        return self.grid.evaluate(X, coef.to(X) * self.deviations.to(X)[:, None])

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {**self.grid.arrays(), "decay": self.decay}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> GridColumns:
        """Rebuild from `arrays`."""
        return cls(SparseGrid.from_arrays(arrays), arrays["decay"])


def grid_candidate(task: Task, model: SparseGridModel) -> Candidate:
    """A fitted grid, with its errors calibrated between the rows."""
    rows, lower = task.rows, model.posterior.factor
    basis = GridColumns(model.grid, model.posterior.decay)

    def variance(X: Tensor) -> Tensor:
        """Variance (n,) for unit noise."""
        blocks = row_blocks(len(X), rows_within(COPIES_EVALUATED * basis.n_columns))
        parts = [
            torch.linalg.solve_triangular(lower, basis.matrix(X[block]).T, upper=False)
            for block in blocks
        ]
        return torch.cat([part.square().sum(0) for part in parts])

    coef = model.coef / basis.deviations.to(model.coef)[:, None]
    leverage = (rows.weight * variance(rows.X)).clamp_max(LARGEST_LEVERAGE)
    square = rows.weight[:, None] * (rows.y - basis.evaluate(rows.X, coef)).square()

    def mean_square(square: Tensor) -> float:
        return float((square.sum(0) + rows.within.sum(0)).mean()) / rows.total_weight

    free = (1 - leverage)[:, None]
    spread = mean_square(square / free)
    gap = spread * float(variance(task.probes).mean())
    return Candidate(
        "grid",
        (Stage(basis, coef, lower.T.contiguous()),),
        math.sqrt(mean_square(square / free.square())),
        math.sqrt(spread + gap),
        float(leverage.sum()),
        math.sqrt(model.posterior.ridge),
        gap_variance=gap,
        n_units=basis.n_columns,
    )


class Grids:
    """Sparse grids of hats, as SparseGridRegressor fits them.

    Tried from six columns and 5000 rows on, where all others leave more than hats would: with
    functions of all columns together, which sums of terms have not, and in a time that hardly grows
    with the rows, of which splines cannot take so many.
    """

    name: ClassVar[str] = "grid"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Where rows are many and something is left; see `Family.worth_trying`."""
        rows = task.rows
        many = rows.n_features >= FEWEST_COLUMNS and rows.n_rows >= FEWEST_ROWS
        return many and task.alpha is None and not seen.noise and seen.least_calibrated > ENOUGH

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """One regular grid; see `Family.fit`."""
        options = GridOptions(max_points=min(MOST_FUNCTIONS, task.rows.n_rows))
        model = fit_sparse_grid(task.rows, options, task.generator(STREAM)).state
        if len(model.posterior.factor) == model.n_columns == model.grid.n_columns:
            yield seen.with_candidate(grid_candidate(task, model))
