"""Refinement of sparse grids: which points come, their matrices, and what is returned."""

import itertools
import math

import numpy as np
import pytest
import torch

from skpou.core.rows import Rows
from skpou.sparse_grids import fit as refinement
from skpou.sparse_grids import solution
from skpou.sparse_grids.basis.grid import BOUNDARIES, SparseGrid
from skpou.sparse_grids.fit import FUNCTIONS_A_POINT, PointSet, _Refinement, fit_sparse_grid
from skpou.sparse_grids.solution import GridOptions
from skpou.sparse_grids.solvers.rows import GridRows


def level_and_index(boundary, factor, cell):
    """Level and index of a one-dimensional function, from the definition of the factors."""
    if boundary in ("full", "truncated"):
        return (0, factor) if factor < 2 else (factor - 1, 2 * cell + 1)
    return factor + 1, 2 * cell + 1


def parents(boundary, level, index):
    """Next coarser functions whose support holds that of the given one."""
    if level == 0:
        return []
    if level == 1:
        return [(0, 0), (0, 1)] if boundary in ("full", "truncated") else []
    # Of the even neighbours of an odd index one belongs to the next coarser level.
    return [(level - 1, i // 2) for i in (index - 1, index + 1) if (i // 2) % 2]


def named(points):
    """Points of a set as levels and indices."""
    return names_of(points, points.points)


def names_of(points, some):
    """Some points as levels and indices."""
    return [tuple(level_and_index(points.boundary, *part) for part in point) for point in some]


def refined(boundary, d, steps=4):
    rng = np.random.default_rng(0)
    points = PointSet(SparseGrid(d, 2, boundary))
    max_points = 2 * len(points) + 100
    for _ in range(steps):
        # Towards a corner, so that the set grows deep as well as wide.
        deep = np.array([sum(f for f, _ in p) for p in points.points])
        points.refine(deep + rng.random(len(points)), 3, max_points)
    return points


# Points


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("d", "level"), [(1, 1), (1, 4), (2, 3), (3, 2)])
def test_first_points_are_those_of_the_regular_grid(boundary, d, level):
    regular = SparseGrid(d, level, boundary)
    points = PointSet(regular)
    grid, numbers = points.grid()
    assert len(points) == points.n_functions == grid.n_columns == regular.n_columns
    np.testing.assert_array_equal(grid.points()[numbers], regular.points())
    np.testing.assert_array_equal(grid.costs()[numbers], regular.costs())


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_every_point_comes_after_its_ancestors(boundary, d):
    points = refined(boundary, d)
    known = set()
    for point in named(points):
        for j, part in enumerate(point):
            for parent in parents(boundary, *part):
                assert (*point[:j], parent, *point[j + 1 :]) in known
        assert point not in known
        known.add(point)
    assert len(points) > 1.5 * SparseGrid(d, 2, boundary).n_columns


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_grid_of_the_first_points(boundary, d):
    points = refined(boundary, d)
    expected = np.array([[i / 2.0**n for n, i in point] for point in named(points)])
    for size in (PointSet(SparseGrid(d, 2, boundary)).n_functions, len(points) - 7, len(points)):
        grid, numbers = points.grid(size)
        assert len(set(numbers.tolist())) == size
        np.testing.assert_array_equal(grid.points()[numbers], expected[:size])
    assert grid.n_columns == points.n_functions


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_children_are_those_whose_parent_a_point_is(boundary):
    points = PointSet(SparseGrid(2, 2, boundary))
    everything = PointSet(SparseGrid(2, 6, boundary))
    known = set(named(points))
    for number, point in enumerate(named(points)):
        expected = {
            other
            for other in named(everything)
            for j, k in [(0, 1), (1, 0)]
            if point[k] == other[k] and point[j] in parents(boundary, *other[j])
        }
        children = points.missing_children(number)
        found = [tuple(level_and_index(boundary, *part) for part in child) for child in children]
        assert len(set(found)) == len(found)
        assert set(found) == expected - known


def test_points_of_largest_score_are_refined():
    points = PointSet(SparseGrid(1, 3))
    names = named(points)
    score = np.array([{(3, 5): 9.0, (3, 1): 4.0}.get(point[0], 1.0) for point in names])
    # Points that have all their children are no candidates.
    score[names.index(((1, 1),))] = 100.0
    assert points.refine(score, 2, 100) == 4
    assert named(points)[-4:] == [((4, 9),), ((4, 11),), ((4, 1),), ((4, 3),)]
    assert points.refine(np.zeros(len(points)), 0, 100) == 0


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_limits_hold_with_all_ancestors(boundary, d):
    for max_points, n_refined in itertools.product((40, 90, 150), (1, 5, 1000)):
        points = PointSet(SparseGrid(d, 2, boundary))
        if len(points) > max_points:
            continue
        while True:
            before = len(points)
            deep = np.array([sum(f for f, _ in p) for p in points.points])
            came = points.refine(deep, n_refined, max_points)
            assert came == len(points) - before
            assert len(points) <= max_points
            if not came:
                break


@pytest.mark.parametrize(("d", "max_points"), [(1, 20), (1, 30), (2, 40), (2, 60), (3, 100)])
def test_subspaces_stay_within_their_number_of_functions(d, max_points):
    """Always the deepest point: its subspace doubles with every step."""
    points = PointSet(SparseGrid(d, 2))
    for _ in range(40):
        deep = np.array([sum(f for f, _ in p) for p in points.points])
        points.refine(deep, 1, max_points)
    assert points.n_functions > 4 * max_points
    assert points.grid()[0].n_columns == points.n_functions <= FUNCTIONS_A_POINT * max_points


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("level", [2, 4])
def test_grids_that_start_at_the_highest_level(boundary, level, monkeypatch):
    """With level 0 on the faces factors of d dimensions go d - 1 levels higher."""
    monkeypatch.setattr(refinement, "HIGHEST_REFINED", 3)
    points = PointSet(SparseGrid(3, level, boundary))
    assert len(points) == SparseGrid(3, level, boundary).n_columns
    highest = max(3, max(max(n for n, _ in point) for point in named(points)))
    for _ in range(5):
        points.refine(np.arange(len(points)), 20, 2 * len(points))
    assert max(max(n for n, _ in point) for point in named(points)) <= highest


# Matrices


def sample(n=120, d=2, noise=0.05, n_outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    X = torch.tensor(rng.random((n, d)))
    y = torch.exp(-80 * (X - 0.3).square().sum(1))[:, None]
    y = torch.cat([y * (k + 1) + k for k in range(n_outputs)], 1)
    y = y + noise * torch.tensor(rng.standard_normal(y.shape))
    return Rows(X, y, torch.tensor(rng.uniform(0.5, 2, n)), torch.zeros_like(y))


def fit(rows, **options):
    options = {"level": 2, "n_refinements": 3} | options
    return fit_sparse_grid(rows, GridOptions(**options), np.random.default_rng(0))


def search(rows, **options):
    options = GridOptions(level=2, **{"n_refinements": 3} | options)
    points = PointSet(SparseGrid(rows.n_features, 2, options.boundary))
    found = _Refinement(rows, points, options, np.random.default_rng(0))
    found.run(None)
    return found


@pytest.mark.parametrize("batch_size", [None, 11])
def test_gram_matrices_grow_with_the_grid(batch_size):
    rows = sample()
    found = search(rows, batch_size=batch_size)
    grid, numbers = found.points.grid(len(found.grams[0]))
    assert len(numbers) > 2 * SparseGrid(2, 2).n_columns

    def dense(part):
        return (part.weight.sqrt()[:, None] * grid.matrix(part.X))[:, numbers]

    assert [part.n_rows for part in found.parts] == [102, 18]
    for part, gram in zip(found.parts, found.grams, strict=True):
        torch.testing.assert_close(gram, dense(part).T @ dense(part))
    A = dense(rows)[:, :10]
    torch.testing.assert_close(found.gram_of_all(10), A.T @ A)


def test_error_on_the_rows_held_out():
    rows, alpha = sample(n_outputs=2), 0.02
    found = search(rows, alpha=alpha)
    training, held_out = found.parts
    grid = SparseGrid(2, 2)
    A = training.weight.sqrt()[:, None] * grid.matrix(training.X)
    ridge = (alpha * A.norm(dim=0).max()) ** 2 * 4.0 ** torch.tensor(grid.costs()).double()
    right = A.T @ (training.weight.sqrt()[:, None] * training.y)
    coef = torch.linalg.solve(A.T @ A + torch.diag(ridge), right)
    squares = (held_out.y - grid.matrix(held_out.X) @ coef).square().sum(1)
    expected = held_out.weight @ squares / held_out.weight.sum()
    assert found.curve[0] == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.01])
@pytest.mark.parametrize("limit", [0, 60])
def test_grids_beyond_what_a_gram_matrix_is_made_for(alpha, limit, monkeypatch):
    rows = sample(400)
    options = {"alpha": alpha, "n_refinements": 6}
    expected = fit(rows, **options)
    monkeypatch.setattr(solution, "DIRECT_LIMIT", limit)
    found = fit(rows, **options)
    direct = fit(rows, solver="direct", **options)
    assert direct.curve == expected.curve
    assert len(found.state.coef) > 60
    X = torch.tensor(np.random.default_rng(1).random((100, 2)))
    if alpha is not None:
        np.testing.assert_allclose(found.curve, expected.curve, rtol=1e-6)
        torch.testing.assert_close(found.state.mean(X), expected.state.mean(X), rtol=0, atol=1e-6)
    assert min(found.curve) < 0.7 * found.curve[0]


@pytest.mark.parametrize("alpha", [None, 0.01])
def test_few_rows_are_solved_for_by_their_own_matrix(alpha, monkeypatch):
    rows, X = sample(60, n_outputs=2), torch.tensor(np.random.default_rng(1).random((100, 2)))
    options = {"alpha": alpha, "n_refinements": 4}
    expected = fit(rows, **options)
    monkeypatch.setattr(solution, "FEW_COLUMNS", 0)
    found = fit(rows, **options)
    assert found.state.n_columns == expected.state.n_columns > rows.n_rows
    assert found.state.active is not None
    assert found.state.posterior.factor.shape == (60, 60)
    assert found.chosen == expected.chosen
    np.testing.assert_allclose(found.curve, expected.curve, rtol=1e-7)
    torch.testing.assert_close(found.state.coef, expected.state.coef, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        found.state.variance(X), expected.state.variance(X), rtol=1e-5, atol=0
    )
    again = type(found.state).from_arrays(found.state.arrays(), X)
    assert torch.equal(again.variance(X), found.state.variance(X))


def test_no_matrix_of_thousands_of_columns_is_made_for_few_rows(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a matrix of the columns")

    monkeypatch.setattr(GridRows, "gram", refuse)
    rows = sample(30, d=4)
    result = fit(rows, level=3, boundary="full", n_refinements=2)
    assert result.state.n_columns >= 6065
    assert result.state.posterior.factor.shape == (30, 30)


# What is returned


@pytest.mark.parametrize("n", [1, 2, 19, 20])
def test_few_rows(n):
    result = fit(sample(n), max_points=40)
    model = result.state
    assert math.isfinite(result.score)
    assert len(model.coef) <= 40
    assert bool(torch.isfinite(model.mean(sample(50, seed=1).X)).all())
    assert bool((model.noise > 0).all())


def test_no_columns_of_the_data():
    rows = sample(30, d=0)
    rows = Rows(rows.X[:1], rows.y[:1], rows.weight[:1], rows.within[:1])
    assert fit(rows, alpha=0.0).state.mean(rows.X)[0, 0] == pytest.approx(float(rows.y[0, 0]))


def test_result_is_the_ridge_regression_on_the_best_grid():
    rows = sample(300)
    result = fit(rows, alpha=0.01, n_refinements=5)
    model = result.state
    assert result.n_iter == len(result.curve) > 1
    A = GridRows(model.grid, rows.X, rows.weight, model.active)
    dense = (rows.weight.sqrt()[:, None] * model.grid.matrix(rows.X))[:, model.active]
    penalty = (0.01 * dense.norm(dim=0).max()) ** 2 * 4.0 ** model.costs(rows.X)
    normal = dense.T @ dense + torch.diag(penalty)
    right = A.rmatmul(rows.y * A.root)
    torch.testing.assert_close(model.coef, torch.linalg.solve(normal, right), rtol=0, atol=1e-9)


def test_units_of_the_targets_pass_through():
    rows = sample(200)
    result = fit(rows)
    tiny = Rows(rows.X, 1e-3 * rows.y, rows.weight, rows.within)
    other = fit(tiny)
    assert len(other.state.coef) == len(result.state.coef)
    torch.testing.assert_close(other.state.coef, 1e-3 * result.state.coef, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(other.state.noise, 1e-6 * result.state.noise, rtol=1e-6, atol=0)


# Which columns matter


def test_gain_is_by_how_much_a_child_alone_lowers_the_squares():
    rows = sample(60, n_outputs=2)
    options = GridOptions(alpha=0.01)
    found = _Refinement(rows, PointSet(SparseGrid(2, 2)), options, np.random.default_rng(0))
    grid, numbers = found.points.grid()
    matrix = found._grow(found.parts[0], 0, grid, torch.as_tensor(numbers))
    solution, squares = found._solve(matrix)
    part, children = found.parts[0], found.points.children(list(range(len(found.points))))
    assert [len(some) for some in children] == [8, 8]
    left = part.y * matrix.root - matrix.matmul(solution.coef)
    noise = float(left.square().sum() / part.total_weight)
    gains = found._gains(children, solution, squares, matrix)
    for some, gain in zip(children, gains, strict=True):
        larger, chosen = found.points.grid_of(some)
        expected = [[i / 2.0**n for n, i in point] for point in names_of(found.points, some)]
        np.testing.assert_array_equal(larger.points()[chosen], expected)
        falls = []
        for number in chosen:
            phi = matrix.root * larger.matrix(part.X)[:, number, None]
            growth = solution.decay ** int(larger.costs()[number])
            ridge = math.sqrt(solution.alpha**2 * float(squares.max()) * growth)
            A = torch.cat([phi, phi.new_full((1, 1), ridge)])
            target = torch.cat([left, torch.zeros(1, 2).double()])
            rest = target - A @ torch.linalg.lstsq(A, target).solution
            falls.append(float(target.square().sum() - rest.square().sum()))
        assert gain * noise == pytest.approx(np.mean(falls), rel=1e-6)


def test_no_points_are_spent_on_columns_that_do_nothing():
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.random((600, 3)))
    y = (X[:, :1] - 0.3).abs() + 1e-3 * torch.tensor(rng.standard_normal((600, 1)))
    rows = Rows(X, y, torch.ones(600).double(), torch.zeros_like(y))
    points = search(rows, n_refinements=3).points
    level = np.array([[part[0] for part in point] for point in named(points)])
    assert len(points) > SparseGrid(3, 2).n_columns + 5
    assert level[:, 0].max() > 4
    assert level[:, 1:].max() == 2


def test_more_points_than_rows_held_out(monkeypatch):
    """Both parts have Gram matrices or none: that of all rows is their sum."""
    rows, options = sample(400), {"n_refinements": 3, "alpha": 0.01}
    expected = fit(rows, **options)
    monkeypatch.setattr(solution, "FEW_COLUMNS", 10)
    found = fit(rows, **options)
    assert found.curve == expected.curve
    torch.testing.assert_close(found.state.coef, expected.state.coef)
