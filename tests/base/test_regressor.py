"""What holds for every regressor: invariances, error bars, quantiles, draws and densities."""

import copy
import functools
import itertools
import pickle

import joblib
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor

from tests.estimators import (
    CONFIGURATIONS,
    OF_MEMBERS,
    ONE_OF_EACH,
    QUERY,
    QUICK,
    assert_same_bits,
    blurred,
    each_configuration,
    each_configuration_slowly,
    each_quick_class,
    entwined,
    fitted,
    fitted_predictions,
    fitted_to_two,
    kinked,
    kinked_mean,
    make,
    predictions,
    quick_configurations,
    same_bits,
    slow_beyond,
    stepped,
    tolerance,
)
from tests.examples import slow

X, Y = stepped()
N = len(X)
MANY_ROWS = kinked(200)
SEEDS = [3, np.random.RandomState, np.random.default_rng]
few = settings(max_examples=2)
#: Configurations that predict in blocks of given size.
IN_BLOCKS = [name for name, model in CONFIGURATIONS.items() if hasattr(model, "batch_size")]


def assert_close(name, result, expected, scale=1.0):
    """Equal up to the round-off of the configuration, relative to `scale`."""
    np.testing.assert_allclose(result / scale, expected / scale, rtol=0, atol=tolerance(name))


# Changes of the data that change no prediction, or change it alike


@functools.cache
def fitted_in_other_units(name, size, unit):
    """The configuration after a fit to `stepped()` in other units: no copy."""
    return make(name).fit(size * X, unit * Y)


@functools.cache
def fitted_to_many_rows(name):
    """The configuration after a fit to many rows without a step: no copy."""
    return make(name).fit(*MANY_ROWS)


@quick_configurations
@pytest.mark.parametrize(("exponent", "target_exponent"), [(-660, 60), (500, -60)])
def test_powers_of_two_change_no_bit(name, exponent, target_exponent):
    size, unit = 2.0**exponent, 2.0**target_exponent
    model = fitted_in_other_units(name, size, unit)
    mean, std = model.predict(size * QUERY, return_std=True)
    expected = fitted_predictions(name)
    assert same_bits(mean, (unit * expected["mean"]).astype(mean.dtype))
    assert same_bits(std, (unit * expected["std"]).astype(std.dtype))


@quick_configurations
@pytest.mark.parametrize(
    ("exponents", "offset", "target_exponent", "target_sign", "target_offset"),
    [((-200, 150), 10.0, -30, 1, 2.0), ((150, -200), -10.0, 30, -1, 3.3)],
)
def test_units_of_x_do_not_matter_and_those_of_y_pass_through(
    name, exponents, offset, target_exponent, target_sign, target_offset
):
    size, target_size = 10.0 ** np.array(exponents), target_sign * 10.0**target_exponent
    model = make(name).fit(size * (X + offset), target_size * (Y + target_offset))
    points, expected = size * (QUERY + offset), fitted_predictions(name)
    for kind, return_std in (("std", True), ("noise", "noise"), ("epistemic", "epistemic")):
        mean, std = model.predict(points, return_std=return_std)
        wanted = target_size * (expected["mean"] + target_offset)
        assert_close(name, mean, wanted, scale=abs(target_size))
        assert_close(name, std, abs(target_size) * expected[kind], scale=abs(target_size))
    # Single precision holds no gradient in such units.
    gradient = size * model.set_params(dtype="float64").predict_gradient(points)
    wanted = target_size * expected["gradient"]
    assert_close(name, gradient, wanted, scale=10 * abs(target_size))


@quick_configurations
def test_order_of_rows_changes_no_bit(name):
    order = np.random.default_rng(0).permutation(N)
    model = make(name).fit(X[order], Y[order])
    assert_same_bits(predictions(model), fitted_predictions(name))


@quick_configurations
def test_weights_are_repetitions_and_rows_of_weight_zero_may_be_anything(name):
    rng = np.random.default_rng(0)
    points, weight = X.copy(), rng.integers(0, 4, N)
    points[: N // 4] = points[N // 2 : N // 2 + N // 4]  # The same points with other targets.
    order = rng.permutation(np.repeat(np.arange(N), weight))
    repeated = make(name).fit(points[order], Y[order])
    targets = Y.copy()
    points[weight == 0], targets[weight == 0] = [1e200, -1e200], 1e300  # They may be anything.
    weighted = make(name).fit(points, targets, sample_weight=weight)
    assert_same_bits(predictions(weighted), predictions(repeated))


@each_configuration_slowly
def test_order_of_columns_leaves_the_error(name):
    points, targets = MANY_ROWS
    grid = np.random.default_rng(3).uniform(-1, 1, (300, 2))
    # A configuration may stop at a residual of tol.
    tol = make(name).get_params().get("tol", 0.0)
    allowed = max(0.05, 1.5 * tol * np.sqrt(np.mean(targets**2)))
    turned = make(name).fit(points[:, ::-1], targets)
    for model, query in ((fitted_to_many_rows(name), grid), (turned, grid[:, ::-1])):
        assert np.sqrt(np.mean((model.predict(query) - kinked_mean(grid)) ** 2)) < allowed


@quick_configurations
@few
@given(values=st.lists(st.floats(-2, 2, width=32), min_size=24, max_size=24, unique=True))
def test_float32_input_counts_by_its_values(name, values):
    points = np.array(values, dtype=np.float32).reshape(12, 2)
    targets = points[:, 0] - points[:, 1] ** 2
    single = make(name).fit(points, targets)
    double = make(name).fit(points.astype(float), targets.astype(float))
    query = QUERY.astype(np.float32)
    assert_same_bits(predictions(single, query), predictions(double, query.astype(float)))


@slow_beyond(ONE_OF_EACH, IN_BLOCKS)
@few
@given(data=st.data(), batch_size=st.integers(1, 40))
def test_blocks_of_rows_against_all_at_once(name, data, batch_size):
    model = fitted(name)
    seed = data.draw(st.integers(0, 1000))
    points = np.random.default_rng(seed).uniform(-2, 2, (37, 2))
    whole = predictions(model, points)
    blocks = predictions(model.set_params(batch_size=batch_size), points)
    for kind, value in whole.items():
        rtol = 1e-11 if value.dtype == float else 2e-5
        np.testing.assert_allclose(blocks[kind], value, rtol=rtol, atol=rtol, err_msg=kind)


def has_law(name):
    """Whether the noise of one output varies by a law: several have none."""
    return getattr(fitted(name), "_noise_law", None) is not None


def without_law(name):
    """The configuration, its noise the same everywhere where that of one output has a law."""
    return make(name).set_params(**({"density": "gaussian"} if has_law(name) else {}))


@each_configuration_slowly
def test_outputs_together_and_one_at_a_time(name):
    factors, shifts = np.array([-3.0, 1e3]), [2, 0]
    results = predictions(without_law(name).fit(X, Y[:, None] * factors + shifts))
    if entwined(name):
        # The likelihood of several outputs is a product: they part the points more sharply; first
        # steps of L-BFGS and its line searches know the number of outputs.
        alone = fitted(name).predict(X)
        # Powers of two leave every digit as it is: what steps make of round-off is not asked here.
        powers = np.array([-4.0, 1024.0])
        together = make(name).fit(X, Y[:, None] * powers).predict(X) / powers
        rms = np.sqrt(np.mean((together - alone[:, None]) ** 2, axis=0))
        assert (rms < 0.1).all()
        first, second = together.T
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=min(tolerance(name), 1e-6))
        return
    alone = predictions(without_law(name).fit(X, Y)) if has_law(name) else fitted_predictions(name)
    for output, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
        for kind, moved in (("mean", shift), ("gradient", 0)):
            expected = factor * alone[kind] + moved
            assert_close(name, results[kind][:, output], expected, scale=10 * abs(factor))
        for kind in ("std", "noise", "epistemic"):
            # Blends and sharp pieces estimate the noise in two ways; outputs may change which.
            expected = abs(factor) * alone[kind]
            np.testing.assert_allclose(results[kind][:, output], expected, rtol=0.2)


@quick_configurations
@pytest.mark.parametrize("transport", ["pickle", "joblib", "copy"])
def test_pickled_against_original(name, transport, tmp_path):
    model = fitted(name)
    if transport == "joblib":
        joblib.dump(model, tmp_path / "model.joblib")
        copies = [joblib.load(tmp_path / "model.joblib", mmap_mode=mode) for mode in (None, "r")]
    elif transport == "pickle":
        copies = [pickle.loads(pickle.dumps(model, protocol)) for protocol in (2, 5)]
    else:
        copies = [copy.copy(model), copy.deepcopy(model)]
    for other in copies:
        assert_same_bits(predictions(other), predictions(model))
        assert vars(other).keys() == vars(model).keys()


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        *itertools.product(QUICK, SEEDS),
        # Numbers are drawn alike for all classes.
        *slow(*((name, seed) for name in ONE_OF_EACH for seed in SEEDS[:1] if name not in QUICK)),
    ],
)
def test_random_state(name, seed):
    first, second = (
        make(name, random_state=seed if isinstance(seed, int) else seed(3)).fit(X[:30], Y[:30])
        for _ in range(2)
    )
    assert_same_bits(predictions(first), predictions(second))


@quick_configurations
def test_a_fit_anew_has_the_same_bits_and_leaves_global_state_alone(name):
    """It forgets an earlier fit to other rows, and does not use the global random numbers."""
    refitted = copy.deepcopy(fitted_to_many_rows(name))
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    refitted.fit(X, Y)
    assert_same_bits(predictions(refitted), fitted_predictions(name))
    assert same_bits(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert torch.is_grad_enabled()


@each_configuration
def test_at_least_one_iteration_is_told(name):
    assert np.all(getattr(fitted(name), "n_iter_", 1) >= 1)


@each_configuration
def test_prediction_leaves_the_estimator_alone(name):
    model = fitted(name)
    before = pickle.dumps(model)
    predictions(model, 10 * QUERY)
    assert pickle.dumps(model) == before


# Gradient


@each_configuration
@few
@given(values=st.lists(st.floats(0.3, 0.9), min_size=4, max_size=4), side=st.sampled_from([-1, 1]))
def test_gradient_against_central_differences(name, values, side):
    points = np.array(values).reshape(2, 2) * [side, 1]  # The boundary is near x_0 = 0.
    model, step = fitted(name), 1e-4
    gradient = model.predict_gradient(points)
    # Differences in float64 for all: in float32 only those of wide steps are left by round-off,
    # which a kernel of a short length bends along.
    model = copy.copy(model).set_params(dtype="float64")
    if hasattr(model, "grid_points_"):  # where piecewise linear functions have their kinks
        kinks = model.grid_points_[:, None]
        assume((np.abs(points - kinks).min(0) > 2 * step).all())
    for column, direction in enumerate(np.eye(2)):
        values = [model.predict(points + s * step * direction) for s in (-2, -1, 1, 2)]
        difference = np.tensordot([1, -8, 8, -1], values, 1) / (12 * step)
        np.testing.assert_allclose(gradient[:, column], difference, rtol=1e-3, atol=1e-3)


# Error bars


@pytest.fixture(scope="module")
def noisy():
    """Data with noise of standard deviation 0.1, and other rows to judge by."""
    return (*kinked(400, noise=0.1), *kinked(4000, noise=0.1, seed=1))


@each_configuration
def test_total_variance_is_that_of_noise_and_coefficients(name):
    for factor in (1, 3):
        results = predictions(fitted(name), factor * QUERY)
        squares = results["noise"] ** 2 + results["epistemic"] ** 2
        np.testing.assert_allclose(results["std"] ** 2, squares, rtol=1e-5)
        for kind in ("noise", "epistemic"):
            assert same_bits(
                results["mean"], fitted(name).predict(factor * QUERY, return_std=kind)[0]
            )


@each_configuration_slowly
def test_coverage_noise_and_density(name, noisy):
    points, targets, other_points, other_targets = noisy
    # After 50 steps the recipe's few units still miss the function by what the draw decides.
    model = make(name, **{"max_iter": 100} if name == "recipe" else {}).fit(points, targets)
    mean, std = model.predict(other_points, return_std=True)
    assert 0.925 < np.mean(np.abs(other_targets - mean) < 1.96 * std) < 0.975
    low, high = model.predict_quantile(other_points, [0.025, 0.975]).T
    assert 0.925 < np.mean((low < other_targets) & (other_targets < high)) < 0.975
    noise = model.predict(other_points, return_std="noise")[1]
    np.testing.assert_allclose(np.median(noise), 0.1, rtol=0.15)
    # The density of the truth is -log(0.1) - log(2 pi e) / 2 = 0.884 on average.
    assert model.log_density(other_points, other_targets).mean() > 0.80


@each_configuration
def test_std_grows_outside_the_box(name):
    model = fitted(name)
    for corner in ([1, 1], [-1, 1], [1, -1], [-1, -1]):
        ray = np.array([1.0, 2, 4, 8, 10])[:, None] * corner
        mean, std = model.predict(ray, return_std=True)
        assert np.isfinite(mean).all()
        # A network's mean is bounded, and comes back to its tangent by less than the rest grows.
        assert (np.diff(std) > -1e-3 * std[:-1]).all()
        assert std[-1] > 3 * std[0]


@quick_configurations
def test_scaling_one_target_scales_only_its_std(name):
    both = fitted_to_two(name).predict(QUERY, return_std=True)
    scaled = make(name).fit(X, np.column_stack([Y, 1024 * Y])).predict(QUERY, return_std=True)
    for one, other in zip(both, scaled, strict=True):
        assert same_bits(one * np.array([1, 512], dtype=one.dtype), other)


# Quantiles, draws and density


@each_configuration
def test_quantiles_never_cross_and_keep_their_order(name):
    model = fitted(name)
    levels = np.array([0.9, 0.001, 0.5, 0.5, 0.25, 0.999, 0.75])
    points = np.vstack([3 * QUERY, np.linspace([-0.05, 0], [0.05, 0], 50)])
    values = model.predict_quantile(points, levels)
    assert values.shape == (len(points), len(levels))
    order = np.argsort(levels, kind="stable")
    assert (np.diff(values[:, order], axis=1) >= 0).all()
    assert same_bits(values[:, 2], values[:, 3])
    mean, std = model.predict(points, return_std=True)
    assert (np.abs(values[:, 2] - mean) <= std).all()  # True of every distribution.
    inside = np.abs(points[:, 0]) > 0.4
    assert (np.abs(values[inside, 2] - mean[inside]) <= 0.1 * std[inside]).all()
    assert same_bits(
        model.predict_quantile(points), model.predict_quantile(points, (5e-2, 0.5, 0.95))
    )
    single = model.predict_quantile(points, 0.5)
    np.testing.assert_allclose(single, values[:, 2:3], rtol=1e-6)
    assert model.predict_quantile(points, []).shape == (len(points), 0)


@each_quick_class
@pytest.mark.parametrize("shape", [(), (1,), (2,)], ids=str)
def test_draws_are_shaped_as_those_of_a_gaussian_process(name, shape):
    targets = np.stack([Y] * shape[0], axis=1) if shape else Y
    model = make(name).fit(X, targets) if shape else fitted(name)
    process = GaussianProcessRegressor(optimizer=None).fit(
        X, np.stack([Y, Y], axis=1) if shape else Y
    )
    for n_samples in (1, 4):
        draws = model.sample_y(QUERY, n_samples)
        wanted = list(process.sample_y(QUERY, n_samples).shape)
        wanted[1:-1] = shape
        assert list(draws.shape) == wanted
        assert same_bits(draws, model.sample_y(QUERY, n_samples, random_state=0))
        assert not np.array_equal(draws, model.sample_y(QUERY, n_samples, random_state=1))
    generator = np.random.default_rng(5)
    first, second = (model.sample_y(QUERY, random_state=generator) for _ in range(2))
    assert not np.array_equal(first, second)


@each_configuration
def test_mean_and_variance_of_draws(name):
    model = fitted(name)
    n_samples = 4000
    points = np.vstack([QUERY, [[0.0, 0.3], [3.0, 0.0]]])
    mean, std = model.predict(points, return_std=True)
    draws = model.sample_y(points, n_samples)
    assert (np.abs(draws.mean(1) - mean) < 5 * std / np.sqrt(n_samples)).all()
    # The variance of draws is that of the mixture; Eq. 9's epistemic part is at most that.
    assert (draws.std(1) > 0.9 * std).all()
    inside = np.abs(points[:, 0]) > 0.4
    if blurred(name):
        inside &= model.partition_proba(points).max(1) > 0.999
    np.testing.assert_allclose(draws.std(1)[inside], std[inside], rtol=0.1)
    correlation = np.corrcoef(draws)
    assert np.abs(correlation - np.eye(len(points))).max() < 0.1  # Rows are independent.


@each_configuration_slowly
@pytest.mark.parametrize("point", [[0.5, 0.2], [0.0, -0.4], [2.0, 2.0]], ids=str)
def test_density_integrates_to_one_and_to_the_quantiles(name, point):
    model = fitted(name)
    levels = np.array([0.05, 0.5, 0.95])
    quantiles = model.predict_quantile([point], levels)[0].astype(float)
    low, high = model.predict_quantile([point], [1e-6, 1 - 1e-6])[0].astype(float)
    width = high - low
    grid = np.linspace(low - width, high + width, 6001)
    density = np.exp(model.log_density(np.tile(point, (len(grid), 1)), grid).astype(float))
    mass = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    np.testing.assert_allclose(mass[-1], 1, atol=1e-4)
    np.testing.assert_allclose(np.interp(quantiles, grid, mass), levels, atol=2e-4)
    mean = model.predict([point])[0]
    np.testing.assert_allclose(
        np.sum(0.5 * np.diff(mass) * (grid[1:] + grid[:-1])), mean, atol=1e-3
    )


@each_configuration_slowly
def test_joint_density_of_outputs(name):
    model, first = fitted_to_two(name), fitted(name)
    if has_law(name):
        first = without_law(name).fit(X, Y)
        model = without_law(name).fit(X, np.column_stack([Y, 2 * Y]))
    points = QUERY[np.abs(QUERY[:, 0]) > 0.4]
    mean = model.predict(points)
    joint = model.log_density(points, mean)
    assert joint.shape == (len(points),)
    # Inside a piece the outputs are independent: twice the first, in other units.
    expected = 2 * first.log_density(points, first.predict(points)) - np.log(2)
    # Together they have other partitions, noises and errors that noise hides, or share the weights
    # of members.
    parted = entwined(name) or name == "partitions"
    close = 0.5 if parted or name in OF_MEMBERS else 1e-3
    np.testing.assert_allclose(joint, expected, rtol=1e-3, atol=close)


@each_quick_class
def test_density_has_the_units_of_y(name):
    size, unit = 2.0**500, 2.0**-60
    model, other = fitted(name), fitted_in_other_units(name, size, unit)
    difference = model.log_density(X, Y) - other.log_density(size * X, unit * Y)
    np.testing.assert_allclose(difference, np.log(unit), rtol=1e-9)
    far = model.log_density(X, np.full(N, 1e150))
    assert (far < -1e200).all()
    assert not np.isnan(model.log_density(X, np.full(N, 1e300))).any()


@each_quick_class
def test_score_is_r2_of_all_outputs(name):
    targets = np.column_stack([Y, -Y])
    model = make(name).fit(X, targets)
    assert model.score(X, targets) == pytest.approx(fitted(name).score(X, Y), abs=1e-9)
    weight = np.append(np.zeros(N - 2), [1, 1])
    assert model.score(X, targets, weight) == pytest.approx(model.score(X[-2:], targets[-2:]))
