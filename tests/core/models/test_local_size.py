"""The local size of errors: told where they vary, one where they do not."""

import numpy as np
import pytest

from skpou import SparseGridRegressor
from skpou.core.models.local_size import LocalSize, fit_local_size


def errors(n, of_log, seed=0):
    rng = np.random.default_rng(seed)
    X = np.sort(rng.random(n))[:, None]
    return X, np.exp(of_log(X[:, 0])) * rng.standard_normal(n) ** 2


def test_errors_over_decades_are_told():
    X, square = errors(60, lambda x: 14 * x - 9)
    found = fit_local_size(X, square, np.ones(60), 0.0)
    at = np.linspace(0.1, 0.9, 17)[:, None]
    assert np.abs(np.log(found(at)) - 14 * at[:, 0] + 9).max() < 2.5
    again = LocalSize(**found.arrays())
    np.testing.assert_array_equal(again(at), found(at))
    # Beyond the box it is that of the side, and not below one.
    np.testing.assert_array_equal(found(X[-1:] + 1), found(X[-1:]))
    assert found(X[:1])[0] < 0.1 and found(np.array([[-0.1]]))[0] == 1


@pytest.mark.parametrize("n", [8, 60])
def test_errors_of_one_size_are_about_that_everywhere(n):
    for seed in range(5):
        X, square = errors(n, np.zeros_like, seed)
        found = fit_local_size(X, square, np.ones(n), 0.0, no_less=True)
        assert found is None or np.ptp(np.log(found(X))) < 3


def test_what_is_smaller_than_expected_is_believed_by_the_number_of_errors():
    X, square = errors(20, lambda x: 4 * x - 8)
    whole, half = (fit_local_size(X, square, np.ones(20), prior) for prior in (0.0, 20.0))
    np.testing.assert_allclose(np.log(half(X)), 0.5 * np.log(whole(X)))


def test_bars_of_a_function_that_grows_over_decades_grow_with_it():
    x = np.linspace(0, 1, 21)[:, None]
    model = SparseGridRegressor().fit(x, 10 ** (5 * x[:, 0] ** 1.5))
    new = (x[1:] + x[:-1]) / 2
    mean, std = model.predict(new, return_std=True)
    error = np.abs(mean - 10 ** (5 * new[:, 0] ** 1.5))
    assert np.mean(error <= 3 * std) >= 0.95
    # Of a stationary process of even rows they are those of the mirrored points.
    assert (std[:7] < std[:-8:-1]).all()


def test_each_output_keeps_its_own_size():
    x = np.linspace(0, 1, 21)[:, None]
    Y = np.c_[np.sin(5 * x), 10 ** (5 * x**1.5), np.cos(4 * x)]
    both, new = SparseGridRegressor().fit(x, Y), (x[1:] + x[:-1]) / 2
    std = both.predict(new, return_std=True)[1]
    for k in range(3):
        own = SparseGridRegressor().fit(x, Y[:, k]).predict(new, return_std=True)[1]
        np.testing.assert_allclose(std[:, k], own, rtol=1e-2)
