"""Equations beside measured values: pieces and weights by the errors of left-out values.

Values with noise determine as many directions of the solution as there are values at most. Pieces
that resolve all that equations allow follow the noise instead, and so do unknown constants. Here
single pieces of rising degrees, and the pieces that were asked for, are solved with lighter and
lighter data, and those are kept that foretell values left out of the solve best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import TINY
from skpou.equations import Problem
from skpou.partitions.equations.bars import left_out_error, noise_variance
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import TOTAL_DEGREE_FROM, exponents
from skpou.partitions.equations.costs import work
from skpou.partitions.equations.newton import Solved, solve
from skpou.partitions.equations.refinement import TOTAL_DEGREES
from skpou.partitions.equations.system import Coefficients, System
from skpou.partitions.equations.whole import near_data

#: Degrees of single pieces on a line and in the plane; beyond, those of the refinement.
LINE_DEGREES, PLANE_DEGREES = (4, 6, 8, 10, 12, 16, 20, 28), (3, 4, 5, 6, 8, 10, 12, 16)
#: Factors of the weight of the data beside equations, which the light ones make hold exactly.
#: Before pieces resolve a solution these would have none but a wrong one.
WEIGHTS = (0.5, 0.1, 1e-2, 1e-3, 1e-4)
#: Most columns of a single piece.
MOST_COLUMNS = 800
#: Factor of the best error from which on lighter data make it worse, and higher degrees: so many of
#: these in a row end the ladder.
WORSE, MOST_WORSE = 1.5, 2
#: Multiplications of a solve that are too many for the pieces of a refinement to be tried.
MOST_WORK = 4e8


@dataclass
class Candidate:
    """A solution and how it foretells values that are left out.

    Attributes
    ----------
    left_out : float
        Root mean square of the errors of left-out values.
    """

    boxes: Boxes
    system: System
    solved: Solved
    left_out: float


@dataclass
class Measured:
    """The best of some candidates, with their error bars.

    Attributes
    ----------
    noise : Tensor of shape (m,)
        Variance of the values.
    deviation : Tensor of shape (E, k, m)
        Standard deviations of the solution at `variance_points`.
    spread : list of float
        Standard deviations of the unknowns.
    """

    best: Candidate
    noise: Tensor
    deviation: Tensor
    spread: list[float]


def solve_measured(
    problem: Problem,
    rows: Rows,
    rings: frozenset[int],
    unknowns: Tensor,
    given: Sequence[tuple[Boxes, Coefficients]],
    *,
    max_iter: int,
    only_given: bool = False,
) -> Measured | None:
    """Solve on several pieces with several weights of the data, and choose.

    Parameters
    ----------
    unknowns : Tensor of shape (q,)
        First values.
    given : sequence of tuple of Boxes and coefficients
        Pieces to be tried beside single ones, and what to start with on them.
    max_iter : int
        Most Gauss-Newton steps for a weight.
    only_given : bool, default=False
        Whether single pieces are not tried.

    Returns
    -------
    Measured or None
        None where no candidate can be judged.
    """
    search = _Search(problem, rows, rings, unknowns, max_iter)
    if only_given or search.degrees():
        for boxes, coef in given:
            if work(boxes, rings, rows.n_outputs) <= MOST_WORK or only_given:
                search.weights(boxes, coef)
    return search.result()


class _Search:
    def __init__(self, problem: Problem, rows: Rows, rings, unknowns: Tensor, max_iter: int):
        self.problem, self.rows, self.rings = problem, rows, rings
        self.unknowns, self.max_iter = unknowns, max_iter
        self.found: list[Candidate] = []

    def degrees(self) -> bool:
        """Single pieces of rising degrees, until more of it foretells less.

        Whether the best is the last one, beyond which pieces may be better.
        """
        d, worse = self.rows.n_features, 0
        for degree in degrees(d):
            before = self._best()
            boxes = Boxes(np.zeros((1, d)), np.ones((1, d)), np.full((1, d), degree))
            now = self.weights(boxes, near_data(boxes, self.rows))
            worse = worse + 1 if now > WORSE * before else 0
            if worse >= MOST_WORSE:
                return False
        return worse == 0

    def _best(self) -> float:
        return min((candidate.left_out for candidate in self.found), default=math.inf)

    def weights(self, boxes: Boxes, coef: Coefficients) -> float:
        """Lighter and lighter data on some pieces; the least error of left-out values."""
        unknowns, best = self.unknowns, math.inf
        limits, affine = list(self.problem.unknowns.values()), self.problem.is_affine
        for weight in WEIGHTS:
            system = System(boxes, self.problem, self.rows, self.rings, data_weight=weight)
            start = system.zero() if affine else coef
            solved = solve(system, start, unknowns, limits, self.max_iter, affine)
            coef, unknowns = solved.coef, solved.unknowns
            left_out = left_out_error(system, solved)
            # Steps that go on and on are those of data too light for what the pieces resolve.
            if not math.isfinite(left_out) or solved.n_steps >= self.max_iter:
                break
            self.found.append(Candidate(boxes, system, solved, left_out))
            if left_out > WORSE * best:
                break
            best = min(best, left_out)
        return best

    def result(self) -> Measured | None:
        """The best, and bars that know of the others that are nearly as good."""
        if not self.found:
            return None
        best = min(self.found, key=lambda candidate: candidate.left_out)
        noise, deviation, _ = noise_variance(best.system, best.solved)
        wider = max(best.left_out**2 / max(float(noise.mean()), TINY), 1.0)
        deviation = math.sqrt(wider) * deviation
        return Measured(best, noise, deviation, self._unknown_deviations(best))

    def _unknown_deviations(self, best: Candidate) -> list[float]:
        """Standard deviations of the unknowns, those between the candidates included.

        Candidates count with the density that they give left-out values, as models whose
        evidence is that of cross-validation.
        """
        if not len(self.unknowns):
            return []
        n = float(self.rows.weight.sum()) * self.rows.n_outputs
        variance, total = torch.zeros_like(self.unknowns), 0.0
        for candidate in self.found:
            share = (best.left_out / max(candidate.left_out, TINY)) ** n
            # No fit is surer than its left-out errors allow.
            unit = candidate.left_out**2 * candidate.system.data_unit
            own = candidate.solved.elimination.covariances()[1].diagonal() * unit
            moved = candidate.solved.unknowns - best.solved.unknowns
            variance, total = variance + share * (own + moved.square()), total + share
        return (variance / total).sqrt().tolist()


def degrees(d: int) -> tuple[int, ...]:
    """Degrees of single pieces in d columns."""
    found: tuple[int, ...] = LINE_DEGREES if d == 1 else PLANE_DEGREES
    found = TOTAL_DEGREES if d >= TOTAL_DEGREE_FROM else found
    return tuple(p for p in found if len(exponents((p,) * d)) <= MOST_COLUMNS)
