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
    with pytest.raises(ValueError, match="feature=1"):
        StageDisplay.from_estimator(model, X, targets, feature=1)
    with pytest.raises(ValueError, match="target=2"):
        StageDisplay.from_estimator(model, X, targets, target=2)
