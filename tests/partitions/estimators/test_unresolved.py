"""Equations that are not resolved, not determined or not met, and what is said about it."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from skpou.physics import Condition, Equation, Unknown

LINE = np.linspace(0, 1, 100)[:, None]
ENDS = [[0.0], [1.0]]


def layer(u, x):
    return u.d(0) - 1e-3 * u.d(0, 0)


def oscillation(u, x, p):
    return u.d(0, 0) + p["square"] * u()


def test_eigenvalue_from_a_solution_that_starts_at_nothing():
    """Where the solution is zero no row sees the unknown; the slope at an end moves it."""
    slope = Condition(lambda u, x: u.d(0), [[0.0]], np.pi)
    model = HierarchicalPOURegressor(
        physics=[Equation(oscillation, LINE), slope], unknowns={"square": Unknown(8.0)}
    ).fit(ENDS, [0.0, 0.0])
    assert abs(model.unknowns_["square"] - np.pi**2) < 1e-9
    assert np.abs(model.predict(LINE) - np.sin(np.pi * LINE[:, 0])).max() < 1e-10


@pytest.mark.parametrize("estimator", [HierarchicalPOURegressor, LSGDRegressor])
def test_an_output_that_starts_at_round_off_has_no_unit_of_round_off(estimator):
    first = Equation(lambda u, x: u[0].d(0) - 3 * u[1](), LINE)
    second = Equation(lambda u, x: u[1].d(0) + 3 * u[0](), LINE)
    model = estimator(physics=[first, second]).fit([[0.0]], [[np.sin(np.pi), 1.0]])
    exact = np.c_[np.sin(3 * LINE[:, 0]), np.cos(3 * LINE[:, 0])]
    mean, std = model.predict(LINE, return_std="epistemic")
    assert np.abs(mean - exact).max() < 1e-10
    assert std.max() < 1e-8


def test_features_that_do_not_resolve_a_layer_name_pieces_unless_less_was_asked_for():
    equation = Equation(layer, "chebyshev")
    with pytest.warns(ConvergenceWarning, match="hold to .* HierarchicalPOURegressor"):
        LSGDRegressor(physics=equation).fit(ENDS, [0.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        LSGDRegressor(physics=equation, tol=1e-12).fit(ENDS, [0.0, 1.0])
        HierarchicalPOURegressor(physics=equation).fit(ENDS, [0.0, 1.0])


def test_features_tell_of_values_that_contradict_the_equation():
    constant = Equation(lambda u, x: u.d(0), np.linspace(0, 1, 50)[:, None])
    with pytest.warns(ConvergenceWarning, match="Values on faces of the box are not met"):
        model = LSGDRegressor(physics=constant).fit(ENDS, [0.0, 1.0])
    assert model.predict([[0.5]], return_std="epistemic")[1][0] > 0.4


@pytest.mark.slow
def test_pieces_tell_of_an_end_that_does_not_follow():
    """Heat with values at its end that are not those it has: few pieces, and a word."""
    s = np.linspace(0, 1, 40)
    X = np.r_[np.c_[s, 0 * s], np.c_[0 * s, s], np.c_[0 * s + 1, s], np.c_[s, 0 * s + 1]]
    end = X[:, 1] == 1
    y = np.where(X[:, 1] == 0, np.sin(np.pi * X[:, 0]), np.where(end, X[:, 0] * (1 - X[:, 0]), 0))
    heat = Equation(lambda u, x: u.d(1) - u.d(0, 0), "sobol")
    with pytest.warns(ConvergenceWarning, match="Values on faces of the box are not met"):
        model = HierarchicalPOURegressor(physics=heat).fit(X, y)
    assert len(model.coef_) < 200


def test_boxes_that_follow_neither_equation_nor_data_say_so():
    """Five parabolas for five waves: zero, which obeys the equation, is as near as anything."""
    physics = [
        Equation(lambda u, x: u.d(0, 0) + 900 * u(), LINE),
        Condition(lambda u, x: u.d(0), [[0.0]]),
    ]
    with pytest.warns(ConvergenceWarning, match="do not resolve the solution"):
        model = POURegressor(5, 2, physics=physics).fit([[0.0]], [1.0])
    mean, std = model.predict(LINE, return_std="epistemic")
    assert np.mean(np.abs(mean - np.cos(30 * LINE[:, 0])) < 3 * std) > 0.95


def test_pieces_that_few_points_allow_say_how_well_the_solution_is_known():
    """A harmonic function in a ring, from so few points that pieces stay large."""
    rng = np.random.default_rng(0)
    inner = rng.uniform(-1, 1, (1200, 2))
    radius = np.hypot(*inner.T)
    angle = np.linspace(0, 2 * np.pi, 81)[:-1]
    circle = np.c_[np.cos(angle), np.sin(angle)]
    X = np.r_[circle, circle / 2]

    def exact(X):
        return np.log(np.hypot(*X.T)) + X[:, 0] ** 3 - 3 * X[:, 0] * X[:, 1] ** 2

    harmonic = Equation(lambda u, x: u.d(0, 0) + u.d(1, 1), inner[(radius > 0.5) & (radius < 1)])
    with pytest.warns(ConvergenceWarning, match="is known to .* of its size only"):
        HierarchicalPOURegressor(physics=harmonic).fit(X, exact(X))


def test_a_single_point_asks_for_few_pieces():
    point = Equation(lambda u, x: u.d(0, 0) + u(), [[0.5]])
    with pytest.warns(ConvergenceWarning, match="directions of the solution open"):
        model = HierarchicalPOURegressor(physics=point).fit(ENDS, [0.0, 1.0])
    assert len(model.coef_) < 20
