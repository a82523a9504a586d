"""The five curved pieces of Eq. 48 of Trask et al. (MSML 2022), in its continuous form.

With noise the measure is the oracle: least squares on each piece with the true pieces given.
"""

import numpy as np
from sklearn.preprocessing import PolynomialFeatures

from benchmarks.partitions.functions import f2, f2_pieces
from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor


class Oracle:
    """Quartic least squares on the true pieces of f2."""

    def features(self, X):
        return PolynomialFeatures(4).fit_transform(2 * X - 1)

    def fit(self, X, y):
        pieces, features = f2_pieces(X), self.features(X)
        solve = np.linalg.lstsq
        self.weights = np.array([solve(features[pieces == j], y[pieces == j])[0] for j in range(5)])
        return self

    def predict(self, X):
        return np.sum(self.features(X) * self.weights[f2_pieces(X)], axis=1)


def repeated(make, n, seeds, noise=0.0):
    return [harness.measure(make(), f2, 2, n, seed, noise=noise) for seed in range(seeds)]


def run(seeds, quick):
    table = harness.Table()

    def given():
        return HierarchicalPOURegressor(8, 4)

    runs = repeated(given, 2500, seeds)
    table.add_runs("n=2500", "skpou, 8, 4", runs, error=1e-13, seconds=0.5, pieces=5)
    runs = repeated(HierarchicalPOURegressor, 2500, seeds)
    table.add_runs("n=2500", "skpou, auto, auto", runs, error=1e-13, pieces=5)
    for method, make in (("skpou, 8, 4", given), ("skpou, auto, auto", HierarchicalPOURegressor)):
        table.add_runs("n=600", method, repeated(make, 600, seeds), pieces=5)
    for noise in (1e-2,) if quick else (1e-6, 1e-3, 1e-2, 1e-1):
        task = f"n=2500, noise {noise:.0e}".replace("e-0", "e-")
        oracle = repeated(Oracle, 2500, seeds, noise)
        table.add_runs(task, "oracle", oracle)
        errors = [one.error for one in oracle]
        runs = repeated(given, 2500, seeds, noise)
        table.add_runs(task, "skpou, 8, 4", runs, reference=errors, pieces=5)
        runs = repeated(HierarchicalPOURegressor, 2500, seeds, noise)
        table.add_runs(task, "skpou, auto, auto", runs, reference=errors, pieces=5)
    for noise in (0.0,) if quick else (0.0, 1e-2):
        task = "n=2500" + f", noise {noise:.0e}".replace("e-0", "e-") * (noise > 0)
        for name, make in harness.rivals(2500, 2, quick or noise > 0).items():
            table.add_runs(
                task, name, repeated(make, 2500, harness.rival_seeds(name, 2500, seeds), noise)
            )
    return table
