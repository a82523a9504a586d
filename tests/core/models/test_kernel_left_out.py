"""Errors without a set of rows are those of a process that has never seen them."""

import numpy as np
import pytest
import torch

from skpou.core import Rows
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.kernel_left_out import kernel_left_out
from skpou.core.models.likely_kernels import GAUSSIAN, MATERN


@pytest.mark.parametrize(
    ("kind", "stretch", "d"), [(GAUSSIAN, (0.0, 0.0), 2), (MATERN, (30.0,), 1)]
)
def test_errors_are_those_of_the_other_rows_alone(kind, stretch, d):
    rng = np.random.default_rng(0)
    X, y = rng.random((12, d)), rng.standard_normal(12)
    weight = rng.integers(1, 4, 12).astype(float)
    y2 = torch.tensor(y[:, None])
    rows = Rows(torch.tensor(X), y2, torch.tensor(weight), torch.zeros_like(y2))
    theta = np.r_[np.full(d, 0.5), -1.0, -4.0]
    sets = [np.array([1, 5, 7]), np.array([0, 11])]
    none = np.zeros((5, 1))
    found = kernel_left_out(
        rows, (kind, stretch, theta), LeftOut(sets, 2, none, none, none, np.ones(2), np.ones(2))
    )

    def drawn(Z):
        return np.log1p(30 * Z) / np.log1p(30) if any(stretch) else Z

    def covariance(A, B, centre):
        r = np.exp(0.5) * np.linalg.norm(A[:, None] - B, axis=2)
        s = np.sqrt(5) * r
        kernel = np.exp(-0.5 * r**2) if kind == GAUSSIAN else (1 + s + s**2 / 3) * np.exp(-s)
        return 1 + np.exp(-1) * (A - centre) @ (B - centre).T + kernel

    start = 0
    for part in sets:
        rest = np.setdiff1d(np.arange(12), part)
        A, B, centre = drawn(X[rest]), drawn(X[part]), drawn(X[rest].mean(0))
        K = covariance(A, A, centre) + np.diag(np.exp(-4) / weight[rest])
        mean = np.average(y[rest], weights=weight[rest])
        coef = np.linalg.solve(K, y[rest] - mean)
        size = (y[rest] - mean) @ coef / (len(rest) - d - 2)
        across = covariance(B, A, centre)
        unknown = covariance(B, B, centre) - across @ np.linalg.solve(K, across.T)
        at = slice(start, start + len(part))
        assert found.error[at, 0] == pytest.approx(y[part] - mean - across @ coef)
        noise = size * np.exp(-4) / weight[part]
        assert found.noise[at, 0] == pytest.approx(noise)
        assert found.variance[at, 0] == pytest.approx(noise + size * unknown.diagonal())
        start += len(part)
