"""Benchmarks whose scripts nothing else runs: they pass without a card, at small sizes."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__
from benchmarks.scale import gpu
from benchmarks.trask_2022 import rates


@pytest.fixture(scope="module")
def table():
    # As many threads as other tests have: more get in each other's way.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "N_CORES", 1)
        return gpu.compare((200, 300), ("cpu",), side=64)


@pytest.mark.slow
def test_every_task_of_the_card_is_measured_on_the_cores(table):
    measured = {(row["task"], row["rows"]) for row in table.rows[1:]}
    assert measured == {(name, rows) for name in gpu.TASKS for rows in ("2e2", "3e2")}
    for row in table.rows[1:]:
        assert float(row["seconds"]) > 0 and math.isfinite(float(row["rows a second"]))
    assert float(table.rows[0]["Gflop/s"]) > 0


def test_what_would_take_too_long_or_too_much_is_left_out():
    task = gpu.Task(2, lambda X: lambda: X.sum(), 10, 0.0)
    assert gpu.measure(task, 100, "cpu", 1.0, [(10, 5.0)]) == "left out: time"
    assert gpu.measure(task._replace(numbers=10**15), 100, "cpu", 1.0, []) == "left out: memory"
    known = []
    assert gpu.measure(task, 100, "cpu", 1.0, known) > 0 and known[0][0] == 100


def test_figures_of_cores_alone_are_not_kept(monkeypatch):
    monkeypatch.setattr(gpu, "compare", lambda *args: gpu.harness.Table())
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.run(1, False).is_kept is False


@pytest.mark.parametrize("name", __main__.NAMES)
def test_every_benchmark_that_is_named_is_there(name):
    module = importlib.util.find_spec(__main__.module_of(name))
    assert module is not None
    source = Path(module.origin).read_text()
    assert "\nSECTIONS = " in source or "\ndef run(seeds, quick" in source


def test_a_wide_tail_counts_by_its_mass():
    """An even piece has its own length; one percent far away adds little."""
    shares = np.zeros((5001, 2))
    shares[:2501, 0] = 1.0
    shares[2501:, 1] = 1.0

    class Model:
        def partition_proba(self, X):
            return shares

    assert rates.weighed_diameter(Model()) == pytest.approx(0.5, rel=1e-3)
    shares[-50:, :] = [0.02, 0.98]
    assert rates.diameter(Model()) > 0.99
    assert rates.weighed_diameter(Model()) == pytest.approx(0.5, rel=0.02)
