"""Rows of pairs of pieces that meet at an edge which moves along the marched column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.boxes import NO_WIDTH
from skpou.partitions.equations.columns import PieceColumns, gauss
from skpou.partitions.equations.edges import Edges

#: Distance of edges below which they are the same.
SAME_EDGE = 1e-13


def is_wide(edges: Edges, e: int) -> bool:
    """Whether a piece has a width where its slab begins."""
    lower, upper = edges.ends(e, np.array([-1.0]))
    return bool(upper[0] - lower[0] > NO_WIDTH)


def meeting(edges: Edges, ring: bool) -> list[tuple[int, int, float]]:
    """Pieces below and above every edge, and what x is on the upper side less on the lower one."""
    found = []
    for a, upper in enumerate(edges.series[:, 1]):
        for b, lower in enumerate(edges.series[:, 0]):
            if a != b and np.abs(upper - lower).max() <= SAME_EDGE:
                found.append((a, b, 0.0))
            around = lower.copy()
            around[0] += 1.0
            # Only the whole end of the box is glued to the other one.
            if ring and np.abs(upper - around).max() <= SAME_EDGE and not lower[1:].any():
                found.append((a, b, -1.0))
    return found


def rows_of_jump(
    system: Any, pieces: tuple[int, int], columns: tuple[PieceColumns, PieceColumns],
    output: int, axis: int, order: int,
) -> Tensor:  # fmt: skip
    """Rows (n, p + q) of the jump of a derivative across `axis` between two pieces.

    Slopes are taken times the smaller width: changes of the value, whatever the sizes are.
    """
    orders = tuple(order if i == axis else 0 for i in range(system.d))
    widths = system.boxes.width[list(pieces), axis]
    first, second = (
        c.derivative(orders) * (widths.min() / width) ** order
        for c, width in zip(columns, widths, strict=True)
    )
    a, b = (system.sizes[piece] for piece in pieces)
    rows = system.like.new_zeros((len(first), a + b))
    p, q = first.shape[1], second.shape[1]
    rows[:, output * p : (output + 1) * p] = first
    rows[:, a + output * q : a + (output + 1) * q] = -second
    return rows


def edge_rows(system: Any, edges: Edges, weight: float) -> list[tuple[int, int, Tensor]]:
    """Rows of equal values at edges, and of equal slopes where these may not jump.

    Parameters
    ----------
    edges : Edges
        Of its pieces.

    Returns
    -------
    list of (int, int, Tensor)
        Pieces below and above an edge, and rows of both.
    """
    boxes = system.boxes
    j, d = edges.other, system.d
    found = []
    for a, b, shift in meeting(edges, j in system.rings):
        # Along an oblique edge degrees add up.
        time = gauss(int(max(boxes.degree[a].sum(), boxes.degree[b].sum())) + 2)[0]
        nodes = np.zeros((len(time), d))
        nodes[:, edges.column], nodes[:, j] = time, 1.0
        points = boxes.points(a, nodes)
        A = PieceColumns(boxes.degrees(a), boxes.local(a, points), system.like)
        points[:, j] += shift
        B = PieceColumns(boxes.degrees(b), boxes.local(b, points), system.like)
        blocks = [
            rows_of_jump(system, (a, b), (A, B), output, j, order)
            for output, n_orders in enumerate(system.orders[:, j].astype(int))
            for order in range(min(n_orders, 1) if edges.kinked[a] else n_orders)
        ]
        if blocks:
            found.append((a, b, weight / math.sqrt(len(time)) * torch.cat(blocks)))
    return found
