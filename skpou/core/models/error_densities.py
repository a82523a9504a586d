"""Densities that may be those of errors: two Gaussians of different widths, one, a skewed one."""

from __future__ import annotations

import math

import numpy as np

#: Standard deviation of the wide component over that of the others, at least.
LEAST_RATIO = 4.0
#: Share of the rows beyond which what is far is no exception.
MOST_SHARE = 0.1
#: Steps of expectation maximization for share and widths.
STEPS = 30
#: Median over standard deviation of the absolute values of a Gaussian.
MEDIAN_OF_SIZE = 0.6745
#: Origins of the skewed density below the least error, in standard deviations of all.
ORIGINS = tuple(np.geomspace(0.02, 30, 30))


def two_widths(
    u: np.ndarray, weight: np.ndarray
) -> tuple[float, float, float, np.ndarray, np.ndarray] | None:
    """Share, both standard deviations, responsibilities and log densities (n,) of the likeliest."""
    total, square = weight.sum(), u**2
    narrow = float(np.median(np.abs(u))) / MEDIAN_OF_SIZE
    if narrow <= 0:
        return None
    responsibility = (square > (LEAST_RATIO * narrow) ** 2).astype(float)
    if not weight @ responsibility:
        return None
    log_density = np.zeros_like(u)
    for _ in range(STEPS):
        of_wide, of_narrow = weight * responsibility, weight * (1 - responsibility)
        share = float(of_wide.sum() / total)
        variances = np.array(
            [(of_narrow @ square) / of_narrow.sum(), (of_wide @ square) / of_wide.sum()]
        )
        if not (0 < share < MOST_SHARE and variances[1] > LEAST_RATIO**2 * variances[0] > 0):
            return None
        logs = np.log([1 - share, share]) - 0.5 * np.log(2 * math.pi * variances)
        joint = logs - 0.5 * square[:, None] / variances
        log_density = np.logaddexp(*joint.T)
        responsibility = np.exp(joint[:, 1] - log_density)
    narrow, outer = np.sqrt(variances).tolist()
    return share, narrow, outer, responsibility, log_density


def gaussian(u: np.ndarray, weight: np.ndarray) -> float:
    """Log density of the likeliest Gaussian about zero."""
    total = float(weight.sum())
    return -0.5 * total * (math.log(2 * math.pi * float(weight @ u**2) / total) + 1)


def skewed(u: np.ndarray, weight: np.ndarray) -> float:
    """Log density of the likeliest lognormal with an origin of its own, to either side."""
    total = weight.sum()
    width = math.sqrt(float(weight @ u**2) / total)
    best = -math.inf
    for v in (u, -u):
        logs = np.log(v - v.min() + width * np.array(ORIGINS)[:, None])
        centre = logs @ weight / total
        variance = (logs - centre[:, None]) ** 2 @ weight / total
        values = -0.5 * total * (np.log(2 * math.pi * variance) + 1) - logs @ weight
        best = max(best, float(values.max()))
    return best
