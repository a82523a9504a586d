"""Splines with a function for each row: errors without rows are those of fits without them."""

import numpy as np
import pytest
import torch

from skpou.core import Rows
from skpou.core.models import LinearModel
from skpou.core.models.row_weights import MOST_ROWS, RowWeights
from skpou.search.bases.polyharmonic import PolyharmonicSplines
from skpou.search.rough import fit_rough
from tests.examples import rows_of


def rough_fit(d, noise, n=60):
    rng = np.random.default_rng(d)
    X = rng.random((n, d))
    X = np.sort(X, 0) if d == 1 else X
    y = np.abs(X[:, 0] - 0.45) + X[:, -1] + noise * rng.standard_normal(n)
    rows = rows_of(X, y - y.mean())
    ones = rows.X.new_ones(d)
    found = fit_rough(rows, rows.X[:20] * 0.9 + 0.05, ones, np.inf, 0)
    one = rows.X.new_ones(1)
    return LinearModel(found.stages, one, one), rows


def values_without(rows: Rows, part, power, penalty):
    """Values at the rows of a natural spline to the others."""
    kept = np.setdiff1d(np.arange(rows.n_rows), part)
    X, n, free = rows.X[kept], len(kept), 1 + rows.n_features
    basis = PolyharmonicSplines(X, X.new_ones(rows.n_features), power)
    sign = -1.0 if power == 1 else 1.0
    A = torch.zeros((n + free, n + free), dtype=X.dtype)
    A[:n, :n] = sign * basis.distances(X) ** power + penalty * torch.eye(n, dtype=X.dtype)
    A[:n, n:], A[n:, :n] = basis.affine(X), basis.affine(X).T
    right = torch.cat([rows.y[kept], torch.zeros((free, 1), dtype=X.dtype)])
    coef = torch.linalg.solve(A, right)
    Z = rows.X[part]
    return sign * basis.distances(Z) ** power @ coef[:n] + basis.affine(Z) @ coef[n:]


@pytest.mark.parametrize(("d", "noise"), [(1, 0.05), (2, 0.0), (2, 0.05)])
def test_errors_without_rows_are_those_of_fits_without_them(d, noise):
    model, rows = rough_fit(d, noise)
    (maker,) = model.residual_makers(rows)
    assert isinstance(maker, RowWeights)
    assert maker.penalty > 0 or not noise
    parts = [np.array([5]), np.arange(10, 25)]
    found = maker.of_target(0).left_out_errors(rows, parts)
    power = getattr(model.stages[0].basis, "power", 3)
    for number, part in enumerate(parts):
        expected = rows.y[part] - values_without(rows, part, power, maker.penalty)
        own = found.error[found.group == number]
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-7)


def test_the_noise_is_that_of_the_rows():
    model, rows = rough_fit(2, 0.05, n=300)
    (maker,) = model.residual_makers(rows)
    noise = maker.left_out_errors(rows, [np.arange(30)]).noise
    assert 0.03 < np.sqrt(noise.mean()) < 0.07


def test_many_rows_are_left_out():
    model, rows = rough_fit(1, 0.05, n=MOST_ROWS + 1)
    assert model.residual_makers(rows) == []
