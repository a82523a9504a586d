"""Covariances of a mean's error between points."""

from __future__ import annotations

import torch
from torch import Tensor


def outside_steps(X: Tensor) -> Tensor:
    """Steps (n, 2 d) from the unit box to points X (n, d), those to either side apart.

    Their products with one unknown slope for each side of the box have the variance of distance
    times slope, agree for points on the same side, and say nothing of each other on two sides.
    """
    return torch.cat([(X - 1).clamp_min(0), (-X).clamp_min(0)], 1)


def standard_draws(covariance: Tensor, normal: Tensor) -> Tensor:
    """Draws (n, s) of unit variance with the correlation of a covariance (n, n).

    Parameters
    ----------
    covariance : Tensor of shape (n, n)
        Positive semidefinite up to round-off.
    normal : Tensor of shape (n, s)
        Standard normal.
    """
    deviation = covariance.diagonal().clamp_min(0).sqrt()
    known = deviation == 0
    deviation = torch.where(known, 1.0, deviation)
    correlation = covariance / deviation[:, None] / deviation
    # What never errs is drawn like anything of unit variance: it counts by its deviation, zero.
    correlation = correlation + torch.diag(known.to(covariance))
    values, vectors = torch.linalg.eigh(correlation)
    return (vectors * values.clamp_min(0).sqrt()) @ normal
