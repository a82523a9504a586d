"""Errors at left-out rows of fits with a prior, and what lines of rows say of their claims."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor
from skpou.core import Rows
from skpou.core.models import Refits

N_LINES, ROWS_A_LINE = 7, 25


def on_lines(rng):
    return np.column_stack([
        np.repeat(np.linspace(0, 1, N_LINES), ROWS_A_LINE), rng.random(N_LINES * ROWS_A_LINE)
    ])  # fmt: skip


def test_errors_are_those_of_a_ridge_fit_without_the_rows():
    rng = np.random.default_rng(0)
    A, y, weight = rng.standard_normal((30, 6)), rng.standard_normal((30, 2)), rng.uniform(1, 3, 30)
    root = np.sqrt(weight)[:, None]
    rows = Rows(*(torch.tensor(part) for part in (rng.random((30, 2)), y, weight, 0 * y)))
    part = np.array([3, 7, 20])
    found = Refits(torch.tensor(A * root)).left_out_errors(rows, [part])
    kept = np.setdiff1d(np.arange(30), part)
    precision = A[kept].T @ (weight[kept, None] * A[kept]) + np.eye(6)
    coef = np.linalg.solve(precision, A[kept].T @ (weight[kept, None] * y[kept]))
    np.testing.assert_allclose(found.error, y[part] - A[part] @ coef, rtol=1e-10)
    spread = 1 / weight[part] + (A[part] @ np.linalg.inv(precision) * A[part]).sum(1)
    noise = found.noise * weight[part, None]
    np.testing.assert_allclose(noise, noise[:1].repeat(3, 0), rtol=1e-12)
    np.testing.assert_allclose(found.variance / noise, spread[:, None].repeat(2, 1), rtol=1e-10)


def test_refits_tell_on_even_lines_alone():
    columns, X = torch.zeros((175, 3)), torch.tensor(on_lines(np.random.default_rng(0)))
    assert Refits.tell(columns, X)
    assert not Refits.tell(columns, torch.rand(175, 2, dtype=X.dtype))
    both = X.clone()
    both[:, 1] = torch.arange(175).remainder(5)
    assert not Refits.tell(columns, both)
    far = X.clone()
    far[:, 0] = far[:, 0] ** 3
    assert not Refits.tell(columns, far)


@pytest.fixture(scope="module")
def fitted():
    X = on_lines(np.random.default_rng(4))
    return HierarchicalPOURegressor().fit(X, target(X))


def target(X):
    return np.sin(3 * X[:, 0] + 2 * X[:, 1]) * np.exp(-X[:, 1])


@pytest.mark.slow
def test_claims_between_lines_are_those_of_lines_left_out(fitted):
    T = np.random.default_rng(5).random((2000, 2)) * [1, 0.96] + [0, 0.02]
    mean, std = fitted.predict(T, return_std=True)
    error = np.abs(mean - target(T))
    assert np.mean(error <= 3 * std) > 0.97
    # A hundred times and more, where errors at rows of the same line judged them.
    assert np.sqrt(np.mean(std**2)) < 20 * np.sqrt(np.mean(error**2))


def test_covariance_between_lines_has_the_variance_on_its_diagonal(fitted):
    T = np.random.default_rng(6).random((20, 2))
    std = fitted.predict(T, return_std="epistemic")[1]
    cov = fitted.predict(T, return_cov="epistemic")[1]
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-8)
