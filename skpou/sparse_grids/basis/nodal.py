"""Sparse grid functions in one to three dimensions through their values on the full grid.

Every function of a grid is linear in each coordinate inside the cells of the finest full grid. Its
values at the nodes follow from the surpluses by one small product a dimension; after that a point
costs an interpolation between 2^d nodes, which torch has as `grid_sample`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from skpou.sparse_grids.basis.evaluation import FactorTable
from skpou.sparse_grids.basis.plans import Factors

#: Most nodes of a full grid, those outside the box included.
MAX_NODES = 4_000_000


def gauss_nodes(n_cells: int, n_nodes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights (n_cells n_nodes,) of Gauss and Legendre on equal parts of [0, 1]."""
    place, weight = np.polynomial.legendre.leggauss(n_nodes)
    nodes = (np.arange(n_cells)[:, None] + (place + 1) / 2) / n_cells
    weights = np.tile(weight / (2 * n_cells), n_cells)
    return torch.as_tensor(nodes.ravel(), device=device), torch.as_tensor(weights, device=device)


def one_dimensional_matrix(factors: Factors, t: Tensor, differentiated: bool = False) -> Tensor:
    """All one-dimensional functions at points t (n,), factor by factor and cell by cell.

    Returns
    -------
    Tensor of shape (n, n_1d)
        The functions, or their derivatives.
    """
    table = FactorTable(factors, t)
    values, cells = table.values(t[:, None])
    if differentiated:
        values = table.slopes(t[:, None])[0]
    count = torch.as_tensor(2**factors.shift, device=t.device)
    start = count.cumsum(0) - count
    matrix = t.new_zeros((int(count.sum()), len(t)))
    return matrix.scatter_(0, cells + start[:, None], values).T


def mesh(factors: Factors) -> int:
    """Cells a side of the full grid on which every function is one polynomial."""
    return 2 ** int(factors.level.max())


def nodes_needed(factors: Factors, n_features: int) -> int:
    """Nodes of the full grid with one more layer around the box."""
    return (mesh(factors) + 3) ** n_features


class NodalInterpolant:
    """Sparse grid functions on a full grid with one layer of nodes outside the box.

    The outer layer holds what the functions go on to, so that faces need no special case.

    Parameters
    ----------
    functions : ndarray of shape (G, d)
        Number of the one-dimensional function in every coordinate of the grid's functions.
    coef : Tensor of shape (G, m)
        Coefficients; gradients pass.
    """

    def __init__(self, factors: Factors, functions: np.ndarray, coef: Tensor):
        n_features, n_outputs = functions.shape[1], coef.shape[1]
        self.n_cells = mesh(factors)
        nodes = torch.arange(-1, self.n_cells + 2, dtype=coef.dtype, device=coef.device)
        E = one_dimensional_matrix(factors, nodes / self.n_cells)
        sizes = (E.shape[1],) * n_features
        flat = torch.as_tensor(np.ravel_multi_index(functions.T, sizes), device=coef.device)
        full = coef.new_zeros((n_outputs, int(np.prod(sizes)))).index_copy(1, flat, coef.T)
        values = full.view(n_outputs, *sizes)
        for axis in range(n_features):
            values = torch.movedim(torch.tensordot(values, E, dims=([axis + 1], [1])), -1, axis + 1)
        self.values = values

    def holds(self, X: Tensor) -> Tensor:
        """Whether points lie inside the outer layer, (n,) bool."""
        return ((X >= -0.5 / self.n_cells) & (X <= 1 + 0.5 / self.n_cells)).all(1)

    def interpolate(self, X: Tensor) -> Tensor:
        """Values (n, m) at points X (n, d) inside the outer layer."""
        values, d = self.values, X.shape[1]
        # grid_sample counts from -1 to 1, last axis first.
        place = ((2 * self.n_cells) * X + 2) / (self.n_cells + 2) - 1
        place = place.flip(1)
        if d == 1:
            values, place = values.unsqueeze(1), functional.pad(place, (0, 1))
        grid = place.view(1, len(X), *([1] * max(d - 1, 1)), max(d, 2))
        sampled = functional.grid_sample(
            values[None], grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return sampled.view(values.shape[0], len(X)).T
