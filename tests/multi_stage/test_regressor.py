"""MultiStageRegressor: parameters, attributes, stages, accuracy between the samples, noise."""

import warnings

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline
from sklearn.exceptions import ConvergenceWarning

from skpou import MultiStageRegressor
from tests.estimators import no_training
from tests.examples import slow

GRID = np.linspace(-1, 1, 10_001)[:, None]


def smooth(X):
    """The lecture's target, Eq. 2."""
    return np.sin(2 * X[:, 0] + 1) + 0.2 * np.exp(1.3 * X[:, 0])


def samples(n=300, noise=0.0, seed=0, function=smooth):
    rng = np.random.default_rng(seed)
    X = np.linspace(-1, 1, n)[:, None]
    return X, function(X) + noise * rng.standard_normal(n)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


# Parameters


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_stages": 0}, "'n_stages' parameter of .* Got 0"),
        ({"n_stages": 1.5}, "'n_stages' parameter of .* Got 1.5"),
        ({"hidden_layer_sizes": ()}, r"hidden_layer_sizes must .* Got \(\)"),
        ({"activation": "relu"}, "activation='relu' shapes .* 'tanh'"),
        ({"solver": "adam_lbfgs"}, "solver='adam_lbfgs' shapes .* 'varpro'"),
        ({"scale_factor": 3.0}, "scale_factor=3.0 shapes .* 'auto'"),
        ({"scale_factor": 3.0, "hidden_layer_sizes": (4,)}, "scale_factor=3.0 .*solver='varpro'"),
        ({"scale_factor": -1.0}, "'scale_factor' parameter of .* Got -1.0"),
        ({"tol": -1.0}, "'tol' parameter of .* Got -1.0"),
    ],
    ids=str,
)
def test_bad_parameters(params, match):
    with no_training(), pytest.raises(ValueError, match=match):
        MultiStageRegressor(**params).fit(*samples(30))


# Stages


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"hidden_layer_sizes": (6,), "max_iter": 100},
        *slow(
            {"hidden_layer_sizes": (20, 20)},
            {"hidden_layer_sizes": (20,), "solver": "adam_lbfgs", "n_stages": 2, "max_iter": 300},
        ),
    ],
    ids=str,
)
def test_stages_add_up(params):
    X, y = samples()
    model = MultiStageRegressor(**params).fit(X, y)
    staged = list(model.staged_predict(GRID))
    assert len(staged) == model.n_stages_ == len(model.stages_) == len(model.basis_)
    np.testing.assert_array_equal(staged[-1], model.predict(GRID))
    left = [rms(y - prediction) for prediction in model.staged_predict(X)]
    np.testing.assert_allclose(model.residual_rms_, left, rtol=0.1, atol=2e-16)
    assert model.scale_factors_.shape == (model.n_stages_,)
    assert (np.diff(model.residual_rms_) < 0).all()
    if "solver" in params:
        assert model.scale_factors_[0] == 1 < model.scale_factors_[1]


@pytest.mark.slow
def test_number_of_stages_is_a_bound():
    X, y = samples()
    assert MultiStageRegressor(1).fit(X, y).n_stages_ == 1
    with warnings.catch_warnings():
        # Round-off decides whether the descent meets its tolerance before its steps run out.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network = MultiStageRegressor(1, hidden_layer_sizes=(10,)).fit(X, y)
    assert network.basis_ == ["network"]


def test_outputs_of_several_targets_have_their_own_rms():
    X, y = samples(100)
    model = MultiStageRegressor().fit(X, np.stack([y, 1e3 * y**2], 1))
    assert model.residual_rms_.shape == (model.n_stages_, 2)
    assert [p.shape for p in model.staged_predict(X)] == [(100, 2)] * model.n_stages_


# Accuracy between the samples


@pytest.mark.parametrize("seed", [0, 1, 2, *slow(*range(3, 10))])
def test_machine_precision_by_default(seed):
    model = MultiStageRegressor(random_state=seed).fit(*samples())
    assert rms(model.predict(GRID) - smooth(GRID)) < 2e-15


def test_machine_precision_of_a_network_and_sines():
    model = MultiStageRegressor(hidden_layer_sizes=(20, 20, 20)).fit(*samples())
    assert model.basis_ == ["network", "sine"]
    first, second = (rms(p - smooth(GRID)) for p in model.staged_predict(GRID))
    assert first > 1e-11
    assert second < 2e-15


@pytest.mark.slow
def test_stages_of_the_recipe():
    X, y = samples()
    model = MultiStageRegressor(
        3, hidden_layer_sizes=(20, 20), solver="adam_lbfgs", max_iter=1500
    ).fit(X, y)
    between = rms(model.predict(GRID) - smooth(GRID))
    assert model.residual_rms_[-1] < 1e-2 * model.residual_rms_[0]
    assert between < 1e-6


@pytest.mark.slow
def test_steep_and_slow_together():
    def target(X):
        return np.sin(40 * X[:, 0]) + np.tanh(60 * X[:, 0])

    X, y = samples(function=target)
    mean, std = MultiStageRegressor().fit(X, y).predict(GRID, return_std=True)
    error, spline = mean - target(GRID), make_interp_spline(X[:, 0], y)(GRID[:, 0])
    assert rms(error) < rms(spline - target(GRID))
    assert (np.abs(error) < 3 * std).mean() > 0.99


@pytest.mark.slow
def test_rough_targets_take_a_spline():
    def rough(X):
        return np.abs(np.sin(37 * X[:, 0])) + np.sqrt(np.abs(X[:, 0] - 0.3))

    X, y = samples(function=rough)
    model = MultiStageRegressor().fit(X, y)
    spline = np.interp(GRID[:, 0], X[:, 0], y)
    assert rms(model.predict(GRID) - rough(GRID)) < rms(spline - rough(GRID))


# Noise


@pytest.mark.parametrize("noise", [1e-6, *slow(1e-3, 1e-1)])
def test_noise_is_not_fitted(noise):
    for seed in range(3):
        model = MultiStageRegressor().fit(*samples(noise=noise, seed=seed))
        assert rms(model.predict(GRID) - smooth(GRID)) < 0.35 * noise
        assert model.n_stages_ == 1
        np.testing.assert_allclose(model.noise_, noise, rtol=0.2)


@pytest.mark.slow
def test_pure_noise_is_a_constant():
    for seed in range(5):
        X, y = samples(noise=1.0, seed=seed, function=lambda X: np.zeros(len(X)))
        model = MultiStageRegressor().fit(X, y)
        prediction = model.predict(GRID)
        assert np.ptp(prediction) < 1e-12
        np.testing.assert_allclose(prediction, y.mean(), atol=1e-12)


def test_recipe_stops_at_noise():
    model = MultiStageRegressor(
        "auto", hidden_layer_sizes=(10,), solver="adam_lbfgs", max_iter=500
    ).fit(*samples(noise=0.1))
    assert model.n_stages_ == 1


# Warnings


def test_recipe_says_that_it_did_not_converge():
    X, y = samples()
    model = MultiStageRegressor(hidden_layer_sizes=(4,), solver="adam_lbfgs", max_iter=5)
    with pytest.warns(ConvergenceWarning, match="n_stages|max_iter"):
        model.fit(X, y)


def test_default_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultiStageRegressor().fit(*samples())


@pytest.mark.parametrize("n_levels", [2, 3, 4])
def test_few_levels_with_replicates_are_no_constant(n_levels):
    rng = np.random.default_rng(0)
    x = rng.integers(0, n_levels, 400).astype(float)
    y = x**2 + 0.1 * rng.standard_normal(400)
    model = MultiStageRegressor().fit(x[:, None], y)
    levels = np.arange(n_levels)
    assert np.abs(model.predict(levels[:, None]) - levels**2).max() < 0.04
    assert model.noise_ == pytest.approx(0.1, rel=0.1)
    noise = rng.standard_normal(400)
    assert np.ptp(MultiStageRegressor().fit(x[:, None], noise).predict(levels[:, None])) < 0.2
