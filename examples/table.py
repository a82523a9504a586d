"""
A noisy table read as effects
=============================

Friedman's first function of ten columns, five of which matter, with noise that is five times as
large at one end of the fourth column as at the other. The fit takes it apart into effects of single
columns and of pairs, with error bars.
"""

import matplotlib.pyplot as plt
import numpy as np

from skpou import AdditivePOURegressor


def target(X):
    """A pair, a parabola and two lines."""
    pair = 10 * np.sin(np.pi * X[:, 0] * X[:, 1])
    return pair + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]


def width(X):
    """Standard deviation of the noise."""
    return 0.4 * 5 ** X[:, 3]


rng = np.random.default_rng(0)
X = rng.random((600, 10))
y = target(X) + width(X) * rng.standard_normal(len(X))

# %%
# Without the block over all columns, which would take over from the effects.

model = AdditivePOURegressor(remainder=False).fit(X, y)
size = model.predict_terms(X).std(0)
for place in np.argsort(-size)[:6]:
    term, dof = model.terms_[place], model.effective_dof_[place]
    print(f"columns {term}: size {size[place]:.2f}, {dof:.1f} degrees of freedom")

# %%
# New rows: the error of the mean, and how many targets lie in the intervals.

fresh = rng.random((5000, 10))
targets = target(fresh) + width(fresh) * rng.standard_normal(len(fresh))
error = np.sqrt(np.mean((model.predict(fresh) - target(fresh)) ** 2))
print(f"rms error {error:.2f}; noise between 0.4 and 2")
for coverage in (0.5, 0.9):
    low, high = model.predict_interval(fresh, coverage=coverage).T
    inside = np.mean((low < targets) & (targets < high))
    print(f"{coverage:.0%} intervals hold {inside:.1%} of new rows")

# %%
# The main effects with two standard deviations, dashed what is true, and the noise along one
# column.

figure, axes = plt.subplots(2, 3, figsize=(10, 5.5))
axes = axes.ravel()
grid = np.linspace(0.01, 0.99, 99)
for column in range(5):
    rows = np.full((99, 10), 0.5)
    rows[:, column] = grid
    which = model.terms_.index((column,))
    value, std = (part[:, which] for part in model.predict_terms(rows, return_std=True))
    others = rng.random((4000, 10))
    truth = np.empty(99)
    for k in range(99):
        others[:, column] = grid[k]
        truth[k] = target(others).mean()
    truth += np.mean(value) - np.mean(truth)
    ax = axes[column]
    ax.fill_between(grid, value - 2 * std, value + 2 * std, color="#0072b2", alpha=0.25, lw=0)
    ax.plot(grid, value, color="#0072b2")
    ax.plot(grid, truth, "--", color="0.3", lw=1)
    ax.set(title=f"effect of column {column}", xlabel=f"x{column}", ylabel="y", ylim=(-7, 7))
rows = np.full((99, 10), 0.5)
rows[:, 3] = grid
axes[5].plot(grid, model.predict(rows, return_std="noise")[1], color="#d55e00")
axes[5].plot(grid, width(rows), "--", color="0.3", lw=1)
axes[5].set(title="noise along column 3", xlabel="x3", ylabel="standard deviation", ylim=(0, None))
plt.show()
