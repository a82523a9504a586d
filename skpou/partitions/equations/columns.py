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
#: Degrees and numbers of nodes whose tables are kept: more than a solve meets.
TABLES_KEPT = 256
#: Columns of X up to which those of faces are kept for other pieces, since they are small there;
#: faces that are kept, up to some hundred MB of them where degrees are high.
MOST_KEPT, FACES_KEPT = 2, 512
#: Numbers of points whose columns are kept: an end of a piece in the plane, of degree 16, has 40.
#: Such sets of points, of which a slab meets a few for each degree.
FEW, SETS_KEPT = 64, 128


@functools.lru_cache(maxsize=TABLES_KEPT)
def exponents(degree: tuple[int, ...]) -> np.ndarray:
    """Degrees (N, d) of the Legendre factors of a piece's columns.

    All up to those given; in four or more dimensions those of total degree up to the largest.
    """
    if len(degree) >= TOTAL_DEGREE_FROM:
        return total_degree_exponents(len(degree), max(degree))
    grids = np.meshgrid(*[np.arange(p + 1) for p in degree], indexing="ij")
    return np.stack(grids, -1).reshape(-1, len(degree))


@functools.lru_cache(maxsize=TABLES_KEPT)
def gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of Gauss and Legendre on [-1, 1], and their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes, weights / 2


def tensor_nodes(counts: Sequence[int]) -> np.ndarray:
    """Tensor product (n, d) of Gauss nodes on [-1, 1]^d; a count of 0 stands for the middle."""
    lines = [gauss(n)[0] if n else np.zeros(1) for n in counts]
    return np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(counts))


@functools.lru_cache(maxsize=TABLES_KEPT)
def _differentiation(degree: int, order: int) -> np.ndarray:
    """Matrix (p + 1, p + 1): Legendre series of the derivatives of P_0 .. P_p, by columns."""
    k = np.arange(degree + 1)
    once = np.where((k[:, None] < k) & ((k - k[:, None]) % 2 == 1), 2.0 * k[:, None] + 1, 0.0)
    return np.linalg.matrix_power(once, order)


def legendre_values(t: np.ndarray, degree: int) -> np.ndarray:
    """Table (n, p + 1) of P_0 .. P_p at points (n,)."""
    table = np.empty((degree + 1, len(t)))
    table[0] = 1.0
    if degree:
        table[1] = t
    for k in range(1, degree):
        table[k + 1] = ((2 * k + 1) * t * table[k] - k * table[k - 1]) / (k + 1)
    return table.T


class PieceColumns:
    """Values and derivatives of a piece's columns at points of [-1, 1]^d.

    Parameters
    ----------
    points : ndarray of shape (n, d)
    like : Tensor
        Kind and device of the matrices.
    """

    def __init__(self, degree: tuple[int, ...], points: np.ndarray, like: Tensor):
        self.exponents = exponents(degree)
        self.n_columns = len(self.exponents)
        self.like = like
        self.is_product = len(degree) < TOTAL_DEGREE_FROM
        self.top = degree if self.is_product else (max(degree),) * len(degree)
        self.values = [legendre_values(points[:, j], p) for j, p in enumerate(self.top)]
        self._found: dict[tuple[int, ...], Tensor] = {}

    def derivative(self, orders: tuple[int, ...]) -> Tensor:
        """Matrix (n, N) of derivatives of given orders in each direction, on [-1, 1]^d."""
        if orders not in self._found:
            result = np.ones((len(self.values[0]), 1))
            for j, (table, order) in enumerate(zip(self.values, orders, strict=True)):
                if order:
                    table = table @ _differentiation(self.top[j], order)
                if self.is_product:
                    width = result.shape[1] * table.shape[1]
                    result = (result[:, :, None] * table[:, None]).reshape(len(table), width)
                else:
                    result = result * table[:, self.exponents[:, j]]
            like = self.like
            self._found[orders] = torch.as_tensor(result, dtype=like.dtype, device=like.device)
        return self._found[orders]


def columns_at(degree: tuple[int, ...], points: np.ndarray, like: Tensor) -> PieceColumns:
    """The same; those at few points, as the ends of slabs, which are alike, are kept."""
    if points.size > FEW:
        return PieceColumns(degree, points, like)
    return _kept_at(degree, len(points), points.tobytes(), like.dtype, like.device)


@functools.lru_cache(maxsize=SETS_KEPT)
def _kept_at(degree, n: int, points: bytes, dtype, device) -> PieceColumns:
    numbers = np.frombuffer(points).reshape(n, len(degree))
    return PieceColumns(degree, numbers, torch.empty(0, dtype=dtype, device=device))


def face_columns(
    degree: tuple[int, ...], counts: tuple[int, ...], axis: int, ends: np.ndarray, like: Tensor
) -> PieceColumns:
    """A piece's columns at Gauss nodes of what lies on one of its faces.

    Parameters
    ----------
    counts : tuple of int
        Nodes in each direction; that of the axis is not looked at.
    axis : int
        Direction across the face.
    ends : ndarray of shape (2, d)
        Ends in each direction within [-1, 1]^d; along the axis they are the same.
    like : Tensor
        Kind and device of the matrices.
    """
    place = (counts, axis, tuple(ends[0].tolist()), tuple(ends[1].tolist()))
    if len(degree) > MOST_KEPT:
        return PieceColumns(degree, _face_nodes(*place), like)
    return _kept_columns(degree, place, like.dtype, like.device)


@functools.lru_cache(maxsize=FACES_KEPT)
def _kept_columns(degree, place, dtype, device) -> PieceColumns:
    """Faces of equal pieces have equal columns."""
    return PieceColumns(degree, _face_nodes(*place), torch.empty(0, dtype=dtype, device=device))


def _face_nodes(counts, axis: int, start, end) -> np.ndarray:
    nodes = tensor_nodes([0 if i == axis else n for i, n in enumerate(counts)])
    low, high = np.array(start), np.array(end)
    return (low + high) / 2 + (high - low) / 2 * nodes
