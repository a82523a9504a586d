"""The printed training to 12,000 V-cycles: Figs. 2 to 4 and Table 1 of Trask et al. (MSML 2022).

One seed, and no end before (``least_change=0, tol=0``): minutes a row, so that none of it runs by
default with the other scripts' seeds. The residual at the samples is that of the best cycle, which
the paper shows as its running minimum; beside it is the error between the samples. Both relative.
"""

import numpy as np

from benchmarks.shared import harness
from benchmarks.trask_2022 import bump, diode_table, paper, piecewise_quadratic, sine_bump
from skpou.datasets import make_bump, make_piecewise_quadratic

SEEDS = 1
CYCLES, QUICK = 12_000, 100
#: Cycles at which the running minimum is tabulated.
SHOWN = (100, 1000, 4000, 12_000)


def train(table, task, size, degree, data, test, quick, printed=""):
    """A row: running minima at the samples, and the errors at the end."""
    (X, y), (X_test, truth) = data, test
    cycles = QUICK if quick else CYCLES
    model = paper.printed(size, degree, 0, cycles=cycles, least_change=0, tol=0)
    seconds, own, residuals = paper.history(model, X, y)
    scale = np.std(y) / harness.rms(y)
    row = {"task": task, "partitions": str(size), "degree": degree, "paper prints": printed}
    least = np.minimum.accumulate(residuals) * scale
    for n in SHOWN:
        if n <= cycles:
            row[f"samples, {n}"] = float(least[np.searchsorted(own, n, side="right") - 1])
    row["cycles"] = model.n_iter_
    row["error at the samples"] = paper.error(model, X, y)
    row["error between"] = paper.error(model, X_test, truth)
    table.add(row | {"fit (s)": seconds})


def figure_3(seeds, quick):
    """Two levels against one on the sine with a bump."""
    table = harness.Table()
    test = sine_bump.X_TEST, sine_bump.make_sine_bump(X=sine_bump.X_TEST)[1]
    for size, printed in (((15, 3), "a tenth of N=15"), (15, "")):
        train(table, "Fig. 3", size, 2, sine_bump.data(0), test, quick, printed)
    return table


def figure_2(seeds, quick):
    """The bump."""
    table = harness.Table()
    data = make_bump(bump.N_SAMPLES, random_state=0)
    test = bump.X_TEST, make_bump(X=bump.X_TEST)[1]
    train(table, "Fig. 2", bump.SIZE, 2, data, test, quick)
    return table


def figure_4(seeds, quick):
    """Three parabolas."""
    table, own = harness.Table(), piecewise_quadratic
    for p in (2, 3):
        data = make_piecewise_quadratic(own.N_SAMPLES, n_pieces=p, random_state=0)
        test = own.X_TEST, make_piecewise_quadratic(X=own.X_TEST, n_pieces=p)[1]
        train(table, f"Fig. 4, {p} parabolas", (p, 2), 2, data, test, quick, "machine precision")
    return table


def table_1(seeds, quick):
    """The diode; without its data no rows."""
    table = harness.Table()
    sweep = diode_table.Sweep()
    X, y, out = sweep.X, sweep.y, sweep.test
    for size in (8, (4, 2)):
        data, test = (X[~out], y[~out]), (X[out], y[out])
        train(table, "Table 1", size, 2, data, test, quick)
    return table


SECTIONS = {"fig3": figure_3, "fig4": figure_4, "fig2": figure_2, "table1": table_1}
