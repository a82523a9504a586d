"""Weighted multinomial logistic regression by Newton's method (convex)."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.solvers.statistics import row_blocks, rows_within


class MultinomialLogistic:
    """Gates from labels: maximise ``sum_n w_n log softmax(F theta')_{n, label}`` with a ridge.

    The products of features are formed once, so that a Newton step costs two matrix products.

    Parameters
    ----------
    features : Tensor of shape (n, q)
        Gate features F.
    labels : Tensor of shape (n,), int64
        Class of each row.
    n_classes : int
        Number K of classes.
    weight : Tensor of shape (n,)
        Non-negative weights.
    """

    #: Rows whose most probable class is nearer to 1 than this have no part in the Hessian.
    certain = 1e-12

    def __init__(self, features: Tensor, labels: Tensor, n_classes: int, weight: Tensor):
        self.features = features
        self.labels = labels
        self.weight = weight
        self.n_classes = n_classes
        self.n_features = features.shape[1]
        self._rows = torch.arange(len(labels), device=labels.device)
        device = features.device
        self._class_pairs = torch.triu_indices(n_classes, n_classes, device=device)
        self._feature_pairs = torch.triu_indices(self.n_features, self.n_features, device=device)

    def objective(self, theta: Tensor, ridge: float) -> float:
        """Negative weighted log-likelihood plus ``ridge / 2 * ||theta||^2``."""
        logits = self.features @ theta.T
        loss = torch.logsumexp(logits, 1) - logits[self._rows, self.labels]
        return float((self.weight * loss).sum() + 0.5 * ridge * theta.square().sum())

    def fit(self, theta: Tensor, ridge: float, max_iter: int = 15) -> Tensor:
        """Newton steps from a start, damped where a full step does not descend.

        Parameters
        ----------
        theta : Tensor of shape (K, q)
            Start.
        ridge : float
            Ridge relative to the mean weight of a class, positive.
        max_iter : int, default=15
            Largest number of Newton steps.

        Returns
        -------
        Tensor of shape (K, q)
        """
        ridge = ridge * float(self.weight.sum()) / self.n_classes
        value = self.objective(theta, ridge)
        damping = 0.0
        for _ in range(max_iter):
            gradient, hessian = self._derivatives(theta, ridge)
            step = None
            while step is None and damping <= 1.0:
                direction = _damped_direction(gradient, hessian, damping)
                step = self._search(theta, direction, value, ridge)
                if step is None:
                    damping = max(10 * damping, 1e-6)
            if step is None:
                break
            theta, new_value, length = step
            damping = damping / 10 if length == 1.0 else damping
            converged = value - new_value < 1e-8 * abs(value)
            value = new_value
            if converged:
                break
        return theta

    def _search(
        self, theta: Tensor, direction: Tensor, value: float, ridge: float
    ) -> tuple[Tensor, float, float] | None:
        """First of the steps 1, 1/2, 1/4, 1/8 that lowers the objective, or None."""
        for length in (1.0, 0.5, 0.25, 0.125):
            candidate = theta - length * direction
            candidate_value = self.objective(candidate, ridge)
            if candidate_value < value:
                return candidate, candidate_value, length
        return None

    def _derivatives(self, theta: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Gradient (K, q) and Hessian (K q, K q) of the objective."""
        pi = torch.softmax(self.features @ theta.T, 1)
        hessian = self._hessian(pi)
        jitter = 50 * torch.finfo(theta.dtype).eps * float(hessian.abs().max())
        hessian.diagonal().add_(ridge + jitter)
        pi[self._rows, self.labels] -= 1
        gradient = (pi * self.weight[:, None]).T @ self.features + ridge * theta
        return gradient, hessian

    def _hessian(self, pi: Tensor) -> Tensor:
        """``sum_n w pi_k (delta_kl - pi_l) F F'``, of shape (K q, K q), over uncertain rows."""
        K, q = self.n_classes, self.n_features
        k, l = self._class_pairs
        a, b = self._feature_pairs
        active = torch.nonzero(pi.amax(1) < 1 - self.certain).squeeze(1)
        sums = torch.zeros((len(k), len(a)), dtype=pi.dtype, device=pi.device)
        for block in row_blocks(len(active), rows_within(len(k) + len(a))):
            rows = active[block]
            F, p = self.features[rows], pi[rows]
            same = (k == l).to(pi.dtype)
            class_weight = p[:, k] * (same - p[:, l]) * self.weight[rows, None]
            sums += class_weight.T @ (F[:, a] * F[:, b])
        hessian = torch.empty((K, q, K, q), dtype=pi.dtype, device=pi.device)
        for i, j in ((a, b), (b, a)):
            hessian[k[:, None], i, l[:, None], j] = sums
            hessian[l[:, None], i, k[:, None], j] = sums
        return hessian.reshape(K * q, K * q)


def _damped_direction(gradient: Tensor, hessian: Tensor, damping: float) -> Tensor:
    """Newton direction with `damping` times the Hessian's diagonal added (Marquardt)."""
    if damping:
        hessian = hessian + torch.diag(damping * hessian.diagonal())
    return torch.linalg.solve(hessian, gradient.reshape(-1)).reshape(gradient.shape)


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    weight: Tensor,
    ridges: tuple[float, ...] = (1e-1, 1e-3, 1e-5, 1e-7),
    theta: Tensor | None = None,
    max_iter: int = 15,
) -> Tensor:
    """Multinomial logistic regression, continued from a strong ridge to a weak one.

    Parameters
    ----------
    features : Tensor of shape (n, q)
        Gate features.
    labels : Tensor of shape (n,), int64
        Class of each row.
    n_classes : int
        Number K of classes.
    weight : Tensor of shape (n,)
        Non-negative weights.
    ridges : tuple of float, default=(1e-1, 1e-3, 1e-5, 1e-7)
        Ridges in turn, relative to the mean weight of a class.
    theta : Tensor of shape (K, q), default=None
        Start; zero if None.
    max_iter : int, default=15
        Newton steps a ridge.

    Returns
    -------
    Tensor of shape (K, q)
    """
    problem = MultinomialLogistic(features, labels, n_classes, weight)
    if theta is None:
        theta = features.new_zeros((n_classes, features.shape[1]))
    for ridge in ridges:
        theta = problem.fit(theta, ridge, max_iter)
    return theta
