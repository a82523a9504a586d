"""Let a network place its own units on a steep front, a peak and a kink.

The target has all three beside a smooth wave, and 150 scattered points with noise are known of it.
The default ``LSGDRegressor`` decides by itself which units are needed, and how many:

    python examples/steep_front.py --output steep_front.png
"""

import argparse
import time

import numpy as np
from scipy.interpolate import make_interp_spline

from skpou import LSGDRegressor

NOISE = 0.01


def target(x):
    """Front at 0.25, peak at 0.55, kink at 0.8."""
    front = np.tanh(80 * (x - 0.25))
    peak = 1 / (1 + (40 * (x - 0.55)) ** 2)
    return front + 1.5 * peak - 4 * np.abs(x - 0.8) + 0.5 * x


def draw(x, y, model, spline, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    grid = np.linspace(0, 1, 2001)
    mean, std = model.predict(grid[:, None], return_std=True)
    left.fill_between(grid, mean - 2 * std, mean + 2 * std, color="#0072b2", alpha=0.25, lw=0)
    left.plot(grid, mean, color="#0072b2", label="LSGDRegressor, 2 standard deviations")
    left.plot(x, y, ".", color="0.3", markersize=3, label="known points")
    left.set(title="Fit", xlabel="x", ylabel="y")
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 1.0))
    left.set_ylim(top=1.25 * mean.max() - 0.25 * mean.min())
    for name, predicted, color in (
        ("cubic spline", spline(grid), "#e69f00"),
        ("LSGDRegressor", mean, "#0072b2"),
    ):
        right.semilogy(grid, np.abs(predicted - target(grid)) + 1e-7, color=color, label=name, lw=1)
    right.axhline(NOISE, color="0.5", linestyle="--", linewidth=1, label="noise")
    right.set(title="Error between the points", xlabel="x", ylabel="|error|", ylim=(1e-6, 3))
    right.legend(facecolor="white", edgecolor="none", framealpha=1, loc="lower right", ncols=3)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="steep_front.png", help="file of the figure")
    path = parser.parse_args().output

    rng = np.random.default_rng(0)
    x = np.sort(rng.random(150))
    y = target(x) + NOISE * rng.standard_normal(len(x))
    start = time.perf_counter()
    model = LSGDRegressor().fit(x[:, None], y)
    seconds = time.perf_counter() - start
    spline = make_interp_spline(x, y, k=3)

    grid = rng.uniform(x[0], x[-1], 20_000)
    mean, std = model.predict(grid[:, None], return_std="epistemic")
    (columns,) = model.hidden_layer_sizes_
    print(f"basis {model.basis_}, {columns} nonlinear columns, {seconds:.2f} s")
    print(f"noise {model.noise_:.4f}, in truth {NOISE}")
    print(f"rms error on new points: {np.sqrt(np.mean((mean - target(grid)) ** 2)):.1e}")
    print(f"  predicted: {np.sqrt(np.mean(std**2)):.1e}")
    print(f"  cubic spline: {np.sqrt(np.mean((spline(grid) - target(grid)) ** 2)):.1e}")
    draw(x, y, model, spline, path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
