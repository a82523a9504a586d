"""A silicon diode's current over 13 decades, Sec. 5.4 of Trask et al. (MSML 2022).

The logarithm of the current, scaled to the unit interval, is fitted on every second point of a
sweep of the voltage. Errors are those on the points in between; the first and the last ten of them
are set apart, as the current falls to zero at the one end and extrapolation begins at the other.
"""

import time

import numpy as np

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor
from skpou.datasets import make_diode

END = 10


def load():
    """Voltage (V), current (A) and where they come from."""
    path = harness.shared("devices", "diode.csv.gz")
    if path.exists():
        voltage, current = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
        return voltage, current, "ngspice 39"
    X, current = make_diode(X=np.arange(10, 1209)[:, None] / 1000, log=False)
    return X[:, 0], current, "skpou.datasets.make_diode; the simulated sweep was not found"


def run(seeds, quick):
    voltage, current, origin = load()
    print(f"data: {origin}")
    X, y = voltage[:, None], np.log10(current)
    y = (y - y.min()) / np.ptp(y)
    test = np.arange(len(y)) % 2 == 1
    table = harness.Table()

    def add(method, estimator):
        seconds = harness.fit(estimator, X[~test], y[~test])
        start = time.process_time()
        predicted = estimator.predict(X[test])
        predict = time.process_time() - start
        error = np.abs(predicted - y[test])
        middle = error[END:-END]
        row = {"method": method}
        coef = getattr(estimator, "coef_", None)
        row["pieces"] = None if coef is None else len(coef)
        row |= {
            "l2 error": harness.rms(error),
            "max error": float(error.max()),
            "l2, middle": harness.rms(middle),
            "max, middle": float(middle.max()),
            "max, first ten": float(error[:END].max()),
            "max, last ten": float(error[-END:].max()),
            "fit (s)": seconds,
            "predict (s)": predict,
        }
        l2 = row["l2 error"]
        ours = method in ("skpou, 8, 4", "skpou, (4, 2), 4")
        table.add(row, [("l2 1e-9", l2, 1e-9), ("1 s", seconds, 1.0)] if ours else ())

    for size in (8, (4, 2)):
        for degree in (2, 4):
            add(f"skpou, {size}, {degree}", HierarchicalPOURegressor(size, degree))
    add("skpou, auto, auto", HierarchicalPOURegressor())
    for name, make in harness.rivals(int(sum(~test)), 1, quick).items():
        add(name, make())
    return table
