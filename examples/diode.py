"""Fit a diode's current over 13 decades from 600 points and compare with other regressors.

The decimal logarithm of the current is learned from every second point of a voltage sweep; the
points in between are held out. The table lists every method's error there, in decades (0.01 decades
are 2.3 % of the current), and the figure shows where each method errs:

    python examples/diode.py --output diode.png
"""

import argparse
import os
import time
import warnings
from pathlib import Path

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

OURS = "skpou"
# Okabe and Ito's colours; every method has its own line style, too.
STYLES = {
    "gradient boosting": ("#E69F00", (0, (1, 1))),
    "neural network": ("#CC79A7", (0, (3, 1, 1, 1))),
    "Gaussian process": ("#009E73", (0, (5, 1))),
    "cubic spline": ("#56B4E9", (0, (7, 2, 2, 2))),
    OURS: ("black", "solid"),
}
# The same colours for the pieces.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "0.3")


def load():
    """Voltages (V), log10 of the currents (A) and the data's origin."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("SKPOU_SHARED_DATA", shared)) / "devices" / "diode.csv.gz"
    if path.exists():
        voltage, current = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
        return voltage, np.log10(current), "circuit simulation, ngspice 39"
    X, y = make_diode(X=np.arange(10, 1209)[:, None] / 1000)
    return X[:, 0], y, "skpou.datasets.make_diode"


class CubicSpline:
    """The cubic spline through all points, as a regressor."""

    def fit(self, X, y):
        self.spline = make_interp_spline(X[:, 0], y, k=3)
        return self

    def predict(self, X):
        return self.spline(X[:, 0])


def methods():
    kernel = ConstantKernel(1, (1e-5, 1e8)) * RBF(0.1, (1e-3, 1e2)) + WhiteKernel(1e-10, (1e-15, 1))
    network = make_pipeline(
        StandardScaler(),
        MLPRegressor(
            hidden_layer_sizes=(64, 64),
            activation="tanh",
            solver="lbfgs",
            alpha=0,
            max_iter=2000,
            max_fun=10**5,
            tol=0,
            random_state=0,
        ),
    )
    # L-BFGS stops at an absolute change of the loss: targets of this size keep it going.
    wide = MinMaxScaler((-200, 200))
    return {
        OURS: HierarchicalPOURegressor(n_partitions=8, degree=4),
        "cubic spline": CubicSpline(),
        "Gaussian process": GaussianProcessRegressor(kernel, alpha=1e-14, normalize_y=True),
        "neural network": TransformedTargetRegressor(network, transformer=wide),
        "gradient boosting": HistGradientBoostingRegressor(max_iter=500, random_state=0),
    }


def compare(X, y, train, test):
    """Fit every method: the fitted estimators, their held-out errors and seconds."""
    fitted, errors, seconds = {}, {}, {}
    for name, estimator in methods().items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            # Iterations used up, and bounds of kernel parameters reached.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted[name] = estimator.fit(X[train], y[train])
        seconds[name] = time.perf_counter() - start
        errors[name] = np.abs(estimator.predict(X[test]) - y[test])
    return fitted, errors, seconds


def running(error, width=21):
    """Root mean square of the errors in a window around each point."""
    ones = np.ones(width)
    total = np.convolve(error**2, ones, "same")
    return np.sqrt(total / np.convolve(np.ones_like(error), ones, "same"))


def draw(X, y, test, model, errors, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.right": False, "axes.spines.top": False})
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 1.1), height_ratios=(1.7, 0.55, 1))
    curve = figure.add_subplot(grid[0, 0])
    parts, bars = (figure.add_subplot(grid[i, 0], sharex=curve) for i in (1, 2))
    rivals = figure.add_subplot(grid[:, 1])
    volts, held_out = (X[0, 0], X[-1, 0]), X[test, 0]

    # The pieces overlap where they join smoothly: below the curve, the share of each.
    display = PartitionDisplay.from_estimator(
        model, X, y, ax=curve, scatter_kw={"s": 20, "color": "0.85"}, line_kw={"linewidth": 2.2}
    )
    share = model.partition_proba(X)
    colors = COLORS if share.shape[1] <= len(COLORS) else plt.cm.viridis(np.linspace(0, 1, 32))
    for part, line, band in zip(display.partitions_, display.lines_, display.bands_):
        for artist in (line, band):
            artist.set_color(colors[part])
    display.scatter_.set_label("data, every second point held out")
    longest = int(np.argmax([(display.partition == part).sum() for part in display.partitions_]))
    line, band = display.lines_[longest], display.bands_[longest]
    line.set_label("fit, in the colour of the leading piece")
    band.set_label("\u00b12 standard deviations (thinner than the line)")
    handles = [display.scatter_, line, band]
    curve.legend(handles=handles, loc="lower right", edgecolor="white", framealpha=1)
    curve.set(xlabel="", ylabel=r"$\log_{10}$ (current / A)", xlim=volts)
    curve.set_title("A diode's current over 13 decades")
    parts.stackplot(X[:, 0], share.T, colors=colors, edgecolor="white", linewidth=0.3)
    parts.set(ylim=(0, 1), yticks=(0, 1), ylabel="share")
    parts.set_title(f"The {share.shape[1]} pieces found, a partition of unity")
    for ax in (curve, parts):
        ax.tick_params(axis="x", labelbottom=False)

    # The same band where it can be seen: around the error.
    std = model.predict(X[test], return_std=True)[1]
    bars.fill_between(held_out, 1e-20, 2 * std, color="0.85", linewidth=0)
    bars.plot(held_out, errors[OURS], ".", markersize=3, color="black")
    floor = max(np.quantile(errors[OURS], 0.02) / 2, 1e-17)
    bars.set(yscale="log", ylim=(floor, None), xlabel="voltage (V)", ylabel="decades")
    bars.set_title("Held-out error (dots) and 2 predicted standard deviations (grey)")

    for name, (color, dashes) in STYLES.items():
        rivals.plot(held_out, errors[name], ".", color=color, alpha=0.5, ms=2.5, mew=0)
        width = 2.4 if name == OURS else 1.7
        mean = running(errors[name])
        rivals.plot(held_out, mean, color=color, linestyle=dashes, linewidth=width, label=name)
    floor = max(min(np.quantile(error, 0.02) for error in errors.values()) / 3, 1e-17)
    rivals.set(xlim=volts, yscale="log", ylim=(floor, None))
    rivals.set(xlabel="voltage (V)", ylabel="decades")
    rivals.set_title("Held-out error of every method (dots) and its running rms (lines)")
    rivals.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="diode.png", help="file of the figure")
    path = parser.parse_args().output

    voltage, y, origin = load()
    X = voltage[:, None]
    test = np.arange(len(X)) % 2 == 1
    fitted, errors, seconds = compare(X, y, ~test, test)
    model = fitted[OURS]

    print(
        f"A diode's current from 1e-14 to 0.4 A ({origin}), log10 of it fitted on {sum(~test)} "
        f"points.\nErrors on the {sum(test)} points in between, in decades:\n"
    )
    print(f"{'':20}{'median':>10}{'rms':>10}{'largest':>10}{'fit (s)':>10}")
    for name, error in sorted(errors.items(), key=lambda item: (item[1] ** 2).mean()):
        figures = (np.median(error), np.sqrt((error**2).mean()), error.max())
        print(f"{name:20}" + "".join(f"{x:10.1e}" for x in figures) + f"{seconds[name]:10.2f}")
    std = model.predict(X[test], return_std=True)[1]
    print(
        f"\nskpou found {len(model.coef_)} pieces of degree {model.degree_}; "
        f"{np.mean(errors[OURS] <= 2 * std):.0%} of its errors lie within two predicted standard "
        "deviations."
    )
    draw(X, y, test, model, errors, path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
