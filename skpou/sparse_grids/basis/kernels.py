"""Sums over all functions of a regular grid of products at two points, by few matrix products.

With the constant as first factor and one factor ``p_c`` of each further cost c in a dimension j the
sum is the part, up to the budget, of ``prod_j (1 + sum_c p_jc t^c)``. Its logarithm is a sum over
the dimensions of monomials in the ``p_jc``. A point lies in one cell of each factor, so that each
monomial is a product of a value at one point and one at the other where both are in the same cell
of its finest factor: sums of these over all dimensions are matrix products. The series of the
exponential follows from that of its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from skpou.sparse_grids.basis.evaluation import FactorTable
from skpou.sparse_grids.basis.plans import Factors

#: Largest budget: the monomials, as many as ways to write each cost as a sum, are six up to three,
#: and twice as many with each further two.
MOST_BUDGET = 3


def _powers(cost: int, most: int) -> Iterator[dict[int, int]]:
    """Powers by cost, up to `most`, of every monomial of a total cost."""
    if cost == 0:
        yield {}
        return
    for finest in range(min(cost, most), 0, -1):
        for power in range(1, cost // finest + 1):
            for others in _powers(cost - power * finest, finest - 1):
                yield {finest: power, **others}


def _share(powers: dict[int, int]) -> float:
    """Coefficient of a monomial in the series of the logarithm of one plus a sum."""
    total = sum(powers.values())
    sign = -1.0 if total % 2 == 0 else 1.0
    return sign * math.factorial(total - 1) / math.prod(map(math.factorial, powers.values()))


def _monomials(factors: Factors, X: Tensor) -> list[Tensor]:
    """Columns (n, q) of all monomials of each cost from 1 on, at points X (n, d)."""
    n, d = X.shape
    values, cells = (
        part.view(d, factors.n_factors, n) for part in FactorTable(factors, X).values(X)
    )
    found = []
    for cost in range(1, factors.budget + 1):
        columns = []
        for powers in _powers(cost, cost):
            value = torch.stack([values[:, c] ** power for c, power in powers.items()]).prod(0)
            finest = max(powers)
            column = X.new_zeros((d, 1 << int(factors.shift[finest]), n))
            column.scatter_(1, cells[:, finest, None], value[:, None])
            columns.append(column.flatten(0, 1))
        found.append(torch.cat(columns).T)
    return found


def _shares(factors: Factors, d: int, cost: int, like: Tensor) -> Tensor:
    """Coefficients (q,) of the columns of one cost."""
    shares = [
        like.new_full((d << int(factors.shift[max(powers)]),), _share(powers))
        for powers in _powers(cost, cost)
    ]
    return torch.cat(shares)


def few_costs(factors: Factors) -> bool:
    """Whether a grid's sums are made by `kernel_of_few`."""
    return factors.skips and factors.budget <= MOST_BUDGET


def kernel_of_few(factors: Factors, X: Tensor, Z: Tensor, decay: float) -> Tensor:
    """Sum over all functions of ``phi(x) phi(z) decay^-cost``, (n, k), where budgets are small."""
    logarithm: list[Tensor] = []
    series: list[Tensor] = []
    kernel = X.new_ones((len(X), len(Z)))
    for cost, (left, right) in enumerate(
        zip(_monomials(factors, X), _monomials(factors, Z), strict=True), 1
    ):
        weight = _shares(factors, X.shape[1], cost, X) * decay**-cost
        logarithm.append((left * weight) @ right.T)
        total = logarithm[-1] if cost == 1 else logarithm[-1].clone()
        for k in range(1, cost):
            total.addcmul_(logarithm[k - 1], series[cost - k - 1], value=k / cost)
        series.append(total)
        kernel += total
    return kernel
