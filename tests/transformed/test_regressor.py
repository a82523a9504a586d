"""Regressors behind a transform: everything that is predicted, in units of y."""

import copy
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import BayesianRidge, LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skpou import (
    HierarchicalPOURegressor,
    SparseGridRegressor,
    TransformedRegressor,
)
from tests.base.test_interoperability import documented, odd_parts
from tests.estimators import QUERY, same_bits

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (80, 2))
#: Over some four powers of ten, with errors of a tenth.
Y = np.exp(4 * X[:, 0] + np.abs(X[:, 1]) + 0.1 * RNG.standard_normal(80))
#: Gaussian inside, with which formulas are compared.
GRID = SparseGridRegressor(level=2, density="gaussian")
MIXTURE = SparseGridRegressor(level=2, density="mixture")
PIECES = HierarchicalPOURegressor(2, 1)


TRANSFORMS = {
    "log": "log",
    "powers": "yeo-johnson",
    "pair": (np.cbrt, lambda t: t**3),
    "falling pair": (lambda y: -np.log(y), lambda t: np.exp(-t)),
}
MODELS = {
    name: TransformedRegressor(inner, TRANSFORMS[transform]).fit(X, targets)
    for name, inner, transform, targets in (
        ("log", GRID, "log", Y),
        ("log of a mixture", MIXTURE, "log", Y),
        ("log of pieces", PIECES, "log", Y),
        ("powers", GRID, "powers", Y),
        ("pair", GRID, "pair", Y),
        ("falling pair", GRID, "falling pair", Y),
    )
}
each_model = pytest.mark.parametrize("name", MODELS)


def test_slopes_beyond_all_numbers_are_infinite():
    """Warnings are errors here; along the other column the slope is a number."""
    points = X * [1e-300, 1.0]
    model = TransformedRegressor(GRID).fit(points, 1e12 * Y)
    gradient = model.predict_gradient(points[:9])
    assert np.isinf(gradient[:, 0]).any()
    assert np.isfinite(gradient[:, 1]).all()
    assert not np.isnan(gradient).any()


def log_model(inner=GRID, **kw):
    return TransformedRegressor(inner).fit(X, Y, **kw)


def test_logarithms_of_a_gaussian_are_lognormal():
    model, inner = MODELS["log"], clone(GRID).fit(X, np.log(Y))
    mean, s = inner.predict(QUERY, return_std=True)
    median, std = model.predict(QUERY, return_std=True)
    np.testing.assert_allclose(median, np.exp(mean), rtol=1e-13)
    np.testing.assert_allclose(std, np.exp(mean) * np.sinh(s), rtol=1e-12)
    levels = (0.9, 0.02, 0.5)
    expected = np.exp(mean[:, None] + s[:, None] * ndtri(levels))
    np.testing.assert_allclose(model.predict_quantile(QUERY, levels), expected, rtol=1e-12)
    y = median * np.linspace(0.5, 2, len(QUERY))
    density = norm.logpdf(np.log(y), mean, s) - np.log(y)
    np.testing.assert_allclose(model.log_density(QUERY, y), density, rtol=1e-11)
    gradient = np.exp(mean)[:, None] * inner.predict_gradient(QUERY)
    np.testing.assert_allclose(model.predict_gradient(QUERY), gradient, rtol=1e-12)
    draws = np.exp(inner.sample_y(QUERY, 3, random_state=5))
    np.testing.assert_allclose(model.sample_y(QUERY, 3, 5), draws, rtol=1e-13)
    ends = model.predict_interval(QUERY, 0.8)
    np.testing.assert_allclose(ends, model.predict_quantile(QUERY, (0.1, 0.9)), rtol=1e-9)
    for part in ("epistemic", "noise"):
        s = inner.predict(QUERY, return_std=part)[1]
        found = model.predict(QUERY, return_std=part)[1]
        np.testing.assert_allclose(found, np.exp(mean) * np.sinh(s), rtol=1e-12)


@each_model
def test_distribution_function_undoes_the_quantiles(name):
    levels = (0.02, 0.3, 0.5, 0.95)
    quantiles = MODELS[name].predict_quantile(QUERY, levels)
    found = MODELS[name].predict_cdf(QUERY, quantiles)
    np.testing.assert_allclose(found, np.broadcast_to(levels, found.shape), rtol=1e-6)
    one = MODELS[name].predict_cdf(QUERY, quantiles[:, 1])
    np.testing.assert_allclose(one, found[:, 1], rtol=1e-12)


@each_model
def test_density_integrates_to_one_and_to_the_quantiles(name):
    model = MODELS[name]
    levels = np.array([0.05, 0.1587, 0.5, 0.8413, 0.95])
    for point in ([0.5, 0.2], [0.0, -0.4]):
        # Even steps in the quantiles of the density, dense where it is.
        probabilities = norm.cdf(np.linspace(-5.5, 5.5, 6001))
        grid = model.predict_quantile([point], probabilities)[0]
        density = np.exp(model.log_density(np.tile(point, (len(grid), 1)), grid))
        mass = np.append(0, np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid)))
        np.testing.assert_allclose(mass[-1], 1, atol=1e-3)
        quantiles = model.predict_quantile([point], levels)[0]
        np.testing.assert_allclose(np.interp(quantiles, grid, mass), levels, atol=1e-3)
        median, std = model.predict([point], return_std=True)
        np.testing.assert_allclose(median, quantiles[2], rtol=1e-12)
        np.testing.assert_allclose(std, (quantiles[3] - quantiles[1]) / 2, rtol=1e-3)


@each_model
def test_gradient_is_that_of_the_median(name):
    model = MODELS[name]
    points = QUERY[np.abs(QUERY[:, 1]) > 0.1][:6] + 1e-3  # Off the kinks of the grid.
    h = 1e-5
    for column in range(2):
        step = h * np.eye(2)[column]
        change = (model.predict(points + step) - model.predict(points - step)) / (2 * h)
        found = model.predict_gradient(points)[:, column]
        np.testing.assert_allclose(found, change, rtol=1e-4, atol=1e-5 * np.abs(change).max())


@each_model
def test_median_and_quantiles_of_draws(name):
    model = MODELS[name]
    draws = model.sample_y(QUERY[:4], 4000, random_state=1)
    below = (draws[..., None] < model.predict_quantile(QUERY[:4])[:, None]).mean(1)
    # Four standard deviations of a share of 4000.
    np.testing.assert_allclose(below, [[0.05, 0.5, 0.95]] * 4, atol=4 * 0.5 / math.sqrt(4000))
    assert not np.array_equal(draws, model.sample_y(QUERY[:4], 4000, random_state=2))
    together = model.sample_y(QUERY[:4], 3, joint=True)
    assert together.shape == (4, 3)


def test_numerical_slopes_serve_as_well_as_closed_forms():
    closed, pair = log_model(), TransformedRegressor(GRID, (np.log, np.exp)).fit(X, Y)
    for kind in (
        lambda m: m.predict_gradient(QUERY),
        lambda m: m.log_density(QUERY, Y[: len(QUERY)]),
    ):
        np.testing.assert_allclose(kind(pair), kind(closed), rtol=1e-9)


@each_model
def test_calibrated_intervals_hold_their_share_exactly(name):
    """Of 21 fresh rows, each in turn the new one, as many are covered as the rank says."""
    model, rng = copy.deepcopy(MODELS[name]), np.random.default_rng(3)
    fresh = rng.uniform(-1, 1, (21, 2))
    y = model.predict(fresh) * np.exp(0.4 * rng.standard_normal(21))  # Wilder than the fit knows.
    covered = 0
    for i in range(21):
        rest = np.arange(21) != i
        assert model.conformalize(fresh[rest], y[rest]) is model
        low, high = model.predict_interval(fresh[i : i + 1], 0.9)[0]
        covered += low <= y[i] <= high
    assert covered == math.ceil(0.9 * 21)


@pytest.mark.parametrize("transform", ["log", "powers", "pair"])
def test_outputs_are_those_of_each_alone(transform):
    transform = TRANSFORMS[transform]
    targets = np.column_stack([Y, 1e-6 * Y[::-1]])
    model = TransformedRegressor(GRID.set_params(alpha=1e-3), transform).fit(X, targets)
    alone = [clone(model).fit(X, targets[:, k]) for k in range(2)]
    GRID.set_params(alpha="auto")
    n = len(QUERY)
    results = {
        "predict": (n, 2),
        "predict_quantile": (n, 2, 3),
        "predict_interval": (n, 2, 2),
        "predict_gradient": (n, 2, 2),
    }
    for name, shape in results.items():
        found = getattr(model, name)(QUERY)
        assert found.shape == shape
        for k in range(2):
            np.testing.assert_allclose(found[:, k], getattr(alone[k], name)(QUERY), rtol=1e-6)
    assert model.sample_y(QUERY, 5).shape == (n, 2, 5)
    joint = model.log_density(X, targets)
    apart = sum(alone[k].log_density(X, targets[:, k]) for k in range(2))
    np.testing.assert_allclose(joint, apart, rtol=1e-6)
    column = clone(model).fit(X, targets[:, :1])
    assert column.predict(QUERY).shape == (n, 1)
    assert column.predict_quantile(QUERY).shape == (n, 1, 3)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_weights_are_repetitions(transform):
    weight = RNG.integers(0, 3, len(X))
    spoiled = np.where(weight > 0, Y, -1.0)  # What has no weight need have no logarithm.
    model = TransformedRegressor(GRID, TRANSFORMS[transform])
    weighted = clone(model).fit(X, spoiled, sample_weight=weight).predict(QUERY)
    repeated = clone(model).fit(np.repeat(X, weight, 0), np.repeat(Y, weight)).predict(QUERY)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9)


def test_summary_is_that_of_the_regressor_inside():
    X = np.linspace(0, 1, 30)[:, None]
    model = TransformedRegressor().fit(X, np.exp(3 * X[:, 0]))
    text = model.summary()
    assert text.splitlines()[0].startswith("TransformedRegressor, transform: log")
    assert text.endswith(model.regressor_.summary())
    assert not hasattr(TransformedRegressor(LinearRegression()), "summary")
    with pytest.raises(NotFittedError):
        TransformedRegressor().summary()


def test_input_of_all_kinds():
    model, expected = log_model(), log_model().predict(QUERY)
    table = pd.DataFrame(X, columns=["a", "b"])
    named = TransformedRegressor(GRID).fit(table, pd.Series(Y, name="current"))
    assert named.feature_names_in_.tolist() == ["a", "b"]
    assert same_bits(named.predict(pd.DataFrame(QUERY, columns=["a", "b"])), expected)
    assert not hasattr(named.fit(X, Y), "feature_names_in_")
    tensors = TransformedRegressor(GRID).fit(torch.as_tensor(X), torch.as_tensor(Y))
    points = torch.as_tensor(QUERY)
    for found in (
        *tensors.predict(points, return_std=True),
        tensors.predict_quantile(points),
        tensors.predict_interval(points),
        tensors.sample_y(points),
        tensors.predict_gradient(points),
        tensors.log_density(points, points[:, 0].abs() + 1),
    ):
        assert isinstance(found, torch.Tensor)
    assert same_bits(tensors.predict(points).numpy(), expected)
    assert tensors.score(points, torch.as_tensor(expected)) == 1.0
    assert model.score(X, Y) > 0.9


# Other regressors inside


def test_a_gaussian_process_inside():
    process = GaussianProcessRegressor(RBF() + WhiteKernel(1e-2), normalize_y=True)
    model = TransformedRegressor(process).fit(X, Y)
    mean, s = clone(process).fit(X, np.log(Y)).predict(QUERY, return_std=True)
    median, std = model.predict(QUERY, return_std=True)
    np.testing.assert_allclose(median, np.exp(mean), rtol=1e-12)
    np.testing.assert_allclose(std, np.exp(mean) * np.sinh(s), rtol=1e-9)
    expected = np.exp(mean[:, None] + s[:, None] * ndtri([0.05, 0.5, 0.95]))
    np.testing.assert_allclose(model.predict_quantile(QUERY), expected, rtol=1e-9)
    np.testing.assert_allclose(model.predict_interval(QUERY, 0.9), expected[:, [0, 2]], rtol=1e-9)
    assert model.sample_y(QUERY, 4).shape == (len(QUERY), 4)
    for name in ("log_density", "predict_gradient", "conformalize"):
        assert not hasattr(model, name)
    with pytest.raises(ValueError, match="return_std='noise' needs a regressor of skpou"):
        model.predict(QUERY, return_std="noise")
    assert model.fit(X, np.column_stack([Y, Y])).predict(QUERY, return_std=True)[1].shape == (
        len(QUERY),
        2,
    )


def test_pipelines_inside_and_outside():
    inside = TransformedRegressor(make_pipeline(StandardScaler(), GRID)).fit(X, Y)
    outside = make_pipeline(StandardScaler(), TransformedRegressor(GRID)).fit(X, Y)
    for found, expected in zip(
        inside.predict(QUERY, return_std=True), outside.predict(QUERY, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(
        inside.predict_quantile(QUERY), outside[-1].predict_quantile(outside[0].transform(QUERY))
    )


def test_tags_are_those_of_the_regressor():
    assert get_tags(TransformedRegressor()).target_tags.positive_only
    assert get_tags(TransformedRegressor()).target_tags.multi_output
    powers = get_tags(TransformedRegressor(BayesianRidge(), "yeo-johnson"))
    assert not powers.target_tags.positive_only
    assert not powers.target_tags.multi_output


def test_without_a_standard_deviation():
    model = TransformedRegressor(LinearRegression()).fit(X, Y)
    np.testing.assert_allclose(model.predict(X), np.exp(model.regressor_.predict(X)))
    with pytest.raises(TypeError, match=r"LinearRegression\(\) predicts no standard deviation"):
        model.predict(X, return_std=True)


# Parameters and states


def test_transform_is_a_parameter_and_no_method():
    model = TransformedRegressor(GRID, "yeo-johnson")
    assert model.get_params(deep=False) == {"regressor": GRID, "transform": "yeo-johnson"}
    assert model.get_params()["regressor__level"] == 2
    assert not hasattr(model, "transform")
    with pytest.raises(AttributeError, match=r"get_params\(\)\['transform'\]"):
        model.transform(X)
    assert model.set_params(transform="log").get_params()["transform"] == "log"
    assert "yeo-johnson" in repr(TransformedRegressor(GRID, "yeo-johnson"))
    assert "TransformedRegressor" in model.fit(X, Y)._repr_html_()
    search = GridSearchCV(model, {"transform": ["log", "yeo-johnson"], "regressor__level": [1, 2]})
    assert search.fit(X, Y).best_score_ > 0.5


def test_fitted_state_is_plain_and_comes_back():
    skops = pytest.importorskip("skops.io")
    for transform in ("log", "yeo-johnson", (np.log1p, np.expm1)):
        model = TransformedRegressor(GRID, transform).fit(X, Y)
        expected = model.predict_quantile(QUERY)
        if isinstance(transform, str):
            assert not odd_parts(model.transform_)
            again = skops.loads(
                skops.dumps(model),
                trusted=["skpou.SparseGridRegressor", "skpou.TransformedRegressor"],
            )
            assert same_bits(again.predict_quantile(QUERY), expected)
        again = pickle.loads(pickle.dumps(model))
        assert same_bits(again.predict_quantile(QUERY), expected)
        assert same_bits(clone(model).fit(X, Y).predict_quantile(QUERY), expected)


def test_parameters_and_attributes_are_documented():
    cls = TransformedRegressor
    assert documented(cls.__doc__, "Parameters") == ["regressor", "transform"]
    model = cls().fit(pd.DataFrame(X, columns=["a", "b"]), Y)
    public = {key for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    assert set(documented(cls.__doc__, "Attributes")) == public


class Stopped(SparseGridRegressor):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        raise KeyboardInterrupt


def test_an_interrupt_leaves_what_the_regressor_has():
    model = TransformedRegressor(Stopped(level=2))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert same_bits(model.predict(QUERY), log_model().predict(QUERY))


# Bad input

BAD_TARGETS = [
    (np.where(np.arange(80) == 7, 0.0, Y), r"transform='log' needs positive y\. Got 0 in row 7"),
    (np.column_stack([Y, -Y]), r"needs positive y\. Got -.* in row 0, output 1"),
    (torch.as_tensor(-Y), r"needs positive y"),
    (np.where(np.arange(80) == 7, np.nan, Y), "Input y contains NaN"),
    (np.where(np.arange(80) == 7, np.inf, Y), "Input y contains infinity"),
    (Y[:-1], "inconsistent numbers of samples"),
    (["a"] * 80, "y must be numeric"),
    (None, "requires y to be passed"),
    (np.zeros((80, 2, 2)), "dim"),
]


@pytest.mark.parametrize(("y", "message"), BAD_TARGETS)
def test_bad_targets_leave_an_earlier_fit(y, message):
    model = log_model()
    expected = model.predict(QUERY)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert same_bits(model.predict(QUERY), expected)
    if y is not None and len(y) == 80:
        for method in (model.log_density, model.conformalize):
            with pytest.raises(ValueError):
                method(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"transform": "sqrt"}, "The 'transform' parameter of TransformedRegressor"),
        ({"transform": (np.log,)}, r"transform must be 'log', 'yeo-johnson' or \(function"),
        ({"transform": (np.log, "exp")}, r"transform must be 'log', 'yeo-johnson' or \(function"),
        ({"regressor": 3}, "The 'regressor' parameter of TransformedRegressor"),
        ({"transform": (np.log, np.expm1)}, r"transform\[1\]=expm1 must undo transform\[0\]=log"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        TransformedRegressor().set_params(**params).fit(X, Y)


def test_an_inverse_that_turns_round_is_refused():
    """The reciprocal is none of a normal density, which reaches zero."""
    pair = (np.reciprocal, np.reciprocal)
    model = TransformedRegressor(GRID, pair).fit(X, 5 + X[:, 0] + np.abs(X[:, 1]))
    assert (np.diff(model.predict_interval(X, 0.9)) > 0).all()
    wild = model.predict(X) * np.exp(2 * np.random.default_rng(0).standard_normal(80))
    model.conformalize(X, wild)
    with pytest.raises(ValueError, match=r"must increase or decrease throughout .* cross"):
        model.predict_interval(X, 0.95)


def test_bad_requests():
    model = log_model()
    with pytest.raises(ValueError, match="return_std must be False, True"):
        model.predict(X, return_std="all")
    with pytest.raises(ValueError, match="quantiles must lie between 0 and 1"):
        model.predict_quantile(X, [0.0])
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        model.predict_interval(X, 1.0)
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        model.fit(X, Y, sample_weight=np.zeros(80))


@pytest.mark.parametrize("size", [1e-300, 1e300])
@pytest.mark.parametrize("transform", ["log", "yeo-johnson"])
def test_units_do_not_matter(size, transform):
    model = TransformedRegressor(GRID, transform)
    expected = clone(model).fit(X, Y).predict(QUERY)
    found = clone(model).fit(X, size * Y).predict(QUERY)
    np.testing.assert_allclose(found / size, expected, rtol=1e-9)
