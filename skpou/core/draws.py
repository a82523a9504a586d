"""Draws: their seeds, generators that do not hang on `random_state`, points of low discrepancy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

#: Seeds are below this: numpy's integers have 31 bits and a sign on some systems.
SEEDS = 2**31
#: Those that are handed to numpy alone: its integers of 64 bits have 63 and a sign.
LONG_SEEDS = 2**63
#: Those of torch, to which numbers of blocks are added without an overflow.
TORCH_SEEDS = 2**62
#: Seed of what is left out to judge a fit, and of rows that stand for all.
JUDGING = 9
#: The default dtype is that of all threads: with two inside one would draw in the user's, and the
#: other's would be left behind.
_PINNED = threading.Lock()


def judging_generator() -> np.random.Generator:
    """A generator for what a fit is judged by: the same for all fits, so that they compare."""
    return np.random.default_rng(JUDGING)


@contextmanager
def torch_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators start with a seed, and afterwards are as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


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
