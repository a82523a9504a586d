"""Multinomial logistic regression on many sparse columns, by truncated Newton steps (convex)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skpou.core.linalg import row_blocks, rows_within
from skpou.sparse_grids.solvers.ridge import IterativeProblem, factored, largest_norm
from skpou.sparse_grids.solvers.rows import GridRows

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
#: Least curvature of a row that a preconditioner knows.
LEAST_CURVATURE = 1e-12
#: Numbers of the dense columns of a block of rows.
DENSE_NUMBERS = 8_000_000
#: Relative change of the objective that round-off may hide.
ROUND_OFF = 1e-14


def hessian(rows: GridRows, pi: Tensor) -> Tensor:
    """Second derivatives of the negative log likelihood, class by class.

    Parameters
    ----------
    rows : GridRows
        Weighted rows of p columns.
    pi : Tensor of shape (n, K)
        Probabilities of the classes.

    Returns
    -------
    Tensor of shape (K p, K p)
        The lower part alone is right.
    """
    K, p = pi.shape[1], rows.n_columns
    H = pi.new_zeros((K, p, K, p))
    for block in row_blocks(len(pi), rows_within(4 * p, DENSE_NUMBERS)):
        columns = rows.dense(block)
        for q in range(K):
            left = columns.T * pi[block, q]
            for r in range(q + 1):
                own = float(q == r) - pi[block, r : r + 1]
                H[q, :, r] += left @ (columns * own)
    return H.view(K * p, K * p)


def whitened_factor(lower: Tensor, growth: Tensor, strength: float) -> tuple[Tensor, float]:
    """Cholesky factor of a Hessian with its ridge, by columns whitened by the ridge's growth.

    Parameters
    ----------
    lower : Tensor of shape (k, k)
        The Hessian, of which the lower part is read.
    growth : Tensor of shape (k,)
        Growth of the ridge.
    strength : float
        Root of the ridge of growth 1.

    Returns
    -------
    factor : Tensor of shape (k, k)
        Lower factor of ``D^-1/2 H D^-1/2 + used I``.
    used : float
        The ridge, or more where round-off asks for it.
    """
    root = growth.sqrt()
    return factored(lower / (root[:, None] * root), strength**2)


class MultinomialRidge:
    """Multinomial logistic regression with a ridge for each column: a convex problem.

    Minimised is the negative log likelihood ``-sum_nk w_n t_nk log softmax(o + phi_n theta)_k``
    plus ``lambda/2 sum_jk D_j theta_jk^2``, where ``D_j = decay^cost_j`` and
    ``lambda = (alpha s)^2``, s the largest norm of a column of the weighted rows. Newton
    directions are preconditioned by `IterativeProblem`.

    Parameters
    ----------
    rows : GridRows
        Weighted rows ``sqrt(w_n) phi_n``.
    targets : Tensor of shape (n, K)
        Share t of every class at each row, summing to 1.
    offset : Tensor of shape (K,)
        Logits o of the coefficients zero.
    costs : Tensor of shape (p,)
        Cost of every column.
    n_exact : int
        Columns on which the preconditioner is exact.
    """

    def __init__(
        self, rows: GridRows, targets: Tensor, offset: Tensor, costs: Tensor, n_exact: int
    ):
        self.rows = rows.made_dense()
        self.targets = targets
        self.offset = offset
        self.costs = costs
        self.n_exact = n_exact
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
        hard = False
        if theta is None:
            theta = self.offset.new_zeros((len(penalty), len(self.offset)))

        def objective(theta: Tensor, logits: Tensor) -> float:
            ridge = 0.5 * float((penalty * theta.square()).sum())
            return self.negative_log_likelihood(logits) + ridge

        logits = self.logits(theta)
        value = objective(theta, logits)
        nothing = torch.zeros_like(theta), self.offset.expand_as(logits)
        if value > (least := objective(*nothing)):
            # Saturated rows have next to no curvature: from such a start nothing is found.
            (theta, logits), value = nothing, least
        for step in range(max_iter):
            pi = torch.softmax(logits, 1)
            gradient = self.rows.rmatmul(self.rows.root * (pi - self.targets)) + penalty * theta
            fresh = precondition is None
            if precondition is None:
                make = self._inverse if hard else self._preconditioner
                precondition = make(pi, alpha, decay)
            direction, n_inner = self._direction(gradient, pi, penalty, precondition)
            if n_inner > PATIENCE:
                precondition = None
                hard = hard or (fresh and n_inner > HARD and self._work() < MOST_WORK)
            promise = float((gradient * direction).sum())
            if not promise > tol * (abs(value) + ROUND_OFF):
                return theta, step
            change = self.logits(direction) - self.offset
            length = 1.0
            for _ in range(MAX_HALVINGS):
                new = objective(theta - length * direction, logits - length * change)
                if new <= value - SUFFICIENT * length * promise:
                    break
                length /= 2
            else:
                return theta, step  # Round-off hides what is left to gain.
            theta, logits, value = theta - length * direction, logits - length * change, new
        return theta, max_iter

    def _preconditioner(self, pi: Tensor, alpha: float, decay: float) -> Callable[[Tensor], Tensor]:
        """Approximate inverse of the Hessian, the same for all classes.

        The Hessian at a row, ``diag(pi) - pi pi'``, is replaced by its trace over K - 1 times the
        identity; for two classes they agree on all directions that add up to zero.
        """
        curvature = (pi * (1 - pi)).sum(1) / max(pi.shape[1] - 1, 1)
        rows = self.rows.weighted(curvature.clamp_min(LEAST_CURVATURE)).made_dense()
        block = IterativeProblem(rows, self.targets, self.costs, self.n_exact)
        return block.preconditioner(alpha * self.scale / block.scale, decay)

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
