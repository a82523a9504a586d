r"""
The front of viscous Burgers
============================

From -sin(pi x) at time 0, u_t + u u_x = (0.01 / pi) u_xx steepens to a front of width 0.01: the
standard test of networks that solve equations. ``HierarchicalPOURegressor`` marches in time, cuts
pieces where the residual is large and raises their degrees where coefficients decay fast; nothing
tells it where the front is.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from skpou import HierarchicalPOURegressor
from skpou.physics import Equation

VISCOSITY = 0.01 / np.pi


def burgers(u, x):
    return u.d(1) + u() * u.d(0) - VISCOSITY * u.d(0, 0)


# Values at time 0, and 0 at both ends; an accuracy of some seven digits is enough for a figure.
x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, 401)
X = np.unique(np.r_[np.c_[x, 0 * x], np.c_[0 * t - 1, t], np.c_[0 * t + 1, t]], axis=0)
y = np.where(X[:, 1] == 0, -np.sin(np.pi * X[:, 0]), 0.0)
model = HierarchicalPOURegressor(physics=Equation(burgers, "sobol"), tol=1e-11).fit(X, y)


# %%
# The exact solution is a quotient of two integrals, here by 200 nodes.


def cole_hopf(X):
    z, w = np.polynomial.hermite.hermgauss(200)
    place = X[:, :1] - 2 * np.sqrt(VISCOSITY * np.maximum(X[:, 1:], 1e-14)) * z
    power = -np.cos(np.pi * place) / (2 * np.pi * VISCOSITY)
    f = w * np.exp(power - power.max(1, keepdims=True))
    return -(np.sin(np.pi * place) * f).sum(1) / f.sum(1)


fresh = np.random.default_rng(0).uniform([-1, 0], [1, 1], (10_000, 2))
exact = cole_hopf(fresh)
error = np.sqrt(np.mean((model.predict(fresh) - exact) ** 2) / np.mean(exact**2))
print(f"relative error {error:.1e}, {len(model.coef_)} pieces")

# %%
# Pieces and solution; the front beside the exact one; the error beside three standard deviations.

x, t = np.linspace(-1, 1, 201), np.linspace(0, 1, 101)
X = np.stack(np.meshgrid(x, t, indexing="ij"), -1).reshape(-1, 2)
mean, std = model.predict(X, return_std="epistemic")
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9))
image = left.pcolormesh(t, x, mean.reshape(201, 101), cmap="RdBu_r")
box, low, high = model.scaling_, model.model_["low"], model.model_["high"]
for a, b in zip(box["offset"] + box["width"] * low, box["width"] * (high - low)):
    left.add_patch(Rectangle(a[::-1], *b[::-1], fill=False, lw=0.4, color="0.2"))
left.set(title=f"Solution on {len(low)} pieces", xlabel="t", ylabel="x")
figure.colorbar(image, ax=left)
near = np.linspace(-0.1, 0.1, 401)
for time, color in ((0.25, "#56b4e9"), (0.5, "#0072b2"), (1.0, "#d55e00")):
    line = np.c_[near, 0 * near + time]
    middle.plot(near, model.predict(line), color=color, label=f"t = {time:g}")
    middle.plot(near[::25], cole_hopf(line)[::25], ".", color=color)
middle.set(title="The front, and Cole-Hopf (points)", xlabel="x", ylabel="u")
middle.legend(frameon=False)
error = np.abs(mean - cole_hopf(X)).reshape(201, 101)
right.semilogy(t, error.max(0) + 1e-17, color="#d55e00", label="largest error")
right.semilogy(t, 3 * std.reshape(201, 101).max(0), color="0.5", label="three deviations")
right.set(title="Error at each time", xlabel="t", ylabel="error")
right.legend(frameon=False)
plt.show()
