"""What random draws begin with: seeds, and generators that do not hang on `random_state`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

#: Seeds are below this: numpy's integers have 31 bits and a sign on some systems.
SEEDS = 2**31
#: Those that are handed to numpy alone: its integers of 64 bits have 63 and a sign.
LONG_SEEDS = 2**63
#: Those of torch, to which numbers of blocks are added without an overflow.
TORCH_SEEDS = 2**62
#: Seed of what is left out to judge a fit, and of rows that stand for all.
JUDGING = 9


def judging_generator() -> np.random.Generator:
    """A generator for what a fit is judged by: the same for all fits, so that they compare."""
    return np.random.default_rng(JUDGING)


@contextmanager
def torch_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators start with a seed, and afterwards are as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
