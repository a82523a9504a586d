"""Likelihood and posteriors of mixtures of experts (Trask et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_normal(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Logarithms of the experts' densities N(y; mu_k, sigma_k^2), Eq. 6.

    Parameters
    ----------
    y : Tensor of shape (n, m)
        Targets; the density of several is the product of their densities.
    mean : Tensor of shape (n, N, m)
        The experts' values mu_k.
    variance : Tensor of shape (N, m)
        Their noise variances sigma_k^2.

    Returns
    -------
    Tensor of shape (n, N)
    """
    square = (y[:, None] - mean).square() / variance
    return -0.5 * (square.sum(2) + (2 * math.pi * variance).log().sum(1))


def posterior(log_joint: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """E-step, Eqs. 13, 33 and 34.

    Parameters
    ----------
    log_joint : Tensor of shape (n, N)
        ``log(pi_k(x) N(y; mu_k(x), sigma_k^2))``, with pi the product of gates down the tree.
    dim : int, default=1
        Axis of the partitions; 0 where `log_joint` and the posterior are (N, n).

    Returns
    -------
    share : Tensor of shape (n, N)
        Posterior w of each partition; rows sum to 1.
    log_density : Tensor of shape (n,)
        ``log p(y | x)``, Eq. 4.
    """
    log_density = torch.logsumexp(log_joint, dim)
    return torch.softmax(log_joint, dim), log_density


def marginalise(share: Tensor, parent: Tensor) -> Tensor:
    """Posterior of the level above as the sums over children, Eq. 35.

    Parameters
    ----------
    share : Tensor of shape (n, N)
        Posterior of a level.
    parent : Tensor of shape (N,), int64
        Parent of each partition.

    Returns
    -------
    Tensor of shape (n, number of parents)
    """
    total = share.new_zeros((len(share), int(parent.max()) + 1))
    return total.index_add_(1, parent, share)
