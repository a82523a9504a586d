"""A column whose conditions lie at its lower end only: slabs, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.equations import Problem
from skpou.partitions.equations.boxes import Boxes, evaluate
from skpou.partitions.equations.coarsening import coarser
from skpou.partitions.equations.columns import exponents
from skpou.partitions.equations.newton import Solved, solve
from skpou.partitions.equations.refinement import (
    DEGREES,
    FIRST_DEGREE,
    SHARE,
    SLOW,
    Child,
    as_boxes,
    projected,
    prolonged,
    refined,
    shape,
    solution_size,
)
from skpou.partitions.equations.system import Coefficients, System, highest_orders

#: A residual at fresh points may be so much larger than a tail: it has its derivatives.
SLACK = 0.1
#: Degree along the marched column.
TIME_DEGREE = 10
#: Shortest slab as a share of the box.
LEAST_SLAB = 2.0**-16
#: Tail along the marched column, in units of the tolerance, below which the next slab is longer.
EASY = 3e-3
#: The same where the solution is not smooth, and doubling a slab costs a small factor alone.
EASY_ROUGH = 0.3
#: Slabs after one that was too long there, until a longer one is tried again.
PAUSE = 8
#: Factor by which halving a slab lowers the tail along it, where that has a point at all.
FALLING = 3.0
#: Halvings without such success after which the tail that is left is accepted.
IN_VAIN = 3
#: Tail that is accepted then, along the column as across, if so many times as much is left, in
#: slabs longer than this. A kink that moves is a kink along as across: pieces narrower than the way
#: it goes in a slab do not resolve it, and a smaller tail along smooths it until it fits.
KINK, WITHIN_REACH, LEAST_KINK = 1e-4, 5, 2.0**-11
#: Tail across kinks in the conditions at the lower end below which the first slabs are told apart
#: by their own tails: finer pieces would ask for shorter slabs.
KINK_FIRST = 2e-4
#: Factor by which halving a piece with a kink lowers its tail at most: about 2 with a kink in its
#: middle, less than the 2^9 of what is smooth by far.
HALVED_KINK = 4.0
#: Highest degree across kinks, about that along: beyond it the tail along is what is left.
KINK_DEGREE = 12
#: Slabs shorter than this may be given up as not smooth along the column.
SHORT = 2.0**-5
#: Tail of a slab with as many pieces as there may be that is no solution any more.
NO_SOLUTION = 0.3
#: Height of the pieces on which conditions at the lower end are resolved.
THIN = 2.0**-30
#: Rows for each column of such a piece, for its halves to be determined, too.
DETERMINED = 2
#: Rounds of refinement in a slab.
ROUNDS = 14


@dataclass
class Slab:
    """Pieces between two values of the marched column, and the solution there."""

    boxes: Boxes
    coef: Coefficients
    solved: Solved
    system: System
    worst: float = 0.0
    #: Root mean square (m,) of the solution so far.
    size: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tangents: list[Coefficients] = field(default_factory=list)


class NotMarched(Exception):
    """Slabs cannot be solved one after the other."""


class March:
    """Slabs along a column.

    Parameters
    ----------
    tol : float
        Tail of the coefficients aimed at, relative to the solution.
    most_pieces : int
        In a slab.
    report : callable, default=None
    unknowns : Tensor of shape (q,), default=None
    degree : int, default=None
        Of all pieces; None: chosen for each.
    before : sequence of Slab, default=()
        Those of a march with other unknowns, to begin with.
    """

    def __init__(self, problem: Problem, rows: Rows, column: int, rings, tol: float,
                 max_iter: int, most_pieces: int, report=None,
                 unknowns: Tensor | None = None, degree: int | None = None,
                 before: Sequence[Slab] = ()):  # fmt: skip
        self.problem, self.rows, self.column, self.rings = problem, rows, column, rings
        self.tol, self.max_iter, self.most_pieces = tol, max_iter, most_pieces
        self.report = report
        self.before = {float(slab.boxes.low[0, column]): slab for slab in before}
        self.d = rows.n_features
        self.others = [j for j in range(self.d) if j != column]
        self.slabs: list[Slab] = []
        #: How far it came.
        self.end = 1.0
        self.size = np.zeros(rows.n_outputs)
        self.unknowns = rows.X.new_zeros(0) if unknowns is None else unknowns
        self.degree, self.n_open = degree, 0
        #: Slabs until a longer one is tried again.
        self.pause = 0
        #: Tail that is accepted where the solution is not smooth.
        self.rough = self.rough_across = 0.0
        self.first_tol, self.smoothed = tol, False
        #: What was accepted before the solution was taken for smooth again.
        self.kinked: tuple[float, float] | None = None
        self.is_affine = problem.is_affine
        orders = highest_orders(problem, rows.n_outputs)
        self.time_order = int(orders[:, column].max())
        self.smooths = self.time_order == 1 < int(orders[:, self.others].max(initial=0))

    # Slabs

    def _along(self) -> float:
        """Tail along the column that is small enough, of values and of the slopes at the end.

        What is carried over are derivatives, too: each loses the square of the degree, and from
        slab to slab as much again as a small factor.
        """
        return max(self.tol * float(2 * TIME_DEGREE) ** (-2 * (self.time_order - 1)), self.rough)

    def _across(self) -> float:
        """Tail along the other columns that is small enough.

        Where the equation smooths, a kink's errors stay with it: nothing asks for more elsewhere.
        """
        return max(self.tol, self.rough_across) if self.rough and not self.smooths else self.tol

    def _enough(self, along: np.ndarray) -> np.ndarray:
        """The same for each piece of a slab, whose tails (E,) along the column are given."""
        enough = np.full(len(along), self._across())
        # What is smoothed is a kink along as across, and is left where it is one along.
        return np.maximum(enough, along) if self.rough and self.smooths else enough

    def _top(self) -> int:
        """Highest degree."""
        return self.degree or (KINK_DEGREE if self.rough else DEGREES[-1])

    def run(self) -> March:
        """March through the box.

        Raises
        ------
        NotMarched
            If the conditions at the lower end leave the first slab open, or a slab is not solved:
            the first one, or one of an affine equation.
        """
        at, length = 0.0, 1.0
        while at < 1.0:
            slab, easy, along = self._next_slab(at, length)
            if slab is None:
                return self._ended(at)
            self._take(slab, along)
            length = float(slab.boxes.width[0, self.column])
            at += length
            self._tell(at, slab)
            self.pause = max(self.pause - 1, 0) if self.rough else 0
            # Twice as long where that keeps the ends of slabs among the halvings of the box.
            if easy and not self.pause and (at / (2 * length)) % 1.0 == 0.0:
                length *= 2
                if self.rough and length > SHORT and not self.smoothed:
                    # What was a kink at first is smooth by now: once, lest this go back and forth.
                    self.kinked = self.rough, self.tol
                    self.rough, self.tol, self.smoothed = 0.0, self.first_tol, True
        return self

    def _next_slab(self, at: float, length: float) -> tuple[Slab | None, bool, float]:
        """The longest slab of halvings of a length that is solved; as `_slab` returns it.

        None where none is.
        """
        if at in self.before:
            known = self.before[at]
            slab, easy, along = self._slab(known.boxes, known.coef)
            if slab is not None:
                return slab, easy, along
        boxes = self._next(self.slabs[-1]) if self.slabs else self._first()
        length, vain, before = min(length, 1.0 - at), 0, np.inf
        while length >= LEAST_SLAB:
            slab, easy, along = self._slab(self._between(boxes, at, at + length))
            if slab is not None:
                return slab, easy, along
            length, self.pause = length / 2, PAUSE
            falls = before >= FALLING * along or along == np.inf
            vain = 0 if falls or length > SHORT else vain + 1
            before = along
            length = self._with_kinks(length, along, vain)
        return None, False, np.inf

    def _with_kinks(self, length: float, along: float, vain: int) -> float:
        """Length to go on with, where a tail is accepted after some halvings in vain."""
        only_seemed = None if self.rough else self.kinked
        if only_seemed is not None and (vain >= IN_VAIN or length < LEAST_KINK):
            # Nothing was smooth again: as before, with slabs as long.
            self.rough, self.tol = only_seemed
            return SHORT
        if vain >= IN_VAIN and self._is_short(along, length):
            if self.smooths and not self.rough:
                length = max(length, LEAST_SLAB)  # Before it is too late.
            kink = along <= WITHIN_REACH * KINK and length > LEAST_KINK
            self.rough = max(self.rough, KINK if kink else 2 * along)
            self.rough_across = max(self.rough, KINK)
        return length

    def _take(self, slab: Slab, along: float) -> None:
        """Go on from a slab, whose tail along the column is given."""
        if not self.slabs:
            self.n_open = slab.solved.elimination.n_open()
            if self.n_open:
                raise NotMarched(f"the first slab leaves {self.n_open} directions open")
        if len(self.unknowns):
            slab.tangents = [
                slab.system.shaped(part) for part in slab.solved.elimination.tangents()
            ]
        self.slabs.append(slab)
        if self.smooths and self.rough:
            # What has been smoothed does not come back.
            self.rough = min(self.rough, max(along, KINK))
        self.size = slab.size = np.maximum(self.size, solution_size(slab.boxes, slab.coef))

    def _is_short(self, along: float, length: float) -> bool:
        """Whether a slab is so short that a tail along it may be accepted.

        A jump that is smoothed has the same tail in slabs of any length, but errs in proportion to
        the way it diffuses in the first one.
        """
        return not self.smooths or along <= WITHIN_REACH * KINK or length <= LEAST_KINK

    def _ended(self, at: float) -> March:
        """The march as far as it came, beyond which no solution is found.

        That of an affine equation goes on: there slabs are what fails.
        """
        if self.is_affine or not self.slabs:
            raise NotMarched(f"no slab after {at:.3g} of column {self.column} is solved")
        self.end = at
        return self

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
        """Pieces on which the conditions at the lower end are resolved, from a single one.

        What they hold is kept for the first slab to start with.
        """
        degree = np.full((1, self.d), FIRST_DEGREE if self.degree is None else self.degree)
        degree[0, self.column] = self.time_order - 1
        low, high = np.zeros((1, self.d)), np.ones((1, self.d))
        high[0, self.column] = THIN
        boxes = Boxes(low, high, degree)
        of_parent = np.full(1, np.inf)
        for _ in range(ROUNDS if self.others else 1):
            solved, placed, determined = self.by_conditions(boxes)
            size = solution_size(boxes, solved.coef)
            size = np.where(size > 0, size, 1.0)
            self.trace = (boxes, solved.coef)
            if not self.others:
                break
            found = shape(boxes, solved.coef, size)
            across = found.tail[:, self.others].max(1)
            # Pieces that the conditions do not determine stay as they are.
            kinks = (found.rate[:, self.others].max(1) > SLOW) & (across < KINK_FIRST)
            kinks &= not self.smooths  # Second derivatives across smooth kinks at once.
            if self.time_order == 1 and not self.smooths:
                kinks &= (across > self.tol) & (HALVED_KINK * across > of_parent)
                # Whatever is done later, it is no better than this. A slope that is carried, too,
                # jumps at a kink: there slabs are halved until that is resolved.
                left = float(across[kinks].max(initial=0.0))
                self.rough = self.rough_across = min(HALVED_KINK * left, KINK)
            marks = (across > self.tol) & (across > SHARE * across.max()) & ~kinks
            marks &= determined
            if not marks.any() or boxes.n_boxes >= self.most_pieces:
                break
            top = self.degree or DEGREES[-1]
            children = refined(boxes, found, across, marks, self.others, self.tol, top)
            few = self._undetermined(children, placed)
            if few:
                marks[few] = False
                if not marks.any():
                    break
                children = refined(boxes, found, across, marks, self.others, self.tol, top)
            tails = np.where(marks, across, of_parent)
            of_parent = tails[[child.parent for child in children]]
            boxes = as_boxes(children)
        degree = boxes.degree.copy()
        degree[:, self.column] = TIME_DEGREE if self.degree is None else self.degree
        return Boxes(boxes.low, boxes.high, degree)

    @cached_property
    def _rows_below(self) -> Rows:
        """Data where the marched column begins."""
        return self.rows.subset(torch.nonzero(self.rows.X[:, self.column] == 0).squeeze(1))

    def by_conditions(
        self, boxes: Boxes, joined: bool = True
    ) -> tuple[Solved, np.ndarray, np.ndarray]:
        """Solution of conditions and data at the lower end on pieces, `joined` at their faces.

        Also the rows (E,) of conditions that fill each piece, and which are determined by all.
        """
        system = System(boxes, self.problem, self._rows_below, self.rings, column=self.column,
                        conditions_only=True)  # fmt: skip
        if not joined:
            system.pairs = []
        solved = solve(system, system.zero(), self.unknowns, [], self.max_iter, True, hold=True)
        own, placed = map(len, solved.elimination.own), system.placed()
        n_rows = np.array(list(own)) + (DETERMINED - 1) * placed
        return solved, placed, n_rows >= DETERMINED * np.array(system.sizes)

    def _undetermined(self, children: list[Child], placed: np.ndarray) -> list[int]:
        """Pieces of which a part has fewer data than columns, and no condition that fills it."""
        chosen = as_boxes(children).locate(self._rows_below.X.cpu().numpy())
        count = np.bincount(chosen[chosen >= 0], minlength=len(children))
        found = set()
        for child, n in zip(children, count, strict=True):
            others = tuple(child.degree[j] for j in self.others)
            if not placed[child.parent] and n <= len(exponents(others)):
                found.add(child.parent)
        return sorted(found)

    # One slab

    def _system(self, boxes: Boxes) -> System:
        carried = self._carried if self.slabs else None
        tangent = self._carried_tangent if self.slabs and len(self.unknowns) else None
        return System(
            boxes, self.problem, self.rows, self.rings, carried, self.column, tangent=tangent
        )

    def _carried_tangent(self, points: np.ndarray, order: int) -> Tensor:
        """The same for their derivatives (n, m, q) with respect to the unknowns."""
        slab = self.slabs[-1]
        orders = tuple(order if j == self.column else 0 for j in range(self.d))
        parts = [evaluate(slab.boxes, part, points, orders) for part in slab.tangents]
        return torch.stack(parts, 2)

    def _carried(self, points: np.ndarray, order: int) -> Tensor:
        """Derivatives along the column at the end of the last slab."""
        slab = self.slabs[-1]
        return evaluate(slab.boxes, slab.coef, points,
                        tuple(order if j == self.column else 0 for j in range(self.d)))  # fmt: skip

    def _start(self, boxes: Boxes, system: System) -> Coefficients:
        """What the last slab ends with, all along the new one."""
        if self.is_affine:
            return system.zero()
        found = []
        for e in range(boxes.n_boxes):
            middle, half = (boxes.low[e] + boxes.high[e]) / 2, boxes.width[e] / 2

            def values(nodes, middle=middle, half=half, e=e):
                points = middle + half * nodes
                points[:, self.column] = boxes.low[e, self.column]
                if not self.slabs:
                    return evaluate(*self.trace, points, (0,) * self.d)
                return self._carried(points, 0)

            found.append(projected(boxes.degrees(e), values, self.rows.y))
        return found

    def _slab(
        self, boxes: Boxes, coef: Coefficients | None = None
    ) -> tuple[Slab | None, bool, float]:
        """A slab that is resolved, whether a longer one would be, and the tail along it.

        No slab where it must be shorter.
        """
        system, top = self._system(boxes), self._top()
        coef = self._start(boxes, system) if coef is None else coef
        for round_ in range(ROUNDS):
            solved = solve(
                system, coef, self.unknowns, [], self.max_iter, self.is_affine, hold=True
            )
            if not solved.converged:
                return None, False, np.inf
            size = np.maximum(self.size, solution_size(boxes, solved.coef))
            size = np.where(size > 0, size, 1.0)
            found = shape(boxes, solved.coef, size)
            along = float(found.tail[:, self.column].max())
            across = found.tail[:, self.others].max(1) if self.others else np.zeros(boxes.n_boxes)
            if along > max(self._along(), 0.5 * across.max(initial=0.0)):
                return None, False, along
            if self.others and not self.rough:
                # What neither tail shows is refined where the larger one is. A residual at points
                # beside a kink tells nothing: there the equation holds in its weak form alone.
                misfit = SLACK * system.misfit(solved.coef, self.unknowns) / size.max()
                hidden = np.where(across >= found.tail[:, self.column], misfit, 0.0)
                across = np.maximum(across, hidden)
            marks = across > self._enough(found.tail[:, self.column])
            worst = float(across[marks].max(initial=0.0))
            marks &= across > SHARE * worst
            full = boxes.n_boxes >= self.most_pieces or round_ == ROUNDS - 1
            if not marks.any() or full:
                # With one column alone it is the tail along it that tells.
                left = worst if self.others else along
                if along > self._along() or left > NO_SOLUTION:
                    return None, False, along
                if marks.any():
                    # More pieces than there may be: what they leave is what can be had.
                    self.tol = max(self.tol, worst)
                slab = Slab(boxes, solved.coef, solved, system, max(along, worst))
                easy = EASY_ROUGH if self._along() == self.rough else EASY
                return slab, along < easy * self._along(), along
            children = refined(boxes, found, across, marks, self.others, self._across(), top)
            coef, boxes = self._finer(boxes, solved.coef, children)
            system = self._system(boxes)
        raise AssertionError("the last round returns")

    def _finer(self, boxes: Boxes, coef: Coefficients, children: list[Child]):
        """Coefficients on a refined partition, and that partition."""
        return prolonged(boxes, coef, children), as_boxes(children)

    def _next(self, last: Slab) -> Boxes:
        """Pieces of the next slab to begin with."""
        size = np.where(self.size > 0, self.size, 1.0)
        return coarser(last.boxes, last.coef, self.others, size, self._across())


def remainder(slab: Slab, column: int) -> tuple[Boxes, Coefficients]:
    """Pieces of what comes after a slab up to the end of the box: its last values."""
    low, high = slab.boxes.low.copy(), slab.boxes.high.copy()
    low[:, column], high[:, column] = high[:, column], 1.0
    parts = []
    for e, coef in enumerate(slab.coef):
        index = exponents(slab.boxes.degrees(e)).copy()
        place = {tuple(row): i for i, row in enumerate(index)}
        index[:, column] = 0
        # Legendre polynomials are 1 at their upper end.
        at = torch.as_tensor([place[tuple(row)] for row in index], device=coef.device)
        parts.append(torch.zeros_like(coef).index_add_(0, at, coef))
    return Boxes(low, high, slab.boxes.degree), parts
