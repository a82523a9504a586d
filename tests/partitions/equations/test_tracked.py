"""Kinks that are followed along characteristics: edges of pieces, across which slopes jump."""

import numpy as np
import pytest
import torch
from joblib import hash as fingerprint

from skpou import HierarchicalPOURegressor
from skpou.partitions.equations.boxes import Boxes
from skpou.partitions.equations.characteristics import Line, curves, first_meeting
from skpou.partitions.equations.edges import Edges
from skpou.physics import Condition, Equation, Symmetry
from tests.estimators import errors

NOTHING = np.empty((0, 2)), np.empty(0)


def value(u, x):
    return u()


def ramps(places, heights):
    """Values between given ones, as functions of tensors and arrays."""
    places, heights = np.asarray(places), np.asarray(heights)

    def function(x):
        return torch.as_tensor(np.interp(x[:, 0].cpu().numpy(), places, heights))

    return function, lambda x: np.interp(x, places, heights)


def test_transported_kinks_are_exact():
    """A hat on a ring, with a source and a speed that grows: values are those of before."""
    first, values = ramps([0, 0.3, 0.41, 0.66, 1], [0, 0, 1, 0, 0])
    x = np.linspace(0, 1, 30)
    physics = [
        Equation(lambda u, x: u.d(1) + (1 + x[:, 1]) * u.d(0), "sobol", box=[[0, 1], [0, 1]]),
        Condition(value, np.c_[x, 0 * x], first),
        Symmetry("periodic", 0, period=1.0),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)

    def exact(X):
        return values((X[:, 0] - X[:, 1] - X[:, 1] ** 2 / 2) % 1)

    error, inside = errors(model, exact, [0, 0], [1, 1], 2)
    assert error < 1e-9 and inside > 0.99
    assert "edges" in model.model_


@pytest.fixture(scope="module")
def string():
    """A plucked string and its model: the kink goes both ways and comes back from the ends."""
    first, values = ramps([0, 0.3, 1], [0, 1, 0])
    x = np.linspace(0, 1, 30)
    t = 0.8 * x
    physics = [
        Equation(lambda u, x: u.d(1, 1) - u.d(0, 0), "sobol", box=[[0, 1], [0, 0.8]]),
        Condition(lambda u, x: u.d(1), np.c_[x, 0 * x]),
        Condition(value, np.c_[x, 0 * x], first),
        *(Condition(value, np.c_[0 * t + end, t]) for end in (0, 1)),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)

    def odd(x):
        x = x % 2
        return np.where(x < 1, 1, -1) * values(np.where(x < 1, x, 2 - x))

    return model, lambda X: (odd(X[:, 0] - X[:, 1]) + odd(X[:, 0] + X[:, 1])) / 2


def test_plucked_string(string):
    model, exact = string
    error, inside = errors(model, exact, [0, 0], [1, 0.8], 2)
    assert error < 1e-9 and inside > 0.99
    assert len(model.coef_) < 100


def test_bars_of_a_plucked_string_are_narrow(string):
    model, _ = string
    X = np.random.default_rng(1).uniform([0, 0], [1, 0.8], (2000, 2))
    _, std = model.predict(X, return_std="epistemic")
    assert np.sqrt(np.mean(std**2)) < 1e-6


def test_same_bits_after_the_state_is_stored(string):
    model, _ = string
    X = np.random.default_rng(2).uniform([0, 0], [1, 0.8], (200, 2))
    other = HierarchicalPOURegressor(physics=model.physics).fit(*NOTHING)
    assert fingerprint(other.predict(X)) == fingerprint(model.predict(X))


def test_characteristics_of_a_speed_that_varies():
    """x' = x from 0.2 is 0.2 e^t; a line from 0 at speed 1 meets it where 0.2 e^t = t."""

    def speeds(points):
        return np.stack([points[:, 0], np.ones(len(points))], 1)

    lines = [Line(0.0, 1), Line(0.2, 0)]
    series = curves(speeds, lines, 0.0, 1.0, column=1)
    end = series.sum(1)
    np.testing.assert_allclose(end, [1.0, 0.2 * np.e], rtol=1e-12)
    met = (first_meeting(series) + 1) / 2
    assert abs(0.2 * np.exp(met) - met) < 1e-9


def test_points_are_located_between_moving_edges():
    """Two triangles of a square, cut along a diagonal."""
    series = np.zeros((2, 2, 2))
    series[0, 1] = series[1, 0] = [0.5, 0.5]
    series[1, 1, 0] = 1.0
    edges = Edges(1, series, np.array([True, False]))
    boxes = Boxes(np.zeros((2, 2)), np.ones((2, 2)), np.full((2, 2), 3), edges=edges)
    X = np.random.default_rng(0).random((500, 2))
    np.testing.assert_array_equal(boxes.locate(X), X[:, 0] > X[:, 1])
    for e in (0, 1):
        nodes = 2 * X[boxes.locate(X) == e] - 1
        points = boxes.points(e, nodes)
        assert (boxes.locate(points) == e).mean() > 0.99
        np.testing.assert_allclose(boxes.nodes(np.full(len(nodes), e), points), nodes, atol=1e-6)
