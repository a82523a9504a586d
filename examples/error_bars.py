"""
What the error bars know
========================

Error bars are easy inside dense data. They are told apart by a gap, by lines with nothing between
them, by what lies behind the last row, and by a kink that no row shows. Each panel has a truth
without noise, the rows that were fitted, and bars of three standard deviations, beside those of a
Gaussian process of the likelier of two kernels.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

from skpou import MultiStageRegressor


def gaussian_process(X, y):
    """The likelier of two kernels."""
    lengths = np.full(X.shape[1], 0.3)
    kernels = [
        ConstantKernel(1.0) * kernel + WhiteKernel(1e-8, (1e-14, 1))
        for kernel in (RBF(lengths), Matern(lengths, nu=2.5))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lengths at their bounds: there is no noise.
        fits = [GaussianProcessRegressor(k, normalize_y=True).fit(X, y) for k in kernels]
    return max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)


def chirp(X):
    return np.sin(9 * X[:, 0] ** 1.5)


def kink(X):
    return np.abs(X[:, 0] - 0.463) + 0.2 * X[:, 0]


def surface(X):
    return np.cos(6 * X[:, 0]) + np.sin(5 * X[:, 1]) ** 2


line = np.linspace(0, 1, 400)
rng = np.random.default_rng(0)
gapped = np.concatenate([np.linspace(0, 0.35, 14), np.linspace(0.65, 1, 14)])
lines = np.column_stack([np.repeat(np.linspace(0, 1, 8), 25), rng.random(200)])
across = np.column_stack([line, np.full(400, 0.35)])
CASES = {
    "A gap": (gapped[:, None], chirp, line[:, None]),
    "Lines, cut across": (lines, surface, across),
    "Beyond the last row": (np.linspace(0, 0.75, 20)[:, None], chirp, line[:, None]),
    "A kink between rows": (np.linspace(0, 1, 15)[:, None], kink, line[:, None]),
}

# %%
# Below each fit stands its error with the bars on a logarithmic scale: honest bars lie above the
# error, sharp ones not far above it.

figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), sharex=True, height_ratios=(3, 2))
for (title, (X, truth, points)), (above, below) in zip(CASES.items(), axes.T, strict=True):
    above.plot(line, truth(points), color="0.2", lw=1, label="truth")
    rows = lines[:, 0] if X.shape[1] == 2 else X[:, 0]
    for row in np.unique(rows):
        above.axvline(row, ymax=0.04, color="0.2", lw=0.8)
    y = truth(X)
    fits = {"skpou": MultiStageRegressor().fit(X, y), "Gaussian process": gaussian_process(X, y)}
    for (name, model), color in zip(fits.items(), ("#0072b2", "#d55e00"), strict=True):
        mean, std = model.predict(points, return_std=True)
        above.plot(line, mean, color=color, lw=1.2, label=name)
        above.fill_between(line, mean - 3 * std, mean + 3 * std, color=color, alpha=0.2, lw=0)
        error = np.abs(mean - truth(points))
        below.semilogy(line, error + 1e-16, color=color, lw=1)
        below.semilogy(line, 3 * std, color=color, lw=1, ls=":")
        size, inside = np.sqrt(np.mean(error**2)), np.mean(error <= 3 * std + 1e-12)
        print(f"{title:20} {name:17} rms error {size:.1e}, {inside:.0%} within 3 std")
    values = truth(points)
    room = 0.6 * np.ptp(values)
    above.set(title=title, ylim=(values.min() - room, values.max() + room))
    below.set(xlabel="x", ylim=(1e-16, 30))
axes[0, 0].legend(frameon=False, fontsize=8)
axes[1, 0].set_ylabel("error; dotted: 3 std")
plt.show()

# %%
# What rows, lines and neighbourhoods that are left out are missed by tells the bars. Between the
# lines the error is larger than that of the process, and the bars say so; in the gap they
# widen with the error. Behind the last row they grow to the spread of y and more. What a kink does
# between two rows is not known from the rows: there the bars are too small.
