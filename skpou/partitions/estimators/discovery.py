"""Training that finds how many pieces there are, and what joins them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult, drawn_and_others, with_all_targets
from skpou.core.linalg import alone
from skpou.partitions.estimators.trainers import Train
from skpou.partitions.fewer import grown_where_better
from skpou.partitions.fit import fit_pieces
from skpou.partitions.many_rows import fit_to_blocks, searched_points
from skpou.partitions.options import PieceOptions
from skpou.partitions.smooth.fit import smooth_where_better
from skpou.partitions.tables.fit import experts_where_better


def discovery(
    rows: Rows,
    options: PieceOptions,
    labels: Tensor | None,
    report: Report | None,
    of_more: bool = False,
) -> Train:
    """Pieces, or what predicts left-out rows better than they do.

    Parameters
    ----------
    labels : Tensor of shape (n,) or None
        Pieces to go on from.
    of_more : bool, default=False
        Whether the rows are a sample.
    """

    def train(rng: np.random.Generator) -> TrainingResult:
        if labels is not None:
            return fit_pieces(rows, options, rng, labels, report)
        some = searched_points(rows, options, of_more)
        few = rows if some is None else with_all_targets(rows, some)
        pieces = fit_pieces(few, options, rng, None, report)
        pieces = grown_where_better(pieces, few, options, report)
        pieces = smooth_where_better(pieces, few, options, report)
        pieces = experts_where_better(pieces, few, options, rng, report)
        if some is None:
            return pieces
        with alone():  # The rows are those of all processes.
            return fit_to_blocks(pieces, *drawn_and_others(rows, some))

    return train
