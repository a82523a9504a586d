from fractions import Fraction

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, POURegressor
from tests.examples import slow


def exact_values(raw, piece, X):
    """Sum of the terms of one piece at the points X, without round-off."""
    values = []
    for x in X.tolist():
        terms = (
            Fraction(float(c)) * np.prod([Fraction(v) ** int(p) for v, p in zip(x, powers)])
            for c, powers in zip(raw["coef"][piece], raw["powers"])
        )
        values.append(float(sum(terms)))
    return np.array(values)


@pytest.mark.parametrize("offset", [30.0, *slow(0.0)])
def test_pieces_in_powers_predict_the_same(offset):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(-1, 1, 300), np.full(300, 7.0), rng.uniform(0, 4, 300)])
    X[:, 0] += offset
    y = 5 + np.where(X[:, 0] > offset + 0.1, X[:, 2] ** 2, 1 - 0.5 * X[:, 2] * (X[:, 0] - offset))
    model = HierarchicalPOURegressor().fit(X, y)
    raw = model.raw_polynomials_
    assert raw["coef"].shape == model.coef_.shape
    assert raw["powers"].shape == (model.coef_.shape[1], 3)
    assert not raw["powers"][:, 1].any()  # a constant column has no part
    # Off the boundary, where the gates choose one piece outright.
    new = X[np.abs(X[:, 0] - offset - 0.1) > 0.05][:60]
    pieces, expected = model.predict_partition(new), model.predict(new)
    for piece in np.unique(pieces):
        error = np.abs(exact_values(raw, piece, new) - expected)[pieces == piece].max()
        lost = raw["digits_lost"][piece]
        assert error <= 1e-13 * 10**lost * y.std()
    most = raw["digits_lost"].max()
    assert (most < 1) if offset == 0 else (1 < most < 3)


def test_known_parabola():
    x = np.linspace(2, 3, 50)[:, None]
    raw = POURegressor(1, 2).fit(x, 1 - 2 * x[:, 0] + 3 * x[:, 0] ** 2).raw_polynomials_
    np.testing.assert_array_equal(raw["powers"][:, 0], [0, 1, 2])
    np.testing.assert_allclose(raw["coef"], [[1, -2, 3]], atol=1e-9)


def test_several_outputs_and_digits():
    x = np.linspace(0, 1, 50)[:, None] + 1e8
    y = np.column_stack([x[:, 0] - 1e8, np.ones(50)])
    raw = POURegressor(1, 1).fit(x, y).raw_polynomials_
    assert raw["coef"].shape == (1, 2, 2)
    assert raw["digits_lost"].shape == (1, 2)
    assert 8 < raw["digits_lost"][0, 0] < 9.5  # 1e8 of y's rms 0.3 cancel, twice
    assert raw["digits_lost"][0, 1] == 0


def test_nothing_varies():
    raw = POURegressor(1, 1).fit(np.ones((5, 2)), np.arange(5.0)).raw_polynomials_
    np.testing.assert_array_equal(raw["powers"], [[0, 0]])
    np.testing.assert_allclose(raw["coef"], [[2.0]])
