"""Equations at points: what is traced, slopes, fresh points, stages, interruption."""

import numpy as np
import pytest
import torch

from skpou.core.records import TrainingInterrupted
from skpou.core.rows import merge_rows
from skpou.core.scaling import Scaling
from skpou.equations.collocation import root_of_squares
from skpou.equations.fit import fit_equations
from skpou.equations.points import fills_its_box
from skpou.equations.problem import MOST_ADDED, compile_problem
from skpou.equations.search import EquationOptions
from skpou.physics import Condition, Equation, Unknown

POINTS = np.random.default_rng(0).uniform(1, 2, (30, 2))


def mixed(u, x, p):
    """Two components, nonlinear in values, derivatives, points and unknowns."""
    first = p["a"] * u() * u.d(0) + torch.sin(x[:, 1]) * u.d(1, 0)
    return torch.stack([first, u.d(1, 1) ** 2 - p["b"]], 1)


def transport(u, x, p):
    return u.d(1) + x[:, 0] ** 2 * u.d(0) + u()


def decay(u, x, p):
    return u.d(0) + u()


def scaling(d, low=1.0, high=2.0, m=1):
    ends = torch.tensor([[low] * d, [high] * d], dtype=torch.float64)
    box = Scaling.from_box(ends, torch.ones(2, dtype=torch.float64))
    mean, scale = torch.zeros(m, dtype=torch.float64), torch.ones(m, dtype=torch.float64)
    return Scaling(box.columns, box.offset, box.width, mean, scale)


def compiled(equation, d=2, unknowns=None):
    return compile_problem([equation], unknowns or {}, scaling(d), d, seed=0)


UNKNOWNS = {"a": Unknown(0.5), "b": Unknown(2.0)}


def test_only_what_is_asked_for_is_evaluated():
    problem = compiled(Equation(mixed, POINTS), unknowns=UNKNOWNS)
    (term,) = problem.terms
    assert set(term.pointwise.keys) == {(0, ()), (0, (0,)), (0, (0, 1)), (0, (1, 1))}
    assert not problem.is_affine


@pytest.mark.parametrize(
    ("residual", "affine"),
    [
        (transport, True),
        (lambda u, x, p: u.d(0) * u(), False),
        (lambda u, x, p: torch.exp(x[:, 0]) * u.d(0, 0) + 1, True),
        (lambda u, x, p: torch.sqrt(u()) - u.d(0), False),
        (lambda u, x, p: torch.relu(u.d(0)) + u(), False),
    ],
    ids=["transport", "product", "affine", "root", "kink"],
)
def test_affine_equations_are_recognised(residual, affine):
    assert compiled(Equation(residual, POINTS)).is_affine is affine


def values_at(keys, n, seed=1):
    rng = np.random.default_rng(seed)
    return {key: torch.tensor(rng.standard_normal(n)) for key in keys}


def test_slopes_are_difference_quotients():
    (term,) = compiled(Equation(mixed, POINTS), unknowns=UNKNOWNS).terms
    pointwise, x = term.pointwise, term.x
    values = values_at(pointwise.keys, len(x))
    p = {"a": torch.tensor(0.3, dtype=torch.float64), "b": torch.tensor(1.0, dtype=torch.float64)}
    result, by_value, by_unknown = pointwise.linearise(values, x, p)
    assert result.shape == (30, 2)
    h = 1e-6
    for key in pointwise.keys:
        ahead, behind = ({**values, key: values[key] + s * h} for s in (1, -1))
        quotient = (pointwise.function(ahead, x, p) - pointwise.function(behind, x, p)) / (2 * h)
        torch.testing.assert_close(by_value[key], quotient.detach(), rtol=1e-7, atol=1e-8)
    for name in p:
        ahead, behind = ({**p, name: p[name] + s * h} for s in (1, -1))
        quotient = pointwise.function(values, x, ahead) - pointwise.function(values, x, behind)
        quotient = quotient.detach() / (2 * h)
        torch.testing.assert_close(by_unknown[name], quotient, rtol=1e-7, atol=1e-8)


def test_gradient_of_an_equation_is_its_total_derivative():
    """For u = x y^2: r = u_y + x^2 u_x + u, so dr/dx = 2 y + 2 x y^2 + y^2."""
    (term,) = compiled(Equation(transport, POINTS)).terms
    along = term.pointwise.along(0)
    x, y = term.x.T
    exact = {
        (0, ()): x * y**2, (0, (0,)): y**2, (0, (1,)): 2 * x * y,
        (0, (0, 0)): 0 * x, (0, (0, 1)): 2 * y,
    }  # fmt: skip
    assert set(along.keys) == set(exact)
    result, slopes, _ = along.linearise(exact, term.x, {})
    torch.testing.assert_close(result[:, 0], 2 * y + 2 * x * y**2 + y**2)
    torch.testing.assert_close(slopes[0, (0, 0)][:, 0], x**2)
    torch.testing.assert_close(slopes[0, (0,)][:, 0], 2 * x + 1)


@pytest.mark.parametrize(
    ("points", "fills"),
    [
        (np.random.default_rng(0).random((2000, 2)), True),
        (np.random.default_rng(0).random((30, 2)), False),
        (np.linspace(0, 1, 20)[:, None], True),
        (np.c_[np.linspace(0, 1, 200), np.zeros(200)], False),
    ],
    ids=["square", "few", "line", "flat"],
)
def test_points_that_fill_their_box(points, fills):
    assert fills_its_box(points) is fills


def test_fresh_points_stay_inside_a_disc():
    rng = np.random.default_rng(0)
    disc = rng.uniform(-1, 1, (4000, 2))
    disc = 1.5 + disc[np.hypot(*disc.T) < 1] / 2
    problem = compiled(Equation(transport, disc))
    kept, fresh = problem.pilot[0].x, problem.fresh[0].x
    assert np.hypot(*(fresh.numpy() - 1.5).T).max() <= 0.5
    seen = {tuple(x) for x in kept.tolist()}
    assert not seen & {tuple(x) for x in fresh.tolist()}


def decay_rows():
    one = torch.ones(1, 1, dtype=torch.float64)
    return merge_rows(0 * one, one, one[0])


def test_later_stages_solve_for_what_is_left():
    """A large ridge leaves a residue, of which the second stage removes most."""
    X = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    errors = []
    for n_stages in (1, 2):
        problem = compile_problem(
            [Equation(decay, 4 * X.numpy())], {}, scaling(1, 0.0, 4.0), 1, seed=0
        )
        options = EquationOptions(n_stages=n_stages, alpha=1e-3)
        result = fit_equations(decay_rows(), problem, options, np.random.default_rng(0))
        errors.append(float((result.state.mean(X)[:, 0] - torch.exp(-4 * X[:, 0])).abs().max()))
        assert len(result.state.stages) == n_stages
    assert errors[1] < 0.3 * errors[0]


def test_later_stages_linearise():
    def riccati(u, x, p):
        return u.d(0) + p["a"] * u() ** 2

    X = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    data = merge_rows(X[::25], 1 / (1 + 2 * X[::25]), torch.ones(5, dtype=torch.float64))
    problem = compile_problem(
        [Equation(riccati, X.numpy())], {"a": Unknown(1.0)}, scaling(1, 0.0, 1.0), 1, seed=0
    )
    found = []
    for n_stages in (1, 3):
        options = EquationOptions(n_stages=n_stages, max_iter=2)
        result = fit_equations(data, problem, options, np.random.default_rng(0))
        found.append(abs(result.chosen["unknowns"]["a"] - 2))
    assert found[1] < 1e-9


def test_interrupt_keeps_the_best_so_far():
    problem = compile_problem(
        [Equation(decay, "sobol", weight=1.0)], {}, scaling(1, 0.0, 1.0), 1, seed=0
    )

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as raised:
        fit_equations(decay_rows(), problem, EquationOptions(), np.random.default_rng(0), (), stop)
    assert raised.value.result is None or raised.value.result.code == "interrupted"


@pytest.mark.parametrize("unit", [1e-250, 1.0, 1e250])
def test_root_of_squares(unit):
    values = torch.tensor([3.0, 4.0], dtype=torch.float64) * unit
    assert root_of_squares(values) == pytest.approx(5 * unit)
    assert root_of_squares(values[:0]) == 0


@pytest.mark.parametrize(("width", "told"), [(5e-323, r"4\.94e-323"), (8e-301, "8e-301")])
def test_columns_too_short_for_a_derivative_are_named(width, told):
    """In the second case the derivative is finite, and sums of terms that cancel are not."""
    with pytest.raises(ValueError, match=rf"along column 0 of X, which spans {told} only"):
        compile_problem([Equation(decay, "sobol")], {}, scaling(1, 0.0, width), 1, seed=0)


def test_as_many_points_as_determine_the_parameters():
    """Equations and their gradients have the same; conditions and given targets stay."""
    t = np.linspace(1, 3, 20)[:, None]
    free = Equation(decay, t, gradient_weight=0.5)
    condition = Condition(decay, t)
    given = Equation(decay, t, target=t[:, 0])
    problem = compile_problem([free, condition, given], {}, scaling(1), 1, seed=0)
    found = problem.determining(100)
    assert [term.n_points for term in found.terms] == [200, 200, 20, 20]
    equation, gradient = found.terms[:2]
    assert torch.equal(equation.x, gradient.x)
    assert torch.equal(equation.x[:20], problem.terms[0].x)
    torch.testing.assert_close(found.scaling.points(equation.x), equation.points)
    assert problem.determining(10).terms == problem.terms
    assert problem.determining(10**9).terms[0].n_points == MOST_ADDED
