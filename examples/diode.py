"""
A diode's current over 13 decades
=================================

The decimal logarithm of a diode's current is learned from every second point of a voltage sweep,
and the points in between are held out. Five methods are compared; errors are in decades, and 0.01
decades are 2.3 % of the current. ``make demo`` runs this script.
"""

import sys
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import make_interp_spline
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skpou import HierarchicalPOURegressor
from skpou.datasets import make_diode
from skpou.inspection import PartitionDisplay

X, y = make_diode(X=np.arange(10, 1209)[:, None] / 1000)
test = np.arange(len(X)) % 2 == 1

# %%
# Eight pieces at most, with polynomials of degree 4. All sizes are scaled inside; volts and decades
# go in as they are.

model = HierarchicalPOURegressor(n_partitions=8, degree=4)

# %%
# What else one would take: each with settings that suit it.


class CubicSpline:
    """The cubic spline through all points, as a regressor."""

    def fit(self, X, y):
        self.spline = make_interp_spline(X[:, 0], y, k=3)
        return self

    def predict(self, X):
        return self.spline(X[:, 0])


kernel = ConstantKernel(1, (1e-5, 1e8)) * RBF(0.1, (1e-3, 1e2)) + WhiteKernel(1e-10, (1e-15, 1))
network = MLPRegressor(
    hidden_layer_sizes=(64, 64), activation="tanh", solver="lbfgs", alpha=0, max_iter=2000,
    max_fun=10**5, tol=0, random_state=0,
)  # fmt: skip
# L-BFGS stops at an absolute change of the loss: targets of this size keep it going.
wide = MinMaxScaler((-200, 200))
methods = {
    "skpou": model,
    "cubic spline": CubicSpline(),
    "Gaussian process": GaussianProcessRegressor(kernel, alpha=1e-14, normalize_y=True),
    "neural network": TransformedTargetRegressor(
        make_pipeline(StandardScaler(), network), transformer=wide
    ),
    "gradient boosting": HistGradientBoostingRegressor(max_iter=500, random_state=0),
}

print(f"{'error, decades':20}{'median':>10}{'rms':>10}{'largest':>10}{'fit (s)':>10}")
errors = {}
for name, method in methods.items():
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Iterations used up, and bounds of kernel parameters reached.
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(X[~test], y[~test])
    seconds = time.perf_counter() - start
    errors[name] = np.abs(method.predict(X[test]) - y[test])
    figures = np.median(errors[name]), np.sqrt(np.mean(errors[name] ** 2)), errors[name].max()
    print(f"{name:20}" + "".join(f"{x:10.1e}" for x in figures) + f"{seconds:10.2f}")

std = model.predict(X[test], return_std=True)[1]
share = model.partition_proba(X)
# A piece that has no hundredth of any row is there, but empty.
n_used = int((share.max(0) > 0.01).sum())
print(f"\n{n_used} of {len(model.coef_)} pieces in use, of degree {model.degree_}")
print(f"within two predicted standard deviations: {np.mean(errors['skpou'] <= 2 * std):.0%}")

# %%
# Left: the curve in the colours of its pieces, which overlap where they join smoothly; the share of
# each; held-out errors under the error bars. Right: the errors of all methods.

# Okabe and Ito's colours; every method has its own line style, too.
STYLES = {
    "gradient boosting": ("#E69F00", (0, (1, 1))),
    "neural network": ("#CC79A7", (0, (3, 1, 1, 1))),
    "Gaussian process": ("#009E73", (0, (5, 1))),
    "cubic spline": ("#56B4E9", (0, (7, 2, 2, 2))),
    "skpou": ("black", "solid"),
}
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "0.3")

plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
plt.rcParams.update({"axes.spines.right": False, "axes.spines.top": False})
figure = plt.figure(figsize=(11, 6), layout="constrained")
grid = figure.add_gridspec(3, 2, width_ratios=(1, 1.1), height_ratios=(1.7, 0.55, 1))
curve = figure.add_subplot(grid[0, 0])
parts, bars = (figure.add_subplot(grid[i, 0], sharex=curve) for i in (1, 2))
rivals = figure.add_subplot(grid[:, 1])
volts, held_out = (X[0, 0], X[-1, 0]), X[test, 0]

display = PartitionDisplay.from_estimator(
    model, X, y, ax=curve, scatter_kw={"s": 20, "color": "0.85"}, line_kw={"linewidth": 2.2}
)
for part, line, band in zip(display.partitions_, display.lines_, display.bands_):
    line.set_color(COLORS[part])
    band.set_color(COLORS[part])
# The legend was drawn in the colours of before.
curve.legend(handles=[display.scatter_, *display.lines_, display.bands_[0]], loc="lower right")
curve.set(xlabel="", ylabel=r"$\log_{10}$ (current / A)", xlim=volts)
curve.set_title("A diode's current; grey: the data")
parts.stackplot(X[:, 0], share.T, colors=COLORS, edgecolor="white", linewidth=0.3)
parts.set(ylim=(0, 1), yticks=(0, 1), ylabel="share")
parts.set_title(f"The {n_used} pieces in use, a partition of unity")
for ax in (curve, parts):
    ax.tick_params(axis="x", labelbottom=False)

bars.fill_between(held_out, 1e-20, 2 * std, color="0.85", linewidth=0)
bars.plot(held_out, errors["skpou"], ".", markersize=3, color="black")
floor = max(np.quantile(errors["skpou"], 0.02) / 2, 1e-17)
bars.set(yscale="log", ylim=(floor, None), xlabel="voltage (V)", ylabel="decades")
bars.set_title("Held-out error (dots) and 2 predicted standard deviations (grey)")

window = np.ones(21)
for name, (color, dashes) in STYLES.items():
    rivals.plot(held_out, errors[name], ".", color=color, alpha=0.5, ms=2.5, mew=0)
    squares = np.convolve(errors[name] ** 2, window, "same")
    mean = np.sqrt(squares / np.convolve(np.ones_like(squares), window, "same"))
    width = 2.4 if name == "skpou" else 1.7
    rivals.plot(held_out, mean, color=color, linestyle=dashes, linewidth=width, label=name)
floor = max(min(np.quantile(error, 0.02) for error in errors.values()) / 3, 1e-17)
rivals.set(xlim=volts, yscale="log", ylim=(floor, None), xlabel="voltage (V)", ylabel="decades")
rivals.set_title("Held-out error of every method (dots) and its running rms (lines)")
rivals.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)

if "--output" in sys.argv:  # as make demo does
    figure.savefig(sys.argv[-1], dpi=150)
    print(f"Figure: {sys.argv[-1]}")
plt.show()
