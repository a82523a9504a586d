"""CubicSplines against the formula, scipy's splines, and Hermite's conditions."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from skpou.search.bases.cubic_splines import CubicSplines
from tests.contracts import BasisContract

KNOTS = torch.tensor([0.05, 0.21, 0.4, 0.44, 0.78, 0.93], dtype=torch.float64)


class TestCubicSplines(BasisContract):
    def make_basis(self):
        return CubicSplines(KNOTS, torch.ones(6, dtype=torch.float64))

    def naive(self, basis, x):
        import mpmath

        knots = [mpmath.mpf(float(k)) for k in KNOTS]
        count = len(knots)
        result = [mpmath.mpf(0)] * (2 * count)
        inside = min(max(x[0], knots[0]), knots[-1])
        i = max(j for j in range(count - 1) if knots[j] <= inside)
        h = knots[i + 1] - knots[i]

        def columns(t):
            bend = -h * h * t * (1 - t) / 6
            return [1 - t, t, bend * (2 - t), bend * (1 + t)]

        t = (inside - knots[i]) / h
        values = columns(t)
        if inside != x[0]:
            step = mpmath.mpf("1e-20")
            ahead, behind = columns(t + step), columns(t - step)
            rates = [(a - b) / (2 * step * h) for a, b in zip(ahead, behind, strict=True)]
            values = [v + (x[0] - inside) * r for v, r in zip(values, rates, strict=True)]
        for index, value in zip((i, i + 1, count + i, count + i + 1), values, strict=True):
            result[index] = value
        return result


def test_values_and_bends_of_a_spline_give_the_spline():
    y = np.random.default_rng(0).standard_normal((6, 2))
    spline = CubicSpline(KNOTS.numpy(), y)
    coef = torch.tensor(np.concatenate([y, spline(KNOTS.numpy(), 2)]))
    basis = CubicSplines(KNOTS, torch.ones(6, dtype=torch.float64))
    x = torch.linspace(0.05, 0.93, 200, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(basis.evaluate(x, coef), spline(x[:, 0]), atol=1e-13)
    rate = basis.evaluate_gradient(x, coef)[:, 0]
    np.testing.assert_allclose(rate, spline(x[:, 0], 1), atol=1e-11)
    np.testing.assert_allclose(basis.evaluate(x, coef), basis.matrix(x) @ coef, atol=1e-13)


def test_lines_beyond_the_ends():
    coef = torch.randn(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis = CubicSplines(KNOTS, torch.ones(6, dtype=torch.float64))
    x = torch.tensor([[1.0], [1.5], [2.0]], dtype=torch.float64)
    first, second, third = basis.evaluate(x, coef)[:, 0]
    assert float(first + third - 2 * second) == pytest.approx(0, abs=1e-12)
