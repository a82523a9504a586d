"""Input and surroundings that once led a fit astray, each with what is right."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch

from skpou import (
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    SparseGridClassifier,
    SparseGridRegressor,
)
from skpou.base.compat import LEAST_WEIGHT, check_weights
from skpou.multi_stage.families.additive import Additive
from skpou.search import RoughSplines, Sines
from tests.estimators import (
    ONE_OF_EACH,
    QUICK,
    each_class,
    each_class_with_a_model,
    each_quick_class,
    each_quick_class_with_a_model,
    fitted,
    make,
    same_bits,
    stepped,
)
from tests.examples import slow

X, Y = stepped()
N = len(X)


# A family that fails


def collinear(seed):
    """Rows of three columns, the second of them the first once more."""
    rng = np.random.default_rng(seed)
    points = rng.random((int(rng.integers(20, 45)), 3))
    points[:, 1] = points[:, 0]
    noise = 0.05 * rng.standard_normal(len(points))
    return points, np.sin(9 * points[:, 0]) + (points[:, 2] > 0.5) + noise


@pytest.mark.parametrize("seed", [0, *slow(3)])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_column_given_twice(seed, factor):
    points, y = collinear(seed)
    points[:, 1] *= factor
    model = MultiStageRegressor().fit(points, y)
    assert model.score(points, y) > 0.3
    assert np.isfinite(model.predict(points, return_std=True)).all()


def test_a_family_that_fails_leaves_the_others(monkeypatch):
    def fail(self, *args, **kwargs):
        raise torch.linalg.LinAlgError("the matrix is singular")

    for family in (Sines, RoughSplines, Additive):
        monkeypatch.setattr(family, "fit", fail)
    assert MultiStageRegressor().fit(X, Y).score(X, Y) > 0.5


# Weights


@each_quick_class
def test_weights_of_a_huge_ratio(name):
    weight = np.logspace(-12, 12, N)
    model = make(name).fit(X, Y, sample_weight=weight)
    assert np.isfinite(model.predict(X, return_std=True)).all()
    bounded = np.maximum(weight, LEAST_WEIGHT * weight.max())
    expected = make(name).fit(X, Y, sample_weight=bounded).predict(X)
    assert same_bits(model.predict(X), expected)


def test_weights_are_bounded_relative_to_the_largest():
    found = check_weights(np.array([1e-20, 0.0, 1e10, 1.0]), np.zeros((4, 1)), np.float64)
    np.testing.assert_array_equal(found, [1e-2, 0.0, 1e10, 1.0])


# Containers


@each_class
def test_one_row_of_a_reversed_array(name):
    model = fitted(name)
    row = X[::-1, ::-1][:1]
    assert same_bits(model.predict(row), model.predict(row.copy()))
    assert make(name).fit(row, Y[::-1][:1]).predict(row) == pytest.approx(Y[-1])


def test_columns_at_fault_are_named():
    model = make("grid")
    numbers = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(ValueError, match=r"Column 'b': (?s:.)*contains NaN"):
        model.fit(numbers.assign(b=np.nan), Y)
    with pytest.raises(ValueError, match=r"Column 'b': (?s:.)*contains infinity"):
        model.fit(numbers.assign(b=np.inf), Y)
    with pytest.raises(ValueError, match="Column 'b': could not convert string"):
        model.fit(numbers.assign(b="u"), Y)
    with pytest.raises(ValueError, match=r"Column 'a': (?s:.)*contains NaN"):
        model.fit(numbers, Y).predict(numbers.assign(a=np.nan))


# Single precision


@pytest.mark.parametrize("density", ["gaussian", "mixture"])
def test_single_precision_with_every_density(density):
    model = SparseGridRegressor(density=density, dtype="float32").fit(X, Y)
    assert model.predict(X).dtype == np.float32
    assert model.score(X, Y) > 0.8


@pytest.mark.parametrize(
    ("size", "offset", "name"),
    [
        *((1e-200, 1e-190, name) for name in ONE_OF_EACH),
        *((*units, name) for units in [(1e-50, 0.0), (1.0, 1e12)] for name in QUICK),
    ],
)
def test_targets_that_single_precision_does_not_hold(size, offset, name):
    model = make(name, dtype="float32").fit(X, size * Y + offset)
    mean, std = model.predict(X, return_std=True)
    assert mean.dtype == std.dtype == np.float64
    assert np.sqrt(np.mean(((mean - offset) / size - Y) ** 2)) < 0.5 * Y.std()
    assert (std > 0).all()


@each_quick_class
@pytest.mark.parametrize(("dtype", "far"), [("float32", 1e39), ("float64", 1e308)])
def test_queries_beyond_all_numbers(name, dtype, far):
    model = make(name, dtype=dtype).fit(X / 4, Y)
    with pytest.raises(ValueError, match=rf"Column 1 of X goes up to .* overflows in {dtype}"):
        model.predict([[0.0, far]])


# Memory and saved models


@each_quick_class_with_a_model
@pytest.mark.parametrize(
    "error", [MemoryError("no"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(name, error, monkeypatch):
    model = fitted(name)

    def fail(*args):
        raise error

    monkeypatch.setattr(type(model), "_prepare", fail)
    lower = re.escape(model._size_parameters)
    with pytest.raises(MemoryError, match=rf"Fit fewer rows at a time, lower {lower}"):
        model.fit(X, Y)
    assert same_bits(model.predict(X), fitted(name).predict(X))


def other_errors_pass():
    raise RuntimeError("something else")


@each_quick_class_with_a_model
def test_other_errors_stay_what_they_are(name, monkeypatch):
    model = make(name)
    monkeypatch.setattr(type(model), "_prepare", lambda *args: other_errors_pass())
    with pytest.raises(RuntimeError, match=r"^something else$"):
        model.fit(X, Y)


def arrays_of(state, path=()):
    """Paths of all arrays of floats in a state."""
    if isinstance(state, np.ndarray):
        return [path] if state.dtype.kind == "f" and state.size else []
    if not isinstance(state, dict | list | tuple):
        return []
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return [found for key, value in items for found in arrays_of(value, (*path, key))]


def changed(state, path, change):
    """A copy of the state with one array changed."""
    state = pickle.loads(pickle.dumps(state))
    part = state
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = change(part[path[-1]].copy())
    return state


def with_nan(array):
    array.reshape(-1)[-1] = np.nan
    return array


@each_class_with_a_model
def test_damaged_pickles_are_refused(name):
    model = fitted(name)
    state = model.__getstate__()
    key = "mixture_" if "mixture_" in state else "model_"
    paths = arrays_of(state[key])
    assert len(paths) >= 2
    for path in paths:
        with pytest.raises(ValueError, match=f"saved {type(model).__name__} is damaged.*finite"):
            make(name).__setstate__(changed(state, (key, *path), with_nan))
    coefficients = next(path for path in paths if path[-1] == "coef")
    with pytest.raises(ValueError, match=f"saved {type(model).__name__} is damaged"):
        make(name).__setstate__(changed(state, (key, *coefficients), lambda array: array[:-1]))
    make(name).__setstate__(state)
    assert same_bits(model.predict(X), fitted(name).predict(X))


def test_damaged_classifiers_are_refused():
    model = SparseGridClassifier(level=2).fit(X, Y > 0)
    state = model.__getstate__()
    for change in (with_nan, lambda array: array[:-1]):
        with pytest.raises(ValueError, match="saved SparseGridClassifier is damaged"):
            SparseGridClassifier().__setstate__(changed(state, ("model_", "coef"), change))


# Grids of far more points than rows


def test_densities_on_a_grid_of_thousands_of_points_are_refused():
    points = np.random.default_rng(0).random((19, 5))
    model = SparseGridClassifier(boundary="full")
    with pytest.raises(ValueError, match="boundary='full' in 5 dimensions has 7763 grid points"):
        model.fit(points, points[:, 0] > 0.5)
    assert model.set_params(method="one_hot").fit(points, points[:, 0] > 0.5).level_ == 1


def test_densities_behind_an_encoder_are_refused_on_such_a_grid():
    points = np.random.default_rng(0).random((19, 5))
    model = NeuralSparseGridClassifier(n_components=4, level=3, boundary="full", method="density")
    with pytest.raises(ValueError, match="6065 grid points, more than 3000, whose matrices method"):
        model.fit(points, points[:, 0] > 0.5)
    assert model.set_params(level=1, max_iter=1).fit(points, points[:, 0] > 0.5).level_ == 1


def test_slopes_beyond_single_precision_come_in_double():
    model = make("grid", dtype="float32").fit(np.column_stack([1e-42 * X[:, 0], X[:, 1]]), Y)
    gradient = model.predict_gradient(np.column_stack([1e-42 * X[:3, 0], X[:3, 1]]))
    assert gradient.dtype == np.float64
    assert np.isfinite(gradient).all()
