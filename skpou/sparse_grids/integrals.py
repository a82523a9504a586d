"""Integrals of sparse grid functions: products of one-dimensional ones, added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.sparse_grids.basis.evaluation import FactorTable
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.basis.nodal import gauss_nodes

#: Nodes of Gauss and Legendre on each half of a function's support: exact for the functions, and
#: to round-off for them times a density that is smooth there.
N_NODES = 8
#: Parts of the box, at least, on which a density is smooth.
N_PARTS = 1024

Density = Callable[[np.ndarray], np.ndarray]


def weighted_integrals(grid: SparseGrid, density: Density | None) -> tuple[np.ndarray, float]:
    """Integrals over [0, 1] of all one-dimensional functions times a density.

    Parameters
    ----------
    density : callable or None
        Maps places (k,) in [0, 1] to values (k,) of at least 0; None: 1.

    Returns
    -------
    integrals : ndarray of shape (n_1d,)
        Factor by factor and cell by cell.
    total : float
        Integral of the density.
    """
    factors, parts = grid.factors, []
    cpu = torch.device("cpu")
    total = 1.0
    for i in range(factors.n_factors):
        one = slice(i, i + 1)
        single = replace(
            factors,
            kind=factors.kind[one],
            level=factors.level[one],
            cost=factors.cost[one],
            shift=factors.shift[one],
        )
        n_cells = 1 << int(factors.shift[i])
        n_parts = 2 * n_cells if density is None else max(2 * n_cells, N_PARTS)
        t, weight = gauss_nodes(n_parts, N_NODES, cpu)
        values = FactorTable(single, t).values(t[:, None])[0][0] * weight
        if density is not None:
            rho = np.broadcast_to(np.asarray(density(t.numpy()), dtype=float), t.shape)
            if not np.isfinite(rho).all() or (rho < 0).any():
                raise ValueError(f"density must be finite and at least 0. Got {rho.min()!r}.")
            values = values * torch.as_tensor(rho.copy(), device="cpu")
            total = float(weight.numpy() @ rho)
        parts.append(values.view(n_cells, -1).sum(1).numpy())
    return np.concatenate(parts), total


def integrate(
    grid: SparseGrid, coef: Tensor, density: Any, scaling: dict, n_features: int
) -> tuple[np.ndarray, float]:
    """Means of functions on a grid in the box of the data, and what they are multiplied by.

    Parameters
    ----------
    grid : SparseGrid
        The grid.
    coef : Tensor of shape (G, m)
        Coefficients of all its functions.
    density, scaling, n_features
        See `densities_of`.

    Returns
    -------
    means : ndarray of shape (m,)
    volume : float
        Volume of the box where `density` is None, else 1.

    Raises
    ------
    ValueError
        If a density is negative or zero throughout, besides those of `densities_of`.
    """
    product = np.ones(grid.n_columns)
    functions = grid.functions()
    for feature, one in enumerate(densities_of(density, scaling, n_features)):
        integrals, total = weighted_integrals(grid, one)
        if not total > 0:
            column = int(scaling["columns"][feature])
            raise ValueError(f"density[{column}] is zero in all of the box of the data.")
        product *= integrals[functions[:, feature]] / total
    volume = float(np.prod(scaling["width"])) if density is None else 1.0
    return product @ coef.double().cpu().numpy(), volume


def densities_of(density: Any, scaling: dict, n_features: int) -> list[Density | None]:
    """Densities on the unit box from what `integrate` is given, for columns that vary.

    Parameters
    ----------
    density : None, "uniform" or sequence
        One entry a column: None, a callable, or an object with the method `pdf`.
    scaling : dict of ndarray
        Box of the data.

    Raises
    ------
    ValueError
        If there are not as many as columns.
    TypeError
        If one of them is no density.
    """
    columns = np.asarray(scaling["columns"])
    if density is None or (isinstance(density, str) and density == "uniform"):
        return [None] * len(columns)
    if isinstance(density, str) or not isinstance(density, Sequence | np.ndarray):
        raise ValueError(
            f"density must be None, 'uniform' or a sequence of one a column. Got {density!r}."
        )
    if len(density) != n_features:
        raise ValueError(f"density must have {n_features} entries, one a column. Got {density!r}.")
    for entry in density:
        if not (entry is None or callable(entry) or hasattr(entry, "pdf")):
            raise TypeError(
                f"density must hold None, functions or distributions with pdf. Got {entry!r}."
            )
    places = zip(columns.tolist(), scaling["offset"], scaling["width"], strict=True)
    return [_on_unit_box(density[j], float(low), float(width)) for j, low, width in places]


def _on_unit_box(entry: Any, low: float, width: float) -> Density | None:
    """A density of a column as one of the place in the box."""
    if entry is None:
        return None
    function = getattr(entry, "pdf", entry)
    return lambda t: width * np.asarray(function(low + width * t))
