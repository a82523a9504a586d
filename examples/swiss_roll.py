"""A roll flattened into a sparse grid.

The target depends on two coordinates along a roll in three dimensions. The encoder finds them, and
a sparse grid in the unit square describes the target there:

    python examples/swiss_roll.py --output swiss_roll.png
"""

import argparse
import time

import numpy as np

from skpou import NeuralSparseGridRegressor
from skpou.datasets import make_swiss_roll
from skpou.inspection import LatentGridDisplay


def draw(model, X, y, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    figure = plt.figure(figsize=(9, 4.2), layout="constrained")
    left = figure.add_subplot(1, 2, 1, projection="3d")
    left.scatter(X[:, 0], X[:, 2], X[:, 1], c=y, s=4, cmap="viridis")
    left.set(xlabel="$x_1$", ylabel="$x_3$", zlabel="$x_2$", title="The roll and its target")
    right = figure.add_subplot(1, 2, 2)
    LatentGridDisplay.from_estimator(model, X, y, ax=right)
    share = model.active_fraction_
    right.set_title(f"In the box of the grid: {share:.0%} of its functions are used")
    figure.get_layout_engine().set(h_pad=0.1)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="swiss_roll.png", help="where the figure goes")
    path = parser.parse_args().output

    X, y = make_swiss_roll(4000, random_state=0)
    start = time.perf_counter()
    model = NeuralSparseGridRegressor(level=5).fit(X[:3000], y[:3000])
    seconds = time.perf_counter() - start
    mean, std = model.predict(X[3000:], return_std=True)
    error = np.sqrt(np.mean((mean - y[3000:]) ** 2))
    print(f"{len(model.coef_)} grid points: error {error:.5f} in {seconds:.1f} s")
    print(f"within two standard deviations: {np.mean(abs(mean - y[3000:]) < 2 * std):.0%}")
    draw(model, X[3000:], y[3000:], path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
