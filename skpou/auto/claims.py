"""What fitted members claim between the rows, and weights of their densities by that.

Members whose bars were set by errors at left-out rows say themselves how well they know what is
between the rows: no fit without some of the rows tells it better, and none is needed. What they
cannot know is whether all their forms are wrong, and where between two rows a mean jumps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from skpou.auto.predictive import OWN_DENSITY
from skpou.auto.race import LEAST_STD, LEAST_WEIGHT, ROUND_OFF, Data, order_of
from skpou.auto.stacking import STEP

#: Logarithm of the density of a Gaussian of unit standard deviation at its mean, negative.
UNIT = 0.5 * math.log(2 * math.pi)
#: Points at which bars are read. In the box of the rows up to so many columns; in more of them the
#: box is mostly empty, and points are taken about the rows.
N_PROBES, COLUMNS_OF_BOX = 512, 3
#: Combinations of levels that are tried for each such point, and those that are missing among the
#: rows, relative to these, below which rows are a whole grid: between its levels nothing is known.
TRIES, MISSING = 8, 0.1
#: Random numbers below this tell sums of codes apart: two are equal by chance once in 2^62.
LARGEST_TERM = 2**62
#: Exponent of the weights, by the difference of what is claimed: at 0.1 nats, within what a claim
#: is known to, a member keeps three quarters of the leader's weight, at one nat a twentieth.
SHARPNESS = 3.0
#: Errors of the members of a stack relative to the leader's: a mean with a share of a larger error
#: would lose what the leader knows.
MOST_ERROR = 2.0
#: Rows from which it is looked at whether a mean jumps on the way to the nearest other row, how
#: often the way is halved, and the difference, in units of the spread, that is a jump there.
N_WAYS, HALVINGS, JUMP = 500, 40, 1e-3
#: Draws at each point, where the density has a wide component for outliers: together they tell the
#: expected log density to two hundredths.
N_DRAWS = 16
#: Standard deviations of another member that contradict an exact one, at such a share of points.
CONTRADICTS, OFTEN = 6.0, 0.05


def is_calibrated(member: Any) -> bool:
    """Whether a member says that its bars were set by errors at left-out rows."""
    return bool(getattr(member, "bars_are_calibrated", False))


def probes_of(data: Data) -> np.ndarray:
    """Points (n, d) where new rows may be, the same ones for the same rows.

    Where rows differ in one column's level alone, as those of a table of levels, new rows are other
    combinations of levels. Where points have several targets, those of doses that were tried again
    and again, new targets are had there as well: the share of the probes that lie between the rows
    is that of targets at points with no other, the chance of a new point [1]_.

    References
    ----------
    .. [1] I. J. Good, "The population frequencies of species and the estimation of population
       parameters", Biometrika 40 (1953), Eq. 9.
    """
    rng, points = np.random.default_rng(0), data.points
    n, d = points.shape
    if d <= COLUMNS_OF_BOX or n == 1:
        low, high = points.min(0), points.max(0)
        probes = low + (high - low) * rng.random((N_PROBES, d))
    else:
        probes = _about_rows(points, rng)
    combined = _other_combinations(points, rng)
    probes[N_PROBES - len(combined) :] = combined
    again = np.flatnonzero(np.bincount(data.point)[data.point] > 1)
    if len(again):
        # By the rule of succession, for few rows.
        n_again = int(N_PROBES * (len(again) + 1) / (len(data.y) + 2))
        probes[:n_again] = data.X[again[rng.integers(len(again), size=n_again)]]
    return probes


def _about_rows(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (N_PROBES, d) as far from a row as its neighbours are, and beyond the rows as often.

    Two neighbours' difference, of twice the variance, is shortened to that: linear relations of
    columns stay. Values that recur in a column are kept, as often as those of new rows recur.
    """
    n, some = len(points), np.arange(N_PROBES)
    start = rng.integers(n, size=N_PROBES)
    near = np.column_stack([neighbours(points, start), start])
    k = near.shape[1] - 1
    first = rng.integers(k, size=N_PROBES)
    second = (first + 1 + rng.integers(k, size=N_PROBES)) % (k + 1)
    first, second = near[some, first], near[some, second]
    between = points[start] + math.sqrt(0.5) * (points[first] - points[second])
    between = np.clip(between, points.min(0), points.max(0))
    recurs = rng.random(between.shape) < _recurs(points).mean(0)
    own = rng.random(between.shape) < 0.5
    probes = np.where(recurs, np.where(own, points[start], points[first]), between)
    return np.where(_are_rows(probes, points)[:, None], between, probes)


def _other_combinations(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (k, d) of a table of levels that the rows lack: a row with another level of a column.

    As many of `N_PROBES` as rows differ from another one in a single column.
    """
    n, d = points.shape
    recurs, codes = _recurs(points), _codes(points)
    # Rows that are equal but for a column have equal sums of random numbers for their values.
    terms = codes * rng.integers(LARGEST_TERM, size=d)
    free = recurs & _recurs(terms.sum(1, keepdims=True) - terms)
    rows = np.flatnonzero(free.any(1))
    if d == 1 or not len(rows):
        return points[:0]
    some = rows[rng.integers(len(rows), size=TRIES * N_PROBES)]
    column = np.where(free[some], rng.random((len(some), d)), -1.0).argmax(1)
    other, found = rng.integers(n, size=len(some)), points[some]
    found[np.arange(len(some)), column] = points[other, column]
    found = found[recurs[other, column] & ~_are_rows(found, points)]
    if len(np.unique(found, axis=0)) < MISSING * n:
        return points[:0]
    return found[: N_PROBES * len(rows) // n]


def _codes(values: np.ndarray) -> np.ndarray:
    """Numbers (n, d) of the distinct values of each column."""
    return np.stack([np.unique(column, return_inverse=True)[1] for column in values.T], 1)


def _recurs(values: np.ndarray) -> np.ndarray:
    """Whether each value (n, d) is found again in its column."""
    return np.stack([np.bincount(code)[code] > 1 for code in _codes(values).T], 1)


def _are_rows(some: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether each of some points (k, d) is among others."""
    known = {point.tobytes() for point in points}
    return np.array([point.tobytes() in known for point in some], dtype=bool)


def neighbours(points: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Numbers of the d + 1 nearest other points of some, in units of the box, or of all others."""
    n, d = points.shape
    width = np.ptp(points, axis=0)
    scaled = points / np.where(width > 0, width, 1.0)
    return cKDTree(scaled).query(scaled[some], k=range(1, min(n, d + 2) + 1))[1][:, 1:]


@dataclass(frozen=True)
class Claim:
    """What a fitted member says of targets between the rows.

    Attributes
    ----------
    score : float
        Mean log density that it expects there, per unit of the spread of y; minus infinity where
        its bars are infinite.
    error : float
        Root mean square of the errors of the mean that it expects, in units of the spread.
    total : float
        That of the distance of targets from the mean.
    exact : bool
        Whether it takes its mean for exact in all points.
    mean, std : ndarray of shape (n, m)
        At the points.
    """

    score: float
    error: float
    total: float
    exact: bool
    mean: np.ndarray
    std: np.ndarray


def claim_of(model: Any, data: Data, probes: np.ndarray) -> Claim:
    """What a fitted member claims at some points.

    Raises
    ------
    ValueError
        If a mean or a bar is no number, or a bar is negative: no density follows from them.
    """

    def moments(kind: bool | str) -> tuple[np.ndarray, np.ndarray]:
        found = model.predict(probes, return_std=kind)
        mean, std = (np.asarray(part, dtype=float).reshape(len(probes), -1) for part in found)
        _check_numbers(type(model).__name__, mean, std)
        return mean, std / data.spread

    mean, std = moments(True)
    # Where noise is the larger part, means are told apart by what is not noise.
    unsure = moments("epistemic")[1] if is_calibrated(model) else std
    score = float(-(np.log(np.maximum(std, LEAST_STD)) + UNIT + 0.5).sum(1).mean())
    if len(getattr(model, "outliers_", ())) and all(hasattr(model, name) for name in OWN_DENSITY):
        score = _expected_log_density(model, data, probes)
    exact = bool((std <= LEAST_STD).all())
    error, total = (
        max(float(np.sqrt(np.square(part).mean())), ROUND_OFF) for part in (unsure, std)
    )
    if not np.isfinite([score, error, total]).all():
        score, error, total, exact = -np.inf, np.inf, np.inf, False
    return Claim(score, error, total, exact, mean, std * data.spread)


def _check_numbers(name: str, mean: np.ndarray, std: np.ndarray) -> None:
    """Refuse a member without a density."""
    for what, values, wrong in (
        ("mean", mean, np.isnan(mean)),
        ("standard deviation", std, ~(std >= 0)),
    ):
        if wrong.any():
            raise ValueError(
                f"{name}.predict(X, return_std=True) gives a {what} of {values[wrong][0]} between "
                f"the rows, at {wrong.any(1).mean():.0%} of the points looked at: there is no "
                "density."
            )


def _expected_log_density(model: Any, data: Data, probes: np.ndarray) -> float:
    """Mean log density that a member expects of its own draws, per unit of the spread of y.

    Where it has set outliers apart its bars are those of the other rows: the density has a wide
    component for them, and is less likely on average than a Gaussian by these bars.
    """
    m = data.y.shape[1]
    draws = np.asarray(model.sample_y(probes, N_DRAWS, random_state=0), dtype=float)
    y = np.moveaxis(draws.reshape(len(probes), m, N_DRAWS), 2, 1).reshape(-1, m)
    points = np.repeat(probes, N_DRAWS, axis=0)
    logs = model.log_density(points, y[:, 0] if m == 1 else y)
    most = -m * (math.log(LEAST_STD) + UNIT)
    return float(np.minimum(logs + np.log(data.spread).sum(), most).mean())


def jumps(model: Any, data: Data) -> bool:
    """Whether a mean has a jump between a row and the nearest other one, by halving the way.

    Where between the two it lies no row tells.
    """
    points = data.points
    if len(points) < 2:
        return False
    some = np.sort(np.random.default_rng(0).permutation(len(points))[:N_WAYS])
    near = neighbours(points, some)
    start, end = np.repeat(points[some], near.shape[1], axis=0), points[near.ravel()]

    def mean(X: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(X), dtype=float).reshape(len(X), -1) / data.spread

    left, right = mean(start), mean(end)
    for _ in range(HALVINGS):
        steep = (np.abs(right - left) > JUMP).any(1)
        if not steep.any():
            return False
        start, end, left, right = (part[steep] for part in (start, end, left, right))
        middle = start + 0.5 * (end - start)
        between = mean(middle)
        first = (np.abs(between - left).max(1) > np.abs(right - between).max(1))[:, None]
        start, end = np.where(first, start, middle), np.where(first, middle, end)
        left, right = np.where(first, left, between), np.where(first, between, right)
    return bool((np.abs(right - left) > JUMP).any())


def weights_by_claims(
    scores: Sequence[float], errors: Sequence[float], most: int
) -> tuple[list[int], np.ndarray]:
    """Members of the stack, the heaviest first, and the weights of their densities.

    Parameters
    ----------
    scores, errors : sequence of float
        Of each member, as `Claim` has them.
    """
    order = order_of(scores, errors)
    leader = order[0]
    near = [k for k in order if errors[k] <= MOST_ERROR * errors[leader]][:most]
    score = np.array([scores[k] for k in near])
    if not np.isfinite(score).all():
        return [leader], np.ones(1)
    pi = np.exp(SHARPNESS * (score - score.max()))
    # The leader may be a hair less likely than another.
    pi[0] = pi.max()
    kept = pi / pi.sum() >= LEAST_WEIGHT
    pi = np.round(pi[kept] / pi[kept].sum() / STEP) * STEP
    pi[0] += 1 - pi.sum()
    return [k for k, good in zip(near, kept) if good], pi


def contradicted(claim: Claim, other: Claim) -> bool:
    """Whether another member's bars often do not hold a mean that takes itself for exact."""
    distance = np.abs(claim.mean - other.mean)
    return bool((distance > CONTRADICTS * (other.std + claim.std)).any(1).mean() > OFTEN)


def chance_of_error(n_points: int) -> float:
    """Chance that the next target is far from a fit which has held at n points.

    References
    ----------
    Laplace's rule of succession.
    """
    return 1.0 / (n_points + 2)
