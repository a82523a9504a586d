"""The display of stages: residuals over their rms, one panel each."""

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402

from skpou import MultiStageRegressor  # noqa: E402
from skpou.inspection import StageDisplay  # noqa: E402
from tests.inspection.stubs import FittedStub  # noqa: E402

X = np.linspace(-1, 1, 60)[::-1, None]
Y = np.exp(X[:, 0])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    return MultiStageRegressor(hidden_layer_sizes=(10,), tol=1e-3).fit(X, np.stack([Y, Y**2], 1))


def test_panels_hold_scaled_residuals(model):
    targets = np.stack([Y, Y**2], 1)
    display = StageDisplay.from_estimator(model, X, targets, target=1, color="red")
    assert len(display.axes_) == len(display.lines_) == model.n_stages_
    for line, predicted in zip(display.lines_, model.staged_predict(X), strict=True):
        residual = targets[:, 1] - predicted[:, 1]
        np.testing.assert_array_equal(line.get_xdata(), X[::-1, 0])
        np.testing.assert_allclose(
            line.get_ydata(), residual[::-1] / np.sqrt(np.mean(residual**2)), rtol=1e-9
        )
        assert line.get_color() == "red"


def test_given_axes(model):
    figure, axes = plt.subplots(1, model.n_stages_ + 1)
    targets = np.stack([Y, Y**2], 1)
    with pytest.raises(ValueError, match="ax must hold"):
        StageDisplay.from_estimator(model, X, targets, ax=axes)
    display = StageDisplay.from_estimator(model, X, targets, ax=axes[:-1])
    assert display.figure_ is figure


def test_bad_arguments(model):
    targets = np.stack([Y, Y**2], 1)
    with pytest.raises(NotFittedError):
        StageDisplay.from_estimator(MultiStageRegressor(), X, Y)
    with pytest.raises(TypeError, match="LinearRegression has no staged_predict"):
        StageDisplay.from_estimator(LinearRegression().fit(X, Y), X, Y)
    with pytest.raises(ValueError, match="1 is neither an index below 1"):
        StageDisplay.from_estimator(model, X, targets, feature=1)
    with pytest.raises(ValueError, match="target=2"):
        StageDisplay.from_estimator(model, X, targets, target=2)


class TwoStages(FittedStub):
    """Leaves a wave along the second of three columns after the second stage."""

    n_features_in_ = 3

    def staged_predict(self, X):
        yield 0 * X[:, 0]
        yield X[:, 0] + 1e-3 * np.sin(9 * X[:, 1])


def test_map_over_two_columns():
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    display = StageDisplay.from_estimator(
        TwoStages(), points, points[:, 0], feature=(2, 1), units={"feature 2": "m"}
    )
    assert len(display.scatters_) == 2
    assert display.lines_ is None
    left = -np.sin(9 * points[:, 1])
    for scatter, residual in zip(display.scatters_, (points[:, 0], left)):
        np.testing.assert_array_equal(scatter.get_offsets(), points[:, [2, 1]])
        expected = residual / np.sqrt(np.mean(residual**2))
        np.testing.assert_allclose(scatter.get_array(), expected, rtol=1e-9)
    assert display.axes_[0].get_xlabel() == "feature 2 (m)"
    assert display.axes_[0].get_ylabel() == "feature 1"
    assert display.colorbar_.ax.get_ylabel() == "residual / rms"


def test_two_columns_are_a_map_and_three_are_not():
    stub = TwoStages()
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    assert StageDisplay.from_estimator(stub, points, points[:, 0]).scatters_ is None
    stub.n_features_in_ = 2
    display = StageDisplay.from_estimator(stub, points[:, :2], points[:, 0])
    assert len(display.scatters_) == 2
