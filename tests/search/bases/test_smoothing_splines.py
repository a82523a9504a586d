"""Smoothing splines against scipy, dense hat matrices, and fits without a row."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, make_smoothing_spline

from skpou.search.bases.smoothing_splines import smoothing_splines

PENALTIES = np.array([0.0, 1e-7, 1e-4, 1.0])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(40))
    y = np.sin(9 * x)[:, None] * [1, 3] + 0.1 * rng.standard_normal((40, 2))
    return x, y, rng.integers(1, 4, 40).astype(float)


def test_against_scipy(data):
    x, y, weight = data
    ours = smoothing_splines(x, y, weight, PENALTIES)
    for index, penalty in enumerate(PENALTIES[1:], 1):
        for output in range(2):
            reference = make_smoothing_spline(x, y[:, output], weight, lam=penalty)
            np.testing.assert_allclose(ours.values[index][:, output], reference(x), atol=1e-9)
    natural = CubicSpline(x, y, bc_type="natural")
    np.testing.assert_array_equal(ours.values[0], y)
    scale = np.abs(ours.bends[0]).max()
    np.testing.assert_allclose(ours.bends[0] / scale, natural(x, 2) / scale, atol=1e-10)


def test_leverage_is_the_derivative_of_a_value_by_its_target(data):
    x, y, weight = data
    ours = smoothing_splines(x, y, weight, PENALTIES)
    for row in (0, 1, 17, 39):
        moved = y.copy()
        moved[row] += 1.0
        change = smoothing_splines(x, moved, weight, PENALTIES).values - ours.values
        np.testing.assert_allclose(change[:, row, 0], ours.leverage[:, row], atol=1e-9)


def test_left_out_errors_are_those_of_fits_without_the_row(data):
    x, y, weight = data
    ours = smoothing_splines(x, y, weight, PENALTIES)
    for row in (3, 17, 30):
        kept = np.arange(40) != row
        fit = smoothing_splines(x[kept], y[kept], weight[kept], PENALTIES)
        for index in range(len(PENALTIES)):
            without = CubicSpline(x[kept], fit.values[index], bc_type="natural")
            np.testing.assert_allclose(
                y[row] - without(x[row]), ours.left_out[index, row], rtol=1e-5, atol=1e-9
            )


@pytest.mark.parametrize("n", [3, 4, 5])
def test_few_knots(n):
    x, y = np.linspace(0, 1, n), np.arange(n, dtype=float)[:, None]
    ours = smoothing_splines(x, y, np.ones(n), PENALTIES)
    np.testing.assert_allclose(ours.values, np.broadcast_to(y, ours.values.shape), atol=1e-12)
