"""Where conditions at the lower end of a marched column are not smooth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skpou.partitions.equations.boxes import Boxes, joined_boxes
from skpou.partitions.equations.characteristics import BISECTIONS
from skpou.partitions.equations.columns import PieceColumns
from skpou.partitions.equations.march import THIN, March
from skpou.partitions.equations.refinement import (
    DEGREES,
    FIRST_DEGREE,
    SLOW,
    Shape,
    as_boxes,
    refined,
    shape,
    solution_size,
)
from skpou.partitions.equations.system import Coefficients

#: Rounds of halving, and pieces of one round that are too many: there is more than some kinks.
ROUNDS, MOST = 44, 64
#: Most kinks whose lines are followed.
MOST_KINKS = 8
#: Pieces as narrow as this hold what no polynomial resolves.
NARROW = 2.0**-12
#: Jump of a derivative where two pieces meet, in units of the tail that is small enough.
JUMP = 1e3
#: Width of pieces whose middle is as good as any other point of them.
A_POINT = 1e-9
#: Distance from a place within which a better one is looked for, in widths of the pieces there:
#: no node of theirs is nearer to their ends.
POLISHED = 0.02
#: Difference of two pieces, relative to the values, below which its sign is that of round-off:
#: where velocities jump values have no kink.
LEAST_GAP = 1e-12
#: Places of a search for a change of sign.
PLACES = 129


def kinks_at_bottom(march: March) -> list[float] | None:
    """Places along the other column where values or slopes of the conditions have kinks.

    Each piece is fitted alone, so that what is not smooth stays where it is; the march starts with
    these. None where there is more than single points, or points do not tell where.
    """
    boxes, coef, tails, rates, size = _fitted(march)
    march.trace = boxes, coef
    x = march.others[0]
    rough = (tails > march.tol) & (rates > SLOW) | (boxes.width[:, x] <= NARROW)
    order = np.argsort(boxes.low[:, x], kind="stable")
    found: list[float] = []
    last, between = None, []
    for e in order.tolist():
        if rough[e]:
            between.append(e)
            continue
        if between:
            if last is None:
                return None
            low, high = boxes.low[between[0], x], boxes.high[between[-1], x]
            place = _crossing(boxes, coef, last, e, x, low, high, size)
            if place is None:
                return None
            found.append(place)
        elif last is not None and _jumps(boxes, coef, last, e, x, size, march.tol):
            found.append(float(boxes.low[e, x]))
        last, between = e, []
    if between or len(found) > MOST_KINKS:
        return None
    return _polished(march, found) if found else found


def _polished(march: March, places: list[float]) -> list[float]:
    """Places by pieces that end there, which are wide; small ones know slopes less exactly."""
    boxes, coef, tails, _, size = _fitted(march, places)
    march.trace = boxes, coef
    x, found = march.others[0], []
    for place in places:
        a, b = (np.flatnonzero(side[:, x] == place) for side in (boxes.high, boxes.low))
        better = None
        if max(tails[a[0]], tails[b[0]]) <= march.tol:
            reach = POLISHED * min(boxes.width[a[0], x], boxes.width[b[0], x])
            low, high = place - reach, place + reach
            better = _crossing(boxes, coef, int(a[0]), int(b[0]), x, low, high, size)
        found.append(place if better is None else better)
    return found


def _fitted(march: March, cuts: Sequence[float] = ()):
    """Pieces between some cuts, their coefficients, tails and rates, and the values' size."""
    x = march.others[0]
    ends = np.array([0.0, *cuts, 1.0])
    degree = np.full((len(ends) - 1, march.d), FIRST_DEGREE)
    degree[:, march.column] = march.time_order - 1
    low, high = np.zeros(degree.shape), np.ones(degree.shape)
    low[:, x], high[:, x] = ends[:-1], ends[1:]
    high[:, march.column] = THIN
    boxes = Boxes(low, high, degree)
    size = None
    parts: list[Boxes] = []
    coef: Coefficients = []
    tails, rates = [], []
    for round_ in range(ROUNDS):
        solved, _, determined = march.by_conditions(boxes, joined=False)
        if size is None:
            size = solution_size(boxes, solved.coef)
            size = np.where(size > 0, size, 1.0)
        found = shape(boxes, solved.coef, size)
        marks = (found.tail[:, x] > march.tol) & determined
        marks &= round_ < ROUNDS - 1 and boxes.n_boxes <= MOST
        done = np.flatnonzero(~marks)
        parts.append(boxes.subset(done))
        coef += [solved.coef[e] for e in done]
        tails.append(found.tail[done, x])
        rates.append(found.rate[done, x])
        if not marks.any():
            break
        left = np.flatnonzero(marks)
        found = Shape(found.tail[left], found.rate[left])
        every = np.ones(len(left), dtype=bool)
        children = refined(boxes.subset(left), found, found.tail[:, x], every, [x], march.tol)
        # Pieces are apart from each other: only those that are new are solved for.
        boxes = as_boxes(children)
    joined = joined_boxes(parts, march.column)
    return joined, coef, np.concatenate(tails), np.concatenate(rates), size


def _derivatives(boxes: Boxes, coef: Coefficients, e: int, x: int, places, size, order: int):
    """Derivatives (n, m) along x at the lower end, of a piece that may end before."""
    points = np.zeros((len(places), boxes.low.shape[1]))
    points[:, x] = places
    columns = PieceColumns(boxes.degrees(e), boxes.local(e, points), coef[e])
    orders = tuple(order if j == x else 0 for j in range(points.shape[1]))
    found = (columns.derivative(orders) @ coef[e]).cpu().numpy()
    return found * (2 / boxes.width[e, x]) ** order / size


def _jumps(boxes: Boxes, coef: Coefficients, a: int, b: int, x: int, size, tol: float) -> bool:
    """Whether derivatives of two smooth pieces differ where they meet."""
    place = boxes.low[b, x : x + 1]
    h = min(boxes.width[a, x], boxes.width[b, x])
    for order in (1, 2):
        first, second = (_derivatives(boxes, coef, e, x, place, size, order) for e in (a, b))
        # Derivatives are less exact than values by the square of the degree for each.
        if np.abs(first - second).max() * (h / DEGREES[-1] ** 2) ** order > JUMP * tol:
            return True
    return False


def _crossing(boxes: Boxes, coef: Coefficients, a: int, b: int, x: int, low, high, size):
    """Where two smooth pieces, continued, have the same value; the middle of what is a point."""
    places = np.linspace(low, high, PLACES)

    def gap(places):
        first, second = (_derivatives(boxes, coef, e, x, places, size, 0) for e in (a, b))
        return first - second

    values = gap(places)
    output = int(np.ptp(values, axis=0).argmax())
    values = values[:, output]
    changes = np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:]))
    if len(changes) == 1 and np.ptp(values) > LEAST_GAP:
        first, last = places[changes[0]], places[changes[0] + 1]
        below = values[changes[0]]
        for _ in range(BISECTIONS):
            middle = (first + last) / 2
            value = gap(np.array([middle]))[0, output]
            first, last = (middle, last) if value * below > 0 else (first, middle)
        return float((first + last) / 2)
    return float((low + high) / 2) if high - low < A_POINT else None
