"""Fits of several processes, as torchrun starts them: each has some of the rows."""

import datetime
import multiprocessing
import os
import pickle
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist

from skpou import (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    SparseGridClassifier,
    SparseGridRegressor,
    TransformedRegressor,
)
from tests.estimators import kinked
from tests.examples import slow

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not dist.is_gloo_available(), reason="needs fork and gloo"
)

X, Y = kinked(240, 3)
X[:, 2] *= 5.0
QUERY = X[:40] * 0.9
TERMS = [(0,), (1,), (2,), (0, 1)]
SUMMED = {
    "grid": SparseGridRegressor(level=3, batch_size=50),
    "grid of a given box": SparseGridRegressor(
        level=3, batch_size=50, alpha=0.01, bounds=[[-1, 1], [-1.5, 1], [-6, 6]]
    ),
    "terms": AdditivePOURegressor(terms=TERMS, n_splines=6, density="gaussian", batch_size=50),
    "em": HierarchicalPOURegressor(
        (2, 2), 1, gate="linear", init="box", solver="em", tol=1e-2, batch_size=50
    ),
}
SAMPLED = {
    "columns": LSGDRegressor(batch_size=50),
    "pieces": HierarchicalPOURegressor(2, 1, batch_size=50),
}
GATHERED = {
    "grid": SparseGridRegressor(level=2, n_refinements=1),
    "front door": AutoRegressor(["SparseGridRegressor"]),
    "em": HierarchicalPOURegressor(2, 1, gate="linear", init="box", solver="em", tol=1e-2),
}
#: One density: a law of the noise is told by one process alone.
POWERS = TransformedRegressor(SparseGridRegressor(level=1, density="gaussian"), "yeo-johnson")


def _run(work, rank, n, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=n,
        timeout=datetime.timedelta(seconds=60),
    )
    try:
        found = work(rank, n)
    except Exception as error:
        found = error
    with open(f"{folder}/{rank}", "wb") as file:
        pickle.dump(found, file)
    os._exit(0)


def together(work, n, folder):
    """What `work(rank, n)` returns, or raises, in each of n processes; None where it died."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_run, args=(work, k, n, folder)) for k in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    files = [folder / str(k) for k in range(n)]
    return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def part_of(rank, n):
    """Rows of one process: unequal parts, the first the smallest."""
    edges = [len(X) * k * (k + 1) // (n * (n + 1)) for k in range(n + 1)]
    return slice(edges[rank], edges[rank + 1])


def on_disk(folder):
    """The rows of X in a memory map."""
    np.save(folder / "rows.npy", X)
    return np.load(folder / "rows.npy", mmap_mode="r")


def moments(model):
    return np.stack(model.predict(QUERY, return_std=True))


@pytest.mark.parametrize("n", [2, *slow(3)])
def test_sums_are_those_of_one_process(n, tmp_path):
    def work(rank, n):
        rows = part_of(rank, n)
        return {k: moments(model.fit(X[rows], Y[rows])) for k, model in SUMMED.items()}

    found = together(work, n, tmp_path)
    rows = on_disk(tmp_path)
    for name, model in SUMMED.items():
        alone = moments(model.fit(rows, Y))
        for part in found:
            np.testing.assert_array_equal(part[name], found[0][name])
            np.testing.assert_allclose(part[name], alone, rtol=1e-10, atol=1e-10)


def test_what_a_sample_finds_is_that_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr("skpou.core.sample.MOST_ROWS", 100)
    y = Y + 0.1 * np.random.default_rng(1).standard_normal(len(Y))

    def work(rank, n):
        rows = part_of(rank, n)
        return {k: moments(model.fit(X[rows], y[rows])) for k, model in SAMPLED.items()}

    found = together(work, 2, tmp_path)
    rows = on_disk(tmp_path)
    for name, model in SAMPLED.items():
        np.testing.assert_array_equal(found[0][name], found[1][name])
        np.testing.assert_allclose(found[0][name], moments(model.fit(rows, y)), rtol=1e-8)


def test_rows_in_memory_are_gathered_and_classes_too(tmp_path):
    labels = np.where(Y > np.median(Y), "high", "low")
    labels[:10] = "first"  # A class that one process alone has.

    def work(rank, n):
        rows = part_of(rank, n)
        found = {k: moments(model.fit(X[rows], Y[rows])) for k, model in GATHERED.items()}
        streamed = SparseGridClassifier(2, batch_size=50).fit(X[rows], labels[rows])
        for k, model in {"classes": SparseGridClassifier(2), "streamed": streamed}.items():
            model = model if k == "streamed" else model.fit(X[rows], labels[rows])
            found[k] = model.predict_proba(QUERY)
        blocks = SparseGridRegressor(level=2, bounds=[[-6, 6]] * 3)
        for block in np.array_split(np.arange(len(X))[rows], 2):
            blocks.partial_fit(X[block], Y[block])
        powers = POWERS.fit(X[rows], np.exp(Y[rows]))
        return {**found, "blocks": moments(blocks), "powers": moments(powers)}

    found = together(work, 2, tmp_path)
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])
    for name, model in GATHERED.items():
        np.testing.assert_array_equal(found[0][name], moments(model.fit(X, Y)))
    powers = moments(POWERS.fit(X, np.exp(Y)))
    np.testing.assert_allclose(found[0]["powers"], powers, rtol=1e-10)
    classes = SparseGridClassifier(2).fit(X, labels).predict_proba(QUERY)
    np.testing.assert_array_equal(found[0]["classes"], classes)
    np.testing.assert_allclose(found[0]["streamed"], classes, atol=1e-10)
    whole = SparseGridRegressor(level=2, bounds=[[-6, 6]] * 3).partial_fit(X, Y)
    np.testing.assert_allclose(found[0]["blocks"], moments(whole), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch_size", [None, 50])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"X": X[:, :2]}, "number of columns"),
        ({"X": X.astype(np.float32)}, "dtype of X"),
        ({"y": np.stack([Y, Y], 1)}, "shape of a target"),
        ({"level": 2}, "parameters"),
        ({"random_state": np.random.RandomState(1)}, "state of random_state"),
    ],
)
def test_processes_must_bring_alike(other, words, batch_size, tmp_path):
    def work(rank, n):
        same = {"X": X, "y": Y, "level": 1, "random_state": np.random.RandomState(0)}
        given = {**same, **(other if rank else {})}
        model = SparseGridRegressor(
            level=given.pop("level"), batch_size=batch_size, random_state=given.pop("random_state")
        )
        model.fit(**given)

    for error in together(work, 2, tmp_path):
        assert isinstance(error, ValueError)
        assert words in str(error)


def test_a_fault_of_one_ends_all(tmp_path):
    def work(rank, n):
        y = Y.copy()
        y[-1] = np.nan if rank else 0.0
        SparseGridRegressor(level=1, batch_size=50).fit(X, y)

    first, second = together(work, 2, tmp_path)
    assert isinstance(second, ValueError)
    assert isinstance(first, RuntimeError)
    assert "Process 1 of 2 refused its rows. ValueError" in str(first)
    assert "NaN" in str(first)


def test_a_dead_process_ends_all(tmp_path):
    def work(rank, n):
        if rank:
            os._exit(1)
        start = time.monotonic()
        try:
            SparseGridRegressor(level=1).fit(X, Y)
        except RuntimeError as error:
            return str(error), time.monotonic() - start

    (words, seconds), nothing = together(work, 2, tmp_path)
    assert nothing is None
    assert words.startswith("Process 0 of 2 lost another one during a fit")
    assert seconds < 10


def test_a_group_of_one_changes_nothing(tmp_path):
    def work(rank, n):
        torch.set_num_threads(1)
        return moments(SparseGridRegressor(level=2).fit(X, Y))

    (found,) = together(work, 1, tmp_path)
    np.testing.assert_array_equal(found, moments(SparseGridRegressor(level=2).fit(X, Y)))
