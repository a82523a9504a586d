"""Stacked rows of data and equations against the equations themselves, in units of X and y."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.core.models.linear_model import Stage
from skpou.core.rows import Rows
from skpou.equations.collocation import (
    CollocationSystem,
    Iterate,
    criterion,
    leverages,
    norm,
    stacked,
)
from skpou.equations.newton import solve_affine
from skpou.physics import Constants, Equation, Field
from tests.equations.examples import (
    LINE,
    LINES,
    PLANE,
    coupled,
    coupled_system,
    decay,
    decays,
    points_in,
    random_rows,
    random_state,
    sines,
    system_of,
    units,
)
from tests.examples import tensor


def automatic(system, coef, unknowns, residual, x):
    """Residual in units of X and y, with all derivatives by torch."""
    scaling, x = system.problem.scaling, x.clone().requires_grad_()
    points = scaling.points(x)
    stages = [*((s.basis, s.coef) for s in system.before), (system.basis, coef)]
    values = scaling.original_targets(sum(basis.matrix(points) @ c for basis, c in stages))

    def ask(key):
        value = values[:, key[0]]
        for j in key[1]:
            value = torch.autograd.grad(value.sum(), x, create_graph=True)[0][:, j]
        return value

    constants = Constants(zip(system.problem.names, unknowns, strict=True))
    field = Field({}, ask, (x.shape[1], values.shape[1]))
    return residual(field, x, constants).detach()


def earlier(m=2, d=2, seed=7):
    basis = sines(d, 3, seed=seed)
    coef = tensor(np.random.default_rng(seed).standard_normal((basis.n_columns, m)))
    return Stage(basis, coef, torch.eye(basis.n_columns, dtype=torch.float64))


@pytest.mark.parametrize("before", [(), (earlier(), earlier(seed=8))], ids=["first", "third"])
def test_residuals_are_those_of_the_equation_in_units_of_x_and_y(before):
    system = coupled_system(before)
    coef, unknowns = random_state(system)
    data, equation = system.residuals(coef, unknowns)
    expected = automatic(system, coef, unknowns, coupled, system.terms[0].x)
    torch.testing.assert_close(equation.reshape(-1, 2), expected, rtol=1e-11, atol=1e-11)
    rows = system.rows
    values = system.basis.matrix(rows.X) @ coef + sum(s.mean(rows.X) for s in before)
    expected = rows.weight.sqrt()[:, None] * (values - rows.y)
    torch.testing.assert_close(data.reshape(2, -1).T, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("target", ["number", "array", "function"])
def test_targets_are_taken_off(target):
    x = points_in(PLANE, 30)
    right = {"number": 3.0, "array": x[:, :2] ** 2, "function": lambda x: x[:, :2] ** 2}[target]
    expected = tensor(np.full((30, 2), 3.0) if target == "number" else x[:, :2] ** 2)
    plain, other = coupled_system(), coupled_system(target=right)
    state = random_state(plain)
    difference = plain.residuals(*state)[1] - other.residuals(*state)[1]
    torch.testing.assert_close(difference.reshape(-1, 2), expected)


def test_jacobians_are_difference_quotients():
    system = coupled_system((earlier(),))
    coef, unknowns = random_state(system)
    flat, h, size = torch.cat([coef.T.reshape(-1), unknowns]), 1e-6, system.n_coefficients

    def residuals(flat):
        coef = flat[:size].reshape(system.n_outputs, system.n_columns).T
        return system.residuals(coef, flat[size:])

    blocks = system.blocks(coef, unknowns)
    for block, residual in zip(blocks, system.residuals(coef, unknowns), strict=True):
        torch.testing.assert_close(block.residual, residual, rtol=1e-13, atol=1e-13)
    for j, direction in enumerate(torch.eye(len(flat), dtype=flat.dtype)):
        ahead, behind = residuals(flat + h * direction), residuals(flat - h * direction)
        for block, a, b in zip(blocks, ahead, behind, strict=True):
            quotient = (a - b) / (2 * h)
            torch.testing.assert_close(block.jacobian[:, j], quotient, rtol=1e-7, atol=1e-7)


def test_derivatives_at_other_points_are_those_of_a_system_there():
    system = coupled_system((earlier(),))
    state = random_state(system)
    moved = system.at(system.problem.fresh)
    expected = automatic(system, *state, coupled, system.problem.fresh[0].x)
    torch.testing.assert_close(moved.residuals(*state)[1].reshape(-1, 2), expected)
    assert moved.before == system.before


def test_weights_are_repeated_rows():
    rows = random_rows(8, 1, 2)
    times = torch.tensor([1, 2, 3, 1, 1, 4, 1, 2])
    weighted = Rows(rows.X, rows.y, times.double(), rows.within)
    copies = rows.subset(torch.arange(8).repeat_interleave(times))
    copies = Rows(copies.X, copies.y, torch.ones_like(copies.weight), copies.within)
    equation = Equation(decays, points_in(LINES, 20))
    grams, scales = [], []
    for part in (weighted, copies):
        system = system_of(equation, LINES, rows=part)
        blocks = system.blocks(*random_state(system))
        scales.append(system.scales(blocks))
        residual, jacobian = stacked(blocks, scales[-1])
        both = torch.cat([jacobian, residual[:, None]], 1)
        grams.append(both.T @ both)
    assert scales[0] == pytest.approx(scales[1], rel=1e-12)
    torch.testing.assert_close(*grams, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("boost", [1.0, 10.0])
def test_scaled_blocks_have_rows_of_their_weight(boost):
    """The sum over a block's rows of their squared norms is the square of its weight."""
    x = points_in(PLANE, 25)
    equations = [
        Equation(lambda u, x, p: 1e4 * u[0].d(0, 0) + u[1](), x, weight=3.0),
        Equation(lambda u, x, p: torch.stack([u[0](), u[1].d(1)], 1), x[:7], gradient_weight=0.2),
    ]
    system = system_of(equations, PLANE)
    blocks = system.blocks(*random_state(system))
    scales = system.scales(blocks, boost)
    norms = [float((s * b.jacobian).norm()) for s, b in zip(scales, blocks, strict=True)]
    assert norms[:3] == pytest.approx([1.0, 3 * boost, boost])
    # Its gradient counts half a side of the box as the unit of length, for each coordinate.
    lengths = 0.2 * system.problem.scaling.width.numpy() / 2
    assert np.array(scales[3:]) == pytest.approx(scales[2] * lengths)


def test_scaled_rows_do_not_depend_on_units():
    """Other units of X, y and the residual itself leave the stacked problem as it is."""

    def drift(u, x, p):
        return u.d(0) / u() + 1e3 * u()

    rows, x = random_rows(9), np.linspace(0, 1, 20)[:, None]
    length, size = 3e5, 2e-7

    def other(u, x, p):
        return 1e9 * (length * u.d(0) / u() + 1e3 * u() / size)

    found = []
    for residual, box in (
        (drift, units([0.0], [1.0], [2.0], [0.5])),
        (other, units([0.0], [length], [2.0 * size], [0.5 * size])),
    ):
        points = float(box.width[0]) * x
        system = system_of(Equation(residual, points), box, rows=rows)
        coef, unknowns = random_state(system)
        blocks = system.blocks(coef, unknowns)
        found.append(stacked(blocks, system.scales(blocks)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_size_of_terms():
    """Slope times value for each key, where the value counts at least its natural size."""
    x = points_in(PLANE, 30)

    def residual(u, x, p):
        return 5 * u[0].d(0) - x[:, 1] * u[1]() ** 2

    system = system_of(Equation(residual, x), PLANE)
    coef, unknowns = random_state(system)
    first = automatic(system, coef, unknowns, lambda u, x, p: u[0].d(0), tensor(x)).numpy()
    second = automatic(system, coef, unknowns, lambda u, x, p: u[1](), tensor(x)).numpy()
    # Targets of rms 2 vary by that over half of a side of length 3; the other's rms is 0.1.
    terms = 5 * np.maximum(np.abs(first), 2 / 1.5), 2 * x[:, 1] * second * second
    smallest = np.abs(second).min()
    assert smallest > 0.1
    expected = sum(np.mean(term**2) for term in terms)
    assert system.size_of_terms(0, coef, unknowns) == pytest.approx(expected, rel=1e-10)


def test_without_rows_only_equations_are_left():
    empty = random_rows(0)
    system = system_of(Equation(decay, points_in(LINE, 20)), rows=empty)
    coef, unknowns = random_state(system)
    blocks = system.blocks(coef, unknowns)
    assert [len(block.residual) for block in blocks] == [0, 20]
    scales = system.scales(blocks)
    assert scales[0] == 1
    assert float((scales[1] * blocks[1].jacobian).norm()) == pytest.approx(1)
    assert system.total == 1


def test_norm_of_all_blocks():
    parts = [tensor([3.0, 0.0]), tensor([2.0])]
    assert norm(parts, [1.0, 2.0]) == 5
    assert norm([tensor([math.nan]), parts[1]], [1.0, 1.0]) == math.inf
    assert norm([tensor([math.inf])], [1.0]) == math.inf


@pytest.mark.parametrize("residual", [lambda u, x, p: u[0].d(0) + u[1](), decays, coupled])
def test_criterion_at_the_points_of_the_solve_is_the_norm_of_its_rows(residual):
    """Both are in units of the rms row norm; fewer than ten points judge themselves."""
    unknowns = {} if residual is not coupled else coupled_system().problem.unknowns
    box = PLANE if residual is coupled else LINES
    system = system_of(Equation(residual, points_in(box, 9)), box, unknowns)
    assert torch.equal(system.problem.fresh[0].x, system.terms[0].x)
    state = random_state(system)
    scales = system.scales(system.blocks(*state))
    expected = norm(system.residuals(*state), scales)
    assert criterion(system, Iterate(*state, 0.0), scales) == pytest.approx(expected, rel=1e-12)


def test_criterion_knows_no_weights_and_no_gradients():
    x, found = points_in(LINE, 9), []
    for boost, options in (
        (1.0, {}),
        (1.0, {"weight": 7.0}),
        (100.0, {"weight": 0.1}),
        (1.0, {"gradient_weight": 2.0}),
    ):
        system = system_of(Equation(decay, x, **options))
        state = random_state(system)
        scales = system.scales(system.blocks(*state), boost)
        found.append(criterion(system, Iterate(*state, 0.0), scales, boost))
    assert found == pytest.approx([found[0]] * 4, rel=1e-12)


def test_system_is_worth_what_its_equations_are():
    """Two equations of equal rows in one residual are judged as one of them would be."""
    x = points_in(LINE, 9)

    def twice(u, x, p):
        return torch.stack([u.d(0) + u()] * 2, 1)

    found = []
    for residual in (decay, twice):
        system = system_of(Equation(residual, x))
        state = random_state(system)
        scales = system.scales(system.blocks(*state))
        found.append((norm(system.residuals(*state), scales),
                      criterion(system, Iterate(*state, 0.0), scales)))  # fmt: skip
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def noisy_system(n=30):
    """Values of a decay with noise."""
    rows = random_rows(n)
    y = torch.exp(-rows.X) + 0.05 * rows.y
    return system_of(Equation(decay, points_in(LINE, 9)), rows=replace(rows, y=y), n_sines=2)


def test_leverages_tell_what_a_fit_without_a_row_leaves():
    system = noisy_system()
    scales = system.scales(system.blocks(system.zero(), tensor([])))
    whole = solve_affine(system, scales, 1e-12)
    jacobian = stacked(system.blocks(whole.coef, whole.unknowns), scales)[1]
    target = -stacked(system.blocks(system.zero(), whole.unknowns), scales)[0]
    expected = []
    for i in range(30):
        kept = torch.arange(len(target)) != i
        coef = torch.linalg.lstsq(jacobian[kept], target[kept, None]).solution
        expected.append(float(jacobian[i] @ coef[:, 0] - target[i]))
    own = scales[0] * system.residuals(whole.coef, whole.unknowns)[0]
    for iterate in (whole, replace(whole, factor=None)):
        found = own / (1 - leverages(system, iterate, scales))
        assert found.numpy() == pytest.approx(np.array(expected), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize(("n", "is_more"), [(30, True), (12, False)])
def test_many_noisy_data_are_judged_left_out(n, is_more):
    system = noisy_system(n)
    scales = system.scales(system.blocks(system.zero(), tensor([])))
    iterate = solve_affine(system, scales, 1e-12)
    left = norm(system.residuals(iterate.coef, iterate.unknowns), scales)
    assert (criterion(system, iterate, scales) > 1.01 * left) == is_more


def test_criterion_of_what_is_not_finite_is_infinite():
    system = system_of(Equation(decay, points_in(LINE, 9)))
    coef, unknowns = random_state(system)
    scales = system.scales(system.blocks(coef, unknowns))
    assert criterion(system, Iterate(math.nan * coef, unknowns, 0.0), scales) == math.inf


def test_a_stage_adds_to_those_before():
    """Zero coefficients beside an earlier stage leave that stage's own residual."""
    system = coupled_system()
    coef, unknowns = random_state(system)
    stage = Stage(system.basis, coef, torch.eye(system.n_columns, dtype=torch.float64))
    later = CollocationSystem(
        sines(2, 4, seed=9), system.rows, system.terms, system.problem, (stage,)
    )
    for one, two in zip(
        system.residuals(coef, unknowns), later.residuals(later.zero(), unknowns), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)
