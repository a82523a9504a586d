"""A bipolar transistor's collector current against its two voltages.

The logarithm of the current, scaled to the unit interval, on a grid of voltages of which every
third point is kept for testing. Points on the rim of the grid have neighbours on one side only, so
that errors are given without them, too.
"""

import time

import numpy as np
from sklearn.base import clone

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor

ERROR = 1e-5
SECONDS = 10


class GaussianProcess:
    """Lengths by the likelihood of every second point, which with all takes minutes."""

    def fit(self, X, y):
        half = harness.gaussian_process(X.shape[1]).fit(X[::2], y[::2])
        self.process = clone(half).set_params(kernel=half.kernel_, optimizer=None).fit(X, y)
        return self

    def predict(self, X):
        return self.process.predict(X)


def load():
    """Both voltages (V) and the current (A), or None where there is no such table."""
    path = harness.shared("devices", "bjt.csv.gz")
    if not path.exists():
        return None
    data = np.loadtxt(path, delimiter=",", skiprows=1)
    return data[:, :2], data[:, 2]


def run(seeds, quick):
    table = harness.Table()
    data = load()
    if data is None:
        print("skipped: the simulated sweep devices/bjt.csv.gz was not found; SKPOU_SHARED_DATA")
        print("names the folder that has it. Earlier results stay as they are.")
        return table
    X, current = data
    y = np.log10(current)
    y = (y - y.min()) / np.ptp(y)
    test = np.arange(len(y)) % 3 == 1
    X_test = X[test]
    middle = ~((X_test == X.min(0)) | (X_test == X.max(0))).any(1)

    def add(method, estimators, bounded=False):
        runs, errors = [], []
        for estimator in estimators:
            seconds = harness.fit(estimator, X[~test], y[~test])
            start = time.process_time()
            errors.append(np.abs(estimator.predict(X_test) - y[test]))
            predict = time.process_time() - start
            coef = getattr(estimator, "coef_", None)
            pieces = None if coef is None else len(coef)
            runs.append(harness.Run(harness.rms(errors[-1]), seconds, predict, pieces))
        l2 = [one.error for one in runs]
        l2_middle = [harness.rms(error[middle]) for error in errors]
        fit = float(np.median([one.fit for one in runs]))
        row = {
            "method": method,
            "pieces": harness.span(runs),
            "median l2": float(np.median(l2)),
            "worst l2": max(l2),
            "max error": float(np.max(errors)),
            "median l2, no rim": float(np.median(l2_middle)),
            "worst l2, no rim": max(l2_middle),
            "max, no rim": float(max(error[middle].max() for error in errors)),
            "fit (s)": fit,
            "slowest fit (s)": max(one.fit for one in runs),
            "predict (s)": float(np.median([one.predict for one in runs])),
            "seeds": len(runs),
        }
        limit = harness.digits(ERROR, 1)
        bounds = [
            (f"l2 {limit}", max(l2), ERROR),
            (f"l2 {limit} without the rim", max(l2_middle), ERROR),
            (f"{SECONDS} s", fit, SECONDS),
        ]
        table.add(row, bounds if bounded else ())

    for size, degree in ((8, 4), (16, 4), ("auto", "auto")):
        estimators = [HierarchicalPOURegressor(size, degree, random_state=i) for i in range(seeds)]
        add(f"skpou, {size}, {degree}", estimators, bounded=True)
        if quick:
            break
    for name, make in harness.rivals(int(sum(~test)), 2, quick).items():
        add(name, [make()])
    if not quick:
        add("Gaussian process", [GaussianProcess()])
    return table
