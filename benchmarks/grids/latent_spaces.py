"""Embeddings of two components: as training goes on, and MNIST by two encoders.

After Figs. 3.21 and 3.25 to 3.27 of Zhang (2021), by a callback that is handed a fitted copy
after every pass. MNIST is 10,000 images, 8000 to fit and 2000 to test; without the file its rows
are missing. A fit of the residual encoder takes several minutes of one processor.
"""

import copy

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.grids.neural_sparse_grid_classes import DIGITS, MNIST, fitted
from benchmarks.shared import harness
from skpou import NeuralSparseGridClassifier
from skpou.inspection import LatentGridDisplay
from skpou.nn import residual_encoder

SEEDS = 3
#: Passes whose embeddings are drawn.
DRAWN = (1, 4, 12)
PASSES = 12
TWO = {"n_components": 2, "level": 5, "max_iter": PASSES}
GOAL = 0.97


class Snapshots:
    """Accuracies after every pass on rows that are not fitted, and copies of some models."""

    def __init__(self, X, y):
        self.X, self.y, self.accuracies, self.models = X, y, [], {}

    def setup(self, estimator, context):
        """Nothing: what scikit-learn calls before a fit."""

    def on_fit_task_begin(self, estimator, context):
        """Nothing: what it calls before a step."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        """After a pass."""
        if context.task_name == "step" and fitted_estimator is not None:
            self.accuracies.append(fitted_estimator.score(self.X, self.y))
            if len(self.accuracies) in DRAWN:
                self.models[len(self.accuracies)] = copy.deepcopy(fitted_estimator)
        return False

    def teardown(self, estimator, context):
        """Nothing: what it calls after a fit."""


def epochs(seeds, quick):
    """Digits in two components after some passes."""
    table = harness.Table()
    X, y = load_digits(return_X_y=True)
    A, B, a, b = train_test_split(X, y, test_size=0.15, random_state=0)
    model = NeuralSparseGridClassifier(**(DIGITS | TWO), random_state=0)
    if not hasattr(model, "set_callbacks"):
        print("  scikit-learn has no callbacks: no rows")
        return table
    snapshots = Snapshots(B, b)
    harness.fit(model.set_callbacks(snapshots), A, a)
    for n, accuracy in enumerate(snapshots.accuracies, 1):
        table.add({"task": "digits, two components", "pass": n, "accuracy": float(accuracy)})
    if not quick:
        from matplotlib.figure import Figure

        harness.figure(1)  # The style of all figures
        drawn = Figure(figsize=(3.6 * len(snapshots.models), 3.6), layout="constrained")
        axes = drawn.subplots(1, len(snapshots.models), squeeze=False)[0]
        for ax, (n, snapshot) in zip(axes, snapshots.models.items(), strict=True):
            LatentGridDisplay.from_estimator(snapshot, B, b, ax=ax)
            ax.set_title(f"after {n} pass{'es' * (n > 1)}")
        harness.save(drawn, "latent_spaces")
    return table


def mnist(seeds, quick):
    """Two components by both encoders."""
    table, images = harness.Table(), harness.mnist_images(quick)
    if images is None:
        return table
    X, y = images
    deep = {key: value for key, value in MNIST.items() if key != "image_shape"}
    encoders = {"cnn": MNIST, "residual encoder": deep | {"encoder": residual_encoder}}
    for name, params in encoders.items():
        runs = []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(X))
            a, b = order[:8000], order[8000:]
            parts = X[a], y[a], X[b], y[b]
            make = NeuralSparseGridClassifier(**(params | TWO), random_state=seed)
            runs.append(fitted(lambda s, make=make: make, seed, *parts))
        accuracy = float(np.mean([run[0] for run in runs]))
        row = {"task": "MNIST, 8000 images, two components", "method": name}
        row |= {"accuracy": f"{accuracy:.4f}", "fit (s)": float(np.median([r[1] for r in runs]))}
        table.add(row | {"seeds": seeds}, [(f"{GOAL}", -accuracy, -GOAL)])
    return table


SECTIONS = {"epochs": epochs, "mnist": mnist}
