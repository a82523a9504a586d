"""Bandwidths for equations: few points, units, starts, and what is carried from basis to basis."""

import numpy as np
import pytest
import torch

from skpou.equations.collocation import Iterate
from skpou.equations.fit import AffineSearch, ContinuedSearch, fit_equations
from skpou.equations.problem import compile_problem
from skpou.equations.search import EquationOptions, Solution
from skpou.physics import Equation, Unknown
from skpou.sines.spectrum import Spectrum
from tests.equations.examples import LINE, UNKNOWNS, decay, points_in, sines, units
from tests.examples import rows_of, tensor

FINE = tensor(np.linspace(0, 1, 41)[:, None])


def fitted(residual, n=60, box=LINE, X=((0.0,),), y=(1.0,), unknowns=None, **options):
    """Fit to data in the unit box and scaled units, equation at points in units of X."""
    points = box.offset.numpy() + np.linspace(0, 1, n)[:, None] * box.width.numpy()
    problem = compile_problem([Equation(residual, points)], unknowns or {}, box, 1, seed=0)
    options, rng = EquationOptions(**options), np.random.default_rng(0)
    return fit_equations(rows_of(X, y), problem, options, rng), problem


def riccati(u, x, p):
    return u.d(0) + u() ** 2


@pytest.mark.parametrize("n", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("residual", [decay, riccati])
def test_few_points(residual, n):
    result, _ = fitted(residual, n)
    mean = result.state.mean(FINE)
    assert torch.isfinite(mean).all()
    assert float(mean[0]) == pytest.approx(1, abs=1e-3)


def test_a_solution_that_the_first_features_have():
    """The linear columns solve it exactly, and no other bandwidth can be better."""
    result, _ = fitted(lambda u, x, p: u.d(0) ** 2 - 1, X=[[0.0], [1.0]], y=[0.0, 1.0])
    torch.testing.assert_close(result.state.mean(FINE), FINE, rtol=0, atol=1e-12)


@pytest.mark.parametrize("points_are_better", [False, True])
def test_any_best_start_can_be_the_result(monkeypatch, points_are_better):
    """Whether the continuation helps or not, the result has its rows' factors."""
    if not points_are_better:
        monkeypatch.setattr(ContinuedSearch, "_ladder", lambda self: [])
    result, _ = fitted(riccati)
    expected = 1 / (1 + FINE)
    torch.testing.assert_close(result.state.mean(FINE), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1e-14, 1e14])
def test_units_of_y_make_no_difference(size):
    """Logistic growth u' = 3 u (1 - u / size), in units of y and in scaled ones."""

    def growth(size):
        return lambda u, x, p: u.d(0) - 3 * u() * (1 - u() / size)

    found = []
    for s in (1.0, size):
        result, problem = fitted(growth(s), box=units([0.0], [1.0], [0.0], [s]), y=[0.1])
        found.append(result.state.mean(FINE))
        assert not problem.is_affine
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)
    exact = 1 / (1 + 9 * torch.exp(-3 * FINE))
    torch.testing.assert_close(found[1], exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("length", [1e-14, 1e14])
def test_units_of_x_make_no_difference(length):
    box = units([5 * length], [6 * length], [0.0], [1.0])
    result, problem = fitted(lambda u, x, p: length * u.d(0) + u() ** 2, box=box)
    assert not problem.is_affine
    torch.testing.assert_close(result.state.mean(FINE), 1 / (1 + FINE), rtol=0, atol=1e-9)
    result, problem = fitted(lambda u, x, p: length * u.d(0) + u(), box=box)
    assert problem.is_affine
    torch.testing.assert_close(result.state.mean(FINE), torch.exp(-FINE), rtol=0, atol=1e-9)


def test_affine_equations_need_no_starts_and_others_end_at_the_same_solution():
    problem = compile_problem([Equation(decay, FINE.numpy())], {}, LINE, 1, seed=0)
    rows, options = rows_of([[0.0]], [1.0]), EquationOptions()
    found = [
        cls(rows, problem, options, np.random.default_rng(0)).run().state.mean(FINE)
        for cls in (AffineSearch, ContinuedSearch)
    ]
    for mean in found:
        torch.testing.assert_close(mean, torch.exp(-FINE), rtol=0, atol=1e-9)


def continued(unknowns, residual=None, most=None):
    residual = residual or (lambda u, x, p: u.d(0) + sum(p[k] for k in unknowns) * u() ** 2)
    problem = compile_problem([Equation(residual, FINE.numpy())], unknowns, LINE, 1, seed=0)
    X = np.linspace(0, 1, 9)[:, None]
    rows = rows_of(X, 1 / (1 + X[:, 0]))
    return ContinuedSearch(rows, problem, EquationOptions(), np.random.default_rng(0))


def test_starts_spread_over_the_bounds():
    (only,) = continued(UNKNOWNS)._starts()  # One of them has no bounds.
    assert only.tolist() == [0.5, 2.0]
    bounded = {"a": Unknown(2.0, (1.0, 3.0))}
    starts = torch.stack(continued(bounded)._starts())[:, 0]
    np.testing.assert_allclose(starts, [2.0, 1.2, 1.6, 2.0, 2.6])
    two = {"a": Unknown(2.0, (1.0, 3.0)), "b": Unknown(0.0, (-7.0, 1.0))}
    starts = torch.stack(continued(two)._starts())
    assert starts[0].tolist() == [2.0, 0.0]
    assert len(starts) == 5
    low, high = tensor([1.0, -7.0]), tensor([3.0, 1.0])
    assert ((starts >= low) & (starts <= high)).all()
    # Low discrepancy: both halves of each interval have two.
    assert ((starts[1:] < (low + high) / 2).sum(0) == 2).all()


def test_solutions_are_carried_to_other_bases():
    search = continued(UNKNOWNS)
    basis, wide = sines(1, 4, 2.0), sines(1, 60, 12.0, seed=3)
    coef = tensor(np.random.default_rng(1).standard_normal((basis.n_columns, 1)))
    last = Solution(
        Spectrum("flat", 2.0, (1.0,)), basis, Iterate(coef, tensor([1.5, 3.0]), 0.0), 0.0
    )
    system = search._system(wide, search.problem.terms)
    carried = search._carried(system, last)
    assert carried.unknowns.tolist() == [1.5, 3.0]
    torch.testing.assert_close(
        wide.matrix(FINE) @ carried.coef, basis.matrix(FINE) @ coef, rtol=0, atol=1e-8
    )
    fresh = search._carried(system, None)
    assert not fresh.coef.any()
    assert torch.equal(fresh.unknowns, search.unknowns)


def test_a_start_near_the_data_fits_them():
    search = continued({"a": Unknown(1.0)})
    system = search._system(sines(1, 20, 3.0), search.problem.pilot)
    coef = search._smooth_data(system)
    torch.testing.assert_close(system.phi @ coef, system.y, rtol=0, atol=1e-2)
    empty = search.rows.subset(torch.arange(0))
    system = type(system)(system.basis, empty, system.terms, system.problem)
    search.rows = empty
    assert not search._smooth_data(system).any()


@pytest.mark.parametrize(
    ("bounds", "init", "expected"),
    [((1.9, 2.1), 1.95, 2.0), ((1.0, 1.5), 1.2, 1.5), (None, 1.2, 2.0)],
)
def test_unknown_in_tight_bounds(bounds, init, expected):
    """Bounds that are hardly wider than what the data leave open, or that exclude the best."""
    X = np.linspace(0, 1, 9)[:, None]
    unknowns = {"a": Unknown(init, bounds)}

    def residual(u, x, p):
        return u.d(0) + p["a"] * u() ** 2

    result, _ = fitted(residual, 30, X=X, y=1 / (1 + 2 * X[:, 0]), unknowns=unknowns)
    assert result.chosen["unknowns"]["a"] == pytest.approx(expected, rel=1e-5)
    # At a bound a standard deviation is that of no constraint.
    assert ("unknowns 'a' ended at a bound" in result.message) == (expected == 1.5)
    assert (result.code == "max_iter") == (expected == 1.5)


def plane_wave(x, y):
    return np.sin(4 * (x + 2 * y))


@pytest.mark.parametrize("residual", [
    lambda u, x, p: 2 * u.d(0) - u.d(1),
    lambda u, x, p: u.d(0) - 4 * torch.cos(4 * (x[:, 0] + 2 * x[:, 1])),
])  # fmt: skip
def test_directions_of_a_plane(residual):
    """A wave along an oblique direction, from data on two sides."""
    box = units([0.0, 0.0], [1.0, 1.0], [0.0], [1.0])
    problem = compile_problem([Equation(residual, points_in(box, 500))], {}, box, 2, seed=0)
    line = np.linspace(0, 1, 40)
    sides = np.concatenate(
        [np.c_[line, 0 * line], np.c_[0 * line, line], np.c_[line, 1 + 0 * line]]
    )
    rows = rows_of(sides, plane_wave(*sides.T))
    search = AffineSearch(rows, problem, EquationOptions(), np.random.default_rng(0))
    result = search.run()
    fresh = np.random.default_rng(5).random((200, 2))
    found = result.state.mean(tensor(fresh))[:, 0].numpy()
    # Characteristics that begin on none of these sides are unknown.
    known = fresh[:, 0] + 2 * fresh[:, 1] < 3
    np.testing.assert_allclose(found[known], plane_wave(*fresh[known].T), atol=1e-5)


def test_directions_are_measured_again():
    """Laplace's equation in four columns; the solution varies along two directions of four."""
    box = units([0.0] * 4, [1.0] * 4, [0.0], [1.0])

    def exact(X):
        return np.exp(X[:, 0] + X[:, 1]) * np.sin(X[:, 2] + X[:, 3])

    equation = Equation(lambda u, x, p: sum(u.d(j, j) for j in range(4)), points_in(box, 400))
    problem = compile_problem([equation], {}, box, 4, seed=0)
    faces = np.random.default_rng(1).random((400, 4))
    faces[np.arange(400), np.arange(400) % 4] = np.arange(400) // 4 % 2
    search = AffineSearch(
        rows_of(faces, exact(faces)), problem, EquationOptions(), np.random.default_rng(0)
    )
    found = search.run()
    fresh = np.random.default_rng(5).random((200, 4))
    np.testing.assert_allclose(found.state.mean(tensor(fresh))[:, 0], exact(fresh), atol=1e-7)
    sizes = np.linalg.svd(search.solution.basis.frequencies.numpy(), compute_uv=False)
    assert sizes[2] < 0.02 * sizes[1]
