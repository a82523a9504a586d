"""Target functions on the unit cube, and how well the model recovers each of them.

f1 to f7 live on the square, d4 and d4s on the four-dimensional cube. f1 and f2 are Eqs. 47 and 48
of Trask et al. (MSML 2022), f2 in its continuous form.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor
from skpou.datasets import make_curved_ridge


def f1(X):
    """Smooth: a sine across parabolas."""
    return make_curved_ridge(X=X, kind="smooth")[1]


def f2(X):
    """Continuous, five quartic pieces between parabolas."""
    return make_curved_ridge(X=X, kind="kinked")[1]


def f2_pieces(X):
    """Number of f2's piece at each point, 0 to 4."""
    return np.floor(4 * (X[:, 1] - (X[:, 0] - 0.5) ** 2)).astype(int) + 1


def f3(X):
    """Kinked along a sine, the pieces no polynomials."""
    x, y = X.T
    return np.abs(y - 0.5 - 0.2 * np.sin(5 * x)) * np.exp(x) + np.cos(3 * x * y)


def f4(X):
    """Jumping along a circle."""
    x, y = X.T
    inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09
    return np.where(inside, np.exp(x * y), np.sin(3 * x + y))


def f5(X):
    """Hinged along a parabola, above a parabola's thin tips."""
    x, y = X.T
    return np.maximum(x**2 + y - 1, 0) * np.cos(x) + y**2


def f6(X):
    """Kinked along a parabola, the pieces no polynomials."""
    x, y = X.T
    return np.abs(x**2 + y - 0.8) * np.sin(3 * x + y) + np.exp(y)


def f7(X):
    """Hinged along a circle, the pieces no polynomials."""
    x, y = X.T
    depth = (x - 0.5) ** 2 + (y - 0.5) ** 2 - 0.09
    return np.cos(3 * x + y) + 10 * np.sin(5 * x * y) * np.minimum(depth, 0)


def d4(X):
    """Two quadratic pieces in four dimensions."""
    return np.abs(X[:, 0] + X[:, 1] ** 2 - X[:, 2]) + X[:, 3] * X[:, 0] / 2


def d4s(X):
    """Two pieces in four dimensions that are no polynomials."""
    ridge = np.abs(X[:, 0] + X[:, 1] ** 2 - X[:, 2])
    return ridge * np.exp(X[:, 3] / 2) + np.sin(X[:, 3] + X[:, 0])


AUTO_SEEDS = 1  # without given sizes a smooth function takes a minute or more

# Function, features, n_partitions, degree, what it is.
CASES = (
    (f1, 2, 8, 4, "f1: smooth"),
    (f3, 2, 16, 4, "f3: kink on a sine"),
    (f4, 2, 8, 4, "f4: jump on a circle"),
    (f5, 2, 8, 4, "f5: hinge on a parabola"),
    (f6, 2, 8, 4, "f6: kink on a parabola"),
    (f7, 2, 8, 4, "f7: hinge on a circle"),
    (d4s, 4, 8, 3, "d4s: kink in 4-D"),
)


def run(seeds, quick):
    table = harness.Table()
    for function, n_features, n_partitions, degree, title in CASES:
        for size, order in ((n_partitions, degree), ("auto", "auto")):
            method = f"skpou, {size}, {order}"
            runs = [
                harness.measure(
                    HierarchicalPOURegressor(size, order), function, n_features, 2500, seed
                )
                for seed in range(seeds if size != "auto" else min(seeds, AUTO_SEEDS))
            ]
            table.add_runs(f"{title}, n=2500", method, runs)
            if quick:
                break
    return table
