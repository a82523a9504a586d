"""Products of Legendre polynomials on boxes, with derivatives of every order."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skpou.core import total_degree_exponents

#: Columns of X from which on polynomials are of total degree: products would be too many.
TOTAL_DEGREE_FROM = 4


@functools.lru_cache(maxsize=256)
def exponents(degree: tuple[int, ...]) -> np.ndarray:
    """Degrees (N, d) of the Legendre factors of a piece's columns.

    All up to those given; in four or more dimensions those of total degree up to the largest.
    """
    if len(degree) >= TOTAL_DEGREE_FROM:
        return total_degree_exponents(len(degree), max(degree))
    grids = np.meshgrid(*[np.arange(p + 1) for p in degree], indexing="ij")
    return np.stack(grids, -1).reshape(-1, len(degree))


@functools.lru_cache(maxsize=256)
def gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of Gauss and Legendre on [-1, 1], and their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes, weights / 2


def tensor_nodes(counts: Sequence[int]) -> np.ndarray:
    """Tensor product (n, d) of Gauss nodes on [-1, 1]^d; a count of 0 stands for the middle."""
    lines = [gauss(n)[0] if n else np.zeros(1) for n in counts]
    return np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(counts))


def legendre_derivatives(t: Tensor, degree: int, order: int) -> list[Tensor]:
    """Tables (n, degree + 1) of P_0 .. P_degree and of their derivatives up to an order."""
    values = [torch.ones_like(t), t]
    for k in range(1, degree):
        values.append(((2 * k + 1) * t * values[k] - k * values[k - 1]) / (k + 1))
    tables = [values[: degree + 1]]
    for _ in range(order):
        last = tables[-1]
        slopes = [torch.zeros_like(t), last[0]]
        for k in range(1, degree):
            slopes.append(slopes[k - 1] + (2 * k + 1) * last[k])
        tables.append(slopes[: degree + 1])
    return [torch.stack(table, 1) for table in tables]


class PieceColumns:
    """Values and derivatives of a piece's columns at points of [-1, 1]^d.

    Parameters
    ----------
    degree : tuple of int
        Degree in each direction.
    points : Tensor of shape (n, d)
    order : int
        Highest order of derivatives in one direction.
    """

    def __init__(self, degree: tuple[int, ...], points: Tensor, order: int):
        self.exponents = exponents(degree)
        self.n_columns = len(self.exponents)
        self.tables = [
            legendre_derivatives(points[:, j], degree[j] if len(degree) < TOTAL_DEGREE_FROM
                                 else max(degree), order)
            for j in range(points.shape[1])
        ]  # fmt: skip
        self.index = torch.as_tensor(self.exponents, device=points.device)
        self._found: dict[tuple[int, ...], Tensor] = {}

    def derivative(self, orders: tuple[int, ...]) -> Tensor:
        """Matrix (n, N) of derivatives of given orders in each direction, on [-1, 1]^d."""
        if orders not in self._found:
            result = self.tables[0][orders[0]][:, self.index[:, 0]]
            for j in range(1, len(self.tables)):
                result = result * self.tables[j][orders[j]][:, self.index[:, j]]
            self._found[orders] = result
        return self._found[orders]
