"""Seconds and peak memory of a fit against the number of points.

Every fit runs in a process of its own, whose peak memory holds the imports and the data, too.
"""

import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.partitions.functions import f2
from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor

SIZES = (1000, 3000, 10_000, 30_000, 100_000, 300_000)
REFERENCE = 10_000


def peak_memory():
    """Most memory that this process has used, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # the usage below may start at that of the process that made this one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def one(n):
    """Fit n points in this process, print what it took."""
    model = HierarchicalPOURegressor(8, 4)
    model.fit(harness.sample(2, 300, 1), f2(harness.sample(2, 300, 1)))  # imports and caches
    run = harness.measure(model, f2, 2, n, 0)
    print(json.dumps([*run, peak_memory()]))


def run(seeds, quick):
    table = harness.Table()
    per_nlogn = {}
    for n in (1000, REFERENCE) if quick else SIZES:
        command = [sys.executable, "-m", "benchmarks.partitions.scaling", str(n)]
        start = time.process_time()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        elapsed = time.process_time() - start
        error, fit, predict, pieces, memory = json.loads(done.stdout)
        per_nlogn[n] = fit / (n * math.log(n))
        growth = per_nlogn[n] / per_nlogn[REFERENCE] if n >= REFERENCE else None
        row = {
            "points": n,
            "pieces": pieces,
            "error": error,
            "fit (s)": fit,
            "predict 20,000 (s)": predict,
            "whole process (s)": elapsed,
            "peak memory (MB)": memory / 1e6,
            f"fit / (n log n), to n={REFERENCE}": growth,
        }
        bounds = [] if n <= REFERENCE else [("n log n", growth, 1.2)]
        if n == 300_000:
            bounds.append(("1 GB", memory, 1e9))
        table.add(row, bounds)
    return table


if __name__ == "__main__":
    one(int(sys.argv[1]))
