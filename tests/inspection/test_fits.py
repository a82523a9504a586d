"""The display of a fit: mean, bars, data and residuals."""

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import BayesianRidge, LinearRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

from skpou import SparseGridRegressor  # noqa: E402
from skpou.inspection import FitDisplay  # noqa: E402

RNG = np.random.default_rng(0)
X_LINE = RNG.uniform(size=(40, 1))
X_PLANE = RNG.uniform(size=(60, 2))
X_SPACE = RNG.uniform(size=(80, 3))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Plane:
    """Sum of the columns, with a standard deviation of half the first; outputs differ by 10."""

    def __init__(self, n_features, n_outputs=None):
        self.n_features_in_, self.n_outputs = n_features, n_outputs

    def predict(self, X, return_std=False):
        mean, std = X.sum(axis=1), X[:, 0] / 2
        if self.n_outputs is not None:
            shift = 10.0 * np.arange(self.n_outputs)
            mean, std = mean[:, None] + shift, np.repeat(std[:, None], self.n_outputs, 1)
        return (mean, std) if return_std else mean


def test_a_curve_with_its_band_and_residuals_below():
    left = 0.1 * np.cos(30 * X_LINE[:, 0])
    y = X_LINE[:, 0] + left
    display = FitDisplay.from_estimator(Plane(1), X_LINE, y, grid_resolution=11)
    x = np.linspace(X_LINE.min(), X_LINE.max(), 11)
    np.testing.assert_allclose(display.line_.get_data(), [x, x])
    vertices = display.band_.get_paths()[0].vertices
    assert vertices[:, 1].max() == pytest.approx(2 * x[-1])
    assert vertices[:, 1].min() == pytest.approx(0)
    np.testing.assert_array_equal(display.scatter_.get_offsets(), np.c_[X_LINE, y])
    (dots,) = display.residuals_
    np.testing.assert_allclose(dots.get_offsets(), np.c_[X_LINE, left], atol=1e-15)
    within = np.mean(np.abs(left) <= X_LINE[:, 0])
    expected = f"rms {np.sqrt(np.mean(left**2)):.2g}; {within:.0%} within 2 std"
    assert display.text_.get_text() == expected
    upper, lower = display.axes_
    assert upper.get_xlim() == lower.get_xlim()
    assert (upper.get_ylabel(), lower.get_xlabel()) == ("y", "feature 0")


def test_other_columns_are_taken_out_of_the_data():
    left = 0.1 * np.cos(30 * X_SPACE[:, 0])
    display = FitDisplay.from_estimator(Plane(3), X_SPACE, X_SPACE.sum(1) + left, features=1)
    rest = np.median(X_SPACE[:, 0]) + np.median(X_SPACE[:, 2])
    np.testing.assert_allclose(display.y, X_SPACE[:, 1] + rest + left)
    np.testing.assert_allclose(display.residuals, left, atol=1e-14)
    np.testing.assert_allclose(display.residual_std, X_SPACE[:, 0] / 2)
    assert display.at_medians
    np.testing.assert_allclose(display.mean, display.xx0 + rest)


def test_maps_of_mean_and_bars_and_residuals_as_triangles():
    left = 0.1 * np.cos(30 * X_PLANE[:, 0])
    display = FitDisplay.from_estimator(Plane(2), X_PLANE, X_PLANE.sum(1) + left)
    assert display.mean.shape == (100, 100)
    np.testing.assert_allclose(display.mean, display.xx0 + display.xx1)
    np.testing.assert_allclose(display.std_surface_.get_array(), display.xx0 / 2)
    above, below = display.residuals_
    np.testing.assert_array_equal(above.get_offsets(), X_PLANE[left > 0])
    np.testing.assert_array_equal(below.get_offsets(), X_PLANE[left < 0])
    # Areas are proportional to what is left.
    np.testing.assert_allclose(
        above.get_sizes() / left[left > 0], above.get_sizes()[0] / left[left > 0][0]
    )
    assert display.scatter_.get_clim() == display.surface_.get_clim()
    assert display.axes_[0].get_xlim() == display.axes_[2].get_xlim()


def test_an_estimator_without_bars_has_none():
    y = X_LINE[:, 0]
    display = FitDisplay.from_estimator(LinearRegression().fit(X_LINE, y), X_LINE, y)
    assert display.std is display.band_ is None
    assert display.text_.get_text().startswith("rms")
    assert "std" not in display.text_.get_text()
    display = FitDisplay.from_estimator(Plane(2), X_PLANE, X_PLANE[:, 0], return_std=False)
    assert len(display.axes_) == 2
    assert display.std_surface_ is None


def test_names_units_and_targets():
    X = pd.DataFrame(X_PLANE, columns=["voltage", "width"])
    y = pd.DataFrame({"current": X_PLANE[:, 0], "charge": X_PLANE.sum(1) + 10})
    stub = Plane(2, n_outputs=2)
    stub.feature_names_in_ = np.array(X.columns, dtype=object)
    predict = stub.predict
    stub.predict = lambda X, return_std=False: predict(X.to_numpy(), return_std)
    units = {"voltage": "V", "charge": "fC"}
    display = FitDisplay.from_estimator(stub, X, y, target=1, units=units)
    np.testing.assert_allclose(display.residuals, 0, atol=1e-14)
    first = display.axes_[0]
    assert (first.get_xlabel(), first.get_ylabel()) == ("voltage (V)", "width")
    assert display.surface_.colorbar.ax.get_ylabel() == "charge (fC)"
    display = FitDisplay.from_estimator(stub, X, y, target=1, features="width", units=units)
    assert display.axes_[0].get_ylabel() == "charge (fC)"


def test_an_own_estimator():
    y = np.sin(4 * X_LINE[:, 0])
    model = SparseGridRegressor().fit(X_LINE, y)
    display = FitDisplay.from_estimator(model, X_LINE, y)
    mean, std = model.predict(display.xx0[:, None], return_std=True)
    np.testing.assert_array_equal(display.mean, mean)
    np.testing.assert_array_equal(display.std, std)


def test_axes_are_divided_or_taken():
    y = X_LINE[:, 0]
    figure, (left, right) = plt.subplots(1, 2)
    display = FitDisplay.from_estimator(Plane(1), X_LINE, y, ax=right)
    assert display.figure_ is figure
    assert not right.axison
    assert left.axison
    _, axes = plt.subplots(2, 1)
    assert list(display.plot(ax=axes).axes_) == list(axes)
    with pytest.raises(ValueError, match="ax must hold 2 axes, one a panel"):
        display.plot(ax=plt.subplots(3, 1)[1])
    with pytest.raises(ValueError, match="grid of subplots, or hold 2"):
        display.plot(ax=plt.figure().add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"features": 3}, "3 is neither an index below 2"),
        ({"target": 1}, "target=1 is no output of y"),
        ({"grid_resolution": 1}, "grid_resolution must be at least 2, got 1"),
        ({"units": {"volt": "V"}}, "units has 'volt'"),
        ({"y": np.zeros(3)}, "inconsistent numbers"),
        ({"y": np.full(60, np.nan)}, "y contains NaN"),
        ({"X": X_SPACE}, "X has 3 features, Plane was fitted on 2"),
    ],
)
def test_bad_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        FitDisplay.from_estimator(Plane(2), **{"X": X_PLANE, "y": X_PLANE[:, 0]} | parameters)


def test_unfitted_and_many_columns():
    with pytest.raises(NotFittedError):
        FitDisplay.from_estimator(BayesianRidge(), X_LINE, X_LINE[:, 0])
    with pytest.raises(ValueError, match="3 features and a figure shows one or two"):
        FitDisplay.from_estimator(Plane(3), X_SPACE, X_SPACE[:, 0])


def test_a_pipeline_hands_its_bars_on():
    y = X_LINE[:, 0] + 0.1 * np.cos(30 * X_LINE[:, 0])
    model = make_pipeline(BayesianRidge()).fit(X_LINE, y)
    display = FitDisplay.from_estimator(model, X_LINE, y, return_std=True)
    assert display.std is not None


def test_predictions_without_an_estimator():
    x = X_LINE[:, 0]
    mean, std = 2 * x, 0.1 + x
    y = mean + 0.2 * np.cos(30 * x)
    display = FitDisplay.from_predictions(x, y, mean, std, xlabel="t")
    np.testing.assert_array_equal(display.line_.get_data(), [np.sort(x), np.sort(mean)])
    np.testing.assert_allclose(
        display.residuals_[0].get_offsets()[:, 1], (y - mean)[np.argsort(x)], atol=1e-15
    )
    assert display.band_ is not None
    assert FitDisplay.from_predictions(x, y, mean).band_ is None
    with pytest.raises(ValueError, match="y_std must be at least 0"):
        FitDisplay.from_predictions(x, y, mean, -std)
    with pytest.raises(ValueError, match="x must have one dimension"):
        FitDisplay.from_predictions(X_LINE, y, mean)
