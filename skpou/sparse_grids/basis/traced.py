"""Sparse grid functions by tensor operations alone, for `torch.export` and `torch.compile`.

Nothing here looks at values: a graph that is traced holds for all points and any number of them,
and needs nothing of this package to run. Every level vector costs as much memory as every other
point, where `evaluation.py` works in blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.sparse_grids.basis.plans import CONSTANT, LEFT, MODIFIED, RIGHT, Factors, Plan

#: Kind and binary logarithm of the number of functions of every factor.
FactorKinds = tuple[tuple[int, int], ...]


def factor_kinds(factors: Factors) -> FactorKinds:
    """Factors of one dimension as plain numbers, which a trace takes for constants."""
    return tuple(zip(factors.kind.tolist(), factors.shift.tolist(), strict=True))


def tracing_arrays(plan: Plan, factors: Factors) -> dict[str, np.ndarray]:
    """Arrays by which `evaluate_traced` finds the function of every level vector.

    Returns
    -------
    dict of ndarray of int64
        ``"vectors"`` (M, d): factors; ``"strides"`` (M, d): what a cell of each dimension counts
        in the number of a function; ``"first"`` (M,): the first number.
    """
    shift = factors.shift[plan.vectors].astype(np.int64).reshape(plan.vectors.shape)
    later = shift[:, ::-1].cumsum(1)[:, ::-1] - shift
    return {
        "vectors": plan.vectors.astype(np.int64),
        "strides": np.int64(1) << later,
        "first": plan.first_function[:-1].astype(np.int64),
    }


def evaluate_traced(
    X: Tensor, coef: Tensor, kinds: FactorKinds, vectors: Tensor, strides: Tensor, first: Tensor
) -> Tensor:
    """Values (n, m) as of `SparseGrid.evaluate`; those of points that are not finite are not.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Points.
    coef : Tensor of shape (G, m)
        Coefficients.
    kinds : tuple of (int, int)
        From `factor_kinds`.
    vectors, strides, first : Tensor of int64
        From `tracing_arrays`.
    """
    values, cells = zip(*(_factor(X, kind, shift) for kind, shift in kinds), strict=True)
    value, cell = torch.stack(values, 2), torch.stack(cells, 2)  # (n, d, S)
    product, number = torch.ones_like(X[:, :1]), first
    for feature in range(X.shape[1]):
        factor = vectors[:, feature]
        product = product * value[:, feature].index_select(1, factor)
        number = number + cell[:, feature].index_select(1, factor) * strides[:, feature]
    return (product[:, :, None] * coef[number]).sum(1)


def _factor(X: Tensor, kind: int, shift: int) -> tuple[Tensor, Tensor]:
    """Values and cells (n, d) of one factor along every coordinate."""
    none = torch.zeros_like(X, dtype=torch.int64)
    if kind == CONSTANT:
        return torch.ones_like(X), none
    if kind in (LEFT, RIGHT):
        return 1 - X if kind == LEFT else X, none
    last = 2.0**shift - 1
    z = X * 2.0**shift
    # What is no number has a cell, too; its place in it is no number.
    cell = z.detach().floor().nan_to_num(0.0, last, 0.0).clamp(0.0, last)
    place = z - cell
    value = torch.where(place < 0.5, 2 * place, 2 - 2 * place)
    if kind == MODIFIED:
        sided = torch.where(cell == last, 2 * place, value)
        value = torch.where(cell == 0, 2 - 2 * place, sided)
    return value, cell.to(torch.int64)
