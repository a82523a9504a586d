"""Noise that varies by a law."""

import pickle

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, LSGDRegressor, SparseGridRegressor


def relative(n=200, seed=0):
    """Rows of a function over two decades with 2 % of noise, and the function."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 1))
    y = 10 ** (2 * X[:, 0])
    return X, y * (1 + 0.02 * rng.standard_normal(n))


T = np.linspace(0, 1, 400)[:, None]
TRUTH = 10 ** (2 * T[:, 0])


@pytest.fixture(scope="module", params=[LSGDRegressor, HierarchicalPOURegressor])
def fitted(request):
    return request.param().fit(*relative())


def test_relative_noise_over_two_decades(fitted):
    def near(model):
        ratio = model.predict(T, return_std="noise")[1] / (0.02 * TRUTH)
        return np.mean((ratio > 0.6) & (ratio < 1.7))

    even = type(fitted)(density="gaussian").fit(*relative())
    # Where the noise is least the mean errs by more: what is left there is not the noise alone.
    assert near(fitted) > max(0.8, near(even) + 0.4)
    _, y = relative(seed=1)
    assert fitted.noise_ == pytest.approx(0.02 * np.sqrt(np.mean(y**2)), rel=0.3)


def test_state_and_draws_know_the_law(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(T, True)[1], fitted.predict(T, True)[1])
    draws = fitted.sample_y(T[[0, -1]], 4000)
    np.testing.assert_allclose(draws.std(1), fitted.predict(T[[0, -1]], True)[1], rtol=0.1)


def test_even_noise_and_one_gaussian_have_no_law():
    X, y = relative()
    assert SparseGridRegressor(density="gaussian").fit(X, y)._noise_law is None
    rng = np.random.default_rng(0)
    model = SparseGridRegressor().fit(X, y)
    assert model._noise_law is not None
    assert model.fit(X, np.sin(6 * X[:, 0]) + 0.1 * rng.standard_normal(200))._noise_law is None


def test_what_a_form_misses_is_no_noise():
    X = np.random.default_rng(0).random((200, 2))
    y = np.abs(X[:, 0] + 0.3 * X[:, 1] - 0.6) ** 0.5
    assert SparseGridRegressor().fit(X, y)._noise_law is None


def test_the_mean_is_that_of_even_noise():
    X, y = relative()
    even = SparseGridRegressor(density="gaussian").fit(X, y)
    varied = SparseGridRegressor().fit(X, y)
    assert varied._noise_law is not None
    np.testing.assert_allclose(varied.predict(T), even.predict(T), rtol=1e-12)
