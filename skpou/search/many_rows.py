"""Bases that some of many rows have found, their coefficients told by the others, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from skpou.core import Rows, TrainingResult, handing_over
from skpou.core.linalg import (
    factor_of_products,
    long_blocks,
    row_blocks,
    rows_within,
    triangular_factor,
)
from skpou.core.models import LinearModel, Stage, finish
from skpou.search.residues import LEAST_LEFT

#: Rows up to which all take part in a search, and how many are drawn of more: what a basis needs
#: shows in ten thousand, while every size that is tried costs as much as there are rows.
MANY_ROWS, SEARCHED = 20_000, 10_000


def fit_to_the_others(found: TrainingResult, rows: Rows, searched: Tensor) -> TrainingResult:
    """Add the rows that a search has not seen to the coefficients' posterior.

    That of the search is the prior: ``R c`` stands for its targets as R does for its rows
    (recursive least squares). Every stage is fitted to what those before leave over. One that
    keeps rows of its own stays as it is.

    Parameters
    ----------
    found : TrainingResult
        Of the search; its state is a `LinearModel`.
    rows : Rows
        All rows, in the same units.
    searched : Tensor of shape (n,), bool
        Those of the search.

    Returns
    -------
    TrainingResult

    Raises
    ------
    TrainingInterrupted
        On Ctrl-C, with what was found.
    """
    message = "The coefficients are those of the rows that were searched."
    with handing_over(lambda: replace(found, code="interrupted", message=message)):
        model: LinearModel = found.state
        others, stages = rows.subset(torch.nonzero(~searched).squeeze(1)), []
        y = others.y
        for stage in model.stages:
            if not stage.basis.follows_rows:
                stage = _with_more_rows(stage, replace(others, y=y))
            y = y - _values(stage, others.X)
            stages.append(stage)
        noise = _noise(model, rows.subset(torch.nonzero(searched).squeeze(1)), stages, rows)
        return replace(found, state=finish(tuple(stages), noise, rows.X, rows.weight))


def _with_more_rows(stage: Stage, rows: Rows) -> Stage:
    """Coefficients and factor by further rows."""
    if stage.factor.ndim == 2:
        coef, factor = _updated(stage, stage.factor, stage.coef, rows)
        return Stage(stage.basis, coef, factor)
    pairs = [
        _updated(stage, own, stage.coef[:, k : k + 1], replace(rows, y=rows.y[:, k : k + 1]))
        for k, own in enumerate(stage.factor)
    ]
    coef = torch.cat([pair[0] for pair in pairs], 1)
    return Stage(stage.basis, coef, torch.stack([pair[1] for pair in pairs]))


def _updated(stage: Stage, factor: Tensor, coef: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Coefficients (p, m) and factor (q, q) by further rows.

    Columns of which the factor knows more, as derivatives by parameters, come last: its leading
    part is that of the columns that have coefficients.
    """
    p, q = len(coef), len(factor)
    leading = factor[:p, :p]
    first = torch.cat([leading, leading @ coef], 1)
    joint = _with_rows_below(first, lambda X, y: torch.cat([stage.basis.matrix(X), y], 1), rows)
    R = joint[:p, :p]
    coef = torch.linalg.solve_triangular(R, joint[:p, p:], upper=True)
    if q > p:
        R = _with_rows_below(factor, lambda X, y: stage.basis.posterior_columns(X), rows)
    return coef, R


def _with_rows_below(
    factor: Tensor, columns: Callable[[Tensor, Tensor], Tensor], rows: Rows
) -> Tensor:
    """Factor of what a factor (p, q) stands for and further rows of columns (n, q).

    From sums of products where they have digits enough; rows are factored where not.
    """
    q = factor.shape[1]
    blocks = long_blocks(rows.n_rows, q, 2 * q)

    def weighted(block: slice) -> Tensor:
        return columns(rows.X[block], rows.y[block]) * rows.weight[block].sqrt()[:, None]

    gram = factor.T @ factor
    for block in blocks:
        part = weighted(block)
        gram.addmm_(part.T, part)
    found, kept = factor_of_products(gram)
    if bool(kept):
        return found
    for block in blocks:
        factor = triangular_factor(torch.cat([factor, weighted(block)]))
    return factor


def _values(stage: Stage, X: Tensor) -> Tensor:
    """Values (n, m) of a stage."""
    blocks = row_blocks(len(X), rows_within(3 * stage.basis.n_columns))
    return torch.cat([stage.mean(X[block]) for block in blocks])


def _noise(model: LinearModel, searched: Rows, stages: list[Stage], rows: Rows) -> Tensor:
    """Variance (m,) of what all rows leave over, with as many parameters as some rows told."""
    dof = searched.total_weight - _squares(model.stages, searched) / model.noise
    left = (rows.total_weight - dof).clamp_min(LEAST_LEFT * rows.total_weight)
    return _squares(tuple(stages), rows) / left


def _squares(stages: tuple[Stage, ...], rows: Rows) -> Tensor:
    """Weighted sums (m,) of squares of what stages leave over, and of targets about their means."""
    residual = rows.y
    for stage in stages:
        residual = residual - _values(stage, rows.X)
    return rows.weight @ residual.square() + rows.within.sum(0)
