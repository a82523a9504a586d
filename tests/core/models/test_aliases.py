"""What few levels of a column cannot tell: parabolas between two, cubics between three."""

import itertools

import numpy as np
import pytest

from skpou import LSGDRegressor
from skpou.core.models.aliases import aliased_levels, columns_of_few_levels
from skpou.core.models.level_error import LevelError
from skpou.core.models.power_function import WeighedKernels
from tests.examples import tensor


def design(n_levels, n_columns):
    return np.array(list(itertools.product(np.linspace(0, 1, n_levels), repeat=n_columns)))


class Mean:
    def __init__(self, function):
        self.function = function

    def mean(self, X):
        return self.function(X)[:, None]


def sizes(function, X, found=()):
    levels = aliased_levels(Mean(function), tensor(X), found, 0)
    return {one.column: one.least for one in levels}


def test_only_few_levels_of_several_columns_have_aliases():
    X = np.c_[design(2, 4), np.linspace(0, 1, 16)]
    assert list(columns_of_few_levels(X)) == [0, 1, 2, 3]
    assert columns_of_few_levels(X[:, :1]) == {}
    assert columns_of_few_levels(X[:3]) == {}


@pytest.mark.parametrize("n_levels", [2, 3, 4])
def test_an_additive_function_may_have_another_power(n_levels):
    found = sizes(lambda X: (2 * X).exp().sum(1), design(n_levels, 3))
    x = np.linspace(0, 1, 201)
    levels = np.linspace(0, 1, n_levels)
    told = np.polynomial.Polynomial.fit(levels, np.exp(2 * levels), n_levels - 1)(x)
    missed = np.abs(told - np.exp(2 * x)).max()
    assert len(found) == 3
    assert all(missed / 3 < size < 10 * missed for size in found.values())


def test_powers_that_are_not_there_have_no_next_one():
    assert max(sizes(lambda X: X.sum(1), design(3, 3)).values()) < 1e-12


def test_products_tell_the_degree():
    assert max(sizes(lambda X: (1 + X.sum(1)) ** 2, design(3, 3)).values()) < 1e-12


def test_what_left_out_levels_tell_is_not_made_less():
    levels = np.linspace(0, 1, 3)
    none = WeighedKernels.none().arrays()
    one = LevelError(1, levels, none, 0.5, levels[1:2], np.ones(1))
    found = sizes(lambda X: X.sum(1), design(3, 3), [one])
    assert found[1] == 0.5
    assert found[0] < 1e-12


def test_bars_between_levels_know_what_these_hide():
    X = design(4, 3)

    def y(X):
        return np.sin(5 * X + np.arange(3)).sum(1)

    model = LSGDRegressor().fit(X, y(X))
    new = np.random.default_rng(0).random((300, 3))
    mean, std = model.predict(new, return_std=True)
    assert np.mean(np.abs(mean - y(new)) <= 3 * std) >= 0.95
    at_rows = model.predict(X, return_std=True)[1]
    assert at_rows.max() < 0.1 * np.median(std)
