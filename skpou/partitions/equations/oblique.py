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
        h = min(boxes.width[a, j], boxes.width[b, j])
        blocks = []
        for output in range(system.m):
            n_orders = int(system.orders[output, j])
            for order in range(min(n_orders, 1) if edges.kinked[a] else n_orders):
                along = tuple(order if i == j else 0 for i in range(d))
                block = system.like.new_zeros((len(time), system.sizes[a] + system.sizes[b]))
                p, q = A.n_columns, B.n_columns
                first = A.derivative(along) * (h / boxes.width[a, j]) ** order
                second = B.derivative(along) * (h / boxes.width[b, j]) ** order
                block[:, output * p : (output + 1) * p] = first
                start = system.sizes[a] + output * q
                block[:, start : start + q] = -second
                blocks.append(block)
        if blocks:
            found.append((a, b, weight / math.sqrt(len(time)) * torch.cat(blocks)))
    return found
