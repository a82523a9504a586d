"""Boxes that fill the unit box, each with the degrees of its polynomials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.columns import columns_at
from skpou.partitions.equations.edges import Edges, joined_edges, upright

#: Width of a piece at a time, as a share of the box, that is none: there its edges meet.
NO_WIDTH = 1e-12
#: Distance, as a share of the box, of pieces that touch.
TOUCHING = 1e-12
#: Points that are compared with all pieces at a time: 4 MB for a thousand pieces.
BLOCK = 4096


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
    edges : Edges, optional
        Pieces of the plane that end at moving edges within these boxes; None: at their sides.
    """

    low: np.ndarray
    high: np.ndarray
    degree: np.ndarray
    inside: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    edges: Edges | None = None

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
        edges = None if self.edges is None else self.edges.subset(index)
        return Boxes(
            self.low[index], self.high[index], self.degree[index], self.inside[index], edges
        )

    def locate(self, points: np.ndarray) -> np.ndarray:
        """Number of the piece of each point (n, d), -1 where there is none.

        Of pieces that touch at a point the one that lies above it.
        """
        found = np.full(len(points), -1)
        low, high = self.low, self.high
        for start in range(0, len(points), BLOCK):
            x = points[start : start + BLOCK]
            inside = np.ones((len(x), len(low)), dtype=bool)
            for j in range(x.shape[1]):
                inside &= (x[:, j, None] >= low[:, j]) & (x[:, j, None] <= high[:, j])
            # The last of those that touch has the largest lower corner.
            rank = np.where(inside, low.sum(1) + 1.0, 0.0)
            if self.edges is not None:
                self._rank_by_edges(self.edges, x, inside, rank)
            best = rank.argmax(1)
            found[start : start + BLOCK] = np.where(inside.any(1), best, -1)
        return found

    def _rank_by_edges(
        self, edges: Edges, x: np.ndarray, inside: np.ndarray, rank: np.ndarray
    ) -> None:
        """Take out points beyond moving edges; pieces come last where their edges meet."""
        n, e = np.nonzero(inside)
        lower, upper = edges.ends(e, self.local(e, x[n])[:, edges.column])
        place = x[n, edges.other]
        within = (place >= lower) & (place <= upper)
        rank[n, e] *= np.where(upper - lower > NO_WIDTH, 1.0, NO_WIDTH) * within
        inside[n, e] = within

    def points(self, e: int, nodes: np.ndarray) -> np.ndarray:
        """Points of the unit box of nodes (n, d) of [-1, 1]^d, which stands for the piece."""
        found = (self.low[e] + self.high[e]) / 2 + self.width[e] / 2 * nodes
        if self.edges is not None:
            lower, upper = self.edges.ends(e, nodes[:, self.edges.column])
            other = self.edges.other
            found[:, other] = (lower + upper) / 2 + (upper - lower) / 2 * nodes[:, other]
        return found

    def nodes(self, e: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Nodes that stand for points (n, d) of pieces (n,): the inverse of `points`."""
        found = self.local(e, points)
        if self.edges is not None:
            lower, upper = self.edges.ends(e, found[:, self.edges.column])
            width = np.maximum(upper - lower, NO_WIDTH)
            other = self.edges.other
            found[:, other] = ((2 * points[:, other] - lower - upper) / width).clip(-1, 1)
        return found

    def local(self, e: np.ndarray | int, points: np.ndarray) -> np.ndarray:
        """Points of the unit box as points of [-1, 1]^d of their pieces."""
        return (2 * points - self.low[e] - self.high[e]) / (self.high[e] - self.low[e])

    def faces(self, rings: frozenset[int] = frozenset()) -> list[Face]:
        """What pairs of pieces share; along the columns in `rings` also across the ends."""
        found: list[Face] = []
        d = self.low.shape[1]
        for axis in range(d):
            others = [j for j in range(d) if j != axis]
            ends = [(self.high[:, axis], self.low[:, axis], False)]
            if axis in rings:
                ends.append((self.high[:, axis] - 1.0, self.low[:, axis], True))
            for upper, lower, ring in ends:
                order = np.argsort(lower, kind="stable")
                sorted_lower = lower[order]
                first = np.searchsorted(sorted_lower, upper - TOUCHING)
                last = np.searchsorted(sorted_lower, upper + TOUCHING)
                for a in range(self.n_boxes):
                    if ring and self.high[a, axis] < 1.0 - TOUCHING:
                        continue
                    for b in order[first[a] : last[a]]:
                        low = np.maximum(self.low[a], self.low[b])
                        high = np.minimum(self.high[a], self.high[b])
                        if all(high[j] > low[j] + TOUCHING for j in others):
                            low, high = low.copy(), high.copy()
                            low[axis] = high[axis] = self.high[a, axis]
                            found.append(Face(a, int(b), axis, low, high, self.low[b, axis]))
        return found


def joined_boxes(parts: list[Boxes], column: int) -> Boxes:
    """Pieces of several slabs together."""
    edges = None
    if any(part.edges is not None for part in parts):
        edges = joined_edges([part.edges or upright(part.low, part.high, column)
                              for part in parts])  # fmt: skip
    return Boxes(
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.degree for part in parts]),
        edges=edges,
    )


def evaluate(
    boxes: Boxes, coef: list[Tensor], points: np.ndarray, orders: tuple[int, ...]
) -> Tensor:
    """Derivatives (n, m) along unit coordinates of pieces at points of the unit box."""
    chosen = boxes.locate(points)
    if len(chosen) and 0 <= chosen[0] == chosen.min() == chosen.max():
        return _in_piece(boxes, coef, points, orders, int(chosen[0]))
    result = coef[0].new_zeros((len(points), coef[0].shape[1]))
    for e in np.unique(chosen[chosen >= 0]):
        index = np.flatnonzero(chosen == e)
        found = _in_piece(boxes, coef, points[index], orders, e)
        result[torch.as_tensor(index, device=result.device)] = found
    return result


def _in_piece(
    boxes: Boxes, coef: list[Tensor], points: np.ndarray, orders: tuple[int, ...], e: int
) -> Tensor:
    columns = columns_at(boxes.degrees(e), boxes.local(e, points), coef[0])
    scale = float(np.prod((2 / boxes.width[e]) ** np.array(orders)))
    return scale * (columns.derivative(orders) @ coef[e])
