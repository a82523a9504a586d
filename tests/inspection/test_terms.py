"""The display of additive terms, on a stub whose terms are known and on a fit."""

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402

from skpou import AdditivePOURegressor  # noqa: E402
from skpou.inspection import TermsDisplay  # noqa: E402
from tests.inspection.stubs import FittedStub  # noqa: E402

X = np.random.default_rng(0).uniform(-1, 1, (90, 4))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Stub(FittedStub):
    """Terms x0 / 2, 2 x2, x1 x3 and one of three columns; their standard deviation is 0.1."""

    n_features_in_ = 4
    terms_ = [(0,), (2,), (1, 3), (0, 1, 2)]

    def predict_terms(self, X, return_std=False):
        values = np.stack(
            [X[:, 0] / 2, 2 * X[:, 2], X[:, 1] * X[:, 3], 9 * X[:, 0] * X[:, 1] * X[:, 2]], 1
        )
        return (values, np.full_like(values, 0.1)) if return_std else values

    def predict(self, X):
        return self.predict_terms(X).sum(1)


class Two(Stub):
    """A second output, of twice the size."""

    def predict_terms(self, X, return_std=False):
        parts = super().predict_terms(X, True)
        parts = [np.stack([part, 2 * part], 1) for part in parts]
        return tuple(parts) if return_std else parts[0]

    def predict(self, X):
        return self.predict_terms(X).sum(2)


def test_effects_with_bands_and_pairs_as_maps():
    display = TermsDisplay.from_estimator(Stub(), X)
    # The largest share first; three columns cannot be drawn.
    assert display.terms == [(2,), (1, 3), (0,)]
    assert len(display.axes_) == 3
    x, value = display.lines_[0].get_data()
    np.testing.assert_allclose(value, 2 * x)
    assert (x[0], x[-1]) == (X[:, 2].min(), X[:, 2].max())
    band = display.bands_[2].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(X[:, 0].max() / 2 + 0.2)
    xx0, xx1 = display.grids[1]
    np.testing.assert_allclose(display.surfaces_[1].get_array(), xx0 * xx1)
    axis = display.axes_[1]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("feature 1", "feature 3")
    share = np.var(2 * X[:, 2]) / np.var(Stub().predict(X))
    assert display.axes_[0].get_title() == f"share {share:.1%}"
    rest = np.var(9 * X[:, 0] * X[:, 1] * X[:, 2]) / np.var(Stub().predict(X))
    expected = f"not drawn: feature 0 x feature 1 x feature 2 {rest:.1%}"
    assert display.text_.get_text() == expected
    # Sizes of main effects are compared.
    assert display.axes_[0].get_ylim() == display.axes_[2].get_ylim()


def test_targets_show_what_the_other_terms_leave():
    noise = 0.1 * np.cos(50 * X[:, 3])
    display = TermsDisplay.from_estimator(Stub(), X, Stub().predict(X) + noise, terms=[(0,), 2])
    assert display.terms == [(0,), (2,)]
    np.testing.assert_allclose(display.partial_residuals[0], X[:, 0] / 2 + noise)
    np.testing.assert_allclose(display.partial_residuals[1], 2 * X[:, 2] + noise)
    dots = display.axes_[0].collections[0].get_offsets()
    np.testing.assert_allclose(dots, np.c_[X[:, 0], X[:, 0] / 2 + noise])


def test_outputs():
    y = Two().predict(X)
    display = TermsDisplay.from_estimator(Two(), X, y, target=1, terms=[(0,)])
    x, value = display.lines_[0].get_data()
    np.testing.assert_allclose(value, x)
    np.testing.assert_allclose(display.partial_residuals[0], X[:, 0], atol=1e-13)
    with pytest.raises(ValueError, match="target=2 is no output"):
        TermsDisplay.from_estimator(Two(), X, target=2)


def test_names_and_units_of_a_fit():
    frame = pd.DataFrame(X, columns=["age", "water", "ash", "slag"])
    y = pd.Series(2 * X[:, 0] + X[:, 1] * X[:, 2], name="strength")
    model = AdditivePOURegressor(2, remainder=False, transform_columns=False).fit(frame, y)
    units = {"age": "days", "strength": "MPa"}
    display = TermsDisplay.from_estimator(
        model, frame, y, terms=["age", ("ash", "water")], units=units, grid_resolution=9
    )
    assert display.terms == [(0,), (1, 2)]
    effect, pair = display.axes_
    assert (effect.get_xlabel(), effect.get_ylabel()) == ("age (days)", "part of strength (MPa)")
    assert (pair.get_xlabel(), pair.get_ylabel()) == ("water", "ash")
    assert display.colorbars_[1].ax.get_ylabel() == "part of strength (MPa)"
    place = model.terms_.index((0,))
    rows = frame.iloc[:9].copy()
    rows["age"] = display.grids[0][0]
    value, std = model.predict_terms(rows, return_std=True)
    np.testing.assert_allclose(display.values[0], value[:, place], atol=1e-12)
    np.testing.assert_allclose(display.stds[0], std[:, place], atol=1e-12)


def test_given_axes():
    _, axes = plt.subplots(1, 3)
    display = TermsDisplay.from_estimator(Stub(), X, ax=axes)
    assert list(display.axes_) == list(axes)
    _, ax = plt.subplots()
    assert len(display.plot(ax=ax).axes_) == 3
    assert not ax.axison
    with pytest.raises(ValueError, match="ax must hold 3 axes"):
        display.plot(ax=axes[:2])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"terms": [(0, 1)]}, r"terms has \(0, 1\), which is none of terms_"),
        ({"terms": []}, "terms must hold a term"),
        ({"terms": [7]}, "7 is neither an index below 4"),
        ({"y": np.zeros(3)}, "inconsistent numbers"),
        ({"grid_resolution": 0}, "grid_resolution must be at least 2, got 0"),
        ({"units": {"speed": "m/s"}}, "units has 'speed'"),
    ],
)
def test_bad_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        TermsDisplay.from_estimator(Stub(), X, **parameters)


def test_estimators_without_terms():
    with pytest.raises(TypeError, match="LinearRegression has no predict_terms"):
        TermsDisplay.from_estimator(LinearRegression().fit(X, X[:, 0]), X)
    with pytest.raises(NotFittedError):
        TermsDisplay.from_estimator(AdditivePOURegressor(), X)
    stub = Stub()
    stub.terms_ = [(0, 1, 2)]
    stub.predict_terms = lambda X, return_std=False: X[:, :1]
    with pytest.raises(ValueError, match="No term of one or two columns"):
        TermsDisplay.from_estimator(stub, X)
