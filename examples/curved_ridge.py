"""
Curved pieces in the plane
==========================

A wave of parabolas across the curves ``x2 - (x1 - 1/2)**2 = const``: quartic polynomials on five
pieces that meet in kinks. From 2500 scattered points the pieces, their curved boundaries and their
polynomials are recovered to round-off, between the points, too.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import HierarchicalPOURegressor
from skpou.datasets import make_curved_ridge
from skpou.inspection import PartitionDisplay

X, y = make_curved_ridge(2500, kind="kinked", random_state=0)
model = HierarchicalPOURegressor(n_partitions=8, degree=4).fit(X, y)

X_new, truth = make_curved_ridge(20000, kind="kinked", random_state=1)
mean, std = model.predict(X_new, return_std=True)
error = np.sqrt(np.mean((mean - truth) ** 2) / np.mean(truth**2))
print(f"{len(model.coef_)} pieces of degree {model.degree_}")
print(f"error on 20,000 new points, relative to the target: {error:.1e}")
print(f"predicted standard deviation, median: {np.median(std):.1e}")

# %%
# The target with its points, the pieces, and the error everywhere.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9))
xx0, xx1 = np.meshgrid(*[np.linspace(0, 1, 300)] * 2)
grid = np.column_stack([xx0.ravel(), xx1.ravel()])
truth = make_curved_ridge(X=grid, kind="kinked")[1]
error = np.maximum(np.abs(model.predict(grid) - truth), 3e-17).reshape(xx0.shape)

surface = left.pcolormesh(xx0, xx1, truth.reshape(xx0.shape), cmap="cividis")
figure.colorbar(surface, ax=left, shrink=0.8, label="y")
left.scatter(*X.T, s=1, color="white", linewidths=0)
left.set_title("Target and the points it is known at")

PartitionDisplay.from_estimator(model, X, ax=middle, grid_resolution=300)
middle.set_title(f"The {len(model.coef_)} pieces found")

surface = right.pcolormesh(xx0, xx1, np.log10(error), cmap="viridis")
figure.colorbar(surface, ax=right, shrink=0.8, label=r"$\log_{10}$ |error|")
right.set_title("Error of the fit")
for ax in (left, middle, right):
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
plt.show()
