"""Transforms of targets: inverses, slopes, exponents, and pairs of functions that are none."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.preprocessing import PowerTransformer

from skpou.transformed.transforms import (
    YeoJohnson,
    fit_transform,
    fit_yeo_johnson,
    from_arrays,
    slope,
)

RNG = np.random.default_rng(0)
SKEWED = RNG.lognormal(size=300) - 0.4
ONES = np.ones(300)


def reciprocal(y):
    return 1 / y


PAIR = (np.cbrt, lambda t: t**3)
KINDS = {
    "log": ("log", np.exp(3 * RNG.standard_normal(300))),
    "log of two": ("log", np.exp(RNG.standard_normal((300, 2)))),
    "powers": ("yeo-johnson", SKEWED),
    "powers of two": ("yeo-johnson", np.column_stack([SKEWED, -1e-9 * SKEWED**3])),
    "pair": ((np.arcsinh, np.sinh), SKEWED * 1e3),
    "falling pair": ((reciprocal, reciprocal), np.exp(RNG.standard_normal(300))),
    "bounded pair": ((logit, expit), expit(4 * RNG.standard_normal(300))),
}
each_kind = pytest.mark.parametrize("name", KINDS)


def made(name):
    given, y = KINDS[name]
    return fit_transform(given, y, ONES), y


@each_kind
def test_inverse_undoes_and_state_rebuilds(name):
    transform, y = made(name)
    size = np.ptp(y, axis=0)
    again = from_arrays(transform.arrays())
    for values in (y, np.stack([y] * 3, -1)):  # Quantiles and draws have an axis behind.
        if values.ndim == 2 and y.ndim == 1:
            values = values[:, :1]
        np.testing.assert_allclose(again.inverse(transform.forward(values)), values, atol=1e-12)
        assert np.abs(again.inverse(transform.forward(y)) - y).max() <= 1e-12 * size.max()


@each_kind
def test_slopes_are_those_of_function_and_inverse(name):
    transform, y = made(name)
    t = transform.forward(y)
    found = transform.inverse_slope(t)
    assert (np.sign(found) == (1 if transform.increasing else -1)).all()
    np.testing.assert_allclose(np.log(np.abs(found)), -transform.log_slope(y, t), atol=1e-7)
    h = 1e-5 * np.maximum(np.abs(t), 1)
    expected = (transform.inverse(t + h) - transform.inverse(t - h)) / (2 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
@pytest.mark.parametrize("skew", [lambda z: z, np.exp, np.cbrt, lambda z: np.expm1(z) ** 3])
def test_exponents_are_those_of_scikit_learn(scale, skew):
    y = skew(np.random.default_rng(1).standard_normal(400))
    ours = fit_yeo_johnson(scale * y[:, None], np.ones(400))
    z = ((y - y.mean()) / y.std())[:, None]
    theirs = PowerTransformer(standardize=False).fit(z)
    # Beyond 0 and 2 a prediction may have no inverse.
    expected = np.clip(theirs.lambdas_, 0, 2)
    np.testing.assert_allclose(ours.exponent, expected, atol=2e-4)
    theirs.lambdas_ = ours.exponent
    np.testing.assert_allclose(ours.forward(scale * y[:, None]), theirs.transform(z), rtol=1e-9)


def test_weights_are_repetitions():
    y = SKEWED[:, None]
    weight = RNG.integers(0, 4, 300)
    kept = weight > 0
    weighted = fit_yeo_johnson(y[kept], weight[kept].astype(float))
    repeated = fit_yeo_johnson(np.repeat(y, weight, 0), np.ones(weight.sum()))
    for name in ("exponent", "centre", "scale"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-13)


@pytest.mark.parametrize("y", [np.full((5, 1), 3.7), np.zeros((5, 1)), np.full((1, 1), -1e300)])
def test_a_constant_stays(y):
    transform = fit_yeo_johnson(y, np.ones(len(y)))
    assert transform.exponent == 1
    np.testing.assert_allclose(transform.inverse(transform.forward(y)), y, rtol=1e-14)


@pytest.mark.parametrize("value", [0.1, -3.7, 1e12, -1e300])
def test_a_constant_of_a_pair_has_a_slope(value):
    y = np.full(7, value)
    transform = fit_transform((np.arcsinh, np.sinh), y, np.ones(7))
    t = transform.forward(y)
    np.testing.assert_allclose(transform.log_slope(y, t), -np.log(np.hypot(1, y)), atol=1e-8)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0, 1.7, 2.0])
def test_powers_map_the_line_onto_the_line(exponent):
    transform = YeoJohnson(np.array([exponent]), np.zeros(1), np.ones(1))
    t = np.linspace(-50, 50, 1001)
    y = transform.inverse(t)
    assert (np.diff(y) > 0).all()
    np.testing.assert_allclose(transform.forward(y), t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "derivative", "t"),
    [
        (np.exp, np.exp, np.linspace(-30, 30, 41)),
        (np.sinh, np.cosh, np.linspace(-20, 20, 41)),
        (expit, lambda t: expit(t) * expit(-t), np.linspace(-25, 8, 41)),
        (np.square, lambda t: 2 * t, np.linspace(1e-3, 5, 41)),
        (np.arctanh, lambda t: 1 / (1 - t**2), np.array([-0.999, 0.0, 0.5, 0.99, 1 - 1e-4])),
        (np.sqrt, lambda t: 0.5 / np.sqrt(t), np.array([1e-3, 1.0, 9.0])),
    ],
)
@pytest.mark.parametrize("step", [0.5, 5.0])
def test_numerical_slopes(function, derivative, t, step):
    """Also with a first step beyond the ends of a function's domain."""
    np.testing.assert_allclose(slope(function, t, step), derivative(t), rtol=1e-7)


def test_no_slope_is_nan():
    assert np.isnan(slope(lambda t: np.full(t.shape, np.nan), np.zeros(3), 1.0)).all()


@pytest.mark.parametrize(
    ("given", "y", "message"),
    [
        ("log", [1.0, 2.0, 0.0], r"transform='log' needs positive y. Got 0 in row 2"),
        ("log", [[1.0, 2.0], [3.0, -1.5]], r"Got -1.5 in row 1, output 1"),
        ((np.log, np.exp), [1.0, -2.0], r"transform\[0\]=log must be finite at y. Got -2 in row 1"),
        ((np.log, np.expm1), [1.0, 2.0], r"\[1\]=expm1 must undo transform\[0\]=log. It makes 0 "),
        ((np.sin, np.arcsin), [1.0, 2.0, 5.0], r"sin must increase or decrease throughout"),
        ((np.sum, np.exp), [1.0, 2.0], r"must work element by element. It made \(\) of \(2,\)"),
        ((np.sin, np.arcsin), [2.0, 2.5], r"\[1\]=arcsin must undo transform\[0\]=sin"),
        ((np.tanh, lambda t: t * np.nan), [0.5, 1.0], r"must undo all that may be predicted"),
    ],
)
def test_what_is_refused(given, y, message):
    y = np.array(y)
    with pytest.raises(ValueError, match=message):
        fit_transform(given, y, np.ones(len(y))).forward(y)
