"""How much of what a form may run away by outside the box is borne out by rows at its sides.

Nothing is known there but what the form says, and a basis may run away: the mean's distance from
its own tangent is doubted. Rows next to a side that are left out together are outside of the box of
the others. Where the form foretells them better than this doubt it does so further out, too, for
about as far: of a smooth function that is met to many digits the doubt is too large by as many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from skpou.core import ArrayState
from skpou.core.linalg import TINY
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.model import Predictor

#: Share of the rise along the tangent that is not known outside the box.
UNSURE = 0.5
#: Parts of the box along a column whose rows are left out at a side.
WIDTHS = (0.06, 0.12, 0.24)
#: Least part of the rows that is left.
LEAST_LEFT = 0.5
#: Most columns: each has two sides.
MOST_COLUMNS = 8
#: Part of the box beyond which all is doubted.
FAR = 0.5
#: Standard deviations for one of the errors at a side: they are few, those of one function, and
#: what was chosen, as centres of gates, was chosen with these rows.
SAFE = 5.0
#: Least part of the doubt of one column: below it both are round-off; and of several, where no row
#: has been outside of two sides at once and gates that were found with all rows remember these: on
#: exact rows of a bump that is met to 1e-6, errors outside were twenty times those at the sides.
LEAST, LEAST_OF_SEVERAL = 1e-12, 0.03
#: Errors' worth of belief in what a process claims outside: those at a side are few and alike.
PRIOR_ERRORS = 1.0
#: Their size, in units of what it claims, from which on it is doubted: those of smooth functions
#: are twice as large at some sides, and the doubt is far larger than these.
BORNE_OUT = 3.0
#: Part of the distance of the narrowest rows at a side at which its doubt is reached: the mean of
#: theirs.
REACHED = 0.5


@dataclass(frozen=True)
class Outside(ArrayState):
    """What part of the doubt is borne out.

    Attributes
    ----------
    distances : ndarray of shape (k,)
        How far rows at a side were outside the box of the others, in units of that, ascending.
    parts : ndarray of shape (k,)
        Logarithm of the part of the doubt that is expected up to there, ascending.
    sizes : ndarray of shape (k,)
        Logarithm of the standard deviation that is expected at least, ascending: where a function
        is flat its doubt is small, and the error is as elsewhere.
    """

    distances: np.ndarray
    parts: np.ndarray
    sizes: np.ndarray

    def part(self, X: np.ndarray) -> np.ndarray:
        """Part (n,) of the standard deviation at scaled points X (n, d) outside the box."""
        return np.exp(np.interp(_beyond(X), [*self.distances, FAR], [*self.parts, 0.0]))

    def size(self, X: np.ndarray) -> np.ndarray:
        """Least standard deviation (n,) at scaled points X (n, d) outside the box."""
        return np.exp(np.interp(_beyond(X), self.distances, self.sizes))


@dataclass(frozen=True)
class SideDoubts(ArrayState):
    """What part of the doubt counts beside a process' own variance, at each side of the box.

    Attributes
    ----------
    parts : ndarray of shape (d, 2)
        Below and above each column: 0 where the process knows what is outside.
    distance : ndarray of shape (d, 2)
        How far from the box, in units of it, each is reached; at the side itself it is none.
    """

    parts: np.ndarray
    distance: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Part (n,) of the standard deviation at scaled points X (n, d)."""
        beyond = np.stack([-X, X - 1], 2).clip(0)
        return (self.parts * (beyond / self.distance).clip(0, 1)).max((1, 2))


def fit_side_doubts(sides: list[Side], left_out: LeftOut, d: int) -> SideDoubts:
    """How far errors of a process at rows next to each side exceed what it claims of them.

    Parameters
    ----------
    sides : list of Side
    left_out : LeftOut
        Errors without each of them.
    d : int
        Number of columns.
    """
    asked, distance = np.ones((d, 2, len(WIDTHS))), np.full((d, 2), FAR)
    square = left_out.error[:, 0] ** 2 / np.maximum(left_out.variance[:, 0], TINY)
    for number, side in enumerate(sides):
        count, mean = left_out.count[number], square[left_out.group == number].mean()
        place = side.column, int(side.upper)
        asked[place][side.width] = (count * mean + PRIOR_ERRORS) / (count + PRIOR_ERRORS)
        distance[place] = min(distance[place], REACHED * side.distance)
    # One of the widths may err by more by chance.
    parts = 1 - BORNE_OUT / np.sqrt(np.median(asked, 2))
    return SideDoubts(parts.clip(0, 1), distance)


def _beyond(X: np.ndarray) -> np.ndarray:
    """Distances (n,) from the box; no row has been outside of two sides at once: they add up."""
    return np.abs(X - X.clip(0, 1)).sum(1)


@dataclass(frozen=True)
class Side:
    """Rows (k,) at a side of a column, and their distance from the box of the others."""

    column: int
    upper: bool
    width: int
    rows: np.ndarray
    edge: float
    distance: float


def sides_of(X: np.ndarray) -> list[Side]:
    """Sets of rows at the sides of the box of X (n, d); none of too many columns."""
    n, d = X.shape
    found: list[Side] = []
    if d > MOST_COLUMNS:
        return found
    for column, x in enumerate(X.T):
        for upper, inner in enumerate((x, 1 - x)):
            for number, width in enumerate(WIDTHS):
                gone = inner <= width
                if not gone.any() or n - gone.sum() < LEAST_LEFT * n:
                    continue
                least, most = float(inner[~gone].min()), float(inner[~gone].max())
                if not most > least:
                    continue
                distance = (least - float(inner.min())) / (most - least)
                edge = 1 - least if upper else least
                found.append(
                    Side(column, bool(upper), number, np.flatnonzero(gone), edge, distance)
                )
    return found


def fit_outside(
    sides: list[Side],
    left_out: LeftOut,
    X: np.ndarray,
    doubt_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Outside | None:
    """What part of the doubt the errors of one target at the sides ask for.

    Parameters
    ----------
    left_out : LeftOut
        Errors without each of them, after those of random folds.
    X : ndarray of shape (n, d)
        Rows in the unit box.
    doubt_of : callable
        Squares (k,) of what the mean may run away by from points (k, d) of a box to others.

    Returns
    -------
    Outside or None
        None where nothing is borne out.
    """
    distances, parts = np.full(len(WIDTHS), FAR), np.full(len(WIDTHS), np.log(LEAST))
    sizes = parts.copy()
    narrowest = min((side.width for side in sides if side.distance < FAR), default=None)
    # The narrowest first: where one of them bears nothing out, no other is asked.
    for number in sorted(range(len(sides)), key=lambda number: sides[number].width):
        side, own = sides[number], left_out.n_folds + number
        of_side = left_out.group == own
        # Few errors may be small by chance: they count as much as the fit without them expects.
        square = np.maximum(left_out.error[of_side] ** 2, left_out.variance[of_side])
        near, there = X[side.rows].copy(), X[side.rows]
        near[:, side.column] = side.edge
        with np.errstate(all="ignore"):
            part = SAFE * np.sqrt(square.mean() / np.mean(doubt_of(near, there)))
        known = left_out.told[own] and np.isfinite(part)
        log = float(np.log(np.clip(part, LEAST, 1.0))) if known else 0.0
        if log == 0.0 and side.width == narrowest:
            return None
        size = SAFE * np.sqrt(square.mean()) if known and log < 0 else LEAST
        sizes[side.width] = max(sizes[side.width], float(np.log(max(size, LEAST))))
        # A side where little happens says nothing of the others: the function is one.
        parts[side.width] = max(parts[side.width], log)
        distances[side.width] = min(distances[side.width], side.distance)
    told = distances < FAR
    if X.shape[1] > 1:
        parts = parts.clip(np.log(LEAST_OF_SEVERAL))
    parts = np.maximum.accumulate(parts[told])
    sizes = np.maximum.accumulate(sizes[told])
    distances = np.maximum.accumulate(distances[told])
    return Outside(distances, parts, sizes) if len(parts) and parts[0] < 0 else None


def runaway(model: Predictor, near: Tensor, X: Tensor) -> Tensor:
    """Square (n, m) of how far a mean is from its tangent at other points, and what that rises."""
    step = X - near
    rise = (model.gradient(near).to(X) * step[..., None]).sum(1)
    bent = model.mean(X).to(X) - model.mean(near).to(X) - rise
    return bent.square() + (UNSURE * rise).square()
