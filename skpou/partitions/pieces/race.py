"""Degrees that cannot win, by their fine cells: merging these only makes their residual larger."""

from __future__ import annotations

import math

from skpou.partitions.pieces.cells import EXACT
from skpou.partitions.pieces.problem import PieceProblem, Pieces

#: A degree whose fine cells have found so many rows exact, as a share, stays: what is exact wins
#: whatever the other cells leave.
EXACT_SHARE = 0.05
#: Logarithm of the mean square by which cells may lose to those of a higher degree, since smoothing
#: lowers the residual of a few.
MARGIN = 1.0


def cannot_win(problem: PieceProblem, cells: Pieces, others: list[tuple[PieceProblem, Pieces]]
               ) -> bool:  # fmt: skip
    """Whether pieces of one degree lose to those of higher degrees, however they are merged.

    Parameters
    ----------
    problem : PieceProblem
        Samples and the degree.
    cells : Pieces
        Fine cells of that degree, as of `fine_cells`.
    others : list of (PieceProblem, Pieces)
        The same of higher degrees.

    Returns
    -------
    bool
        Whether the residual of all the fine cells costs more, without any price for their number,
        than fine cells of a higher degree with it.
    """
    exact = cells.error < EXACT * problem.floor
    if float(cells.weight[exact].sum()) > EXACT_SHARE * problem.total_weight:
        return False
    least = _misfit(problem, cells) - MARGIN * problem.total_weight * problem.rows.n_outputs
    return any(_misfit(of, start) + _price(of, start) < least for of, start in others)


def _misfit(problem: PieceProblem, cells: Pieces) -> float:
    """Twice the negative log likelihood, up to a constant, as in `score`."""
    mean_square = float(cells.rss.sum()) / problem.total_weight + (3 * problem.floor) ** 2
    return problem.rows.n_outputs * problem.total_weight * math.log(mean_square)


def _price(problem: PieceProblem, cells: Pieces) -> float:
    """What the cells' coefficients cost in `score`; labels are nobody's advantage."""
    columns = problem.rows.n_outputs * problem.n_columns + problem.n_gate_columns
    return cells.n_pieces * columns * math.log(max(problem.total_weight, 2.0))
