"""A column whose conditions lie at its lower end only: slabs, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.equations import Problem
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.evaluation import evaluate
from skpou.partitions.equations.newton import Solved, solve
from skpou.partitions.equations.refinement import (
    DEGREES,
    FIRST_DEGREE,
    SHARE,
    Child,
    Shape,
    _copied,
    as_boxes,
    projected,
    prolonged,
    refined,
    shape,
    sizes_by_degree,
    solution_size,
)
from skpou.partitions.equations.system import Coefficients, System, highest_orders

#: Degree along the marched column.
TIME_DEGREE = 10
#: Shortest slab as a share of the box.
LEAST_SLAB = 2.0**-16
#: Tail along the marched column, in units of the tolerance, below which the next slab is longer.
EASY = 3e-3
#: Rounds of refinement in a slab.
ROUNDS = 14


@dataclass
class Slab:
    """Pieces between two values of the marched column, and the solution there."""

    boxes: Boxes
    coef: Coefficients
    solved: Solved
    system: System


class March:
    """Slabs along a column.

    Parameters
    ----------
    problem : Problem
    rows : Rows
    column : int
    rings : frozenset of int
    tol : float
        Tail of the coefficients aimed at, relative to the solution.
    max_iter : int
        Most Gauss-Newton steps.
    most_pieces : int
        In a slab.
    report : callable, default=None
    """

    def __init__(self, problem: Problem, rows: Rows, column: int, rings, tol: float,
                 max_iter: int, most_pieces: int, report=None):  # fmt: skip
        self.problem, self.rows, self.column, self.rings = problem, rows, column, rings
        self.tol, self.max_iter, self.most_pieces = tol, max_iter, most_pieces
        self.report = report
        self.d = rows.n_features
        self.others = [j for j in range(self.d) if j != column]
        self.slabs: list[Slab] = []
        self.size = np.zeros(rows.n_outputs)
        self.none = rows.X.new_zeros(0)
        self.time_order = int(highest_orders(problem, rows.n_outputs)[:, column].max())

    # Slabs

    def run(self) -> list[Slab]:
        """March through the box."""
        at, length = 0.0, 1.0
        boxes = self._first()
        while at < 1.0:
            length = min(length, 1.0 - at)
            slab, easy = None, False
            while slab is None:
                tried = self._between(boxes, at, at + length)
                slab, easy = self._slab(tried, last=length <= LEAST_SLAB)
                if slab is None:
                    length /= 2
            self.slabs.append(slab)
            self.size = np.maximum(self.size, solution_size(slab.boxes, slab.coef))
            at += length
            self._tell(at, slab)
            boxes = self._coarser(slab)
            # Twice as long where that keeps the ends of slabs among the halvings of the box.
            if easy and (at / (2 * length)) % 1.0 == 0.0:
                length *= 2
        return self.slabs

    def _between(self, boxes: Boxes, start: float, end: float) -> Boxes:
        low, high = boxes.low.copy(), boxes.high.copy()
        low[:, self.column], high[:, self.column] = start, end
        return Boxes(low, high, boxes.degree)

    def _tell(self, at: float, slab: Slab) -> None:
        if self.report is not None:
            width = slab.boxes.width[:, self.column].max()
            self.report(
                f"up to {at:.6f} of column {self.column}: slab of {width:.2g}, "
                f"{slab.boxes.n_boxes} pieces"
            )

    def _first(self) -> Boxes:
        """Pieces on which the conditions at the lower end are resolved, from a single one."""
        degree = np.full((1, self.d), FIRST_DEGREE)
        degree[0, self.column] = TIME_DEGREE
        return Boxes(np.zeros((1, self.d)), np.ones((1, self.d)), degree)

    # One slab

    def _system(self, boxes: Boxes) -> System:
        carried = self._carried if self.slabs else None
        return System(boxes, self.problem, self.rows, self.rings, carried, self.column)

    def _carried(self, points: np.ndarray, order: int) -> Tensor:
        """Derivatives along the column at the end of the last slab."""
        slab = self.slabs[-1]
        return evaluate(slab.boxes, slab.coef, points,
                        tuple(order if j == self.column else 0 for j in range(self.d)))  # fmt: skip

    def _start(self, boxes: Boxes, system: System) -> Coefficients:
        """What the last slab ends with, all along the new one."""
        if not self.slabs or self.problem.is_affine:
            return system.zero()
        found = []
        for e in range(boxes.n_boxes):
            middle, half = (boxes.low[e] + boxes.high[e]) / 2, boxes.width[e] / 2

            def values(nodes, middle=middle, half=half, e=e):
                points = middle + half * nodes
                points[:, self.column] = boxes.low[e, self.column]
                return self._carried(points, 0)

            found.append(projected(boxes.degrees(e), values, self.rows.y))
        return found

    def _slab(self, boxes: Boxes, last: bool) -> tuple[Slab | None, bool]:
        """A slab that is resolved in all other columns; None where it must be shorter."""
        system = self._system(boxes)
        coef = self._start(boxes, system)
        for _ in range(ROUNDS):
            solved = solve(system, coef, self.none, [], self.max_iter, self.problem.is_affine)
            if not solved.converged and not last:
                return None, False
            size = np.maximum(self.size, solution_size(boxes, solved.coef))
            size = np.where(size > 0, size, 1.0)
            found = shape(boxes, solved.coef, size)
            along = found.tail[:, self.column].max()
            across = found.tail[:, self.others].max(1) if self.others else np.zeros(boxes.n_boxes)
            worst = across.max(initial=0.0)
            if along > self.tol and along > 0.5 * worst and not last:
                return None, False
            marks = (across > self.tol) & (across > SHARE * worst)
            if not marks.any() or boxes.n_boxes >= self.most_pieces:
                if along > self.tol and not last:
                    return None, False
                return Slab(boxes, solved.coef, solved, system), along < EASY * self.tol
            children = refined(boxes, found, across, marks, self.others, self.tol)
            coef = prolonged(boxes, solved.coef, children)
            boxes = as_boxes(children)
            system = self._system(boxes)
            if self.problem.is_affine:
                coef = system.zero()
        return Slab(boxes, solved.coef, solved, system), False

    # Fewer pieces for the next slab

    def _coarser(self, slab: Slab) -> Boxes:
        """Halves joined and degrees lowered where what a slab holds needs no more."""
        boxes, coef = slab.boxes, slab.coef
        low = [boxes.low[e] for e in range(boxes.n_boxes)]
        high = [boxes.high[e] for e in range(boxes.n_boxes)]
        degrees = [boxes.degrees(e) for e in range(boxes.n_boxes)]
        parts = list(coef)
        for j in self.others:
            position = {tuple(a): e for e, a in enumerate(low)}
            gone: set[int] = set()
            for e in range(len(low)):
                width = high[e][j] - low[e][j]
                second = low[e].copy()
                second[j] = high[e][j]
                f = position.get(tuple(second))
                if e in gone or f is None or f in gone or (low[e][j] / (2 * width)) % 1.0:
                    continue
                if not np.array_equal(high[f] - second, high[e] - low[e]):
                    continue
                joined = self._joined(j, degrees[e], parts[e], degrees[f], parts[f])
                if joined is not None:
                    high[e] = high[f]
                    degrees[e], parts[e] = joined
                    gone.add(f)
            kept = [e for e in range(len(low)) if e not in gone]
            low, high = [low[e] for e in kept], [high[e] for e in kept]
            degrees, parts = [degrees[e] for e in kept], [parts[e] for e in kept]
        size = np.where(self.size > 0, self.size, 1.0)
        for e, part in enumerate(parts):
            degree = list(degrees[e])
            for j in self.others:
                A = (sizes_by_degree(degrees[e], part, j) / size).max(1)
                for p in DEGREES:
                    tail = np.sqrt((A[p - 1 :] ** 2).sum())
                    if FIRST_DEGREE <= p < degree[j] and tail < 0.1 * self.tol:
                        degree[j] = p
                        break
            degrees[e] = tuple(degree)
        return Boxes(np.array(low), np.array(high), np.array(degrees))

    def _joined(self, j, first, a: Tensor, second, b: Tensor):
        """Degree and coefficients of two halves as one piece; None where it would not do."""
        degree = tuple(max(p, q) for p, q in zip(first, second, strict=True))
        parts = []
        for own, coef, side in ((first, a, -1.0), (second, b, 1.0)):
            coef = _copied(own, coef, degree)
            # The half as a function of the whole: each of its columns on half of the nodes.
            parts.append((coef, side))
        n = degree[j] + 2
        from skpou.partitions.equations.columns import exponents, gauss, legendre_derivatives

        nodes, weights = gauss(n)
        t = torch.as_tensor(nodes, device=a.device)
        own = legendre_derivatives(t, degree[j], 0)[0]
        shapes = [p + 1 for p in degree]
        total = None
        for coef, side in parts:
            whole = legendre_derivatives((t + side) / 2, degree[j], 0)[0]
            # c_k = (2 k + 1) / 2 * mean over the half
            T = whole.T * torch.as_tensor(weights / 2, device=a.device) @ own
            T = T * (2 * torch.arange(degree[j] + 1, device=a.device) + 1)[:, None]
            cube = coef.reshape(*shapes, -1)
            moved = torch.tensordot(T, cube, dims=([1], [j])).movedim(0, j)
            total = moved if total is None else total + moved
        assert total is not None
        merged = total.reshape(len(exponents(degree)), -1)
        size = np.where(self.size > 0, self.size, 1.0)
        A = (sizes_by_degree(degree, merged, j) / size).max(1)
        if np.hypot(A[-1], A[-2]) > 0.1 * self.tol:
            return None
        return degree, merged
