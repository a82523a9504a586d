"""Pieces with sharp gates: discovery, tree, gates, experts, without gradient descent."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult, handing_over
from skpou.partitions.gates.tree import PartitionTree
from skpou.partitions.mixtures.left_out import LeftOutRows
from skpou.partitions.options import PieceOptions
from skpou.partitions.training import PieceTraining

#: Standard errors of a gain in left-out error that noise alone hardly makes: where kinks of the
#: curvature were told from smooth functions they gained up to 1.4 by soft gates, these from 2 on.
CLEARLY_BETTER = 2.0


def fit_pieces(
    rows: Rows,
    options: PieceOptions,
    rng: np.random.Generator,
    labels: Tensor | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Find pieces bottom-up and separate them by sharp gates.

    Parameters
    ----------
    labels : Tensor of shape (n,), int64, default=None
        Start from these pieces instead of from fine cells; needs a given degree.

    Returns
    -------
    TrainingResult
        Its state is a `Mixture`.
    """
    training = PieceTraining(rows, options, report)
    with handing_over(lambda: training.result(quick=True) if training.begun else None):
        training.search(rng, labels)
        return _sharp_where_simpler(training, training.result())


def _sharp_where_simpler(training: PieceTraining, result: TrainingResult) -> TrainingResult:
    """Pieces that are all apart, unless soft gates predict left-out rows clearly better.

    Noise hides kinks of the curvature from the pieces' slopes. Soft gates have more parameters.
    """
    sharpened = training.sharpened()
    if sharpened is None:
        return result
    sharp = training.result(found=sharpened)
    rows = LeftOutRows(training.rows)
    soft_errors, errors = rows.left_out_by(result.state), rows.left_out_by(sharp.state)
    gain = rows.pooled(errors) ** 2 - rows.pooled(soft_errors) ** 2
    return sharp if gain <= CLEARLY_BETTER * rows.gain_known(soft_errors, errors) else result


def fit_sharp_pieces(
    rows: Rows, options: PieceOptions, rng: np.random.Generator, hopeless: float = math.inf
) -> TrainingResult | None:
    """`fit_pieces` where kinks separate all pieces, or blends that leave next to nothing.

    None where others join smoothly, and where pieces of degree 2 leave more than `hopeless` at the
    rows, in scaled units.
    """
    training = PieceTraining(rows, options, None)
    found = training.sharp(rng, hopeless)
    return None if found is None else training.result(found=found)


def have_sharp_pieces(
    rows: Rows, options: PieceOptions, rng: np.random.Generator, hopeless: float = math.inf
) -> bool:
    """Whether `fit_sharp_pieces` would find several, all apart by kinks; gates are spared here."""
    found = PieceTraining(rows, options, None).sharp(rng, hopeless, joined=False)
    return found is not None and found[0].n_pieces > 1


def discover_tree(
    rows: Rows, options: PieceOptions, rng: np.random.Generator, report: Report | None = None
) -> PartitionTree:
    """Sharp gates of discovered pieces, not refined: a start for other trainings.

    See `fit_pieces` for the parameters.
    """
    training = PieceTraining(rows, options, report)
    with handing_over():
        training.search(rng, None)
        return training.result(quick=True).state.tree
