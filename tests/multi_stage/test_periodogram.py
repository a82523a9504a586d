"""Dominant frequencies of even and scattered values; white noise has none."""

import numpy as np
import pytest
import torch

from skpou.multi_stage.periodogram import dominant_frequency, frequency_grid
from tests.examples import tensor


def peak_of(X, values):
    return dominant_frequency(tensor(X), tensor(values)[:, None], torch.ones(len(X)).double())


@pytest.mark.parametrize("frequency", [1.0, 7.25, 60.0])
def test_even_points_give_the_fourier_transform(frequency):
    x = np.linspace(0, 1, 300)
    peak = peak_of(x[:, None], np.sin(2 * np.pi * frequency * (2 * x - 1) + 0.3))
    assert abs(float(peak.frequency)) == pytest.approx(frequency, abs=0.26)
    assert peak.share > 0.9
    assert peak.is_signal


@pytest.mark.parametrize("d", [1, 2, 3])
def test_scattered_points(d):
    rng = np.random.default_rng(0)
    X = rng.random((800, d))
    frequency = np.array([1.5, -0.75, 0.5])[:d]
    angle = 2 * np.pi * (2 * X - 1) @ frequency
    peak = peak_of(X, np.cos(angle) + 0.5 * rng.standard_normal(800))
    sign = np.sign(float(peak.frequency[0]))
    np.testing.assert_allclose(sign * peak.frequency.numpy(), frequency, atol=0.26)
    assert peak.is_signal


@pytest.mark.parametrize("d", [1, 2, 4])
def test_white_noise_is_no_signal(d):
    rng = np.random.default_rng(0)
    signals = [peak_of(rng.random((200, d)), rng.standard_normal(200)).is_signal for _ in range(40)]
    assert sum(signals) <= 1


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    X, values, weight = tensor(rng.random((50, 1))), tensor(rng.random((50, 1))), torch.ones(50)
    weight[:20] = 3
    once = dominant_frequency(X, values, weight.double())
    repeated = dominant_frequency(
        X.repeat_interleave(weight.long(), 0),
        values.repeat_interleave(weight.long(), 0),
        torch.ones(90).double(),
    )
    assert once.share == pytest.approx(repeated.share, rel=0.5)


@pytest.mark.parametrize(("n", "d"), [(10, 1), (300, 1), (1000, 2), (5000, 3), (1000, 8)])
def test_grid_has_one_of_each_pair_and_no_zero(n, d):
    grid = frequency_grid(n, d)
    assert grid.shape[1] == d
    assert (grid != 0).any(1).all()
    assert len(grid) <= 20_000


def test_nothing_to_find():
    assert not peak_of(np.random.default_rng(0).random((20, 2)), np.zeros(20)).is_signal
    assert not peak_of(np.zeros((20, 0)), np.ones(20)).is_signal
