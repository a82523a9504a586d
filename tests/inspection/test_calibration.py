"""The display of calibration: what densities promise, and what chance allows."""

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from scipy.stats import binom, norm  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import BayesianRidge, LinearRegression  # noqa: E402

from skpou import SparseGridRegressor  # noqa: E402
from skpou.inspection import CalibrationDisplay  # noqa: E402
from skpou.inspection._calibration import chance_band  # noqa: E402

LEVELS = np.arange(1, 100) / 100


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("n", [30, 1000])
def test_one_in_twenty_uniform_samples_leaves_the_band(n):
    lower, upper = chance_band(n, LEVELS)
    rng = np.random.default_rng(7)
    samples = np.sort(rng.random((2000, n)), axis=1)
    shares = np.stack([np.searchsorted(s, LEVELS, side="right") / n for s in samples])
    inside = ((shares >= lower) & (shares <= upper)).all(axis=1).mean()
    # Two standard errors of the 2000 samples here and of as many in the band: 0.7 points each.
    # Counts are whole numbers, so that few rows leave the band less often.
    assert 0.93 < inside < (0.985 if n < 100 else 0.97)


def test_the_band_of_one_level_is_a_binomial_interval():
    lower, upper = chance_band(500, np.array([0.3]))
    inside = binom.cdf(500 * upper, 500, 0.3) - binom.cdf(500 * lower - 1, 500, 0.3)
    assert inside[0] == pytest.approx(0.95, abs=0.015)


def test_shares_are_those_of_the_quantiles():
    rng = np.random.default_rng(0)
    mean, std = rng.standard_normal(400), rng.uniform(0.5, 2, 400)
    y = mean + std * rng.standard_normal(400)
    display = CalibrationDisplay.from_predictions(y, mean, std, coverage=0.8)
    for level, share in zip(display.levels[::20], display.shares[::20]):
        assert share == np.mean(y <= norm.ppf(level, mean, std))
    assert ((display.lower <= display.shares) & (display.shares <= display.upper)).all()
    np.testing.assert_allclose(display.widths, norm.ppf(0.9, scale=std) - norm.ppf(0.1, scale=std))
    assert display.spread == pytest.approx(np.quantile(y, 0.9) - np.quantile(y, 0.1))
    np.testing.assert_array_equal(display.line_.get_ydata(), display.shares)
    assert np.median(display.widths_.get_xdata()[1:]) == pytest.approx(np.median(display.widths))


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_wrong_widths_leave_the_band(factor):
    y = np.random.default_rng(1).standard_normal(300)
    display = CalibrationDisplay.from_predictions(y, np.zeros(300), np.full(300, factor))
    low = display.levels < 0.2
    if factor < 1:  # Too narrow: more than promised is below the low quantiles.
        assert (display.shares[low] > display.upper[low]).any()
    else:
        assert (display.shares[low] < display.lower[low]).any()


def test_an_own_density_of_several_outputs():
    rng = np.random.default_rng(2)
    X = rng.uniform(size=(120, 1))
    y = np.c_[X[:, 0], -X[:, 0]] + [0.1, 0.3] * rng.standard_normal((120, 2))
    frame = pd.DataFrame(y, columns=["current", "charge"])
    model = SparseGridRegressor(level=2).fit(X, y)
    display = CalibrationDisplay.from_estimator(
        model, X, frame, target=1, units={"charge": "fC"}, name="grid"
    )
    np.testing.assert_array_equal(display.pit, model.predict_cdf(X, y)[:, 1])
    bounds = model.predict_quantile(X, [0.05, 0.95])[:, 1]
    np.testing.assert_allclose(display.widths, bounds[:, 1] - bounds[:, 0])
    assert display.axes_[1].get_xlabel() == "width of 90% intervals of charge (fC)"
    assert display.line_.get_label() == "grid"


def test_two_estimators_on_the_same_axes():
    rng = np.random.default_rng(3)
    X = rng.uniform(size=(80, 1))
    y = X[:, 0] + 0.1 * rng.standard_normal(80)
    display = CalibrationDisplay.from_estimator(SparseGridRegressor(level=1).fit(X, y), X, y)
    other = CalibrationDisplay.from_estimator(BayesianRidge().fit(X, y), X, y, ax=display.axes_)
    mean, std = BayesianRidge().fit(X, y).predict(X, return_std=True)
    np.testing.assert_allclose(other.pit, norm.cdf(y, mean, std))
    assert display.band_ is not None
    assert other.band_ is None
    assert display.line_.get_color() != other.line_.get_color()
    assert display.line_.get_linestyle() != other.line_.get_linestyle()
    names = [text.get_text() for text in other.axes_[0].get_legend().get_texts()]
    assert names == ["chance (95%)", "SparseGridRegressor", "BayesianRidge"]


def test_without_widths_there_is_one_panel():
    display = CalibrationDisplay(np.linspace(0, 1, 50)).plot()
    assert len(display.axes_) == 1
    assert display.widths_ is None


def test_bad_arguments():
    X = np.linspace(0, 1, 20)[:, None]
    y = X[:, 0] + 0.1 * np.cos(40 * X[:, 0])
    with pytest.raises(TypeError, match="LinearRegression has neither predict_cdf nor"):
        CalibrationDisplay.from_estimator(LinearRegression().fit(X, y), X, y)
    with pytest.raises(NotFittedError):
        CalibrationDisplay.from_estimator(BayesianRidge(), X, y)
    model = BayesianRidge().fit(X, y)
    with pytest.raises(ValueError, match=r"coverage must lie between 0 and 1, exclusive. Got 90"):
        CalibrationDisplay.from_estimator(model, X, y, coverage=90)
    with pytest.raises(ValueError, match="target=1 is no output of y"):
        CalibrationDisplay.from_estimator(model, X, y, target=1)
    with pytest.raises(ValueError, match=r"y_std must be above 0\. Got 0"):
        CalibrationDisplay.from_predictions(y, y, 0 * y)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        CalibrationDisplay.from_predictions(y, y, y[:3] + 1)
