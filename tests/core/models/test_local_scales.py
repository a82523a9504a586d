"""Scales and nugget of a local block by left-out rows."""

import numpy as np
import pytest
import torch

from skpou.core.models import LeftOver, fit_local_kernel
from skpou.core.models.local_scales import NEAREST, _Judges
from tests.examples import tensor


def left_over(n=400, d=3, noise=0.3, seed=0, floor=0.0):
    """Errors that are rough along the first column and hardly change along the others."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    value = np.sign(np.sin(60 * X[:, 0])) + noise * rng.standard_normal(n)
    value, one = tensor(value), torch.ones(n).double()
    return LeftOver(tensor(X), value, value, one, one, floor)


def test_gradient_of_the_density_against_differences():
    rows = left_over(120)
    task = _Judges(rows, np.arange(0, 120, 2))
    first = np.array([1.0, 0.5, -0.3])
    task.look(np.exp(first))
    theta = np.array([1.3, 0.3, -0.2, -1.0, -1.5])
    _, slope = task.value_of(theta, first)
    for k, step in enumerate(1e-5 * np.eye(5)):
        ahead, behind = (task.value_of(theta + sign * step, first)[0] for sign in (1, -1))
        assert slope[k] == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-3)


def test_left_out_errors_are_those_of_kriging_without_the_row():
    rows = left_over(NEAREST + 1)
    task = _Judges(rows, np.arange(5))
    task.look(np.ones(3))
    error, spread = task.left_out(tensor([0.2, 0.1, -0.4, np.log(0.3), 0.0]))
    Z = rows.X.numpy() * np.exp([0.2, 0.1, -0.4])
    K = np.exp(-np.sqrt(np.square(Z[:, None] - Z).sum(2)))
    for row in range(5):
        rest = np.arange(len(Z)) != row
        share = np.linalg.solve(K[rest][:, rest] + 0.3 * np.eye(NEAREST), K[rest, row])
        expected = rows.value[row] - share @ rows.value[rest].numpy()
        assert float(error[row]) == pytest.approx(float(expected), abs=1e-6)
        assert float(spread[row]) == pytest.approx((1 - share @ K[rest, row]) / 0.3, rel=1e-5)


def test_the_rough_column_is_found():
    kernel = fit_local_kernel(left_over(), np.ones(3), np.random.default_rng(0))
    assert kernel.scales[0] > 3 * kernel.scales[1:].max()
    noise = kernel.nugget * kernel.variance
    assert 0.02 < noise < 0.3  # 0.09, and what steps between rows look like.


def test_columns_without_a_slope_are_left_out():
    kernel = fit_local_kernel(left_over(), np.array([1.0, 0.0, 1.0]), np.random.default_rng(0))
    assert kernel.scales[1] == 0
    assert fit_local_kernel(left_over(), np.zeros(3), np.random.default_rng(0)) is None


def test_noise_has_no_kernel():
    rng = np.random.default_rng(0)
    value, one = tensor(rng.standard_normal(400)), torch.ones(400).double()
    rows = LeftOver(tensor(rng.random((400, 3))), value, value, one, one, 0.0)
    assert fit_local_kernel(rows, np.ones(3), rng) is None
    assert fit_local_kernel(left_over(NEAREST), np.ones(3), rng) is None
