"""How much each column matters, by the evidence of a Gaussian process on some of the rows.

A linear function, a process with a length for each column and noise: the reciprocals of the
lengths are those of largest evidence, under a prior by which they are alike. Codes and levels may
need a hundredth of the length of the others, which gradients of a first smooth model do not see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skpou.core import Rows
from skpou.core.models.likely_kernels import (
    GAUSSIAN,
    MATERN,
    correlation,
    further_targets,
    stretched,
)
from skpou.core.models.pairs_of_rows import PairsOfRows, least

#: Most rows, whose covariances are factored at every step, and most columns.
MOST_ROWS, MOST_FEATURES = 150, 30
#: Fewest rows, and fewest distinct ones, at all and for each column: fewer do not tell one length
#: from another. Repeated rows tell the noise.
FEWEST_ROWS, FEWEST_DISTINCT, ROWS_A_COLUMN = 8, 4, 3
#: Equal rates to begin with, of smooth functions (over the root of the columns) and of codes: from
#: long lengths on, the evidence of few rows does not see that a column of codes needs a short one.
SMOOTH, ROUGH = 2.0, 8.0
#: Rates of waves of many periods in a single column, and variance of the noise from which on they
#: are tried: from longer lengths on, a search takes waves for noise.
WAVES, WAVES_AS_NOISE = (18.0, 54.0), 0.2
#: Rows for each value of a column on average from which on it may hold codes.
CODED = 3
#: Steps of the search from every start, and from rates that fewer rows told.
N_STEPS, REFINING_STEPS = 25, 15
#: Bounds of the logarithms of the rates, in units of the box, and of the three variances.
RATES, VARIANCES = (-5.0, 5.0), (-20.0, 6.0)
#: First variances of line, process and noise, in units of y.
FIRST = (0.3, 0.5, 0.05)
#: Rates and variances are whole powers of two to this: no data know them better, and round-off must
#: not show.
STEP = 1 / 16
#: Standard deviation of the logarithms of the rates about their mean.
SPREAD = 1.5
#: Variance of the constant, and least noise, which bounds the condition of the covariances.
CONSTANT, LEAST_NOISE = 100.0, 1e-8


class Kernel(NamedTuple):
    """Rates (d,), and variances (3,) of line, process and noise; whether the process is rough."""

    rates: np.ndarray
    variances: np.ndarray
    rough: bool


class _Some(NamedTuple):
    """Points, targets, weights and the squares within rows, of some rows; see `Relevance`."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    within: float

    def relevance(self, rough: bool = False) -> Relevance:
        """The evidence for rates by these rows."""
        return Relevance(self.X, self.y, self.weight, rough, self.within)


class Relevance:
    """The evidence for rates of the columns, with its gradient.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows in the unit box.
    y : ndarray of shape (n, m)
        Targets of about unit rms; several share the rates, and the mean over them counts: copies
        of one target have its rates.
    weight : ndarray of shape (n,)
        Their noise is divided by it.
    rough : bool, default=False
        The process has two derivatives only, and not all of them.
    within : float, default=0.0
        Sum of squares of all targets about the mean of their row, where there are several, the mean
        over those that share the rates: these tell the noise by themselves.
    """

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        rough: bool = False,
        within: float = 0.0,
    ):
        self.y, self.weight, self.rough = y, weight, rough
        self.within, self.further = within, further_targets(weight, within)
        self.pairs = PairsOfRows(X)

    def evidence(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log evidence with the prior of the rates, and its gradient.

        `theta` holds logarithms: d rates, then the variances of line, process and noise.
        """
        pairs, m = self.pairs, self.y.shape[1]
        d = len(pairs.squares)
        rates, (line, process, noise) = theta[:d], np.exp(theta[d:])
        kind = MATERN if self.rough else GAUSSIAN
        kernel, fall = correlation(pairs.distances(rates), kind, np)
        own = CONSTANT + line * pairs.line_own + process + (noise + LEAST_NOISE) / self.weight
        between = CONSTANT + line * pairs.line + process * kernel
        solved = pairs.solve(between, own, self.y)
        if solved is None:
            raise np.linalg.LinAlgError("the covariance of the rows is not positive")
        alpha = solved.coef
        away = (rates - rates.mean()) / SPREAD
        value = 0.5 * float((self.y * alpha).sum()) / m + solved.half_log_det
        value += 0.5 * float(away @ away)
        # Half the derivative by each entry; the entries of a pair are two.
        slope = solved.inverse - pairs.products(alpha) / m
        slope_own = 0.5 * (solved.inverse_own - (alpha**2).sum(1) / m)
        gradient = np.empty_like(theta)
        gradient[:d] = -process * np.exp(2 * rates) * (pairs.squares @ (slope * fall))
        gradient[:d] += away / SPREAD
        gradient[d] = line * float(slope @ pairs.line + slope_own @ pairs.line_own)
        gradient[d + 1] = process * float(slope @ kernel + slope_own.sum())
        gradient[d + 2] = noise * float(slope_own @ (1 / self.weight))
        # Targets beyond one a row, about the mean of their row.
        own_noise = noise + LEAST_NOISE
        value += 0.5 * (self.further * math.log(own_noise) + self.within / own_noise)
        gradient[d + 2] += 0.5 * noise / own_noise * (self.further - self.within / own_noise)
        return value, gradient

    def maximise(self, numbers: np.ndarray, n_steps: int = N_STEPS) -> tuple[float, np.ndarray]:
        """Log evidence, and rates and variances that a few steps from given ones reach.

        `numbers` are rates (d,), or rates and variances (d + 3,).
        """
        d = len(self.pairs.squares)
        variances = numbers[d:] if len(numbers) > d else FIRST
        start = np.r_[np.clip(np.log(numbers[:d]), *RATES), np.clip(np.log(variances), *VARIANCES)]
        bounds = [RATES] * d + [VARIANCES] * 3
        value, theta = least(self.evidence, start, bounds, n_steps)
        return -value, np.exp(theta)


def evident_rates(rows: Rows, start: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Reciprocals (d,) of the columns' lengths in the box, of largest evidence.

    Parameters
    ----------
    start : ndarray of shape (d,)
        Rates to begin with, beside equal ones: those of codes where a column may hold them.
    rng : numpy.random.Generator
        Draws the rows where there are many.

    Returns
    -------
    ndarray or None
        None where rows are too few, or columns too many, to tell.
    """
    X = rows.X.cpu().numpy()
    coded = any(CODED * len(np.unique(column)) <= len(X) for column in X.T)
    found = evident_kernel(rows, [start, np.full(len(start), ROUGH)] if coded else [start], rng)
    return None if found is None else found.rates


def evident_kernel(
    rows: Rows, starts: Sequence[np.ndarray] | None, rng: np.random.Generator, rough: bool = False
) -> Kernel | None:
    """The kernel of largest evidence.

    Parameters
    ----------
    starts : sequence of ndarray of shape (d,) or (d + 3,), or None
        Rates to begin with, perhaps with variances, beside equal ones; None: equal ones, of smooth
        functions and of codes.
    rng : numpy.random.Generator
        Draws the rows where there are many.
    rough : bool, default=False
        Whether the process may be rough.

    Returns
    -------
    Kernel or None
        None where rows are too few, or columns too many, to tell.
    """
    n, d = rows.X.shape
    if n < max(FEWEST_DISTINCT, ROWS_A_COLUMN * d) or d > MOST_FEATURES:
        return None
    some = _some(rows, MOST_ROWS, rng)
    if n + further_targets(some.weight, some.within) < FEWEST_ROWS:
        return None
    starts = [
        np.full(d, SMOOTH / math.sqrt(d)),
        *([np.full(d, ROUGH)] if starts is None else starts),
    ]
    try:
        relevance = some.relevance()
        ends = [relevance.maximise(rates) for rates in starts]
        best = max(ends, key=lambda one: one[0])
        if d == 1 and best[1][-1] > WAVES_AS_NOISE:
            ends += [relevance.maximise(np.array([rate])) for rate in WAVES]
            best = max(ends, key=lambda one: one[0])
        if rough:
            other = some.relevance(rough=True).maximise(best[1])
            if other[0] > best[0]:
                return _rounded(other[1], True)
    except np.linalg.LinAlgError:
        return None
    return _rounded(best[1], False)


def stretched_kernel(
    rows: Rows, kernel: Kernel, stretches: Sequence[float], rng: np.random.Generator
) -> tuple[float, Kernel]:
    """Gain of log evidence by stretched columns, and the kernel that a search finds for them.

    Parameters
    ----------
    kernel : Kernel
        That of the columns as they are.
    stretches : sequence of float
        One a column, see `stretched`.
    rng : numpy.random.Generator
        Draws the rows where there are many.
    """
    some = _some(rows, MOST_ROWS, rng)
    least_noise = math.exp(VARIANCES[0])
    theta = np.log(np.r_[kernel.rates, np.maximum(kernel.variances, least_noise)])
    try:
        before, _ = some.relevance(kernel.rough).evidence(theta)
        moved = some._replace(X=stretched(some.X, stretches, np)[0]).relevance(kernel.rough)
        value, best = moved.maximise(kernel.rates)
    except np.linalg.LinAlgError:
        return -math.inf, kernel
    return value + before, _rounded(best, kernel.rough)


def refined_kernel(rows: Rows, kernel: Kernel, rng: np.random.Generator) -> Kernel:
    """That with twice as many rows, if there are more, from rates that fewer rows told."""
    if rows.n_rows <= MOST_ROWS:
        return kernel
    some = _some(rows, 2 * MOST_ROWS, rng)
    try:
        found = [
            (*some.relevance(rough).maximise(kernel.rates, REFINING_STEPS), rough)
            for rough in (False, True)
        ]
    except np.linalg.LinAlgError:
        return kernel
    return _rounded(*max(found, key=lambda one: one[0])[1:])


def _some(rows: Rows, most: int, rng: np.random.Generator) -> _Some:
    """So many rows at most, targets about their mean."""
    index = np.sort(rng.permutation(rows.n_rows)[:most])
    X, y, weight, within = (
        part.cpu().numpy()[index] for part in (rows.X, rows.y, rows.weight, rows.within)
    )
    return _Some(X, y - y.mean(0), weight, float(within.sum(0).mean()))


def _rounded(best: np.ndarray, rough: bool) -> Kernel:
    """Rates and variances in whole steps."""
    d = len(best) - 3
    best = np.exp2(np.round(np.log2(best) / STEP) * STEP)
    return Kernel(best[:d], best[d:] + np.array([0.0, 0.0, LEAST_NOISE]), rough)
