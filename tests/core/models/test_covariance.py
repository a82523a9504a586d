"""Covariances between points: their parts outside the box, and draws from them."""

import numpy as np
import torch

from skpou.core.models import outside_steps, standard_draws


def test_steps_have_the_distance_from_the_box_and_sides_of_their_own():
    X = torch.tensor([[0.3, 0.9], [1.5, 0.2], [2.0, 1.0], [-0.5, 0.5], [1.3, -0.4]]).double()
    steps = outside_steps(X)
    shared = steps @ steps.T
    distance = (X - X.clamp(0, 1)).square().sum(1)
    torch.testing.assert_close(shared.diagonal(), distance)
    assert not shared[0].any()
    torch.testing.assert_close(shared[1, 2], torch.tensor(0.5).double())
    assert shared[1, 3] == 0  # Two sides of the box say nothing of each other.


def test_draws_have_unit_variance_and_the_correlation():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 3)) * [[1e-9], [1.0], [1e6], [0.0]]
    covariance = torch.as_tensor(root @ root.T)
    normal = torch.as_tensor(rng.standard_normal((4, 40_000)))
    draws = standard_draws(covariance, normal).numpy()
    size = np.sqrt(np.diag(root @ root.T))
    size[3] = 1.0
    expected = root @ root.T / np.outer(size, size)
    expected[3, 3] = 1.0
    np.testing.assert_allclose(np.cov(draws), expected, atol=0.03)
