"""
A hump carried along
====================

The equation u_t + x u_x = 0 holds in the unit square, with a velocity that grows with x. ``X`` and
``y`` are the values at time 0 and at the end x = 0; nothing is known inside. The equation is linear
in u, so that the fit is one least-squares solve for each bandwidth that is tried.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import LSGDRegressor
from skpou.physics import Equation


def transport(u, x):
    """Columns of X: 0 is the place, 1 the time."""
    return u.d(1) + x[:, 0] * u.d(0)


def exact(X):
    return np.sin(np.pi * X[:, 0] * np.exp(-X[:, 1])) ** 2


t = np.linspace(0, 1, 60)
X = np.unique(np.r_[np.c_[t, 0 * t], np.c_[0 * t, t]], axis=0)
model = LSGDRegressor(physics=Equation(transport, "chebyshev")).fit(X, exact(X))

fresh = np.random.default_rng(1).random((10_000, 2))
error = np.sqrt(np.mean((model.predict(fresh) - exact(fresh)) ** 2))
print(f"{model.coef_.size} columns, error at fresh points {error:.1e}")
print(f"residual of the equation there: {model.equation_residual_:.1e}")

# %%
# The solution, and the logarithm of its error.

side = np.linspace(0, 1, 201)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
u = model.predict(grid)
logs = np.log10(np.abs(u - exact(grid)) + 1e-18)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
figure.colorbar(left.pcolormesh(side, side, u.reshape(201, 201), cmap="viridis"), ax=left)
left.set(title="Solution", xlabel="x", ylabel="t")
shown = right.pcolormesh(side, side, logs.reshape(201, 201), cmap="magma", vmin=-17, vmax=-13)
figure.colorbar(shown, ax=right)
right.set(title="Logarithm of the error", xlabel="x", ylabel="t")
plt.show()
