"""More is never worse: errors over numbers of pieces and degrees, and by how much they rise.

For each target a median error over starts for every number of pieces and every degree. The rise
along one of both is the largest factor by which an error lies above that of any smaller number, the
other kept. Errors below 1e-12 count as 1e-12. A jump's gap between two rows, where no method can
know the target, is left out; other errors are those between the rows.
"""

import numpy as np

from benchmarks.partitions import cross, functions, transistor, waves
from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor, POURegressor
from skpou.datasets import make_cross, make_diode

NUMBERS = (1, 2, 4, 8, 16)
DEGREES = (0, 1, 2, 3, 4, 5)
SEEDS = 3
LEAST, RISE = 1e-12, 3
#: Rows of one column, and of two; what part of them `quick` takes.
ROWS = {1: 200, 2: 600}
QUICK = 2


def kinked(X):
    """Smooth on both sides of a kink of one column."""
    return np.abs(X[:, 0] - 0.4) + np.sin(5 * X[:, 0])


def jumps(X):
    """Two smooth parts and a constant, all apart."""
    x = X[:, 0]
    return np.where(x < 0.3, np.sin(8 * x), np.where(x < 0.7, 2.0, -np.exp(x)))


def oblique(X):
    """A jump along an oblique line."""
    return np.where(X[:, 0] + 0.5 * X[:, 1] < 0.7, np.cos(3 * X[:, 1]), 2 + X[:, 0] * X[:, 1])


def crease(X):
    """A kink along an oblique line between smooth parts."""
    return np.abs(X[:, 0] - 0.3 * X[:, 1] - 0.4) * np.exp(X[:, 1])


def scattered(function, n_features, keep=None):
    """Task on random rows, another sample for each start."""

    def task(seed, part):
        X, T = harness.sample(n_features, ROWS[n_features] // part, seed), harness.fresh(2, seed)
        T = T[:, :n_features]
        T = T if keep is None else T[keep(X, T)]
        return X, function(X), T, function(T)

    return task


def beside(sides):
    """Which points have their nearest rows on their own side."""
    from scipy.spatial import cKDTree

    def keep(X, T):
        near = cKDTree(X).query(T, 4)[1]
        return (sides(X)[near] == sides(T)[:, None]).all(1)

    return keep


def on_cross(seed, part):
    X, T = cross.cross(250 // part + 1), cross.cross(4001)
    return X, make_cross(X=X)[1], T, make_cross(X=T)[1]


def on_diode(seed, part):
    X = np.arange(10, 1209)[:, None] / 1000
    y = make_diode(X=X)[1]
    rows = np.arange(len(X)) % (2 * part) == 0
    return X[rows], y[rows], X[~rows], y[~rows]


def on_transistor(seed, part):
    X, current = transistor.load()
    y = np.log10(current)
    y = (y - y.min()) / np.ptp(y)
    test = np.arange(len(y)) % 3 == 1
    rows = np.flatnonzero(~test)[::part]
    return X[rows], y[rows], X[test], y[test]


TASKS = {
    "cross": on_cross,
    "waves": scattered(waves.wave(5), 1),
    "diode": on_diode,
    "kink and sine": scattered(kinked, 1),
    "jumps": scattered(jumps, 1, beside(lambda X: np.digitize(X[:, 0], (0.3, 0.7)))),
    "f1": scattered(functions.f1, 2),
    "f2": scattered(functions.f2, 2),
    "f5": scattered(functions.f5, 2),
    "oblique jump": scattered(oblique, 2, beside(lambda X: X[:, 0] + 0.5 * X[:, 1] < 0.7)),
    "oblique kink": scattered(crease, 2),
    "transistor": on_transistor,
}

METHODS = {
    "POURegressor": POURegressor,
    "HierarchicalPOURegressor": HierarchicalPOURegressor,
}
CASES = tuple(TASKS)


def error(make, task, number, degree, seed, part):
    """Relative error of one fit, and its processor seconds."""
    X, y, T, truth = task(seed, part)
    estimator = make(number, degree, random_state=seed)
    seconds = harness.fit(estimator, X, y)
    predicted = estimator.predict(T)
    return harness.rms(predicted - truth) / harness.rms(truth), seconds


def rises(errors):
    """Largest factor (numbers, degrees) above an error of fewer pieces; and of a lower degree."""
    floored = np.maximum(errors, LEAST)
    return tuple(floored / np.minimum.accumulate(floored, axis) for axis in (0, 1))


def rows_of(name, method, seeds, part):
    """Row of each number of pieces on one task, with the bounds."""
    make, task = METHODS[method], TASKS[name]
    runs = np.zeros((len(NUMBERS), len(DEGREES), seeds, 2))
    for i, N in enumerate(NUMBERS):
        for j, m in enumerate(DEGREES):
            runs[i, j] = [error(make, task, N, m, seed, part) for seed in range(seeds)]
        medians = (harness.digits(float(value)) for value in np.median(runs[i, ..., 0], 1))
        print(f"  {name}, {method}, {N}: {', '.join(medians)}", flush=True)
    errors = np.median(runs[..., 0], 2)
    up_numbers, up_degrees = rises(errors)
    for i, N in enumerate(NUMBERS):
        row = {"task": name, "method": method, "pieces": N}
        row |= {f"degree {m}": errors[i, j] for j, m in enumerate(DEGREES)}
        row |= {
            "rise over pieces": float(up_numbers[i].max()),
            "rise over degrees": float(up_degrees[i].max()),
            "slowest fit (s)": float(runs[i, ..., 1].max()),
            "seeds": seeds,
        }
        yield (
            row,
            [
                (f"{RISE} over pieces", row["rise over pieces"], RISE),
                (f"{RISE} over degrees", row["rise over degrees"], RISE),
            ],
        )


def place(row):
    """Order of a row: by estimator and task."""
    return list(METHODS).index(row["method"]), CASES.index(row["task"])


def run(seeds, quick, cases=CASES, only=None):
    """Rows of the tasks and the estimators asked for; others are kept as they are."""
    table = harness.Table()
    methods = [method for method in METHODS if only is None or method in only]
    if not quick:
        table.take_over(
            "more_pieces", lambda row: row["task"] not in cases or row["method"] not in methods
        )
    for name in cases:
        if name == "transistor" and transistor.load() is None:
            print("skipped: transistor, the simulated sweep was not found")
            continue
        for method in methods:
            for row, bounds in rows_of(name, method, seeds, QUICK if quick else 1):
                table.add(row, bounds)
            # After each: an interrupted run keeps what it has measured.
            table.rows.sort(key=place)
            if not quick:
                table.write("more_pieces")
    return table
