"""Dask collections: their parts stay on the workers, and all rows count."""

import os
import signal
import time

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV

import skpou.dask
from skpou import AdditivePOURegressor, SparseGridClassifier, SparseGridRegressor
from tests.estimators import kinked

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

# Dask opens sockets and event loops that end after the test that they were opened in.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(distributed|dask|tornado|asyncio)"),
]

X, Y = kinked(120, 3)
QUERY = X[:30] * 0.9
LABELS = np.where(Y > 0.5, "high", "low")
FRAME = pd.DataFrame(X, columns=["a", "b", "c"], index=np.arange(len(X)) * 2)
GRID = SparseGridRegressor(level=2, batch_size=40)


@pytest.fixture(scope="module")
def threads():
    """A cluster of two workers in this process."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def processes():
    """A cluster of two workers that are processes of their own."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_arrays(threads):
    x, y = da.from_array(X, (50, 2)), da.from_array(np.stack([Y, -2 * Y], 1), (60, 1))
    weight = da.from_array(np.arange(120.0) % 3, 50)
    model = SparseGridRegressor(level=2)
    assert skpou.dask.fit(model, x, y, weight) is model
    alone = SparseGridRegressor(level=2).fit(X, y.compute(), np.arange(120) % 3)
    np.testing.assert_array_equal(model.predict(QUERY), alone.predict(QUERY))
    predicted = skpou.dask.predict(model, x)
    assert isinstance(predicted, da.Array)
    assert predicted.chunks == ((50, 50, 20), (2,))
    np.testing.assert_array_equal(predicted.compute(), alone.predict(X))
    expected = alone.score(X, y.compute(), np.arange(120) % 3)
    assert skpou.dask.score(model, x, y, weight) == pytest.approx(expected, rel=1e-12)


def test_frames_keep_index_and_divisions(threads):
    frame = dd.from_pandas(FRAME, npartitions=3)
    labels = dd.from_pandas(pd.Series(LABELS, index=FRAME.index), npartitions=3)
    model = skpou.dask.fit(SparseGridClassifier(level=2), frame, labels)
    alone = SparseGridClassifier(level=2).fit(FRAME, LABELS)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    predicted = skpou.dask.predict(model, frame)
    assert predicted.divisions == frame.divisions
    found = predicted.compute()
    assert list(found.index) == list(FRAME.index)
    assert list(found) == list(alone.predict(FRAME))
    assert skpou.dask.score(model, frame, labels) == pytest.approx(alone.score(FRAME, LABELS))


def test_grid_search_over_the_cluster(threads):
    search = GridSearchCV(SparseGridRegressor(), {"level": [1, 2]}, cv=2)
    with joblib.parallel_config("dask"):
        search.fit(X, Y)
    here = GridSearchCV(SparseGridRegressor(), {"level": [1, 2]}, cv=2).fit(X, Y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"]
    )


def test_wrong_collections_are_named(threads):
    x = da.from_array(X, (60, 3))
    with pytest.raises(TypeError, match=r"y must be a Dask array or data frame. Got ndarray"):
        skpou.dask.fit(GRID, x, Y)
    with pytest.raises(ValueError, match=r"as many parts each. Got \[2, 3\]"):
        skpou.dask.fit(GRID, x, dd.from_pandas(pd.Series(Y), npartitions=3))
    with pytest.raises(ValueError, match="NaN"):
        skpou.dask.fit(GRID, x, da.from_array(np.where(Y > 1, np.nan, Y), 60))


@pytest.mark.parametrize("estimator", [GRID, AdditivePOURegressor(), SparseGridClassifier()])
def test_plain_methods_name_the_way(estimator):
    x, y = da.from_array(X, (60, 3)), da.from_array(Y > 0.5, 60)
    for given in [(x, Y > 0.5), (X, y)]:
        with pytest.raises(TypeError, match=r"Dask collection.*skpou\.dask\.fit"):
            estimator.fit(*given)
        with pytest.raises(TypeError, match=r"Dask collection.*skpou\.dask\.fit"):
            estimator.partial_fit(*given)


def test_without_dask_it_says_so(monkeypatch):
    import builtins

    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name in ("dask", "distributed"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for call in (skpou.dask.fit, skpou.dask.predict):
        with pytest.raises(ImportError, match=r"pip install 'skpou\[dask\]'"):
            call(*[GRID, X, Y][: 2 + (call is skpou.dask.fit)])


@pytest.mark.slow
def test_workers_are_one_group(processes):
    rows = [da.from_array(part, chunks) for part, chunks in ((X, (30, 3)), (Y, 30))]
    rows = [part.persist() for part in rows]
    distributed.wait(rows)
    model = skpou.dask.fit(SparseGridRegressor(level=2, batch_size=40, bounds=[[-1, 1]] * 3), *rows)
    whole = SparseGridRegressor(level=2, bounds=[[-1, 1]] * 3).partial_fit(X, Y)
    np.testing.assert_allclose(model.predict(QUERY), whole.predict(QUERY), rtol=1e-10, atol=1e-10)
    gathered = skpou.dask.fit(SparseGridRegressor(level=2), *rows)
    alone = SparseGridRegressor(level=2).fit(X, Y)
    np.testing.assert_array_equal(gathered.predict(QUERY), alone.predict(QUERY))


class _Suicide(SparseGridRegressor):
    """Kills the second process of the group that fits it."""

    def fit(self, X, y, sample_weight=None):
        import torch.distributed

        if torch.distributed.get_rank():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y, sample_weight)


@pytest.mark.slow
def test_a_killed_worker_ends_the_fit(processes):
    rows = [da.from_array(part, chunks) for part, chunks in ((X, (60, 3)), (Y, 60))]
    rows = [part.persist() for part in rows]
    distributed.wait(rows)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"died during a fit|lost another one"):
        skpou.dask.fit(_Suicide(level=2), *rows)
    # Nobody waits for it as long as for one that is late.
    assert time.monotonic() - start < skpou.dask.PATIENCE
