"""Weighted multinomial logistic regression by Newton's method (convex)."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.core.linalg import COPIES_SUMMED, WeightedSums, row_blocks, rows_within, solve_each

#: Ridges in turn: from the solution of one the next takes five Newton steps, zero being far from
#: where the last lies; and most steps for each. Of 54 fits of the labels of pieces one took 14.
RIDGES, MOST_STEPS = (1e-1, 1e-3, 1e-5, 1e-7), 15
#: Rows from which on the Hessian is summed for all pairs of classes at once.
MANY_ROWS = 5000
#: Factor of the damping after a failure and a success, and the first one.
TENFOLD, FIRST_DAMPING = 10, 1e-6
#: Lengths of a step that are tried before it is damped more.
LENGTHS = (1.0, 0.5, 0.25, 0.125)
#: Relative decrease by which a step has converged: the next one's is about its square.
CONVERGED = 1e-8
#: Pairs of classes for each feature from which on products of features are formed for all at once.
SEVERAL_PAIRS = 0.75
#: What the diagonal is raised by, in units of round-off: the Hessian of rows that are certain of
#: their class is singular.
JITTER = 50


class MultinomialLogistic:
    """Gates from labels or probabilities: maximise ``sum_nk w_n t_nk log softmax(F theta')_nk``.

    A ridge on theta keeps the maximum finite. Several problems on the same rows are solved in
    one batch, each with its own damping. The products of features are formed once, so that a
    Newton step costs two matrix products.

    Parameters
    ----------
    features : Tensor of shape (n, q), or (B, n, q)
        Gate features F, the same for all problems of a batch or one set each.
    targets : Tensor of shape (n,), int64, or (n, K) or (B, n, K)
        Class of each row; or its probabilities t, which sum to 1 over the classes.
    weight : Tensor of shape (n,), or (B, n)
        Non-negative weights.
    """

    #: Rows whose most probable class is nearer to 1 than this have no part in the Hessian.
    certain = 1e-12
    #: Relative decrease that is not worth a step.
    negligible = 1e-14

    def __init__(self, features: Tensor, targets: Tensor, n_classes: int, weight: Tensor):
        self.features = features
        self.labels = targets if targets.ndim == 1 else None
        self.targets = targets  # where there are no labels
        self.weight = weight
        self.n_classes = n_classes
        self.n_features = features.shape[-1]
        self._rows = torch.arange(features.shape[-2], device=features.device)
        device = features.device
        self._class_pairs = torch.triu_indices(n_classes, n_classes, device=device)
        self._feature_pairs = torch.triu_indices(self.n_features, self.n_features, device=device)

    def objective(self, theta: Tensor, ridge: Tensor | float) -> Tensor:
        """Negative weighted log-likelihood plus ``ridge / 2 * ||theta||^2`` of each problem."""
        logits = self.features @ theta.mT
        if self.labels is None:
            loss = -(self.targets * torch.log_softmax(logits, -1)).sum(-1)
        else:
            loss = torch.logsumexp(logits, 1) - logits[self._rows, self.labels]
        return (self.weight * loss).sum(-1) + 0.5 * ridge * theta.square().sum((-2, -1))

    def fit(self, theta: Tensor, ridge: float, max_iter: int = MOST_STEPS) -> Tensor:
        """Newton steps from a start, damped where a full step does not descend.

        Parameters
        ----------
        theta : Tensor of shape (K, q), or (B, K, q)
            Start.
        ridge : float
            Ridge relative to the mean weight of a class, positive.
        max_iter : int, default=MOST_STEPS
            Largest number of Newton steps.

        Returns
        -------
        Tensor of the shape of theta
        """
        # A problem whose rows weigh nothing has any solution; its ridge gives zero.
        total = self.weight.sum(-1)
        absolute = ridge * torch.where(total > 0, total, 1.0) / self.n_classes
        value = self.objective(theta, absolute)
        damping = torch.zeros_like(value)
        for _ in range(max_iter):
            gradient, hessian = self.derivatives(theta, absolute)
            length = torch.zeros_like(value)
            new_value = value
            direction = damped_direction(gradient, hessian, damping)
            # Twice the decrease that the quadratic model promises
            promise = (gradient * direction).sum((-2, -1))
            damping = torch.where(promise <= self.negligible * value.abs(), 2.0, damping)
            while bool(((length == 0) & (damping <= 1)).any()):
                open_ = (length == 0) & (damping <= 1)
                theta, new_value, found = self._search(theta, direction, new_value, absolute, open_)
                length = torch.where(open_, found, length)
                failed = open_ & (found == 0)
                damping = torch.where(failed, (TENFOLD * damping).clamp_min(FIRST_DAMPING), damping)
                if bool(failed.any()):
                    direction = damped_direction(gradient, hessian, damping)
            damping = torch.where(length == 1, damping / TENFOLD, damping)
            converged = value - new_value < CONVERGED * value.abs()
            value = new_value
            if bool(converged.all()):
                break
        return theta

    def _search(
        self, theta: Tensor, direction: Tensor, value: Tensor, ridge: Tensor, open_: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take the first of the steps 1, 1/2, 1/4, 1/8 that lowers an open problem's objective.

        Returns theta, the objectives and the lengths of the steps, 0 where none was taken.
        """
        taken = torch.zeros_like(value)
        for length in LENGTHS:
            candidate = theta - length * direction
            candidate_value = self.objective(candidate, ridge)
            lower = open_ & (taken == 0) & (candidate_value < value)
            theta = torch.where(lower[..., None, None], candidate, theta)
            value = torch.where(lower, candidate_value, value)
            taken = torch.where(lower, length, taken)
            if bool((~open_ | (taken > 0)).all()):
                break
        return theta, value, taken

    def derivatives(self, theta: Tensor, ridge: Tensor | float) -> tuple[Tensor, Tensor]:
        """Gradients (.., K, q) and Hessians (.., K q, K q) of the objectives."""
        pi = torch.softmax(self.features @ theta.mT, -1)
        hessian = self._hessian(pi)
        largest = hessian.abs().amax((-2, -1))
        jitter = JITTER * torch.finfo(theta.dtype).eps * largest
        ridge = torch.as_tensor(ridge, dtype=theta.dtype, device=theta.device)
        hessian.diagonal(dim1=-2, dim2=-1).add_((ridge + jitter)[..., None])
        return self._gradient(theta, ridge, pi), hessian

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradients (.., K, q) of the objectives without a ridge."""
        pi = torch.softmax(self.features @ theta.mT, -1)
        return self._gradient(theta, theta.new_zeros(()), pi)

    def _gradient(self, theta: Tensor, ridge: Tensor, pi: Tensor) -> Tensor:
        """Gradients; `pi` is overwritten."""
        if self.labels is None:
            pi -= self.targets
        else:
            pi[self._rows, self.labels] -= 1
        return (pi * self.weight[..., None]).mT @ self.features + ridge[..., None, None] * theta

    def _hessian(self, pi: Tensor) -> Tensor:
        """``sum_n w pi_k (delta_kl - pi_l) F F'``, of shape (.., K q, K q), over uncertain rows."""
        K, q = self.n_classes, self.n_features
        k, l = self._class_pairs
        a, b = self._feature_pairs
        batch = pi.shape[:-2]
        uncertain = pi.amax(-1) < 1 - self.certain
        active = torch.nonzero(uncertain.reshape(batch.numel(), len(self._rows)).any(0)).squeeze(1)
        if len(active) >= MANY_ROWS and self.features.ndim == 2:
            sums = self._products_of_many(pi, active)
        elif len(k) < SEVERAL_PAIRS * q and not batch and self.features.ndim == 2:
            return self._hessian_of_few(pi, active)
        else:
            sums = pi.new_zeros((*batch, len(k), len(a)))
            same = (k == l).to(pi.dtype)
            numbers = len(k) * max(batch.numel(), 1) + len(a)
            for block in row_blocks(len(active), rows_within(numbers)):
                rows = active[block]
                F, p = self.features[..., rows, :], pi[..., rows, :]
                class_weight = p[..., k] * (same - p[..., l]) * self.weight[..., rows, None]
                sums += class_weight.mT @ (F[..., a] * F[..., b])
        hessian = pi.new_empty((*batch, K, q, K, q))
        for i, j in ((a, b), (b, a)):
            hessian[..., k[:, None], i, l[:, None], j] = sums
            hessian[..., l[:, None], i, k[:, None], j] = sums
        return hessian.reshape(*batch, K * q, K * q)

    def _hessian_of_few(self, pi: Tensor, active: Tensor) -> Tensor:
        """The same of few pairs of classes, by a matrix product for each."""
        K, q = self.n_classes, self.n_features
        k, l = self._class_pairs
        same = (k == l).to(pi.dtype)
        sums = pi.new_zeros((len(k) * q, q))
        for block in row_blocks(len(active), rows_within(len(k) * q)):
            rows = active[block]
            F, p = self.features[rows], pi[rows]
            class_weight = p[:, k] * (same - p[:, l]) * self.weight[rows, None]
            sums.addmm_((class_weight[:, :, None] * F[:, None]).flatten(1).T, F)
        of_pairs = sums.view(len(k), q, q)
        hessian = pi.new_empty((K, K, q, q))
        hessian[k, l] = hessian[l, k] = 0.5 * (of_pairs + of_pairs.mT)
        return hessian.transpose(1, 2).reshape(K * q, K * q)

    def _products_of_many(self, pi: Tensor, active: Tensor) -> Tensor:
        """The sums of `_hessian` over pairs of classes and of features, all weights together."""
        k, l = self._class_pairs
        same = (k == l).to(pi.dtype)[:, None]
        n_weights = max(pi.shape[:-2].numel(), 1) * len(k)
        none = torch.zeros(n_weights, dtype=torch.bool, device=pi.device)
        sums = WeightedSums(self.n_features, none, pi)
        for block in row_blocks(len(active), rows_within(COPIES_SUMMED * n_weights)):
            rows = active[block]
            p = pi[..., rows, :].mT.contiguous()
            weight = p[..., k, :] * (same - p[..., l, :]) * self.weight[..., None, rows]
            sums.add(self.features[rows], weight.reshape(n_weights, -1).T)
        return sums.products.reshape(*pi.shape[:-2], len(k), -1)


def damped_direction(gradient: Tensor, hessian: Tensor, damping: Tensor) -> Tensor:
    """Newton direction with `damping` times the Hessian's diagonal added (Marquardt)."""
    if bool(damping.any()):
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        hessian = hessian + torch.diag_embed(damping[..., None] * diagonal)
    flat = gradient.reshape(*damping.shape, -1, 1)
    return solve_each(hessian, flat).reshape(gradient.shape)


def fit_logistic(
    features: Tensor,
    targets: Tensor,
    n_classes: int,
    weight: Tensor,
    ridges: tuple[float, ...] = RIDGES,
    theta: Tensor | None = None,
    max_iter: int = MOST_STEPS,
) -> Tensor:
    """Multinomial logistic regression, continued from a strong ridge to a weak one.

    Parameters
    ----------
    features, targets, n_classes, weight
        As in `MultinomialLogistic`.
    ridges : tuple of float, default=RIDGES
        Ridges in turn, relative to the mean weight of a class.
    theta : Tensor of shape (K, q), or (B, K, q), default=None
        Start; zero if None.
    max_iter : int, default=MOST_STEPS
        Newton steps a ridge.

    Returns
    -------
    Tensor of shape (K, q), or (B, K, q)
    """
    problem = MultinomialLogistic(features, targets, n_classes, weight)
    if theta is None:
        theta = features.new_zeros((*weight.shape[:-1], n_classes, features.shape[-1]))
    for ridge in ridges:
        theta = problem.fit(theta, ridge, max_iter)
    return theta
