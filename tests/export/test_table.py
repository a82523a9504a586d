import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

from skpou import AdditivePOURegressor, HierarchicalPOURegressor, SparseGridClassifier
from skpou.export import table, to_table
from tests.estimators import ONE_OF_EACH, QUICK, slow_beyond
from tests.estimators import fitted as shared
from tests.export.exported import fitted

GRID = [np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 3)]


@slow_beyond(QUICK, ONE_OF_EACH)
def test_entries_are_predictions(name, monkeypatch):
    model = shared(name)
    monkeypatch.setattr(table, "BLOCK", 4)  # several blocks
    values = to_table(model, GRID)
    assert values.shape == (5, 3)
    for i, j in [(0, 0), (4, 1), (2, 2)]:
        expected = model.predict([[GRID[0][i], GRID[1][j]]])[0]
        np.testing.assert_allclose(values[i, j], expected, rtol=1e-5, atol=1e-7)
    interpolant = RegularGridInterpolator(GRID, values)
    np.testing.assert_allclose(interpolant([[0.5, -0.5]])[0], values[3, 0], rtol=1e-12)


def test_several_outputs():
    model, _ = fitted("two outputs")
    grid = [[2.0, 3.0], [-1e-3, 0.0, 1e-3]]
    values = to_table(model, grid)
    assert values.shape == (2, 3, 2)
    # Products of matrices of other sizes are rounded in another order.
    np.testing.assert_allclose(values[1, 2], model.predict([[3.0, 1e-3]])[0], rtol=1e-13)


def test_named_columns():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame({"a": np.linspace(0, 1, 50)})
    model = HierarchicalPOURegressor().fit(X, 2 * X["a"])
    np.testing.assert_allclose(to_table(model, [[0.0, 0.5]]), [0, 1], atol=1e-12)
    assert list(model.feature_names_in_) == ["a"]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([[0, 1]], "grid must have 2 axes, one a column of X. Got 1"),
        ([[0, 1], []], r"grid\[1\] must be a 1-D array, not empty. Got shape \(0,\)"),
        ([[0, 1], [[0]]], r"grid\[1\] must be a 1-D array"),
        ([[0, 1], [1, 0]], r"grid\[1\] must rise"),
        ([[0, np.nan], [0, 1]], r"grid\[0\] holds values that are not finite"),
        ([["a"], [0, 1]], "grid must hold an array of numbers"),
        (3, "grid must hold an array of numbers"),
    ],
)
def test_bad_grids(grid, message):
    with pytest.raises(ValueError, match=message):
        to_table(shared("grid"), grid)


def test_bad_models():
    with pytest.raises(NotFittedError):
        to_table(AdditivePOURegressor(), GRID)
    for other in (LinearRegression(), SparseGridClassifier()):
        with pytest.raises(TypeError, match=f"Got {type(other).__name__}"):
            to_table(other, GRID)
