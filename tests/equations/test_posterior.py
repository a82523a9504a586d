"""Noise and error bars of solutions of equations against dense inverses and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.core.models import Stage
from skpou.equations.collocation import Iterate, stacked
from skpou.equations.newton import gauss_newton, solve_affine
from skpou.equations.posterior import (
    doubted,
    fitted_model,
    held_by_bounds,
    last_deviations,
    noise_variance,
    of_round_off,
    rows_factor,
)
from skpou.physics import Equation, Unknown
from tests.equations.examples import (
    LINE,
    LINES,
    coupled_system,
    decay,
    decays,
    random_rows,
    random_state,
    system_of,
    units,
)
from tests.examples import tensor

X = np.linspace(0, 1, 40)[:, None]


def constant(u, x, p):
    return u.d(0)


def solved(system, scales, alpha=1e-12):
    return solve_affine(system, scales, alpha)


def weighted(system, iterate, scales):
    """Jacobian of all rows."""
    return stacked(system.blocks(iterate.coef, iterate.unknowns), scales)[1].numpy()


def root_of_inverse(system, iterate, scales, alpha):
    """B of ``B B'``, the inverse of the Gauss-Newton matrix with its ridge, in the data's units."""
    jacobian = weighted(system, iterate, scales)
    size = np.linalg.norm(jacobian[:, : system.n_coefficients], axis=0).max()
    ridge = alpha * size * np.eye(jacobian.shape[1])
    return scales[0] * np.linalg.pinv(np.concatenate([jacobian, ridge]), rcond=1e-18)


def of_outputs(system, root, points):
    """Standard deviations (n, m) of the outputs where the noise is 1."""
    phi, p = system.basis.matrix(tensor(points)).numpy(), system.n_columns
    parts = [phi @ root[k * p : (k + 1) * p] for k in range(system.n_outputs)]
    return np.stack([np.linalg.norm(part, axis=1) for part in parts], 1)


def deviations(model, points):
    """Standard deviations (n, m) of the mean."""
    return model.epistemic(tensor(points)).sqrt().numpy()


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 1.0])
def test_factor_of_all_rows(alpha):
    system = coupled_system()
    iterate = Iterate(*random_state(system), 0.0)
    scales = system.scales(system.blocks(iterate.coef, iterate.unknowns))
    R, residual = rows_factor(system, iterate, scales, alpha)
    # Columns of the unknowns are in units of their own: their ridge is judged elsewhere.
    size = system.n_coefficients
    jacobian = weighted(system, iterate, scales)
    expected = jacobian.T @ jacobian
    extra = (R.T @ R).numpy() - expected
    largest = math.sqrt(np.diag(expected)[:size].max())
    np.testing.assert_allclose(np.diag(extra)[:size], (alpha * largest) ** 2, atol=1e-13)
    np.testing.assert_allclose(extra - np.diag(np.diag(extra)), 0, atol=1e-13)
    for part, block, s in zip(
        residual, system.residuals(iterate.coef, iterate.unknowns), scales, strict=True
    ):
        torch.testing.assert_close(part, s * block)


def test_factor_of_the_solve_is_that_of_the_rows():
    system, scales = system_of(Equation(decay, X), n_sines=3), [1.0, 0.3]
    iterate = solved(system, scales, 1e-3)
    known, other = (
        rows_factor(system, part, scales, 1e-3)[0]
        for part in (iterate, replace(iterate, factor=None))
    )
    torch.testing.assert_close(known.T @ known, other.T @ other, rtol=1e-11, atol=1e-13)


def steady(n=25, m=1, slope=None, seed=0, sigma=0.1):
    """Noisy data of a constant, or of a line whose slope is unknown, and a heavy equation."""
    rows = random_rows(n, 1, m, seed)
    weight = torch.ones_like(rows.weight)
    y = sigma * rows.y + (0 if slope is None else slope * rows.X)
    rows = replace(rows, y=y, weight=weight)
    if slope is None:
        return system_of(Equation(constant, X), rows=rows), rows
    line = Equation(lambda u, x, p: u.d(0) - p["a"], X)
    return system_of(line, LINE, {"a": Unknown(slope + 0.1)}, rows), rows


def test_a_constant_is_the_mean_of_the_data():
    system, rows = steady()
    scales = [1.0, 1e4]
    iterate = solved(system, scales)
    model, reported = fitted_model(system, iterate, scales, 1e-12)
    y = rows.y[:, 0].numpy()
    assert float(model.noise) == pytest.approx(y.var(ddof=1), rel=1e-5)
    points = np.linspace(0, 1, 7)[:, None]
    np.testing.assert_allclose(model.mean(tensor(points)), y.mean(), rtol=1e-5)
    np.testing.assert_allclose(deviations(model, points), y.std(ddof=1) / 5, rtol=1e-5)
    assert reported["equation_residual"][0] < 1e-4


def test_rows_know_no_mean_to_less_than_round_off_of_its_sums():
    """However many rows there are: the floor of their noise rises with what they add up to."""
    basis = system_of(Equation(decay, X)).basis
    coef = torch.full((basis.n_columns, 1), 3.0, dtype=torch.float64)
    phi = basis.matrix(tensor(X))
    terms = (9 * phi.square().sum(1) + (3 * phi.sum(1)).square()).mean()
    for n_rows in (1.0, 1e8):
        factor = math.sqrt(n_rows) * torch.eye(basis.n_columns, dtype=torch.float64)
        stage = Stage(basis, coef, factor)
        noise = float(of_round_off(stage, tensor(X)))
        std = math.sqrt(noise * float(phi.square().sum(1).mean()) / n_rows)
        assert std == pytest.approx(10 * np.finfo(float).eps * math.sqrt(terms))


def test_a_line_of_unknown_slope_is_a_regression():
    system, rows = steady(slope=2.0)
    scales = [1.0, 1e4]
    start = Iterate(system.zero(), tensor([2.1]), math.inf)
    iterate = gauss_newton(system, start, scales, alpha=1e-12, max_iter=40)
    model, reported = fitted_model(system, iterate, scales, 1e-12)
    x, y = rows.X[:, 0].numpy(), rows.y[:, 0].numpy()
    A = np.c_[np.ones(25), x]
    coef, rss, *_ = np.linalg.lstsq(A, y, rcond=None)
    covariance = rss[0] / 23 * np.linalg.inv(A.T @ A)
    assert reported["unknowns"]["a"] == pytest.approx(coef[1], rel=1e-5)
    assert reported["unknowns_std"]["a"] == pytest.approx(math.sqrt(covariance[1, 1]), rel=1e-5)
    assert float(model.noise) == pytest.approx(rss[0] / 23, rel=1e-5)
    # The unknown is not held at its value: the line may turn about the middle of the data.
    points = np.linspace(0, 1, 7)
    B = np.c_[np.ones(7), points]
    expected = np.sqrt(np.einsum("ij,jk,ik->i", B, covariance, B))
    np.testing.assert_allclose(deviations(model, points[:, None])[:, 0], expected, rtol=1e-4)


def test_degrees_of_freedom_are_a_trace():
    system = system_of(Equation(decay, X), rows=random_rows(40), n_sines=6)
    for scales in ([1.0, 1e-3], [1.0, 1.0], [2.0, 100.0]):
        iterate = solved(system, scales)
        R, residual = rows_factor(system, iterate, scales, 1e-12)
        noise = float(noise_variance(system, R, residual, scales))
        A = (system.root[:, None] * system.phi).numpy()
        dof = np.linalg.norm(A @ root_of_inverse(system, iterate, scales, 1e-12)) ** 2
        rss = float(residual[0].square().sum()) / scales[0] ** 2
        whole = sum(float(r.square().sum()) for r in residual) / scales[0] ** 2
        floor = whole / (80 - system.n_coefficients)
        expected = max(rss / (float(system.rows.weight.sum()) - dof), floor)
        assert noise == pytest.approx(expected, rel=1e-8)


def test_spread_of_repeated_points_is_noise():
    system, rows = steady()
    within = torch.full_like(rows.within, 0.02)
    weight = 2 * rows.weight
    system.rows = replace(rows, within=within, weight=weight)
    scales = [1.0, 1e4]
    R, residual = rows_factor(system, solved(system, scales), scales, 1e-12)
    again = float(residual[0].square().sum()) + 25 * 0.02
    dof = float(torch.linalg.solve_triangular(R, system.root[:, None] * system.phi, upper=True,
                left=False).square().sum())  # fmt: skip
    assert float(noise_variance(system, R, residual, scales)) == pytest.approx(again / (50 - dof))


@pytest.mark.parametrize("sigma", [1.0, 1e-3, 1e-6])
def test_noise_of_several_outputs_is_that_of_each(sigma):
    """Outputs that no equation couples, of which one is much noisier than the other."""
    rows = random_rows(30, 1, 2)
    smooth = torch.exp(-rows.X)
    y = smooth + tensor([[0.3, 0.3 * sigma]]) * rows.y
    rows, scales, alpha = replace(rows, y=y), [1.0, 0.5], 1e-12
    first = Equation(lambda u, x, p: u[0].d(0) + u[0](), X)
    second = Equation(lambda u, x, p: u[1].d(0) + u[1](), X)
    both = system_of([first, second], LINES, rows=rows, n_sines=2)
    R, residual = rows_factor(both, solved(both, [*scales, 0.5]), [*scales, 0.5], alpha)
    found = noise_variance(both, R, residual, [*scales, 0.5])
    for k in range(2):
        one = system_of(Equation(decay, X), rows=replace(rows, y=y[:, k : k + 1],
                       within=rows.within[:, :1]), n_sines=2)  # fmt: skip
        R, residual = rows_factor(one, solved(one, scales), scales, alpha)
        expected = float(noise_variance(one, R, residual, scales))
        assert float(found[k]) == pytest.approx(expected, rel=1e-6)


def test_an_output_without_an_equation_is_as_free_as_its_columns():
    """One output is a constant by its equation; the other is fitted by all its columns."""
    rows = random_rows(30, 1, 2)
    rows = replace(rows, weight=torch.ones_like(rows.weight))
    system = system_of(Equation(lambda u, x, p: u[0].d(0), X), LINES, rows=rows, n_sines=2)
    scales = [1.0, 1e4]
    R, residual = rows_factor(system, solved(system, scales), scales, 1e-12)
    found = noise_variance(system, R, residual, scales)
    y, phi = rows.y.numpy(), system.phi.numpy()
    rss = np.linalg.lstsq(phi, y[:, 1], rcond=None)[1][0]
    assert float(found[0]) == pytest.approx(y[:, 0].var(ddof=1), rel=1e-4)
    assert float(found[1]) == pytest.approx(rss / (30 - phi.shape[1]), rel=1e-4)


def test_without_data_the_misfit_is_the_noise():
    system = system_of(Equation(decay, X, target=1 + np.abs(X[:, 0] - 0.5)), rows=random_rows(0))
    scales = system.scales(system.blocks(system.zero(), tensor([])))
    iterate = solved(system, scales)
    R, residual = rows_factor(system, iterate, scales, 1e-12)
    expected = iterate.value**2 / (40 - system.n_coefficients)
    assert float(noise_variance(system, R, residual, scales)) == pytest.approx(expected)


def test_one_output_has_the_covariance_of_all_rows():
    system, scales = system_of(Equation(decay, X), n_sines=3), [1.7, 0.3]
    iterate = solved(system, scales)
    model, _ = fitted_model(system, iterate, scales, 1e-12)
    expected = of_outputs(system, root_of_inverse(system, iterate, scales, 1e-12), X)
    found = deviations(model, X) / model.noise.sqrt().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_unknowns_widen_the_solution():
    """The covariance of the coefficients is a block of the inverse, not the inverse of a block."""
    rows = random_rows(30)
    system = system_of(
        Equation(lambda u, x, p: u.d(0) + p["a"] * u() - p["b"], X),
        LINE, {"a": Unknown(1.0), "b": Unknown(0.3)}, rows, 3,
    )  # fmt: skip
    iterate = Iterate(random_state(system)[0], tensor([1.0, 0.3]), 0.0)
    scales, alpha, size = [1.0, 0.5], 1e-12, system.n_coefficients
    R, _ = rows_factor(system, iterate, scales, alpha)
    root = root_of_inverse(system, iterate, scales, alpha)
    model, _ = fitted_model(system, iterate, scales, alpha)
    found = deviations(model, X) / model.noise.sqrt().numpy()
    np.testing.assert_allclose(found, of_outputs(system, root, X), rtol=1e-6)
    found = last_deviations(R, 2, tensor([4.0]))
    assert found == pytest.approx(2 / scales[0] * np.linalg.norm(root[size:], axis=1), rel=1e-6)
    assert last_deviations(R, 0, tensor([4.0])) == []


def own_deviations(system, scales, points, alpha=1e-12):
    """Deviations of the outputs over their noise, by the whole inverse and by the model."""
    iterate = solved(system, scales, alpha)
    model, _ = fitted_model(system, iterate, scales, alpha)
    expected = of_outputs(system, root_of_inverse(system, iterate, scales, alpha), points)
    return deviations(model, points) / model.noise.sqrt().numpy(), expected


@pytest.mark.parametrize(
    "residual",
    [
        decays,
        lambda u, x, p: u[0]() - u[1](),
        lambda u, x, p: u[0].d(0) - 3 * u[1](),
        lambda u, x, p: u[0].d(0) + u[0](),
    ],
    ids=["apart", "equal", "derivative", "first alone"],
)
def test_every_output_has_its_own_block_of_the_inverse(residual):
    rows = random_rows(14, 1, 2)
    system = system_of(Equation(residual, X), LINES, rows=replace(rows, X=0.7 * rows.X), n_sines=4)
    found, expected = own_deviations(system, [1.0, 2.0], np.linspace(0, 1, 11)[:, None], 1e-8)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_outputs_that_are_equal_are_unknown_together():
    """The equation says that both are the same, not what they are where there are no data."""
    rows = random_rows(14, 1, 2)
    rows = replace(rows, X=0.3 * rows.X)
    system = system_of(Equation(lambda u, x, p: u[0]() - u[1](), X), LINES, rows=rows, n_sines=4)
    iterate = solved(system, [1.0, 2.0])
    model, _ = fitted_model(system, iterate, [1.0, 2.0], 1e-12)
    near, far = deviations(model, [[0.15], [1.0]])
    assert far.min() > 1e3 * near.max()


@pytest.mark.parametrize("unit", [1e-18, 1e-12, 1e-6, 1e6, 1e12, 1e18])
def test_units_of_an_unknown_make_no_difference(unit):
    def equation(unit):
        return Equation(lambda u, x, p: u.d(0) + unit * p["a"] * u(), X)

    rows, found = random_rows(30), []
    for s in (1.0, unit):
        system = system_of(equation(s), LINE, {"a": Unknown(1.0 / s)}, rows, 8)
        iterate = Iterate(random_state(system)[0], tensor([1.0 / s]), 0.0)
        scales = system.scales(system.blocks(iterate.coef, iterate.unknowns))
        model, reported = fitted_model(system, iterate, scales, 1e-12)
        found.append((s * reported["unknowns_std"]["a"], deviations(model, [[0.2], [0.9]])))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)


def test_residuals_are_reported_at_fresh_points():
    box = units([0.0], [3.0], [1.0], [2.0])
    equations = [Equation(decay, 3 * X), Equation(decay, 3 * X, 5.0)]
    system = system_of(equations, box)
    coef, unknowns = random_state(system)
    scales = system.scales(system.blocks(coef, unknowns))
    _, reported = fitted_model(system, Iterate(coef, unknowns, 0.0), scales, 1e-12)
    for k, target in enumerate((0.0, 5.0)):
        points = system.problem.fresh[k].points.clone().requires_grad_()
        u = 1 + 2 * system.basis.matrix(points) @ coef
        slope = torch.autograd.grad(u.sum(), points)[0] / 3
        rms = float((slope + u - target).detach().square().mean().sqrt())
        assert reported["equation_residual"][k] == pytest.approx(rms)


def test_earlier_stages_come_first():
    system = system_of(Equation(decay, X), n_sines=3)
    iterate = solved(system, [1.0, 1.0])
    first, _ = fitted_model(system, iterate, [1.0, 1.0], 1e-12)
    later = system_of(Equation(decay, X), n_sines=4, before=first.stages)
    model, _ = fitted_model(later, solved(later, [1.0, 1.0]), [1.0, 1.0], 1e-12)
    assert model.stages[0] is first.stages[0]
    assert len(model.stages) == 2


@pytest.mark.parametrize("size", [1e-6, 30.0])
def test_what_solves_nothing_is_off_by_its_own_size(size):
    system = system_of(Equation(decays, X), LINES, rows=random_rows(12, 1, 2))
    scales = system.scales(system.blocks(*random_state(system)))
    iterate = solved(system, scales)
    iterate = replace(iterate, coef=size * iterate.coef)
    model, _ = fitted_model(system, iterate, scales, 1e-12)
    found = doubted(model, tensor(X))
    assert torch.equal(found.mean(tensor(X)), model.mean(tensor(X)))
    assert (found.epistemic(tensor(X)) >= model.epistemic(tensor(X))).all()
    own = found.mean(tensor(X)).square().mean(0)
    assert (found.epistemic(tensor(X)).median(0).values >= 0.5 * own.clamp_min(1.0)).all()


@pytest.mark.parametrize(("value", "deviation", "is_held"), [
    (0.3, 1e-3, True), (0.30000005, 1e-12, True), (0.3001, 1e-2, True), (1.3, 1e-9, True),
    (0.3001, 1e-6, False), (0.32, 2e-2, False), (0.5, 0.1, False),
])  # fmt: skip
def test_unknowns_next_to_a_bound_are_held_by_it(value, deviation, is_held):
    unknowns = {"a": Unknown(0.6, bounds=(0.3, 1.3)), "free": Unknown(0.3)}
    found = held_by_bounds(unknowns, {"a": value, "free": 0.3}, {"a": deviation, "free": 1.0})
    assert found == ["a"] * is_held
