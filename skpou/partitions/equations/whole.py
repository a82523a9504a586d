"""All pieces of a box at once: cut and raised until the residual at fresh points is small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import ridge_coefficients
from skpou.equations import Problem
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import PieceColumns, exponents
from skpou.partitions.equations.elimination import minimum_degree
from skpou.partitions.equations.evaluation import evaluate
from skpou.partitions.equations.model import variance_points
from skpou.partitions.equations.newton import Solved, solve
from skpou.partitions.equations.refinement import (
    FIRST_DEGREE,
    SHARE,
    Child,
    as_boxes,
    copied,
    ladder,
    prolonged,
    refined,
    shape,
    solution_size,
)
from skpou.partitions.equations.system import Coefficients, System
from skpou.partitions.equations.terms import SAME

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
#: Degree of the polynomial through measured values that nonlinear equations start from, rows for
#: each of its columns, and its ridge relative to their norm.
START_DEGREE, START_ROWS, START_RIDGE = 5, 2, 1e-3
#: Changes of the solution fall from one cut at a corner to the next by this factor at first, and
#: at least by the other one: cuts are three halvings, of which each falls by about .4.
FIRST_FALL, LEAST_FALL = 0.5, 0.9
#: Power of the width below which a cut lowers a tail where no degree helps: corners by less than 2,
#: what is smooth by the degree.
SINGULAR = 4.0
#: Cells a side that points must fill for a piece to lie within the domain that they stand for.
CELLS = 8
#: Points that a piece must hold for each of its columns, to be cut or raised.
POINTS_PER_COLUMN = 1.3


@dataclass
class Whole:
    """Pieces and the solution on them.

    Attributes
    ----------
    boxes : Boxes
    solved : Solved
    system : System
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
    """

    boxes: Boxes
    solved: Solved
    system: System
    tail: float
    curve: list[float]
    size: np.ndarray
    spilt: Tensor | None = None
    singular: np.ndarray | None = None


class Spill:
    """What corners that no degree resolves do to the solution elsewhere.

    Their misfit is shared with all pieces through the least squares, and no tail shows that. What
    one more cut at a corner changes does; what is left are the terms of a geometric series.

    Attributes
    ----------
    singular : ndarray of bool of shape (E,)
        Pieces whose tails fell by a small power of their width when they were cut.
    pieces : ndarray of bool of shape (E,)
        Those of them whose residual is not small enough.
    """

    def __init__(self, problem: Problem):
        term = next((t for t in problem.terms if not t.is_condition), problem.terms[0])
        self.points = term.points.cpu().numpy()
        self.deviation: Tensor | None = None
        self.last: tuple[Boxes, Coefficients] | None = None
        self.change, self.left = 0.0, np.inf
        self.was_cut = False
        self.singular = np.zeros(1, dtype=bool)
        self._children: list[Child] = []
        self._tails = self._scale = np.ones(1)

    def measure(
        self, boxes: Boxes, coef: Coefficients, tails: np.ndarray, misfit: np.ndarray, tol, size
    ) -> float:
        """Relative root mean square of it, at most the largest misfit of such a piece."""
        scale = boxes.width.prod(1) ** (1 / boxes.width.shape[1])
        was_cut = np.zeros(boxes.n_boxes, dtype=bool)
        if self._children:
            # Pieces beyond the domain are gone.
            lows = {tuple(low) for low in boxes.low}
            parents = [c.parent for c in self._children if tuple(c.low) in lows]
            before = self._scale[parents]
            slow = tails * (before / scale) ** SINGULAR > self._tails[parents]
            was_cut = before > scale
            self.singular = np.where(was_cut, slow, self.singular[parents])
        self.pieces = self.singular & (misfit > tol)
        self._tails, self._scale = tails, scale
        self.deviation = None
        if not self.singular.any():
            return 0.0
        most = float(misfit[self.singular].max())
        self.deviation = coef[0].new_tensor(most * size).expand(boxes.n_boxes, 1, -1)
        if self.last is not None and self.was_cut:
            moved = (
                _change((boxes, coef), self.last, self.points).square().mean(0).sqrt().cpu().numpy()
            )
            change = float((moved / size).max())
            fall = min(change / self.change, LEAST_FALL) if self.change else FIRST_FALL
            self.left, self.change = change * fall / (1 - fall), change
            if self.left < most:
                nodes = (variance_points(boxes.low.shape[1]) + 1) / 2
                points = boxes.low[:, None] + boxes.width[:, None] * nodes
                points = points.reshape(-1, boxes.low.shape[1])
                field = _change((boxes, coef), self.last, points)
                squares = field.square().reshape(boxes.n_boxes, len(nodes), -1).mean(1, True)
                self.deviation = fall / (1 - fall) * squares.sqrt()
                # Where the last solution was of the corner itself, it tells no change.
                near = torch.as_tensor(was_cut, device=squares.device)
                self.deviation[near] = self.deviation.amax(0)
        self.last = boxes, coef
        return min(self.left, most)

    def around(self, boxes: Boxes, marks: np.ndarray) -> np.ndarray:
        """Pieces at the corner of one that is cut, as wide or wider: their misfit spills, too."""
        found = np.zeros(boxes.n_boxes, dtype=bool)
        for e in np.flatnonzero(self.pieces & marks):
            # The corner that a half of a half of the box shares with what it is a half of.
            place = np.round(boxes.low[e] / boxes.width[e]).astype(np.int64)
            corner = (place + (place & 1)) * boxes.width[e]
            touching = (boxes.low <= corner + SAME).all(1) & (boxes.high >= corner - SAME).all(1)
            found |= touching & (boxes.width >= boxes.width[e] - SAME).all(1)
        return found

    def pass_on(self, children: list[Child]) -> None:
        """Take the next partition."""
        self._children = children


def _change(
    new: tuple[Boxes, Coefficients], old: tuple[Boxes, Coefficients], points: np.ndarray
) -> Tensor:
    """Change (n, m) from one solution to another at some points."""
    orders = (0,) * points.shape[1]
    return evaluate(*new, points, orders) - evaluate(*old, points, orders)


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
    coef: Coefficients | None = None,
    data_weight: float | None = None,
    report=None,
) -> Whole:
    """Solve, cut and raise, and solve again.

    Parameters
    ----------
    problem : Problem
    rows : Rows
    boxes : Boxes
        The first ones.
    rings : frozenset of int
    unknowns : Tensor of shape (q,)
        First values.
    tol : float
        Tail of the coefficients aimed at, relative to the solution.
    max_iter : int
        Most Gauss-Newton steps a round.
    most_pieces : int
    degree : int, default=None
        Of all pieces; None: chosen for each.
    exactly : bool, default=False
        Whether the first pieces stay as they are.
    coef : list of Tensor, default=None
        First coefficients.
    data_weight : float, default=None
        Of noisy data, once the pieces resolve the solution; None: that of conditions.
    report : callable, default=None
    """
    weight = 1.0
    limits = list(problem.unknowns.values())
    best: Whole | None = None
    curve: list[float] = []
    waited, misfits = 0, []
    top = ladder(rows.n_features)[-1] if degree is None else degree
    directions = list(range(rows.n_features))
    aim = min(tol, AIM)
    spill, spent, unsolved = Spill(problem), 0.0, 0
    X = rows.X.cpu().numpy()
    suspect = data_weight is None and not ((X == 0) | (X == 1)).any(1).all()
    for _ in range(ROUNDS):
        boxes, coef = within_points(boxes, coef, problem)
        once = work(boxes, rings, rows.n_outputs)
        if spent + once > MOST_WORK and best is not None:
            break
        system = System(boxes, problem, rows, rings, data_weight=weight)
        start = system.zero() if coef is None or problem.is_affine else coef
        if coef is None and suspect and not problem.is_affine:
            start = near_data(boxes, rows)
        solved = solve(system, start, unknowns, limits, max_iter, problem.is_affine)
        spent += once * solved.n_steps
        unsolved = 0 if solved.converged else unsolved + 1
        unknowns = solved.unknowns
        size = size_where_known(boxes, solved.coef, problem)
        size = np.where(size > 0, size, 1.0)
        found = shape(boxes, solved.coef, size)
        misfit = system.misfit(solved.coef, unknowns)
        noise = system.data_misfit(solved.coef)
        misfits.append(float(np.sqrt(np.mean(noise[noise > 0] ** 2))) if noise.any() else 0.0)
        if data_weight is not None:
            # Their noise, and what it does to the residual, asks for no pieces.
            noise, misfit = np.zeros_like(noise), np.zeros_like(misfit)
        tails = np.maximum(found.tail.max(1), np.maximum(SLACK * misfit, noise) / size.max())
        unweighted = tails
        if len(directions) > 1:
            # What a small piece leaves is little in all; on a line pieces cost nothing.
            tails = tails * boxes.width.prod(1) ** (0.5 / len(directions))
        spilt = 0.0
        if len(directions) > 1 and data_weight is None and not exactly:
            spilt = spill.measure(boxes, solved.coef, unweighted, misfit / size.max(), tol, size)
        worst = max(float(tails.max()), spilt)
        curve.append(worst)
        if report is not None:
            report(
                f"{boxes.n_boxes} pieces, {sum(system.sizes)} columns: tail {worst:.1e}, "
                f"residual {misfit.max():.1e}, data {noise.max():.1e}, corners {spilt:.1e}"
            )
        if best is None or worst < BETTER * best.tail:
            waited = 0
        else:
            waited += 1
        if best is None or worst <= best.tail or data_weight is not None:
            best = Whole(boxes, solved, system, worst, curve, size, spill.deviation, spill.singular)
        if data_weight is not None and weight > data_weight:
            # As light as the pieces allow: before these resolve the equations, these would win.
            weight = max(data_weight, min(0.5 * weight, LIGHTER * worst))
            coef = solved.coef
            last = weight <= data_weight
        else:
            last = True
        marks = (tails > tol) & (tails > SHARE * tails.max())
        spill.was_cut = spilt > tol and not marks.any()
        if spill.was_cut:
            marks = spill.pieces & (unweighted > SHARE * unweighted[spill.pieces].max())
        corner = spill.around(boxes, marks) if spilt > tol else np.zeros_like(marks)
        # To the corner, from all sides.
        found.rate[corner], found.tail[corner] = 1.0, np.maximum(unweighted, tol)[corner, None]
        marks |= corner
        if exactly and boxes.n_boxes < most_pieces:
            left = most_pieces - boxes.n_boxes
            order = np.argsort(-tails, kind="stable")[: min(left, (boxes.n_boxes + 1) // 2)]
            marks = np.isin(np.arange(boxes.n_boxes), order)
            found.rate[:] = 1.0
            children = refined(boxes, found, unweighted, marks, directions, 0.0, top, single=True)
            coef, boxes = prolonged(boxes, solved.coef, children), as_boxes(children)
            continue
        if exactly:
            best = Whole(boxes, solved, system, worst, curve, size)
        if not marks.any() and not last:
            continue
        if (
            exactly
            or not marks.any()
            or boxes.n_boxes >= most_pieces
            or (max(waited, unsolved + 1) >= PATIENCE and spent > PATIENT_WORK)
        ):
            break
        if suspect and len(misfits) > 3 and misfits[-1] > max(1e-4, 0.5 * misfits[-4]):
            break
        marks &= refinable(boxes, problem, rows.n_outputs)
        children = refined(boxes, found, unweighted, marks, directions, aim, top)
        if len(children) == boxes.n_boxes and all(
            child.degree == boxes.degrees(child.parent) for child in children
        ):
            break
        spill.pass_on(children)
        coef = prolonged(boxes, solved.coef, children)
        boxes = as_boxes(children)
    assert best is not None
    best.curve = curve
    return best


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


def within_points(
    boxes: Boxes, coef: Coefficients | None, problem: Problem
) -> tuple[Boxes, Coefficients | None]:
    """Pieces that points of equations reach, and which of them lie within their domain.

    Equations whose points fill a box hold in all of it.
    """
    given = [t for t in problem.terms if t.region is None and not t.is_condition]
    if not given or any(t.region is not None and not t.is_condition for t in problem.terms):
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
    given = [t for t in problem.terms if t.region is None and not t.is_condition]
    if not given or any(t.region is not None and not t.is_condition for t in problem.terms):
        return solution_size(boxes, coef)
    values = evaluate(boxes, coef, given[0].points.cpu().numpy(), (0,) * boxes.low.shape[1])
    return values.square().mean(0).sqrt().cpu().numpy()


def refinable(boxes: Boxes, problem: Problem, m: int) -> np.ndarray:
    """Whether the points of each piece determine more columns than it has."""
    given = [t for t in problem.terms if t.region is None and not t.is_condition]
    if not given or any(t.region is not None and not t.is_condition for t in problem.terms):
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


def work(boxes: Boxes, rings: frozenset[int], m: int) -> float:
    """About how many multiplications an elimination takes."""
    sizes = [m * len(exponents(boxes.degrees(e))) for e in range(boxes.n_boxes)]
    touching = [(face.below, face.above) for face in boxes.faces(rings)]
    order, others = minimum_degree(sizes, touching)
    # A factorisation of twice as many rows, and the reflections of the other columns.
    total = sum(
        4.0 * sizes[e] ** 2 * (sizes[e] + 2 * k) for e, k in zip(order, others, strict=True)
    )
    return total
