"""What descent through a sparse grid minimises, one objective for each way to the coefficients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import factored
from skpou.core.optim import logits_of_shares
from skpou.sparse_grids import (
    GIVEN_DECAY,
    N_STEPS,
    DenseColumns,
    GridRows,
    SparseGrid,
    conjugate_gradients,
    direct_problem,
    log_shares,
)

#: Rows a step where the coefficients are solved for, for each function of the grid, and at least.
ROWS_A_FUNCTION, LEAST_ROWS = 16, 4096
#: Numbers of a dense basis matrix that may be differentiated through: 160 MB, and its gradient.
DENSE_NUMBERS = 20_000_000
#: Most inner steps (thesis: t of Eq. 3.13), and the share of the gradient at which they end. Some
#: three steps never come to the coefficients of fine functions, by which an embedding unfolds; and
#: the encoder's gradient is that at the solution, from which it is off by as much as these are.
INNER_STEPS, INNER_TOL = 20, 1e-6
#: Inner steps beyond which the Gram matrix that preconditions it is made anew for the next step
#: of the encoder, and most columns of one, whose factor takes less than a second. Without it
#: hundreds of steps would be needed.
STALE, MOST_PRECONDITIONED = 5, 3000
#: Ridge of alpha="auto": of a regression, and of classes, whose logits would else grow without end
#: where a class stands alone.
REGRESSION_ALPHA, CLASS_ALPHA = 1e-4, 1e-2
#: Standard deviation of the first coefficients of level 1: small beside targets of about unit rms,
#: and not zero, for the encoder would have no gradient.
FIRST_DEVIATION = 0.1
#: Ridge of a step of smoothing relative to its diagonal: above round-off, far below any smoothing.
SMOOTHING_RIDGE = 1e-12


@dataclass(frozen=True)
class DescentOptions:
    """How to descend; the names are those of the estimators' parameters."""

    coef_solver: str = "gradient"
    optimizer: str = "adam"
    learning_rate: float = 1e-2
    batch_size: int = 256
    max_iter: int = 200
    tol: float = 1e-8
    alpha: float | None = None
    n_iter_no_change: int = 10


class Objective(ABC):
    """Loss of a minibatch for the embedding of its rows."""

    def __init__(
        self, grid: SparseGrid, rows: Rows, options: DescentOptions, rng: np.random.Generator
    ):
        self.grid, self.rows, self.options = grid, rows, options
        self.costs = torch.as_tensor(grid.costs(), device=rows.X.device).to(rows.X.dtype)[:, None]
        self.alpha = self.default_alpha if options.alpha is None else options.alpha
        self.coef = self.first_coef(rng)

    default_alpha = REGRESSION_ALPHA

    def first_coef(self, rng: np.random.Generator) -> Tensor:
        """Coefficients (G, m) to start from."""
        return self.rows.y.new_zeros((self.grid.n_columns, self.rows.n_outputs))

    @property
    def parameters(self) -> list[Tensor]:
        """What is descended besides the encoder's parameters."""
        return []

    def penalty(self) -> Tensor:
        """Ridge (G, 1) of the coefficients in a mean of squares."""
        return self.alpha**2 * GIVEN_DECAY**self.costs

    def batch_size(self) -> int:
        """Rows a step."""
        enough = max(LEAST_ROWS, ROWS_A_FUNCTION * self.grid.n_columns)
        return max(min(enough, DENSE_NUMBERS // self.grid.n_columns), 1)

    @abstractmethod
    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean over the rows of a minibatch, differentiable by the embedding u."""

    def error(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum over rows of the loss for the coefficients as they are, no ridge."""
        values = self.grid.evaluate(u, self.coef)
        return weight @ (y - values).square().mean(1)


class JointSquares(Objective):
    """Coefficients descended along with the encoder, squared errors (SGD of the thesis)."""

    def first_coef(self, rng: np.random.Generator) -> Tensor:
        """Draws of standard deviation 0.1, halved from level to level."""
        shape = (self.grid.n_columns, self.rows.n_outputs)
        draws = torch.as_tensor(rng.standard_normal(shape), device="cpu").to(self.rows.y)
        return (FIRST_DEVIATION * draws * 0.5**self.costs).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """The coefficients."""
        return [self.coef]

    def batch_size(self) -> int:
        """As asked for."""
        return self.options.batch_size

    def ridge(self) -> Tensor:
        """The ridge's share of the loss."""
        return (self.penalty() * self.coef.square()).sum() / self.coef.shape[1]

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`."""
        return self.error(u, y, weight) / weight.sum() + self.ridge()


class JointSoftmax(JointSquares):
    """Coefficients descended along with the encoder, cross entropy (Eq. 3.23)."""

    default_alpha = CLASS_ALPHA

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.offset = logits_of_shares(self.rows)

    def error(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy."""
        logits = self.grid.evaluate(u, self.coef) + self.offset
        return -(weight @ (y * torch.log_softmax(logits, 1)).sum(1))


class SolvedSquares(Objective):
    """Coefficients by least squares for every step (LS, Algorithm 1 of the thesis).

    At the solution the loss does not change with the coefficients to first order, so that nothing
    need be differentiated through the solution.
    """

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`."""
        with torch.no_grad():
            rows = GridRows(self.grid, u.detach(), weight)
            problem = direct_problem(rows, y, scale=math.sqrt(float(weight.sum())))
            self.coef = problem.of_columns(problem.solve(self.alpha, GIVEN_DECAY))
        return self.error(u, y, weight) / weight.sum()


class IteratedSquares(Objective):
    """Steps of conjugate gradients from the last coefficients (ILS, Algorithm 2).

    The steps end near their fixed point, the solution of least squares, and are differentiated
    there: the loss with its ridge does not change with the coefficients to first order, so that
    nothing is kept of the steps.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.precondition: Callable[[Tensor], Tensor] | None = None
        self.n_steps = 0

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`; the coefficients are g of Eq. 3.13."""
        with torch.no_grad():
            rows = GridRows(self.grid, u.detach(), weight)
            penalty = float(weight.sum()) * self.penalty()[:, 0]
            right = y * weight.sqrt()[:, None]
            fresh = self.precondition is None or self.n_steps > STALE
            self._steps(rows, right, penalty, fresh)
            if self.n_steps == INNER_STEPS and not fresh:
                # The embedding has moved too far from where the preconditioner was made.
                self._steps(rows, right, penalty, True)
        return self.error(u, y, weight) / weight.sum()

    def _preconditioner(self, rows: GridRows, penalty: Tensor) -> Callable[[Tensor], Tensor]:
        """Inverse of the Gram matrix, or of its diagonal where columns are many."""
        if self.grid.n_columns > MOST_PRECONDITIONED:
            diagonal = (rows.column_squares() + penalty)[:, None]
            least = torch.finfo(diagonal.dtype).tiny
            return lambda g: g / diagonal.clamp_min(least)
        factor, _ = factored(rows.gram() + torch.diag(penalty), 0.0)
        return lambda g: torch.cholesky_solve(g, factor)

    def _steps(self, rows: GridRows, right: Tensor, penalty: Tensor, anew: bool) -> None:
        if anew or self.precondition is None:
            self.precondition = self._preconditioner(rows, penalty)
        self.coef, self.n_steps = conjugate_gradients(
            rows, right, penalty, self.precondition, self.coef, max_iter=INNER_STEPS, tol=INNER_TOL
        )


class DensityShares(Objective):
    """Densities of the classes in the box of the grid, judged by Bayes' rule.

    The coefficients ``c = (R + lambda S)^-1 Phi' t / W`` are linear in the rows and differentiated
    through; each row is left out of its own density. See
    `skpou.sparse_grids.classes.DensityProblem`.
    """

    #: Length of the smoothing: about the mesh width of level 5, the default.
    default_alpha = 0.03

    def __init__(self, *args) -> None:
        super().__init__(*args)
        mass, stiffness = self.grid.mass_and_stiffness(self.rows.X)
        root = mass.diagonal().rsqrt()[:, None]
        step = mass + self.alpha**2 / N_STEPS * stiffness
        factor, _ = factored(step * root * root.T, SMOOTHING_RIDGE)
        smoother = root * torch.cholesky_solve(torch.diag(root[:, 0]), factor)
        for _ in range(N_STEPS - 1):
            smoother = root * torch.cholesky_solve(root * (mass @ smoother), factor)
        self.smoother = smoother

    def loss(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See `Objective.loss`."""
        K = DenseColumns.apply(u, self.grid.plan, self.grid.factors)
        total = weight.sum()
        own = weight[:, None] * y
        smoothed = K @ self.smoother
        coef = self.smoother @ (K.T @ own) / total
        itself = own * (smoothed * K).sum(1, keepdim=True) / total
        self.coef = coef.detach()
        shares = log_shares(K @ coef - itself, 1 / math.sqrt(float(total)))
        return -(own * shares).sum() / total

    def error(self, u: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy."""
        values = self.grid.evaluate(u, self.coef)
        floor = 1 / math.sqrt(self.rows.total_weight)
        return -(weight @ (y * log_shares(values, floor)).sum(1))


def squares_for(coef_solver: str) -> type[Objective]:
    """Squared errors, and a way to the coefficients."""
    ways: dict[str, type[Objective]] = {"direct": SolvedSquares, "iterative": IteratedSquares}
    return ways.get(coef_solver, JointSquares)
