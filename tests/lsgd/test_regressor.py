"""LSGDRegressor: parameters, attributes, accuracy, interruption."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skpou import LSGDRegressor
from tests.estimators import kinked, no_training
from tests.examples import slow

X, Y = kinked()


def sine(n, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    points = np.linspace(0, 1, n)[:, None]
    return points, np.sin(2 * np.pi * points[:, 0]) + noise * rng.standard_normal(n)


def error(model, low=0.0, high=1.0):
    """Root mean square error for the sine on points that were not fitted."""
    grid = np.linspace(low, high, 1001)[:, None]
    return np.sqrt(np.mean((model.predict(grid) - np.sin(2 * np.pi * grid[:, 0])) ** 2))


# Parameters


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        (0, "'hidden_layer_sizes' parameter of .* Got 0"),
        ("many", "'hidden_layer_sizes' parameter of .*'auto'.* Got 'many'"),
        (None, "'hidden_layer_sizes' parameter of .* Got None"),
        ((), r"hidden_layer_sizes must .* Got \(\)"),
        ((4, 0), r"hidden_layer_sizes must .* Got \(4, 0\)"),
        ((4, 2.5), r"hidden_layer_sizes must .* Got \(4, 2.5\)"),
        (True, "hidden_layer_sizes must .* Got"),
        ((10**6,) * 2, "hidden_layer_sizes=.* GB.*Lower"),
    ],
    ids=str,
)
def test_bad_sizes(sizes, match):
    with no_training(), pytest.raises(ValueError, match=match):
        LSGDRegressor(sizes).fit(X, Y)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("activation", "relu"),
        ("architecture", "residual"),
        ("init", "box"),
        ("solver", "gd"),
        ("learning_rate", 0.1),
    ],
)
def test_automatic_sizes_refuse_what_shapes_a_network(parameter, value):
    with pytest.raises(ValueError, match=f"{parameter}={value!r} shapes a network"):
        LSGDRegressor(**{parameter: value}).fit(X, Y)


def test_unequal_widths_of_a_residual_network():
    with pytest.raises(ValueError, match=r"must be equal in a residual network.* \(3, 4\)"):
        LSGDRegressor((3, 4), architecture="residual").fit(X, Y)


@pytest.mark.parametrize(
    ("params", "init"),
    [
        ({"hidden_layer_sizes": (4,) * 15}, "box"),
        ({"hidden_layer_sizes": (4,) * 16}, "he"),
        ({"hidden_layer_sizes": (4,) * 16, "architecture": "residual"}, "data_box"),
    ],
    ids=["shallow", "deep", "residual"],
)
def test_automatic_initialization(params, init):
    params |= {"solver": "lsgd", "max_iter": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [LSGDRegressor(**params, init=i).fit(X, Y) for i in ("auto", init)]
    np.testing.assert_array_equal(*[model.predict(X) for model in models])


# Attributes


@pytest.mark.parametrize("solver", ["varpro", "lsgd", "lbfgs", "gd"])
def test_attributes_of_a_network(solver):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LSGDRegressor((6,), solver=solver, max_iter=30).fit(X, np.column_stack([Y, 3 - Y]))
    assert model.coef_.shape == (7, 2)
    assert model.basis_ == ["network"]
    assert model.hidden_layer_sizes_ == (6,)
    assert len(model.loss_curve_) == model.n_iter_
    np.testing.assert_allclose(model.intercept_, [Y.mean(), 3 - Y.mean()])
    np.testing.assert_allclose(model.noise_[0], model.noise_[1], rtol=1e-6)


def test_alpha_is_kept_as_given():
    assert LSGDRegressor((4,), alpha=0.5).fit(X, Y).alpha_ == 0.5


def test_iterations_used_up_say_so():
    with pytest.warns(ConvergenceWarning, match="solver='gd' used all max_iter=3 iterations"):
        LSGDRegressor((4,), solver="gd", max_iter=3).fit(X, Y)


def test_diverging_steps_keep_the_best_parameters():
    with pytest.warns(ConvergenceWarning, match="(?s)non-finite .*Lower learning_rate|max_iter"):
        model = LSGDRegressor(
            (4,), activation="relu", solver="gd", learning_rate=1e200, max_iter=20
        ).fit(X, Y)
    assert np.isfinite(model.predict(X)).all()


def test_interrupted_fit_keeps_the_best_so_far(monkeypatch):
    count = [0]
    report = LSGDRegressor._reporter

    def interrupt(self):
        inner = report(self)

        def stop(line):
            count[0] += 1
            if count[0] == 20:
                raise KeyboardInterrupt
            return inner and inner(line)

        return stop

    monkeypatch.setattr(LSGDRegressor, "_reporter", interrupt)
    model = LSGDRegressor((6,), solver="lsgd", max_iter=500)
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert len(model.loss_curve_) == 20
    assert model.score(X, Y) > 0.5


# Accuracy


def test_single_sine_by_tanh_units():
    model = LSGDRegressor((32,), init="box").fit(*sine(256))
    assert error(model) < 2e-10


@pytest.mark.parametrize("dtype", ["float64", *slow("float32")])
def test_noise_and_error_bars(dtype):
    X, y = sine(300, noise=0.1)
    model = LSGDRegressor(dtype=dtype).fit(X, y)
    np.testing.assert_allclose(model.noise_, 0.1, rtol=0.1)
    assert error(model) < 0.03
    mean, std = model.predict(X, return_std="epistemic")
    assert mean.dtype == std.dtype == dtype
    assert 0.003 < std.mean() < 0.03


def test_float32_network_with_varpro():
    model = LSGDRegressor((8,), dtype="float32").fit(*sine(100))
    assert model.predict(X[:, :1]).dtype == np.float32
    assert error(model) < 1e-4


def test_minibatches_and_blocks():
    X, y = sine(200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        blocks = LSGDRegressor((8,), batch_size=17, max_iter=60).fit(X, y)
        model = LSGDRegressor((16,), solver="lsgd", batch_size=50, max_iter=200).fit(X, y)
    assert error(blocks) < 1e-4
    assert error(model) < 1e-2


def test_best_of_several_starts_is_no_worse():
    X, y = sine(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, five = (LSGDRegressor((3,), n_init=k, max_iter=50).fit(X, y) for k in (1, 5))
    assert five.loss_curve_[-1] <= one.loss_curve_[-1] * (1 + 1e-9)


@pytest.mark.parametrize("seed", [0, *slow(1, 2, 3)])
def test_std_between_the_rows_of_a_kink(seed):
    rng = np.random.default_rng(seed)
    X, grid = rng.uniform(-1, 1, (300, 2)), rng.uniform(-1, 1, (1000, 2))
    y = abs(X[:, 0]) + X[:, 1] ** 2 + 0.01 * rng.standard_normal(300)
    std = LSGDRegressor().fit(X, y).predict(grid, return_std=True)[1]
    assert 0.008 < np.median(std) < 0.03
    assert std.max() < 1


def test_uncertainty_of_a_constant():
    rng = np.random.default_rng(1)
    X, y = rng.random((400, 1)), rng.standard_normal(400)
    model = LSGDRegressor().fit(X, y)
    mean, std = model.predict(X, return_std="epistemic")
    np.testing.assert_allclose(mean, y.mean(), atol=1e-12)
    # At least that of the mean of 400, and not much more: noise may hide what is no constant.
    assert (std >= 0.98 * y.std() / 20).all()
    assert np.median(std) < 2 * y.std() / 20
    assert std.max() < 3 * y.std() / 20


@pytest.mark.parametrize("n", [15, 40])
def test_noise_of_a_network_with_few_rows(n):
    rng = np.random.default_rng(0)
    x, grid = rng.random((n, 1)), np.linspace(0.1, 0.9, 200)[:, None]
    y = np.sin(5 * x[:, 0]) + 0.1 * rng.standard_normal(n)
    std = LSGDRegressor((32,)).fit(x, y).predict(grid, return_std=True)[1]
    # The residual is round-off: it is not taken for the noise.
    assert np.median(std) > 0.05
