"""
A roll flattened into a sparse grid
===================================

The target depends on two coordinates along a roll in three dimensions. The encoder finds them, and
a sparse grid in the unit square describes the target there.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import NeuralSparseGridRegressor
from skpou.datasets import make_swiss_roll
from skpou.inspection import LatentGridDisplay

X, y = make_swiss_roll(3000, random_state=0)
X_new, y_new = make_swiss_roll(1000, random_state=1)
model = NeuralSparseGridRegressor(level=5, max_iter=100).fit(X, y)
mean, std = model.predict(X_new, return_std=True)
print(f"{len(model.coef_)} grid points: error {np.sqrt(np.mean((mean - y_new) ** 2)):.5f}")
print(f"within two standard deviations: {np.mean(abs(mean - y_new) < 2 * std):.0%}")

# %%
# The roll, coloured by its target, and where the encoder maps its points in the box of the grid.

figure = plt.figure(figsize=(9, 4.2))
left = figure.add_subplot(1, 2, 1, projection="3d")
left.scatter(X_new[:, 0], X_new[:, 2], X_new[:, 1], c=y_new, s=4, cmap="viridis")
left.set(xlabel="$x_1$", ylabel="$x_3$", zlabel="$x_2$", title="The roll and its target")
right = figure.add_subplot(1, 2, 2)
LatentGridDisplay.from_estimator(model, X_new, y_new, ax=right)
right.set_title(f"In the box of the grid: {model.active_fraction_:.0%} of its functions are used")
plt.show()
