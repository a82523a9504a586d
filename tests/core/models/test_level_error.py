"""The error of a form between the levels of a column."""

import numpy as np
import pytest

from skpou.core.models.cross_validation import LeftOut, sets_to_leave_out
from skpou.core.models.level_error import LevelError, fit_level_errors, sets_of_levels


def grid(*sizes):
    axes = [np.linspace(0, 1, n) for n in sizes]
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1)


def left_out(X, of_level, noise=0.0, seed=0, posterior=0.0):
    """Errors that are `of_level` without levels of the first column, else noise."""
    rng = np.random.default_rng(seed)
    sets = sets_to_leave_out(X, rng)
    n_folds = 8
    error = np.concatenate([noise * rng.standard_normal(len(part)) for part in sets])
    known = np.full((len(error), 1), noise**2 + 1e-30)
    found = LeftOut(
        sets, n_folds, error[:, None], known + posterior**2, known,
        np.array([float(len(part)) for part in sets]), np.ones(len(sets), dtype=bool),
    )  # fmt: skip
    levels = sets_of_levels(found, X)
    for number in levels[0]:
        error[found.group == number] += of_level * rng.standard_normal()
    return found, levels


def test_levels_are_told_from_folds_and_neighbourhoods():
    X = grid(7, 5)
    found, levels = left_out(X, 0.0)
    assert sorted(levels) == [0, 1]
    np.testing.assert_allclose(sorted(levels[0].values()), np.linspace(0, 1, 7)[1:-1])
    for column, numbers in levels.items():
        for number, value in numbers.items():
            assert (X[found.sets[number], column] == value).all()


def test_only_the_column_that_errs_has_a_variance():
    X = grid(9, 6)
    found, levels = left_out(X, 0.1)
    first, second = fit_level_errors(found, X, levels)
    between = np.array([[0.3125, 0.41], [0.5625, 0.77]])
    assert (np.sqrt(first.variance(between)) > 0.01).all()
    assert (np.sqrt(first.variance(between)) < 0.5).all()
    assert (second.variance(between) < 1e-20).all()
    at_rows = first.variance(X)
    assert (at_rows < 1e-3 * first.variance(between).min()).all()


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_the_levels(seed):
    X = grid(9, 6)
    found, levels = left_out(X, 0.0, noise=0.1, seed=seed)
    assert not fit_level_errors(found, X, levels)
    found, levels = left_out(X, 0.5, noise=0.1, seed=seed)
    (level,) = fit_level_errors(found, X, levels)
    assert level.column == 0


def test_a_posterior_is_no_excuse_for_levels():
    X = grid(9, 6)
    found, levels = left_out(X, 0.3, noise=0.01, posterior=0.3)
    (level,) = fit_level_errors(found, X, {0: levels[0]})
    middle = np.array([[0.5625, 0.4]])
    assert np.sqrt(level.variance(middle)) > 0.1


def test_errors_that_neighbours_share_are_no_noise():
    X = grid(9, 6)
    found, levels = left_out(X, 0.0, noise=0.01)
    # Beside a kink along the second column: whatever is left out, the rows of a level err alike.
    kinked = X[found.row, 0] == 0.5
    found.error[kinked] += 0.3
    (level,) = fit_level_errors(found, X, {0: levels[0]})
    assert np.sqrt(level.variance(np.array([[0.5625, 0.4]]))) > 0.1


def test_errors_are_larger_near_levels_that_leave_more():
    X = grid(11, 6)
    found, levels = left_out(X, 0.0)
    for number, value in levels[0].items():
        found.error[found.group == number] = 0.3 if value < 0.35 else 1e-4
    first, _ = fit_level_errors(found, X, levels)
    near, far = np.sqrt(first.variance(np.array([[0.25, 0.5], [0.75, 0.5]])))
    assert near > 1.2 * far


def test_state_is_plain():
    X = grid(9, 6)
    found, levels = left_out(X, 0.1)
    level = fit_level_errors(found, X, levels)[0]
    again = LevelError(**level.arrays())
    np.testing.assert_array_equal(again.variance(X + 0.01), level.variance(X + 0.01))
