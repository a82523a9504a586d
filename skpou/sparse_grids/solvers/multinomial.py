"""Multinomial logistic regression on many sparse columns, by truncated Newton steps (convex)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
#: Least curvature of a row that a preconditioner knows.
LEAST_CURVATURE = 1e-12
#: Relative change of the objective that round-off may hide.
ROUND_OFF = 1e-14


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
        self.rows = rows
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
            if precondition is None:
                precondition = self._preconditioner(pi, alpha, decay)
            direction, n_inner = self._direction(gradient, pi, penalty, precondition)
            if n_inner > PATIENCE:
                precondition = None
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
        rows = self.rows.weighted(curvature.clamp_min(LEAST_CURVATURE))
        if rows.active is None and rows.n_rows < min(self.n_exact, rows.n_columns):
            return self._inverse_by_rows(rows, alpha, decay)
        block = IterativeProblem(rows, self.targets, self.costs, self.n_exact)
        return block.preconditioner(alpha * self.scale / block.scale, decay)[1]

    def _inverse_by_rows(
        self, rows: GridRows, alpha: float, decay: float
    ) -> Callable[[Tensor], Tensor]:
        """The inverse of ``A'A + P`` through the matrix of the rows A, where these are fewer.

        It is ``P^-1 - P^-1 A' (I + A P^-1 A')^-1 A P^-1`` (Woodbury), with the kernel of the grid
        for ``A P^-1 A'``.
        """
        strength = (alpha * self.scale) ** 2
        penalty = (strength * decay**self.costs)[:, None]
        kernel = rows.grid.kernel(rows.X, rows.X, decay) * rows.root * rows.root.T
        factor, _ = factored(kernel, strength)

        def precondition(g: Tensor) -> Tensor:
            inner = torch.cholesky_solve(rows.matmul(g / penalty), factor) * strength
            return (g - rows.rmatmul(inner)) / penalty

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
