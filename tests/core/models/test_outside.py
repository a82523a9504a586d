"""What rows at the sides of the box say of points outside: much of a form that goes on, or none."""

import numpy as np
import pytest

from skpou import AdditivePOURegressor, LSGDRegressor, POURegressor
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.outside import FAR, LEAST, SAFE, Outside, fit_outside, sides_of


def judged(X, error, doubt=1.0, told=True, asked=None):
    """The part for errors of one size at all sides, beside a doubt of one size."""
    sides = sides_of(X)
    sets = [side.rows for side in sides]
    count = len(np.concatenate(sets))
    errors, none = np.full((count, 1), error), np.zeros((count, 1))
    found = LeftOut(sets, 0, errors, none, none, np.ones(len(sets)), np.full(len(sets), told))

    def doubt_of(near, there):
        if asked is not None:
            asked.append(len(near))
        return np.full(len(near), doubt**2)

    return fit_outside(sides, found, X, doubt_of)


def test_rows_at_both_sides_of_each_column_are_outside_of_the_others():
    X = np.random.default_rng(0).random((80, 2))
    X = (X - X.min(0)) / np.ptp(X, axis=0)
    sides = sides_of(X)
    assert len(sides) == 2 * 2 * 3
    for side in sides:
        gone, rest = X[side.rows, side.column], np.delete(X[:, side.column], side.rows)
        assert (gone < rest.min()).all() or (gone > rest.max()).all()
        assert side.edge in (rest.min(), rest.max())
        beyond = np.abs(gone - side.edge).max()
        assert side.distance == pytest.approx(beyond / np.ptp(rest))


def test_what_rows_at_the_sides_bear_out_ends_half_a_box_beyond():
    X = np.linspace(0, 1, 40)[:, None]
    found = judged(X, 1e-6)
    near, far = found.part(np.array([[1.05], [-0.1]])), found.part(np.array([[1 + FAR], [-3.0]]))
    np.testing.assert_allclose(near, SAFE * 1e-6)
    np.testing.assert_allclose(far, 1)
    growing = found.part(np.linspace(1, 1.6, 30)[:, None])
    assert (np.diff(growing) >= -1e-12).all()
    again = Outside(**found.arrays())
    np.testing.assert_array_equal(again.part(X + 0.7), found.part(X + 0.7))
    assert judged(X, 0.0).part(X[-1:] + 0.01)[0] == pytest.approx(LEAST)


def test_what_bears_nothing_out_at_the_narrowest_side_is_not_asked_of_the_others():
    X = np.random.default_rng(0).random((200, 4))
    asked = []
    assert judged(X, 0.5, asked=asked) is None
    assert len(asked) == 1 and asked[0] == len(sides_of(X)[0].rows)
    assert judged(X, 1e-6, asked=asked) is not None and len(asked) == 1 + 4 * 2 * 3


def test_nothing_is_borne_out_by_large_errors_or_round_off():
    X = np.linspace(0, 1, 40)[:, None]
    assert judged(X, 0.5) is None
    assert judged(X, 1e-6, told=False) is None
    assert not sides_of(np.random.default_rng(0).random((60, 9)))
    assert not sides_of(np.array([[0.0], [1.0]]))


@pytest.fixture(scope="module")
def outside():
    """Exact rows of a smooth function, and points up to a fifth of the box outside."""
    x = np.linspace(0, 1, 30)[:, None]
    new = np.r_[np.linspace(-0.2, -0.01, 40), np.linspace(1.01, 1.2, 40)][:, None]

    def f(x):
        return np.exp(1.3 * x[:, 0]) * np.cos(4 * x[:, 0])

    return x, f(x), new, f(new)


@pytest.mark.parametrize("Estimator", [LSGDRegressor, POURegressor])
def test_bars_outside_exact_smooth_rows_are_honest_and_sharp(Estimator, outside):
    x, y, new, truth = outside
    mean, std = Estimator().fit(x, y).predict(new, return_std=True)
    assert np.mean(np.abs(mean - truth) <= 3 * std + 1e-12) >= 0.97
    assert np.median(std) < 1e-2 * y.std()


def test_a_kink_at_a_side_leaves_the_doubt():
    x = np.linspace(0, 1, 41)[:, None]
    y = np.abs(x[:, 0] - 0.93) + np.sin(3 * x[:, 0])
    new = np.linspace(1.01, 1.2, 20)[:, None]
    mean, std = LSGDRegressor().fit(x, y).predict(new, return_std=True)
    error = mean - np.abs(new[:, 0] - 0.93) - np.sin(3 * new[:, 0])
    assert np.mean(np.abs(error) <= 3 * std) >= 0.97


@pytest.mark.slow
def test_each_output_has_its_own_part():
    x = np.linspace(0, 1, 30)[:, None]
    rng = np.random.default_rng(0)
    Y = np.c_[np.sin(3 * x), np.sin(3 * x) + 0.3 * rng.standard_normal(x.shape)]
    for Estimator in (LSGDRegressor, AdditivePOURegressor):
        std = Estimator().fit(x, Y).predict(np.array([[1.05], [-0.05]]), return_std=True)[1]
        assert (std[:, 0] < 0.1 * std[:, 1]).all()
