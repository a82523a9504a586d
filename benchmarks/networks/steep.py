"""Steep and peaked targets for LSGDRegressor by default, in one and two dimensions, with rivals.

The first targets are units of the dictionary or close to it; the fresh ones are not, and were
chosen before any of them was fitted. Errors are root mean squares at fresh points of the whole
box; in one dimension the largest error is compared with a cubic spline's.
"""

import time
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from benchmarks.shared import harness
from skpou import LSGDRegressor

SEEDS = 5
N_LINE, N_PLANE = 300, 2000
#: Width and number of the gaps in scattered points on a line.
GAP, N_GAPS = 0.02, 2
#: Rivals that take seconds get so many samples.
SLOW, SLOW_SEEDS = ("Gaussian process", "neural network, L-BFGS", "neural network, Adam"), 1
BEST, WORST = 1.0, 3.0


class Errors(NamedTuple):
    """Errors at fresh points and seconds."""

    rms: float
    largest: float
    fit: float
    predict: float
    basis: str


def centred(X):
    return 2 * X - 1


#: Target, dimension, bound of the error.
KNOWN = {
    "1/(1+25x^2)": (lambda X: 1 / (1 + 25 * centred(X)[:, 0] ** 2), 1, 1e-12),
    "tanh(30x-7)": (lambda X: np.tanh(30 * X[:, 0] - 7), 1, 1e-12),
    "tanh(100x-20)": (lambda X: np.tanh(100 * X[:, 0] - 20), 1, 1e-12),
    "abs(x-.1)": (lambda X: np.abs(X[:, 0] - 0.1), 1, 2e-5),
    "tanh(20(x+y/2-.3))": (lambda X: np.tanh(20 * (X[:, 0] + X[:, 1] / 2 - 0.3)), 2, 1e-13),
    "exp(-60r^2)": (lambda X: np.exp(-60 * np.square(centred(X)).sum(1)), 2, 1e-8),
    "abs(x-y)": (lambda X: np.abs(X[:, 0] - X[:, 1]), 2, 5e-6),
}
FRESH = {
    "atan(60(x-.43)) + x^2": (lambda X: np.arctan(60 * (X[:, 0] - 0.43)) + X[:, 0] ** 2, 1),
    "sech(40(x-.61))": (lambda X: 1 / np.cosh(40 * (X[:, 0] - 0.61)), 1),
    "erf(50(x-.3)) cos(3x)": (lambda X: erf(50 * (X[:, 0] - 0.3)) * np.cos(3 * X[:, 0]), 1),
    "abs(sin(4 pi x))": (lambda X: np.abs(np.sin(4 * np.pi * X[:, 0])), 1),
    "sin(24 pi x^2)": (lambda X: np.sin(24 * np.pi * X[:, 0] ** 2), 1),
    "max(x-.52, 0)^1.5": (lambda X: np.maximum(X[:, 0] - 0.52, 0) ** 1.5, 1),
    "tanh(15(r-.7))": (lambda X: np.tanh(15 * (np.hypot(X[:, 0], X[:, 1]) - 0.7)), 2),
    "1/(1+40(x-y^2)^2)": (lambda X: 1 / (1 + 40 * (X[:, 0] - X[:, 1] ** 2) ** 2), 2),
}


def step(X):
    return (X[:, 0] > 0.37).astype(float)


def nothing(X):
    return np.zeros(len(X))


def line(layout, seed):
    """300 points: even, or scattered with gaps and the ends of the interval."""
    if layout == "uniform":
        return np.linspace(0, 1, N_LINE)[:, None]
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(0.05, 0.95 - GAP, N_GAPS)
    x = rng.random(2 * N_LINE)
    x = x[~((x[:, None] > gaps) & (x[:, None] < gaps + GAP)).any(1)][: N_LINE - 2]
    return np.concatenate([x, [0.0, 1.0]])[:, None]


def points(d, layout, seed):
    return line(layout, seed) if d == 1 else harness.sample(d, N_PLANE, seed)


def measure(make, function, d, layout, seed, noise=0.0):
    X, X_test = points(d, layout, seed), harness.fresh(d, seed)
    y = function(X) + noise * np.random.default_rng(20_000 + seed).standard_normal(len(X))
    model = make()
    seconds = harness.fit(model, X, y)
    start = time.process_time()
    predicted = model.predict(X_test)
    predict = time.process_time() - start
    error = np.abs(predicted - function(X_test))
    basis = "+".join(getattr(model, "basis_", []))
    return Errors(harness.rms(error), float(error.max()), seconds, predict, basis)


class Comparison:
    """One task: the model on all seeds, rivals on as many as they can afford."""

    def __init__(self, table, function, d, layout, seeds, noise=0.0):
        self.table, self.seeds = table, seeds
        self.task = (function, d, layout)
        self.noise = noise
        self.ours = self.runs(LSGDRegressor, seeds)

    def runs(self, make, seeds):
        return [measure(make, *self.task, seed, self.noise) for seed in range(seeds)]

    def rivals(self, names=None):
        """Runs of each rival by name."""
        _, d, _ = self.task
        n = N_LINE if d == 1 else N_PLANE
        found = {}
        for name, make in harness.rivals(n, d).items():
            # Twenty minutes for each target in the plane
            if (names is not None and name not in names) or (name == SLOW[0] and d > 1):
                continue
            found[name] = self.runs(make, min(self.seeds, SLOW_SEEDS if name in SLOW else SEEDS))
        return found

    def spline_ratio(self, rivals):
        """Worst ratio of the largest errors, this model's over the cubic spline's."""
        spline = rivals["spline, degree 3"]
        return max(a.largest / b.largest for a, b in zip(self.ours, spline))

    def add(self, name, rivals, bounds=(), **more):
        _, _, layout = self.task
        for method, runs in {"LSGDRegressor": self.ours, **rivals}.items():
            ours = method == "LSGDRegressor"
            row = {
                "target": name,
                "points": layout,
                "method": method,
                "median error": float(np.median([run.rms for run in runs])),
                "worst error": max(run.rms for run in runs),
                "largest error": max(run.largest for run in runs),
                "basis": ", ".join(sorted({run.basis for run in runs})),
                "fit (s)": float(np.median([run.fit for run in runs])),
                "predict (s)": float(np.median([run.predict for run in runs])),
                "seeds": len(runs),
            }
            self.table.add(row | (more if ours else {}), bounds if ours else ())


def layouts(d):
    return ("uniform", "gaps") if d == 1 else ("random",)


def known(table, seeds, quick):
    for name, (function, d, limit) in KNOWN.items():
        for layout in layouts(d):
            task = Comparison(table, function, d, layout, seeds)
            rivals = {} if quick else task.rivals()
            worst = max(run.rms for run in task.ours)
            bounds = [(f"error {harness.digits(limit, 1)}", worst, limit)]
            if rivals and d == 1:
                bounds.append(("3 times the spline's largest error", task.spline_ratio(rivals), 3))
            task.add(name, rivals, bounds)


def fresh(table, seeds, quick):
    """The fresh targets, and in how many of them the model is at least as good as the best rival.

    The best rival of a task is the one of the least median error, known only afterwards.
    """
    ratios = []
    for name, (function, d) in FRESH.items():
        for layout in layouts(d)[-1:] if quick else layouts(d):
            task = Comparison(table, function, d, layout, seeds)
            rivals = task.rivals(("spline, degree 3", "radial basis functions") if quick else None)
            best = min(float(np.median([run.rms for run in runs])) for runs in rivals.values())
            ratio = float(np.median([run.rms for run in task.ours])) / best
            ratios.append(ratio)
            bounds = [("3 times the best rival", ratio, WORST)]
            if d == 1:
                bounds.append(("3 times the spline's largest error", task.spline_ratio(rivals), 3))
            task.add(name, rivals, bounds, **{"error / best rival": ratio})
    worse = sum(ratio > BEST for ratio in ratios)
    text = f"best in two thirds of {len(ratios)}"
    row = {"target": "all fresh", "method": "LSGDRegressor", "error / best rival": max(ratios)}
    table.add(row | {"seeds": seeds}, [(text, worse, len(ratios) / 3)])


def noise_and_steps(table, seeds):
    spline = ("spline, degree 3",)
    for layout in layouts(1):
        task = Comparison(table, nothing, 1, layout, seeds, noise=1.0)
        others = sum(run.basis != "polynomials" for run in task.ours)
        spread = max(run.largest - run.rms for run in task.ours)
        bounds = [("polynomials", others, 0), ("a constant", spread, 1e-12)]
        task.add("pure noise", task.rivals(spline), bounds)
        task = Comparison(table, step, 1, layout, seeds)
        rivals = task.rivals(spline)
        ratio = max(a.rms / b.rms for a, b in zip(task.ours, rivals[spline[0]]))
        task.add("step", rivals, [("twice the spline", ratio, 2)])


def run(seeds, quick):
    table = harness.Table()
    noise_and_steps(table, seeds)
    known(table, seeds, quick)
    fresh(table, seeds, quick)
    return table
