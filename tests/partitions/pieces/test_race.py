"""What cannot win: degrees by their fine cells, and pieces where blocks gain nothing."""

import numpy as np
import pytest
import torch

from skpou.core import Rows
from skpou.partitions.pieces.cells import fine_cells
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.pieces.race import cannot_win, one_is_enough


def problem_of(function, degree, noise=0.0, n=800):
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    y = function(X) + noise * rng.standard_normal(n)
    X, y = torch.as_tensor(X), torch.as_tensor(y / y.std())[:, None]
    return PieceProblem(Rows(X, y, torch.ones_like(y[:, 0]), torch.zeros_like(y)), degree)


def smooth(X):
    return np.sin(4 * X[:, 0] + X[:, 1])


def kinked(X):
    return np.abs(X[:, 0] - 0.3 * X[:, 1] - 0.3)


@pytest.mark.parametrize(
    ("function", "degree", "noise", "enough"),
    [
        (smooth, 5, 0.1, True),
        (smooth, 1, 0.1, False),
        (smooth, 3, 0.0, False),
        (lambda X: X[:, 0] ** 2 - X[:, 1], 2, 0.0, True),
        (kinked, 1, 0.1, False),
        (kinked, 2, 0.0, False),
    ],
)
def test_one_polynomial_is_enough_where_blocks_gain_nothing(function, degree, noise, enough):
    assert one_is_enough(problem_of(function, degree, noise)) is enough


def cells_of(function, degree):
    problem = problem_of(function, degree)
    return problem, fine_cells(problem, np.random.default_rng(0))


def test_low_degrees_of_a_smooth_function_cannot_win():
    assert cannot_win(*cells_of(smooth, 1), [cells_of(smooth, 4)])
    assert not cannot_win(*cells_of(smooth, 4), [cells_of(smooth, 1)])


def test_exact_pieces_of_a_low_degree_stay():
    assert not cannot_win(*cells_of(kinked, 1), [cells_of(kinked, 4)])
