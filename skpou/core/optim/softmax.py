"""Multinomial logistic regression on columns of any kind, by truncated Newton steps (convex)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import (
    COPIES_SUMMED,
    largest_norm,
    row_blocks,
    rows_within,
    whitened_factor,
)

if TYPE_CHECKING:
    from typing import Self

#: Share of a full step's promise that a step must keep (Armijo).
SUFFICIENT = 1e-4
#: Most halvings of a step.
MAX_HALVINGS = 30
#: Decrease of the gradient that suffices for one Newton direction.
FORCING = 0.1
#: Most conjugate gradient steps for one Newton direction.
MAX_INNER = 200
#: Conjugate gradient steps after which a new preconditioner pays.
PATIENCE = 10
#: Conjugate gradient steps with a new preconditioner after which the Hessian itself is factored,
#: and most multiplications of that, which take as long as some hundred steps.
HARD, MOST_WORK = 20, 5e8
#: Multiplications for which the Hessian of a step takes no longer than some products with the rows.
CHEAP_WORK = 3e6
#: Numbers of the dense columns of a block of rows.
DENSE_NUMBERS = 8_000_000
#: Numbers up to which the curvature of all pairs of classes is formed at once.
FEW_NUMBERS = 500_000
#: Relative change of the objective that round-off may hide.
ROUND_OFF = 1e-14


class WeightedRows(Protocol):
    """Weighted rows ``sqrt(w_i) phi(x_i)'`` of some columns."""

    root: Tensor
    n_columns: int

    @property
    def n_rows(self) -> int:
        """Number n of rows."""

    def made_dense(self) -> Self:
        """The same rows, multiplied as a dense matrix where it is small."""

    def dense(self, rows: slice) -> Tensor:
        """Weighted columns (k, p) at some rows."""

    def matmul(self, coef: Tensor) -> Tensor:
        """Products (n, m) with coefficients (p, m)."""

    def rmatmul(self, residual: Tensor) -> Tensor:
        """Products (p, m) of the transposed rows with residuals (n, m)."""

    def column_squares(self) -> Tensor:
        """Squared norm of every column, (p,)."""


class DenseRows:
    """Weighted rows of a matrix of columns, as `WeightedRows`.

    Parameters
    ----------
    columns : Tensor of shape (n, p)
        The columns.
    root : Tensor of shape (n, 1)
        Roots of the rows' weights.
    """

    def __init__(self, columns: Tensor, root: Tensor):
        self.root = root
        self.matrix = columns * root
        self.n_rows, self.n_columns = columns.shape

    def made_dense(self) -> DenseRows:
        """The rows themselves."""
        return self

    def dense(self, rows: slice) -> Tensor:
        """See `WeightedRows.dense`."""
        return self.matrix[rows]

    def matmul(self, coef: Tensor) -> Tensor:
        """See `WeightedRows.matmul`."""
        return self.matrix @ coef

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `WeightedRows.rmatmul`."""
        return self.matrix.T @ residual

    def column_squares(self) -> Tensor:
        """See `WeightedRows.column_squares`."""
        return self.matrix.square().sum(0)


def shares_of_classes(rows: Rows) -> Tensor:
    """Share (K,) of every class in the weights of all rows."""
    return (rows.weight[:, None] * rows.y).sum(0) / rows.weight.sum()


def logits_of_shares(rows: Rows) -> Tensor:
    """Logits (K,) of the classes' shares, one row of each added: a class may be missing."""
    share = shares_of_classes(rows) + 1 / rows.total_weight
    return (share / share.sum()).log()


def hessian(rows: WeightedRows, pi: Tensor) -> Tensor:
    """Second derivatives of the negative log likelihood, class by class.

    Parameters
    ----------
    rows : WeightedRows
        Weighted rows of p columns.
    pi : Tensor of shape (n, K)
        Probabilities of the classes.

    Returns
    -------
    Tensor of shape (K p, K p)
        The lower part alone is right.
    """
    (n, K), p = pi.shape, rows.n_columns
    if n * K * K * p <= FEW_NUMBERS:  # One product is quicker than one for each pair of classes.
        bent = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]
        columns = rows.dense(slice(0, n))
        right = (bent[:, :, :, None] * columns[:, None, None, :]).view(n, -1)
        return (columns.T @ right).view(p, K, K, p).transpose(0, 1).reshape(K * p, K * p)
    H = pi.new_zeros((K, p, K, p))
    for block in row_blocks(len(pi), rows_within(COPIES_SUMMED * p, DENSE_NUMBERS)):
        columns = rows.dense(block)
        for q in range(K):
            left = columns.T * pi[block, q]
            for r in range(q + 1):
                own = float(q == r) - pi[block, r : r + 1]
                H[q, :, r] += left @ (columns * own)
    return H.view(K * p, K * p)


class _Point(NamedTuple):
    """Coefficients (p, K), their logits (n, K) and the value there."""

    theta: Tensor
    logits: Tensor
    value: float


class MultinomialRidge:
    """Multinomial logistic regression with a ridge for each column: a convex problem.

    Minimised is the negative log likelihood ``-sum_nk w_n t_nk log softmax(o + phi_n theta)_k``
    plus ``lambda/2 sum_jk D_j theta_jk^2``, where ``D_j = decay^cost_j`` and
    ``lambda = (alpha s)^2``, s the largest norm of a column of the weighted rows. Newton
    directions are preconditioned by the Hessian of an earlier step.

    Parameters
    ----------
    rows : WeightedRows
        Weighted rows ``sqrt(w_n) phi_n``.
    targets : Tensor of shape (n, K)
        Share t of every class at each row, summing to 1.
    offset : Tensor of shape (K,)
        Logits o of the coefficients zero.
    costs : Tensor of shape (p,)
        Cost of every column.
    """

    #: Multiplications up to which every step has its own Hessian.
    cheap_work = CHEAP_WORK

    def __init__(self, rows: WeightedRows, targets: Tensor, offset: Tensor, costs: Tensor):
        self.rows = rows.made_dense()
        self.targets = targets
        self.offset = offset
        self.costs = costs
        self.scale = largest_norm(rows.column_squares())

    def logits(self, theta: Tensor) -> Tensor:
        """Logits (n, K) at the rows."""
        return self.offset + self.rows.matmul(theta) / self.rows.root

    def negative_log_likelihood(self, logits: Tensor) -> float:
        """Weighted sum over the rows."""
        terms = self.targets * torch.log_softmax(logits, 1)
        return -float((self.rows.root.square() * terms).sum())

    def fit(
        self,
        alpha: float,
        decay: float,
        theta: Tensor | None = None,
        *,
        tol: float = 1e-10,
        max_iter: int = 100,
    ) -> tuple[Tensor, int]:
        """Newton steps, each by preconditioned conjugate gradients, with line search.

        Parameters
        ----------
        alpha, decay : float
            The ridge.
        theta : Tensor of shape (p, K), default=None
            Start; zero if None.
        tol : float, default=1e-10
            Stop when a step promises less than this share of the objective.
        max_iter : int, default=100
            Most Newton steps.

        Returns
        -------
        theta : Tensor of shape (p, K)
        n_iter : int
            Newton steps done; `max_iter` where these did not suffice.
        """
        penalty = ((alpha * self.scale) ** 2 * decay**self.costs)[:, None]
        precondition: Callable[[Tensor], Tensor] | None = None
        hard, exact, cheap = False, False, self._work() < self.cheap_work
        at = self._start(theta, penalty)
        for step in range(max_iter):
            pi = torch.softmax(at.logits, 1)
            gradient = self.rows.rmatmul(self.rows.root * (pi - self.targets)) + penalty * at.theta
            fresh = precondition is None
            if precondition is None:
                exact = hard or cheap
                make = self._inverse if exact else self.preconditioner
                precondition = make(pi, alpha, decay)
            if fresh and exact:
                direction, n_inner = precondition(gradient), 0
            else:
                direction, n_inner = self._direction(gradient, pi, penalty, precondition)
            if n_inner > PATIENCE or cheap:
                precondition = None
                hard = hard or (fresh and n_inner > HARD and self._work() < MOST_WORK)
            promise = float((gradient * direction).sum())
            if not promise > tol * (abs(at.value) + ROUND_OFF):
                return at.theta, step
            found = self._shortened(at, direction, promise, penalty)
            if found is None:
                return at.theta, step  # Round-off hides what is left to gain.
            at, length = found
            # What Newton's own steps promise falls by squares.
            if fresh and exact and length == 1.0 and promise <= math.sqrt(tol) * abs(at.value):
                return at.theta, step + 1
        return at.theta, max_iter

    def _at(self, theta: Tensor, logits: Tensor, penalty: Tensor) -> _Point:
        """Coefficients with what they are worth."""
        ridge = 0.5 * float((penalty * theta.square()).sum())
        return _Point(theta, logits, self.negative_log_likelihood(logits) + ridge)

    def _start(self, theta: Tensor | None, penalty: Tensor) -> _Point:
        """The better of a start and of nothing."""
        if theta is None:
            theta = self.offset.new_zeros((len(penalty), len(self.offset)))
        given = self._at(theta, self.logits(theta), penalty)
        nothing = self._at(torch.zeros_like(theta), self.offset.expand_as(given.logits), penalty)
        # Saturated rows have next to no curvature: from such a start nothing is found.
        return nothing if given.value > nothing.value else given

    def _shortened(
        self, at: _Point, direction: Tensor, promise: float, penalty: Tensor
    ) -> tuple[_Point, float] | None:
        """First of ever shorter steps that lowers the value, with its length."""
        change = self.logits(direction) - self.offset
        length = 1.0
        for _ in range(MAX_HALVINGS):
            moved = self._at(at.theta - length * direction, at.logits - length * change, penalty)
            if moved.value <= at.value - SUFFICIENT * length * promise:
                return moved, length
            length /= 2
        return None

    def preconditioner(self, pi: Tensor, alpha: float, decay: float) -> Callable[[Tensor], Tensor]:
        """Approximate inverse of the Hessian; where columns are few, the inverse."""
        return self._inverse(pi, alpha, decay)

    def _work(self) -> float:
        """Multiplications of one `_inverse`."""
        size = float(self.rows.n_columns * len(self.offset))
        return size**2 * (self.rows.n_rows + size / 3)

    def _inverse(self, pi: Tensor, alpha: float, decay: float) -> Callable[[Tensor], Tensor]:
        """Inverse of the Hessian, to round-off."""
        n_classes = pi.shape[1]
        growth = (decay**self.costs).repeat(n_classes)[:, None]
        factor, _ = whitened_factor(hessian(self.rows, pi), growth[:, 0], alpha * self.scale)

        def precondition(g: Tensor) -> Tensor:
            right = g.T.reshape(-1, 1) / growth.sqrt()
            inner = torch.cholesky_solve(right, factor) / growth.sqrt()
            return inner.view(n_classes, -1).T

        return precondition

    def _direction(
        self,
        gradient: Tensor,
        pi: Tensor,
        penalty: Tensor,
        precondition: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, int]:
        """Newton direction by conjugate gradients.

        Returns the number of their steps, too.
        """
        direction = torch.zeros_like(gradient)
        r = gradient.clone()
        z = precondition(r)
        p = z.clone()
        gamma = float((r * z).sum())
        target = FORCING**2 * gamma
        for step in range(MAX_INNER):
            if gamma <= target or not gamma > 0:
                return direction, step
            u = self.rows.matmul(p)
            curved = pi * (u - (pi * u).sum(1, keepdim=True))
            q = self.rows.rmatmul(curved) + penalty * p
            bent = float((p * q).sum())
            if not bent > 0:
                return direction, step
            length = gamma / bent
            direction += length * p
            r -= length * q
            z = precondition(r)
            gamma, before = float((r * z).sum()), gamma
            p = z + (gamma / before) * p
        return direction, MAX_INNER
