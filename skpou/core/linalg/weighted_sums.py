"""The same rows under each of many weights: their triangular factors, summed block by block.

Sums of products of columns are matrix products of full speed, but their factors keep half of the
digits. Where these do not suffice rows are factored, which costs many times as much.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.core.linalg.processes import count, gather, sum_of_all
from skpou.core.linalg.statistics import (
    row_blocks,
    rows_within,
    triangular_factor,
    weighted_factors,
)

#: Least part of a column's square that earlier columns do not explain, in units of round-off: ten
#: digits of a coefficient are as many as noise leaves, and what is fitted better is factored.
LEAST_PART = 1e10
#: Numbers of products that are held at a time: they should stay in a core's cache.
PRODUCTS = 500_000


class WeightedSums:
    """Sums over rows ``A`` (n, p) that give ``R_s' R_s = A' W_s A`` for each of S weights.

    Parameters
    ----------
    exact : Tensor of shape (S,), bool
        Whether rows are factored for this weight; otherwise products are summed.
    like : Tensor
        Of the dtype and on the device of the rows.

    Attributes
    ----------
    products : Tensor of shape (S', p (p + 1) / 2)
        Sums of products of two columns, in the order of ``triu_indices``, for the weights whose
        rows are not factored.
    """

    def __init__(self, n_columns: int, exact: Tensor, like: Tensor):
        self.n_columns, self.exact = n_columns, exact
        self._first, self._second = torch.triu_indices(n_columns, n_columns, device=like.device)
        n_exact = int(exact.sum())
        # Weights before products: what is added to is short in the direction that is blocked,
        # which a matrix product runs through at up to twice the speed.
        self.products = like.new_zeros((len(exact) - n_exact, len(self._first)))
        self._factors = like.new_zeros((n_exact, n_columns, n_columns))

    def add(self, rows: Tensor, weight: Tensor) -> None:
        """Add rows (n, p) with weights (n, S)."""
        if not len(self._factors):
            self._add_products(rows, weight)
        elif len(self.products):
            self._add_products(rows, weight[:, ~self.exact])
        if len(self._factors):
            own = weighted_factors(rows, weight[:, self.exact])
            self._factors = triangular_factor(torch.cat([self._factors, own], 1))

    def _add_products(self, rows: Tensor, weight: Tensor) -> None:
        p, transposed = self.n_columns, rows.T.contiguous()
        size = min(rows_within(len(self._first), PRODUCTS), len(rows))
        held = rows.new_empty((len(self._first), size))
        for block in row_blocks(len(rows), size):
            part = transposed[:, block]
            products, start = held[:, : part.shape[1]], 0
            for column in range(p):
                stop = start + p - column
                torch.mul(part[column], part[column:], out=products[start:stop])
                start = stop
            self.products.addmm_(weight[block].T, products.T)

    def of_all_processes(self) -> None:
        """Add what the other processes of a group have, the same bits on each."""
        if count() == 1:
            return
        self.products = sum_of_all(self.products)
        factors, *others = gather(self._factors)
        for other in others:
            factors = triangular_factor(torch.cat([factors, other], 1))
        self._factors = factors

    def factors(self) -> tuple[Tensor, Tensor]:
        """Upper factors (S, p, p), and the weights (S,) for which sums of products do not suffice.

        Their factors are of no use.
        """
        p = self.n_columns
        result = self.products.new_zeros((len(self.exact), p, p))
        lost = torch.zeros_like(self.exact)
        result[self.exact] = self._factors
        result[~self.exact], lost[~self.exact] = self._of_products()
        return result, lost

    def _of_products(self) -> tuple[Tensor, Tensor]:
        gram = self.products.new_zeros((len(self.products), self.n_columns, self.n_columns))
        gram[:, self._first, self._second] = self.products
        gram[:, self._second, self._first] = self.products
        factor, sound = factor_of_products(gram)
        return factor, ~sound


def factor_of_products(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Triangular factor of sums of products, and whether it has digits enough.

    Parameters
    ----------
    gram : Tensor of shape (.., p, p)
        Sums ``A' W A``.

    Returns
    -------
    factor : Tensor of shape (.., p, p)
        Upper triangular.
    sound : Tensor of shape (..), bool
        Whether its digits are right; if not it is of no use.
    """
    norm = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    size = torch.where(norm > 0, norm, 1.0)
    unit = gram / (size[..., :, None] * size[..., None, :])
    factor, _ = torch.linalg.cholesky_ex(unit, upper=True)
    pivot = factor.diagonal(dim1=-2, dim2=-1)
    # Of column norm one: the square of a pivot is what earlier columns do not explain.
    least = LEAST_PART * torch.finfo(gram.dtype).eps
    sound = (pivot.square() >= least).all(-1) & factor.isfinite().all(-1).all(-1)
    return factor.triu() * size[..., None, :], sound
