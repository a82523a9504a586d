"""What a process errs by between the few levels of a column, beyond what left-out levels tell.

Rows of a level share one error, and a few levels of a smooth function hardly more: that of the next
power, whose sign may change just there. Without two or three levels side by side it is another one.
And what is claimed by a kernel that is smoother than the function falls off faster, as gaps become
narrower, than the errors do: a trend over the gaps that levels are left out of goes on to the one
between two levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from skpou.core.linalg import TINY
from skpou.core.models.cross_validation import LeftOut

#: Fewest levels, in which there is a gap of each width, and most: more tell by themselves.
FEWEST_LEVELS, MOST_LEVELS = 5, 10
#: Numbers of levels that are left out side by side. Gaps are wider by one.
WIDTHS = (1, 2, 3)


def asked_by_gaps(
    X: np.ndarray, columns: Iterable[int], errors_of: Callable[[LeftOut], LeftOut]
) -> float:
    """Factor of a process' variance that errors in gaps of several levels ask for.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows in the unit box.
    columns : iterable of int
        Those with levels.
    errors_of : callable
        Errors, with what is claimed of them, of sets that are left out.

    Returns
    -------
    float
        1 where no column has so few levels, or at least.
    """
    asked = 1.0
    for column in columns:
        levels = np.unique(X[:, column])
        if FEWEST_LEVELS <= len(levels) <= MOST_LEVELS:
            asked = max(asked, _of_column(X[:, column], levels, errors_of))
    return asked


def _of_column(x: np.ndarray, levels: np.ndarray, errors_of: Callable[[LeftOut], LeftOut]) -> float:
    """The factor of one column, whose first and last level would be extrapolated."""
    gaps = [
        (width, np.flatnonzero(np.isin(x, levels[first : first + width])))
        for width in WIDTHS
        for first in range(1, len(levels) - width)
    ]
    nothing, none = np.zeros((0, 1)), np.zeros(0)
    sets = LeftOut([rows for _, rows in gaps], 0, nothing, nothing, nothing, none, none)
    found = errors_of(sets)
    width = np.array([width for width, _ in gaps])[found.group]
    square = found.error[:, 0] ** 2 / np.maximum(found.variance[:, 0], TINY)
    one, two, three = (float(square[width == wanted].mean()) for wanted in WIDTHS)
    # From gaps of four levels' distance to those of two it is as far as twice from these to one.
    trend = math.sqrt(one / max(three, TINY))
    return max(one, two, one * trend)
