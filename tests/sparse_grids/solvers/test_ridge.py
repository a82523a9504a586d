"""Ridges on sparse grids: all that problems return against dense matrices of the prior itself."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from skpou.core.rows import Rows, merge_rows
from skpou.sparse_grids.basis.grid import BOUNDARIES, SparseGrid
from skpou.sparse_grids.solvers import ridge
from skpou.sparse_grids.solvers.ridge import (
    DECAYS,
    INDIFFERENCE,
    LEAST_ALPHA,
    GramProblem,
    IterativeProblem,
    KernelProblem,
    best_ridge,
    factored,
    largest_norm,
    search_ridge,
)
from skpou.sparse_grids.solvers.rows import GridRows

KINDS = ["columns", "rows", "iterative"]
RIDGES = [(1e-3, 4.0), (0.03, 16.0), (1.0, 64.0)]


def weighted_rows(n=50, d=2, n_outputs=2, seed=0):
    """Distinct points with weights of their own."""
    rng = np.random.default_rng(seed)
    parts = rng.random((n, d)), rng.standard_normal((n, n_outputs)), rng.uniform(0.5, 3, n)
    X, y, weight = (torch.tensor(part) for part in parts)
    return Rows(X, y, weight, torch.zeros_like(y))


def make(kind, rows, grid, **options):
    matrix = GridRows(grid, rows.X, rows.weight)
    costs = torch.tensor(grid.costs()).double()
    if kind == "columns":
        return GramProblem(matrix, rows.y, costs)
    if kind == "iterative":
        return IterativeProblem(matrix, rows.y, costs, **{"n_exact": grid.n_columns} | options)
    return KernelProblem(matrix, rows.y)


def coefficients(kind, solution, rows, grid):
    """Coefficients of the columns, also where the solution has those of the rows."""
    if kind != "rows":
        return solution.coef
    prior = solution.decay ** -torch.tensor(grid.costs()).double()
    return prior[:, None] * GridRows(grid, rows.X, rows.weight).rmatmul(solution.coef)


class Dense:
    """Posterior of coefficients with prior variance ``1 / (lambda decay^cost)``, noise 1."""

    def __init__(self, rows, grid, alpha, decay):
        root = rows.weight.sqrt()[:, None].numpy()
        self.A = root * grid.matrix(rows.X).numpy()
        self.y = root * rows.y.numpy()
        largest = np.linalg.norm(self.A, axis=0).max()
        self.precision = (alpha * largest) ** 2 * decay ** grid.costs()
        self.inverse = np.linalg.inv(self.A.T @ self.A + np.diag(self.precision))
        self.coef = self.inverse @ self.A.T @ self.y
        self.rss = ((self.y - self.A @ self.coef) ** 2).sum(0)
        self.size = self.precision @ self.coef**2
        self.covariance = np.eye(len(self.A)) + self.A / self.precision @ self.A.T


# Closed forms


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("alpha", "decay"), RIDGES)
def test_solution_is_that_of_dense_matrices(kind, boundary, alpha, decay):
    rows, grid = weighted_rows(), SparseGrid(2, 3, boundary)
    expected = Dense(rows, grid, alpha, decay)
    problem = make(kind, rows, grid)
    solution = problem.solve(alpha, decay)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9)
    close(coefficients(kind, solution, rows, grid), expected.coef)
    close(solution.rss, expected.rss)
    close(solution.size, expected.size)
    hat = expected.A @ expected.inverse @ expected.A.T
    close(problem.effective_parameters(solution), np.trace(hat))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("alpha", "decay"), RIDGES)
def test_log_determinant(kind, alpha, decay):
    rows, grid = weighted_rows(), SparseGrid(2, 3)
    found = make(kind, rows, grid).solve(alpha, decay).log_det
    expected = np.linalg.slogdet(Dense(rows, grid, alpha, decay).covariance)[1]
    assert math.isnan(found) if kind == "iterative" else found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["columns", "rows"])
@pytest.mark.parametrize(("alpha", "decay"), RIDGES)
def test_score_is_the_density_of_all_observations(kind, alpha, decay):
    rng = np.random.default_rng(1)
    X = torch.tensor(rng.integers(0, 6, (60, 2)) / 5)
    y = torch.tensor(rng.standard_normal((60, 2)))
    ones = torch.ones(60, dtype=torch.float64)
    merged, grid = merge_rows(X, y, ones), SparseGrid(2, 3)
    assert merged.n_rows < 36
    within = merged.within.sum(0)
    solution = make(kind, merged, grid).solve(alpha, decay)
    # The ridge is relative to the largest column norm, which merging leaves as it is.
    C = Dense(Rows(X, y, ones, 0 * y), grid, alpha, decay).covariance
    noise = (within + solution.rss + solution.size) / 60

    def log_density(factor):
        targets = zip(y.T.numpy(), factor * noise.numpy(), strict=True)
        return sum(multivariate_normal.logpdf(target, cov=v * C) for target, v in targets)

    constant = 2 * 60 * (1 + math.log(2 * math.pi))
    assert solution.score(60.0, within) + constant == pytest.approx(-2 * log_density(1), rel=1e-9)
    assert max(log_density(0.9), log_density(1.1)) < log_density(1)


@pytest.mark.parametrize(("kind", "polish"), [("columns", 2), ("columns", 30), ("iterative", 0)])
def test_ridge_that_vanishes_leaves_least_squares(kind, polish):
    rows, grid = weighted_rows(1000), SparseGrid(2, 5)
    dense = Dense(rows, grid, 1.0, 1.0)
    expected, rss, *_ = np.linalg.lstsq(dense.A, dense.y, rcond=None)
    solution = make(kind, rows, grid, tol=1e-14, max_iter=30).solve(1e-12, 4.0, polish)
    np.testing.assert_allclose(solution.coef, expected, rtol=0, atol=1e-12 * abs(expected).max())
    np.testing.assert_allclose(solution.rss, rss, rtol=1e-12)


def test_no_ridge_leaves_the_likeliest_of_all_interpolants():
    """Where columns are more than rows; with the least ridge alone it would miss the targets."""
    rows, grid = weighted_rows(), SparseGrid(2, 6)
    dense = Dense(rows, grid, 1.0, 16.0)
    A, prior = dense.A, 16.0 ** -grid.costs()
    expected = prior[:, None] * A.T @ np.linalg.solve(A * prior @ A.T, dense.y)
    problem = make("rows", rows, grid)
    rough, polished = (problem.solve(0.0, 16.0, polish) for polish in (0, 30))
    assert (polished.rss < 1e-14).all()
    assert (rough.rss > 1e3 * polished.rss).all()
    found = coefficients("rows", polished, rows, grid).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_gram_matrix_that_is_known_is_not_formed(monkeypatch):
    rows, grid = weighted_rows(), SparseGrid(2, 3)
    expected = make("columns", rows, grid)
    matrix, costs = GridRows(grid, rows.X, rows.weight), torch.tensor(grid.costs()).double()
    monkeypatch.setattr(GridRows, "gram", lambda *_: pytest.fail("formed again"))
    problem = GramProblem(matrix, rows.y, costs, expected.gram)
    assert torch.equal(problem.solve(0.1, 4.0).coef, expected.solve(0.1, 4.0).coef)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_zeros_get_no_coefficients(kind):
    X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.5]]).double()
    y = torch.ones((3, 1)).double()
    rows, grid = Rows(X, y, y[:, 0], 0 * y), SparseGrid(2, 3, "zero")
    problem = make(kind, rows, grid)
    solution = problem.solve(0.1, 4.0)
    assert problem.scale == 1
    assert not coefficients(kind, solution, rows, grid).any()
    assert solution.rss.tolist() == [3.0]
    assert problem.effective_parameters(solution) == pytest.approx(0, abs=1e-12)


def test_ridge_grows_until_a_factor_exists():
    matrix = torch.diag(torch.tensor([1.0, -3e-9])).double()
    factor, used = factored(matrix, 1e-12)
    assert used == pytest.approx(1e-8)
    torch.testing.assert_close(factor @ factor.T, matrix + used * torch.eye(2).double())
    assert factored(matrix, 1e-6)[1] == 1e-6


# Kernels


def test_kernel_is_kept_for_one_decay():
    # More rows than a block of the kernel holds.
    rows, grid = weighted_rows(400), SparseGrid(2, 3)
    problem = make("rows", rows, grid)
    for decay in (4.0, 16.0, 4.0):
        dense = Dense(rows, grid, 1.0, decay)
        largest = np.linalg.norm(dense.A, axis=0).max()
        expected = largest**2 * (dense.covariance - np.eye(400))
        np.testing.assert_allclose(problem.kernel(decay), expected, rtol=1e-10, atol=1e-10)
        assert problem.kernel(decay) is problem.kernel(decay)


# Conjugate gradients


@pytest.mark.parametrize("n_exact", [1, 20, 10_000])
def test_preconditioner_changes_the_steps_but_not_the_solution(n_exact):
    rows, grid = weighted_rows(300), SparseGrid(2, 5)
    problem = make("iterative", rows, grid, n_exact=n_exact, tol=1e-10)
    solution = problem.solve(1e-2, 4.0)
    expected = make("columns", rows, grid).solve(1e-2, 4.0)
    torch.testing.assert_close(solution.coef, expected.coef, rtol=0, atol=1e-7)
    torch.testing.assert_close(solution.rss, expected.rss, rtol=1e-8, atol=0)
    # With the whole matrix one step leaves round-off only.
    assert (problem.n_iter <= 2) == (n_exact > grid.n_columns)
    assert problem.n_iter < problem.max_iter


def test_preconditioner_from_some_of_the_rows(monkeypatch):
    rows, grid = weighted_rows(300), SparseGrid(2, 3)
    expected = make("iterative", rows, grid)
    monkeypatch.setattr(ridge, "GRAM_ROWS", 100)
    problem = make("iterative", rows, grid)
    every_third = Dense(rows, grid, 1.0, 1.0).A[::3]
    share = float(rows.weight[::3].sum() / rows.weight.sum())
    np.testing.assert_allclose(problem.gram, every_third.T @ every_third / share, rtol=1e-12)
    one, two = problem.solve(1e-2, 4.0), expected.solve(1e-2, 4.0)
    torch.testing.assert_close(one.coef, two.coef, rtol=0, atol=1e-6)


def test_parameters_of_columns_beyond_the_block_are_counted_one_by_one():
    rows, grid, k = weighted_rows(), SparseGrid(2, 4), 20
    problem = make("iterative", rows, grid, n_exact=k)
    dense = Dense(rows, grid, 0.03, 16.0)
    block = dense.A[:, :k].T @ dense.A[:, :k]
    exact = np.trace(block @ np.linalg.inv(block + np.diag(dense.precision[:k])))
    squares = (dense.A[:, k:] ** 2).sum(0)
    alone = (squares / (squares + dense.precision[k:])).sum()
    found = problem.effective_parameters(problem.solve(0.03, 16.0))
    assert found == pytest.approx(exact + alone, rel=1e-9)


def test_steps_used_up():
    problem = make("iterative", weighted_rows(), SparseGrid(2, 4), n_exact=1, max_iter=2)
    problem.solve(1e-3, 4.0)
    assert problem.n_iter == 2


# Choice of the ridge


@pytest.mark.parametrize("k", [0, 1, 4, 6, 9, 12])
@pytest.mark.parametrize("decay", DECAYS)
def test_search_finds_the_minimum(k, decay):
    """Of a bowl about alpha = 10^(-k / 2)."""
    calls, lines = [], []

    def score(alpha, other):
        calls.append((alpha, other))
        return 10 * (2 * math.log10(alpha) + k) ** 2 + 100 * abs(math.log(other / decay))

    alpha, found = search_ridge(score, report=lines.append)
    assert (alpha, found) == (pytest.approx(10 ** (-k / 2)), decay)
    assert len(set(calls)) == len(calls) == len(lines) < 13 * len(DECAYS)
    assert f"alpha {calls[0][0]:.1e}, decay 16: score" in lines[0]


@pytest.mark.parametrize(("k", "expected"), [(-5, 1.0), (20, LEAST_ALPHA)])
def test_search_stays_within_its_bounds(k, expected):
    alphas = []

    def score(alpha, decay):
        alphas.append(alpha)
        return (2 * math.log10(alpha) + k) ** 2

    assert search_ridge(score)[0] == pytest.approx(expected)
    assert LEAST_ALPHA * 0.999 < min(alphas) < max(alphas) <= 1


@pytest.mark.parametrize("loss", [0.0, 0.9 * INDIFFERENCE, 1.1 * INDIFFERENCE])
def test_larger_ridge_where_the_score_is_indifferent(loss):
    """One of 10^-2 is hardly worse than the best, 10^-3; larger ones are far worse."""

    def score(alpha, decay):
        k = round(-2 * math.log10(alpha))
        return loss * (k != 6) if k >= 4 else 100.0

    alpha, decay = search_ridge(score)
    assert alpha == pytest.approx(1e-2 if loss < INDIFFERENCE else 1e-3)
    assert decay == 16


def test_search_near_a_given_ridge():
    tried = []

    def score(alpha, decay):
        tried.append((round(-2 * math.log10(alpha)), decay))
        return 10 * abs(2 * math.log10(alpha) + 8)

    found = search_ridge(score, decays=(4.0,), start=(1e-4, 4.0), stride=1)
    assert found == (pytest.approx(1e-4), 4.0)
    assert sorted(tried) == [(7, 4.0), (8, 4.0), (9, 4.0)]


@pytest.mark.parametrize("kind", ["columns", "rows"])
@pytest.mark.parametrize("decay", DECAYS)
def test_ridge_of_largest_evidence_is_that_of_the_prior(kind, decay):
    rng = np.random.default_rng(2)
    grid = SparseGrid(2, 4)
    X = torch.tensor(rng.random((300, 2)))
    alpha, noise = 0.01, 0.1
    one = torch.ones(300, dtype=torch.float64)
    largest = largest_norm(GridRows(grid, X, one).column_squares())
    size = noise / (alpha * largest) * decay ** (-0.5 * grid.costs())
    # Many targets: the evidence of one would hardly tell decays apart.
    coef = torch.tensor(size[:, None] * rng.standard_normal((grid.n_columns, 30)))
    y = grid.matrix(X) @ coef + noise * torch.tensor(rng.standard_normal((300, 30)))
    rows = Rows(X, y, one, 0 * y)
    problem, within = make(kind, rows, grid), torch.zeros(30).double()
    best = best_ridge(problem, 300.0, within)
    assert (best.alpha, best.decay) == (pytest.approx(alpha), decay)
    least = best.score(300.0, within)
    for k in range(13):
        for other in DECAYS:
            score = problem.solve(10 ** (-k / 2), other).score(300.0, within)
            assert score >= least - INDIFFERENCE


@pytest.mark.parametrize("alpha", [0.0, 1e-3])
def test_conjugate_gradients_for_few_rows_are_exact_at_once(alpha):
    """The preconditioner inverts through the rows: some steps for 769 columns."""
    rows, grid = weighted_rows(20, 4), SparseGrid(4, 5)
    iterative = make("iterative", rows, grid)
    found = iterative.solve(alpha, 4.0)
    assert iterative.n_iter <= 3
    kernel = make("rows", rows, grid)
    expected = kernel.of_columns(kernel.solve(max(alpha, 1e-6), 4.0, polish=2))
    torch.testing.assert_close(found.coef, expected, rtol=1e-4, atol=1e-6)
