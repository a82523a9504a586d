"""The evidence for the columns' lengths: its gradient, and columns that do not matter."""

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from skpou.core import Rows
from skpou.core.models.relevance import Relevance, evident_rates


def rows_of(X, y):
    y = torch.tensor(y[:, None])
    return Rows(torch.tensor(X), y, torch.ones(len(X), dtype=torch.float64), torch.zeros_like(y))


@pytest.mark.parametrize("rough, within", [(False, 0.0), (True, 3.0)])
def test_gradient_of_the_evidence(rough, within):
    rng = np.random.default_rng(0)
    X, weight = rng.random((20, 3)), rng.integers(1, 4, 20).astype(float)
    relevance = Relevance(X, rng.standard_normal((20, 2)), weight, rough, within)
    theta = rng.standard_normal(6)
    numeric = approx_fprime(theta, lambda t: relevance.evidence(t)[0], 1e-6)
    assert relevance.evidence(theta)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_evidence_is_that_of_the_normal_density():
    rng = np.random.default_rng(1)
    X, y = rng.random((8, 1)), rng.standard_normal((8, 1))
    relevance = Relevance(X, y, np.ones(8))
    values = [relevance.evidence(np.array([0.3, -1.0, 0.2, n]))[0] for n in (-2.0, 1.0)]

    def density(noise):
        K = 100 + np.exp(-1) * (X - X.mean()) @ (X - X.mean()).T
        K += np.exp(0.2) * np.exp(-0.5 * np.exp(0.6) * (X - X.T) ** 2)
        K += (np.exp(noise) + 1e-8) * np.eye(8)
        return -0.5 * (y.T @ np.linalg.solve(K, y)).item() - 0.5 * np.linalg.slogdet(K)[1]

    assert values[0] - values[1] == pytest.approx(density(1.0) - density(-2.0))


def test_repeated_rows_count_as_each_by_itself():
    rng = np.random.default_rng(4)
    X, y = np.repeat(rng.random((6, 1)), 3, axis=0), rng.standard_normal((18, 1))
    of_each = Relevance(X, y - y.mean(), np.ones(18))
    points, means = X[::3], y.reshape(6, 3).mean(1, keepdims=True)
    within = float(((y.reshape(6, 3) - means) ** 2).sum())
    merged = Relevance(points, means - y.mean(), np.full(6, 3.0), within=within)
    values = [
        [relevance.evidence(np.array([0.3, -1.0, 0.2, n]))[0] for n in (-2.0, 1.0)]
        for relevance in (of_each, merged)
    ]
    assert values[0][0] - values[0][1] == pytest.approx(values[1][0] - values[1][1])


def test_codes_are_short_and_idle_columns_long():
    rng = np.random.default_rng(2)
    code, x, idle = rng.integers(0, 12, 120), rng.random(120), rng.random(120)
    level = rng.standard_normal(12)
    y = level[code] + np.sin(3 * x) + 0.05 * rng.standard_normal(120)
    X = np.column_stack([code / 11, x, idle])
    rates = evident_rates(rows_of(X, y / y.std()), np.ones(3), np.random.default_rng(0))
    assert rates[0] > 3 * rates[1] > 9 * rates[2]


def test_few_rows_do_not_tell():
    rng = np.random.default_rng(3)
    rows = rows_of(rng.random((14, 5)), rng.standard_normal(14))
    assert evident_rates(rows, np.ones(5), rng) is None
