"""Values and derivatives of polynomials on boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.columns import columns_at


def evaluate(
    boxes: Boxes, coef: list[Tensor], points: np.ndarray, orders: tuple[int, ...]
) -> Tensor:
    """Derivatives (n, m) along unit coordinates of pieces at points of the unit box."""
    chosen = boxes.locate(points)
    if len(chosen) and 0 <= chosen[0] == chosen.min() == chosen.max():
        return _in_piece(boxes, coef, points, orders, int(chosen[0]))
    result = coef[0].new_zeros((len(points), coef[0].shape[1]))
    for e in np.unique(chosen[chosen >= 0]):
        index = np.flatnonzero(chosen == e)
        found = _in_piece(boxes, coef, points[index], orders, e)
        result[torch.as_tensor(index, device=result.device)] = found
    return result


def _in_piece(
    boxes: Boxes, coef: list[Tensor], points: np.ndarray, orders: tuple[int, ...], e: int
) -> Tensor:
    columns = columns_at(boxes.degrees(e), boxes.local(e, points), coef[0])
    scale = float(np.prod((2 / boxes.width[e]) ** np.array(orders)))
    return scale * (columns.derivative(orders) @ coef[e])
