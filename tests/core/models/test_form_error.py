"""The error of a form between the rows: calibration, what is added where."""

import numpy as np
import pytest

from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    SparseGridRegressor,
)
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.form_error import FormError
from skpou.core.models.power_function import WeighedKernels
from tests.examples import slow


def grid(n):
    axis = np.linspace(0, 1, n)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def additive(X):
    return np.cos(3 * X[:, 0]) + np.sin(3 * X[:, 1]) ** 2


QUERY = np.random.default_rng(1).random((500, 2))


@pytest.mark.parametrize(
    "cls", [AdditivePOURegressor, SparseGridRegressor, HierarchicalPOURegressor]
)
def test_bars_between_the_rows_of_a_grid(cls):
    """Exact at the rows, and far off between them: the bars know."""
    model = cls().fit(grid(7), additive(grid(7)))
    mean, std = model.predict(QUERY, return_std=True)
    error = np.abs(mean - additive(QUERY))
    assert np.mean(error <= 3 * std + 1e-12) > 0.95
    noise = model.predict(QUERY, return_std="noise")[1]
    epistemic = model.predict(QUERY, return_std="epistemic")[1]
    np.testing.assert_allclose(std, np.hypot(noise, epistemic), rtol=1e-6)


def test_quantiles_densities_and_draws_follow():
    model = AdditivePOURegressor().fit(grid(7), additive(grid(7)))
    std = model.predict(QUERY, return_std=True)[1]
    low, high = model.predict_quantile(QUERY, [0.158655, 0.841345]).T
    np.testing.assert_allclose((high - low) / 2, std, rtol=0.05)
    draws = model.sample_y(QUERY, 2000)
    np.testing.assert_allclose(draws.std(1), std, rtol=0.15)
    assert model.log_density(QUERY, additive(QUERY)).min() > -20


def test_noise_is_not_the_forms():
    rng = np.random.default_rng(0)
    X = rng.random((200, 1))
    model = LSGDRegressor().fit(X, np.sin(5 * X[:, 0]) + 0.1 * rng.standard_normal(200))
    (form,) = model._form_error
    assert not len(form["points"])
    std, noise = (model.predict(X, return_std=kind)[1] for kind in (True, "noise"))
    assert np.median(std / noise) < 1.1


@pytest.mark.parametrize("seed", [0, *slow(1, 2, 3)])
def test_noise_that_varies_is_not_the_forms_either(seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (400, 2))
    y = np.sin(3 * X[:, 0]) + X[:, 1] + 0.03 * np.exp(1.5 * X[:, 0]) * rng.standard_normal(400)
    (form,) = LSGDRegressor().fit(X, y)._form_error
    assert not len(form["points"])


@pytest.mark.slow
def test_a_basis_that_runs_away_says_so():
    x = np.linspace(1, 100, 200)
    model = HierarchicalPOURegressor().fit(x[:, None], 0.7 * x**-0.2 + 0.1)
    points = np.array([[110.0], [120.0]])
    mean, std = model.predict(points, return_std=True)
    assert (np.abs(mean - (0.7 * points[:, 0] ** -0.2 + 0.1)) < 3 * std).all()


def test_a_constant_is_sure():
    model = SparseGridRegressor().fit(grid(4), np.full(16, 3.0))
    assert (model.predict(QUERY, return_std=True)[1] < 1e-13).all()


def test_neighbourhoods_at_the_ends_of_a_line_are_beyond_the_others():
    X = np.random.default_rng(0).random((60, 2))
    order = np.argsort(X[:, 0])
    folds = [np.flatnonzero(np.arange(60) % 2 == k) for k in range(2)]
    sets = [*folds, order[:6], order[20:26], order[-5:]]
    zeros = np.zeros((77, 1))
    found = LeftOut(sets, 2, zeros, zeros, zeros, np.ones(5), np.ones(5, dtype=bool))
    expected = np.repeat([False, False, True, False, True], [30, 30, 6, 6, 5])
    np.testing.assert_array_equal(found.beyond(X[:, :1]), expected)
    assert not found.beyond(X).any()


def test_what_runs_away_at_a_steep_end_says_nothing_of_the_rest():
    """Without a tenth of the rows at the steep end the fit is off by far more than anywhere."""
    x, query = np.linspace(0, 1, 122), np.linspace(0, 1, 1001)
    model = MultiStageRegressor().fit(x[:, None], np.exp(-20 * x))
    mean, std = model.predict(query[:, None], return_std="epistemic")
    assert np.mean(np.abs(mean - np.exp(-20 * query)) <= 3 * std) > 0.97
    assert np.sqrt(np.mean(std**2)) < 1e-8


def test_outputs_have_their_own():
    """A target without noise beside a noisy one: each has the bars that it has alone."""
    X, rng = grid(7), np.random.default_rng(0)
    targets = np.column_stack([additive(X), 0.1 * rng.standard_normal(49)])
    both = AdditivePOURegressor().fit(X, targets).predict(QUERY, return_std=True)[1]
    for number, target in enumerate(targets.T):
        alone = AdditivePOURegressor().fit(X, target).predict(QUERY, return_std=True)[1]
        # Without noise left-out errors are quotients of numbers of which some digits are left.
        np.testing.assert_allclose(both[:, number], alone, rtol=1e-4)


def test_what_is_far_from_all_rows_is_of_full_size():
    kernels = WeighedKernels(["gaussian"], np.array([0.1]), np.array([0.5]), np.ones(1))
    state = {
        "scales": np.ones(1), "points": np.array([[0.0], [0.1]]), "kernels": kernels.arrays(),
        "least": 0.0, "largest": 1.0, "places": np.array([[0.05]]), "ratio": np.ones(1),
        "square": np.zeros(1), "levels": [],
    }  # fmt: skip
    form = FormError(**state)
    found = form.variance(np.array([[5.0], [0.05], [0.0]]))
    assert found[0] == pytest.approx(0.25)
    assert found[0] > found[1] > found[2]
    assert form.arrays().keys() == state.keys()


def lines(n_lines, n_rows):
    rng = np.random.default_rng(0)
    return np.column_stack(
        [np.repeat(np.linspace(0, 1, n_lines), n_rows), rng.random(n_lines * n_rows)]
    )


@pytest.mark.slow
def test_bars_between_lines_where_rows_along_them_are_met():
    """More sines than rows meet every line to round-off; the bars know what is between them."""

    def bent(X):
        return np.tanh(8 * (0.5 * X.sum(1) - 0.45)) + np.sqrt(X[:, 0] + 0.01) * X[:, 1]

    X = lines(9, 24)
    mean, std = LSGDRegressor().fit(X, bent(X)).predict(QUERY, return_std=True)
    error = np.abs(mean - bent(QUERY))
    assert np.mean(error <= 3 * std + 1e-12) > 0.9
    assert np.median(std) < 30 * np.sqrt(np.mean(error**2))


def test_bars_on_a_grid_whose_columns_differ():
    """One column is followed, the other not: its left-out levels say so."""

    def half(X):
        return X[:, 0] ** 2 + np.abs(X[:, 1] - 0.43) + np.sin(11 * X[:, 1])

    axes = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 6), indexing="ij")
    X = np.stack(axes, -1).reshape(-1, 2)
    for model in (LSGDRegressor(), AdditivePOURegressor()):
        mean, std = model.fit(X, half(X)).predict(QUERY, return_std=True)
        error = np.abs(mean - half(QUERY))
        assert np.mean(error <= 3 * std + 1e-12) > 0.9, model
