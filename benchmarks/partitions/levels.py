"""Levels of a tree of soft pieces beside fits of as many pieces: no level is a mere summary.

Every level errs at most three times as much as one level of so many pieces; errors below 1e-12
count as 1e-12.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor
from skpou.datasets import make_sine_bump

SEEDS = 1
DEGREES = (2, 4)
LEAST, RATIO = 1e-12, 3
N_TEST = 5001


def sine_bump(X):
    """The target of Eq. 45."""
    return make_sine_bump(X=X)[1]


def chirp(X):
    """A wave that gets shorter."""
    return np.sin(9 * X[:, 0] ** 2) * np.exp(X[:, 0])


def packet(X):
    """A wave below a bump, in the plane."""
    return np.exp(-4 * np.square(X - 0.4).sum(1)) * np.cos(3 * X[:, 0] + X[:, 1])


#: Target, columns, rows and sizes of each task.
TASKS = {
    "sine and bump": (sine_bump, 1, 500, (3, 2, 2)),
    "chirp": (chirp, 1, 400, (3, 3)),
    "packet": (packet, 2, 800, (2, 2)),
}


def fitted(task, size, degree, seed):
    """Model, its processor seconds, test points and the target there."""
    function, n_features, n, _ = TASKS[task]
    X = harness.sample(n_features, n, seed)
    T = np.random.default_rng(1000 + seed).random((N_TEST, n_features))
    model = HierarchicalPOURegressor(size, degree, random_state=seed)
    return model, harness.fit(model, X, function(X)), T, function(T)


def error(predicted, truth):
    """Relative error."""
    return harness.rms(predicted - truth) / harness.rms(truth)


def levels_of(task, degree, seed):
    """Pieces, error and that of as many pieces alone of each level; seconds of the tree's fit."""
    tree, seconds, T, truth = fitted(task, TASKS[task][-1], degree, seed)
    found = []
    for level, most in enumerate(np.cumprod(TASKS[task][-1]).tolist()):
        flat, _, _, _ = fitted(task, most, degree, seed)
        own = error(tree.predict(T, level=level), truth)
        found.append((len(tree.tree_[level]), own, error(flat.predict(T), truth)))
    return found, seconds


def run(seeds, quick):
    table = harness.Table()
    for task in list(TASKS)[: 1 if quick else None]:
        for degree in DEGREES:
            runs = [levels_of(task, degree, seed) for seed in range(seeds)]
            for level in range(len(TASKS[task][-1])):
                pieces, own, flat = np.median([found[level] for found, _ in runs], 0).tolist()
                row = {"task": task, "sizes": str(TASKS[task][-1]), "degree": degree}
                row |= {"level": level, "pieces": int(pieces), "error": own}
                row |= {"as many pieces alone": flat, "fit (s)": runs[0][1], "seeds": seeds}
                ratio = max(own, LEAST) / max(flat, LEAST)
                table.add(row, [(f"{RATIO} times as many alone", ratio, RATIO)])
    return table
