"""Bases that some of many rows have found, their coefficients told by the others, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from skpou.core import Blocks, Rows, TrainingResult, handing_over
from skpou.core.linalg import (
    COPIES_EVALUATED,
    factor_of_products,
    gather,
    long_blocks,
    row_blocks,
    rows_within,
    sum_of_all,
    triangular_factor,
)
from skpou.core.models import LinearModel, Stage, model_of_stages
from skpou.search.residues import LEAST_LEFT

#: Rows up to which all take part in a search, and how many are drawn of more: what a basis needs
#: shows in ten thousand, while every size that is tried costs as much as there are rows.
MANY_ROWS, SEARCHED = 20_000, 10_000


def fit_to_blocks(found: TrainingResult, seen: Rows, others: Blocks) -> TrainingResult:
    """Add rows in blocks, of all processes, to the coefficients' posterior.

    That of the search is the prior: ``R c`` stands for its targets as R does for its rows
    (recursive least squares). Every stage is fitted to what those before leave over. One that
    keeps rows of its own stays as it is.

    Parameters
    ----------
    found : TrainingResult
        Of the search; its state is a `LinearModel`.
    seen : Rows
        Those of the search, in float64.
    others : callable
        Reads the others, in the same units.
    """
    message = "The coefficients are those of the rows that were searched."
    with handing_over(lambda: replace(found, code="interrupted", message=message)):
        model: LinearModel = found.state
        stages: tuple[Stage, ...] = ()
        for stage in model.stages:
            if not stage.basis.follows_rows:
                stage = _with_more_rows(stage, _left_over(stages, others))
            stages = (*stages, stage)
        noise = _noise(model, stages, seen, others)
        return replace(found, state=model_of_stages(stages, noise, seen.X, seen.weight))


def _left_over(stages: tuple[Stage, ...], blocks: Blocks) -> Blocks:
    """Rows in float64 whose targets are what stages leave over."""

    def read() -> Iterator[Rows]:
        for rows in blocks():
            rows = rows.to(torch.float64)
            y = rows.y
            for stage in stages:
                y = y - _values(stage, rows.X)
            yield replace(rows, y=y)

    return read


def _with_more_rows(stage: Stage, blocks: Blocks) -> Stage:
    """Coefficients and factor by further rows."""
    if stage.factor.ndim == 2:
        coef, factor = _updated(stage, stage.factor, stage.coef, blocks)
        return Stage(stage.basis, coef, factor)

    def of_target(k: int) -> Blocks:
        return lambda: (rows.of_target(k) for rows in blocks())

    pairs = [
        _updated(stage, own, stage.coef[:, k : k + 1], of_target(k))
        for k, own in enumerate(stage.factor)
    ]
    coef = torch.cat([pair[0] for pair in pairs], 1)
    return Stage(stage.basis, coef, torch.stack([pair[1] for pair in pairs]))


def _updated(stage: Stage, factor: Tensor, coef: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """Coefficients (p, m) and factor (q, q) by further rows.

    Columns of which the factor knows more, as derivatives by parameters, come last: its leading
    part is that of the columns that have coefficients.
    """
    p, q = len(coef), len(factor)
    leading = factor[:p, :p]
    first = torch.cat([leading, leading @ coef], 1)
    joint = _with_rows_below(first, lambda X, y: torch.cat([stage.basis.matrix(X), y], 1), blocks)
    R = joint[:p, :p]
    coef = torch.linalg.solve_triangular(R, joint[:p, p:], upper=True)
    if q > p:
        R = _with_rows_below(factor, lambda X, y: stage.basis.posterior_columns(X), blocks)
    return coef, R


def _with_rows_below(
    factor: Tensor, columns: Callable[[Tensor, Tensor], Tensor], blocks: Blocks
) -> Tensor:
    """Factor of what a factor (p, q) stands for and further rows of columns (n, q).

    From sums of products where they have digits enough; rows are factored where not.
    """
    q = factor.shape[1]

    def weighted() -> Iterator[Tensor]:
        for rows in blocks():
            for block in long_blocks(rows.n_rows, q, 2 * q):
                root = rows.weight[block].sqrt()[:, None]
                yield columns(rows.X[block], rows.y[block]) * root

    gram = factor.new_zeros((q, q))
    for part in weighted():
        gram.addmm_(part.T, part)
    found, sound = factor_of_products(factor.T @ factor + sum_of_all(gram))
    if bool(sound):
        return found
    below = factor.new_zeros((q, q))
    for part in weighted():
        below = triangular_factor(torch.cat([below, part]))
    return triangular_factor(torch.cat([factor, *gather(below)]))


def _values(stage: Stage, X: Tensor) -> Tensor:
    """Values (n, m) of a stage."""
    blocks = row_blocks(len(X), rows_within(COPIES_EVALUATED * stage.basis.n_columns))
    return torch.cat([stage.mean(X[block]) for block in blocks])


def _noise(model: LinearModel, stages: tuple[Stage, ...], seen: Rows, others: Blocks) -> Tensor:
    """Variance (m,) of what all rows leave over, with as many parameters as some rows told."""
    dof = seen.total_weight - _squares(model.stages, seen) / model.noise
    total, squares = seen.weight.new_zeros(()), torch.zeros_like(dof)
    for rows in _left_over(stages, others)():
        total, squares = total + rows.weight.sum(), squares + _squares((), rows)
    total = seen.total_weight + sum_of_all(total[None])
    left = torch.maximum(total - dof, LEAST_LEFT * total)
    return (_squares(stages, seen) + sum_of_all(squares)) / left


def _squares(stages: tuple[Stage, ...], rows: Rows) -> Tensor:
    """Weighted sums (m,) of squares of what stages leave over, and of targets about their means."""
    (left,) = _left_over(stages, lambda: iter((rows,)))()
    return left.weight @ left.y.square() + left.within.sum(0)
