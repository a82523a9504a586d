"""Jumps between rows: which steps are such, what is unknown where, and bars that have it."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor, MultiStageRegressor, POURegressor
from skpou.core.models.jumps import Jumps, find_jumps
from tests.examples import rows_of


class Function:
    """A predictor of a given function, of which a derivative is taken row by row."""

    def __init__(self, function):
        self.function = function

    def mean(self, X):
        return self.function(X)

    def gradient(self, X):
        X = X.clone().requires_grad_(True)
        return torch.autograd.grad(self.function(X).sum(), X)[0][..., None]


def found_on(function, X):
    (jumps,) = find_jumps(Function(function), rows_of(X, np.zeros(len(X))))
    return jumps


LINE = np.linspace(0, 1, 21)[:, None]


@pytest.mark.parametrize(
    "function",
    [
        lambda X: torch.sin(9 * X),
        lambda X: (X - 0.43).abs(),
        lambda X: torch.tanh(20 * (X - 0.43)),
        lambda X: X**5,
        lambda X: 0 * X,
    ],
)
def test_what_slopes_tell_is_no_jump(function):
    assert found_on(function, LINE) is None


def test_a_step_may_be_anywhere_between_two_rows():
    jumps = found_on(lambda X: torch.sin(X) + 0.5 * (X > 0.43), LINE)
    np.testing.assert_allclose(jumps.corners.ravel(), [0.4, 0.45])
    np.testing.assert_allclose(jumps.sizes, 0.5, rtol=1e-3)
    variance = jumps.variance(np.array([[0.4], [0.41], [0.425], [0.44], [0.46], [0.7]]))
    np.testing.assert_allclose(variance / 0.25, [0, 0.2, 0.5, 0.2, 0, 0], atol=2e-3)


def test_a_boundary_in_the_plane_lies_between_the_rows_on_both_sides():
    rng = np.random.default_rng(0)
    X = rng.random((200, 2))
    side = lambda X: X[:, 1] > 0.3 + X[:, 0] ** 2 / 2  # noqa: E731
    jumps = found_on(lambda Z: Z[:, :1] + 2.0 * side(Z)[:, None], X)
    query = rng.random((2000, 2))
    unknown = jumps.variance(query) > 0
    # Rows are known but for those on slivers of the hull, and what is unknown is near.
    assert (jumps.variance(X) > 1e-6).mean() < 0.02
    distance = np.abs(query[:, 1] - 0.3 - query[:, 0] ** 2 / 2)
    assert distance[unknown].max() < 0.3
    assert distance[~unknown].min() > 0 or unknown[distance < 1e-3].all()
    assert 0.05 < unknown.mean() < 0.4
    np.testing.assert_allclose(jumps.sizes, 2.0, rtol=1e-6)


def test_rows_beside_a_plane_have_neighbours_along_it():
    rng = np.random.default_rng(0)
    line = np.linspace(0, 1, 20)
    near = np.stack([line, (line + 0.01 * rng.standard_normal(20)).clip(0, 1)], 1)
    groups = np.concatenate([np.insert(near, 0, k / 4, 1) for k in range(5)])
    jumps = found_on(lambda X: 0.1 * X[:, :1].mul(4).round().fmod(2) + X[:, 1:2], groups)
    query = np.insert(near[[3, 9, 15]] + 0.02, 0, 0.5, 1)
    between = np.insert(near[[3, 9, 15]] + 0.02, 0, 0.4, 1)
    # What groups leap by is unknown between them, not in them.
    assert jumps.directions.shape == (3, 2)
    assert (jumps.variance(query) < 1e-6).all() and (jumps.variance(between) > 1e-3).all()


def test_rows_of_many_columns_have_no_simplices():
    many = np.random.default_rng(0).random((30, 4))
    assert found_on(lambda X: (X[:, :1] > 0.5) + 0.0 * X[:, :1], many) is None


def test_beyond_the_hull_it_is_as_on_its_face():
    corners = np.array([[[0.2, 0.5], [0.8, 0.5], [0.5, 0.9]]])
    state = {"corners": corners, "sides": np.array([[0, 1, 1]]), "sizes": np.ones(1)}
    closed = Jumps(open=np.zeros((1, 3), dtype=bool), **state)
    below = np.array([[0.45, 0.2], [0.45, 0.6]])
    assert closed.variance(below)[0] == 0 < closed.variance(below)[1]
    opened = Jumps(open=np.array([[False, False, True]]), **state)
    assert opened.variance(below)[0] > 0.3
    assert opened.variance(np.array([[0.45, -0.2]]))[0] == 0  # Outside the box.


@pytest.mark.parametrize("cls", [POURegressor, HierarchicalPOURegressor, MultiStageRegressor])
def test_between_the_two_rows_of_a_step_bars_are_of_its_size(cls):
    X = np.linspace(0, 1, 60)[:, None]
    model = cls().fit(X, 1.0 * (X[:, 0] > 0.437))
    step = X[26, 0] - X[25, 0]
    std = model.predict(X[25] + step * np.array([[0.4]]), return_std="epistemic")[1]
    # Of two places in five the mean is wrong by the step, which is two deviations of the targets.
    np.testing.assert_allclose(std[0], 0.4**0.5, rtol=0.1)
    assert model.predict([[0.2]], return_std=True)[1][0] < 1e-3
