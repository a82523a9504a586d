"""Which kernel is likeliest to have made a few rows: its smoothness, lengths and stretch.

The size of the process is the best one for each set of lengths, so that it may exceed y's by far,
as it does where lengths are large: that limit is a polynomial. Columns may be stretched by a
logarithm towards one of their ends or both where their values are placed so, as calibration points
and doses often are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpotrs

from skpou.core import Rows
from skpou.core.models.pairs_of_rows import PairsOfRows, least

#: Noise beside the process' variance that bounds the condition of the covariances.
NUGGET = 1e-13
#: Variance of the constant beside the process'.
CONSTANT = 1.0
#: First rates in units of the box (over the root of the columns), noises and part of the line.
FIRST_RATES, FIRST_NOISES, FIRST_LINE = (0.7, 2.0, 6.0), (1e-8, 1e-3), 0.1
#: The same of waves of many periods in a single column: from longer lengths on, a search takes them
#: for noise. They may have as much noise as a tenth.
WAVE_RATES, WAVE_NOISES = (18.0, 54.0), (1e-3, 0.1)
#: Bounds of the logarithms of the rates, of the line's variance and the noise's, in units of the
#: process': a line may be nothing, and all of the rows may be noise.
RATES, LINE, NOISE = (-4.0, 5.0), (-12.0, 8.0), (-40.0, 8.0)
#: Searches of each kernel, one where rows are more than so many, and their steps.
N_SEARCHES, MANY_ROWS, N_STEPS = 2, 64, 60
#: Centre and standard deviation of the logarithms of the rates, and that about their mean: a few
#: rows do not tell a length by themselves.
CENTRE, SPREAD, SPREAD_APART = math.log(1.5), 2.0, 1.5
#: Numbers of a process beside its rates: constant and noise. What they take from few rows is
#: missing in what is left.
N_OTHERS = 2
#: Rates and variances are whole powers of two to this: round-off must not show.
STEP = 1 / 16
#: Decimals of rows and targets, in scaled units, by which a kernel is looked for: far below what
#: the nugget covers, and far above round-off, which may turn a search that hardly sees the noise.
DECIMALS = 10
#: The kernels, from what is as smooth as any to two derivatives; between them that of functions
#: with poles beside the real axis, which rows tell from both.
GAUSSIAN, MATERN, RATIONAL = 0, 1, 2
KINDS = GAUSSIAN, RATIONAL, MATERN
#: Exponent of the rational quadratic kernel: poles at the root of two times its length.
EXPONENT = 1
#: Log evidence for each row by which the Gaussian kernel must be likelier: functions that are as
#: smooth gain more with each row, and what is not is missed between the rows by much less else.
SMOOTHER = 0.1
#: Stretches: none, of the lower and the upper end by so many times the other end's, and of both
#: ends, the reciprocals. Rows must be placed so, with more even gaps after it: an end that is drawn
#: out between two rows would be claimed to be known.
STRETCHES = (0.0, 30.0, 1e3, 3e4, -30.0, -1e3, -3e4, 0.2, 1 / 30, 1e-3)
#: The largest gap may grow to so many times itself, as one row that is missing does to it. Gaps are
#: more even where the spread of their logarithms is at most so many times what it was: chance, as
#: of rows that are missing among even ones, makes it nine tenths, rows that are placed so half.
MOST_GAP, EVENER = 2.0, 2 / 3
#: Fewest different values of one of several columns whose gaps say that they are placed so: two
#: gaps are made equal by many a stretch.
FEWEST_LEVELS = 4
#: Fewest rows of lines that meet between them, and distance from the line through both neighbours,
#: in units of y, below which a row is on it.
FEWEST_BENT, ON_A_LINE = 4, 1e-6
#: Boxes by which a stretch goes on beyond the end that it does not draw out: a break of its
#: curvature at the last row would be one of the function.
GOES_ON = 1.0


def correlation(square: Any, kind: int, library: Any) -> tuple[Any, Any]:
    """Correlations at squared distances, and what times a step is minus their gradient.

    Gaussian, rational quadratic (Rasmussen, Williams 2006, Eq. 4.19), or Matern's of order 5/2
    (Eq. 4.17); by numpy or torch.
    """
    if kind == GAUSSIAN:
        value = library.exp(-0.5 * square)
        return value, value
    if kind == RATIONAL:
        base = 1 + square / (2 * EXPONENT)
        value = base**-EXPONENT
        return value, value / base
    r = library.sqrt(5 * square)
    fall = library.exp(-r)
    return (1 + r + r * r / 3) * fall, (5 / 3) * (1 + r) * fall


def stretched(X: Any, stretches: Sequence[float], library: Any) -> tuple[Any, Any]:
    """Coordinates (..., d) of columns with a stretch each, and their slopes; see `of_column`."""
    if not any(stretches):
        return X, library.ones_like(X)
    columns = [of_column(X[..., k], stretch, library) for k, stretch in enumerate(stretches)]
    value, slope = (library.stack(part, -1) for part in zip(*columns, strict=True))
    return value, slope


def of_column(X: Any, stretch: float, library: Any) -> tuple[Any, Any]:
    """Coordinates whose lower (stretch > 0) or upper end is drawn out, and their slopes.

    Both ends are by a stretch between 0 and 1: the mean of the coordinates of either by its
    reciprocal. The box stays the box. Outside of it the coordinate goes on straight: at once
    beyond the end that is drawn out, where the logarithm has a pole, after a box beyond the other.
    """
    if stretch == 0:
        return X, library.ones_like(X)
    if 0 < stretch < 1:
        (lower, low_slope), (upper, up_slope) = (
            of_column(X, sign / stretch, library) for sign in (1, -1)
        )
        return 0.5 * (lower + upper), 0.5 * (low_slope + up_slope)
    Z = X if stretch > 0 else 1 - X
    most, whole = abs(stretch), math.log1p(abs(stretch))
    inside = Z.clip(0, 1 + GOES_ON)
    slope = most / (1 + most * inside) / whole
    value = library.log1p(most * inside) / whole + slope * (Z - inside)
    return (value if stretch > 0 else 1 - value), slope


class Evidence:
    """The evidence of rates, line and noise, for the size of the process that is best with them.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows in the unit box.
    y : ndarray of shape (n,)
        Targets about their mean.
    weight : ndarray of shape (n,)
        Their noise is divided by it.
    further, within : float, default=0.0
        Number of targets beyond one a row, and sum of squares of all about the mean of their row:
        these tell the noise by themselves.
    """

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        kind: int,
        further: float = 0.0,
        within: float = 0.0,
    ):
        self.y, self.weight, self.kind = y, weight, kind
        self.further, self.within = further, within
        self.pairs = PairsOfRows(X)

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Its negative logarithm with the prior, and the gradient."""
        pairs, n, d = self.pairs, len(self.y), len(self.pairs.squares)
        n_targets = n + self.further
        rates, (line, noise) = theta[:d], np.exp(theta[d:])
        between, fall, own = self._covariances(theta)
        solved = pairs.solve(between, own, self.y)
        if solved is None:
            return math.inf, np.zeros_like(theta)
        alpha = solved.coef
        of_means, of_others = float(self.y @ alpha), self.within / (noise + NUGGET)
        size = max((of_means + of_others) / n_targets, np.finfo(float).tiny)
        # Half the derivative by each entry; the entries of a pair are two.
        slope = solved.inverse - pairs.products(alpha[:, None]) / size
        slope_own = 0.5 * (solved.inverse_own - alpha**2 / size)
        mean = float(rates.sum()) / d
        apart = (rates - mean) / SPREAD_APART**2
        value = 0.5 * n_targets * math.log(size) + solved.half_log_det
        value += 0.5 * self.further * math.log(noise + NUGGET)
        value += 0.5 * float(apart @ (rates - mean)) + 0.5 * ((mean - CENTRE) / SPREAD) ** 2
        gradient = np.empty_like(theta)
        gradient[:d] = -np.exp(2 * rates) * (pairs.squares @ (slope * fall))
        gradient[:d] += apart + (mean - CENTRE) / SPREAD**2 / d
        gradient[d] = line * float(slope @ pairs.line + slope_own @ pairs.line_own)
        gradient[d + 1] = noise * float(slope_own @ (1 / self.weight))
        gradient[d + 1] += 0.5 * noise / (noise + NUGGET) * (self.further - of_others / size)
        return value, gradient

    def _covariances(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covariances of pairs, minus the process' gradient over the step, and of each row."""
        pairs, d = self.pairs, len(self.pairs.squares)
        line, noise = np.exp(theta[d:])
        kernel, fall = correlation(pairs.distances(theta[:d]), self.kind, np)
        own = CONSTANT + line * pairs.line_own + 1 + (noise + NUGGET) / self.weight
        return CONSTANT + line * pairs.line + kernel, fall, own

    def size(self, theta: np.ndarray, n_taken: int) -> float:
        """The variance of the process, by the rows that so many numbers leave."""
        between, _, own = self._covariances(theta)
        factor = self.pairs.factor(between, own)
        if factor is None:
            raise np.linalg.LinAlgError("the covariance of the rows is not positive")
        square = float(self.y @ dpotrs(factor, self.y, lower=1)[0])
        square += self.within / (np.exp(theta[-1]) + NUGGET)
        return size_of(square, len(self.y) + self.further, n_taken)

    def search(self, start: np.ndarray, n_steps: int) -> tuple[float, np.ndarray]:
        """The least value that a few steps reach, and where."""
        bounds = [RATES] * len(self.pairs.squares) + [LINE, NOISE]
        return least(self, start, bounds, n_steps)


def size_of(square: float, n_targets: float, n_taken: int) -> float:
    """The variance of a process by ``y' K^-1 y``, by the targets that so many numbers leave."""
    return max(square / max(n_targets - n_taken, 1), np.finfo(float).tiny)


def further_targets(weight: np.ndarray, within: float) -> float:
    """Number of targets beyond one a row, from the sum of squares of all about their rows' means.

    Weights count targets where there are several of a row, and are one on average elsewhere.
    """
    return max(float(weight.sum()) - len(weight), 0.0) if within > 0 else 0.0


#: Kernel and stretches of the columns of one target, and logarithms of the rates, and of line and
#: noise over the process' variance.
KernelChoice = tuple[int, tuple[float, ...], np.ndarray]


def evidence_of(rows: Rows, target: int, kind: int, stretch: tuple[float, ...]) -> Evidence:
    """That of the rows' stretched coordinates for one target."""
    X, y, weight = (part.cpu().numpy() for part in (rows.X, rows.y[:, target], rows.weight))
    X, y = np.round(X, DECIMALS), np.round(y, DECIMALS)
    within = float(np.round(rows.within[:, target].sum().item(), DECIMALS))
    further = further_targets(weight, within)
    Z = stretched(X, stretch, np)[0]
    return Evidence(Z, y - weight @ y / weight.sum(), weight, kind, further, within)


def stretches_of(X: np.ndarray) -> list[tuple[float, ...]]:
    """Those of the columns whose rows are placed so: gaps become more even by them.

    All of them of a single column; of several none, and of each the one that makes them most even.
    """
    if X.shape[1] == 1:
        return [(stretch,) for stretch in _of_gaps(np.unique(X))]
    none, evenest = (0.0,) * X.shape[1], []
    for levels in map(np.unique, X.T):
        uneven = _of_gaps(levels) if len(levels) >= FEWEST_LEVELS else {0.0: 0.0}
        evenest.append(min(uneven, key=uneven.__getitem__))
    return [none, tuple(evenest)] if any(evenest) else [none]


def _of_gaps(x: np.ndarray) -> dict[float, float]:
    """Stretches that make the gaps of sorted levels more even, and none, with how uneven."""
    gaps = {k: np.diff(of_column(x, k, np)[0]) for k in STRETCHES}
    # Where round-off makes one of two rows, the coordinate loses what the rows tell.
    gaps = {k: gap for k, gap in gaps.items() if k == 0 or gap.all()}
    uneven = {k: float(np.log(gap).std()) for k, gap in gaps.items()}
    most, even = MOST_GAP * gaps[0.0].max(), EVENER * uneven[0.0]
    return {k: uneven[k] for k in gaps if k == 0 or (uneven[k] < even and gaps[k].max() < most)}


def first_numbers(d: int) -> list[np.ndarray]:
    """Logarithms of rates, line and noise that searches of d columns begin with."""
    return _numbers(d, FIRST_RATES, FIRST_NOISES)


def wave_numbers(d: int) -> list[np.ndarray]:
    """The same of waves of many periods, which are looked for in a single column."""
    return _numbers(d, WAVE_RATES, WAVE_NOISES) if d == 1 else []


def _numbers(d: int, rates: Sequence[float], noises: Sequence[float]) -> list[np.ndarray]:
    return [
        np.r_[np.full(d, math.log(rate / math.sqrt(d))), math.log(FIRST_LINE), math.log(noise)]
        for rate in rates
        for noise in noises
    ]


def likeliest_kernel(rows: Rows, target: int) -> KernelChoice:
    """Of all kernels, stretches and starts."""
    d = rows.n_features
    starts, stretches = first_numbers(d), stretches_of(rows.X.cpu().numpy())
    ends = []
    for kind in KINDS:
        begun = []
        for stretch in stretches:
            evidence = evidence_of(rows, target, kind, stretch)
            begun += [(evidence(start)[0], stretch, evidence, start) for start in starts]
        begun.sort(key=lambda one: one[0])
        best, stretch, evidence, _ = begun[0]
        waves = [(evidence(start)[0], stretch, evidence, start) for start in wave_numbers(d)]
        waves.sort(key=lambda one: one[0])
        # Of waves one start, beside the others: where it leads must be likelier in the end.
        begun = begun[: 1 if rows.n_rows > MANY_ROWS else N_SEARCHES]
        begun += [wave for wave in waves[:1] if wave[0] < best]
        for _, stretch, evidence, start in begun:
            value, theta = evidence.search(start, N_STEPS)
            # What is barely likelier by being smooth may as well be rough.
            claim = SMOOTHER * rows.n_rows if kind == GAUSSIAN else 0.0
            ends.append((value + claim, kind, stretch, theta))
    _, kind, stretch, theta = min(ends, key=lambda end: end[0])
    return kind, stretch, rounded(theta)


def rounded(theta: np.ndarray) -> np.ndarray:
    """A kernel's numbers without what round-off has made of them."""
    unit = STEP * math.log(2)
    return np.round(theta / unit) * unit


def is_bent(rows: Rows) -> bool:
    """Whether most rows of a single column are on a line with their neighbours, but not all.

    Where the lines meet between rows no smooth function says so.
    """
    if rows.n_features > 1 or rows.n_rows < FEWEST_BENT:
        return False
    order = rows.X[:, 0].argsort()
    x, y = rows.X[order], rows.y[order]
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    off = (y[1:-1] - y[:-2] - share * (y[2:] - y[:-2])).abs().amax(1)
    return float(off.median()) < ON_A_LINE < float(off.max())
