"""Solve Helmholtz' equation in a square, with a wave that is finer along one side.

The Laplacian of u plus u equals a known source, and u vanishes on the edges. The features stretch
along the coordinate in which the solution varies faster, as the first solve shows it:

    python examples/helmholtz.py --output helmholtz.png
"""

import argparse
import time

import numpy as np
import torch

from skpou import LSGDRegressor
from skpou.physics import Equation

PI = np.pi


def helmholtz(u, x, p):
    return u.d(0, 0) + u.d(1, 1) + u()


def source(x):
    """What makes sin(pi x) sin(4 pi y) the solution; x is a tensor."""
    return (1 - 17 * PI**2) * torch.sin(PI * x[:, 0]) * torch.sin(4 * PI * x[:, 1])


def exact(X):
    return np.sin(PI * X[:, 0]) * np.sin(4 * PI * X[:, 1])


def edges(n):
    t, one = np.linspace(-1, 1, n), np.ones(n)
    sides = [np.c_[t, -one], np.c_[t, one], np.c_[-one, t], np.c_[one, t]]
    return np.unique(np.concatenate(sides), axis=0)


def draw(model, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    side = np.linspace(-1, 1, 201)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    u = model.predict(grid)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    shown = left.pcolormesh(side, side, u.reshape(201, 201), cmap="RdBu_r", rasterized=True)
    figure.colorbar(shown, ax=left)
    left.set(title="Solution", xlabel="x", ylabel="y", aspect="equal")
    logs = np.log10(np.abs(u - exact(grid)) + 1e-18).reshape(201, 201)
    shown = right.pcolormesh(side, side, logs, cmap="magma", vmin=-17, vmax=-13, rasterized=True)
    figure.colorbar(shown, ax=right)
    right.set(title="Logarithm of the error", xlabel="x", ylabel="y", aspect="equal")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="helmholtz.png", help="file of the figure")
    path = parser.parse_args().output

    X = edges(60)
    start = time.perf_counter()
    model = LSGDRegressor(physics=Equation(helmholtz, "chebyshev", source))
    model.fit(X, np.zeros(len(X)))
    seconds = time.perf_counter() - start

    fresh = np.random.default_rng(1).uniform(-1, 1, (10_000, 2))
    error = np.sqrt(np.mean((model.predict(fresh) - exact(fresh)) ** 2))
    print(f"{model.coef_.size} columns in {seconds:.1f} s, error at fresh points {error:.1e}")
    draw(model, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
