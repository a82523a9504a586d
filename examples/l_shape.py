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
from matplotlib.patches import Rectangle

from skpou import HierarchicalPOURegressor
from skpou.physics import Condition, Equation


def laplace(u, x):
    return u.d(0, 0) + u.d(1, 1)


def value(u, x):
    return u()


def exact(X):
    angle = np.arctan2(X[:, 1], X[:, 0])
    angle = np.where(angle < 0, angle + 2 * np.pi, angle)
    return np.hypot(X[:, 0], X[:, 1]) ** (2 / 3) * np.sin(2 / 3 * angle)


def inside(X):
    return X[~((X[:, 0] > 0) & (X[:, 1] < 0))]


# %%
# The equation holds at 6000 points inside. On the two edges that meet at the corner the solution is
# zero: points that fill an edge stand for all of it. On the four others values are known.

rng = np.random.default_rng(0)
equation = Equation(laplace, inside(rng.uniform(-1, 1, (6000, 2))))
s, long = np.linspace(0, 1, 200), np.linspace(-1, 1, 400)
zero = [Condition(value, np.c_[s, 0 * s]), Condition(value, np.c_[0 * s, -s])]
edges = [np.c_[long, 0 * long + 1], np.c_[0 * long - 1, long], np.c_[-s, 0 * s - 1]]
X = np.unique(np.concatenate([*edges, np.c_[0 * s + 1, s]]), axis=0)

# %%
# A larger tolerance than by default ends the cuts early, with four digits or so.

model = HierarchicalPOURegressor(physics=[equation, *zero], tol=1e-8).fit(X, exact(X))
fresh = inside(rng.uniform(-1, 1, (13_000, 2)))
wanted = exact(fresh)
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
right.loglog(radius, np.abs(mean - exact(diagonal)) + 1e-17, color="#d55e00", label="error")
right.loglog(radius, 3 * std, color="0.5", label="three deviations")
right.set(title="On the way out of the corner", xlabel="distance", ylabel="error")
right.legend(frameon=False)
plt.show()
