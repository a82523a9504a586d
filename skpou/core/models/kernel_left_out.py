"""Errors of a process at rows that are left out in sets, each set's rest factored anew.

Round-off does not spoil errors far below y then, as it does where all follow from one inverse.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs

from skpou.core import Rows
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.likely_kernels import (
    CONSTANT,
    N_OTHERS,
    NUGGET,
    KernelChoice,
    correlation,
    further_targets,
    likeliest_kernel,
    size_of,
    stretched,
)


def kernel_left_out(
    rows: Rows, choice: KernelChoice, sets: LeftOut, n_taken: int | None = None
) -> LeftOut:
    """Errors of fits of one target without each set, with the kernel of all rows.

    Equations are those of C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine
    Learning, 2006.

    Parameters
    ----------
    rows : Rows
        Those of the fit, with one target.
    choice : KernelChoice
        Kernel, stretch, rates, and line and noise over the process' variance.
    sets : LeftOut
        What is left out.
    n_taken : int, default=None
        Numbers that the kernel took from the rows. None: all that a single one has.

    Raises
    ------
    LinAlgError
        If the covariance of the rows that are left is not positive.
    """
    kind, stretch, theta = choice
    given, y, weight, within = (
        part.cpu().numpy() for part in (rows.X, rows.y[:, 0], rows.weight, rows.within[:, 0])
    )
    n, d = given.shape
    n_taken = d + N_OTHERS if n_taken is None else n_taken
    X = stretched(given, stretch, np)[0]
    scaled = X * np.exp(theta[:d])
    distance = ((scaled[:, None] - scaled) ** 2).sum(2)
    bent = correlation(distance, kind, np)[0]
    line, noise = np.exp(theta[d]), np.exp(theta[d + 1]) + NUGGET
    found, counts = [], []
    for part in sets.sets:
        stays = np.ones(n, dtype=bool)
        stays[part] = False
        centre = stretched(given[stays].mean(0), stretch, np)[0]
        Z, gone = X[stays] - centre, X[part] - centre
        others = float(within[stays].sum())
        rest = _solved(
            CONSTANT + line * (Z @ Z.T) + bent[np.ix_(stays, stays)],
            noise / weight[stays],
            y[stays],
            weight[stays],
        )
        n_targets = int(stays.sum()) + further_targets(weight[stays], others)
        size = size_of(rest.square + others / noise, n_targets, n_taken)
        across = bent[np.ix_(part, stays)]
        # Eq. 2.25, constant and line apart, whose parts cancel.
        coef = rest.coef
        mean = rest.level + CONSTANT * coef.sum() + line * (gone @ (coef @ Z)) + across @ coef
        whole = CONSTANT + line * (gone @ Z.T) + across
        columns = solve_triangular(rest.factor, whole.T, lower=True, check_finite=False)
        prior = CONSTANT + line * (gone @ gone.T) + bent[np.ix_(part, part)]
        own = noise / weight[part]
        left = prior - columns.T @ columns + np.diag(own)  # Eq. 2.26
        variance = np.maximum(left.diagonal(), own)
        counts.append(
            len(part) ** 2 / max(float((left**2 / np.outer(variance, variance)).sum()), 1.0)
        )
        found.append((y[part] - mean, size * variance, size * own))
    error, variance, own = (np.concatenate(part)[:, None] for part in zip(*found, strict=True))
    count = np.minimum(counts, [len(part) for part in sets.sets])
    told = np.ones(len(sets.sets), dtype=bool)
    return LeftOut(
        sets.sets, sets.n_folds, error=error, variance=variance, noise=own, count=count, told=told
    )


class _Solved(NamedTuple):
    """Factor (k, k) of the covariance, mean of y, weights (k,) of the kernels, ``y' K^-1 y``."""

    factor: np.ndarray
    level: float
    coef: np.ndarray
    square: float


def _solved(K: np.ndarray, noise: np.ndarray, y: np.ndarray, weight: np.ndarray) -> _Solved:
    """What the rows that are left say, from covariances (k, k) to which noise (k,) is added."""
    K[np.diag_indices(len(K))] += noise
    factor, fault = dpotrf(K.T, lower=1, overwrite_a=1)
    if fault:
        raise np.linalg.LinAlgError("the covariance of the rows is not positive")
    level = weight @ y / weight.sum()
    step = y - level
    coef = dpotrs(factor, step, lower=1)[0].reshape(-1)
    return _Solved(factor, level, coef, float(step @ coef))


def left_out_anew(rows: Rows, known: LeftOut) -> LeftOut:
    """The same errors where the rest of each set chooses its own kernel."""
    found = []
    for part in known.sets:
        others = np.setdiff1d(np.arange(rows.n_rows), part)
        rest = Rows(rows.X[others], rows.y[others], rows.weight[others], rows.within[others])
        found.append(kernel_left_out(rows, likeliest_kernel(rest, 0), replace(known, sets=[part])))
    error, variance, noise = (
        np.concatenate([getattr(one, name) for one in found])
        for name in ("error", "variance", "noise")
    )
    return replace(known, error=error, variance=variance, noise=noise)
