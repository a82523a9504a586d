"""Likelihood and posteriors of mixtures of experts (Trask et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.core.linalg import split_factor


def log_normal(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Logarithms (n, N) of the experts' densities N(y; mu_k, sigma_k^2), Eq. 6.

    Of targets (n, m), whose densities are multiplied, for means (n, N, m) and variances (N, m).
    """
    square = (y[:, None] - mean).square() / variance
    return -0.5 * (square.sum(2) + (2 * math.pi * variance).log().sum(1))


def noise_of_experts(factors: Tensor, coef: Tensor, mass: Tensor) -> Tensor:
    """Noise variances (N, m) of experts by what they leave of their rows, Eq. 18.

    By factors (N, P + m, P + m) of functions and targets, coefficients (N, P, m) and weights (N,).
    A partition without samples keeps the spread of the targets.
    """
    R, projected, rss = split_factor(factors, coef.shape[1])
    rss = rss + (R @ coef - projected).square().sum(1)
    tiny, mass = torch.finfo(mass.dtype).tiny, mass[:, None]
    return torch.where(mass > tiny, rss / mass.clamp_min(tiny), 1.0)


def posterior(log_joint: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """E-step, Eqs. 13, 33 and 34: the posterior w, and ``log p(y | x)`` (n,), Eq. 4.

    From ``log(pi_k(x) N(y; mu_k(x), sigma_k^2))``, with pi the product of gates down the tree, of
    shape (n, N), or (N, n) where the axis `dim` of the partitions is 0. So is w.
    """
    log_density = torch.logsumexp(log_joint, dim)
    return torch.softmax(log_joint, dim), log_density


def marginalise(share: Tensor, parent: Tensor) -> Tensor:
    """Posterior of the level above: sums of the children's (n, N) by their parents (N,), Eq. 35."""
    total = share.new_zeros((len(share), int(parent.max()) + 1))
    return total.index_add_(1, parent, share)
