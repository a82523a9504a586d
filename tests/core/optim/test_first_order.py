"""First-order steps against torch's own."""

import numpy as np
import torch

from skpou.core.optim.first_order import Adam
from tests.examples import tensor


def test_steps_equal_those_of_torch():
    rng = np.random.default_rng(0)
    start = [tensor(rng.standard_normal(shape)) for shape in [(3, 2), (4,)]]
    ours, theirs = ([p.clone() for p in start] for _ in range(2))
    adam, reference = Adam(ours, 0.03), torch.optim.Adam(theirs, lr=0.03)
    for _ in range(50):
        gradients = [
            tensor(rng.standard_normal(p.shape)) * 10.0 ** rng.integers(-6, 6) for p in ours
        ]
        kept = [g.clone() for g in gradients]
        adam.step(gradients)
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = g.clone()
        reference.step()
        for a, b, g, k in zip(ours, theirs, gradients, kept, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)
            assert torch.equal(g, k)
