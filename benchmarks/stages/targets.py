"""Targets of the multi-stage benchmark on the box from -1 to 1, with their layouts and rivals."""

import math

import numpy as np
from scipy.special import airy, j0, rgamma


def franke(X):
    a, b = 9 * (X + 1).T / 2
    return (
        0.75 * np.exp(-((a - 2) ** 2) / 4 - (b - 2) ** 2 / 4)
        + 0.75 * np.exp(-((a + 1) ** 2) / 49 - (b + 1) / 10)
        + 0.5 * np.exp(-((a - 7) ** 2) / 4 - (b - 3) ** 2 / 4)
        - 0.2 * np.exp(-((a - 4) ** 2) - (b - 7) ** 2)
    )


def diode(X):
    """Smooth turn-on of a diode, as a scaled logarithm of its current."""
    return np.logaddexp(0, 20 * X[:, 0] - 4) / 16


#: Targets on a line: function, number of samples.
LINE = {
    "ug": (lambda X: np.sin(2 * X[:, 0] + 1) + 0.2 * np.exp(1.3 * X[:, 0]), 300),
    "runge": (lambda X: 1 / (1 + 25 * X[:, 0] ** 2), 300),
    "tanh30": (lambda X: np.tanh(30 * X[:, 0] - 7), 300),
    "tanh100": (lambda X: np.tanh(100 * X[:, 0] - 20), 300),
    "hf": (lambda X: np.sin(40 * X[:, 0] + 1) + 0.3 * np.cos(11 * X[:, 0]), 300),
    "twoscale": (
        lambda X: np.sin(2 * np.pi * X[:, 0]) + 0.01 * np.sin(100 * np.pi * X[:, 0]),
        1000,
    ),
    "abs": (lambda X: np.abs(X[:, 0] - 0.1), 300),
    "step": (lambda X: (X[:, 0] > 0.1).astype(float), 300),
    "noise": (lambda X: np.zeros(len(X)), 300),
}
#: Targets of the prototypes' second table, on a line.
SECOND = {
    "atan": (lambda X: np.arctan(40 * (X[:, 0] - 0.3)) + np.arctan(-60 * (X[:, 0] + 0.4)), 300),
    "mix": (lambda X: np.sin(40 * X[:, 0]) + np.tanh(60 * X[:, 0]), 300),
    "chirp": (lambda X: np.sin(30 * (X[:, 0] + 1.2) ** 2), 300),
    "peak": (lambda X: np.exp(-((X[:, 0] - 0.2) ** 2) * 400), 300),
    "poly": (lambda X: X[:, 0] ** 3 - X[:, 0], 300),
    "diode": (diode, 300),
}
#: Chosen before any of them was fitted by anything, and not changed since.
FRESH = {
    "bessel": (lambda X: j0(40 * X[:, 0] + 10), 300),
    "airy": (lambda X: airy(-9 * X[:, 0] - 4)[0], 300),
    "two bumps": (
        lambda X: np.exp(-200 * (X[:, 0] - 0.6) ** 2) + 1 / np.cosh(25 * (X[:, 0] + 0.5)),
        300,
    ),
    "hinge and wave": (lambda X: np.maximum(X[:, 0] - 0.21, 0) + np.sin(9 * X[:, 0]), 300),
    "logarithm": (lambda X: np.log(1.02 + X[:, 0]), 300),
    "gamma": (lambda X: rgamma(3 * X[:, 0] + 0.5), 300),
    "power": (lambda X: np.abs(X[:, 0] + 0.37) ** 2.5, 300),
    "sinc product": (lambda X: np.sinc(8 * X[:, 0] - 1) * np.cos(3 * X[:, 0]), 300),
}
#: Targets in several dimensions: function, dimension, number of samples, noise.
BOX = {
    "smooth2, 2000": (
        lambda X: np.sin(np.pi * X[:, 0]) * np.cos(2 * np.pi * X[:, 1]) + np.exp(-X.prod(1)),
        2, 2000, 0.0,
    ),
    "smooth2, 4000": (
        lambda X: np.sin(np.pi * X[:, 0]) * np.cos(2 * np.pi * X[:, 1]) + np.exp(-X.prod(1)),
        2, 4000, 0.0,
    ),
    "ridge2": (lambda X: np.tanh(20 * (X[:, 0] + X[:, 1] / 2 - 0.3)), 2, 2000, 0.0),
    "peak2": (lambda X: np.exp(-60 * np.square(X).sum(1)), 2, 2000, 0.0),
    "absxy": (lambda X: np.abs(X[:, 0] - X[:, 1]), 2, 2000, 0.0),
    "franke": (franke, 2, 2000, 0.0),
    "f3": (lambda X: np.sin(2 * X[:, 0] + X[:, 1] * X[:, 2]) * np.exp(X[:, 2] * X[:, 0]), 3,
           10_000, 0.0),
    "front2": (lambda X: np.tanh(20 * (np.hypot(X[:, 0], X[:, 1]) - 0.5)), 2, 2000, 0.0),
    "front2, noise": (lambda X: np.tanh(20 * (np.hypot(X[:, 0], X[:, 1]) - 0.5)), 2, 2000, 1e-2),
    "abs2": (lambda X: np.abs(X.prod(1)), 2, 2000, 0.0),
    "abs2, noise": (lambda X: np.abs(X.prod(1)), 2, 2000, 1e-2),
}  # fmt: skip


def points(layout, n, seed):
    """Even points, or scattered ones with both ends and two gaps; from -1 to 1."""
    if layout == "uniform":
        return np.linspace(-1, 1, n)[:, None]
    rng = np.random.default_rng([seed, n])
    width = 12 / n
    gaps = rng.uniform(-0.9, 0.9 - width, 2)
    x = rng.uniform(-1, 1, 2 * n)
    x = x[~((x[:, None] > gaps) & (x[:, None] < gaps + width)).any(1)][: n - 2]
    return np.concatenate([x, [-1.0, 1.0]])[:, None]


def scattered(d, n, seed):
    return np.random.default_rng([seed, n, d]).uniform(-1, 1, (n, d))


def fresh(d, n=10_001):
    """Points that no model has seen: even on a line."""
    if d == 1:
        return np.linspace(-1, 1, n)[:, None]
    return np.random.default_rng(123_456).uniform(-1, 1, (n, d))


def rms(values):
    return math.sqrt(np.mean(np.square(values)))
