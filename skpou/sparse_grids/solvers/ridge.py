"""Ridge regression with a ridge for each column, and its strength by log evidence.

The prior of column j is ``c_j ~ N(0, sigma^2 / (lambda decay^cost_j))`` with
``lambda = (alpha s)^2``, s the largest column norm: costlier columns, those of finer levels, are
held closer to zero. Problems are solved by the Gram matrix of the columns, or by that of the rows
where rows are fewer.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Report
from skpou.core.linalg import LEAST_ALPHA, evenly, factored, largest_norm
from skpou.sparse_grids.solvers.conjugate_gradients import conjugate_gradients
from skpou.sparse_grids.solvers.rows import GridRows

#: Ridge of data that the columns represent to round-off.
EXACT_ALPHA = 1e-12
#: Most rows from which the preconditioner of conjugate gradients is made.
GRAM_ROWS = 20_000
#: Growths of the ridge from one level to the next: kinks, smooth functions, few interactions.
DECAYS = (4.0, 16.0, 64.0)
#: First ridge and growth that are tried, in the midst of what the evidence chooses.
START = (1e-3, DECAYS[1])
#: Standard deviation of the noise, in units of y, that no rows are without: round-off.
LEAST_NOISE = 1e-15
#: Difference of twice the log evidence that says nothing.
INDIFFERENCE = 0.5
#: Factor by which conjugate gradients shrink the gradient, since what the objective then misses is
#: its square, round-off; and the most steps, after which a warning says that they did not suffice.
SHRUNK, MOST_STEPS = 1e-8, 1000


@dataclass(frozen=True)
class RidgeSolution:
    """Coefficients for one ridge.

    Attributes
    ----------
    coef : Tensor of shape (p, m)
        Coefficients; of the rows (n, m) in the dual problem.
    alpha, decay : float
        The ridge.
    rss : Tensor of shape (m,)
        Weighted sum of squared residuals, from the residuals themselves.
    size : Tensor of shape (m,)
        ``sum_j lambda decay^cost_j c_j^2``.
    log_det : float
        ``log det(I + A D^-1 A' / lambda)``.
    factor : Tensor
        Lower Cholesky factor of the matrix that was solved with.
    """

    coef: Tensor
    alpha: float
    decay: float
    rss: Tensor
    size: Tensor
    log_det: float
    factor: Tensor

    def score(self, total_weight: float, within: Tensor) -> float:
        """Twice the negative log evidence, up to a constant.

        The noise of each target is set to its most probable value.
        """
        noise = (within + self.rss + self.size) / total_weight + LEAST_NOISE**2
        return float((total_weight * noise.log()).sum() + len(noise) * self.log_det)


class RidgeProblem(ABC):
    """Weighted rows and targets, to be solved for several ridges.

    Attributes
    ----------
    scale : float
        Unit of alpha: the largest column norm, unless another is given.
    """

    scale: float

    def ridge(self, alpha: float) -> float:
        """What a relative ridge adds to squares of columns: lambda."""
        return (alpha * self.scale) ** 2

    def factored_ridge(self, alpha: float) -> float:
        """The same, no less than a matrix that is factored needs."""
        return self.ridge(max(alpha, LEAST_ALPHA))

    def explained(self, solution: RidgeSolution) -> float:
        """Size of a factored matrix less ``lambda trace((.. + lambda)^-1)``."""
        factor = solution.factor
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        return len(identity) - self.factored_ridge(solution.alpha) * float(inverse.square().sum())

    @abstractmethod
    def solve(self, alpha: float, decay: float, polish: int = 0) -> RidgeSolution:
        """Solve for one ridge, with at most so many steps of refinement.

        Without any the objective is right to second order in the coefficients' round-off.
        """

    def of_columns(self, solution: RidgeSolution) -> Tensor:
        """Coefficients (p, m) of the columns."""
        return solution.coef

    @abstractmethod
    def effective_parameters(self, solution: RidgeSolution) -> float:
        """Trace of the hat matrix."""


class GramProblem(RidgeProblem):
    """By the Gram matrix of the columns.

    Parameters
    ----------
    y : Tensor of shape (n, m)
        Targets.
    costs : Tensor of shape (p,)
        Cost of every column.
    gram : Tensor of shape (p, p), default=None
        ``A'A`` where it is known.
    """

    def __init__(self, rows: GridRows, y: Tensor, costs: Tensor, gram: Tensor | None = None):
        self.rows = rows
        self.y = y * rows.root
        self.costs = costs
        self.gram = rows.gram() if gram is None else gram
        self.right = rows.rmatmul(self.y)
        self.scale = largest_norm(self.gram.diagonal())

    def solve(self, alpha: float, decay: float, polish: int = 0) -> RidgeSolution:
        """See `RidgeProblem.solve`."""
        d = decay ** (-0.5 * self.costs)
        ridge, least = self.ridge(alpha), self.factored_ridge(alpha)
        factor, used = factored(self.gram * d[:, None] * d, least)
        log_det = float(2 * factor.diagonal().log().sum() - len(d) * math.log(used))

        def precondition(g: Tensor) -> Tensor:
            return d[:, None] * torch.cholesky_solve(d[:, None] * g, factor)

        penalty = ridge / d.square()
        coef = precondition(self.right)
        if polish:
            eps = torch.finfo(d.dtype).eps
            coef, _ = conjugate_gradients(
                self.rows, self.y, penalty, precondition, coef, max_iter=polish, tol=eps
            )
        residual = self.y - self.rows.matmul(coef)
        size = (penalty[:, None] * coef.square()).sum(0)
        rss = residual.square().sum(0)
        return RidgeSolution(coef, alpha, decay, rss, size, log_det, factor)

    def effective_parameters(self, solution: RidgeSolution) -> float:
        """``p - lambda trace((A'A + lambda)^-1)``."""
        return self.explained(solution)


class KernelProblem(RidgeProblem):
    """By the Gram matrix of the rows, for more columns than rows.

    Parameters
    ----------
    y : Tensor of shape (n, m)
        Targets.
    scale : float, default=None
        Unit of the ridge; None: the largest column norm.
    """

    def __init__(self, rows: GridRows, y: Tensor, scale: float | None = None):
        self.rows = rows
        self.y = y * rows.root
        self.scale = largest_norm(rows.column_squares()) if scale is None else scale
        self._kernels: dict[float, Tensor] = {}

    def kernel(self, decay: float) -> Tensor:
        """Gram matrix of the weighted rows without ridge."""
        if decay not in self._kernels:
            self._kernels = {decay: self.rows.kernel(decay)}
        return self._kernels[decay]

    def solve(self, alpha: float, decay: float, polish: int = 0) -> RidgeSolution:
        """See `RidgeProblem.solve`; coefficients are those of the rows."""
        kernel = self.kernel(decay)
        ridge, least = self.ridge(alpha), self.factored_ridge(alpha)
        factor, used = factored(kernel, least)
        n = len(kernel)
        log_det = float(2 * factor.diagonal().log().sum() - n * math.log(used))
        dual = torch.cholesky_solve(self.y, factor)
        for _ in range(polish):
            dual += torch.cholesky_solve(self.y - kernel @ dual - ridge * dual, factor)
        residual = self.y - kernel @ dual
        size = ridge * (dual * (kernel @ dual)).sum(0)
        return RidgeSolution(dual, alpha, decay, residual.square().sum(0), size, log_det, factor)

    def effective_parameters(self, solution: RidgeSolution) -> float:
        """``n - lambda trace((A A' + lambda)^-1)``."""
        return self.explained(solution)

    def of_columns(self, solution: RidgeSolution) -> Tensor:
        """See `RidgeProblem.of_columns`."""
        return solution.decay ** -self.rows.costs()[:, None] * self.rows.rmatmul(solution.coef)


class IterativeProblem(RidgeProblem):
    """By conjugate gradients, for more columns than a Gram matrix is made for.

    The preconditioner is exact on the first columns and diagonal on the others.

    Parameters
    ----------
    y : Tensor of shape (n, m)
        Targets.
    costs : Tensor of shape (p,)
        Cost of every column.
    n_exact : int
        Columns on which the preconditioner is exact.
    tol : float, default=SHRUNK
        Stop when the gradient has shrunk by this factor.
    max_iter : int, default=MOST_STEPS
        Most iterations.
    """

    def __init__(
        self,
        rows: GridRows,
        y: Tensor,
        costs: Tensor,
        n_exact: int,
        tol: float = SHRUNK,
        max_iter: int = MOST_STEPS,
    ):
        self.rows = rows
        self.y = y * rows.root
        self.costs = costs
        self.squares = rows.column_squares()
        self.scale = largest_norm(self.squares)
        self.n_exact = min(n_exact, rows.n_columns)
        self.tol = tol
        self.max_iter = max_iter
        self.n_iter = 0

    @functools.cached_property
    def gram(self) -> Tensor:
        """Gram matrix of the first columns, estimated from some rows where they are many."""
        rows, n_columns = self.rows, self.n_exact
        if rows.n_rows <= GRAM_ROWS:
            return rows.gram(last=n_columns)
        weight, some = rows.root[:, 0].square(), evenly(rows.n_rows, GRAM_ROWS)
        gram = GridRows(rows.grid, rows.X[some], weight[some], rows.active).gram(last=n_columns)
        return gram * (weight.sum() / weight[some].sum())

    def blocks(self, alpha: float, decay: float) -> tuple[Tensor, Tensor]:
        """Block of ``A'A + ridge`` by its factor in whitened columns, diagonal of the others.

        Returns
        -------
        factor : Tensor of shape (k, k)
            Lower Cholesky factor.
        rest : Tensor of shape (p - k,)
            Diagonal.
        """
        k = len(self.gram)
        d = decay ** (-0.5 * self.costs[:k])
        least = self.factored_ridge(alpha)
        factor, _ = factored(self.gram * d[:, None] * d, least)
        return factor, (self.squares + least * decay**self.costs)[k:]

    def penalty(self, alpha: float, decay: float) -> Tensor:
        """Ridge of every column, (p,)."""
        return self.ridge(alpha) * decay**self.costs

    def preconditioner(self, alpha: float, decay: float) -> Callable[[Tensor], Tensor]:
        """Approximate inverse of ``A'A + ridge``; to round-off where rows are few."""
        if self.rows.n_rows < self.n_exact:
            return self._inverse_by_rows(alpha, decay)
        factor, rest = self.blocks(alpha, decay)
        k = len(factor)
        d = decay ** (-0.5 * self.costs[:k, None])

        def precondition(g: Tensor) -> Tensor:
            exact = d * torch.cholesky_solve(d * g[:k], factor)
            return torch.cat([exact, g[k:] / rest[:, None]])

        return precondition

    def _inverse_by_rows(self, alpha: float, decay: float) -> Callable[[Tensor], Tensor]:
        """The inverse of ``A'A + P`` through the matrix of the rows A, where these are fewer.

        It is ``P^-1 - P^-1 A' (I + A P^-1 A')^-1 A P^-1`` (Woodbury).
        """
        alpha = max(alpha, LEAST_ALPHA)
        strength, penalty = self.ridge(alpha), self.penalty(alpha, decay)[:, None]
        factor, _ = factored(self.rows.kernel(decay), strength)

        def precondition(g: Tensor) -> Tensor:
            inner = torch.cholesky_solve(self.rows.matmul(g / penalty), factor) * strength
            return (g - self.rows.rmatmul(inner)) / penalty

        return precondition

    def solve(self, alpha: float, decay: float, polish: int = 0) -> RidgeSolution:
        """See `RidgeProblem.solve`; the log determinant is not known (NaN)."""
        precondition = self.preconditioner(alpha, decay)
        penalty = self.penalty(alpha, decay)
        start = self.y.new_zeros((len(self.costs), self.y.shape[1]))
        coef, self.n_iter = conjugate_gradients(
            self.rows, self.y, penalty, precondition, start, max_iter=self.max_iter, tol=self.tol
        )
        rss = (self.y - self.rows.matmul(coef)).square().sum(0)
        size = (penalty[:, None] * coef.square()).sum(0)
        factor, _ = self.blocks(alpha, decay)
        return RidgeSolution(coef, alpha, decay, rss, size, float("nan"), factor)

    def effective_parameters(self, solution: RidgeSolution) -> float:
        """That of the block and of the other columns as if each were alone."""
        _, rest = self.blocks(solution.alpha, solution.decay)
        alone = (self.squares[len(self.gram) :] / rest).sum()
        return self.explained(solution) + float(alone)


def best_ridge(
    problem: RidgeProblem,
    total_weight: float,
    within: Tensor,
    *,
    decays: tuple[float, ...] = DECAYS,
    start: tuple[float, float] = START,
    stride: int = 2,
    report: Report | None = None,
) -> RidgeSolution:
    """Solution with the ridge of largest log evidence.

    Parameters
    ----------
    problem : RidgeProblem
        Not an iterative one.
    within : Tensor of shape (m,)
        Sums of squares within repeated points.
    decays, start, stride, report
        As in `search_ridge`.
    """
    solutions: dict[tuple[float, float], RidgeSolution] = {}

    def score(alpha: float, decay: float) -> float:
        solutions[alpha, decay] = solution = problem.solve(alpha, decay)
        return solution.score(total_weight, within)

    best = search_ridge(score, decays=decays, start=start, stride=stride, report=report)
    return solutions[best]


def search_ridge(
    score: Callable[[float, float], float],
    *,
    decays: tuple[float, ...] = DECAYS,
    start: tuple[float, float] = START,
    stride: int = 2,
    report: Report | None = None,
) -> tuple[float, float]:
    """Ridge of least score: alpha in half decades, from round-off to 1, and decay.

    Where the score does not tell ridges apart, the larger one: it admits more noise.

    Parameters
    ----------
    score : callable
        Twice a negative log likelihood, or evidence, of an alpha and a decay.
    decays : tuple of float
        Growths of the ridge from one level to the next that may be tried, in order.
    stride : int
        Half decades of the first steps; 1 where `start` is a good guess.

    Returns
    -------
    alpha, decay : float
    """
    tried: dict[tuple[int, int], float] = {}
    lowest = _half_decades(LEAST_ALPHA)

    def value(k: int, j: int) -> float:
        if (k, j) not in tried:
            alpha = _ridge(k)
            tried[k, j] = score(alpha, decays[j])
            if report is not None:
                report(f"alpha {alpha:.1e}, decay {decays[j]:g}: score {tried[k, j]:.6g}")
        return tried[k, j]

    def climb(k: int, j: int) -> int:
        """Best alpha for one decay."""
        step = stride
        while step:
            near = [k + s for s in (step, -step) if 0 <= k + s <= lowest]
            better = next((i for i in near if value(i, j) < value(k, j)), None)
            k, step = (k, step // 2) if better is None else (better, step)
        return k

    j = decays.index(start[1])
    k = climb(_half_decades(start[0]), j)
    for direction in (1, -1):
        moved = False
        while 0 <= j + direction < len(decays):
            other = climb(k, j + direction)
            if value(other, j + direction) >= value(k, j):
                break
            k, j, moved = other, j + direction, True
        if moved:
            break
    least = value(k, j)
    k = min(i for i, other in tried if other == j and tried[i, j] <= least + INDIFFERENCE)
    return _ridge(k), decays[j]


def _half_decades(alpha: float) -> int:
    """Half decades that a ridge is below 1."""
    return round(-2 * math.log10(alpha))


def _ridge(half_decades: int) -> float:
    """Ridge so many half decades below 1."""
    return 10.0 ** (-half_decades / 2)
