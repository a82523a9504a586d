"""
A hundred thousand rows
=======================

A function of four columns with a kink, from 100,000 rows with noise. On a sparse grid the
coefficients solve one ridge regression and rows enter as sums, so that the fit takes seconds, and a
prediction microseconds.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from skpou import SparseGridRegressor


def target(X):
    return np.sin(6 * X[:, 0] * X[:, 1]) + np.abs(X[:, 2] - 0.4) + X[:, 0] * X[:, 3]


rng = np.random.default_rng(0)
X, X_new = rng.random((100_000, 4)), rng.random((100_000, 4))
y, truth = target(X) + 0.1 * rng.standard_normal(len(X)), target(X_new)

# %%
# Accuracy beside the number of rows, for a sparse grid and for boosted trees.

methods = {
    "sparse grid": SparseGridRegressor(level=5),
    "gradient boosting": HistGradientBoostingRegressor(max_iter=300, random_state=0),
}
sizes = [1000, 10_000, 100_000]
errors = {name: [] for name in methods}
for name, method in methods.items():
    for n in sizes:
        start = time.perf_counter()
        method.fit(X[:n], y[:n])
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        error = np.sqrt(np.mean((method.predict(X_new) - truth) ** 2))
        micro = 1e6 * (time.perf_counter() - start) / len(X_new)
        errors[name].append(error)
        print(f"{name}, {n:,} rows: error {error:.4f}, fit {seconds:.2f} s, {micro:.1f} us a row")

# %%
# The noise is 0.1; the error of the mean falls well below.

figure, ax = plt.subplots(figsize=(5.5, 3.7))
for (name, values), marker in zip(errors.items(), "os"):
    ax.loglog(sizes, values, marker=marker, label=name)
ax.axhline(0.1, color="0.5", ls="--", lw=1, label="noise")
ax.set(xlabel="rows", ylabel="rms error at new points")
ax.legend(frameon=False)
plt.show()
