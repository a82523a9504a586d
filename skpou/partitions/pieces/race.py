"""What cannot win and is not searched for: degrees by their fine cells, pieces by plain blocks.

Merging fine cells only makes their residual larger; and where blocks of the rows, each with a
polynomial of its own, leave no less than one polynomial for all, there are no pieces to be found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from skpou.partitions.pieces.cells import EXACT, fine_cells, lloyd
from skpou.partitions.pieces.problem import PieceProblem, Pieces, price_of_parameter

#: A degree whose fine cells have found so many rows exact, as a share, stays: what is exact wins
#: whatever the other cells leave.
EXACT_SHARE = 0.05
#: Logarithm of the mean square by which cells may lose to those of a higher degree, since smoothing
#: lowers the residual of a few.
MARGIN = 1.0
#: The same for pieces that are smoothed at every level, each by its own error.
MERGED_MARGIN = 0.25


#: Rows for each column with which the fine cells of a degree tell anything.
MANY_ROWS = 8
#: Rows for each column that blocks have, and most blocks.
ROWS_A_COLUMN, MOST_BLOCKS = 3, 64
#: Share of the price of one piece more that blocks must gain: they know no kink, and cut across it.
LEAST_GAIN = 0.25


def one_is_enough(problem: PieceProblem) -> bool:
    """Whether blocks of the rows gain less than a part of one more piece's price, as in `score`.

    Variances are compared without the bias of what polynomials take up.
    """
    n_blocks = min(problem.n // (ROWS_A_COLUMN * problem.n_columns), MOST_BLOCKS)
    if n_blocks < 2 or problem.d == 0:
        return False
    weight = problem.rows.weight.cpu().numpy()
    block = lloyd(problem.host_points, weight, n_blocks, np.random.default_rng(0))[1]
    labels = torch.unique(problem._tensor(block), return_inverse=True)[1]
    whole, blocks = problem.fit(torch.zeros_like(labels)), problem.fit(labels)
    if float(whole.rss.sum()) <= problem.exact_rss:
        return True
    before, after = (
        float(pieces.rss.sum()) / (problem.total_weight - pieces.n_pieces * problem.n_columns)
        for pieces in (whole, blocks)
    )
    if not after > 0:
        return False
    gain = problem.rows.n_outputs * problem.total_weight * math.log(before / after)
    return gain < LEAST_GAIN * _price(problem, whole)


def cannot_win(
    problem: PieceProblem,
    cells: Pieces,
    others: list[tuple[PieceProblem, Pieces]],
    best: float = math.inf,
) -> bool:
    """Whether fine cells of one degree lose to `others` of higher ones, however they are merged.

    Their residual then costs more, without any price for their number, than cells of a higher
    degree with it, or than the best pieces that are merged, of any degree.
    """
    if some_are_exact(problem, cells):
        return False
    least = _misfit(problem, cells) - MARGIN * problem.total_weight * problem.rows.n_outputs
    beaten = any(promise(of, start) < least for of, start in others)
    return beaten or is_beaten(problem, cells, best)


def is_beaten(problem: PieceProblem, pieces: Pieces, best: float) -> bool:
    """Whether pieces, however merged further, cannot reach a best score of others.

    Each piece counts by its own error, so that the few which lie across a kink, and will not for
    long, tell little; merging makes all of them larger.
    """
    if not math.isfinite(best) or some_are_exact(problem, pieces):
        return False
    m, total = problem.rows.n_outputs, problem.total_weight
    square = pieces.error.square() + problem.least_error**2
    misfit = m * float(pieces.weight @ square.log())
    return misfit + _price(problem, pieces) / pieces.n_pieces - MERGED_MARGIN * m * total > best


def some_are_exact(problem: PieceProblem, cells: Pieces) -> bool:
    """Whether fine cells have found rows exact: no residual of others tells against them."""
    exact = cells.error < EXACT * problem.floor
    return float(cells.weight[exact].sum()) > EXACT_SHARE * problem.total_weight


def promise(problem: PieceProblem, cells: Pieces) -> float:
    """Score of fine cells, but for the length of their labels; lower is better."""
    return _misfit(problem, cells) + _price(problem, cells)


def _misfit(problem: PieceProblem, cells: Pieces) -> float:
    """Twice the negative log likelihood, up to a constant, as in `score`."""
    mean_square = float(cells.rss.sum()) / problem.total_weight + problem.least_error**2
    return problem.rows.n_outputs * problem.total_weight * math.log(mean_square)


def _price(problem: PieceProblem, cells: Pieces) -> float:
    """What the cells' coefficients cost in `score`; labels are nobody's advantage."""
    columns = problem.rows.n_outputs * problem.n_columns + problem.n_gate_columns
    return cells.n_pieces * columns * price_of_parameter(problem.total_weight)


class DegreeRace:
    """Degrees of many rows, judged by their fine cells before any are merged.

    Parameters
    ----------
    make_problem : callable
        Takes a degree, returns its problem.
    seeds : mapping of int to int
        Candidate degrees, and the seeds of their fine cells; read when asked.

    Attributes
    ----------
    enough : dict of int to bool
        Whether one polynomial of a degree is enough, for those that were looked at.
    """

    def __init__(self, make_problem: Callable[[int], PieceProblem], seeds: Mapping[int, int]):
        self._make, self._seeds = make_problem, seeds
        self.enough: dict[int, bool] = {}
        self._problems: dict[int, PieceProblem] = {}
        self._starts: dict[int, Pieces] = {}

    def problem(self, degree: int) -> PieceProblem:
        """The problem of a degree, made once."""
        if degree not in self._problems:
            self._problems[degree] = self._make(degree)
        return self._problems[degree]

    def start(self, degree: int) -> tuple[PieceProblem, Pieces]:
        """The problem of a degree and its fine cells, found once."""
        problem = self.problem(degree)
        if degree not in self._starts:
            rng = np.random.default_rng(self._seeds[degree])
            self._starts[degree] = fine_cells(problem, rng)
        return problem, self._starts[degree]

    def order(self, degrees: list[int]) -> list[int]:
        """Degrees in an order in which pieces of one spare the merging of others.

        Where some rows are found to be exact, the lowest degree that makes all of them so is looked
        for from below.
        """
        cut = [degree for degree in degrees if self._is_cut(degree)]
        if any(some_are_exact(*self.start(degree)) for degree in cut):
            return degrees
        cut.sort(key=lambda degree: promise(*self.start(degree)))
        return [degree for degree in degrees if degree not in cut] + cut

    def is_lost(self, degree: int, best: float) -> bool:
        """Whether fine cells of a degree lose to others, or to the best score; see `cannot_win`."""
        if not self._is_cut(degree):
            return False
        higher = [m for m in self._seeds if m > degree and self._is_cut(m)]
        return cannot_win(*self.start(degree), [self.start(m) for m in higher], best)

    def _is_cut(self, degree: int) -> bool:
        """Whether pieces of a degree, and not one polynomial, are to be looked for."""
        if degree == 0:
            return False
        problem = self.problem(degree)
        if problem.n < MANY_ROWS * problem.n_columns:
            return False
        if degree not in self.enough:
            self.enough[degree] = one_is_enough(problem)
        return not self.enough[degree]
