r"""
A corner that points inwards, on an L-shaped domain
===================================================

Near such a corner the solution of Laplace's equation goes as the distance to the power of 2/3:
its slope is infinite there, and no polynomial follows it. Nothing of that is told to the fit. The
domain is given by points that fill it, and pieces are cut towards the one place where their
coefficients do not fall.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from skpou import HierarchicalPOURegressor
from skpou.physics import Condition, Equation


def laplace(u, x):
    return u.d(0, 0) + u.d(1, 1)


def value(u, x):
    return u()


def corner(x):
    """r^(2/3) sin(2 a / 3), which is 0 on both edges that meet at the corner."""
    angle = torch.remainder(torch.atan2(x[:, 1], x[:, 0]), 2 * np.pi)
    return torch.hypot(x[:, 0], x[:, 1]) ** (2 / 3) * torch.sin(2 / 3 * angle)


# %%
# Points fill the domain, and each of its six edges has a condition. A tolerance that is a little
# looser than the default saves most of a minute.

rng = np.random.default_rng(0)
inner = rng.uniform(-1, 1, (6000, 2))
inner = inner[~((inner[:, 0] > 0) & (inner[:, 1] < 0))]
s, t = np.linspace(0, 1, 100), np.linspace(-1, 1, 200)
zero = [np.c_[s, 0 * s], np.c_[0 * s, -s]]
known = [np.c_[t, 0 * t + 1], np.c_[0 * t - 1, t], np.c_[-s, 0 * s - 1], np.c_[0 * s + 1, s]]
physics = [
    Equation(laplace, inner),
    *(Condition(value, edge) for edge in zero),
    *(Condition(value, edge, corner) for edge in known),
]
model = HierarchicalPOURegressor(physics=physics, tol=1e-9).fit(np.empty((0, 2)), np.empty(0))

X = rng.uniform(-1, 1, (12_000, 2))
X = X[~((X[:, 0] > 0) & (X[:, 1] < 0))]
exact = corner(torch.tensor(X)).numpy()
mean, std = model.predict(X, return_std="epistemic")
error = np.abs(mean - exact)
width = model.model_["high"] - model.model_["low"]
print(f"{len(width)} pieces, from {width.max():.2g} to {width.min():.1e} of the box")
print(f"error {np.sqrt(np.mean(error**2) / np.mean(exact**2)):.1e}")
print(f"{100 * np.mean(error <= 3 * std):.0f} % of the errors within three deviations")

# %%
# The solution, the pieces, and the error towards the corner under its bars.

low, high = 2 * model.model_["low"] - 1, 2 * model.model_["high"] - 1
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9))
side = np.linspace(-1, 1, 201)
grid = np.stack(np.meshgrid(side, side), -1)
shown = model.predict(grid.reshape(-1, 2)).reshape(201, 201)
shown[(grid[..., 0] > 0) & (grid[..., 1] < 0)] = np.nan
image = left.pcolormesh(side, side, shown, cmap="viridis", shading="gouraud")
left.set(title="Solution", xlabel="x", ylabel="y", aspect="equal", xticks=[-1, 0, 1])
figure.colorbar(image, ax=left)
for (a, b), (c, e) in zip(low, high):
    middle.plot([a, c, c, a, a], [b, b, e, e, b], color="#0072b2", lw=0.6)
middle.set(title=f"{len(low)} pieces", xlabel="x", ylabel="y", aspect="equal")
distance = np.logspace(-5, 0, 200)
line = np.c_[-distance, distance] / np.sqrt(2)
mean, std = model.predict(line, return_std="epistemic")
off = np.abs(mean - corner(torch.tensor(line)).numpy())
right.loglog(distance, off, color="#d55e00", label="error")
right.loglog(distance, 2 * std, color="0.4", label="two deviations")
right.set(title="Along the diagonal", xlabel="distance to the corner", ylabel="error")
right.legend(frameon=False)
plt.show()
