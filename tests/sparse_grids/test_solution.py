"""One sparse grid: solver, level, ridge, noise and posterior, against truths and each other."""

import functools
import math

import numpy as np
import pytest
import torch

from skpou.core.rows import Rows, merge_rows
from skpou.sparse_grids import solution
from skpou.sparse_grids.basis.grid import BOUNDARIES, SparseGrid, count_points
from skpou.sparse_grids.solution import (
    DIRECT_LIMIT,
    FEW_COLUMNS,
    GIVEN_DECAY,
    GridOptions,
    choose_level,
    fit_on_grid,
    noise_variance,
    pick_solver,
    ridge_of_some_rows,
)
from skpou.sparse_grids.solvers.ridge import DECAYS, EXACT_ALPHA, LEAST_ALPHA


def draw(function, n, d=2, noise=0.0, seed=0):
    """Rows of one or several functions of uniform points."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = np.asarray(function(X)).reshape(n, -1)
    y = y + noise * rng.standard_normal(y.shape)
    return merge_rows(torch.tensor(X), torch.tensor(y), torch.ones(n, dtype=torch.float64))


def smooth(X):
    return np.sin(3 * X[:, 0]) * np.exp(X[:, 1])


def kinked(X):
    return np.abs(X[:, 0] - 0.4) + X[:, 0] * X[:, 1]


def fit(rows, level=None, boundary="modified", active=None, report=None, **options):
    options = GridOptions(level=level, boundary=boundary, **options)
    grid = SparseGrid(rows.n_features, choose_level(rows.n_features, options), boundary)
    return fit_on_grid(rows, grid, active, options, np.random.default_rng(0), report)


def posterior_of(model, rows, chosen, X):
    """Mean and variance for unit noise at points, by dense matrices."""
    grid = model.grid
    A = (rows.weight.sqrt()[:, None] * grid.matrix(rows.X)).numpy()
    ridge = (chosen["alpha"] * np.linalg.norm(A, axis=0).max()) ** 2
    precision = np.diag(ridge * chosen["decay"] ** grid.costs())
    covariance = np.linalg.inv(A.T @ A + precision)
    phi = grid.matrix(X).numpy()
    mean = phi @ covariance @ A.T @ (rows.weight.sqrt()[:, None] * rows.y).numpy()
    return mean, np.einsum("ij,jk,ik->i", phi, covariance, phi)


def fresh(n=200, d=2, seed=9):
    return torch.tensor(np.random.default_rng(seed).uniform(-0.1, 1.1, (n, d)))


# Solver and level


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "solver", "expected"),
    [
        (10_000, DIRECT_LIMIT, "auto", "columns"),
        (10_000, DIRECT_LIMIT + 1, "auto", "iterative"),
        (10_000, DIRECT_LIMIT + 1, "direct", "columns"),
        (DIRECT_LIMIT, 10_000, "auto", "rows"),
        (DIRECT_LIMIT + 1, 10_000, "auto", "iterative"),
        (DIRECT_LIMIT + 1, 10_000, "direct", "rows"),
        # With few columns the matrix of the rows is not worth its while.
        (100, FEW_COLUMNS, "auto", "columns"),
        (100, FEW_COLUMNS + 1, "auto", "rows"),
        (2000, 2000, "auto", "columns"),
        (5, 5, "iterative", "iterative"),
    ],
)
def test_solver(n_rows, n_columns, solver, expected):
    assert pick_solver(n_rows, n_columns, solver) == expected


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("d", [0, 1, 2, 4])
@pytest.mark.parametrize(("n_refinements", "highest"), [(0, 4), (2, 3)])
def test_highest_level_that_fits(d, boundary, n_refinements, highest):
    for max_points in (1297, 2000, 10_000):
        options = GridOptions(boundary=boundary, max_points=max_points, n_refinements=n_refinements)
        level = choose_level(d, options)
        assert count_points(d, level, boundary)[0] <= max_points
        assert level == highest or count_points(d, level + 1, boundary)[0] > max_points
        assert level <= highest


def test_given_level_is_kept_up_to_max_points():
    assert choose_level(2, GridOptions(level=6, max_points=321)) == 6
    match = (
        "level=6 with boundary='modified' in 2 dimensions has 321 grid points, more than "
        "max_points=320. Lower level, raise max_points, or use level='auto'"
    )
    with pytest.raises(ValueError, match=match):
        choose_level(2, GridOptions(level=6, max_points=320))


def test_no_level_fits():
    match = (
        "Even level 1 with boundary='truncated' in 9 dimensions has 19683 grid points, more than "
        "max_points=10000. Use boundary='modified'"
    )
    with pytest.raises(ValueError, match=match):
        choose_level(9, GridOptions(boundary="truncated"))
    assert choose_level(9, GridOptions()) == 4


# The ridge


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("n", "d", "level"), [(1000, 2, 4), (600, 3, 2), (300, 1, 5)])
def test_function_of_the_grid_is_found_to_round_off(n, d, level, boundary):
    grid = SparseGrid(d, level, boundary)
    coef = np.random.default_rng(1).standard_normal((grid.n_columns, 2))
    rows = draw(lambda X: grid.matrix(torch.tensor(X)).numpy() @ coef, n, d)
    result = fit(rows, level, boundary)
    assert result.chosen["alpha"] == EXACT_ALPHA
    # Norms of columns differ by hundreds, and corners are seen by few points.
    np.testing.assert_allclose(result.state.coef, coef, atol=1e-10)
    torch.testing.assert_close(result.state.mean(rows.X), rows.y, rtol=0, atol=1e-13)
    assert (result.state.noise.sqrt() < 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("function", "n", "level"),
    [(smooth, 20_000, 6), (smooth, 1000, 4), (kinked, 2000, 5), (smooth, 300, 5)],
)
def test_function_beyond_the_grid_keeps_a_ridge(function, n, level, seed):
    rows = draw(function, n, seed=seed)
    result = fit(rows, level)
    assert result.chosen["alpha"] >= LEAST_ALPHA
    # What the grid cannot represent is noise to it, and the error is no larger elsewhere.
    X = torch.tensor(np.random.default_rng(50).random((2000, 2)))
    error = result.state.mean(X)[:, 0].numpy() - function(X.numpy())
    noise = float(result.state.noise.sqrt())
    assert 0.5 * noise < np.sqrt(np.mean(error**2)) < 2 * noise


@pytest.mark.parametrize("noise", [1e-9, 1e-6, 1e-2])
def test_noise_on_a_function_of_the_grid_is_seen(noise):
    grid = SparseGrid(2, 3)
    coef = np.random.default_rng(1).standard_normal((grid.n_columns, 1))
    rows = draw(lambda X: grid.matrix(torch.tensor(X)).numpy() @ coef, 2000, noise=noise)
    result = fit(rows, 3)
    np.testing.assert_allclose(result.state.noise.sqrt(), noise, rtol=0.06)
    error = (result.state.coef.numpy() - coef) / noise
    assert np.abs(error).max() < 1


def test_some_rows_choose_nearly_the_ridge_of_all(monkeypatch):
    rows, grid = draw(kinked, 3000, noise=0.1), SparseGrid(2, 5)
    chosen = fit(rows, 5).chosen
    monkeypatch.setattr(solution, "RIDGE_ROWS", 500)
    scale = float(grid.matrix(rows.X).square().sum(0).max().sqrt())
    alpha, decay = ridge_of_some_rows(rows, grid, scale, np.random.default_rng(0), None)
    assert abs(math.log10(alpha / chosen["alpha"])) < 0.6
    other, _ = ridge_of_some_rows(rows, grid, 2 * scale, np.random.default_rng(0), None)
    assert other == pytest.approx(alpha / 2)
    assert decay in DECAYS
    monkeypatch.setattr(solution, "MANY_COLUMNS", 100)
    result = fit(rows, 5)
    assert (result.chosen["alpha"], result.chosen["decay"]) == (pytest.approx(alpha), decay)
    np.testing.assert_allclose(result.state.noise.sqrt(), 0.1, rtol=0.05)


def test_ridge_near_a_given_one(monkeypatch):
    rows, lines = draw(kinked, 500, noise=0.1), []
    options = GridOptions(level=4)
    fit_on_grid(
        rows,
        SparseGrid(2, 4),
        None,
        options,
        np.random.default_rng(0),
        lines.append,
        ridge=(0.01, 64.0),
    )
    tried = [line.split(":")[0] for line in lines]
    assert {"alpha 3.2e-03, decay 64", "alpha 1.0e-02, decay 64"} < set(tried)
    assert all(line.endswith("decay 64") for line in tried)


@pytest.mark.parametrize("solver", ["direct", "iterative"])
def test_given_ridge(solver):
    result = fit(draw(kinked, 300), 3, alpha=0.02, solver=solver)
    assert result.chosen == {"alpha": 0.02, "decay": GIVEN_DECAY, "level": 3}


# Noise


@pytest.mark.parametrize("function", [kinked, smooth])
@pytest.mark.parametrize("level", [4, 7])
@pytest.mark.parametrize("solver", ["direct", "iterative"])
def test_noise_is_the_true_one(function, level, solver):
    rows = draw(function, 800, noise=0.1)
    noise = fit(rows, level, solver=solver).state.noise.sqrt()
    # The error of a standard deviation from 800 rows is 2.5 %.
    np.testing.assert_allclose(noise, 0.1, rtol=0.075)


@pytest.mark.parametrize("solver", ["direct", "iterative"])
@pytest.mark.parametrize("n", [400, 650])
def test_parameters_of_a_given_ridge_take_no_part_in_the_noise(n, solver):
    rows = draw(kinked, n, noise=0.1)
    result = fit(rows, 6, alpha=1e-5, solver=solver)
    residual = rows.y - result.state.mean(rows.X)
    # Nearly all 321 coefficients are free: the residuals alone would say much less.
    assert residual.square().mean().sqrt() < 0.075
    np.testing.assert_allclose(result.state.noise.sqrt(), 0.1, rtol=0.2)


def test_one_row_has_noise_of_its_own_size():
    rows = Rows(*(torch.tensor(part).double() for part in ([[0.5]], [[0.0]], [1.0], [[0.0]])))
    assert fit(rows, 2).state.noise.tolist() == [1.0]


# Posterior


@pytest.mark.parametrize("method", ["columns", "rows", "iterative"])
@pytest.mark.parametrize("alpha", [None, 0.01])
def test_mean_and_variance_are_those_of_the_posterior(method, alpha, monkeypatch):
    monkeypatch.setattr(solution, "FEW_COLUMNS", 0 if method == "rows" else 1000)
    rows = draw(lambda X: np.column_stack([kinked(X), smooth(X)]), 60, noise=0.1)
    solver = "iterative" if method == "iterative" else "direct"
    result = fit(rows, 4 if method == "columns" else 5, alpha=alpha, solver=solver)
    assert (result.state.posterior.kind == "rows") == (method == "rows")
    X = fresh()
    mean, variance = posterior_of(result.state, rows, result.chosen, X)
    # Conjugate gradients stop at a gradient of 1e-8.
    tolerance = {"rtol": 0, "atol": 1e-5 if method == "iterative" else 1e-8}
    np.testing.assert_allclose(result.state.mean(X), mean, **tolerance)
    np.testing.assert_allclose(result.state.variance(X), variance, rtol=1e-6)


@pytest.mark.parametrize("level", [4, 6])
@pytest.mark.parametrize("solver", ["direct", "iterative"])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_standard_deviation_covers_the_error(noise, solver, level):
    """Functions of the prior itself, many of them: errors are as large as they are said to be."""
    rng = np.random.default_rng(3)
    grid, X = SparseGrid(2, level), rng.random((500, 2))
    size = 2.0 ** -grid.costs()
    coef = torch.tensor(size[:, None] * rng.standard_normal((grid.n_columns, 20)))
    rows = draw(lambda X: grid.matrix(torch.tensor(X)) @ coef, 500, noise=noise)
    model = fit(rows, level, solver=solver).state
    X = torch.tensor(rng.random((1000, 2)))
    std = (model.variance(X)[:, None] * model.noise).sqrt()
    z = ((model.mean(X) - grid.matrix(X) @ coef) / std).numpy()
    assert 0.9 < np.sqrt(np.mean(z**2)) < 1.1
    assert abs(np.mean(np.abs(z) < 1.96) - 0.95) < 0.02


def test_columns_beyond_the_exact_ones_are_taken_for_independent(monkeypatch):
    rows = draw(kinked, 300, noise=0.1)
    expected = fit(rows, 5, solver="iterative", alpha=0.01).state
    monkeypatch.setattr(solution, "N_EXACT", 49)
    model = fit(rows, 5, solver="iterative", alpha=0.01).state
    X, k = fresh(), 49
    torch.testing.assert_close(model.mean(X), expected.mean(X), rtol=0, atol=1e-6)
    # What is neglected is the covariance: the diagonal of the Gram matrix stays.
    A, phi = model.grid.matrix(rows.X), model.grid.matrix(X)
    ridge = model.posterior.ridge * GIVEN_DECAY ** torch.tensor(model.grid.costs()).double()
    coarse = torch.linalg.inv(A[:, :k].T @ A[:, :k] + torch.diag(ridge[:k]))
    variance = ((phi[:, :k] @ coarse) * phi[:, :k]).sum(1)
    variance += (phi[:, k:].square() / (A[:, k:].square().sum(0) + ridge[k:])).sum(1)
    torch.testing.assert_close(model.variance(X), variance)


# Rows


@pytest.mark.parametrize("method", ["columns", "rows", "iterative"])
@pytest.mark.parametrize("alpha", [None, 0.01])
def test_repeated_points_are_their_mean_with_the_spread(method, alpha, monkeypatch):
    monkeypatch.setattr(solution, "FEW_COLUMNS", 0 if method == "rows" else 1000)
    rng = np.random.default_rng(4)
    X = torch.tensor(rng.random((60, 2))).repeat_interleave(torch.arange(60) % 3 + 1, 0)
    y = torch.tensor(kinked(X.numpy()) + 0.1 * rng.standard_normal(len(X)))[:, None]
    ones = torch.ones(len(X), dtype=torch.float64)
    merged = merge_rows(X, y, ones)
    assert merged.n_rows == 60
    options = {"alpha": alpha, "solver": "iterative" if method == "iterative" else "direct"}
    one, two = (fit(rows, 6, **options) for rows in (merged, Rows(X, y, ones, torch.zeros_like(y))))
    assert one.chosen == {**two.chosen, "alpha": pytest.approx(two.chosen["alpha"])}
    if method != "iterative":  # whose score is that of the means
        assert one.score == pytest.approx(two.score, rel=1e-7)
    X = fresh()
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(one.state.mean(X), two.state.mean(X))
    close(one.state.noise, two.state.noise)
    close(one.state.variance(X), two.state.variance(X))


def test_weights_are_repetitions():
    rng = np.random.default_rng(5)
    X, y = torch.tensor(rng.random((80, 2))), torch.tensor(rng.standard_normal((80, 1)))
    weight = torch.tensor(rng.integers(0, 4, 80))
    # A point with two targets: the sum of the weights counts observations.
    X[1], weight[:2] = X[0], 2
    weighted = fit(merge_rows(X, y, weight.double()), 4)
    times = [part.repeat_interleave(weight, 0) for part in (X, y)]
    repeated = fit(merge_rows(*times, torch.ones(int(weight.sum())).double()), 4)
    assert weighted.chosen == repeated.chosen
    assert weighted.score == repeated.score
    assert torch.equal(weighted.state.coef, repeated.state.coef)
    assert torch.equal(weighted.state.noise, repeated.state.noise)
    assert not torch.equal(
        fit(merge_rows(X, y, torch.ones(80).double()), 4).state.coef, weighted.state.coef
    )


# Solvers agree


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("alpha", [1e-3, 0.1])
@pytest.mark.parametrize("other", ["rows", "iterative"])
def test_other_solvers_agree_with_the_columns_gram_matrix(boundary, alpha, other, monkeypatch):
    rows = draw(kinked, 100, noise=0.1)
    one = fit(rows, 5, boundary, alpha=alpha).state
    assert one.posterior.kind == "columns"
    monkeypatch.setattr(solution, "FEW_COLUMNS", 0)
    solver = "direct" if other == "rows" else other
    two = fit(rows, 5, boundary, alpha=alpha, solver=solver).state
    assert (two.posterior.kind == "rows") == (other == "rows")
    X = fresh()
    atol = 1e-5 if other == "iterative" else 1e-9
    torch.testing.assert_close(two.coef, one.coef, rtol=0, atol=atol)
    torch.testing.assert_close(two.mean(X), one.mean(X), rtol=0, atol=atol)
    torch.testing.assert_close(two.variance(X), one.variance(X), rtol=1e-5, atol=0)
    torch.testing.assert_close(two.noise, one.noise, rtol=1e-5, atol=0)


def test_iterative_solution_takes_the_same_ridge():
    rows, lines = draw(kinked, 800, noise=0.1), []
    one = fit(rows, 5)
    two = fit(rows, 5, solver="iterative", report=lines.append)
    assert two.chosen == {**one.chosen, "alpha": pytest.approx(one.chosen["alpha"])}
    torch.testing.assert_close(two.state.mean(rows.X), one.state.mean(rows.X), rtol=0, atol=1e-6)
    assert lines[-1] == f"{two.n_iter} iterations, alpha {two.chosen['alpha']:.1e}"
    assert two.code == "converged"


def test_iterations_used_up(monkeypatch):
    few = functools.partial(solution.IterativeProblem, max_iter=2)
    monkeypatch.setattr(solution, "IterativeProblem", few)
    monkeypatch.setattr(solution, "N_EXACT", 1)
    result = fit(draw(kinked, 300, noise=0.1), 5, alpha=1e-4, solver="iterative")
    assert (result.code, result.n_iter) == ("max_iter", 2)
    assert result.message == "Conjugate gradients took all 2 iterations. Raise alpha."


@pytest.mark.parametrize("solver", ["direct", "iterative"])
def test_some_of_the_columns(solver):
    rows, grid = draw(kinked, 300, noise=0.1), SparseGrid(2, 4)
    active = torch.tensor(np.random.default_rng(6).permutation(grid.n_columns)[:20])
    result = fit(rows, 4, active=active, alpha=0.01, solver=solver)
    A = grid.matrix(rows.X)[:, active]
    largest = float(A.square().sum(0).max().sqrt())
    ridge = (0.01 * largest) ** 2 * GIVEN_DECAY ** torch.tensor(grid.costs()[active]).double()
    expected = torch.linalg.solve(A.T @ A + torch.diag(ridge), A.T @ rows.y)
    torch.testing.assert_close(result.state.coef, expected, rtol=0, atol=1e-6)
    X = fresh()
    torch.testing.assert_close(result.state.mean(X), grid.matrix(X)[:, active] @ result.state.coef)
    assert fit(rows, 4, active=active, solver=solver).chosen["alpha"] > LEAST_ALPHA


@pytest.mark.parametrize("solver", ["direct", "iterative"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_blocks_of_rows(batch_size, solver):
    rows = draw(kinked, 150, noise=0.1)
    whole, blocks = (fit(rows, 4, solver=solver, batch_size=size) for size in (None, batch_size))
    torch.testing.assert_close(blocks.state.coef, whole.state.coef, rtol=0, atol=1e-7)
    torch.testing.assert_close(blocks.state.noise, whole.state.noise, rtol=1e-7, atol=0)


def test_noise_variance_of_a_ridge():
    rows = draw(kinked, 50)
    ridge = solution.RidgeSolution(
        *(torch.zeros(0), 1.0, 4.0, torch.tensor([2.0]), torch.tensor([3.0]), 0.0, torch.zeros(0))
    )
    within = Rows(rows.X, rows.y, rows.weight, torch.full_like(rows.y, 0.1))  # adds 5
    assert noise_variance(within, ridge, None).item() == pytest.approx((2 + 3 + 5) / 50)
    assert noise_variance(within, ridge, 40.0).item() == pytest.approx((2 + 5) / 10)
    # Less than a twentieth of the rows is left.
    assert noise_variance(within, ridge, 49.0).item() == pytest.approx(7.0)
    assert noise_variance(rows, ridge, 48.0).item() == pytest.approx(2 / 2)
