"""Solve the viscous Burgers equation, whose solution steepens to a front of width 0.01.

From -sin(pi x) at time 0, u_t + u u_x = (0.01 / pi) u_xx is the standard test of networks that
solve equations. HierarchicalPOURegressor marches in time, cuts pieces where the residual is large
and raises their degrees where coefficients decay fast; nothing tells it where the front is:

    python examples/viscous_burgers.py --output viscous_burgers.png
"""

import argparse
import time

import numpy as np

from skpou import HierarchicalPOURegressor
from skpou.physics import Equation

VISCOSITY = 0.01 / np.pi


def burgers(u, x):
    return u.d(1) + u() * u.d(0) - VISCOSITY * u.d(0, 0)


def conditions(n=401):
    """The values at time 0, and 0 at both ends."""
    x, t = np.linspace(-1, 1, n), np.linspace(0, 1, n)
    X = np.unique(np.r_[np.c_[x, 0 * x], np.c_[0 * t - 1, t], np.c_[0 * t + 1, t]], axis=0)
    return X, np.where(X[:, 1] == 0, -np.sin(np.pi * X[:, 0]), 0.0)


def cole_hopf(X):
    """The exact solution: a quotient of two integrals, here by 200 nodes."""
    z, w = np.polynomial.hermite.hermgauss(200)
    place = X[:, :1] - 2 * np.sqrt(VISCOSITY * np.maximum(X[:, 1:], 1e-14)) * z
    power = -np.cos(np.pi * place) / (2 * np.pi * VISCOSITY)
    f = w * np.exp(power - power.max(1, keepdims=True))
    return -(np.sin(np.pi * place) * f).sum(1) / f.sum(1)


def draw(model, path):
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, 201)
    X = np.stack(np.meshgrid(x, t, indexing="ij"), -1).reshape(-1, 2)
    mean, std = model.predict(X, return_std="epistemic")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
    image = left.pcolormesh(t, x, mean.reshape(401, 201), cmap="RdBu_r", rasterized=True)
    box, low, high = model.scaling_, model.model_["low"], model.model_["high"]
    for a, b in zip(box["offset"] + box["width"] * low, box["width"] * (high - low)):
        left.add_patch(Rectangle(a[::-1], *b[::-1], fill=False, lw=0.4, color="0.2"))
    left.set(title=f"Solution on {len(low)} pieces", xlabel="t", ylabel="x")
    figure.colorbar(image, ax=left)
    near = np.linspace(-0.1, 0.1, 401)
    for time_, color in ((0.25, "#56b4e9"), (0.5, "#0072b2"), (1.0, "#d55e00")):
        line = np.c_[near, 0 * near + time_]
        middle.plot(near, model.predict(line), color=color, label=f"t = {time_:g}")
        middle.plot(near[::25], cole_hopf(line)[::25], ".", color=color)
    middle.set(title="The front, and Cole-Hopf (points)", xlabel="x", ylabel="u")
    middle.legend(frameon=False)
    error = np.abs(mean - cole_hopf(X)).reshape(401, 201)
    right.semilogy(t, error.max(0) + 1e-17, color="#d55e00", label="largest error")
    right.semilogy(t, 3 * std.reshape(401, 201).max(0), color="0.5", label="three deviations")
    right.set(title="Error at each time", xlabel="t")
    right.legend(frameon=False)
    for axes in (middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="viscous_burgers.png", help="file of the figure")
    path = parser.parse_args().output

    model = HierarchicalPOURegressor(physics=Equation(burgers, "sobol"))
    start = time.process_time()
    model.fit(*conditions())
    seconds = time.process_time() - start
    X = np.random.default_rng(0).uniform([-1, 0], [1, 1], (10_000, 2))
    exact = cole_hopf(X)
    error = np.sqrt(np.mean((model.predict(X) - exact) ** 2) / np.mean(exact**2))
    print(f"relative error {error:.1e} in {seconds:.1f} s, {len(model.coef_)} pieces")
    draw(model, path)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
