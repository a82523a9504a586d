"""Exact pieces of few rows."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor, POURegressor
from skpou.partitions.pieces.exact import exact_pieces, may_be_a_sum, may_be_strips
from skpou.partitions.pieces.problem import PieceProblem
from tests.examples import relative_error, rows_of


def pieces_of(X, y, degree, most=20):
    X = np.asarray(X, dtype=float)
    return exact_pieces(PieceProblem(rows_of(X, np.asarray(y, dtype=float)), degree), most)


def ridge(X):
    return np.abs(X[:, 0] - 0.5) + X[:, 1]


@pytest.mark.parametrize(
    ("knots", "heights"),
    [([0, 5, 10, 15, 19], [0, 5, 0, 10, 2]), ([0, 4.5, 9.5, 19], [0, 9, -1, 9])],
)
@pytest.mark.parametrize(
    "model",
    [
        HierarchicalPOURegressor(),
        HierarchicalPOURegressor(4, 1),
        POURegressor(4, 1),
        POURegressor(),
    ],
    ids=str,
)
def test_lines_of_twenty_integers_are_found(model, knots, heights):
    x, between = np.arange(20.0)[:, None], np.linspace(0, 19, 1901)[:, None]

    def truth(X):
        return np.interp(X[:, 0], knots, heights)

    mean, std = model.fit(x, truth(x)).predict(between, return_std=True)
    assert relative_error(mean, truth(between)) < 1e-12
    if model.degree != 2:
        assert std.max() < 1e-10


def test_one_row_more_than_coefficients_is_enough():
    x = np.array([0, 1, 2, 3, 4, 5.0])[:, None]
    between = np.linspace(0, 5, 501)[:, None]
    model = HierarchicalPOURegressor().fit(x, np.abs(x[:, 0] - 2.4))
    assert np.abs(model.predict(between) - np.abs(between[:, 0] - 2.4)).max() < 1e-12


@pytest.mark.parametrize("n", [15, 40])
def test_two_planes_of_few_scattered_rows(n):
    X, points = np.random.default_rng(n).random((n, 2)), np.random.default_rng(1).random((1000, 2))
    model = HierarchicalPOURegressor().fit(X, ridge(X))
    assert len(model.coef_) == 2
    assert relative_error(model.predict(points), ridge(points)) < 1e-12


def test_noise_has_no_exact_pieces():
    rng = np.random.default_rng(0)
    assert pieces_of(np.sort(rng.random((30, 1)), 0), rng.standard_normal(30), 1) is None
    assert pieces_of(rng.random((30, 2)), rng.standard_normal(30), 1) is None


def test_rounded_targets_meet_short_pieces_by_accident():
    x = np.linspace(0, 1, 60)[:, None]
    assert pieces_of(x, np.round(3 * np.sin(6 * x[:, 0])), 0) is None
    assert pieces_of(x, np.random.default_rng(0).integers(0, 2, 60), 1) is None


def test_number_of_pieces_is_bounded():
    x = np.arange(20.0)[:, None]
    y = np.interp(x[:, 0], [0, 5, 10, 15, 19], [0, 5, 0, 10, 2])
    assert len(pieces_of(x, y, 1, most=4).unique()) == 4
    assert pieces_of(x, y, 1, most=3) is None


def test_cells_of_a_grid_are_no_planes_of_an_additive_function():
    axis = np.linspace(0, 1, 8)
    X = np.stack([part.ravel() for part in np.meshgrid(axis, axis, indexing="ij")], 1)
    assert pieces_of(X, np.cos(3 * X[:, 0]) + np.sin(3 * X[:, 1]) ** 2, 1) is None
    X = torch.as_tensor(X)
    cell, strip = (X < 0.2).all(1), X[:, 1] < 0.2
    assert may_be_a_sum(X[cell], torch.zeros(4, dtype=torch.int64), 2)
    assert not may_be_a_sum(X[strip], torch.zeros(16, dtype=torch.int64), 2)
    assert may_be_strips(X[strip], torch.zeros(16, dtype=torch.int64), 2)
    assert not may_be_strips(X[strip], torch.zeros(16, dtype=torch.int64), 1)


@pytest.mark.parametrize("between", [0.0, 0.37])
def test_a_kink_of_the_curvature_on_a_grid_is_not_cut_into_strips(between):
    """Planes meet every second pair of lines of the parabola's side; two pieces meet it all."""
    axis = np.linspace(0, 1, 10)
    X = np.stack([a.ravel() for a in np.meshgrid(axis, axis, indexing="ij")], 1)
    kink = (4 + between) / 9

    def bend(X):
        return np.maximum(X[:, 0] - kink, 0) ** 2 + 0.5 * X[:, 1]

    model = HierarchicalPOURegressor().fit(X, bend(X))
    points = np.random.default_rng(1).random((2000, 2))
    assert np.abs(model.predict(points) - bend(points)).max() < 1e-12
