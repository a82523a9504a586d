r"""
A corner that is singular: Laplace's equation on an L
=====================================================

Around the inner corner of an L-shaped plate the solution is r^(2/3) sin(2/3 theta): its slope is
infinite there, and polynomials on equal pieces converge slowly everywhere. The L is told by points
inside it. ``HierarchicalPOURegressor`` fills the pieces that these points fill, finds the corner by
its residuals, and cuts towards it again and again.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle

from skpou import HierarchicalPOURegressor
from skpou.physics import Condition, Equation


def laplace(u, x):
    return u.d(0, 0) + u.d(1, 1)


def value(u, x):
    return u()


def exact(X):
    X = torch.as_tensor(X)
    angle = torch.remainder(torch.atan2(X[:, 1], X[:, 0]), 2 * np.pi)
    return torch.hypot(X[:, 0], X[:, 1]) ** (2 / 3) * torch.sin(2 / 3 * angle)


def inside(X):
    return X[~((X[:, 0] > 0) & (X[:, 1] < 0))]


# %%
# The equation holds at 6000 points inside. On the two edges that meet at the corner the solution is
# zero, on the four others a function is known: points that fill an edge stand for all of it. A
# larger tolerance than by default ends the cuts early.

rng = np.random.default_rng(0)
equation = Equation(laplace, inside(rng.uniform(-1, 1, (6000, 2))))
s, t = np.linspace(0, 1, 50), np.linspace(-1, 1, 50)
zero = [np.c_[s, 0 * s], np.c_[0 * s, -s]]
given = [np.c_[t, 0 * t + 1], np.c_[0 * t - 1, t], np.c_[-s, 0 * s - 1], np.c_[0 * s + 1, s]]
edges = [Condition(value, points) for points in zero]
edges += [Condition(value, points, exact) for points in given]
model = HierarchicalPOURegressor(physics=[equation, *edges], tol=1e-7)
model.fit(np.empty((0, 2)), np.empty(0))

# %%
# At fresh points:

fresh = inside(rng.uniform(-1, 1, (13_000, 2)))
wanted = exact(fresh).numpy()
error = np.sqrt(np.mean((model.predict(fresh) - wanted) ** 2) / np.mean(wanted**2))
print(f"relative error {error:.1e}, {len(model.coef_)} pieces")

# %%
# The solution with its pieces, a look at the corner, and the error on the way out of it.

n = 200
line = np.linspace(-1, 1, n)
grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
mean = model.predict(grid).reshape(n, n)
mean[(line[:, None] > 0) & (line < 0)] = np.nan
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9))
image = left.pcolormesh(line, line, mean.T, cmap="viridis")
box, low, high = model.scaling_, model.model_["low"], model.model_["high"]
for axes in (left, middle):
    for a, b in zip(box["offset"] + box["width"] * low, box["width"] * (high - low)):
        axes.add_patch(Rectangle(a, *b, fill=False, lw=0.4, color="0.2"))
left.set(title=f"Solution on {len(low)} pieces", aspect="equal")
figure.colorbar(image, ax=left)
middle.set(title="Pieces at the corner", xlim=(-0.03, 0.03), ylim=(-0.03, 0.03), aspect="equal")
radius = np.geomspace(1e-5, 1, 200)
diagonal = np.c_[-radius, radius] / np.sqrt(2)
mean, std = model.predict(diagonal, return_std="epistemic")
right.loglog(radius, np.abs(mean - exact(diagonal).numpy()) + 1e-17, color="#d55e00", label="error")
right.loglog(radius, 3 * std, color="0.5", label="three deviations")
right.set(title="On the way out of the corner", xlabel="distance", ylabel="error")
right.legend(frameon=False)
plt.show()
