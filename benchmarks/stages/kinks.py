"""Kinks and jumps in one search: MultiStageRegressor beside HierarchicalPOURegressor.

Where the pieces of HierarchicalPOURegressor err the least, MultiStageRegressor, which has them as
one family among others, errs at most three times as much, and takes at most 1.3 times what it
takes without that family. All targets were chosen before any of them was fitted. Errors are root
mean squares at points that were not fitted; below 1e-14 they count as 1e-14.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor, MultiStageRegressor
from skpou.multi_stage import fit as multi_stage
from skpou.multi_stage.families.pieces import SharpPieces

SEEDS = 1
LEAST, RATIO, SLOWER = 1e-14, 3, 1.3
N_TEST = 20_001
#: Target, columns, rows and standard deviation of the noise.
TASKS = {
    "hinge and line": (lambda x: np.maximum(x - 0.37, 0) + 0.3 * x, 1, 150, 0),
    "two kinks": (
        lambda x: np.abs(x - 0.23) - 2 * np.abs(x - 0.71) + np.sin(2 * x), 1, 200, 0,
    ),
    "jump in a wave": (lambda x: np.sin(5 * x) + (x > 0.44), 1, 200, 0),
    "saw, noise": (lambda x: (3 * x) % 1, 1, 200, 1e-2),
    "kink, noise": (lambda x: np.abs(x - 0.4), 1, 150, 1e-2),
    "ramp": (lambda x: np.clip(4 * x - 1.3, 0, 1), 1, 120, 0),
    "plane kink": (lambda x, y: np.abs(x + 0.5 * y - 0.8), 2, 500, 0),
    "disc": (lambda x, y: (np.hypot(x - 0.5, y - 0.4) < 0.3) + 0.5 * x, 2, 800, 0),
    "largest of three": (lambda x, y: np.max([x, y, 1.2 - x - y], 0), 2, 600, 0),
    "jump and quadratic, noise": (lambda x, y: x**2 + y * (x > 0.55), 2, 600, 1e-2),
    "kink beside a jump": (lambda x: np.abs(x - 0.3) + (x > 0.7), 1, 200, 0),
    "three parabolas": (
        lambda x: np.where(x < 0.35, x**2, np.where(x < 0.7, 0.5 - (x - 0.5) ** 2, 1.5 * x**2 - x)),
        1, 200, 0,
    ),
    "rectified wave": (lambda x: np.abs(np.sin(3 * np.pi * x)), 1, 250, 0),
    "steps, noise": (lambda x: np.floor(4 * x), 1, 200, 1e-2),
    "cut exponential, noise": (lambda x: np.maximum(np.exp(2 * x) - 3, 0), 1, 200, 1e-3),
    "oblique jump": (lambda x, y: (x + 2 * y > 1.4) + x * y, 2, 600, 0),
    "oblique kink, noise": (lambda x, y: np.abs(0.6 * x - y + 0.1), 2, 600, 1e-2),
    "curved kink": (lambda x, y: np.maximum(np.hypot(x - 0.3, y - 0.3) - 0.5, 0), 2, 800, 0),
    "three pieces": (
        lambda x, y: np.where(x < 0.4, y, np.where(y < 0.5, x**2, 1 - x * y)), 2, 700, 0,
    ),
    "jump and kink": (lambda x, y: np.abs(x - 0.6) + (y > 0.35), 2, 700, 0),
}  # fmt: skip


def data(number, task):
    """Rows with their targets, test points with the values of the function."""
    function, n_features, n, noise = TASKS[task]
    rng = np.random.default_rng([2026, number])
    X = rng.random((n, n_features))
    y = function(*X.T) + noise * rng.standard_normal(n)
    T = np.linspace(0, 1, N_TEST)[:, None] if n_features == 1 else rng.random((N_TEST, n_features))
    return X, y, T, function(*T.T)


def measured(model, X, y, T, truth):
    """Error and processor seconds."""
    seconds = harness.fit(model, X, y)
    return harness.rms(model.predict(T) - truth), seconds


def without_pieces(*known):
    """The same of a search without the family of sharp pieces."""
    families = multi_stage.FAMILIES
    multi_stage.FAMILIES = tuple(f for f in families if not isinstance(f, SharpPieces))
    try:
        return measured(MultiStageRegressor(random_state=0), *known)
    finally:
        multi_stage.FAMILIES = families


def run(seeds, quick):
    table, times = harness.Table(), []
    for number, task in enumerate(list(TASKS)[: 2 if quick else None]):
        known = data(number, task)
        pieces, piece_seconds = measured(HierarchicalPOURegressor(random_state=0), *known)
        error, seconds = measured(MultiStageRegressor(random_state=0), *known)
        others, other_seconds = without_pieces(*known)
        times.append((seconds, other_seconds))
        bounds = []
        if pieces < max(others, LEAST):
            ratio = max(error, LEAST) / max(pieces, LEAST)
            bounds = [(f"{RATIO} times the pieces", ratio, RATIO)]
        row = {"target": task, "MultiStageRegressor": error, "HierarchicalPOURegressor": pieces}
        row |= {"without pieces": others, "fit (s)": seconds}
        row |= {"fit of HierarchicalPOURegressor (s)": piece_seconds}
        row |= {"fit without pieces (s)": other_seconds}
        table.add(row, bounds)
    total, without = np.sum(times, 0)
    slower = [(f"{SLOWER} times as long in all", total / without, SLOWER)]
    table.add({"target": "all", "fit (s)": total, "fit without pieces (s)": without}, slower)
    return table
