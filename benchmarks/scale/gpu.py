"""A graphics card beside two processor cores, in at most six minutes; without a card, the cores.

First the tests marked gpu, then the rate of a matrix product in float64, then every task at three
numbers of rows, the small ones of all tasks first. What would not be over in time, or does not fit
into memory, is left out and said to be.
"""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor
from skpou.additive.fit import AdditiveOptions
from skpou.additive.sums import columns_of_box
from skpou.core import Rows
from skpou.core.linalg import RowSums, row_blocks
from skpou.partitions.blends.soft_partitions import SoftOptions, fit_soft_partitions
from skpou.partitions.gates.tree import GateForm
from skpou.partitions.mixtures.em import EMOptions, fit_em
from skpou.sparse_grids import SparseGrid

SIZES, QUICK_SIZES = (10**5, 10**6, 10**7), (200, 1000)
#: Seconds of all, of the tests, and of one measurement on the cores, which the card does not need.
SECONDS, TEST_SECONDS, CORE_SECONDS = 330.0, 120.0, 25.0
#: Cores that the card is compared with.
N_CORES = 2
#: Sides of the matrices whose product tells the rate, on a card and on the cores.
SIDES = {"cuda": 8192, "cpu": 1536}
#: Rows a block where a task adds up or evaluates blocks.
BLOCK = 100_000
#: Share of the memory that a task may take, and how often as much as its arrays it may need.
MEMORY_SHARE, SPARE = 0.8, 2.0
#: Rows that warm up a device before it is timed.
WARM_UP = 150
#: Cycles of expectation maximization, and steps of variable projection.
N_CYCLES = 2
N_FEATURES, N_PREDICTED = 8, 4
PAIRS = tuple((i, (i + 1) % N_FEATURES) for i in range(N_FEATURES))


class Task(NamedTuple):
    """What is measured: `prepare` makes what is timed from points.

    Attributes
    ----------
    n_features : int
    prepare : callable
        Takes points (n, d), returns a function without arguments.
    numbers : int
        Numbers a row that are held at a time.
    flops : float
        Floating-point operations a row of the products that it is made of; 0: not counted.
    """

    n_features: int
    prepare: object
    numbers: int
    flops: float


def target(X):
    return torch.sin(4 * X[:, :1]) + X[:, 1:2] * X[:, 2:3]


def rows_of(X):
    y = target(X)
    return Rows(X, y / y.square().mean().sqrt(), torch.ones_like(X[:, 0]), torch.zeros_like(y))


def em(X):
    options = EMOptions(sizes=(8, 8), degree=2, max_iter=N_CYCLES, noise="after")
    rows = rows_of(X)
    return lambda: fit_em(rows, options, np.random.default_rng(0))


def varpro(X):
    options = SoftOptions(8, 2, GateForm(2, isotropic=True), max_iter=N_CYCLES)
    rows = rows_of(X)
    return lambda: fit_soft_partitions(rows, options, np.random.default_rng(0))


def sparse_grid(X):
    grid = SparseGrid(X.shape[1], 6)
    coef = torch.linspace(-1, 1, grid.n_columns, dtype=X.dtype, device=X.device)[:, None]
    return lambda: [grid.evaluate(X[block], coef) for block in row_blocks(len(X), BLOCK)]


def gram(X):
    terms = tuple((j,) for j in range(X.shape[1])) + PAIRS
    columns = columns_of_box(X.shape[1], AdditiveOptions(terms=terms), X)
    y, weight = target(X), torch.ones_like(X[:, 0])

    def run():
        sums = RowSums.empty(columns.n_columns, 1, X)
        for block in row_blocks(len(X), BLOCK):
            sums.add(columns(X[block]), y[block], weight[block])
        return sums

    return run


@functools.cache
def pieces():
    """64 pieces of degree 2 in four columns, fitted on the cores."""
    X = np.random.default_rng(1).random((3000, N_PREDICTED))
    y = np.sin(4 * X[:, 0]) + np.abs(X[:, 1] - X[:, 2])
    model = HierarchicalPOURegressor((8, 8), 2, solver="em", init="box", max_iter=3, device="cpu")
    harness.fit(model, X, y)
    return model


def predict(X):
    model = pieces()
    return lambda: model.set_params(device=X.device.type).predict(X)


#: Columns of degree 2 in eight columns with a target, experts, columns of the additive terms.
_P, _N, _Q = 46, 64, 230
TASKS = {
    "EM, (8, 8) pieces of degree 2, d = 8": Task(
        N_FEATURES, em, 5 * _N + 4 * _P, 2.0 * N_CYCLES * _N * _P**2
    ),
    "variable projection, 8 soft pieces of degree 2, d = 4": Task(4, varpro, 1000, 0.0),
    "sparse grid of level 6, d = 4, evaluated": Task(4, sparse_grid, 10, 0.0),
    "sums of eight main effects and eight pairs": Task(N_FEATURES, gram, 20, 2.0 * _Q**2),
    "predictions of 64 pieces of degree 2, d = 4": Task(N_PREDICTED, predict, 20, 2.0 * _N * 15),
}


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run, device):
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def gemm_rate(device, side=None):
    """Floating-point operations a second of a square product in float64, the best of three."""
    side = side or SIDES[device]
    A = torch.full((side, side), 0.5, dtype=torch.float64, device=device)
    return 2.0 * side**3 / min(seconds_of(lambda: A @ A, device) for _ in range(3))


def free_memory(device):
    """Bytes that a task may take; those of the machine where nobody tells."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 4e9


def points(task, n, device):
    draws = torch.rand((n, task.n_features), generator=torch.Generator().manual_seed(n))
    return draws.double().to(device)


def measure(task, n, device, seconds, known):
    """Seconds of a task, or words on why there are none; `known` are those of fewer rows."""
    if 8 * SPARE * task.numbers * n > MEMORY_SHARE * free_memory(device):
        return "left out: memory"
    if known and known[-1][1] * n / known[-1][0] > seconds:
        return "left out: time"
    try:
        taken = seconds_of(task.prepare(points(task, n, device)), device)
    except torch.OutOfMemoryError:
        return "left out: memory"
    known.append((n, taken))
    return taken


def run_tests():
    """What pytest says of the tests marked gpu."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=TEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not over in {TEST_SECONDS:.0f} s", False
    return done.stdout.strip().splitlines()[-1].strip("= "), done.returncode == 0


def compare(sizes, devices, seconds=SECONDS, side=None):
    """Rows of the table: each task at each size, on the cores and on the card if there is one."""
    table, begin = harness.Table(), time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(N_CORES)
    try:
        rates = {device: gemm_rate(device, side) for device in devices}
        for device, rate in rates.items():
            table.add({"task": "matrix product", "device": device, "Gflop/s": rate / 1e9})
        known = {(name, device): [] for name in TASKS for device in devices}
        for device in devices:
            for task in TASKS.values():
                task.prepare(points(task, WARM_UP, device))()
        for n in sizes:
            for name, task in TASKS.items():
                for device in devices:
                    left = max(seconds - (time.perf_counter() - begin), 0.0)
                    if device == "cpu" and len(devices) > 1:
                        left = min(left, CORE_SECONDS)
                    found = measure(task, n, device, left, known[name, device])
                    table.add(row_of(name, task, n, device, found, rates, known[name, "cpu"]))
    finally:
        torch.set_num_threads(threads)
    return table


def row_of(name, task, n, device, found, rates, on_cores):
    """Seconds, times the cores', and share of the rate of the matrix product."""
    row = {"task": name, "rows": f"{n:.0e}".replace("e+0", "e"), "device": device}
    row |= {"seconds": found, "rows a second": "", "times two cores": "", "share of product": ""}
    if isinstance(found, str):
        return row
    row["rows a second"] = n / found
    if device != "cpu" and on_cores and on_cores[-1][0] == n:
        row["times two cores"] = on_cores[-1][1] / found
    if task.flops:
        row["share of product"] = task.flops * n / found / rates[device]
    return row


def run(seeds, quick):
    card = torch.cuda.is_available()
    begin = time.perf_counter()
    said = run_tests() if card and not quick else None
    left = SECONDS - (time.perf_counter() - begin)
    table = compare(QUICK_SIZES if quick else SIZES, ("cpu", "cuda") if card else ("cpu",), left)
    if said is not None:
        table.add({"task": "tests marked gpu", "seconds": said[0]}, [("pass", not said[1], False)])
    # Figures of the cores alone say nothing about cards.
    table.is_kept = card
    return table
