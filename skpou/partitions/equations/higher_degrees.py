"""The same pieces with higher degrees, which tell what those that were asked for hide."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from skpou.partitions.equations.bars import open_variance, spreads
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.costs import work
from skpou.partitions.equations.newton import Solved, solve
from skpou.partitions.equations.refinement import copied
from skpou.partitions.equations.system import Coefficients, System

#: Degrees that are added to tell what those that were asked for do to unknowns.
HIGHER = 2
#: Degree of pieces that tell which directions rows leave open: with it those of a square follow two
#: or three solutions of Laplace's equation that vanish on three faces, with half of it none.
TELLING_DEGREE = 12
#: The same on a line, where columns are cheap: with it a piece follows three periods to round-off.
TELLING_ON_A_LINE = 28
#: Multiplications that this may take: well below a second.
MOST_WORK = 1e9


def _with_degrees(system: System, coef: Coefficients, degree) -> tuple[System, Coefficients]:
    """The same pieces with other degrees, and the solution on them."""
    old = system.boxes
    boxes = Boxes(old.low, old.high, degree, old.inside)
    more = System(boxes, system.problem, system.rows, system.rings, data_weight=system.data_weight)
    return more, [copied(old.degrees(e), part, boxes.degrees(e)) for e, part in enumerate(coef)]


def unknowns_by_higher_degrees(system: System, solved: Solved, max_iter: int) -> Tensor:
    """Unknowns (q,) by the same pieces with higher degrees: what low ones leave moves them."""
    if not len(solved.unknowns):
        return solved.unknowns
    more, coef = _with_degrees(system, solved.coef, system.boxes.degree + HIGHER)
    limits, affine = list(system.problem.unknowns.values()), system.problem.is_affine
    return solve(more, coef, solved.unknowns, limits, max_iter, affine).unknowns


def hidden_directions(system: System, solved: Solved, size: np.ndarray) -> tuple[int, Tensor]:
    """Directions that rows leave open and low degrees do not follow, and variances (E, k, m).

    Where conditions are missing, low degrees hold the solution by what they cannot follow: the
    solutions that are left open are no polynomials of such degrees.

    Parameters
    ----------
    size : ndarray of shape (m,)
        Root mean square of the solution.
    """
    degree = _telling_degree(system)
    if degree is None:
        return 0, system.like.new_zeros(())
    more, coef = _with_degrees(system, solved.coef, degree)
    more.weigh(coef, solved.unknowns)
    elimination = more.elimination(coef, solved.unknowns).factor()
    n_open = elimination.n_open()
    if not n_open:
        return 0, system.like.new_zeros(())
    spread = spreads(more, elimination.covariances()[0])
    likewise = Solved(coef, solved.unknowns, 0.0, elimination, True)
    return n_open, open_variance(more, likewise, spread, size)


def _telling_degree(system: System) -> np.ndarray | None:
    """Degrees (E, d) that tell open directions, as high as their work allows; None: none do."""
    old = system.boxes
    equations = [term for term in system.problem.terms if not term.is_condition]
    if any(term.region is None for term in equations) and not old.inside.all():
        return None  # What columns are beyond a domain is open, and of no interest.
    most = TELLING_ON_A_LINE if system.d == 1 else min(TELLING_DEGREE, _followed_degree(system))
    most = min(most, _held_degree(system))
    for least in range(most, int(old.degree.min()), -1):
        degree = np.maximum(old.degree, least)
        if work(Boxes(old.low, old.high, degree, old.inside), system.rings, system.m) <= MOST_WORK:
            return degree
    return None


def _held_degree(system: System) -> int:
    """Highest degree that equations at given points alone determine in all pieces."""
    boxes, most = system.boxes, TELLING_ON_A_LINE
    for term in system.problem.terms:
        if term.region is None and not term.is_condition:
            index = boxes.locate(term.points.cpu().numpy())
            counts = np.bincount(index[index >= 0], minlength=boxes.n_boxes)
            fewest = counts[boxes.inside].min()
            most = min(most, int(fewest ** (1 / system.d)) - 1)
    return most


def _followed_degree(system: System) -> int:
    """Highest degree that points of data and conditions determine in all pieces that hold some.

    What is open between them is open by few points, not by a condition that is missing.
    """
    terms = [t.points for t in system.problem.terms if t.is_condition and t.region is None]
    points = np.concatenate([part.cpu().numpy() for part in (system.rows.X, *terms)])
    # Corners belong to faces that need not have a condition.
    ends = np.concatenate([points == 0, points == 1], axis=1)
    single = ends.sum(1) <= 1
    side = np.where(ends.any(1), ends.argmax(1), -1)[single]
    pairs = np.stack([system.boxes.locate(points[single]), side], 1)
    if not len(pairs):
        return TELLING_DEGREE
    fewest = np.unique(pairs, axis=0, return_counts=True)[1].min()
    return int(fewest ** (1 / (system.d - 1))) - 1
