"""What fitted estimators say about themselves in words."""

import re
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    SparseGridClassifier,
    SparseGridRegressor,
)
from skpou.base import polynomial_text
from skpou.physics import Equation, Unknown
from tests.estimators import each_quick_class_with_a_model, fitted

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "0.1.0"
NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?)"


def found(pattern, text):
    """Numbers that a pattern finds in a text."""
    match = re.search(pattern.replace("#", NUMBER), text)
    assert match, text
    return [float(part) for part in match.groups()]


@each_quick_class_with_a_model
def test_every_estimator_has_something_to_say(name):
    model = fitted(name)
    text = model.summary()
    assert text.startswith(type(model).__name__)
    low, high = found("x0: from # to #", text)
    box = [model.scaling_[key][0] for key in ("offset", "width")]
    np.testing.assert_allclose([low, high - low], box, rtol=1e-5)
    if "Noise" in text:
        np.testing.assert_allclose(found(r"Noise, .*: #", text), np.ravel(model.noise_), rtol=1e-5)


def test_pieces_on_a_line_have_their_intervals_and_polynomials():
    x = np.linspace(2.0, 4.0, 400)
    y = np.where(x < np.pi, 1 - 2 * x + 3 * x**2, 5 - x)
    text = HierarchicalPOURegressor().fit(x[:, None], y).summary()
    low, high = found(r"x0 from # to #; noise .*\n.* x0\^2", text)
    assert low == 2.0
    assert abs(high - np.pi) < 0.006  # a row's distance: the jump lies somewhere between two
    np.testing.assert_allclose(found(r"# - # x0 \+ # x0\^2", text), [1, 2, 3], rtol=1e-5)
    assert "5 - 1 x0" in text
    assert re.search(r"\* pieces of degree 2, score", text)
    assert "pieces of degree 0, score" in text


def test_boundaries_in_two_columns():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame(rng.uniform((10, -1), (12, 1), (600, 2)), columns=["u", "v"])
    y = np.abs(X["v"] - 0.5 * (X["u"] - 11))
    text = HierarchicalPOURegressor(gate="linear").fit(X, y).summary()
    # In units of its largest coefficient, the constant -5.5 or 5.5.
    constant, v, u = found(r"0 \| 1: # . # v . # u", text)
    np.testing.assert_allclose([abs(constant), v, u], [1, 1 / 5.5, 0.5 / 5.5], rtol=1e-3)
    assert "powers of X lose 2 digits" in text


def test_blended_pieces_say_so():
    assert "gates rbf, blended" in fitted("radial gates").summary()


def test_a_process_that_predicts_in_place_of_the_form_is_told_of():
    x = np.linspace(0.0, 1.0, 9)[:, None]
    exact = SparseGridRegressor(random_state=0).fit(x, np.exp(3 * x[:, 0]))
    line = "Gaussian process in place of the form"
    # The noise of the form, which the text has, is not that of the predictions.
    assert np.all(exact.predict(x, return_std="noise")[1] < 1e-3 * exact.noise_)
    assert line in exact.summary()
    given = SparseGridRegressor(level=3, random_state=0).fit(x, np.exp(3 * x[:, 0]))
    assert line not in given.summary()


def test_terms_have_shares_of_the_variance():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (400, 3))
    y = 2 * X[:, 0] + X[:, 1] + 0.05 * rng.standard_normal(400)
    text = AdditivePOURegressor(1, density="gaussian").fit(X, y).summary()
    shares = found(r"x0: #%.*\n  x1: #%", text)
    expected = [4 * X[:, 0].var() / y.var(), X[:, 1].var() / y.var()]
    np.testing.assert_allclose(shares, 100 * np.array(expected), atol=2)


def test_stages_and_what_they_leave():
    x = np.linspace(-1, 1, 60)
    model = MultiStageRegressor().fit(x[:, None], x**3 - x)
    text = model.summary()
    assert "1. polynomial of degree 3" in text
    np.testing.assert_allclose(found(r"leaves # \(rms", text), model.residual_rms_, rtol=1e-5)
    # The mean of y is apart from the polynomial.
    np.testing.assert_allclose(found(r"-# x0 \+ # x0\^3", text), [1, 1], rtol=1e-5)


def test_unknown_constants_have_their_deviation():
    x = np.linspace(0, 1, 20)[:, None]

    def growth(u, x, p):
        return u.d(0) - p["rate"] * u()

    model = LSGDRegressor(
        physics=Equation(growth, "sobol", box=[(0, 1)]), unknowns={"rate": Unknown(0.5)}
    ).fit(x, np.exp(0.7 * x[:, 0]))
    value, deviation = found("rate: #, standard deviation #", model.summary())
    assert abs(value - 0.7) < 1e-8
    np.testing.assert_allclose(deviation, model.unknowns_std_["rate"], rtol=0.05)
    assert "rms of the residual on fresh points" in model.summary()


def test_classes():
    X = np.random.default_rng(0).random((60, 2))
    model = SparseGridClassifier(level=2).fit(X, np.where(X[:, 0] > 0.5, "right", "left"))
    assert "Classes: left, right" in model.summary()
    assert "'density'" in model.summary()


@pytest.mark.parametrize("name", ["terms", "tree", "stages", "units", "neural-grid"])
def test_models_of_the_last_release(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "Columns" in joblib.load(GOLDEN / f"{name}.joblib").summary()


def test_not_fitted():
    with pytest.raises(NotFittedError):
        HierarchicalPOURegressor().summary()


@pytest.mark.parametrize(
    ("coef", "text"),
    [
        ([0.0, 0.0, 0.0], "0"),
        ([-1.0, 2.0, -0.5], "-1 + 2 a - 0.5 a^2 b"),
        ([0.0, -2.0, 0.0], "-2 a"),
        ([1e-16, 1.0, 0.0], "1 a"),
        ([np.inf, 0.0, 0.0], "no finite coefficients: powers of X overflow"),
    ],
)
def test_polynomials_in_words(coef, text):
    powers = np.array([[0, 0], [1, 0], [2, 1]])
    box = {"columns": np.array([0, 2]), "offset": np.zeros(2), "width": np.ones(2)}
    assert polynomial_text(powers, np.array(coef), ["a", "constant", "b"], box) == text
