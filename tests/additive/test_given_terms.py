"""Terms that are given, from rows in memory and from sums over rows."""

import numpy as np
import pytest

from skpou import AdditivePOURegressor

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (400, 4))
EXACT = np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2]
Y = EXACT + 0.05 * rng.standard_normal(400)
TERMS = [(2, 1), 0, (1,), (2,), (0, 1, 3)]
QUICK = {"density": "gaussian", "transform_columns": False, "n_splines": 8}


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_given_terms_are_those_of_the_model(method):
    model = AdditivePOURegressor(terms=TERMS, bounds=[[-1, 1]] * 4, **QUICK)
    getattr(model, method)(X[:300], Y[:300])
    assert model.terms_ == [(0,), (1,), (2,), (1, 2), (0, 1, 3)]
    error = model.predict(X[300:]) - EXACT[300:]
    assert np.sqrt(np.mean(error**2)) < 0.03
    parts = model.predict_terms(X[300:])
    np.testing.assert_allclose(parts.sum(1) + model.intercept_, model.predict(X[300:]))
    variances = model.predict_terms(X).var(0)
    assert variances[[0, 3]].min() > 20 * variances[[1, 2, 4]].max()


def test_a_column_without_a_term_has_no_part():
    model = AdditivePOURegressor(terms=[(0,)], **QUICK).fit(X, Y)
    other = X.copy()
    other[:, 1:] = other[::-1, 1:]
    np.testing.assert_array_equal(model.predict(other), model.predict(X))


def test_constant_columns_lose_their_terms():
    points = X.copy()
    points[:, 1] = 2.0
    model = AdditivePOURegressor(terms=[(0,), (1,), (1, 2)], **QUICK).fit(points, Y)
    assert model.terms_ == [(0,)]


@pytest.mark.parametrize("terms", [[(4,)], [(0, 0)], [(-1,)], [()], [(0, 1, 2, 3)], [("a",)]])
def test_bad_terms(terms):
    with pytest.raises(ValueError, match="terms must be tuples of one to three different columns"):
        AdditivePOURegressor(terms=terms).fit(X, Y)


def test_functions_are_fewer_where_they_do_not_fit():
    small = AdditivePOURegressor(terms=TERMS, max_columns=20, **QUICK).partial_fit(X, Y)
    assert small.terms_ == [(0,), (1,), (2,), (1, 2), (0, 1, 3)]
    with pytest.raises(ValueError, match=r"5 terms with one function a column .* max_columns=5"):
        small.set_params(max_columns=5).fit(X, Y)
