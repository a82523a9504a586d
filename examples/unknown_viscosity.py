r"""
An unknown viscosity, from noisy values of a front
==================================================

In u_t + u u_x = v u_xx the viscosity v decides how wide a front becomes. It is found from 500
noisy values that are scattered over place and time, with its standard deviation: nothing else is
measured, and the equation, its first values and its zero ends say the rest.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from skpou import HierarchicalPOURegressor
from skpou.physics import Condition, Equation, Unknown

VISCOSITY, NOISE = 0.05, 0.01


def burgers(u, x, p):
    return u.d(1) + u() * u.d(0) - p["viscosity"] * u.d(0, 0)


def value(u, x):
    return u()


def first(x):
    return -torch.sin(np.pi * x[:, 0])


# %%
# The exact solution of Cole and Hopf makes the measurements.


def cole_hopf(X):
    z, w = np.polynomial.hermite.hermgauss(100)
    place = X[:, :1] - 2 * np.sqrt(VISCOSITY * np.maximum(X[:, 1:], 1e-14)) * z
    power = -np.cos(np.pi * place) / (2 * np.pi * VISCOSITY)
    f = w * np.exp(power - power.max(1, keepdims=True))
    return -(np.sin(np.pi * place) * f).sum(1) / f.sum(1)


rng = np.random.default_rng(0)
X = rng.uniform([-1, 0.02], [1, 0.98], (500, 2))
y = cole_hopf(X) + NOISE * rng.standard_normal(500)

# %%
# A start that is twice too large is good enough.

x, t = np.linspace(-1, 1, 200), np.linspace(0, 1, 200)
physics = [
    Equation(burgers, "sobol", box=[[-1, 1], [0, 1]]),
    Condition(value, np.c_[x, 0 * x], first),
    Condition(value, np.c_[0 * t - 1, t]),
    Condition(value, np.c_[0 * t + 1, t]),
]
model = HierarchicalPOURegressor(physics=physics, unknowns={"viscosity": Unknown(0.1)}).fit(X, y)
found, deviation = model.unknowns_["viscosity"], model.unknowns_std_["viscosity"]
print(f"viscosity {found:.5f} +- {deviation:.5f}, in truth {VISCOSITY}")
print(f"noise {model.noise_[0]:.4f}, in truth {NOISE}")

# %%
# The measurements and the front that they tell, and its error under the error bars.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9))
image = left.scatter(X[:, 1], X[:, 0], c=y, s=8, cmap="RdBu_r")
left.set(title="Measurements", xlabel="t", ylabel="x")
figure.colorbar(image, ax=left)
line = np.linspace(-1, 1, 401)
for time, color in ((0.2, "#56b4e9"), (0.5, "#0072b2"), (0.9, "#d55e00")):
    at = np.c_[line, 0 * line + time]
    mean, std = model.predict(at, return_std="epistemic")
    middle.plot(line, mean, color=color, label=f"t = {time:g}")
    near = np.abs(X[:, 1] - time) < 0.02
    middle.plot(X[near, 0], y[near], ".", color=color, ms=4)
    right.plot(line, mean - cole_hopf(at), color=color)
    right.fill_between(line, -2 * std, 2 * std, color=color, alpha=0.2, lw=0)
middle.set(title=f"Viscosity {found:.4f} +- {deviation:.4f}", xlabel="x", ylabel="u")
middle.legend(frameon=False)
right.set(title="Error, and two deviations", xlabel="x", ylabel="error")
plt.show()
