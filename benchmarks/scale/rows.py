"""Rows on disk: seconds and memory of fits that sum them block by block.

Each fit runs in a process of its own, ``python -m benchmarks.scale.rows FILE NAME``, so that its
memory is its own.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from sklearn.linear_model import SGDRegressor

from benchmarks.shared import harness
from skpou import AdditivePOURegressor, HierarchicalPOURegressor, SparseGridRegressor

#: Rows of a table and of the one it is compared with, columns, and rows a block.
SIZES, QUICK_SIZES, N_FEATURES, BLOCK = (10**6, 10**7), (10**4, 10**5), 8, 10**5
#: How much ten times as many rows may take, and how many GB beside the map's pages.
MOST_TIMES, MOST_MEMORY = 11, 2.0
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
}


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


def measure(path, name):
    """Seconds, memory and error of one fit, as the last line of the output."""
    table = np.load(path, mmap_mode="r")
    model, peak, done = MODELS[name](), [own_memory()], threading.Event()

    def watch():
        while not done.wait(LOOK):
            peak.append(own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = harness.fit(model, table[:, :-1], table[:, -1])
    done.set()
    watcher.join()
    X = harness.fresh(N_FEATURES, 0)
    error = harness.rms(model.predict(X) - target(X))
    print(json.dumps({"seconds": seconds, "gigabytes": max(peak), "error": error}))


def run(seeds, quick):
    table = harness.Table()
    sizes = QUICK_SIZES if quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            write(Path(folder, f"{n}.npy"), n, 0)
        for name in MODELS:
            first = None
            for n in sizes:
                command = [sys.executable, "-m", "benchmarks.scale.rows"]
                command += [str(Path(folder, f"{n}.npy")), name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                bounds = []
                if name != "SGDRegressor on squares and products":
                    bounds = [("2 GB", found["gigabytes"], MOST_MEMORY)]
                    if first is not None:
                        bounds.append(("11 times", found["seconds"] / first, MOST_TIMES))
                first = found["seconds"]
                table.add({"task": f"{name}: {n:.0e} rows", **found}, bounds)
    return table


if __name__ == "__main__":
    measure(*sys.argv[1:])
