"""
Which regressor? Ask them all
=============================

The target has a kink along a parabola, a wave along the second column, and noise of standard
deviation 0.02. ``AutoRegressor`` fits its members, asks each how well it knows what is between the
rows, and predicts with the best.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import AutoRegressor
from skpou.inspection import LeaderboardDisplay


def target(X):
    return np.abs(X[:, 0] - X[:, 1] ** 2) + 0.3 * np.sin(8 * X[:, 1])


rng = np.random.default_rng(0)
X = rng.random((800, 2))
y = target(X) + 0.02 * rng.standard_normal(len(X))
model = AutoRegressor().fit(X, y)
print(model.summary())

# %%
# Its error at new points, beside the standard deviation that it predicts for it.

points = rng.random((5000, 2))
mean, std = model.predict(points, return_std="epistemic")
print(f"error {np.sqrt(np.mean((mean - target(points)) ** 2)):.4f}, predicted {std.mean():.4f}")

# %%
# The natural logarithm of the density that each member expects between the rows, and the weights.

LeaderboardDisplay.from_estimator(model)
plt.show()
