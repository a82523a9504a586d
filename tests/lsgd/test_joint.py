"""Coefficients and unknowns eliminated by an inner problem: its solution, and what networks see."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from skpou.equations.collocation import CollocationSystem, stacked
from skpou.equations.problem import compile_problem
from skpou.lsgd.joint import NonlinearProblem
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkBasis
from skpou.physics import Equation, Unknown
from tests.equations.examples import (
    LINE,
    PLANE,
    UNKNOWNS,
    coupled,
    points_in,
    random_rows,
)
from tests.examples import slow, tensor

X = np.linspace(0, 1, 25)[:, None]


def riccati(u, x, p):
    return u.d(0) + p["a"] * u() ** 2


def problem_of(network, rows, equations, scales):
    basis = NetworkBasis(network, rows.X.new_zeros(network.n_parameters))
    return NonlinearProblem(
        network, CollocationSystem(basis, rows, equations.terms, equations), scales
    )


def plane_problem(n_rows=10, sizes=(4,), architecture="plain"):
    equation = Equation(coupled, points_in(PLANE, 20), gradient_weight=0.05)
    equations = compile_problem([equation], UNKNOWNS, PLANE, 2, seed=0)
    network = Network(2, sizes, architecture)
    scales = [1.0, *(0.3 for _ in equations.terms)]
    return problem_of(network, random_rows(n_rows, 2, 2), equations, scales)


def line_problem(bounds=None):
    unknown = {"a": Unknown(1.5, bounds)}
    equations = compile_problem([Equation(riccati, X)], unknown, LINE, 1, seed=0)
    rows = random_rows(9)
    rows = replace(rows, y=1 / (1 + 2 * rows.X) + 0.01 * rows.y)
    return problem_of(Network(1, (3,)), rows, equations, [1.0, 0.2])


def theta_of(problem, seed=0):
    return tensor(np.random.default_rng(seed).standard_normal(problem.network.n_parameters))


def settled(problem, theta, ridge, n=20):
    """Fit after enough inner problems, each from the last one's solution."""
    for _ in range(n):
        fit = problem.solve(theta, ridge)
        problem.anchor = fit.coef[:, 0]
    return fit


def residuals(problem, theta, inner):
    blocks = problem.system(theta).blocks(*problem.split(inner))
    return stacked(blocks, problem.scales)


@pytest.mark.parametrize("ridge", [1e-10, 1e-4])
def test_inner_solution_is_that_of_another_solver(ridge):
    problem = line_problem()
    theta = theta_of(problem)
    fit = settled(problem, theta, ridge)
    strength = math.sqrt(ridge * problem.unit)

    def rows(inner):
        return np.r_[residuals(problem, theta, tensor(inner))[0].numpy(), strength * inner]

    def jacobian(inner):
        A = residuals(problem, theta, tensor(inner))[1].numpy()
        return np.concatenate([A, strength * np.eye(len(inner))])

    start = np.r_[np.zeros(4), 1.5]
    best = least_squares(rows, start, jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert fit.value == pytest.approx(2 * best.cost, rel=1e-3)
    assert fit.strength == pytest.approx(strength)


def test_fit_is_consistent():
    problem = plane_problem()
    theta = theta_of(problem)
    fit = problem.solve(theta, 1e-6)
    residual, A = residuals(problem, theta, fit.coef[:, 0])
    torch.testing.assert_close(fit.residual[:, 0], residual)
    torch.testing.assert_close(fit.A, A)
    gram = A.T @ A + fit.strength**2 * torch.eye(A.shape[1]).double()
    torch.testing.assert_close(fit.R.T @ fit.R, gram)
    value = residual.square().sum() + (fit.strength * fit.coef).square().sum()
    assert fit.value == pytest.approx(float(value))


def test_inner_steps_only_lower_the_value():
    problem = plane_problem()
    theta = theta_of(problem)
    values = []
    for _ in range(12):
        fit = problem.solve(theta, 1e-6)
        residual, _ = residuals(problem, theta, problem.anchor)
        before = residual.square().sum() + (fit.strength * problem.anchor).square().sum()
        assert fit.value <= float(before) * (1 + 1e-12)
        values.append(fit.value)
        problem.anchor = fit.coef[:, 0]
    assert np.diff(values).max() <= 0


@pytest.mark.parametrize("sizes", [(3, 3), *slow(((4,),))])
@pytest.mark.parametrize("architecture", ["plain", "residual"])
@pytest.mark.parametrize("n_rows", [0, 10])
def test_jacobian_by_the_hidden_layers(sizes, architecture, n_rows):
    problem = plane_problem(n_rows, sizes, architecture)
    theta = theta_of(problem)
    h, rng = 1e-6, np.random.default_rng(3)
    fit = problem.solve(theta, 1e-6)
    fit = replace(fit, coef=tensor(rng.standard_normal(fit.coef.shape)))
    found = problem.jacobian(fit)[:, 0]
    for _ in range(4):
        direction = tensor(rng.standard_normal(len(theta)))
        ahead, behind = (
            residuals(problem, theta + s * h * direction, fit.coef[:, 0])[0] for s in (1, -1)
        )
        expected = (ahead - behind) / (2 * h)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found @ direction, expected, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("ridge", [1e-8, 1e-3])
def test_gradient_of_the_projected_value(ridge):
    """What the linear model promises is the change of the value with the inner problem solved."""
    problem = line_problem()
    theta = theta_of(problem)
    fit = settled(problem, theta, ridge)
    factor = fit.linearise(problem.jacobian(fit))
    gradient = 2 * factor[:-1, :-1].T @ factor[:-1, -1]
    h, anchor = 1e-4, problem.anchor
    for direction in torch.eye(len(theta)).double()[::4]:
        values = []
        for s in (1, -1):
            problem.anchor = anchor
            values.append(settled(problem, theta + s * h * direction, ridge).value)
        expected = (values[0] - values[1]) / (2 * h)
        size = float(gradient.abs().max())
        assert float(gradient @ direction) == pytest.approx(expected, rel=1e-2, abs=1e-2 * size)


def test_unknowns_stay_in_their_bounds():
    problem = line_problem((1.4, 1.6))
    theta = theta_of(problem)
    fit = settled(problem, theta, 1e-10)
    _, unknowns = problem.split(fit.coef[:, 0])
    assert 1.4 <= float(unknowns) <= 1.6
    free = line_problem()
    _, other = free.split(settled(free, theta, 1e-10).coef[:, 0])
    assert float(unknowns) == pytest.approx(float(other.clamp(1.4, 1.6)), rel=1e-3)


def test_steps_begin_where_the_last_ones_ended():
    problem = plane_problem()
    theta = theta_of(problem)
    fit = problem.solve(theta, 1e-6)
    start = problem.anchor
    problem.linearise(fit)
    assert not torch.equal(start, problem.anchor)
    assert torch.equal(problem.anchor, fit.coef[:, 0])
    coef, unknowns = problem.split(problem.anchor)
    assert coef.shape == (5, 2)
    assert torch.equal(torch.cat([coef.T.reshape(-1), unknowns]), problem.anchor)


def test_hidden_layers_that_overflow_are_no_solution():
    problem = line_problem()
    theta = theta_of(problem)
    theta[0] = math.inf
    assert problem.solve(theta, 1e-8).value == math.inf
    # It leaves nothing behind.
    expected = line_problem().solve(theta_of(problem), 1e-8).value
    assert math.isfinite(expected)
