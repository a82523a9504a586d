"""
Helmholtz' equation in a square
===============================

The Laplacian of u plus u equals a known source, and u vanishes on the edges. The features stretch
along the coordinate in which the solution varies faster, as the first solve shows it.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from skpou import LSGDRegressor
from skpou.physics import Equation

PI = np.pi


def helmholtz(u, x):
    return u.d(0, 0) + u.d(1, 1) + u()


def source(x):
    """What makes sin(pi x) sin(4 pi y) the solution; x is a tensor."""
    return (1 - 17 * PI**2) * torch.sin(PI * x[:, 0]) * torch.sin(4 * PI * x[:, 1])


def exact(X):
    return np.sin(PI * X[:, 0]) * np.sin(4 * PI * X[:, 1])


t, one = np.linspace(-1, 1, 60), np.ones(60)
X = np.unique(np.r_[np.c_[t, -one], np.c_[t, one], np.c_[-one, t], np.c_[one, t]], axis=0)
model = LSGDRegressor(physics=Equation(helmholtz, "chebyshev", source)).fit(X, np.zeros(len(X)))

fresh = np.random.default_rng(1).uniform(-1, 1, (10_000, 2))
error = np.sqrt(np.mean((model.predict(fresh) - exact(fresh)) ** 2))
print(f"{model.coef_.size} columns, error at fresh points {error:.1e}")

# %%
# The solution, and the logarithm of its error.

side = np.linspace(-1, 1, 201)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
u = model.predict(grid)
logs = np.log10(np.abs(u - exact(grid)) + 1e-18)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9))
figure.colorbar(left.pcolormesh(side, side, u.reshape(201, 201), cmap="RdBu_r"), ax=left)
left.set(title="Solution", xlabel="x", ylabel="y", aspect="equal")
shown = right.pcolormesh(side, side, logs.reshape(201, 201), cmap="magma", vmin=-17, vmax=-13)
figure.colorbar(shown, ax=right)
right.set(title="Logarithm of the error", xlabel="x", ylabel="y", aspect="equal")
plt.show()
