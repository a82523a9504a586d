"""One equation or condition at points in every piece, linearised."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.columns import PieceColumns, tensor_nodes
from skpou.physics import Constants

#: Nodes in a direction beyond the degree: one more than the columns need, and some that show
#: what the columns cannot follow.
MORE_NODES = 3
#: Corners that are as near as this are the same.
SAME = 1e-12
#: Fresh points of a piece by dimension.
FRESH_POINTS = (20, 60, 100)

Coefficients = list[Tensor]


@dataclass
class Scatter:
    """Points of a term, or of the data, in one piece."""

    piece: int
    columns: PieceColumns
    rows: slice


@dataclass
class Group:
    """Pieces of the same degree, and the term's points in them."""

    pieces: np.ndarray
    columns: PieceColumns
    x: Tensor


class TermRows:
    """One term at points of its own in every piece: at nodes, or at those that were given.

    Attributes
    ----------
    groups : list of Group
        Pieces that lie in the term's region.
    scattered : list of Scatter
        Others, with the points `x` in units of X.
    """

    def __init__(self, system: Any, i: int, fresh: np.random.Generator | None = None):
        self.system, self.fresh = system, fresh
        self.term = term = system.problem.terms[i]
        self.groups: list[Group] = []
        self.scattered: list[Scatter] = []
        boxes = system.boxes
        if term.region is None:
            points = term.points.cpu().numpy()
            chosen = system.members(points)
            known = boxes.inside & (not term.is_condition and len(term.target) == 1)
            chosen[known[chosen] & (chosen >= 0)] = -1
            self._scatter(points, chosen)
            self._groups(known)
            return
        low, high = term.region.cpu().numpy()
        inside = (boxes.low >= low - SAME).all(1) & (boxes.high <= high + SAME).all(1)
        self._groups(inside)
        found, chosen = [], []
        near = (boxes.low <= high + SAME).all(1) & (boxes.high >= low - SAME).all(1)
        for e in np.flatnonzero(near & ~inside).tolist():
            part = self._part(e, low, high)
            if part is not None:
                found.append(part)
                chosen.append(np.full(len(part), e))
        if found:
            self._scatter(np.concatenate(found), np.concatenate(chosen))

    def _groups(self, inside: np.ndarray) -> None:
        """Nodes in the pieces of a region, those of a degree together."""
        system, boxes = self.system, self.system.boxes
        if boxes.edges is not None:
            for e in np.flatnonzero(inside).tolist():
                points = boxes.points(e, self._nodes(boxes.degrees(e)))
                columns = PieceColumns(boxes.degrees(e), boxes.local(e, points), system.like)
                self.groups.append(Group(np.array([e]), columns, system.original(points[None])))
            return
        for pieces in system.by_degree(np.flatnonzero(inside)):
            nodes = self._nodes(boxes.degrees(int(pieces[0])))
            columns = PieceColumns(boxes.degrees(int(pieces[0])), nodes, system.like)
            middle = (boxes.low[pieces] + boxes.high[pieces]) / 2
            half = boxes.width[pieces] / 2
            points = middle[:, None] + half[:, None] * nodes
            self.groups.append(Group(pieces, columns, system.original(points)))

    def _part(self, e: int, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
        """Nodes in what a region has of a piece, or of its faces."""
        boxes = self.system.boxes
        if boxes.edges is not None:
            return self._part_at_edge(e, low, high)
        start, end = np.maximum(low, boxes.low[e]), np.minimum(high, boxes.high[e])
        flat = high <= low
        if (flat & ((start < boxes.low[e] - SAME) | (start > boxes.high[e] + SAME))).any():
            return None
        if (~flat & (end <= start + SAME)).any():
            return None
        lower = np.flatnonzero(flat & (start <= boxes.low[e] + SAME))
        if any(self._belongs_below(e, int(j), start, end) for j in lower):
            return None
        counts = [0 if f else p + MORE_NODES for f, p in zip(flat, boxes.degree[e], strict=True)]
        return (start + end) / 2 + (end - start) / 2 * tensor_nodes(counts)

    def _part_at_edge(self, e: int, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
        """The same for a region that is a part of a side of the box, and a piece that moves."""
        boxes = self.system.boxes
        degree, flat = boxes.degree[e], high <= low
        if flat.all():
            return low[None] if self.system.members(low[None])[0] == e else None
        axis = int(np.flatnonzero(flat)[0])
        other = 1 - axis
        counts = [0 if j == axis else int(degree[j]) + MORE_NODES for j in (0, 1)]
        nodes = tensor_nodes(counts)
        for side in (-1.0, 1.0):
            nodes[:, axis] = side
            points = boxes.points(e, nodes)
            if (np.abs(points[:, axis] - low[axis]) > SAME).any():
                continue
            if np.ptp(points[:, other]) <= SAME:
                continue  # An end where its edges meet.
            kept = (points[:, other] >= low[other] - SAME) & (
                points[:, other] <= high[other] + SAME
            )
            return points[kept] if kept.any() else None
        return None

    def _belongs_below(self, e: int, j: int, start: np.ndarray, end: np.ndarray) -> bool:
        """Whether pieces below have all of a face: at the edge of a domain there are none."""
        boxes = self.system.boxes
        touching = np.abs(boxes.high[:, j] - boxes.low[e, j]) <= SAME
        wide = end > start + SAME
        overlap = (np.minimum(boxes.high, end) - np.maximum(boxes.low, start))[touching]
        share = np.where(wide, overlap.clip(0) / np.where(wide, end - start, 1.0), overlap >= -SAME)
        share[:, j] = 1.0
        return bool(share.prod(1).sum() >= 1 - SAME)

    def _nodes(self, degree: tuple[int, ...]) -> np.ndarray:
        if self.fresh is None:
            return self.system.nodes(degree)
        d = self.system.d
        return self.fresh.uniform(-1, 1, (FRESH_POINTS[min(d, len(FRESH_POINTS)) - 1], d))

    def _scatter(self, points: np.ndarray, chosen: np.ndarray) -> None:
        system = self.system
        kept = np.flatnonzero(chosen >= 0)
        order = kept[np.argsort(chosen[kept], kind="stable")]
        self.index = torch.as_tensor(order, device=system.like.device)
        self.x = system.original(points[order])
        for e, rows in segments(chosen[order]):
            local = system.boxes.local(e, points[order[rows]])
            columns = PieceColumns(system.boxes.degrees(e), local, system.like)
            self.scattered.append(Scatter(e, columns, rows))

    # Values and rows

    def orders(self, key) -> tuple[int, ...]:
        """Order of a derivative along each column."""
        found = [0] * self.system.d
        for j in self.system.problem.scaled(key):
            found[j] += 1
        return tuple(found)

    def _evaluated(self, columns: PieceColumns, coef: Tensor, scale, unknowns: Tensor):
        """Derivatives at the points of some pieces of one degree, and the unknowns by name."""
        problem = self.system.problem
        values = {}
        for key in self.term.pointwise.keys:
            matrix = columns.derivative(self.orders(key))
            found = coef[:, :, key[0]] @ matrix.T * scale(key)[:, None]
            values[key] = (found + problem.shift(key)).reshape(-1)
        constants = Constants(zip(problem.names, unknowns, strict=True))
        return values, constants

    def _scale(self, pieces: np.ndarray, key) -> Tensor:
        """See `System.scale`, of a derivative of the term."""
        return self.system.scale(key, pieces, self.orders(key))

    def parts(self, coef: Coefficients, unknowns: Tensor, slopes: bool = True):
        """For every group and every scatter: pieces, residual (G, q, k), slopes, columns, scale."""
        target = self.term.target
        for group in self.groups:
            stacked = torch.stack([coef[e] for e in group.pieces])
            scale = functools.partial(self._scale, group.pieces)
            values, constants = self._evaluated(group.columns, stacked, scale, unknowns)
            x, shape = group.x.reshape(-1, group.x.shape[-1]), (len(group.pieces), -1)
            found = self._linearised(values, x, constants, target, shape, slopes)
            yield group.pieces, group.columns, scale, found
        if self.scattered:
            yield from self._scattered_parts(coef, unknowns, slopes)

    def _scattered_parts(self, coef: Coefficients, unknowns: Tensor, slopes: bool):
        """Those of the scattered points, from one call of the residual for all of them."""
        scales = [functools.partial(self._scale, np.array([p.piece])) for p in self.scattered]
        values_of: list[dict] = []
        for part, scale in zip(self.scattered, scales, strict=True):
            values, constants = self._evaluated(
                part.columns, coef[part.piece][None], scale, unknowns
            )
            values_of.append(values)
        joined = {key: torch.cat([v[key] for v in values_of]) for key in values_of[0]}
        target = self.term.target
        target = target[self.index] if len(target) > 1 else target
        result, by_value, by_unknown = self._linearised(
            joined, self.x, constants, target, (1, -1), slopes
        )
        for part, scale in zip(self.scattered, scales, strict=True):
            found = (
                result[:, part.rows],
                {key: slope[:, part.rows] for key, slope in by_value.items()},
                [slope[:, part.rows] for slope in by_unknown],
            )
            yield np.array([part.piece]), part.columns, scale, found

    def _linearised(self, values, x, constants, target, shape, slopes: bool):
        pointwise = self.term.pointwise
        if not slopes:
            result = pointwise.function(values, x, constants).detach() - target
            return result.reshape(*shape, result.shape[1]), {}, []
        result, by_value, by_unknown = pointwise.linearise(values, x, constants)
        result = result - target
        if not bool(result.isfinite().all()):
            raise ValueError(
                f"The residual of equation {pointwise.name!r} is not finite at the solution so "
                "far. Rewrite it, so that it is for all values of u, or give more data."
            )
        # A root of zero is a number, and its slope is none: such points do not pull.
        by_value = {
            key: torch.where(slope.isfinite(), slope, 0.0) for key, slope in by_value.items()
        }
        k = result.shape[1]
        return (
            result.reshape(*shape, k),
            {key: slope.reshape(*shape, k) for key, slope in by_value.items()},
            [slope.reshape(*shape, k) for slope in by_unknown.values()],
        )


def segments(labels: np.ndarray):
    """Runs of equal labels: label and slice."""
    if not len(labels):
        return
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(labels)], strict=True):
        yield int(labels[start]), slice(int(start), int(end))
