"""Boxes that fill the unit box, each with the degrees of its polynomials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Face(NamedTuple):
    """What two boxes share: the first lies below it, along its axis, the second above."""

    below: int
    above: int
    axis: int
    low: np.ndarray
    high: np.ndarray
    #: What the coordinate along the axis is on the upper side: another where the box is closed
    #: to a ring.
    other: float


@dataclass(frozen=True)
class Boxes:
    """Pieces of a box.

    Attributes
    ----------
    low, high : ndarray of shape (E, d)
        Corners.
    degree : ndarray of int of shape (E, d)
        Degree of the polynomials along each column.
    inside : ndarray of bool of shape (E,)
        Whether a piece lies within a domain that is given by points: there equations hold
        everywhere, not at these points alone.
    """

    low: np.ndarray
    high: np.ndarray
    degree: np.ndarray
    inside: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self):
        if len(self.inside) != len(self.low):
            object.__setattr__(self, "inside", np.zeros(len(self.low), dtype=bool))

    @property
    def n_boxes(self) -> int:
        """Number E of pieces."""
        return len(self.low)

    @property
    def width(self) -> np.ndarray:
        """Widths (E, d)."""
        return self.high - self.low

    def degrees(self, e: int) -> tuple[int, ...]:
        """Degree of a piece."""
        return tuple(int(p) for p in self.degree[e])

    def subset(self, index: np.ndarray) -> Boxes:
        """Some of the pieces."""
        return Boxes(self.low[index], self.high[index], self.degree[index], self.inside[index])

    def locate(self, points: np.ndarray, block: int = 4096) -> np.ndarray:
        """Number of the piece of each point (n, d), -1 where there is none.

        Of pieces that touch at a point the one that lies above it.
        """
        found = np.full(len(points), -1)
        low, high = self.low, self.high
        for start in range(0, len(points), block):
            x = points[start : start + block]
            inside = np.ones((len(x), len(low)), dtype=bool)
            for j in range(x.shape[1]):
                inside &= (x[:, j, None] >= low[:, j]) & (x[:, j, None] <= high[:, j])
            # The last of those that touch has the largest lower corner.
            rank = np.where(inside, low.sum(1) + 1.0, 0.0)
            best = rank.argmax(1)
            found[start : start + block] = np.where(inside.any(1), best, -1)
        return found

    def local(self, e: np.ndarray | int, points: np.ndarray) -> np.ndarray:
        """Points of the unit box as points of [-1, 1]^d of their pieces."""
        return (2 * points - self.low[e] - self.high[e]) / (self.high[e] - self.low[e])

    def faces(self, rings: frozenset[int] = frozenset()) -> list[Face]:
        """What pairs of pieces share; along the columns in `rings` also across the ends."""
        found: list[Face] = []
        d = self.low.shape[1]
        scale = 1e-12
        for axis in range(d):
            others = [j for j in range(d) if j != axis]
            ends = [(self.high[:, axis], self.low[:, axis], False)]
            if axis in rings:
                ends.append((self.high[:, axis] - 1.0, self.low[:, axis], True))
            for upper, lower, ring in ends:
                order = np.argsort(lower, kind="stable")
                sorted_lower = lower[order]
                first = np.searchsorted(sorted_lower, upper - scale)
                last = np.searchsorted(sorted_lower, upper + scale)
                for a in range(self.n_boxes):
                    if ring and self.high[a, axis] < 1.0 - scale:
                        continue
                    for b in order[first[a] : last[a]]:
                        low = np.maximum(self.low[a], self.low[b])
                        high = np.minimum(self.high[a], self.high[b])
                        if all(high[j] > low[j] + scale for j in others):
                            low, high = low.copy(), high.copy()
                            low[axis] = high[axis] = self.high[a, axis]
                            found.append(Face(a, int(b), axis, low, high, self.low[b, axis]))
        return found
