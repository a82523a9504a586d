"""Pieces that stay near the range of y between the rows: exact at the rows is not enough.

Soft gates between lines of rows, or beside a sharp gate, can leave room that no row is in. Experts
that cancel at the rows were seen to be off by a factor of ten million there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models import residual_squares
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.mixtures.mixture import Mixture

#: Points between rows where pieces are looked at.
N_PROBES = 4000
#: Ranges of y by which pieces may leave that of the rows: a peak between the rows does by a part
#: of one, what cancels at the rows by many.
ROOM = 2.0
#: Residuals, in units of y, that what takes their place may leave whatever they leave, and the
#: factor above theirs.
SMALL_RESIDUAL, ABOUT = 0.1, 1.5
#: Seed of the points between the rows: the same for every fit.
PROBES_SEED = 7


def plausible_pieces(
    rows: Rows,
    options: PieceOptions,
    rng: np.random.Generator,
    labels: Tensor | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Pieces as of `fit_pieces`; others where these leave the range of y between the rows.

    Others are pieces from another start and, if their number is free, one polynomial. Of those
    that follow the rows the one stays that leaves the range the least.

    Parameters
    ----------
    rows, options, rng, labels, report
        See `fit_pieces`.
    """
    first = fit_pieces(rows, options, rng, labels, report)
    probes = points_between(rows.X)
    overshoot = _overshoot(first.state, rows, probes)
    if overshoot <= ROOM:
        return first
    most = max(ABOUT * _residual(first.state, rows), SMALL_RESIDUAL)
    best = first
    message = "The pieces are kept, which leave the range of y between the rows."
    with handing_over(lambda: replace(best, code="interrupted", message=message)):
        for other in _others(rows, options, rng, labels, report):
            found = _overshoot(other.state, rows, probes)
            if found < overshoot and _residual(other.state, rows) <= most:
                best, overshoot = other, found
            if overshoot <= ROOM:
                break
    if report:
        report(f"pieces left the range of y between the rows; {overshoot:.2g} ranges are left")
    return best


def _others(
    rows: Rows,
    options: PieceOptions,
    rng: np.random.Generator,
    labels: Tensor | None,
    report: Report | None,
) -> Iterator[TrainingResult]:
    if labels is None:
        yield fit_pieces(rows, options, rng, None, report)
    if options.sizes is None:
        yield fit_pieces(rows, replace(options, sizes=(1,)), rng, None, report)


def points_between(X: Tensor) -> Tensor:
    """Points (N_PROBES, d) on lines between random rows, wherever these are."""
    rng = np.random.default_rng(PROBES_SEED)
    first, second = (
        X[torch.as_tensor(rng.integers(len(X), size=N_PROBES), device=X.device)] for _ in range(2)
    )
    share = torch.as_tensor(rng.uniform(size=(N_PROBES, 1)), dtype=X.dtype, device=X.device)
    return first + share * (second - first)


def _overshoot(mixture: Mixture, rows: Rows, points: Tensor) -> float:
    """Largest distance of the means from the range of y, in such ranges; inf if not finite."""
    low, high = rows.y.amin(0), rows.y.amax(0)
    unit = (high - low).clamp_min(torch.finfo(rows.y.dtype).tiny)
    found = 0.0
    for block in row_blocks(len(points), rows_within(mixture.numbers_per_row())):
        mean = mixture.mean(points[block])
        outside = torch.maximum(low - mean, mean - high) / unit
        found = max(found, float(outside.nan_to_num(nan=torch.inf).max()))
    return found


def _residual(mixture: Mixture, rows: Rows) -> float:
    """Root mean square of what is left at the rows."""
    square = float(residual_squares(mixture, rows).mean())
    return (square / rows.total_weight) ** 0.5
