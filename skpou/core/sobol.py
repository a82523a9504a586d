"""Points of low discrepancy."""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

#: The default dtype is that of all threads: with two inside one would draw in the user's, and the
#: other's would be left behind.
_PINNED = threading.Lock()


def sobol_points(n_features: int, n_points: int, seed: int) -> Tensor:
    """Scrambled Sobol points (n, d) of the unit box, in float64, whatever torch's default dtype.

    The engine rounds its first point to that dtype, which is why it is pinned for the moment.
    """
    with _PINNED:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            engine = SobolEngine(n_features, scramble=True, seed=seed)
        finally:
            torch.set_default_dtype(before)
    return engine.draw(n_points, dtype=torch.float64)
