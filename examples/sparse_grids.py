"""
Functions and classes on sparse grids
=====================================

A front along a line and a narrow peak, known at 4000 scattered points with noise 0.01: grid points
are added where the function needs them. And two moons, told apart by a density for each.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import SparseGridClassifier, SparseGridRegressor
from skpou.datasets import make_two_moons_3d


def front_and_peak(X):
    front = np.tanh(20 * (X[:, 0] + 0.4 * X[:, 1] - 0.5))
    return front + np.exp(-300 * ((X - np.array([0.8, 0.7])) ** 2).sum(1))


rng = np.random.default_rng(0)
X, X_new = rng.random((4000, 2)), rng.random((20000, 2))
y, truth = front_and_peak(X) + 0.01 * rng.standard_normal(len(X)), front_and_peak(X_new)
for n_refinements in (0, 60):
    model = SparseGridRegressor(n_refinements=n_refinements).fit(X, y)
    error = np.sqrt(np.mean((model.predict(X_new) - truth) ** 2))
    print(f"{len(model.coef_)} grid points: error {error:.4f}")

# %%
# The refined grid, and what is left between its points.

images = np.meshgrid(*[np.linspace(0, 1, 300)] * 2)
points = np.column_stack([image.ravel() for image in images])
predicted = model.predict(points)
error = np.maximum(np.abs(predicted - front_and_peak(points)), 1e-5)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9))
surface = left.pcolormesh(*images, predicted.reshape(images[0].shape), cmap="cividis")
figure.colorbar(surface, ax=left, shrink=0.8, label="predicted y")
left.scatter(*model.grid_points_.T, s=3, color="white", linewidths=0)
left.set_title(f"Prediction and the {len(model.coef_)} grid points")
surface = right.pcolormesh(*images, np.log10(error).reshape(images[0].shape), cmap="viridis")
figure.colorbar(surface, ax=right, shrink=0.8, label=r"$\log_{10}$ |error|")
right.set_title("Error without the noise")
for ax in (left, right):
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
plt.show()

# %%
# Classes: three methods beside Bayes' rule, which knows how the moons were drawn.

noise = 0.2
moons, labels = make_two_moons_3d(2000, noise=noise, random_state=0)
new, new_labels = make_two_moons_3d(20000, noise=noise, random_state=1)
bayes = np.mean(make_two_moons_3d(noise=noise, X=new)[1] == new_labels)
print(f"Bayes' rule: {bayes:.4f}")
for method in ("one_hot", "softmax", "density"):
    classifier = SparseGridClassifier(method=method).fit(moons[:, :2], labels)
    print(f"{method}: {classifier.score(new[:, :2], new_labels):.4f}")

# %%
# Where there are no rows the densities give neither moon much confidence.

low, high = moons[:, :2].min(0), moons[:, :2].max(0)
images = np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high)))
points = np.column_stack([image.ravel() for image in images])
probability = classifier.predict_proba(points)[:, 1].reshape(images[0].shape)
figure, ax = plt.subplots(figsize=(5.5, 3.9))
surface = ax.pcolormesh(*images, probability, cmap="coolwarm", vmin=0, vmax=1, alpha=0.7)
figure.colorbar(surface, ax=ax, shrink=0.8, label="probability of the lower moon")
ax.contour(*images, probability, levels=[0.5], colors="black")
for label, color in enumerate(("#08519c", "#a50f15")):
    ax.scatter(*moons[labels == label, :2].T, s=3, color=color, linewidths=0)
ax.set(title="Two moons", xlabel="$x_1$", ylabel="$x_2$")
plt.show()
