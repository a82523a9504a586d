"""Functions and classes on sparse grids.

Left and middle: a front along a line and a narrow peak, known at 4000 scattered points with noise
0.01. Grid points are added where the function needs them. Right: two moons, told apart by a
density for each on a regular sparse grid:

    python examples/sparse_grids.py --output sparse_grid_example.png
"""

import argparse
import time

import numpy as np

from skpou import SparseGridClassifier, SparseGridRegressor
from skpou.datasets import make_two_moons_3d


def front_and_peak(X):
    front = np.tanh(20 * (X[:, 0] + 0.4 * X[:, 1] - 0.5))
    return front + np.exp(-300 * ((X - np.array([0.8, 0.7])) ** 2).sum(1))


def mesh(low, high):
    """Coordinates of a fine mesh as images, and its points."""
    images = np.meshgrid(*(np.linspace(a, b, 300) for a, b in zip(low, high)))
    return images, np.column_stack([image.ravel() for image in images])


def draw(regressor, classifier, moons, labels, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 3.9), layout="constrained")

    images, points = mesh((0, 0), (1, 1))
    truth, predicted = front_and_peak(points), regressor.predict(points)
    surface = left.pcolormesh(
        *images, predicted.reshape(images[0].shape), cmap="cividis", rasterized=True
    )
    figure.colorbar(surface, ax=left, shrink=0.8, label="predicted y")
    left.scatter(*regressor.grid_points_.T, s=3, color="white", linewidths=0)
    left.set_title(f"Prediction and the {len(regressor.coef_)} grid points")

    error = np.maximum(np.abs(predicted - truth), 1e-5).reshape(images[0].shape)
    surface = middle.pcolormesh(*images, np.log10(error), cmap="viridis", rasterized=True)
    figure.colorbar(surface, ax=middle, shrink=0.8, label=r"$\log_{10}$ |error|")
    middle.set_title("Error without the noise")

    images, points = mesh(moons.min(0), moons.max(0))
    probability = classifier.predict_proba(points)[:, 1].reshape(images[0].shape)
    surface = right.pcolormesh(*images, probability, cmap="coolwarm", vmin=0, vmax=1, alpha=0.7)
    figure.colorbar(surface, ax=right, shrink=0.8, label="probability of the lower moon")
    right.contour(*images, probability, levels=[0.5], colors="black")
    for label, color in enumerate(("#08519c", "#a50f15")):
        right.scatter(*moons[labels == label].T, s=3, color=color, linewidths=0)
    right.set_title("Two moons")
    for ax in (left, middle, right):
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
    for ax in (left, middle):
        ax.set_aspect("equal")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="sparse_grid_example.png", help="file of the figure")
    path = parser.parse_args().output

    rng = np.random.default_rng(0)
    X, X_new = rng.random((4000, 2)), rng.random((20000, 2))
    y, truth = front_and_peak(X) + 0.01 * rng.standard_normal(len(X)), front_and_peak(X_new)
    for n_refinements in (0, 60):
        start = time.perf_counter()
        regressor = SparseGridRegressor(n_refinements=n_refinements).fit(X, y)
        seconds = time.perf_counter() - start
        mean, std = regressor.predict(X_new, return_std="epistemic")
        error = np.sqrt(np.mean((mean - truth) ** 2))
        print(f"{len(regressor.coef_)} grid points: error {error:.4f} in {seconds:.2f} s")
        print(f"  within two standard deviations: {np.mean(abs(mean - truth) < 2 * std):.0%}")

    noise = 0.2
    moons, labels = make_two_moons_3d(2000, noise=noise, random_state=0)
    new, new_labels = make_two_moons_3d(20000, noise=noise, random_state=1)
    bayes = np.mean(make_two_moons_3d(noise=noise, X=new)[1] == new_labels)
    moons = moons[:, :2]
    for method in ("density", "one_hot", "softmax"):
        start = time.perf_counter()
        classifier = SparseGridClassifier(method=method).fit(moons, labels)
        seconds = time.perf_counter() - start
        accuracy = classifier.score(new[:, :2], new_labels)
        print(f"{method}: accuracy {accuracy:.4f}, Bayes' rule {bayes:.4f}, {seconds:.2f} s")
    classifier.set_params(method="density").fit(moons, labels)
    draw(regressor, classifier, moons, labels, path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
