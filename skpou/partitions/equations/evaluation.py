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
    result = coef[0].new_zeros((len(points), coef[0].shape[1]))
    for e in np.unique(chosen):
        if e < 0:
            continue
        index = np.flatnonzero(chosen == e)
        local = boxes.local(e, points[index])
        columns = columns_at(boxes.degrees(e), local, coef[0])
        scale = float(np.prod((2 / boxes.width[e]) ** np.array(orders)))
        result[torch.as_tensor(index, device=result.device)] = scale * (
            columns.derivative(orders) @ coef[e]
        )
    return result
