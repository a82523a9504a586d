"""Equations on pieces: kinks, jumps and ends of a solution on the way of a march."""

import numpy as np
import pytest
import torch
from scipy.special import erf
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor
from skpou.partitions.equations.march import March
from skpou.physics import Condition, Equation
from tests.estimators import errors

NOTHING = np.empty((0, 2)), np.empty(0)


@pytest.fixture
def without_lines(monkeypatch):
    """Marches that follow no kinks, as those of nonlinear speeds."""
    monkeypatch.setattr("skpou.partitions.equations.fit.tracked", lambda march, *_: None)


@pytest.mark.slow
def test_kink_is_carried(without_lines):
    """First values that are a function are resolved as far as they go, not as far as its points."""
    x, t = np.linspace(0, 1, 30), np.linspace(0, 0.02, 20)
    physics = [
        Equation(lambda u, x: u.d(1) + u.d(0), "sobol", box=[[0, 1], [0, 0.02]]),
        Condition(lambda u, x: u(), np.c_[x, 0 * x], hat),
        Condition(lambda u, x: u(), np.c_[0 * t, t]),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)
    exact = lambda X: hat(torch.tensor(X - X[:, 1:])).numpy()  # noqa: E731
    assert errors(model, exact, [0, 0], [1, 0.02], 2)[0] < 1e-3


#: A hat that moves to the right by little.
KINKS = np.array([0.2, 0.4, 0.6])
SHORT = np.linspace(0, 1e-3, 20)


def hat(x):
    return torch.relu(1 - (x[:, 0] - 0.4).abs() / 0.2)


def moving_hat():
    x = np.linspace(0, 1, 30)
    return HierarchicalPOURegressor(
        physics=[
            Equation(lambda u, x: u.d(1) + u.d(0), "sobol", box=[[0, 1], [0, SHORT[-1]]]),
            Condition(lambda u, x: u(), np.c_[x, 0 * x], hat),
            Condition(lambda u, x: u(), np.c_[0 * SHORT, SHORT]),
        ]
    )


def assert_cut_at_kinks(low, high):
    """Elsewhere the pieces at the lower end are wide, where the kinks are they are narrow."""
    first = low[:, 1] == 0
    middle, width = (low + high)[first, 0] / 2, (high - low)[first, 0]
    assert len(width) < 60 and width.min() < 1 / 100
    narrow = np.abs(middle[width < 1 / 32, None] - KINKS).min(1)
    assert narrow.max() < 1 / 16 and (width > 1 / 20).any()


def test_first_values_are_cut_at_their_kinks_alone(monkeypatch, without_lines):
    """The pieces that the march begins with, before any slab is solved for."""

    class Enough(Exception):
        """The first pieces are there."""

    def first(march):
        raise Enough(find(march))

    find = March._first
    monkeypatch.setattr(March, "_first", first)
    with pytest.raises(Enough) as found:
        moving_hat().fit(*NOTHING)
    (boxes,) = found.value.args
    assert_cut_at_kinks(boxes.low, boxes.high)


@pytest.mark.slow
def test_pieces_of_the_first_slab_are_cut_at_kinks_alone(without_lines):
    model = moving_hat().fit(*NOTHING)
    exact = lambda X: hat(torch.tensor(X - X[:, 1:])).numpy()  # noqa: E731
    assert errors(model, exact, [0, 0], [1, SHORT[-1]], 2)[0] < 1e-3
    assert_cut_at_kinks(model.model_["low"], model.model_["high"])


@pytest.mark.slow
def test_jump_that_is_smoothed_is_where_it_was():
    """Heat from a step: the first slab moves it by no more than heat goes in it.

    Its bars are some ten times the error, and what is said of them is not less.
    """
    heat, x = 1e-3, np.linspace(0, 1, 101)
    physics = [
        Equation(lambda u, x: u.d(1) - heat * u.d(0, 0), "sobol", box=[[0, 1], [0, 1]]),
        Condition(lambda u, x: u(), np.c_[x, 0 * x], lambda x: (x[:, 0] > 0.37).double()),
        *(Condition(lambda u, x: u(), np.c_[0 * x + end, x], end) for end in (0.0, 1.0)),
    ]
    with pytest.warns(ConvergenceWarning, match="it is known to"):
        model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)
    exact = lambda X: (1 + erf((X[:, 0] - 0.37) / np.sqrt(4 * heat * X[:, 1]))) / 2  # noqa: E731
    error, inside = errors(model, exact, [0, 1e-9], [1, 1], 2)
    assert error < 2e-3 and inside > 0.99


@pytest.mark.slow
def test_kink_that_is_smoothed_errs_where_it_is_alone():
    """Heat from a hat and a sine, both of which grow; ramps under heat are printed everywhere."""
    heat, end = 1e-3, 0.1
    x, t = np.linspace(0, 1, 101), np.linspace(0, end, 20)

    def first(x):
        return hat(x) + torch.sin(np.pi * x[:, 0])

    physics = [
        Equation(lambda u, x: u.d(1) - heat * u.d(0, 0) - 5 * u(), "sobol", box=[[0, 1], [0, end]]),
        Condition(lambda u, x: u(), np.c_[x, 0 * x], first),
        *(Condition(lambda u, x: u(), np.c_[0 * t + side, t]) for side in (0, 1)),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)

    def ramp(x, t):
        way = x / np.sqrt(4 * heat * t)
        return x * (1 + erf(way)) / 2 + np.sqrt(heat * t / np.pi) * np.exp(-(way**2))

    def exact(X):
        x, t = X.T
        hats = 5 * (ramp(x - 0.2, t) - 2 * ramp(x - 0.4, t) + ramp(x - 0.6, t))
        sine = np.sin(np.pi * x) * np.exp(-heat * np.pi**2 * t)
        return np.exp(5 * t) * (hats + sine)

    assert errors(model, exact, [0, 1e-9], [1, end], 2)[0] < 1e-5
    # The smooth part beside them is resolved to more digits.
    assert errors(model, exact, [0.8, 1e-9], [1, end], 2)[0] < 1e-8


@pytest.mark.parametrize(
    ("residual", "first", "exact", "last"),
    [
        (lambda u, x: u.d(0) - u() ** 2, 1.0, lambda t: 1 / (1 - t), 1.0),
        (lambda u, x: u.d(0) * u() + 0.4, 1.0, lambda t: np.sqrt(1 - 0.8 * t), 1.25),
    ],
    ids=["pole", "root"],
)
def test_solution_is_known_up_to_where_it_ends(residual, first, exact, last):
    equation = Equation(residual, np.linspace(0, 2, 50)[:, None])
    model = HierarchicalPOURegressor(physics=equation)
    with pytest.warns(ConvergenceWarning, match="No solution is found beyond") as found:
        model.fit([[0.0]], [first])
    (words,) = (str(one.message).split() for one in found)
    assert last - 1e-3 < float(words[words.index("beyond") + 1]) < last
    before, after = np.linspace(0, 0.98 * last, 50)[:, None], np.linspace(last, 2, 9)[:, None]
    mean, std = model.predict(before, return_std="epistemic")
    assert (np.abs(mean / exact(before[:, 0]) - 1) < 1e-8).all() and std.max() < 1e-6
    mean, std = model.predict(after, return_std="epistemic")
    assert (std > 0.5).all() and (np.abs(mean) < 2 * std + first).all()


def test_kink_that_hardly_moves_needs_no_slabs(without_lines):
    """What the lower end leaves of a kink is what slabs are asked for, no less."""
    x, t = np.linspace(0, 1, 30), np.linspace(0, 1e-3, 20)

    def hat(x):
        return torch.relu(1 - (x[:, 0] - 0.55).abs() / 0.3)

    physics = [
        Equation(lambda u, x: u.d(1) + u.d(0), "sobol", box=[[0, 1], [0, 1e-3]]),
        Condition(lambda u, x: u(), np.c_[x, 0 * x], hat),
        Condition(lambda u, x: u(), np.c_[0 * t, t]),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*NOTHING)
    exact = lambda X: hat(torch.tensor(X - X[:, 1:])).numpy()  # noqa: E731
    assert errors(model, exact, [0, 0], [1, 1e-3], 2)[0] < 1e-3
    assert len(model.coef_) < 100
