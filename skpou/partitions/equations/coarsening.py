"""Fewer pieces where what a solution holds needs no more."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import exponents, gauss, legendre_values
from skpou.partitions.equations.refinement import DEGREES, FIRST_DEGREE, copied, sizes_by_degree
from skpou.partitions.equations.system import Coefficients

#: Tail in units of the one that is small enough, for pieces not to be cut again at once.
ENOUGH = 0.1


def coarser(
    boxes: Boxes, coef: Coefficients, columns: list[int], size: np.ndarray, tol: float
) -> Boxes:
    """Halves joined and degrees lowered where the tail stays small.

    Parameters
    ----------
    coef : list of Tensor of shape (N, m)
    columns : list of int
        Those along which halves are joined.
    size : ndarray of shape (m,)
        Of the solution.
    tol : float
        Tail that is small enough, relative to it.
    """
    low = [boxes.low[e] for e in range(boxes.n_boxes)]
    high = [boxes.high[e] for e in range(boxes.n_boxes)]
    degrees = [boxes.degrees(e) for e in range(boxes.n_boxes)]
    parts = list(coef)
    for j in columns:
        position = {tuple(a): e for e, a in enumerate(low)}
        gone: set[int] = set()
        for e in range(len(low)):
            width = high[e][j] - low[e][j]
            second = low[e].copy()
            second[j] = high[e][j]
            f = position.get(tuple(second))
            if e in gone or f is None or f in gone or (low[e][j] / (2 * width)) % 1.0:
                continue
            if not np.array_equal(high[f] - second, high[e] - low[e]):
                continue
            degree, merged = joined(j, degrees[e], parts[e], degrees[f], parts[f])
            A = (sizes_by_degree(degree, merged, j) / size).max(1)
            if np.hypot(A[-1], A[-2]) <= ENOUGH * tol:
                high[e], degrees[e], parts[e] = high[f], degree, merged
                gone.add(f)
        kept = [e for e in range(len(low)) if e not in gone]
        low, high = [low[e] for e in kept], [high[e] for e in kept]
        degrees, parts = [degrees[e] for e in kept], [parts[e] for e in kept]
    lowered = [
        _lowered(degree, part, columns, size, tol)
        for degree, part in zip(degrees, parts, strict=True)
    ]
    return Boxes(np.array(low), np.array(high), np.array(lowered))


def _lowered(
    degree: tuple[int, ...], coef: Tensor, columns: list[int], size: np.ndarray, tol: float
) -> tuple[int, ...]:
    """Lowest degrees of a piece that hold what it holds."""
    found = list(degree)
    for j in columns:
        A = (sizes_by_degree(degree, coef, j) / size).max(1)
        for p in DEGREES:
            tail = np.sqrt((A[p - 1 :] ** 2).sum())
            if FIRST_DEGREE <= p < degree[j] and tail < ENOUGH * tol:
                found[j] = p
                break
    return tuple(found)


def joined(
    j: int, first: tuple[int, ...], a: Tensor, second: tuple[int, ...], b: Tensor
) -> tuple[tuple[int, ...], Tensor]:
    """Degree and coefficients of two halves along a column as one piece."""
    degree = tuple(max(p, q) for p, q in zip(first, second, strict=True))
    index = exponents(degree)
    # Total degrees fill a corner of the cube of all products.
    shape = [int(p) + 1 for p in index.max(0)]
    place = tuple(torch.as_tensor(column, device=a.device) for column in index.T)
    top = shape[j] - 1
    nodes, weights = gauss(top + 2)
    own = legendre_values(nodes, top)
    whole = a.new_zeros((*shape, a.shape[1]))
    # The half as a function of the whole: each of its columns on half of the nodes.
    for old, coef, side in ((first, a, -1.0), (second, b, 1.0)):
        values = legendre_values((nodes + side) / 2, top)
        # c_k = (2 k + 1) / 2 * mean over the half
        T = (2 * np.arange(top + 1) + 1)[:, None] * ((values.T * (weights / 2)) @ own)
        cube = torch.zeros_like(whole)
        cube[place] = copied(old, coef, degree)
        T = torch.as_tensor(T, device=a.device)
        whole += torch.tensordot(T, cube, dims=([1], [j])).movedim(0, j)
    return degree, whole[place]
