"""Error bars of marched solutions: they grow, decay and travel as errors do."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor
from skpou.physics import Condition, Equation

PI = np.pi


def on_a_line(residual, end, first, slope=None):
    """March from a value, and a slope, at 0."""
    physics = [Equation(residual, np.linspace(0, end, 100)[:, None])]
    if slope is not None:
        physics.append(Condition(lambda u, x: u.d(0), [[0.0]], slope))
    return HierarchicalPOURegressor(physics=physics).fit([[0.0]], [first])


def covered(model, exact, low, high):
    """Share of errors within three deviations."""
    X = np.random.default_rng(5).uniform(low, high, (2000, len(low)))
    mean, std = model.predict(X, return_std="epistemic")
    return np.mean(np.abs(mean - exact(X)) <= 3 * std)


LINES = {
    "growing": (lambda u, x: u.d(0) - u(), 5.0, 1.0, None, np.exp),
    "decaying": (lambda u, x: u.d(0) + 3 * u(), 5.0, 1.0, None, lambda t: np.exp(-3 * t)),
    "logistic": (
        lambda u, x: u.d(0) - 5 * u() * (1 - u()), 3.0, 1e-3, None,
        lambda t: 1 / (1 + 999 * np.exp(-5 * t)),
    ),
    "oscillating": (
        lambda u, x: u.d(0, 0) + 900 * u(), 1.0, 0.0, 30.0, lambda t: np.sin(30 * t),
    ),
    "growing, second order": (
        lambda u, x: u.d(0, 0) - 25 * u(), 2.0, 1.0, 0.0, lambda t: np.cosh(5 * t),
    ),
    "nonlinear, second order": (
        lambda u, x: u.d(0, 0) - u.d(0) ** 2, 1.0, 0.0, 0.9, lambda t: -np.log(1 - 0.9 * t),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_errors_on_a_line_are_within_three_deviations(name):
    residual, end, first, slope, exact = LINES[name]
    model = on_a_line(residual, end, first, slope)
    assert len(model.coef_) > 2
    assert covered(model, lambda X: exact(X[:, 0]), [0], [end]) > 0.97


def reaction():
    """Values of a bump grow by 150 where they are small."""
    x = np.linspace(0, 2 * PI, 400)
    bump = lambda x: torch.exp(-((x[:, 0] - PI) ** 2) * 8 / PI**2)  # noqa: E731
    equation = Equation(
        lambda u, x: u.d(1) - 5 * u() * (1 - u()), "sobol", box=[[0, 2 * PI], [0, 1]]
    )
    physics = [equation, Condition(lambda u, x: u(), np.c_[x, 0 * x], bump)]
    model = HierarchicalPOURegressor(physics=physics).fit(np.empty((0, 2)), np.empty(0))

    def exact(X):
        first = bump(torch.tensor(X)).numpy()
        return 1 / (1 + (1 / first - 1) * np.exp(-5 * X[:, 1]))

    return model, exact, [0, 0], [2 * PI, 1]


def growth_beside_diffusion():
    s = np.linspace(0, 1, 201)
    X = np.unique(np.r_[np.c_[s, 0 * s], np.c_[0 * s, s], np.c_[0 * s + 1, s]], axis=0)
    exact = lambda X: np.sin(PI * X[:, 0]) * np.exp((15 - PI**2) * X[:, 1])  # noqa: E731
    equation = Equation(lambda u, x: u.d(1) - u.d(0, 0) - 15 * u(), "sobol")
    return HierarchicalPOURegressor(physics=equation).fit(X, exact(X)), exact, [0, 0], [1, 1]


def growth_on_the_way():
    s = np.linspace(0, 1, 201)
    X = np.unique(np.r_[np.c_[s, 0 * s], np.c_[0 * s, s]], axis=0)
    exact = lambda X: np.exp(2 * X[:, 1]) * np.sin(3 * (X[:, 0] - X[:, 1]))  # noqa: E731
    equation = Equation(lambda u, x: u.d(1) + u.d(0) - 2 * u(), "sobol", box=[[0, 1], [0, 1]])
    return HierarchicalPOURegressor(physics=equation).fit(X, exact(X)), exact, [0, 0], [1, 1]


def wave():
    s = np.linspace(0, 1, 201)
    X = np.unique(np.r_[np.c_[s, 0 * s], np.c_[0 * s, s], np.c_[0 * s + 1, s]], axis=0)
    exact = lambda X: np.sin(PI * X[:, 0]) * np.cos(PI * X[:, 1])  # noqa: E731
    physics = [
        Equation(lambda u, x: u.d(1, 1) - u.d(0, 0), "sobol"),
        Condition(lambda u, x: u.d(1), np.c_[s, 0 * s]),
    ]
    return HierarchicalPOURegressor(physics=physics).fit(X, exact(X)), exact, [0, 0], [1, 1]


@pytest.mark.parametrize("problem", [reaction, growth_beside_diffusion, growth_on_the_way, wave])
def test_errors_in_the_plane_are_within_three_deviations(problem):
    assert covered(*problem()) > 0.97


def test_errors_grow_and_decay_with_the_solution_of_a_linear_equation():
    """After a peak of e^5 what was carried over it shrinks with the solution, by e^-5."""
    model = on_a_line(lambda u, x: u.d(0) - (5 - 5 * x[:, 0]) * u(), 4.0, 1.0)
    std = model.predict([[0.01], [1.0], [2.0], [3.9]], return_std="epistemic")[1]
    assert std[1] > 3 * std[0]
    assert std[3] < std[1] / 10


def test_bars_have_the_same_bits_twice():
    first, second = (on_a_line(lambda u, x: u.d(0) - u(), 5.0, 1.0) for _ in range(2))
    grid = np.linspace(0, 5, 50)[:, None]
    np.testing.assert_array_equal(
        first.predict(grid, return_std=True)[1], second.predict(grid, return_std=True)[1]
    )
