"""The best segments of a line of rows."""

import itertools

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.pieces.segments import best_segments, criterion, max_segments
from tests.examples import rows_of


def problem_of(n, degree, seed=0, n_outputs=1, repeated=False):
    rng = np.random.default_rng(seed)
    X, y = np.sort(rng.random((n, 1)), 0), rng.standard_normal((n, n_outputs))
    X, y = (np.repeat(X, 2, 0), rng.standard_normal((2 * n, n_outputs))) if repeated else (X, y)
    return PieceProblem(rows_of(X, y), degree)


def every_cut(problem, n_segments, least):
    """Least residual over all cuts, one fit each."""
    found = []
    for cuts in itertools.combinations(range(1, problem.n), n_segments - 1):
        sizes = np.diff([0, *cuts, problem.n])
        if sizes.min() >= least:
            labels = problem._tensor(np.repeat(np.arange(n_segments), sizes))
            found.append(float(problem.fit(labels).rss.sum()))
    return min(found)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("repeated", [False, True])
def test_no_other_cuts_leave_less(degree, repeated):
    problem = problem_of(14, degree, n_outputs=2, repeated=repeated)
    least = degree + 2
    for number, labels in enumerate(best_segments(problem, 4, least), 1):
        assert int(labels.max()) + 1 == number
        assert np.bincount(labels).min() >= least
        assert np.diff(labels.numpy()).min() >= 0
        left = float(problem.fit(labels).rss.sum())
        np.testing.assert_allclose(left, every_cut(problem, number, least), rtol=1e-10)


def test_the_criterion_counts_coefficients_and_cuts():
    problem = problem_of(40, 1)
    one, two = best_segments(problem, 2, 3)
    rss = [float(problem.fit(labels).rss.sum()) for labels in (one, two)]
    # Two coefficients and no cut, or four and one: each costs more where fewer rows are left.
    price = np.log(40) * np.array([2 * 40 / (40 - 2 - 1), 6 * 40 / (40 - 6 - 1)])
    gain = 40 * np.log(rss[0] / rss[1]) + price[0] - price[1]
    np.testing.assert_allclose(criterion(problem, one) - criterion(problem, two), gain, rtol=1e-10)


def test_segments_leave_rows_to_spare():
    problem = problem_of(15, 1)
    most = max_segments(15, problem.n_columns)
    assert most == 3
    assert np.isfinite(criterion(problem, best_segments(problem, most, 3)[-1]))
    too_many = problem._tensor(np.repeat(np.arange(5), 3))
    assert criterion(problem, too_many) == np.inf
    assert max_segments(2, 3) == 1


@pytest.mark.parametrize(("n", "degree"), [(15, 1), (15, 2), (33, 2)])
def test_a_kink_of_few_noisy_rows_is_found(n, degree):
    """No more than 1.5 times the error of one who knows the kink."""
    x, t = np.linspace(-1, 1, n)[:, None], np.linspace(-1, 1, 1001)[:, None]
    kink = x[3 * n // 5, 0] + 0.05

    def function(X):
        return np.maximum(X[:, 0] - kink, 0) ** degree + 0.3 * X[:, 0]

    noise = 1e-3 * np.std(function(x))
    y = function(x) + noise * np.random.default_rng(3).standard_normal(n)
    known = np.empty(len(t))
    for side in (-1, 1):
        rows, points = side * (x[:, 0] - kink) > 0, side * (t[:, 0] - kink) > 0
        known[points] = np.polyval(np.polyfit(x[rows, 0], y[rows], degree), t[points, 0])
    model = HierarchicalPOURegressor().fit(x, y)
    error, least = (np.sqrt(np.mean((p - function(t)) ** 2)) for p in (model.predict(t), known))
    assert len(model.coef_) == 2
    assert error < 1.5 * least


@pytest.mark.parametrize("n", [15, 51])
@pytest.mark.parametrize("between", [0.0, 0.37])
def test_a_kink_of_the_curvature_is_found_to_round_off(n, between):
    x = np.sort(np.random.default_rng(n).uniform(-1, 1, n))[:, None]
    at, after = x[3 * n // 5, 0], x[3 * n // 5 + 1, 0]
    kink, t = at + between * (after - at), np.linspace(x.min(), x.max(), 2001)[:, None]

    def function(X):
        return np.maximum(X[:, 0] - kink, 0) ** 2 + 0.5 * X[:, 0]

    model = HierarchicalPOURegressor().fit(x, function(x))
    assert np.abs(model.predict(t) - function(t)).max() < 1e-12


@pytest.mark.slow
def test_a_level_shift_in_noise_is_found_and_no_other():
    """Level shifts as that of the Nile's volume in 1899, 1.5 to 2 noises, in a hundred years."""
    year, rng = np.arange(1871.0, 1971)[:, None], np.random.default_rng(3)
    flow = np.where(year[:, 0] < 1899, 1098, 850) + 128 * rng.standard_normal(100)
    model = HierarchicalPOURegressor().fit(year, flow)
    assert model.coef_.shape == (2, 1)
    shift = np.flatnonzero(np.diff(model.predict(year)))
    assert len(shift) == 1
    assert abs(year[shift[0] + 1, 0] - 1899) <= 3
    none = HierarchicalPOURegressor().fit(year, flow + 248 * (year[:, 0] >= 1899))
    assert len(none.coef_) == 1
