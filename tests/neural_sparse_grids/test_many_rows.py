"""Rows on disk: an encoder of a sample or of steps block by block, coefficients of all rows."""

import numpy as np
import pytest
from sklearn.base import clone

from skpou import NeuralSparseGridClassifier, NeuralSparseGridRegressor
from tests.on_disk import OnDisk

N, SAMPLE, NOISE = 3000, 250, 0.2
READ = "skpou.neural_sparse_grids.estimator.ROWS_READ"
SMALL = {"hidden_layer_sizes": (6,), "level": 3, "max_iter": 15}
REGRESSORS = {
    "sample": NeuralSparseGridRegressor(**SMALL),
    "steps": NeuralSparseGridRegressor(**SMALL, coef_solver="gradient", batch_size=128),
}


def truth(X):
    return np.sin(3 * X[:, 0]) + 0.5 * X[:, 1]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    X = rng.random((N, 3))
    return X, truth(X) + NOISE * rng.standard_normal(N)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr("skpou.core.sample.MOST_ROWS", SAMPLE)
    monkeypatch.setattr(READ, 700)


@pytest.mark.parametrize("name", list(REGRESSORS))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_rows_tell_the_grid_and_the_noise(name, rows):
    X, y = OnDisk(rows[0]), OnDisk(rows[1])
    model = clone(REGRESSORS[name]).fit(X, y)
    assert X.most == y.most == 700
    drawn = np.random.default_rng(5).permutation(N)[:SAMPLE]
    of_some = clone(REGRESSORS[name]).fit(rows[0][drawn], rows[1][drawn])
    query = np.random.default_rng(4).random((2000, 3))
    mean, std = model.predict(query, return_std=True)
    errors = [np.std(found - truth(query)) for found in (mean, of_some.predict(query))]
    assert errors[0] < 0.8 * errors[1]
    np.testing.assert_allclose(model.noise_, NOISE, rtol=0.1)
    assert np.mean(np.abs(mean - truth(query)) < 2 * std) > 0.99  # std is that of a measurement


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_blocks_do_not_matter_where_a_sample_finds_the_encoder(rows, monkeypatch):
    X, y = rows
    found = []
    for size in (500, 2999):
        monkeypatch.setattr(READ, size)
        found.append(clone(REGRESSORS["sample"]).fit(OnDisk(X), y).predict(X[:50], return_std=True))
    np.testing.assert_allclose(*found, rtol=1e-8)


def test_few_rows_are_fitted_as_in_memory(rows):
    X, y = rows[0][:200], rows[1][:200]
    weight = np.random.default_rng(1).integers(1, 3, 200)
    here = clone(REGRESSORS["sample"]).fit(OnDisk(X), y, weight)
    there = clone(REGRESSORS["sample"]).fit(X, y, weight)
    np.testing.assert_allclose(here.predict(X), there.predict(X), rtol=1e-9)
    assert here.noise_ == pytest.approx(there.noise_, rel=1e-9)


@pytest.mark.slow
def test_classes_are_learnt_block_by_block(rows, monkeypatch):
    """Half of the sample calibrates: with 500 rows that costs little."""
    monkeypatch.setattr("skpou.core.sample.MOST_ROWS", 1000)
    X = rows[0]
    labels = np.array(["low", "middle", "high"])[np.searchsorted([0.6, 1.1], rows[1])]
    model = NeuralSparseGridClassifier((8,), level=3, batch_size=128, max_iter=10)
    on_disk, y = OnDisk(X), OnDisk(labels)
    shares = clone(model).fit(on_disk, y).predict_proba(X)
    assert on_disk.most == y.most == 700
    steps = clone(model).set_params(coef_solver="gradient")
    drawn = np.random.default_rng(5).permutation(N)[:SAMPLE]
    of_some = clone(steps).fit(X[drawn], labels[drawn]).predict_proba(X)
    in_memory = clone(steps).fit(X, labels).predict_proba(X)

    def loss(found):
        own = found[np.arange(N), np.searchsorted(np.unique(labels), labels)]
        return -np.log(own).mean()

    assert loss(shares) < loss(of_some)
    assert loss(shares) < 1.05 * loss(in_memory)
    again = clone(model).fit(OnDisk(X), labels)
    np.testing.assert_array_equal(again.predict_proba(X), shares)
    assert again.coef_solver_ == "gradient"


def test_a_class_that_a_sample_lacks(rows):
    X = rows[0]
    labels = (np.arange(N) == 17).astype(int)
    with np.errstate(all="raise"):
        model = NeuralSparseGridClassifier((4,), level=2, max_iter=2).fit(OnDisk(X), labels)
    np.testing.assert_array_equal(model.classes_, [0, 1])
    assert model.score(X, labels) > 0.99
