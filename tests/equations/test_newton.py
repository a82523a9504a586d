"""Gauss-Newton for equations: dense solutions, stationary points, units, limits of the unknowns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from skpou.equations.collocation import Iterate, norm, stacked
from skpou.equations.newton import TRUST, gauss_newton, inside, solve_affine
from skpou.physics import Equation, Unknown
from tests.equations.examples import (
    LINE,
    LINES,
    PLANE,
    coupled_system,
    decay,
    decays,
    points_in,
    random_rows,
    random_state,
    system_of,
)

X = np.linspace(0, 1, 40)[:, None]


def riccati(unit=1.0):
    """Decay at a rate that is unknown, in a unit of its own."""
    return lambda u, x, p: u.d(0) + unit * p["a"] * u() ** 2


def riccati_system(unit=1.0, bounds=None, n_sines=4, init=1.5):
    rows = random_rows(11)
    rows = replace(rows, y=1 / (1 + 2 * rows.X) + 0.02 * rows.y)
    unknown = Unknown(init / unit, bounds)
    return system_of(Equation(riccati(unit), X), LINE, {"a": unknown}, rows, n_sines)


def begin(system, unknowns=None):
    init = [unknown.init for unknown in system.problem.unknowns.values()]
    unknowns = system.phi.new_tensor(init) if unknowns is None else unknowns
    return Iterate(system.zero(), unknowns, math.inf)


def scales_of(system):
    start = begin(system)
    return system.scales(system.blocks(start.coef, start.unknowns))


def gradient(system, scales, iterate):
    """Cosines of the angles between the residual and the columns."""
    residual, jacobian = stacked(system.blocks(iterate.coef, iterate.unknowns), scales)
    return (jacobian.T @ residual) / jacobian.norm(dim=0) / residual.norm()


@pytest.mark.parametrize("alpha", [1e-15, 1e-2, 1.0])
@pytest.mark.parametrize("residual", [decay, decays])
def test_affine_equations_are_a_ridge_regression(residual, alpha):
    system = system_of(Equation(residual, X), LINE if residual is decay else LINES, n_sines=2)
    scales = [1.3, 0.7]
    found = solve_affine(system, scales, alpha)
    residual, jacobian = stacked(system.blocks(system.zero(), found.unknowns), scales)
    A, r = jacobian.numpy(), residual.numpy()
    ridge = alpha * np.linalg.norm(A, axis=0).max() * np.eye(A.shape[1])
    above = np.concatenate([A, ridge])
    expected = np.linalg.lstsq(above, -np.r_[r, np.zeros(len(ridge))], rcond=None)[0]
    np.testing.assert_allclose(found.coef.T.reshape(-1), expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.factor.T @ found.factor, above.T @ above, atol=1e-12)
    assert found.value == pytest.approx(np.linalg.norm(A @ expected + r), rel=1e-10)
    value = norm(system.residuals(found.coef, found.unknowns), scales)
    assert found.value == pytest.approx(value, rel=1e-10)


def test_affine_equations_need_one_step():
    system = system_of(Equation(decay, X), n_sines=2)
    scales = scales_of(system)
    expected = solve_affine(system, scales, 1e-15)
    found = gauss_newton(system, begin(system), scales, alpha=1e-15, max_iter=10)
    torch.testing.assert_close(found.coef, expected.coef, rtol=1e-6, atol=1e-8)
    assert found.value == pytest.approx(expected.value, rel=1e-12)


def test_unknowns_and_coefficients_are_those_of_another_solver():
    system = riccati_system()
    scales = scales_of(system)
    found = gauss_newton(system, begin(system), scales, alpha=1e-15, max_iter=100)
    size = system.n_coefficients

    def split(flat):
        flat = torch.as_tensor(flat)
        return flat[:size, None], flat[size:]

    def residual(flat):
        return stacked(system.blocks(*split(flat)), scales)[0].numpy()

    def jacobian(flat):
        return stacked(system.blocks(*split(flat)), scales)[1].numpy()

    start = np.r_[np.zeros(size), 1.5]
    other = least_squares(residual, start, jacobian, xtol=1e-14, ftol=1e-15, gtol=1e-14)
    assert found.value == pytest.approx(math.sqrt(2 * other.cost), rel=1e-9)
    assert float(found.unknowns) == pytest.approx(other.x[-1], rel=1e-6)
    assert float(gradient(system, scales, found).abs().max()) < 1e-6


def test_several_outputs_and_equations_end_at_a_stationary_point():
    system = coupled_system()
    scales = system.scales(system.blocks(*random_state(system)))
    start = Iterate(*random_state(system), math.inf)
    found = gauss_newton(system, start, scales, alpha=1e-15, max_iter=200)
    assert found.value == norm(system.residuals(found.coef, found.unknowns), scales)
    cosine = gradient(system, scales, found)
    at_bound = (found.unknowns == 1.0) | (found.unknowns == 4.0)
    cosine[-2:][at_bound & (system.problem.scaling.mean.new_tensor([0, 1]) > 0)] = 0
    assert float(cosine.abs().max()) < 1e-3


def test_more_steps_are_never_worse():
    system = coupled_system()
    scales = system.scales(system.blocks(*random_state(system)))
    start = Iterate(*random_state(system), math.inf)
    values = [
        gauss_newton(system, start, scales, alpha=1e-15, max_iter=n).value for n in range(0, 40, 5)
    ]
    assert values[0] == norm(system.residuals(start.coef, start.unknowns), scales)
    assert np.diff(values).max() <= 0


def test_unknowns_that_are_held_stay():
    system = riccati_system()
    scales, start = scales_of(system), begin(system)
    found = gauss_newton(system, start, scales, alpha=1e-15, max_iter=60, free=False)
    assert torch.equal(found.unknowns, start.unknowns)
    cosine = gradient(system, scales, found)
    # Oldest versions of torch stop at 2.4e-6, where the unknown's own cosine is of order one.
    assert float(cosine[:-1].abs().max()) < 1e-5 < 1e-2 < float(cosine[-1].abs())


@pytest.mark.parametrize("unit", [1e-18, 1e-12, 1e-6, 1e6, 1e12, 1e18])
def test_units_of_an_unknown_make_no_difference(unit):
    one, two = riccati_system(), riccati_system(unit)
    scales = scales_of(one)
    options = {"alpha": 1e-15, "max_iter": 60}
    expected = gauss_newton(one, begin(one), scales, **options)
    found = gauss_newton(two, begin(two), scales, **options)
    assert unit * float(found.unknowns) == pytest.approx(float(expected.unknowns), rel=1e-6)
    assert found.value == pytest.approx(expected.value, rel=1e-9)


@pytest.mark.parametrize("bounds", [(1.0, 1.6), (1.4, 9.0), (1.499, 1.501)])
def test_unknowns_stay_in_their_bounds_and_move_little_at_once(bounds):
    system = riccati_system(bounds=bounds)
    scales, last = scales_of(system), begin(system)
    for _ in range(30):
        found = gauss_newton(system, last, scales, alpha=1e-15, max_iter=1)
        assert bounds[0] <= float(found.unknowns) <= bounds[1]
        change = float((found.unknowns - last.unknowns).abs())
        assert change <= TRUST * (bounds[1] - bounds[0]) * (1 + 1e-12)
        last = found


@pytest.mark.parametrize(
    ("bounds", "init"),
    [((1.0, 1.6), 1.5), ((1.0, 1.6), 1.6), ((1.4, 9.0), 1.5), ((1.99, 2.03), 1.991)],
)
def test_bounds_hold_the_unknowns_and_not_the_coefficients(bounds, init):
    """The best rate is 2.012; within bounds all else is as good as it can be."""
    system = riccati_system(bounds=bounds, init=init)
    scales, size = scales_of(system), system.n_coefficients
    found = gauss_newton(system, begin(system), scales, alpha=1e-15, max_iter=100)

    def rows(flat):
        flat = torch.as_tensor(flat)
        return stacked(system.blocks(flat[:size, None], flat[size:]), scales)

    limits = np.r_[[-np.inf] * size, bounds[0]], np.r_[[np.inf] * size, bounds[1]]
    start = np.r_[np.zeros(size), min(max(init, bounds[0] + 1e-3), bounds[1] - 1e-3)]
    best = least_squares(lambda z: rows(z)[0].numpy(), start, lambda z: rows(z)[1].numpy(),
                         bounds=limits, xtol=1e-14, ftol=1e-14, gtol=1e-12)  # fmt: skip
    assert float(found.unknowns) == pytest.approx(best.x[-1], rel=1e-5)
    assert found.value == pytest.approx(math.sqrt(2 * best.cost), rel=1e-5)


def test_a_solution_is_left_alone():
    """Round-off apart: for exact data no step leads away from the solution."""

    def line(u, x, p):
        return u.d(0) ** 2 - 1

    rows = random_rows(3)
    system = system_of(Equation(line, X), rows=replace(rows, y=rows.X), n_sines=3)
    coef = system.zero()
    unit = float(system.basis.matrix(system.rows.X)[0, 0])
    coef[0], coef[1] = 0.5 / unit, 0.5 / unit
    start = Iterate(coef, system.phi.new_zeros(0), 0.0)
    scales = system.scales(system.blocks(coef, start.unknowns))
    found = gauss_newton(system, start, scales, alpha=1e-15, max_iter=50)
    assert found.value < 1e-15
    torch.testing.assert_close(found.coef, coef, rtol=0, atol=1e-13)


def test_a_start_that_is_not_finite_comes_back():
    system = system_of(Equation(lambda u, x, p: torch.log(u()) - u.d(0), X))
    start = begin(system)
    found = gauss_newton(system, start, [1.0, 1.0], alpha=1e-15, max_iter=10)
    assert torch.equal(found.coef, start.coef)
    assert found.value == math.inf
    assert found.n_steps == 0


def test_values_are_moved_to_the_nearest_bound():
    limits = [Unknown(0.5, (0, 1)), Unknown(0.0), Unknown(2.0, (1.0, 3.0))]
    values = torch.tensor([-2.0, 1e9, 1.5], dtype=torch.float64)
    assert inside(values, limits).tolist() == [0.0, 1e9, 1.5]
    assert inside(torch.tensor([2.0, -4.0, 7.0]).double(), limits).tolist() == [1.0, -4.0, 3.0]


def test_one_row_and_more_columns_than_rows():
    system = system_of(Equation(decay, X[:3]), rows=random_rows(1), n_sines=20)
    found = solve_affine(system, [1.0, 1.0], 1e-15)
    assert found.value < 1e-12
    steps = gauss_newton(system, begin(system), [1.0, 1.0], alpha=1e-15, max_iter=10)
    assert steps.value < 1e-12


def test_order_of_points_and_rows_makes_no_difference():
    order = np.random.default_rng(0).permutation(40)
    rows, found = random_rows(12, 2, 2), []
    x = points_in(PLANE, 40)
    for i, j in ((slice(None), slice(None)), (order, torch.arange(11, -1, -1))):
        equation = Equation(lambda u, x, p: u[0].d(0) + u[1]() ** 2, x[i])
        system = system_of(equation, PLANE, rows=rows.subset(j) if i is order else rows)
        start = Iterate(random_state(system)[0], system.phi.new_zeros(0), math.inf)
        scales = system.scales(system.blocks(start.coef, start.unknowns))
        found.append(gauss_newton(system, start, scales, alpha=1e-15, max_iter=50).value)
    assert found[0] == pytest.approx(found[1], rel=1e-9)
