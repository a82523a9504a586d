"""The kernels that may have made a few rows, and how likely each is.

Few rows tell neither the length of a process nor the size of the noise: what one kernel claims is
too little for what others, hardly less likely, would predict, of exact rows no less than of noisy
ones. Of rows that happen to be smooth, noise and all, the likeliest one has no noise. The posterior
of the kernel's numbers is integrated about its modes, with and without noise and of either kind, by
points on the axes of its curvature there [1]_, each of which counts as much as it is likely.

References
----------
.. [1] H. Rue, S. Martino, N. Chopin, "Approximate Bayesian inference for latent Gaussian models by
   using integrated nested Laplace approximations", J. R. Stat. Soc. B 71 (2009), Section 6.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skpou.core import Rows
from skpou.core.models.likely_kernels import (
    GAUSSIAN,
    KINDS,
    LINE,
    N_STEPS,
    NOISE,
    RATES,
    SMOOTHER,
    Evidence,
    KernelChoice,
    evidence_of,
    first_numbers,
    rounded,
    stretches_of,
    wave_numbers,
)
from skpou.core.models.pairs_of_rows import least

#: Centre and standard deviation of the logarithm of the noise over the process' variance: a tenth
#: of its standard deviation, give or take a factor of four.
NOISE_CENTRE, NOISE_SPREAD = math.log(1e-2), 3.0
#: Share below which a kernel does not count.
LEAST_SHARE = 0.01
#: Step of the difference quotients of the evidence's slopes.
STEP = 1e-3
#: Bounds of the standard deviation along an axis: where nothing falls off, and of round-off.
SPREADS = (0.05, 2.0)
#: Most by which a point may be likelier than the Gaussian about its mode has it.
MOST_GAIN = 3.0

#: Value and gradient at the free numbers of a kernel.
_Value = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class _Mode:
    """Where a posterior is largest, and the logarithms of what points near it weigh."""

    choices: list[KernelChoice]
    logs: np.ndarray


def likely_kernels(rows: Rows, target: int, likeliest: KernelChoice) -> list[_Weighed]:
    """Shares and kernels, the likeliest first; that alone where rows tell no other.

    Parameters
    ----------
    likeliest : KernelChoice
        What counts alone where no search ends.
    """
    stretches = stretches_of(rows.X.cpu().numpy())
    modes = [
        found
        for kind in KINDS
        for has_noise in (True, False)
        if (found := _mode(rows, target, kind, stretches, has_noise)) is not None
    ]
    if not modes:
        return [(1.0, likeliest)]
    logs = np.concatenate([mode.logs for mode in modes])
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    choices = [choice for mode in modes for choice in mode.choices]
    kept = np.flatnonzero(shares >= min(LEAST_SHARE, shares.max()))
    kept = np.array([k for k in kept if _is_sound(rows, target, choices[k])], dtype=int)
    if not len(kept):
        return [(1.0, likeliest)]
    others = [(float(shares[k]), choices[k]) for k in kept]
    if _is_sound(rows, target, likeliest):
        others.insert(0, (LEAST_SHARE, likeliest))
    else:
        others.sort(key=lambda one: -one[0])
    total = sum(share for share, _ in others)
    return [(share / total, choice) for share, choice in others]


def _is_sound(rows: Rows, target: int, choice: KernelChoice) -> bool:
    """Whether the covariance of the rows is positive with a kernel's rounded numbers."""
    kind, stretch, theta = choice
    return math.isfinite(evidence_of(rows, target, kind, stretch)(theta)[0])


def _mode(
    rows: Rows, target: int, kind: int, stretches: list[tuple[float, ...]], has_noise: bool
) -> _Mode | None:
    """The posterior of one kind of kernel about its mode, with noise or without."""
    d = rows.n_features
    begun = []
    for stretch in stretches:
        evidence = evidence_of(rows, target, kind, stretch)
        value_of = _posterior(evidence, d, has_noise)
        starts = [start[: d + 1 + has_noise] for start in first_numbers(d) + wave_numbers(d)]
        begun += [(value_of(start)[0], stretch, value_of, start) for start in starts]
    _, stretch, value_of, start = min(begun, key=lambda one: one[0])
    bounds = [*[RATES] * d, LINE, NOISE][: len(start)]
    value, mode = least(value_of, start, bounds, N_STEPS)
    if not math.isfinite(value):
        return None
    axes = _axes(value_of, mode)
    radius = math.sqrt(len(mode) + 1)
    points = [mode, *(mode + sign * radius * axis for axis in axes.T for sign in (1, -1))]
    lower, upper = np.array(bounds).T
    points = [np.clip(point, lower, upper) for point in points]
    # Shares of a Gaussian's mean and variances, times what each is likelier than it has it.
    each = np.r_[2.0, np.ones(2 * len(mode))] / (2 * len(mode) + 2)
    falls = np.array([0.0, *(value_of(point)[0] - value for point in points[1:])])
    gain = np.minimum(0.5 * radius**2 - falls, math.log(MOST_GAIN))
    gain[0] = 0.0
    claim = SMOOTHER * rows.n_rows if kind == GAUSSIAN else 0.0
    volume = 0.5 * len(mode) * math.log(2 * math.pi) + float(np.linalg.slogdet(axes)[1])
    rest = [] if has_noise else [NOISE[0]]
    choices = [(kind, stretch, rounded(np.r_[point, rest])) for point in points]
    return _Mode(choices, np.log(each) + gain - value - claim + volume)


def _posterior(evidence: Evidence, d: int, has_noise: bool) -> _Value:
    """Minus the logarithm of the evidence with that of the noise's prior, and the gradient."""

    def value_of(theta: np.ndarray) -> tuple[float, np.ndarray]:
        if not has_noise:
            value, gradient = evidence(np.r_[theta, NOISE[0]])
            return value, gradient[: d + 1]
        value, gradient = evidence(theta)
        apart = (theta[d + 1] - NOISE_CENTRE) / NOISE_SPREAD
        gradient[d + 1] += apart / NOISE_SPREAD
        width = math.log(NOISE_SPREAD * math.sqrt(2 * math.pi))
        return value + 0.5 * apart**2 + width, gradient

    return value_of


def _axes(value_of: _Value, mode: np.ndarray) -> np.ndarray:
    """Axes (k, k) of the posterior about its mode, each as long as its standard deviation."""
    curvature = np.stack(
        [
            (value_of(mode + step)[1] - value_of(mode - step)[1]) / (2 * STEP)
            for step in STEP * np.eye(len(mode))
        ]
    )
    if not np.isfinite(curvature).all():
        return SPREADS[0] * np.eye(len(mode))
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    return vectors * np.maximum(values, SPREADS[1] ** -2).clip(None, SPREADS[0] ** -2) ** -0.5


#: Share and kernel.
_Weighed = tuple[float, KernelChoice]


def of_average(
    shares: Sequence[float], means: Sequence[np.ndarray], variances: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What the first of some kernels predicts, and the variance about it of them all."""
    share = np.asarray(shares).reshape(-1, *[1] * np.ndim(means[0]))
    apart = np.stack(means) - means[0]
    return means[0], (share * (np.stack(variances) + apart**2)).sum(0)
