"""Where equations are solved and judged: boxes, samplers, and points that are held out."""

import numpy as np
import pytest
import torch

from skpou.equations.points import (
    CELLS,
    PILOT_POINTS,
    equation_points,
    fills_its_box,
    full_box,
    held_out,
    mixtures_of_neighbours,
)
from skpou.equations.problem import compile_problem
from skpou.physics import N_POINTS, SAMPLERS, Equation, Unknown
from tests.equations.examples import LINE, PLANE, decay, points_in, units
from tests.examples import tensor

ZERO = tensor([[0.0]])


def any_equation(points, **options):
    return Equation(decay, points, **options)


def test_ends_of_columns_that_do_not_vary_are_unknown():
    scaling = units([1.0, -2.0], [4.0, 0.5], [0.0], [1.0])
    scaling = type(scaling)(
        torch.tensor([0, 2]), scaling.offset, scaling.width, scaling.mean, scaling.scale
    )
    low, high = full_box(scaling, 4)
    np.testing.assert_array_equal(low, [1.0, np.nan, -2.0, np.nan])
    np.testing.assert_array_equal(high, [4.0, np.nan, 0.5, np.nan])
    with pytest.raises(ValueError, match="column 1 of X takes a single value"):
        equation_points(any_equation("sobol"), low, high, 0)
    assert equation_points(any_equation("sobol", box=np.ones((4, 2))), low, high, 0).shape[1] == 4


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_samplers_fill_their_box(kind, d):
    low, high = np.arange(d) - 1.0, np.arange(d) * 3.0
    x = equation_points(any_equation(kind), low, high, 3)
    n = N_POINTS[min(d, 3) - 1]
    assert x.shape[1] == d
    assert len(x) == pytest.approx(n, rel=0.2)
    assert (low <= x).all()
    assert (x <= high).all()
    # Nothing leans to one side.
    np.testing.assert_allclose(x.mean(0), (low + high) / 2, atol=0.05 * (high - low).max())
    box = np.stack([low - 7, low - 6], 1)
    other = equation_points(any_equation(kind, box=box, n_points=32), low, high, 3)
    assert (other <= low - 6).all()
    given = equation_points(any_equation(x), low, high, 3)
    np.testing.assert_array_equal(given, x)


def test_chebyshev_points_are_a_grid_with_the_corners():
    x = equation_points(any_equation("chebyshev", n_points=25), np.zeros(2), np.ones(2), 0)
    line = (1 - np.cos(np.pi * np.arange(5) / 4)) / 2
    np.testing.assert_allclose(np.unique(x[:, 1]), np.unique(line), atol=1e-15)
    assert len(np.unique(x, axis=0)) == 25


@pytest.mark.parametrize("n", [1, 5, 9, 10, 11, 57])
def test_points_that_do_not_fill_a_box_are_divided(n):
    x = points_in(PLANE, n)
    held = held_out(any_equation(x), tensor(x), *full_box(PLANE, 2), 4, ZERO)
    assert held.x is None
    both = torch.cat([held.fitted, held.left_out]).tolist()
    if n < 10:
        assert held.fitted.tolist() == held.left_out.tolist() == list(range(n))
    else:
        assert sorted(both) == list(range(n))
        assert len(held.left_out) == n // 5
        assert (held.fitted.diff() > 0).all()
        assert (held.left_out.diff() > 0).all()


@pytest.mark.parametrize("n", [64, 400, 3000])
def test_fresh_points_are_in_the_box_and_new(n):
    x = points_in(PLANE, n) if n > 64 else np.stack(np.meshgrid(*[np.arange(8.0)] * 2), -1)
    x = x.reshape(-1, 2)
    held = held_out(any_equation(x), tensor(x), *full_box(PLANE, 2), 4, ZERO)
    if not fills_its_box(x):
        assert held.x is None
        return
    assert len(held.x) == min(max(n, 200), 1000)
    fresh = held.x.numpy()
    assert (fresh >= x.min(0)).all()
    assert (fresh <= x.max(0)).all()
    assert not (fresh[:, None] == x).all(2).any()


def test_targets_at_given_points_are_judged_where_they_are_known():
    x = np.linspace(0, 1, 60)[:, None]
    assert fills_its_box(x)
    held = held_out(any_equation(x), tensor(x), *full_box(LINE, 1), 0, tensor(x))
    assert held.x is None


@pytest.mark.parametrize("n", [50, 300, 1000])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_targets_at_points_of_a_sampler_stay_with_them(kind, n):
    """The right-hand side of u' + u is given at the sampler's points, in their order."""
    x = equation_points(any_equation(kind, n_points=n), np.zeros(1), np.ones(1), 0)
    target = np.sin(5 * x[:, 0])
    equation = any_equation(kind, n_points=n, target=target)
    problem = compile_problem([equation], {}, LINE, 1, seed=0)
    for part in (*problem.terms, *problem.pilot, *problem.fresh):
        assert len(part.target) == len(part.x)
        torch.testing.assert_close(part.target[:, 0], torch.sin(5 * part.x[:, 0]))


def brute_force(points):
    low, high = points.min(0), points.max(0)
    edges = [np.linspace(a, b, CELLS + 1) for a, b in zip(low, high, strict=True)]
    return bool((np.histogramdd(points, edges)[0] > 0).all())


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_cells_of_the_box(d, seed):
    rng = np.random.default_rng(seed)
    points = 1e3 * rng.random((int(5 * CELLS**d * rng.uniform(0.5, 1.5)), d)) - 7
    assert fills_its_box(points) == brute_force(points)


@pytest.mark.parametrize("points", [[[1.0]], [[1.0], [1.0]], [[0.0, 1.0]] * 100])
def test_equal_points_fill_nothing(points):
    assert not fills_its_box(np.array(points))


def test_pilot_has_not_too_many_points_of_a_plane():
    def residual(u, x, p):
        return u.d(0) + p["a"] * u.d(1) + x[:, 0]

    x = points_in(PLANE, 5000)
    scaling = units([1.0, -2.0], [4.0, 0.5], [0.0], [1.0])
    equation = Equation(residual, x, gradient_weight=0.1)
    problem = compile_problem([equation], {"a": Unknown(1.0)}, scaling, 2, seed=0)
    assert [len(term.x) for term in problem.pilot] == [PILOT_POINTS] * 3
    # The gradient is taken at the same points as the equation.
    for term in problem.pilot[1:]:
        assert torch.equal(term.x, problem.pilot[0].x)
    seen = {tuple(point) for point in x.tolist()}
    assert {tuple(point) for point in problem.pilot[0].x.tolist()} <= seen
    assert [len(term.x) for term in problem.terms] == [5000] * 3
    for term in (*problem.terms, *problem.pilot, *problem.fresh):
        torch.testing.assert_close(term.points, scaling.points(term.x))


def test_points_between_others_are_as_dense_as_these():
    own = tensor(np.linspace(0, 1, 41)[:, None] ** 3)
    weights = mixtures_of_neighbours(own, 4000, seed=0)
    assert weights.shape == (4000, 41)
    torch.testing.assert_close(weights.sum(1), torch.ones(4000, dtype=torch.float64))
    assert bool((weights >= 0).all())
    added = (weights @ own)[:, 0]
    # A tenth of the points lie below 1e-3: so do about as many of those between.
    assert 0.07 < float((added < 1e-3).double().mean()) < 0.13


def test_points_between_those_of_a_grid_fill_its_box():
    t = np.linspace(0, 1, 9)
    own = tensor(np.stack(np.meshgrid(t, t), -1).reshape(-1, 2))
    added = mixtures_of_neighbours(own, 2000, seed=1) @ own
    assert bool(((added > -1e-15) & (added < 1 + 1e-15)).all())
    added = added.clamp(0, 1)
    assert fills_its_box(added.numpy())
    # They are within the cells, not on the lines of the grid.
    apart = (8 * added - (8 * added).round()).abs()
    assert float((apart.min(1).values > 0.01).double().mean()) > 0.8
