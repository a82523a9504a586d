"""Many rows: fits that sum them block by block, in one process and in two, and predictions.

Each fit runs in a process of its own, ``python -m benchmarks.scale.rows FILE NAME [RANK FOLDER]``,
so that its memory is its own; xgboost's where the variable SKPOU_XGBOOST names the interpreter of
an environment that has it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import SGDRegressor

from benchmarks.scale import boosting
from benchmarks.scale.gpu import SIDES, pieces
from benchmarks.shared import harness
from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    MultiStageRegressor,
    NeuralSparseGridRegressor,
    SparseGridRegressor,
)
from skpou.core.linalg import WeightedSums
from skpou.partitions.pieces.spaces import space_basis

#: Rows of a table and of the one it is compared with, columns, and rows a block.
SIZES, QUICK_SIZES, N_FEATURES, BLOCK = (10**6, 10**7), (10**4, 10**5), 8, 10**5
#: How much ten times as many rows may take, and how many GB beside the map's pages.
MOST_TIMES, MOST_MEMORY = 11, 2.0
#: How much faster two processes are to be, rows to predict in how many seconds, and the share of
#: the rate of a matrix product that the sums of the experts are to have.
LEAST_GAIN, PREDICTED, SECONDS, LEAST_SHARE = 1.7, (10**7, 10**5), 60.0, 0.5
#: Experts and degree of these sums, rows that are summed together, as in a fit of them, and how
#: often, of which the fastest counts: the machine may be busy with other things.
EXPERTS, DEGREE, TOGETHER, REPEATS = 64, 2, 3125, 20
NOISE = 0.1
SEEDS = 1
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (0, 2), (1, 3), (0, 7)]
#: Seconds between two looks at the memory.
LOOK = 0.05


class SGD:
    """Linear regression on squares and products, one pass in blocks."""

    def fit(self, X, y):
        self.model = SGDRegressor(random_state=0)
        for start in range(0, len(X), BLOCK):
            self.model.partial_fit(self._columns(X[start : start + BLOCK]), y[start:][:BLOCK])
        return self

    def predict(self, X):
        return self.model.predict(self._columns(X))

    @staticmethod
    def _columns(X):
        products = [X[:, i] * X[:, j] for i in range(N_FEATURES) for j in range(i + 1)]
        return 2 * np.column_stack([X, *products]) - 1


MODELS = {
    "SparseGridRegressor, level 3": lambda: SparseGridRegressor(level=3, batch_size=BLOCK),
    "AdditivePOURegressor, ten pairs": lambda: AdditivePOURegressor(
        terms=[(j,) for j in range(N_FEATURES)] + PAIRS, batch_size=BLOCK
    ),
}
CYCLES = {
    "HierarchicalPOURegressor, EM, (8, 8) of degree 2": lambda: HierarchicalPOURegressor(
        (8, 8), 2, solver="em", init="box", max_iter=20, batch_size=BLOCK, random_state=0
    ),
}
#: Pieces, columns of all kinds, and encoders, that a sample finds and all rows are fitted to.
SAMPLED = {
    "HierarchicalPOURegressor": lambda: HierarchicalPOURegressor(batch_size=BLOCK),
    "MultiStageRegressor": lambda: MultiStageRegressor(batch_size=BLOCK),
    "NeuralSparseGridRegressor": NeuralSparseGridRegressor,
}
RIVALS = {
    "SGDRegressor on squares and products": SGD,
    "HistGradientBoostingRegressor, in memory": HistGradientBoostingRegressor,
}
#: Those that two processes share.
SHARED = ("SparseGridRegressor, level 3", "AdditivePOURegressor, ten pairs")


def target(X):
    return np.sin(4 * X[:, 0]) + X[:, 1] * X[:, 2] + np.abs(X[:, 3] - 0.5)


def write(path, n, seed):
    """Rows and, in the last column, noisy targets."""
    table = np.lib.format.open_memmap(path, "w+", dtype=np.float64, shape=(n, N_FEATURES + 1))
    rng = np.random.default_rng(seed)
    for start in range(0, n, BLOCK):
        X = rng.random((min(BLOCK, n - start), N_FEATURES))
        part = table[start : start + len(X)]
        part[:, :-1] = X
        part[:, -1] = target(X) + NOISE * rng.standard_normal(len(X))
    table.flush()


def own_memory():
    """GB of this process that belong to no file; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return float(found[0]) / 1e6 if found else 0.0


def sent():
    """A list whose sum is what this process sends to the others from now on, in bytes."""
    parts, original = [], dist.all_gather

    def counted(found, tensor, **options):
        parts.append(tensor.numel() * tensor.element_size())
        return original(found, tensor, **options)

    dist.all_gather = counted
    return parts


def measure(path, name, rank=None, folder=None):
    """Seconds, memory and error of one fit, as the last line of the output.

    With a rank, of one of two processes that meet in a folder: its half of the rows.
    """
    table, parts = np.load(path, mmap_mode="r"), []
    if rank is not None:
        where = f"file://{folder}/meet"
        dist.init_process_group("gloo", init_method=where, rank=int(rank), world_size=2)
        table, parts = np.array_split(table, 2)[int(rank)], sent()
    model = {**MODELS, **CYCLES, **SAMPLED, **RIVALS}[name]()
    peak, done = [own_memory()], threading.Event()

    def watch():
        while not done.wait(LOOK):
            peak.append(own_memory())

    watcher, begin = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    seconds = harness.fit(model, table[:, :-1], table[:, -1])
    elapsed = time.perf_counter() - begin
    done.set()
    watcher.join()
    X = harness.fresh(N_FEATURES, 0)
    found = {"seconds": seconds, "microseconds a row": 1e6 * seconds / len(table)}
    found |= {"gigabytes": max(peak), "error": harness.rms(model.predict(X) - target(X))}
    print(json.dumps({**found, "elapsed": elapsed, "megabytes sent": sum(parts) / 1e6}))


def start(*arguments):
    """A process that measures."""
    command = [sys.executable, "-m", "benchmarks.scale.rows", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process):
    """What it has found."""
    words, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return json.loads(words.splitlines()[-1])


def result_of_boosting(path):
    """The same of xgboost, or None where there is none."""
    interpreter = os.environ.get("SKPOU_XGBOOST")
    if interpreter is None:
        print("  SKPOU_XGBOOST is not set: without xgboost")
        return None
    X = harness.fresh(N_FEATURES, 0)
    with tempfile.TemporaryDirectory() as folder:
        query, found = str(Path(folder, "query.npy")), str(Path(folder, "found.npz"))
        np.save(query, X)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [interpreter, boosting.__file__, str(path), query, found]
        subprocess.run(command, check=True, env=environment)
        values = np.load(found)
        seconds, n = float(values["seconds"]), len(np.load(path, mmap_mode="r"))
        row = {"seconds": seconds, "microseconds a row": 1e6 * seconds / n}
        error = harness.rms(values["mean"] - target(X))
        return {**row, "error": error}


def written(folder, sizes):
    """Files of so many rows."""
    paths = {n: Path(folder, f"{n}.npy") for n in sizes}
    for n, path in paths.items():
        write(path, n, 0)
    return paths


def fits(seeds, quick):
    """Seconds, memory and error of each sum at both numbers of rows."""
    return at_both(MODELS, quick)


def em(seeds, quick):
    """The same of expectation maximization."""
    return at_both(CYCLES, quick)


def at_both(models, quick):
    """Seconds, memory and error of each model at both numbers of rows."""
    table = harness.Table()
    with tempfile.TemporaryDirectory() as folder:
        paths = written(folder, QUICK_SIZES if quick else SIZES)
        for name in models:
            first = None
            for n, path in paths.items():
                found = result(start(path, name))
                bounds = [("2 GB", found["gigabytes"], MOST_MEMORY)]
                if first is not None:
                    bounds.append(("11 times", found["seconds"] / first, MOST_TIMES))
                first = found["seconds"]
                add(table, name, n, found, bounds)
    return table


def rivals(seeds, quick):
    """The same of others, and of models that a sample finds."""
    table = harness.Table()
    with tempfile.TemporaryDirectory() as folder:
        for n, path in written(folder, QUICK_SIZES if quick else SIZES).items():
            for name in [*SAMPLED, *RIVALS]:
                add(table, name, n, result(start(path, name)))
            found = result_of_boosting(path)
            if found is not None:
                add(table, "xgboost, external memory", n, found)
    return table


def add(table, name, n, found, bounds=()):
    """A row of a table of fits."""
    found = {k: v for k, v in found.items() if k not in ("elapsed", "megabytes sent")}
    table.add({"task": f"{name}: {n:.0e} rows", **found}, bounds)


def processes(seeds, quick):
    """Seconds on the clock of one process, and of two with half of the rows each."""
    table, n = harness.Table(), (QUICK_SIZES if quick else SIZES)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, (n,))[n]
        for name in SHARED:
            one = result(start(path, name))["elapsed"]
            with tempfile.TemporaryDirectory() as meeting:
                both = [result(process) for process in
                        [start(path, name, rank, meeting) for rank in range(2)]]  # fmt: skip
            two = max(found["elapsed"] for found in both)
            gain = one / two
            row = {"task": f"{name}: {n:.0e} rows", "one process": one, "two": two, "gain": gain}
            row["megabytes sent by each"] = both[0]["megabytes sent"]
            table.add(row, [("1.7 times", -gain, -LEAST_GAIN)])
    return table


def processor_seconds(*runs):
    """Processor time of the fastest of several calls of each function, in turn, in one thread."""
    taken = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, own in zip(runs, taken, strict=True):
            begin = time.process_time()
            run()
            own.append(time.process_time() - begin)
    return [min(own) for own in taken]


def predictions(table, n):
    """Time of predictions, in two threads and of the processor."""
    model, X = pieces().set_params(n_jobs=2), np.random.default_rng(0).random((n, 4))
    model.predict(X[:BLOCK])
    begin, used = time.perf_counter(), time.process_time()
    model.predict(X)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    name = f"{n:.0e} predictions of 64 pieces of degree 2, d = 4, in two threads"
    row = {"task": name, "seconds": seconds, "processor seconds": used}
    table.add(row, [("a minute", seconds, SECONDS)])


def rates(seeds, quick):
    """Predictions a minute, and the rate of the experts' sums beside a matrix product's."""
    table = harness.Table()
    predictions(table, PREDICTED[quick])
    n, generator = QUICK_SIZES[0] if quick else SIZES[0], torch.Generator().manual_seed(0)
    basis = space_basis("polynomial", N_FEATURES, DEGREE)
    like = torch.zeros((), dtype=torch.float64)
    X, share = (
        torch.rand((TOGETHER, k), generator=generator).double() for k in (N_FEATURES, EXPERTS)
    )
    # As in a fit, where the target is one more column.
    rows = torch.cat([basis.matrix(X), X[:, :1]], 1)
    sums = WeightedSums(rows.shape[1], torch.zeros(EXPERTS, dtype=torch.bool), like)
    A = torch.full((SIDES["cpu"], SIDES["cpu"]), 0.5, dtype=torch.float64)
    seconds, of_square = processor_seconds(lambda: sums.add(rows, share), lambda: A @ A)
    seconds, rate = seconds / TOGETHER * n, 2.0 * SIDES["cpu"] ** 3 / of_square
    # Each product of two columns once, since the sums are symmetric.
    products = rows.shape[1] * (rows.shape[1] + 1) // 2
    of_product = 2.0 * n * EXPERTS * products / seconds / rate
    name = f"sums of {EXPERTS} experts of degree {DEGREE}, d = {N_FEATURES}, {n:.0e} rows"
    row = {"task": name, "processor seconds": seconds, "share of product": of_product}
    table.add(row, [("half the rate", -of_product, -LEAST_SHARE)])
    return table


SECTIONS = {"fits": fits, "em": em, "rivals": rivals, "processes": processes, "rates": rates}

if __name__ == "__main__":
    measure(*sys.argv[1:])
