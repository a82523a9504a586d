"""Squared waves on [0, 1], Eq. 46 of Trask et al. (MSML 2022).

The continuous form has p parabolas; the printed form jumps, where no method can know the target
between the two samples on either side: those gaps are left out of its errors.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor
from skpou.datasets import make_piecewise_quadratic


def wave(n_pieces, printed=False):
    return lambda X: make_piecewise_quadratic(X=X, n_pieces=n_pieces, printed=printed)[1]


def outside_gaps(n_pieces):
    """Whether test points lie outside the sample gaps at the printed form's jumps."""

    def keep(X, X_test):
        x, jumps = np.sort(X[:, 0]), (np.arange(n_pieces) + 0.5) / n_pieces
        above = np.searchsorted(x, jumps)
        low, high = x[above - 1], x[np.minimum(above, len(x) - 1)]
        inside = (X_test >= low) & (X_test <= high)
        return ~inside.any(1)

    return keep


def repeated(make, function, n, seeds, grid=False, **options):
    X = np.linspace(0, 1, n)[:, None] if grid else None
    return [harness.measure(make(), function, 1, n, seed, X=X, **options) for seed in range(seeds)]


def run(seeds, quick):
    table = harness.Table()
    for grid in (False, True):
        points = "grid" if grid else "random"
        for n in (1000,) if quick else (300, 1000):
            for p in range(1, 6):
                runs = repeated(
                    lambda p=p: HierarchicalPOURegressor(2 * p, 2), wave(p), n, seeds, grid
                )
                task = f"{p} parabola{'s' * (p > 1)}, {points}, n={n}"
                table.add_runs(task, f"skpou, {2 * p}, 2", runs, error=1e-13, seconds=0.2, pieces=p)
    for p in (5,) if quick else range(1, 6):
        runs = repeated(
            lambda p=p: HierarchicalPOURegressor(2 * p, 2),
            wave(p, printed=True),
            1000,
            seeds,
            keep=outside_gaps(p),
        )
        task = f"{p} jump{'s' * (p > 1)}, random, n=1000"
        table.add_runs(task, f"skpou, {2 * p}, 2", runs, error=1e-13, seconds=0.2, pieces=p + 1)
    runs = repeated(lambda: HierarchicalPOURegressor(32, 2), wave(16), 1000, seeds)
    table.add_runs("16 parabolas, random, n=1000", "skpou, 32, 2", runs, error=1e-4)
    for p in (5, 16):
        runs = repeated(HierarchicalPOURegressor, wave(p), 1000, seeds)
        table.add_runs(f"{p} parabolas, random, n=1000", "skpou, auto, auto", runs)
    for name, make in harness.rivals(1000, 1, quick).items():
        runs = repeated(make, wave(5), 1000, harness.rival_seeds(name, 1000, seeds))
        table.add_runs("5 parabolas, random, n=1000", name, runs)
    return table
