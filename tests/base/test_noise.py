"""Noise that varies by a law."""

import pickle

import numpy as np
import pytest

from skpou import LSGDRegressor, SparseGridRegressor


def relative(n=200, seed=0):
    """Rows of a function over two decades with 2 % of noise, and the function."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 1))
    y = 10 ** (2 * X[:, 0])
    return X, y * (1 + 0.02 * rng.standard_normal(n))


T = np.linspace(0, 1, 400)[:, None]
TRUTH = 10 ** (2 * T[:, 0])


@pytest.fixture(scope="module")
def fitted():
    return LSGDRegressor().fit(*relative())


def test_relative_noise_over_two_decades(fitted):
    mean, std = fitted.predict(T, return_std=True)
    ratio = std / (0.02 * TRUTH)
    assert np.mean((ratio > 0.6) & (ratio < 1.7)) > 0.85
    # The small values are known as well as the large ones.
    assert np.sqrt(np.mean((mean / TRUTH - 1) ** 2)) < 0.02
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


def test_what_a_form_misses_does_not_turn_the_fit_away_from_it():
    X = np.random.default_rng(0).random((200, 2))
    y = np.abs(X[:, 0] + X[:, 1] - 1)
    even = SparseGridRegressor(level=3, density="gaussian").fit(X, y)
    varied = SparseGridRegressor(level=3).fit(X, y)
    assert varied._noise_law is not None
    np.testing.assert_allclose(varied.predict(X), even.predict(X), rtol=1e-9, atol=1e-12)


def test_a_line_beside_a_coarse_form_does_not_hang_on_the_law():
    rng = np.random.default_rng(0)
    X = rng.uniform((-1, -1, -5), (1, 1, 5), (240, 3))
    y = np.abs(X[:, 0] + 0.3 * X[:, 1]) + 0.5 * X[:, 1] + 0.2 * X[:, 2]
    even = SparseGridRegressor(level=1, density="gaussian").fit(X, y)
    varied = SparseGridRegressor(level=1).fit(X, y)
    assert varied._noise_law is not None
    error = {model: np.sqrt(np.mean((model.predict(X) - y) ** 2)) for model in (even, varied)}
    assert error[varied] < 1.05 * error[even] < 0.5 * y.std()


def test_errors_alike_by_chance_do_not_hide_noise_that_varies():
    # By the ALIKE standard errors at which a form is told from noise these rows' errors are alike.
    model = SparseGridRegressor().fit(*relative(seed=31))
    _, noise = model.predict([[0.1], [0.9]], return_std="noise")
    assert noise[1] > 10 * noise[0]


def test_each_of_several_targets_has_its_own_law():
    X, y = relative()
    even = np.sin(6 * X[:, 0]) + 0.1 * np.random.default_rng(1).standard_normal(len(X))
    model = SparseGridRegressor().fit(X, np.stack([y, even], 1))
    ends = model.predict([[0.1], [0.9]], return_std="noise")[1]
    assert ends[1, 0] > 10 * ends[0, 0]
    assert ends[1, 1] == pytest.approx(ends[0, 1], rel=1e-9)
    assert model.noise_[0] == pytest.approx(0.02 * np.sqrt(np.mean(y**2)), rel=0.4)
    draws = model.sample_y([[0.1], [0.9]], 2000, random_state=0)
    std = model.predict([[0.1], [0.9]], return_std=True)[1]
    np.testing.assert_allclose(draws.std(-1), std, rtol=0.15)
