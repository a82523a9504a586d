"""Equations beside values with noise: unknowns, bars, and values that do not determine enough."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from skpou.physics import Condition, Equation, Unknown

PI = np.pi
CONDUCTIVITY, NOISE = 0.3, 0.02


def cooling(X):
    return np.sin(PI * X[:, 0]) * np.exp(-CONDUCTIVITY * PI**2 * X[:, 1])


def heat(u, x, p):
    return u.d(1) - p["k"] * u.d(0, 0)


def measured(seed, n=80):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    return X, cooling(X) + NOISE * rng.standard_normal(n)


def fitted(cls, seed):
    points = np.random.default_rng(100).random((600, 2))
    unknowns = {"k": Unknown(0.1, bounds=(0.01, 2))}
    return cls(physics=Equation(heat, points), unknowns=unknowns).fit(*measured(seed))


@pytest.mark.slow
def test_conductivity_from_scattered_values_alone():
    """No value at the ends or at the start: pieces follow no more than the values determine."""
    deviations, inside = [], []
    for seed in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = fitted(HierarchicalPOURegressor, seed)
        assert model.unknowns_std_["k"] < 0.02
        deviations.append((model.unknowns_["k"] - CONDUCTIVITY) / model.unknowns_std_["k"])
        X = np.random.default_rng(200).random((500, 2))
        mean, std = model.predict(X, return_std="epistemic")
        inside.append(np.mean(np.abs(mean - cooling(X)) < 3 * std))
        assert np.sqrt(np.mean((mean - cooling(X)) ** 2)) < NOISE
    assert np.sum(np.abs(deviations) < 2) >= 3 and np.abs(deviations).max() < 3
    assert min(inside) > 0.95


def test_unknowns_of_pieces_that_do_not_resolve_it():
    """Parabolas move the conductivity, which their own bars must know."""
    for seed in range(3):
        with pytest.warns(ConvergenceWarning, match="not solved"):
            model = fitted(POURegressor, seed)
        off = abs(model.unknowns_["k"] - CONDUCTIVITY)
        assert off < 3 * model.unknowns_std_["k"] < 0.5


def test_noisy_values_beside_conditions_and_nothing_unknown():
    side = np.linspace(0, 1, 20)
    ends = np.concatenate([np.c_[0 * side, side], np.c_[0 * side + 1, side]])
    physics = [
        Equation(lambda u, x: u.d(1) - CONDUCTIVITY * u.d(0, 0), "sobol"),
        Condition(lambda u, x: u(), ends),
    ]
    model = HierarchicalPOURegressor(physics=physics).fit(*measured(0))
    X = np.random.default_rng(200).random((500, 2))
    mean, std = model.predict(X, return_std="epistemic")
    assert np.sqrt(np.mean((mean - cooling(X)) ** 2)) < NOISE
    assert np.mean(np.abs(mean - cooling(X)) < 3 * std) > 0.95


def test_too_few_conditions_leave_wide_bars():
    """A harmonic function is not determined by its values at one side."""
    t = np.linspace(0, 1, 25)
    points = np.stack(np.meshgrid(t, t), -1).reshape(-1, 2)
    laplace = Equation(lambda u, x: u.d(0, 0) + u.d(1, 1), points)
    with pytest.warns(ConvergenceWarning, match="open"):
        model = HierarchicalPOURegressor(physics=laplace).fit(np.c_[0 * t, t], -(t**2))
    X = np.random.default_rng(200).random((500, 2))
    mean, std = model.predict(X, return_std="epistemic")
    assert np.mean(np.abs(mean - X[:, 0] ** 2 + X[:, 1] ** 2) < 3 * std) > 0.9


@pytest.mark.parametrize("cls", [LSGDRegressor, HierarchicalPOURegressor])
def test_equation_without_a_solution(cls):
    """Bratu's has none where lambda is above 3.5138."""
    bratu = Equation(lambda u, x: u.d(0, 0) + 3.6 * torch.exp(u()), np.linspace(0, 1, 60)[:, None])
    with pytest.warns(ConvergenceWarning, match="not solved"):
        cls(physics=bratu, tol=1e-7).fit([[0.0], [1.0]], [0.0, 0.0])
