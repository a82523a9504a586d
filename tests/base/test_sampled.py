"""Columns and pieces of a sample, coefficients of all rows that are read block by block."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone

from skpou import HierarchicalPOURegressor, LSGDRegressor, MultiStageRegressor
from tests.examples import slow

N, SAMPLE, NOISE = 3000, 250, 0.1
MODELS = {
    "units": LSGDRegressor(),
    "stages": MultiStageRegressor(n_stages=2),
    "pieces": HierarchicalPOURegressor(2, 1),
}


def truth(X):
    return np.abs(X[:, 0] - 0.5) + 0.5 * X[:, 1]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Points in a memory map, and noisy targets."""
    rng = np.random.default_rng(3)
    X = np.memmap(tmp_path_factory.mktemp("rows") / "X", float, "w+", shape=(N, 2))
    X[:] = rng.random((N, 2))
    return X, truth(X) + NOISE * rng.standard_normal(N)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr("skpou.core.sample.MOST_ROWS", SAMPLE)


def in_blocks(model, X, y, size, weight=None):
    return clone(model).set_params(batch_size=size).fit(X, y, weight)


@pytest.mark.parametrize("name", ["pieces", *slow("units", "stages")])
def test_all_rows_tell_coefficients_and_noise(name, rows):
    X, y = rows
    model = in_blocks(MODELS[name], X, y, 700)
    query = np.random.default_rng(4).random((2000, 2))
    again = in_blocks(MODELS[name], X, y, 2999)
    mean, std = model.predict(query, return_std=True)
    np.testing.assert_allclose(again.predict(query, return_std=True), (mean, std), rtol=1e-7)
    drawn = np.random.default_rng(5).permutation(N)[:SAMPLE]
    of_some = clone(MODELS[name]).fit(np.asarray(X)[drawn], y[drawn])
    errors = [
        np.sqrt(np.mean((predicted - truth(query)) ** 2))
        for predicted in (mean, of_some.predict(query))
    ]
    assert errors[0] < 0.8 * errors[1]
    np.testing.assert_allclose(model.noise_, NOISE, rtol=0.1)
    assert np.mean(np.abs(mean - truth(query)) < 3 * std) > 0.9
    assert not len(model.outliers_)


@pytest.mark.parametrize("name", ["pieces", *slow("units", "stages")])
def test_as_few_rows_as_a_sample_has_are_fitted_as_in_memory(name, rows):
    X, y = rows[0][:200], rows[1][:200]
    weight = np.random.default_rng(1).integers(0, 3, 200)
    here = in_blocks(MODELS[name], X, y, 64, weight)
    there = clone(MODELS[name]).fit(np.asarray(X), y, weight)
    query = np.random.default_rng(4).random((100, 2))
    np.testing.assert_allclose(here.predict(query), there.predict(query), rtol=1e-9)


def test_the_range_is_that_of_all_rows(rows):
    """A sample may lack the largest target; predictions are held by that of all rows."""
    X, y = rows
    model = in_blocks(MODELS["units"], X, y, 1000)
    scaled = (y - model.scaling_["mean"]) / model.scaling_["scale"]
    np.testing.assert_allclose(model._restraint["low"], scaled.min(), rtol=1e-12)
    np.testing.assert_allclose(model._restraint["high"], scaled.max(), rtol=1e-12)


def test_networks_of_given_sizes_and_soft_gates_need_all_rows(rows):
    X, y = rows[0][:300], rows[1][:300]
    for model in (LSGDRegressor((4,), max_iter=3), HierarchicalPOURegressor(2, 1, solver="varpro")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here = in_blocks(model, X, y, 50)
            there = in_blocks(model, np.asarray(X), y, 50)
        np.testing.assert_array_equal(here.predict(X[:20]), there.predict(X[:20]))


def test_bad_rows_in_a_later_block_are_refused(rows):
    X, y = rows
    y = np.where(np.arange(N) == N - 1, np.nan, y)
    with pytest.raises(ValueError, match="NaN"):
        in_blocks(MODELS["units"], X, y, 500)
