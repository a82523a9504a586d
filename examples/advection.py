"""Carry a hump along with a velocity that grows with x, by one linear solve.

The equation u_t + x u_x = 0 holds at points of the unit square; X and y are the values at time 0
and at the end x = 0. The equation is linear in u, so the fit is one least-squares solve for each
bandwidth that is tried:

    python examples/advection.py --output advection.png
"""

import argparse
import time

import numpy as np

from skpou import LSGDRegressor
from skpou.physics import Equation


def transport(u, x, p):
    """Columns of X: 0 is the place, 1 the time."""
    return u.d(1) + x[:, 0] * u.d(0)


def exact(X):
    return np.sin(np.pi * X[:, 0] * np.exp(-X[:, 1])) ** 2


def draw(model, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    side = np.linspace(0, 1, 201)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    u = model.predict(grid)
    error = np.abs(u - exact(grid)) + 1e-18
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    shown = left.pcolormesh(side, side, u.reshape(201, 201), cmap="viridis", rasterized=True)
    figure.colorbar(shown, ax=left)
    left.set(title="Solution", xlabel="x", ylabel="t")
    logs = np.log10(error).reshape(201, 201)
    shown = right.pcolormesh(side, side, logs, cmap="magma", vmin=-17, vmax=-13, rasterized=True)
    figure.colorbar(shown, ax=right)
    right.set(title="Logarithm of the error", xlabel="x", ylabel="t")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="advection.png", help="file of the figure")
    path = parser.parse_args().output

    t = np.linspace(0, 1, 60)
    X = np.unique(np.r_[np.c_[t, 0 * t], np.c_[0 * t, t]], axis=0)
    start = time.perf_counter()
    model = LSGDRegressor(physics=Equation(transport, "chebyshev")).fit(X, exact(X))
    seconds = time.perf_counter() - start

    fresh = np.random.default_rng(1).random((10_000, 2))
    error = np.sqrt(np.mean((model.predict(fresh) - exact(fresh)) ** 2))
    print(f"{model.coef_.size} columns in {seconds:.1f} s")
    print(f"error at fresh points {error:.1e}, residual there {model.equation_residual_:.1e}")
    draw(model, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
