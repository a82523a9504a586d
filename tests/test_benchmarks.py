"""Benchmarks whose scripts nothing else runs: they pass without a card, at small sizes."""

import math

import pytest

from benchmarks.scale import gpu


@pytest.fixture(scope="module")
def table():
    # As many threads as other tests have: more get in each other's way.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "N_CORES", 1)
        return gpu.compare((200, 300), ("cpu",), side=64)


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
