"""Weights of densities: at the optimum no other weights make the rows likelier."""

import numpy as np
import torch

from skpou.auto.stacking import STEP, pooled, stacking_weights, without_small


def densities(n=200, k=4, seed=0):
    """Log densities (n, K) of rows, and how often each counts."""
    rng = np.random.default_rng(seed)
    logs = torch.as_tensor(rng.normal(0, 2, (n, k)) + np.linspace(-1, 1, k))
    return logs, torch.as_tensor(rng.integers(1, 4, n).astype(float))


def test_no_direction_rises_at_the_optimum():
    """The conditions of Karush, Kuhn and Tucker of the concave objective on the simplex."""
    logs, weight = densities()
    for rows in (0.0, 3.0):
        prior = torch.full((4,), rows, dtype=torch.float64)
        pi = stacking_weights(logs, weight, prior)
        torch.testing.assert_close(pi.sum(), torch.tensor(1.0, dtype=torch.float64))
        slope = weight @ (logs - pooled(logs, pi)[:, None]).exp() + prior / pi
        total = float(weight.sum() + prior.sum())
        assert float(slope.max()) < 1.001 * total
        np.testing.assert_allclose(slope[pi > 1e-3], total, rtol=1e-3)


def test_weights_are_repetitions():
    logs, weight = densities(50)
    prior = torch.zeros(4, dtype=torch.float64)
    repeated = logs.repeat_interleave(weight.long(), 0)
    ones = torch.ones(len(repeated), dtype=torch.float64)
    torch.testing.assert_close(
        stacking_weights(logs, weight, prior), stacking_weights(repeated, ones, prior)
    )


def test_a_density_that_is_nowhere_larger_gets_nothing():
    logs, weight = densities(k=2)
    logs[:, 1] = logs[:, 0] - 1
    pi = stacking_weights(logs, weight, torch.zeros(2, dtype=torch.float64))
    assert float(pi[0]) > 1 - 1e-6


def test_equal_densities_share():
    logs, weight = densities(k=1)
    pi = stacking_weights(logs.repeat(1, 3), weight, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(pi, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_small_weights_go_and_the_others_are_weighed_anew():
    logs, weight = densities()
    prior = torch.zeros(4, dtype=torch.float64)
    for least, most in ((0.3, 4), (0.0, 2), (0.0, 1)):
        pi = without_small(logs, weight, prior, least, most)
        kept = torch.nonzero(pi > 0)[:, 0]
        assert 1 <= len(kept) <= most
        assert float(pi[kept].min()) >= least - STEP
        assert float(pi.sum()) == 1.0
        alone = stacking_weights(logs[:, kept], weight, prior[kept])
        np.testing.assert_allclose(pi[kept], alone, atol=2 * STEP)
    best = int((weight @ logs).argmax())
    assert float(without_small(logs[:, [best, 0]], weight, prior[:2], 0.6, 2).max()) == 1.0


def test_round_off_of_densities_does_not_show():
    logs, weight = densities()
    noise = 1e-13 * torch.as_tensor(np.random.default_rng(1).standard_normal(logs.shape))
    prior = torch.full((4,), 2.0, dtype=torch.float64)
    first, second = (without_small(x, weight, prior, 0.05, 3) for x in (logs, logs + noise))
    assert torch.equal(first, second)
