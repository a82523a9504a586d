"""Steps of networks between the points of equations, where no residual tells of them."""

import numpy as np
import pytest
import torch

from skpou.equations.collocation import CollocationSystem
from skpou.equations.jumps import hidden_jump, residual_on_lines
from skpou.equations.problem import compile_problem
from skpou.networks import Network, NetworkBasis
from skpou.physics import Equation
from tests.equations.examples import LINE, random_rows, units
from tests.examples import tensor

SQUARE = units([0.0, 0.0], [2.0, 3.0], [0.0], [1.0])
NONE = tensor([])


def slope(u, x):
    return u.d(0)


def step(width, at=0.3, d=1, points=None):
    """System of u' = 0 with a step of height 1 by two rectified units, and its coefficients."""
    network = Network(d, (2,), activation="relu")
    scaling = LINE if d == 1 else SQUARE
    weight = np.zeros((2, d))
    weight[:, 0] = 1 / width
    theta = tensor(np.r_[weight.ravel(), -at / width, -at / width - 1])
    basis = NetworkBasis(network, theta)
    if points is None:
        t = np.linspace(0, 1, 21)
        grid = np.meshgrid(*[t] * d, indexing="ij")
        points = np.stack(grid, -1).reshape(-1, d) * scaling.width.numpy()
    problem = compile_problem([Equation(slope, points)], {}, scaling, d, seed=0)
    system = CollocationSystem(basis, random_rows(3, d), problem.terms, problem)
    columns = basis.matrix(tensor([[0.0] * d, [1.0] * d]))
    coef = torch.zeros(network.n_columns, 1, dtype=torch.float64)
    units_of = [k for k in range(network.n_columns) if float(columns[0, k]) == 0]
    coef[units_of[0]], coef[units_of[1]] = 1.0, -1.0
    assert float((columns @ coef)[1]) == pytest.approx(1.0)
    return system, coef


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("width", [1e-4, 1e-8])
def test_a_step_that_is_narrower_than_the_points_of_a_line(d, width):
    system, coef = step(width, at=0.3021, d=d)
    assert hidden_jump(system, coef) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("d", [1, 2])
def test_a_wider_one_is_in_the_residual_on_lines(d):
    """By chance it is in none of a few points; the slopes on a line are those of the solution."""
    system, coef = step(0.006, at=0.302, d=d)
    assert hidden_jump(system, coef) < 0.5
    if d == 1:
        assert float(system.residuals(coef, NONE)[1].abs().max()) == 0  # Solved at its points.
    assert residual_on_lines(system, coef, NONE) > 0.9


def test_a_layer_that_points_lie_in_is_none_of_them():
    points = np.r_[np.linspace(0, 1, 30), 0.3021 + 1e-4 * np.linspace(0, 1, 9)][:, None]
    system, coef = step(1e-4, at=0.3021, points=points)
    assert hidden_jump(system, coef) == 0


def test_points_beside_a_step_do_not_see_it():
    """They are nearer to it than points of a line, and their slopes are those of the solution."""
    points = np.r_[np.linspace(0, 1, 30), 0.3021 + np.array([-2e-4, 2e-4, 4e-4])][:, None]
    system, coef = step(1e-6, at=0.3021, points=points)
    assert float(system.residuals(coef, NONE)[1].abs().max()) == 0  # Solved at its points.
    assert hidden_jump(system, coef) == pytest.approx(1.0, abs=0.01)


def test_smooth_solutions_have_none():
    network = Network(1, (3,), activation="tanh")
    basis = NetworkBasis(network, tensor([3.0, -20.0, 8.0, 0.5, 9.0, -4.0]))
    equation = Equation(slope, np.linspace(0, 1, 21)[:, None])
    problem = compile_problem([equation], {}, LINE, 1, seed=0)
    system = CollocationSystem(basis, random_rows(3), problem.terms, problem)
    coef = tensor([[0.3], [1.0], [-2.0], [0.5]])
    assert hidden_jump(system, coef) < 1e-3
    constant = torch.zeros_like(coef)
    assert hidden_jump(system, constant) == 0


def test_lines_go_on_to_the_boundary_that_inner_points_leave_out():
    """The step is between the data at 0 and the first point of the equation."""
    inner = np.linspace(0, 1, 21)[1:, None]
    system, coef = step(0.01, at=0.02, points=inner)
    left = residual_on_lines(system, coef, NONE)
    assert left > 0.9
    far = np.linspace(0.5, 1, 21)[:, None]
    system, coef = step(0.01, at=0.02, points=far)
    assert residual_on_lines(system, coef, NONE) == 0
