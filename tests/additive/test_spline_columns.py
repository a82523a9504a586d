"""Splines of many columns at once are those of each column alone."""

import numpy as np
import torch

from skpou.additive import spline_columns
from skpou.additive.b_splines import bspline_matrix, fit_column
from skpou.additive.spline_columns import SplineColumns


def columns_and_rows():
    random = np.random.default_rng(0)
    X = torch.as_tensor(
        np.c_[random.random(90), random.integers(0, 3, 90), random.gamma(1, size=90) ** 2]
    )
    weight = torch.ones(90, dtype=torch.float64)
    columns = [
        fit_column(X[:, j], weight, m, transform)
        for j, (m, transform) in enumerate([(12, False), (5, True), (7, True)])
    ]
    return columns, X


def test_many_columns_are_each_alone():
    columns, X = columns_and_rows()
    points = torch.cat([X, X[:5] + 3, X[:5] - 2])
    together = SplineColumns(columns)
    T, rates = together.coordinates(points), together.coordinate_slopes(points)
    values, slopes = together.functions(T), together.slopes(T, rates)
    for j, column in enumerate(columns):
        alone = SplineColumns([column])
        x = points[:, j : j + 1]
        t, rate = alone.coordinates(x), alone.coordinate_slopes(x)
        assert values[j].shape == (len(points), column.n_functions)
        np.testing.assert_array_equal(T[:, j], t[:, 0])
        np.testing.assert_allclose(values[j], alone.functions(t)[0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(slopes[j], alone.slopes(t, rate)[0], rtol=1e-12, atol=1e-12)


def test_inside_they_are_the_matrix_of_b_splines():
    columns, X = columns_and_rows()
    together = SplineColumns(columns)
    T = together.coordinates(X)
    for j, (column, values) in enumerate(zip(columns, together.functions(T), strict=True)):
        expected = bspline_matrix(T[:, j].contiguous(), column.knots) @ column.transform
        np.testing.assert_allclose(values, expected, atol=1e-12)


def test_blocks_of_rows_are_all_rows(monkeypatch):
    columns, X = columns_and_rows()
    together = SplineColumns(columns)
    whole = together.functions(together.coordinates(X))
    monkeypatch.setattr(spline_columns, "BLOCK_VALUES", 300)
    for part, values in zip(together.functions(together.coordinates(X)), whole, strict=True):
        np.testing.assert_allclose(part, values, rtol=1e-13, atol=1e-13)
