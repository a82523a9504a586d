"""Covariances of a mean's error between points, and its usual size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.core.models.model import Predictor


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


def joint_log_density(covariance: Tensor, error: Tensor) -> float:
    """Logarithm of a Gaussian's density at targets of several points together.

    Parameters
    ----------
    covariance : Tensor of shape (n, n)
        Positive semidefinite up to round-off, which counts as an independent error of each point:
        an exact fit is surer of some sums of targets than any number can be.
    error : Tensor of shape (n,)
        Targets minus the mean.
    """
    tiny = torch.finfo(covariance.dtype).tiny
    deviation = covariance.diagonal().clamp_min(tiny).sqrt()
    values, vectors = torch.linalg.eigh(covariance / deviation[:, None] / deviation)
    values = values.clamp_min(len(error) * torch.finfo(covariance.dtype).eps)
    square = (vectors.T @ (error / deviation)).square() / values
    return float(
        -0.5 * (square + values.log() + math.log(2 * math.pi)).sum() - deviation.log().sum()
    )


def median_std(model: Predictor, probes: Tensor) -> list[float]:
    """Median standard deviation that a model claims for the mean of each of its targets."""
    epistemic = model.components(probes).variances()[1]
    return epistemic.double().median(0).values.sqrt().tolist()
