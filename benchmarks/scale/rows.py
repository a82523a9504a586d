"""Many rows: fits that sum them block by block, in one process and in two, and predictions.

Each fit runs in a process of its own, ``python -m benchmarks.scale.rows FILE NAME [RANK FOLDER]``,
so that its memory is its own.
"""

import json
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

from benchmarks.scale.gpu import gemm_rate, pieces
from benchmarks.shared import harness
from skpou import AdditivePOURegressor, HierarchicalPOURegressor, SparseGridRegressor
from skpou.core.linalg import WeightedSums
from skpou.partitions.pieces.spaces import space_basis

#: Rows of a table and of the one it is compared with, columns, and rows a block.
SIZES, QUICK_SIZES, N_FEATURES, BLOCK = (10**6, 10**7), (10**4, 10**5), 8, 10**5
#: How much ten times as many rows may take, and how many GB beside the map's pages.
MOST_TIMES, MOST_MEMORY = 11, 2.0
#: How much faster two processes are to be, rows to predict in how many seconds, and the share of
#: the rate of a matrix product that the sums of the experts are to have.
LEAST_GAIN, PREDICTED, SECONDS, LEAST_SHARE = 1.7, (10**7, 10**5), 60.0, 0.5
#: Experts and degree of these sums, and the side of the matrices of the product.
EXPERTS, DEGREE, SIDE = 64, 2, 1536
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
    "HierarchicalPOURegressor, EM, (8, 8) of degree 2": lambda: HierarchicalPOURegressor(
        (8, 8), 2, solver="em", init="box", max_iter=20, batch_size=BLOCK, random_state=0
    ),
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


def measure(path, name, rank=None, folder=None):
    """Seconds, memory and error of one fit, as the last line of the output.

    With a rank, of one of two processes that meet in a folder: its half of the rows.
    """
    table = np.load(path, mmap_mode="r")
    if rank is not None:
        where = f"file://{folder}/meet"
        dist.init_process_group("gloo", init_method=where, rank=int(rank), world_size=2)
        table = np.array_split(table, 2)[int(rank)]
    model, peak, done = MODELS[name](), [own_memory()], threading.Event()

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
    error = harness.rms(model.predict(X) - target(X))
    found = {"seconds": seconds, "elapsed": elapsed, "gigabytes": max(peak), "error": error}
    print(json.dumps(found))


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


def fits(seeds, quick):
    """Seconds, memory and error of each model at both numbers of rows."""
    table = harness.Table()
    sizes = QUICK_SIZES if quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            write(Path(folder, f"{n}.npy"), n, 0)
        for name in MODELS:
            first = None
            for n in sizes:
                found = result(start(Path(folder, f"{n}.npy"), name))
                bounds = []
                if name.endswith(("level 3", "pairs", "degree 2")):
                    bounds = [("2 GB", found["gigabytes"], MOST_MEMORY)]
                    if first is not None:
                        bounds.append(("11 times", found["seconds"] / first, MOST_TIMES))
                first = found["seconds"]
                del found["elapsed"]
                table.add({"task": f"{name}: {n:.0e} rows", **found}, bounds)
    return table


def processes(seeds, quick):
    """Seconds on the clock of one process, and of two with half of the rows each."""
    table, n = harness.Table(), (QUICK_SIZES if quick else SIZES)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.npy")
        write(path, n, 0)
        for name in SHARED:
            one = result(start(path, name))["elapsed"]
            with tempfile.TemporaryDirectory() as meeting:
                both = [start(path, name, rank, meeting) for rank in range(2)]
                two = max(result(process)["elapsed"] for process in both)
            gain = one / two
            row = {"task": f"{name}: {n:.0e} rows", "one process": one, "two": two, "gain": gain}
            table.add(row, [("1.7 times", -gain, -LEAST_GAIN)])
    return table


def rates(seeds, quick):
    """Predictions a minute, and the rate of the experts' sums beside a matrix product's."""
    table, threads = harness.Table(), torch.get_num_threads()
    n = PREDICTED[quick]
    model, X = pieces(), np.random.default_rng(0).random((n, 4))
    torch.set_num_threads(2)
    try:
        begin = time.perf_counter()
        model.predict(X)
        seconds = time.perf_counter() - begin
    finally:
        torch.set_num_threads(threads)
    row = {"task": f"{n:.0e} predictions of 64 pieces of degree 2, d = 4", "seconds": seconds}
    table.add(row, [("a minute", seconds, SECONDS)])
    n, generator = QUICK_SIZES[0] if quick else SIZES[0], torch.Generator().manual_seed(0)
    basis = space_basis("polynomial", N_FEATURES, DEGREE)
    like = torch.zeros((), dtype=torch.float64)
    sums = WeightedSums(basis.n_columns, torch.zeros(EXPERTS, dtype=torch.bool), like)
    seconds = 0.0
    for _ in range(0, n, BLOCK):
        size = min(n, BLOCK)
        rows = basis.matrix(torch.rand((size, N_FEATURES), generator=generator).double())
        share = torch.rand((size, EXPERTS), generator=generator).double()
        begin = time.perf_counter()
        sums.add(rows, share)
        seconds += time.perf_counter() - begin
    # Each product of two columns once, since the sums are symmetric.
    products = basis.n_columns * (basis.n_columns + 1) // 2
    share = 2.0 * n * EXPERTS * products / seconds / gemm_rate("cpu", SIDE)
    row = {"task": f"sums of {EXPERTS} experts of degree {DEGREE}, d = {N_FEATURES}, {n:.0e} rows"}
    table.add(
        {**row, "seconds": seconds, "share of product": share},
        [("half the rate", -share, -LEAST_SHARE)],
    )
    return table


SECTIONS = {"fits": fits, "processes": processes, "rates": rates}

if __name__ == "__main__":
    measure(*sys.argv[1:])
