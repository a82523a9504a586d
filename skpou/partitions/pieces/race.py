"""What cannot win and is not searched for: degrees by their fine cells, pieces by plain blocks.

Merging fine cells only makes their residual larger; and where blocks of the rows, each with a
polynomial of its own, leave no less than one polynomial for all, there are no pieces to be found.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from skpou.partitions.pieces.cells import EXACT, lloyd
from skpou.partitions.pieces.problem import PieceProblem, Pieces

#: A degree whose fine cells have found so many rows exact, as a share, stays: what is exact wins
#: whatever the other cells leave.
EXACT_SHARE = 0.05
#: Logarithm of the mean square by which cells may lose to those of a higher degree, since smoothing
#: lowers the residual of a few.
MARGIN = 1.0


#: Rows for each column that blocks have, and most blocks.
ROWS_A_COLUMN, MOST_BLOCKS = 3, 64
#: Share of the price of one piece more that blocks must gain: they know no kink, and cut across it.
LEAST_GAIN = 0.25


def one_is_enough(problem: PieceProblem) -> bool:
    """Whether blocks of the rows gain less than a part of one more piece's price, as in `score`.

    Variances are compared without the bias of what polynomials take up.

    Parameters
    ----------
    problem : PieceProblem
        Samples and the degree.
    """
    n_blocks = min(problem.n // (ROWS_A_COLUMN * problem.n_columns), MOST_BLOCKS)
    if n_blocks < 2 or problem.d == 0:
        return False
    weight = problem.rows.weight.cpu().numpy()
    block = lloyd(problem.host_points, weight, n_blocks, np.random.default_rng(0))[1]
    labels = torch.unique(problem._tensor(block), return_inverse=True)[1]
    whole, blocks = problem.fit(torch.zeros_like(labels)), problem.fit(labels)
    if float(whole.rss.sum()) <= problem.n * (10 * problem.floor) ** 2:
        return True
    before, after = (
        float(pieces.rss.sum()) / (problem.total_weight - pieces.n_pieces * problem.n_columns)
        for pieces in (whole, blocks)
    )
    if not after > 0:
        return False
    gain = problem.rows.n_outputs * problem.total_weight * math.log(before / after)
    return gain < LEAST_GAIN * _price(problem, whole)


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
