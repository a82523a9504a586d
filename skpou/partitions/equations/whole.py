"""All pieces of a box at once: cut and raised until the residual at fresh points is small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import ridge_coefficients
from skpou.equations import Problem
from skpou.partitions.equations.bars import left_out_error
from skpou.partitions.equations.boxes import Boxes, evaluate
from skpou.partitions.equations.columns import PieceColumns, exponents
from skpou.partitions.equations.costs import MOST_BYTES, solve_bytes, work
from skpou.partitions.equations.newton import Solved, solve
from skpou.partitions.equations.refinement import (
    FIRST_DEGREE,
    SHARE,
    Child,
    Shape,
    as_boxes,
    copied,
    ladder,
    prolonged,
    refined,
    shape,
    solution_size,
)
from skpou.partitions.equations.spill import Spill
from skpou.partitions.equations.system import Coefficients, System

#: Most rounds of refinement.
ROUNDS = 60
#: First degree on a line, where columns are cheap, and shapes that are left open show early.
FIRST_LINE = 12
#: Weight of noisy data, in units of the largest tail.
LIGHTER = 0.3
#: A residual at fresh points may be so much larger than a tail: it has its derivatives.
SLACK = 0.1
#: Tail that degrees are chosen for where a larger one is enough: with it pieces are the same,
#: only fewer, so that a smaller tolerance is never worse.
AIM = 1e-10
#: Rounds without a better solution that end the refinement; one less in a row whose steps do not
#: settle do, too: there is no solution to be found.
PATIENCE = 5
#: A solution is better where its largest tail is so much smaller.
BETTER = 0.7
#: Multiplications of all eliminations that are too many: about a minute and a half on one core.
MOST_WORK = 1.5e11
#: Those that are spent before patience ends.
PATIENT_WORK = 2e10
#: What a piece takes in each step beside its multiplications, in units of these.
OVERHEAD = 2e6
#: Degree of the polynomial through measured values that nonlinear equations start from, rows for
#: each of its columns, and its ridge relative to their norm.
START_DEGREE, START_ROWS, START_RIDGE = 5, 2, 1e-3
#: Data inside are noisy, and no pieces foretell them better, where so many rounds leave more than
#: this share of their errors where they are left out, in units of y, and these are not so small.
ROUNDS_OF_DATA, STAYS, EXACT_DATA = 2, 0.5, 1e-4
#: Cells a side that points must fill for a piece to lie within the domain that they stand for.
CELLS = 8
#: Points that a piece must hold for each of its columns, to be cut or raised.
POINTS_PER_COLUMN = 1.3


@dataclass
class Whole:
    """Pieces and the solution on them.

    Attributes
    ----------
    tail : float
        Largest tail of the coefficients, relative to the solution.
    curve : list of float
        The tail after each round.
    size : ndarray of shape (m,)
        Root mean square of the solution.
    spilt : Tensor of shape (E, 1, m), optional
        What corners that no degree resolves do to the solution in each piece.
    singular : ndarray of bool of shape (E,), optional
        Pieces at such corners.
    is_too_large : bool
        Whether more pieces were asked for than memory should hold.
    """

    boxes: Boxes
    solved: Solved
    system: System
    tail: float
    curve: list[float]
    size: np.ndarray
    spilt: Tensor | None = None
    singular: np.ndarray | None = None
    is_too_large: bool = False


def solve_whole(
    problem: Problem,
    rows: Rows,
    boxes: Boxes,
    rings: frozenset[int],
    unknowns: Tensor,
    *,
    tol: float,
    max_iter: int,
    most_pieces: int,
    degree: int | None = None,
    exactly: bool = False,
    data_weight: float | None = None,
    report: Callable[[str], object] | None = None,
) -> Whole:
    """Solve, cut and raise, and solve again.

    Parameters
    ----------
    boxes : Boxes
        The first ones.
    unknowns : Tensor of shape (q,)
        First values.
    tol : float
        Tail of the coefficients aimed at, relative to the solution.
    degree : int, default=None
        Of all pieces; None: chosen for each.
    exactly : bool, default=False
        Whether the first pieces stay as they are.
    data_weight : float, default=None
        Of noisy data, once the pieces resolve the solution; None: that of conditions.
    report : callable, default=None
    """
    limits = _Limits(tol, max_iter, most_pieces, degree, exactly, data_weight)
    return _Refinement(problem, rows, boxes, rings, unknowns, limits, report).run()


class _Limits(NamedTuple):
    """What `solve_whole` takes."""

    tol: float
    max_iter: int
    most_pieces: int
    degree: int | None
    exactly: bool
    data_weight: float | None


@dataclass
class _Round:
    """What a round has solved for, and what its pieces leave.

    Attributes
    ----------
    size : ndarray of shape (m,)
        Root mean square of the solution.
    shape : Shape
        Decay of the coefficients.
    unweighted, tails : ndarray of shape (E,)
        Error of each piece by its tail, its misfit and its data; the latter by its volume, too.
    spilt : float
        What corners do to the solution elsewhere.
    left : float
        Largest misfit of a piece and of its data.
    """

    solved: Solved
    system: System
    size: np.ndarray
    shape: Shape
    unweighted: np.ndarray
    tails: np.ndarray
    spilt: float
    left: float

    @property
    def worst(self) -> float:
        """Largest error."""
        return max(float(self.tails.max()), self.spilt)


class _Refinement:
    """Rounds of `solve_whole`, each on the pieces that the one before has asked for."""

    def __init__(
        self,
        problem: Problem,
        rows: Rows,
        boxes: Boxes,
        rings: frozenset[int],
        unknowns: Tensor,
        limits: _Limits,
        report: Callable[[str], object] | None,
    ):
        self.problem, self.rows, self.rings, self.limits = problem, rows, rings, limits
        self.unknowns, self.report = unknowns, report
        self.coef: Coefficients | None
        self.boxes, self.coef = within_points(boxes, None, problem)
        self.weight, self.spent = 1.0, 0.0
        #: Rounds without a better solution, and those in a row whose steps did not settle.
        self.waited = self.unsolved = 0
        self.curve: list[float] = []
        #: Whether a single piece leaves directions open.
        self.was_open = False
        #: Root mean square error of left-out data after each round, where these may be noisy.
        self.left_out: list[float] = []
        self.top = ladder(rows.n_features)[-1] if limits.degree is None else limits.degree
        self.directions = list(range(rows.n_features))
        self.spill = Spill(problem)
        X = rows.X.cpu().numpy()
        #: Whether data inside, which need not be exact, are taken for conditions.
        self.suspect = limits.data_weight is None and not ((X == 0) | (X == 1)).any(1).all()

    def run(self) -> Whole:
        """Rounds until pieces resolve the solution, or no more of them is worth its work."""
        now = self._round()
        self.was_open = now.solved.elimination.is_open()
        best = self._whole(now)
        for _ in range(ROUNDS - 1):
            if not self._refine(now):
                break
            self.boxes, self.coef = within_points(self.boxes, self.coef, self.problem)
            if self.spent + self._work() > MOST_WORK:
                break
            if solve_bytes(self.boxes, self.rings, self.rows) > MOST_BYTES:
                best.is_too_large = True
                break
            now = self._round()
            self.waited = 0 if now.worst < BETTER * best.tail else self.waited + 1
            noisy = self.limits.data_weight is not None
            # Pieces that were asked for are those of the last round.
            if now.worst <= best.tail or noisy or self._is_as_asked():
                best = self._whole(now)
        return best

    def _is_as_asked(self) -> bool:
        """Whether the pieces that were asked for are there."""
        return self.limits.exactly and self.boxes.n_boxes >= self.limits.most_pieces

    def _whole(self, now: _Round) -> Whole:
        spill = self.spill
        return Whole(
            self.boxes, now.solved, now.system, now.worst, self.curve, now.size,
            spill.deviation, spill.singular,
        )  # fmt: skip

    def _work(self) -> float:
        return work(self.boxes, self.rings, self.rows.n_outputs)

    # A round

    def _round(self) -> _Round:
        """Solve on the present pieces, and judge these."""
        boxes, problem, affine = self.boxes, self.problem, self.problem.is_affine
        system = System(boxes, problem, self.rows, self.rings, data_weight=self.weight)
        start = system.zero() if self.coef is None or affine else self.coef
        if self.coef is None and self.suspect and not affine:
            start = near_data(boxes, self.rows)
        limits = list(problem.unknowns.values())
        solved = solve(system, start, self.unknowns, limits, self.limits.max_iter, affine)
        self.spent += (self._work() + OVERHEAD * boxes.n_boxes) * solved.n_steps
        self.unsolved = 0 if solved.converged else self.unsolved + 1
        self.unknowns = solved.unknowns
        return self._judged(system, solved)

    def _judged(self, system: System, solved: Solved) -> _Round:
        """What the pieces leave of a solution."""
        boxes, data_weight = self.boxes, self.limits.data_weight
        size = size_where_known(boxes, solved.coef, self.problem)
        size = np.where(size > 0, size, 1.0)
        found = shape(boxes, solved.coef, size)
        misfit = system.misfit(solved.coef, solved.unknowns)
        noise = system.data_misfit(solved.coef)
        if self.suspect:
            self.left_out.append(left_out_error(system, solved))
        if data_weight is not None:
            # Their noise, and what it does to the residual, asks for no pieces.
            noise, misfit = np.zeros_like(noise), np.zeros_like(misfit)
        unweighted = np.maximum(found.tail.max(1), np.maximum(SLACK * misfit, noise) / size.max())
        tails, spilt, d = unweighted, 0.0, len(self.directions)
        if d > 1:
            # What a small piece leaves is little in all; on a line pieces cost nothing.
            tails = tails * boxes.width.prod(1) ** (0.5 / d)
            if data_weight is None and not self.limits.exactly:
                relative = misfit / size.max()
                spilt = self.spill.measure(
                    boxes, solved.coef, unweighted, relative, self.limits.tol, size
                )
        left = float(max(SLACK * misfit.max(), noise.max()) / size.max())
        now = _Round(solved, system, size, found, unweighted, tails, spilt, left)
        self.curve.append(now.worst)
        if self.report is not None:
            self.report(
                f"{boxes.n_boxes} pieces, {sum(system.sizes)} columns: tail {now.worst:.1e}, "
                f"residual {misfit.max():.1e}, data {noise.max():.1e}, corners {spilt:.1e}"
            )
        return now

    # The pieces of the next round

    def _refine(self, now: _Round) -> bool:
        """Pieces and weight of the next round; False where there is none."""
        is_lightest = self._lighten(now)
        marks = self._marks(now)
        if self.limits.exactly and not self._is_as_asked():
            self._halve_worst(now)
            return True
        if not marks.any() and not is_lightest:
            return True
        if self.limits.exactly or not marks.any() or self._is_enough(now):
            return False
        marks &= refinable(self.boxes, self.problem)
        children = refined(
            self.boxes, now.shape, now.unweighted, marks, self.directions,
            min(self.limits.tol, AIM), self.top,
        )  # fmt: skip
        if len(children) == self.boxes.n_boxes and all(
            child.degree == self.boxes.degrees(child.parent) for child in children
        ):
            return False
        self.spill.pass_on(children)
        self._take(now, children)
        return True

    def _lighten(self, now: _Round) -> bool:
        """Weight of noisy data in the next round; whether it has been as light as it gets."""
        data_weight = self.limits.data_weight
        if data_weight is None or self.weight <= data_weight:
            return True
        # As light as the pieces allow: before these resolve the equations, these would win.
        self.weight = max(data_weight, min(self.weight / 2, LIGHTER * now.worst))
        self.coef = now.solved.coef
        return self.weight <= data_weight

    def _marks(self, now: _Round) -> np.ndarray:
        """Pieces (E,) to cut or raise; those that are cut to a corner are told in the shape."""
        tol, tails, spill = self.limits.tol, now.tails, self.spill
        marks = (tails > tol) & (tails > SHARE * tails.max())
        spill.was_cut = now.spilt > tol and not marks.any()
        if spill.was_cut:
            marks = spill.pieces & (now.unweighted > SHARE * now.unweighted[spill.pieces].max())
        if now.spilt > tol:
            # To the corner, from all sides.
            corner = spill.around(self.boxes, marks)
            now.shape.rate[corner] = 1.0
            now.shape.tail[corner] = np.maximum(now.unweighted, tol)[corner, None]
            marks |= corner
        return marks

    def _halve_worst(self, now: _Round) -> None:
        """Cut the worst half of the pieces, as many as were asked for at most."""
        n = self.boxes.n_boxes
        order = np.argsort(-now.tails, kind="stable")[
            : min(self.limits.most_pieces - n, (n + 1) // 2)
        ]
        marks = np.isin(np.arange(n), order)
        now.shape.rate[:] = 1.0
        children = refined(
            self.boxes, now.shape, now.unweighted, marks, self.directions, 0.0, self.top,
            single=True,
        )  # fmt: skip
        self._take(now, children)

    def _take(self, now: _Round, children: list[Child]) -> None:
        """Go on with other pieces."""
        self.coef, self.boxes = prolonged(self.boxes, now.solved.coef, children), as_boxes(children)

    def _is_left_open(self, now: _Round) -> bool:
        """Whether rows leave directions open that more pieces would follow, or open more of.

        They do where cuts have opened one, since pieces are finer than the data, and where all
        holds and the tails no longer fall.
        """
        holds = self.waited > 0 and now.left <= self.limits.tol
        return (holds or not self.was_open) and now.solved.elimination.is_open()

    def _is_enough(self, now: _Round) -> bool:
        """Whether more pieces are not allowed, or have long been in vain."""
        if self.boxes.n_boxes >= self.limits.most_pieces:
            return True
        if max(self.waited, self.unsolved + 1) >= PATIENCE and self.spent > PATIENT_WORK:
            return True
        if self._is_left_open(now):
            return True
        if len(self.left_out) <= ROUNDS_OF_DATA:
            return False
        before = min(self.left_out[:-ROUNDS_OF_DATA])
        return min(self.left_out[-ROUNDS_OF_DATA:]) > max(EXACT_DATA, STAYS * before)


def near_data(boxes: Boxes, rows: Rows) -> Coefficients:
    """Coefficients of a single piece that is near measured values.

    From nothing, unknowns whose terms vanish with the solution do not move.
    """
    full, d = boxes.degrees(0), rows.n_features
    low = next(
        (p for p in range(START_DEGREE, 0, -1)
         if START_ROWS * len(exponents((p,) * d)) <= rows.n_rows), 0,
    )  # fmt: skip
    degree = tuple(min(p, low) for p in full)
    columns = PieceColumns(degree, boxes.local(0, rows.X.cpu().numpy()), rows.y)
    root = rows.weight.sqrt()[:, None]
    A = root * columns.derivative((0,) * d)
    coef, _ = ridge_coefficients(A, root * rows.y, START_RIDGE * float(A.norm()))
    return [copied(degree, coef, full)]


def _of_domain(problem: Problem) -> list[Any]:
    """Equations at given points, which cover their domain; none where one fills a box."""
    equations = [term for term in problem.terms if not term.is_condition]
    return [] if any(term.region is not None for term in equations) else equations


def within_points(
    boxes: Boxes, coef: Coefficients | None, problem: Problem
) -> tuple[Boxes, Coefficients | None]:
    """Pieces that points of equations reach, and which of them lie within their domain.

    Equations whose points fill a box hold in all of it.
    """
    given = _of_domain(problem)
    if not given:
        return boxes, coef
    points = np.concatenate([term.points.cpu().numpy() for term in given])
    chosen = boxes.locate(points)
    d = points.shape[1]
    inside = boxes.inside.copy()
    kept = inside.copy()
    for e in np.unique(chosen[chosen >= 0]):
        own = points[chosen == e]
        kept[e] = True
        if not inside[e] and len(own) >= CELLS**d:
            cells = ((boxes.local(e, own) + 1) / 2 * CELLS).astype(int).clip(0, CELLS - 1)
            inside[e] = len(np.unique(cells, axis=0)) == CELLS**d
    index = np.flatnonzero(kept)
    found = Boxes(boxes.low[index], boxes.high[index], boxes.degree[index], inside[index])
    return found, None if coef is None else [coef[e] for e in index]


def size_where_known(boxes: Boxes, coef: Coefficients, problem: Problem) -> np.ndarray:
    """Root mean square (m,) of the solution in its domain: beyond that it may be anything."""
    given = _of_domain(problem)
    if not given:
        return solution_size(boxes, coef)
    values = evaluate(boxes, coef, given[0].points.cpu().numpy(), (0,) * boxes.low.shape[1])
    return values.square().mean(0).sqrt().cpu().numpy()


def refinable(boxes: Boxes, problem: Problem) -> np.ndarray:
    """Whether the points of each piece determine more columns than it has."""
    given = _of_domain(problem)
    if not given:
        return np.ones(boxes.n_boxes, dtype=bool)
    points = np.concatenate([term.points.cpu().numpy() for term in given])
    chosen = boxes.locate(points)
    count = np.bincount(chosen[chosen >= 0], minlength=boxes.n_boxes)
    columns = np.array([len(exponents(boxes.degrees(e))) for e in range(boxes.n_boxes)])
    d = points.shape[1]
    return boxes.inside | (count > POINTS_PER_COLUMN * 2**d * columns)


def first_boxes(d: int, degree: int | None) -> Boxes:
    """The unit box as a single piece."""
    first = FIRST_LINE if d == 1 else FIRST_DEGREE
    first = first if degree is None else degree
    return Boxes(np.zeros((1, d)), np.ones((1, d)), np.full((1, d), first))
