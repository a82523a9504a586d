"""Covariances by pairs of rows against whole matrices."""

import numpy as np
import pytest

from skpou.core.models.pairs_of_rows import PairsOfRows, least


def whole(pairs, between, own):
    K = np.diag(own)
    K[pairs.first, pairs.second] = between
    K[pairs.second, pairs.first] = between
    return K


def test_solution_is_that_of_the_whole_matrix():
    rng = np.random.default_rng(0)
    X, y = rng.random((9, 2)), rng.standard_normal((9, 3))
    pairs = PairsOfRows(X)
    log_rates = np.array([0.3, -0.4])
    between = np.exp(-0.5 * pairs.distances(log_rates)) + 0.2 * pairs.line
    own = 1.1 + 0.2 * pairs.line_own
    Z, scaled = X - X.mean(0), X * np.exp(log_rates)
    K = np.exp(-0.5 * ((scaled[:, None] - scaled) ** 2).sum(2)) + 0.2 * Z @ Z.T + 0.1 * np.eye(9)
    assert whole(pairs, between, own) == pytest.approx(K)
    solved, inverse = pairs.solve(between, own, y), np.linalg.inv(K)
    assert solved.half_log_det == pytest.approx(0.5 * np.linalg.slogdet(K)[1])
    assert solved.coef == pytest.approx(inverse @ y)
    assert whole(pairs, solved.inverse, solved.inverse_own) == pytest.approx(inverse)
    assert whole(pairs, pairs.products(y), (y**2).sum(1)) == pytest.approx(y @ y.T)
    assert pairs.solve(between, own - 2, y) is None


def test_search_stays_within_its_bounds():
    value, where = least(
        lambda x: (float((x - 3) @ (x - 3)), 2 * (x - 3)), np.zeros(2), [(-1, 2), (-9, 9)], 50
    )
    assert where == pytest.approx([2, 3], abs=1e-4)
    assert value == pytest.approx(1)
