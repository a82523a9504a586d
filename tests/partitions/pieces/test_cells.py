"""Fine cells, and the fits and residuals that all steps of discovery use."""

import itertools

import numpy as np
import pytest
import torch

from skpou.core.polynomials import TotalDegreePolynomials
from skpou.partitions.pieces import cells as cells_module
from skpou.partitions.pieces.cells import UNSCREENED, _screened, fine_cells, lloyd
from skpou.partitions.pieces.problem import PieceProblem, compact
from tests.contracts import DTYPES, EPS, same_bits
from tests.examples import five_pieces, kink, problem_of, rows_of, tensor, wave


def conflicting_problem(d=2, m=2, degree=1, seed=0):
    """Samples with weights and, at some points, two different targets."""
    rng = np.random.default_rng(seed)
    X = rng.random((60, d))
    X[40:] = X[:20]
    y = rng.standard_normal((60, m))
    return PieceProblem(rows_of(X, y, rng.integers(1, 4, 60)), degree), (X, y)


def test_fit_against_least_squares_of_every_label():
    problem, _ = conflicting_problem()
    rows, rng = problem.rows, np.random.default_rng(1)
    labels = torch.as_tensor(rng.choice([0, 1, 3], problem.n))
    pieces = problem.fit(labels, 5)
    assert pieces.n_pieces == 5
    for k in range(5):
        own = (labels == k).numpy()
        A, y = problem.polynomials.numpy()[own], rows.y.numpy()[own]
        w, within = rows.weight.numpy()[own], rows.within.numpy()[own]
        assert pieces.count[k] == own.sum()
        np.testing.assert_allclose(pieces.weight[k], w.sum(), rtol=1e-14)
        if not own.any():
            assert not pieces.coef[k].any()
            assert pieces.rss[k] == pieces.error[k] == 0
            continue
        root = np.sqrt(w)[:, None]
        coef = np.linalg.lstsq(A * root, y * root, rcond=None)[0]
        np.testing.assert_allclose(pieces.coef[k], coef, rtol=1e-10, atol=1e-12)
        residual = np.square(root * (y - A @ coef)).sum(0) + within.sum(0)
        np.testing.assert_allclose(pieces.rss[k], residual.mean(), rtol=1e-11)
        expected = np.sqrt(residual.mean() / (w.sum() - problem.n_columns))
        np.testing.assert_allclose(pieces.error[k], expected, rtol=1e-11)
    torch.testing.assert_close(problem.fit(labels).coef, pieces.coef[:4])


@pytest.mark.parametrize("moves", [(3, 1), (40, 1), (200, 2)])
def test_fit_of_changed_pieces_alone_is_that_of_all(moves):
    problem = problem_of(lambda X: np.sin(5 * X[:, 0] + X[:, 1]), 400, d=2, degree=2)
    rng = np.random.default_rng(0)
    pieces = problem.fit(torch.as_tensor(rng.integers(0, 9, 400)))
    labels = pieces.labels.clone()
    n_moved, lost = moves
    labels[torch.as_tensor(rng.choice(400, n_moved, replace=False))] = 4
    for piece in range(lost):
        labels[labels == piece] = 7
    found, expected = problem.refit(pieces, labels), problem.fit(compact(labels))
    assert torch.equal(found.labels, expected.labels)
    for name in ("coef", "rss", "error", "count", "weight"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    gram = found.factors.mT @ found.factors
    torch.testing.assert_close(gram, expected.factors.mT @ expected.factors)
    assert problem.refit(pieces, pieces.labels) is pieces


def test_screened_balls_are_those_that_leave_the_least():
    problem = problem_of(lambda X: np.sin(5 * X[:, 0] + X[:, 1]), 500, d=2, degree=3)
    size, tried = 24, np.arange(0, 500, 2)
    cell = tried % 3
    kept = _screened(problem, tried, cell, size)
    near = problem.tree.query(problem.host_points[tried], size)[1]
    A, y = problem.polynomials.numpy(), problem.rows.y.numpy()
    left = np.array([np.linalg.lstsq(A[rows], y[rows], rcond=None)[1].sum() for rows in near])
    for k in range(3):
        own = tried[cell == k]
        expected = own[np.argsort(left[cell == k])][:UNSCREENED]
        assert set(kept[np.isin(kept, own)]) == set(expected)


def test_balls_of_many_columns_cost_no_more_than_some_work(monkeypatch):
    problem = problem_of(lambda X: np.sin(5 * X[:, 0] + X[:, 1]), 400, d=2, degree=3)
    seen = []
    two_sizes = cells_module._two_sizes

    def counted(problem, tried, *others):
        seen.append(len(tried))
        return two_sizes(problem, tried, *others)

    monkeypatch.setattr(cells_module, "_two_sizes", counted)
    cells_module._best_balls(
        problem, 4, np.random.default_rng(0), cells_module._rests, cells_module._two_sizes
    )
    monkeypatch.setattr(cells_module, "MOST_WORK", 1.0)
    cells_module._best_balls(
        problem, 4, np.random.default_rng(0), cells_module._rests, cells_module._two_sizes
    )
    assert seen == [400, 32]


def test_residuals_of_all_observations_are_kept():
    # The sum of squares about the fit of the raw rows, not only of the merged ones.
    rng = np.random.default_rng(2)
    X, y = rng.integers(0, 6, (80, 1)) / 5, rng.standard_normal(80)
    problem = PieceProblem(rows_of(X, y), 2)
    pieces = problem.fit(torch.zeros(problem.n, dtype=torch.int64))
    phi = TotalDegreePolynomials(1, 2).matrix(tensor(X)).numpy()
    expected = np.linalg.lstsq(phi, y, rcond=None)[1][0]
    np.testing.assert_allclose(pieces.rss[0], expected, rtol=1e-12)
    assert problem.total_weight == 80


@pytest.mark.parametrize("n_pieces", [2, 40])
def test_squared_residuals_against_a_loop(n_pieces):
    problem, _ = conflicting_problem(degree=2)
    rng = np.random.default_rng(3)
    coef = tensor(rng.standard_normal((n_pieces, problem.n_columns, 2)))
    index = torch.as_tensor(rng.choice(problem.n, 7))
    candidates = torch.as_tensor(rng.integers(0, n_pieces, (7, 3)))
    got = problem.squared_residuals(coef, index, candidates)
    for a, i in enumerate(index):
        for c, k in enumerate(candidates[a]):
            residual = problem.rows.y[i] - problem.polynomials[i] @ coef[k]
            np.testing.assert_allclose(got[a, c], residual.square().mean(), rtol=1e-12)


def test_surprise_grows_with_residual_and_ranks_alike_in_all_units():
    surprises = []
    for unit in (1.0, 1e-3, 1e4):
        problem = problem_of(lambda X, unit=unit: unit * np.sin(9 * X[:, 0]), 60, 1, 2)
        labels = torch.arange(problem.n) // 20
        pieces = problem.fit(labels)
        index, every = torch.arange(problem.n), torch.arange(3).expand(problem.n, 3)
        surprise = problem.surprise(pieces, index, every)
        square = problem.squared_residuals(pieces.coef, index, every)
        for k in range(3):
            order = square[:, k].argsort()
            assert (surprise[order, k].diff() >= 0).all()
        surprises.append(surprise - np.log(unit))
        # A piece of small error explains its own samples best.
        assert (surprise.argmin(1) == labels).double().mean() > 0.9
    torch.testing.assert_close(surprises[1], surprises[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(surprises[2], surprises[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_neighbours_are_the_nearest_samples(d):
    problem = problem_of(lambda X: X.sum(1), 50, d)
    X = problem.equalise(problem.rows.X.numpy())
    distance = np.linalg.norm(X[:, None] - X, axis=2)
    np.fill_diagonal(distance, np.inf)
    expected = np.argsort(distance, axis=1)[:, : 2 * d + 6]
    assert np.array_equal(np.sort(problem.neighbours.numpy(), 1), np.sort(expected, 1))


def test_neighbours_on_a_table_that_is_fine_along_one_axis_lie_on_other_lines_too():
    fine, coarse = np.linspace(0, 1, 30), np.linspace(0, 1, 15)
    X = np.stack(np.meshgrid(np.r_[0.1 * fine, 0.2, 0.5, 1.0], coarse), -1).reshape(-1, 2)
    problem = PieceProblem(rows_of(X, X.sum(1)), 1)
    points = problem.rows.X.numpy()
    dense = points[:, 0] < 0.1
    plain = np.abs(points[problem.neighbours.numpy()] - points[:, None])[dense, :, 1] > 0
    assert plain.any(1).mean() > 0.8


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_samples_than_neighbours(n):
    problem = problem_of(lambda X: X.sum(1), n, 2)
    assert problem.neighbours.shape == (n, n - 1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", DTYPES)
def test_floor_is_relative_to_the_targets(scale, dtype):
    rng = np.random.default_rng(4)
    X, y = rng.random((30, 1)), rng.standard_normal(30)
    y /= np.sqrt(np.square(y).mean())
    problem = PieceProblem(rows_of(X, scale * y, dtype=dtype), 1)
    assert abs(problem.floor / (450 * EPS[dtype] * scale) - 1) < 1e-3
    assert PieceProblem(problem.rows, 1, tol=1e-2).floor == pytest.approx(1e-2 * scale)
    assert PieceProblem(rows_of(X, 0 * y), 1).floor > 0


def test_compact_keeps_order_and_partition():
    labels = torch.tensor([7, 2, 2, 9, 7])
    assert compact(labels).tolist() == [1, 0, 0, 2, 1]


def test_lloyd_lowers_the_distortion_and_returns_nearest_cells():
    rng = np.random.default_rng(5)
    X, weight = rng.random((400, 2)), rng.uniform(0.5, 2, 400)
    distortions = []
    for n_sweeps in (0, 1, 6, 20):
        centres, cell = lloyd(X, weight, 12, np.random.default_rng(6), n_sweeps)
        square = np.square(X[:, None] - centres).sum(2)
        assert np.array_equal(cell, square.argmin(1))
        distortions.append(weight @ square.min(1))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(distortions))
    for j in range(12):
        own = cell == j
        centre = weight[own] @ X[own] / weight[own].sum()
        np.testing.assert_allclose(centres[j], centre, atol=0.02)


@pytest.mark.parametrize(
    ("function", "n", "d", "degree", "n_boundary"),
    [(wave(4), 300, 1, 2, 12), (kink, 800, 2, 2, 60), (five_pieces, 2500, 2, 4, 250)],
    ids=["wave", "kink", "five"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_cells_beside_kinks_are_one_sided(function, n, d, degree, n_boundary, seed):
    problem = problem_of(function, n, d, degree, seed)
    pieces = fine_cells(problem, np.random.default_rng(seed))
    labels = pieces.labels
    own = problem.squared_residuals(pieces.coef, torch.arange(n), labels[:, None]).sqrt()
    # All but few samples at kinks belong to cells whose polynomial is exact there.
    assert int((own > 1e-9).sum()) <= n_boundary
    assert torch.unique(labels).tolist() == list(range(pieces.n_pieces))
    assert pieces.n_pieces >= 4
    assert same_bits(pieces.coef, problem.fit(labels).coef)


def test_cells_are_the_same_for_the_same_seed():
    problem = problem_of(kink, 400, 2, 2)
    first, second = (fine_cells(problem, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("screened", [False, True])
def test_balls_of_all_samples_are_fitted_once_for_all_starts(screened, monkeypatch):
    problem = problem_of(kink, 700, 2, 2, noise=0.1)
    if screened:
        monkeypatch.setattr(cells_module, "SCREENED_WORK", 0)
    expected = fine_cells(problem, np.random.default_rng(0))
    counts = {"_two_sizes": 0, "_rests": 0}

    def counted(name, function):
        def wrapped(*given):
            counts[name] += 1
            return function(*given)

        return wrapped

    for name in counts:
        monkeypatch.setattr(cells_module, name, counted(name, getattr(cells_module, name)))
    found = fine_cells(problem, np.random.default_rng(0))
    assert same_bits(found.coef, expected.coef)
    expected_counts = (4, 1) if screened else (1, 0)
    assert (counts["_two_sizes"], counts["_rests"]) == expected_counts


@pytest.mark.parametrize(("n", "d"), [(1, 1), (9, 1), (1, 0), (11, 2)])
def test_few_samples_make_one_cell(n, d):
    problem = problem_of(lambda X: X.sum(1), n, d, 2)
    pieces = fine_cells(problem, np.random.default_rng(0))
    assert pieces.n_pieces == 1
    assert not pieces.labels.any()
