"""Error bars of networks of a given size that solve equations, beside their errors.

Problems on a line and in the plane, linear and not, two of them of two outputs, two with noise, by
networks of one and of two hidden layers with few steps of variable projection: what they leave is
more than round-off, and the bars must know of it. ``within 3 std`` is the share of fresh points
with an error of at most three epistemic standard deviations, the mean over seeds and sizes; in
``fits`` are those with 95 of 100 points there.
"""

import time
import warnings

import numpy as np
import torch

from benchmarks.shared import harness
from skpou import LSGDRegressor, MultiStageRegressor
from skpou.physics import Equation, Unknown

SEEDS = 2
STEPS, N_FRESH, ENOUGH = 50, 2000, 0.95
SIZES = ((15,), (9, 9))
METHODS = {"LSGDRegressor": LSGDRegressor, "MultiStageRegressor": MultiStageRegressor}
PI = np.pi


def line(n, high=1.0):
    return np.linspace(0, high, n)[:, None]


def rotation(u, x):
    return torch.stack([u[0].d(0) - u[1](), u[1].d(0) + 4 * u[0]()], 1)


def heat(u, x):
    return u.d(1) - 0.1 * u.d(0, 0)


def heated(X):
    return np.sin(PI * X[:, 0]) * np.exp(-0.1 * PI**2 * X[:, 1])


def convection(u, x):
    return u.d(0) - 0.1 * u.d(0, 0) - 1


def convected(X):
    return X[:, 0] - (np.exp(10 * X[:, 0] - 10) - np.exp(-10)) / (1 - np.exp(-10))


def airy(u, x):
    t = 1 + 5 * x[:, 0]
    return u.d(0, 0) + t * u() - (t - 9) * torch.sin(3 * x[:, 0])


def bernoulli(u, x):
    return u.d(0) + u() - u() ** 2 * torch.exp(-x[:, 0])


def of_bernoulli(X):
    return np.exp(-X[:, 0]) / (2 - 0.5 * (1 - np.exp(-2 * X[:, 0])))


def spring(u, x, p):
    return u.d(0, 0) + p["k"] * u()


def relaxations(u, x):
    return torch.stack([u[0].d(0) + u[0]() - u[1](), u[1].d(0) + 2 * u[1]()], 1)


def relaxed(X):
    slow, fast = np.exp(-X[:, 0]), np.exp(-2 * X[:, 0])
    return np.c_[2 * slow - fast, fast]


def problems(rng):
    """Name, equation, unknowns, points of data, exact solution, upper end of the box, noise."""
    yield (
        *("rotation", Equation(rotation, line(40, 2)), None, np.zeros((1, 1))),
        *(lambda X: np.c_[np.sin(2 * X[:, 0]), 2 * np.cos(2 * X[:, 0])], 2, 0.0),
    )
    start = np.c_[np.linspace(0, 1, 20), np.zeros(20)]
    ends = [np.c_[np.full(12, side), np.linspace(0, 1, 12)] for side in (0.0, 1.0)]
    X = np.concatenate([start, *ends])
    yield "heat", Equation(heat, rng.random((200, 2))), None, X, heated, 1, 0.0
    yield "convection", Equation(convection, line(60)), None, line(2), convected, 1, 0.0
    yield (
        *("variable spring", Equation(airy, line(60, 2)), None, line(2, 2)),
        *(lambda X: np.sin(3 * X[:, 0]), 2, 0.0),
    )
    growth = Equation(bernoulli, line(40, 1.5))
    yield "Bernoulli", growth, None, np.zeros((1, 1)), of_bernoulli, 1.5, 0.0
    yield (
        *("spring, noise", Equation(spring, line(50, 2)), {"k": Unknown(7.0, bounds=(2, 20))}),
        *(np.sort(2 * rng.random((40, 1)), 0), lambda X: np.cos(3 * X[:, 0]), 2, 0.05),
    )
    X = np.sort(2 * rng.random((25, 1)), 0)
    yield "two outputs, noise", Equation(relaxations, line(40, 2)), None, X, relaxed, 2, 0.03


def measured(model, X, y, fresh, truth):
    """Error, median of the standard deviations, share within three of them, seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Steps are used up.
        start = time.process_time()
        model.fit(X, y)
        seconds = time.process_time() - start
    mean, std = model.predict(fresh, return_std="epistemic")
    error = np.abs(mean - truth)
    return harness.rms(error), float(np.median(std)), float(np.mean(error <= 3 * std)), seconds


def run(seeds, quick):
    table, found = harness.Table(), {}
    for seed in range(seeds):
        rng = np.random.default_rng([79, seed])
        for name, physics, unknowns, X, exact, high, noise in problems(rng):
            y, fresh = exact(X), high * rng.random((N_FRESH, X.shape[1]))
            y = y + noise * rng.standard_normal(y.shape)
            for method, make in METHODS.items():
                for sizes in SIZES[:1] if quick else SIZES:
                    model = make(
                        hidden_layer_sizes=sizes, solver="varpro", physics=physics,
                        unknowns=unknowns, max_iter=STEPS, random_state=seed,
                    )  # fmt: skip
                    own = measured(model, X, y, fresh, exact(fresh))
                    found.setdefault((name, method), []).append(own)
    for (name, method), runs in found.items():
        error, std, within, seconds = (np.array(part) for part in zip(*runs, strict=True))
        row = {"task": name, "method": method, "median error": float(np.median(error))}
        row |= {"median std": float(np.median(std)), "within 3 std": float(within.mean())}
        row["fits"] = f"{(within >= ENOUGH).sum()} of {len(within)}"
        table.add(row | {"fit (s)": float(np.median(seconds)), "seeds": seeds})
    return table
