"""The display of convergence: errors against parameters, stages and steps."""

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402
from sklearn.model_selection import KFold  # noqa: E402
from sklearn.neighbors import KNeighborsRegressor  # noqa: E402
from sklearn.tree import DecisionTreeRegressor  # noqa: E402

from skpou import LSGDRegressor, SparseGridRegressor  # noqa: E402
from skpou.inspection import ConvergenceDisplay  # noqa: E402
from tests.inspection.stubs import FittedStub  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(60, 1))
Y = np.sin(5 * X[:, 0])
X_NEW = RNG.uniform(size=(40, 1))
Y_NEW = np.sin(5 * X_NEW[:, 0])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_error_at_given_rows():
    levels = [1, 2, 3]
    display = ConvergenceDisplay.from_estimator(
        SparseGridRegressor(alpha=1e-6),
        X, Y, param_name="level", param_range=levels, X_test=X_NEW, y_test=Y_NEW,
    )  # fmt: skip
    values, errors = display.curves["given rows"]
    assert values == levels
    for level, error in zip(levels, errors):
        model = SparseGridRegressor(level, alpha=1e-6).fit(X, Y)
        assert error == pytest.approx(np.sqrt(np.mean((model.predict(X_NEW) - Y_NEW) ** 2)))
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), errors)
    assert display.ax_.get_xlabel() == "level"
    assert display.ax_.get_ylabel() == "root mean square error of y"
    assert [text.get_text() for text in display.legend_.get_texts()] == [
        "given rows",
        "fitted rows",
    ]


def test_error_at_left_out_rows():
    cv = KFold(3, shuffle=True, random_state=0)
    display = ConvergenceDisplay.from_estimator(
        KNeighborsRegressor(), X, Y, param_name="n_neighbors", param_range=[1, 5, 20], cv=cv
    )
    _, errors = display.curves["left-out rows"]
    assert errors.shape == (3, 3)
    for fold, (train, test) in enumerate(cv.split(X)):
        model = KNeighborsRegressor(20).fit(X[train], Y[train])
        expected = np.sqrt(np.mean((model.predict(X[test]) - Y[test]) ** 2))
        assert errors[2, fold] == pytest.approx(expected)
    middle = np.sqrt(np.mean(errors**2, axis=1))
    np.testing.assert_allclose(display.lines_[0].get_ydata(), middle)
    assert len(display.bands_) == 2
    band = display.bands_[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (errors.min(), errors.max())


def test_values_that_are_no_numbers_stand_side_by_side():
    display = ConvergenceDisplay.from_estimator(
        KNeighborsRegressor(), X, Y,
        param_name="weights", param_range=["uniform", "distance"], X_test=X_NEW, y_test=Y_NEW,
    )  # fmt: skip
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [0, 1])
    labels = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert labels == ["uniform", "distance"]


def test_errors_of_stages():
    class Halving(FittedStub):
        n_features_in_ = 1

        def staged_predict(self, X):
            for k in range(1, 5):
                yield np.sin(5 * X) + 2.0**-k  # (n, 1)

    display = ConvergenceDisplay.from_estimator(Halving(), X, Y, units={"y": "mm"})
    values, errors = display.curves["given rows"]
    np.testing.assert_array_equal(values, [1, 2, 3, 4])
    np.testing.assert_allclose(errors, [0.5, 0.25, 0.125, 0.0625])
    assert display.legend_ is None
    assert display.ax_.get_ylabel() == "root mean square error of y (mm)"
    assert (display.ax_.get_xlabel(), display.ax_.get_xscale()) == ("stage", "linear")


@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_loss_curves():
    models = [
        LSGDRegressor((4,), solver=solver, max_iter=20, tol=0).fit(X, Y)
        for solver in ("varpro", "lsgd")
    ]
    display = ConvergenceDisplay.from_loss_curves(models, names=["varpro", "lsgd"])
    for line, model in zip(display.lines_, models):
        np.testing.assert_array_equal(line.get_ydata(), model.loss_curve_)
        np.testing.assert_array_equal(line.get_xdata(), 1 + np.arange(len(model.loss_curve_)))
    assert display.ax_.get_yscale() == "log"
    names = ConvergenceDisplay.from_loss_curves(models).curves
    assert list(names) == ["LSGDRegressor 1", "LSGDRegressor 2"]
    assert len({line.get_linestyle() for line in display.lines_}) == 2


def test_losses_below_zero_are_not_logarithmic():
    display = ConvergenceDisplay({"loss": ([1, 2, 3], [-10.0, -100.0, -120.0])}).plot()
    assert display.ax_.get_yscale() == "linear"
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), [-10, -100, -120])


def test_given_axes():
    figure, ax = plt.subplots()
    display = ConvergenceDisplay({"e": ([1, 2], [1.0, 0.5])}).plot(ax=ax, color="red")
    assert (display.ax_, display.figure_) == (ax, figure)
    assert display.lines_[0].get_color() == "red"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"param_name": "max_depth"},
            "param_name and param_range go together. Got only param_name",
        ),
        ({"param_range": [1]}, "Got only param_range"),
        ({"X_test": X}, "X_test and y_test go together. Got only X_test"),
        (
            {"param_name": "depth", "param_range": [1]},
            "DecisionTreeRegressor has no parameter 'dep",
        ),
    ],
)
def test_bad_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        ConvergenceDisplay.from_estimator(DecisionTreeRegressor(), X, Y, **parameters)


def test_estimators_without_curves_or_stages():
    line = LinearRegression().fit(X, Y)
    with pytest.raises(TypeError, match="LinearRegression has no staged_predict"):
        ConvergenceDisplay.from_estimator(line, X, Y)
    with pytest.raises(TypeError, match="LinearRegression has no loss_curve_"):
        ConvergenceDisplay.from_loss_curves(line)
    with pytest.raises(NotFittedError):
        ConvergenceDisplay.from_loss_curves(LSGDRegressor())
    model = LSGDRegressor((2,), max_iter=2, tol=1).fit(X, Y)
    with pytest.raises(ValueError, match="names must be 2 different ones"):
        ConvergenceDisplay.from_loss_curves([model, model], names=["a", "a"])
