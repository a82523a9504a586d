"""Where a function of one column goes on straight beyond an end of the box.

A process whose length is that of a root or a pole at one end knows nothing of where the function
goes beyond the other: its mean returns to the one before any row was seen. Rows next to an end that
are left out together tell whether the tangent to the process of the others is nearer, and by how
much the function bends off that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.core import ArrayState
from skpou.core.linalg import TINY
from skpou.core.models.outside import Side

#: Part of the process' errors beyond an end that those of the tangent must not exceed.
BETTER = 0.5
#: Standard deviations for what the function bends off by: that is one function's, whose bend
#: changes on the way.
SAFE = 2.0
#: Sets of rows at an end that must tell the same.
FEWEST_SETS = 2


@dataclass(frozen=True)
class EndTangents(ArrayState):
    """Which ends have a tangent, and standard deviations from it.

    Attributes
    ----------
    slopes, bends : ndarray of shape (2,)
        Of the lower and the upper end, in units of the distance from the box and of its square;
        zero where the process goes on.
    """

    slopes: np.ndarray
    bends: np.ndarray

    @property
    def taken(self) -> np.ndarray:
        """Which of both ends (2,) have a tangent."""
        return self.bends > 0

    def nearest(self, X: Tensor) -> Tensor:
        """Points (n, 1), those beyond an end with a tangent at this end."""
        lower, upper = self.taken
        return X.clamp(0 if lower else -math.inf, 1 if upper else math.inf)

    def size(self, step: Tensor) -> Tensor:
        """What a tangent is wrong by (n,), a standard deviation with a sign, after steps (n, 1)."""
        x = step[:, 0]
        ends = torch.as_tensor(np.stack([self.slopes, self.bends]), device="cpu").to(x)
        slope, bend = torch.where(x < 0, ends[:, :1], ends[:, 1:])
        return x * torch.hypot(slope, bend * x)


def fit_end_tangents(
    sides: list[Side], X: np.ndarray, errors_of: Callable[[Side], tuple[np.ndarray, np.ndarray]]
) -> EndTangents | None:
    """The ends beyond which the tangent was nearer to rows that were left out.

    Parameters
    ----------
    sides : list of Side
        Rows next to the ends.
    X : ndarray of shape (n, 1)
        Rows in the unit box.
    errors_of : callable
        Errors of a process without the rows of a side there, and of its tangent.

    Returns
    -------
    EndTangents or None
        None where there is none.
    """
    slopes, bends = np.zeros((2, 2))
    for upper in (False, True):
        own = [side for side in sides if side.upper == upper]
        told = [_told(side, X, *errors_of(side)) for side in own]
        nearer = [one.ratio for one in told]
        if len(told) >= FEWEST_SETS and max(nearer) < 1 and math.prod(nearer) < BETTER ** len(told):
            # The nearest rows come first: where these bend more the function does so all the more.
            growth = max(told[0].bend / max(told[-1].bend, TINY), 1.0)
            bends[int(upper)] = max(SAFE * growth * max(one.bend for one in told), TINY)
            slopes[int(upper)] = SAFE * max(one.slope for one in told)
    return EndTangents(slopes, bends) if bends.any() else None


class _Told(NamedTuple):
    """Errors of a tangent in units of a process' own, and what they say of its slope and bend."""

    ratio: float
    slope: float
    bend: float


def _told(side: Side, X: np.ndarray, own: np.ndarray, tangent: np.ndarray) -> _Told:
    distance = np.maximum(np.abs(X[side.rows, 0] - side.edge), TINY)
    first = int(distance.argmin())
    slope = float(np.abs(tangent[first]) / distance[first])
    size = float(np.mean(tangent**2))
    # Next to the end all is the slope's: what is more than that is a bend.
    bent = max(size - slope**2 * float(np.mean(distance**2)), 0.0)
    ratio = math.sqrt(size / max(float(np.mean(own**2)), TINY))
    return _Told(ratio, slope, math.sqrt(bent / float(np.mean(distance**4))))
