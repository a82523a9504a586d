"""Points of low discrepancy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine


def sobol_points(n_features: int, n_points: int, seed: int) -> Tensor:
    """Scrambled Sobol points (n, d) of the unit box, in float64, whatever torch's default dtype.

    The engine rounds its first point to that dtype, which is why it is pinned for the moment.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        engine = SobolEngine(n_features, scramble=True, seed=seed)
    finally:
        torch.set_default_dtype(before)
    return engine.draw(n_points, dtype=torch.float64)
