"""Scores of fitted columns against those of the linear model that they are."""

import math

import numpy as np
import pytest
import torch

from skpou.search.scores import RidgePath
from skpou.search.tangents import TangentScores, neighbour_difference
from tests.examples import rows_of, tensor


def test_tangent_scores_of_a_linear_fit_are_its_own():
    X = np.random.default_rng(0).random((40, 1))
    weight, powers = np.random.default_rng(1).integers(1, 4, 40), np.arange(4)
    noise = 1e-6 * np.random.default_rng(3).standard_normal((len(X), 2))
    rows = rows_of(X, X**3 - X + noise, weight)
    A = rows.X ** tensor(powers)
    path = RidgePath(A, rows)
    residual = path.residual(1e-12) / path.root
    scores = TangentScores(A, residual, rows)
    assert scores.leave_one_out() == pytest.approx(path.leave_one_out(1e-12), rel=1e-2)
    assert scores.dof == pytest.approx(4, rel=1e-2)


def test_left_out_error_is_no_more_than_that_of_copying_a_neighbour():
    X = np.linspace(0, 1, 20)[:, None]
    rows = rows_of(X, X[:, 0] > 0.5)
    spike = (rows.X - rows.X[9]).abs().lt(1e-9).to(rows.X)
    columns = torch.cat([torch.ones_like(rows.X), spike], 1)
    residual = 1e-3 * torch.ones_like(rows.y)
    assert TangentScores(columns, residual, rows).leave_one_out() <= 1.001 / math.sqrt(20) + 2e-3


def test_differences_to_neighbours():
    X, y = tensor([[0.0], [0.1], [0.2], [0.9]]), tensor([[0.0], [1.0], [3.0], [4.0]])
    assert neighbour_difference(X, y).squeeze(1).tolist() == [3, 2, 3, 3]
