"""Searches for a kernel: waves of many periods are not taken for noise, nor noise for waves."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skpou import SparseGridRegressor
from skpou.core import Rows
from skpou.core.models import kernel_average
from skpou.core.models.interpolant_fit import solved
from skpou.core.models.kernel_average import likely_kernels
from skpou.core.models.likely_kernels import (
    GAUSSIAN,
    KINDS,
    MATERN,
    RATIONAL,
    correlation,
    likeliest_kernel,
)
from skpou.core.models.relevance import evident_kernel
from tests.examples import tensor

NEW = np.linspace(0, 1, 301)[:, None]


def rows_of(X, y):
    y = tensor(y)[:, None]
    return Rows(tensor(X), y, tensor(np.ones(len(X))), torch.zeros_like(y))


def beats(x, n_periods):
    return np.sin(2 * np.pi * n_periods * x) * np.cos(8 * x)


def noisy_beats(n, n_periods, noise):
    x = np.sort(np.random.default_rng(0).random(n))
    errors = noise * np.random.default_rng(0).standard_normal(n)
    return x[:, None], beats(x, n_periods) + errors


@pytest.mark.parametrize("kind", KINDS)
def test_falls_of_correlations_are_their_slopes_over_the_step(kind):
    distance, step = np.linspace(0.1, 4, 40), 1e-6
    ahead, behind = (correlation((distance + s) ** 2, kind, np)[0] for s in (step, -step))
    fall = correlation(distance**2, kind, np)[1]
    assert_allclose(fall * distance, (behind - ahead) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("centre", [0.31, 0.5, 0.74])
def test_functions_with_poles_are_neither_as_smooth_as_any_nor_rough(centre, monkeypatch):
    def y(x):
        return 1 / (1 + 60 * (x - centre) ** 2)

    x = np.linspace(0, 1, 24)[:, None]
    rows, medians = rows_of(x, y(x[:, 0])), []
    for kinds in (KINDS, (GAUSSIAN, MATERN)):
        monkeypatch.setattr(kernel_average, "KINDS", kinds)
        kernels = likely_kernels(rows, 0, likeliest_kernel(rows, 0))
        found = solved(rows, [kernels])
        deviation = found.variance(tensor(NEW))[:, 0].sqrt().numpy()
        error = found.mean(tensor(NEW))[:, 0].numpy() - y(NEW[:, 0])
        assert np.mean(np.abs(error) <= 3 * deviation) >= 0.97
        medians.append(np.median(deviation))
        if kinds is KINDS:
            assert sum(share for share, (kind, _, _) in kernels if kind == RATIONAL) > 0.8
    assert medians[0] < 0.8 * medians[1]


@pytest.mark.parametrize(("n", "n_periods", "noise"), [(100, 15, 1e-3), (120, 20, 0.2)])
def test_waves_of_many_periods_are_not_taken_for_noise(n, n_periods, noise):
    rows = rows_of(*noisy_beats(n, n_periods, noise))
    chosen = likeliest_kernel(rows, 0)
    mean = solved(rows, [[(1.0, chosen)]]).mean(tensor(NEW))[:, 0].numpy()
    assert np.sqrt(np.mean((mean - beats(NEW[:, 0], n_periods)) ** 2)) < 1.5 * noise
    kernels = likely_kernels(rows, 0, chosen)
    assert sum(share * np.exp(theta[2]) for share, (_, _, theta) in kernels) < 0.5


def test_the_kernel_beside_a_fit_knows_waves():
    X, y = noisy_beats(60, 11, 0.2)
    found = evident_kernel(rows_of(X, y), None, np.random.default_rng(0), rough=True)
    assert found.rates[0] > 10
    assert found.variances[2] < 0.5 * y.var()


def test_a_process_is_in_place_of_a_form_that_takes_waves_for_noise():
    x = np.linspace(0, 1, 60)[:, None]
    errors = 0.3 * np.random.default_rng(0).standard_normal(60)
    model = SparseGridRegressor().fit(x, np.sin(22 * np.pi * x[:, 0]) + errors)
    error = model.predict(NEW) - np.sin(22 * np.pi * NEW[:, 0])
    assert np.sqrt(np.mean(error**2)) < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_is_no_process(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.random((60, 1)), rng.standard_normal(60)
    assert np.ptp(SparseGridRegressor().fit(X, y).predict(NEW)) < 1
