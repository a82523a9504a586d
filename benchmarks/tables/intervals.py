"""Coverage of `predict_interval` on UCI tables, before and after `conformalize`.

A quarter of each split's training rows is set aside; the model is fitted to the others, and both
intervals are counted on the split's test rows.
"""

import warnings

import numpy as np

from benchmarks.shared import harness
from benchmarks.tables.tables import load
from skpou import SparseGridRegressor

SEEDS = 10
#: Tables of a few hundred rows; a fit to them takes a second.
TABLES = ("yacht", "boston_housing", "energy")
METHODS = {
    "SparseGridRegressor, one Gaussian": lambda: SparseGridRegressor(density="gaussian"),
    "SparseGridRegressor": SparseGridRegressor,
}
COVERAGES = (0.5, 0.9)
ASIDE = 0.25
#: How far the mean over all splits of all tables may be from what is asked for: the share of one
#: split varies by some 0.05, half of it by the rows that calibrate, and the splits share rows.
TOLERANCE = 0.03


def held(model, X, y):
    """Shares of the rows inside the intervals, and the median widths in units of y's deviation."""
    ends = [model.predict_interval(X, coverage) for coverage in COVERAGES]
    inside = [np.mean((low <= y) & (y <= high)) for low, high in (e.T for e in ends)]
    return inside, [np.median(np.diff(e)) / y.std() for e in ends]


def judge(make, X, y, masks):
    """Shares and widths, each (splits, 2, coverages): before and after."""
    shares, widths = [], []
    for seed, test in enumerate(masks):
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
        aside, kept = np.split(rows, [round(ASIDE * len(rows))])
        model = make().fit(X[kept], y[kept])
        before = held(model, X[test], y[test])
        after = held(model.conformalize(X[aside], y[aside]), X[test], y[test])
        shares.append([before[0], after[0]])
        widths.append([before[1], after[1]])
    return np.array(shares), np.array(widths)


def entries(shares, widths):
    """Columns of a row of the table."""
    found = {}
    for k, coverage in enumerate(COVERAGES):
        for when, j in (("before", 0), ("after", 1)):
            name = f"{100 * coverage:.0f} %, {when}"
            found[name] = f"{shares[:, j, k].mean():.3f}"
            found[f"{name}: width"] = f"{widths[:, j, k].mean():.3f}"
    return found


def run(seeds, quick):
    table = harness.Table()
    seeds, methods = min(seeds or SEEDS, SEEDS), list(METHODS.items())[: 1 if quick else None]
    data = {name: load(name) for name in TABLES}
    if None in data.values():
        print("  no data, left out")
        return table
    for method, make in methods:
        parts = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, (X, y, masks) in data.items():
                parts.append(judge(make, X, y, masks[:seeds]))
                table.add({"method": method, "table": name, **entries(*parts[-1])})
        shares, widths = (np.concatenate(part) for part in zip(*parts))
        bounds = [
            (f"coverage {c}", abs(shares[:, 1, k].mean() - c), TOLERANCE)
            for k, c in enumerate(COVERAGES)
        ]
        table.add({"method": method, "table": "all", **entries(shares, widths)}, bounds)
    return table
