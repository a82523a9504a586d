"""What stands on the grid behind an encoder: chosen once, by a method and the coefficients' solver.

A head says what the encoder learns, which loss a descent and which problem variable projection
minimises, and whether the coefficients that were trained along are those of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from skpou.core import Rows
from skpou.core.optim import logits_of_shares
from skpou.neural_sparse_grids.descent.objectives import (
    CLASS_ALPHA,
    REGRESSION_ALPHA,
    DensityShares,
    JointSoftmax,
    Objective,
    squares_for,
)
from skpou.neural_sparse_grids.projected.varpro import least_squares_problem, softmax_problem
from skpou.sparse_grids import GridClasses, SparseGrid, indicators, one_hot_model


class Head:
    """Values, by least squares.

    Parameters
    ----------
    solver : {"gradient", "direct", "iterative", "varpro"}
        How the coefficients are found.
    alpha : float or None
        Ridge of the coefficients; None: chosen.
    """

    #: Ridge of a descent where none is given.
    default_alpha = REGRESSION_ALPHA
    #: Whether with few rows variable projection climbs from cautious and from bold ridges.
    climbs_twice = True
    #: Whether the grid's functions are logits.
    has_logits = False

    def __init__(self, solver: str, alpha: float | None):
        self.solver, self.alpha = solver, alpha

    def taught(self, rows: Rows, like: Rows | None = None) -> Rows:
        """What the encoder learns; in the units of the rows `like`, if given."""
        return rows

    def objective(self) -> type[Objective]:
        """What a descent minimises."""
        return squares_for(self.solver)

    def problem(self, cautious: bool) -> Callable[..., Any]:
        """What makes the problems of `VarproTraining`."""
        return least_squares_problem(self.alpha, cautious)

    def keeps_coef(self) -> bool:
        """Whether coefficients that were trained along are those of the model."""
        return self.solver == "gradient"


class ClassHead(Head, ABC):
    """Probabilities of classes. All that squares are minimised for learns their indicators."""

    def taught(self, rows: Rows, like: Rows | None = None) -> Rows:
        """Indicators of the classes."""
        return indicators(rows, like)[0]

    @abstractmethod
    def model(self, grid: SparseGrid, coef: Tensor, rows: Rows) -> GridClasses:
        """Model of coefficients (G, m) that were trained along, on the rows that taught them."""


class OneHotHead(ClassHead):
    """Regressions on the classes' indicators."""

    def model(self, grid: SparseGrid, coef: Tensor, rows: Rows) -> GridClasses:
        """See `ClassHead.model`."""
        return one_hot_model(grid, coef, indicators(rows)[1], rows)


class LogitsHead(ClassHead):
    """Logits of the classes (Eq. 3.23), which two of the solvers minimise the cross entropy of."""

    default_alpha = CLASS_ALPHA
    climbs_twice = False
    has_logits = True

    def taught(self, rows: Rows, like: Rows | None = None) -> Rows:
        """Shares of the classes, or their indicators."""
        return rows if self.keeps_coef() else super().taught(rows, like)

    def objective(self) -> type[Objective]:
        """See `Head.objective`."""
        return JointSoftmax if self.keeps_coef() else super().objective()

    def problem(self, cautious: bool) -> Callable[..., Any]:
        """See `Head.problem`."""
        return softmax_problem(self.alpha, cautious)

    def keeps_coef(self) -> bool:
        """Whether the encoder was trained with these very logits."""
        return self.solver in ("gradient", "varpro")

    def model(self, grid: SparseGrid, coef: Tensor, rows: Rows) -> GridClasses:
        """See `ClassHead.model`: the coefficients go with the shares that they were taught with."""
        return GridClasses(grid, coef, logits_of_shares(rows), "softmax", 1 / rows.total_weight)


class DensityHead(OneHotHead):
    """Densities of the classes, whose coefficients are always found anew."""

    def taught(self, rows: Rows, like: Rows | None = None) -> Rows:
        """Shares of the classes, or their indicators."""
        return rows if self.solver == "gradient" else super().taught(rows, like)

    def objective(self) -> type[Objective]:
        """See `Head.objective`."""
        return DensityShares if self.solver == "gradient" else super().objective()

    def keeps_coef(self) -> bool:
        """Never."""
        return False


HEADS: dict[str | None, type[Head]] = {
    None: Head,
    "one_hot": OneHotHead,
    "softmax": LogitsHead,
    "density": DensityHead,
}
