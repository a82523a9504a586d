"""What the figures of Trask et al. (MSML 2022) share: both trainings, statistics, panels.

The training printed there is expectation maximization in V-cycles from Box-initialized networks
of two layers of ten, with Adam's step 5e-3 and sigma fixed at 1; of all cycles the one of least
residual counts, which is the paper's running minimum. The paper runs up to 100,000 cycles, the
scripts fewer, each says how many. Seconds are those of the processor with one thread, as the
machine may be busy with other things.
"""

import contextlib
import io
import re
import time
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor

EM, OURS = "EM as printed", "skpou"
#: Okabe and Ito's colours.
BLUE, ORANGE, GREEN, RED, PINK, SKY = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
)


class Statistics(NamedTuple):
    """Mean of a log-normal sample and what lies a standard deviation below and above."""

    low: float
    mean: float
    high: float


def printed(size, degree, seed, *, cycles=1000, **options):
    """The estimator as the paper trains it."""
    options = {"gate": "mlp", "init": "box"} | options
    return HierarchicalPOURegressor(
        size, degree, solver="em", max_iter=cycles, random_state=seed, **options
    )


def ours(size, degree, seed=0):
    """The same model under the default training."""
    return HierarchicalPOURegressor(size, degree, random_state=seed)


def fit(estimator, X, y):
    """Fit, and the seconds of the processor it took."""
    start = time.process_time()
    with warnings.catch_warnings():
        # Iterations used up: the error shows the outcome.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"sklearn|scipy")
        estimator.fit(X, y)
    return time.process_time() - start


def history(estimator, X, y):
    """Fit; seconds, and the cycles and residuals that EM reports on its way.

    Residuals are those on the samples, relative to the targets' rms about their mean, of the
    cycle itself, not of the best before it.
    """
    printout = io.StringIO()
    with contextlib.redirect_stdout(printout):
        seconds = fit(estimator.set_params(verbose=1), X, y)
    lines = re.findall(r"cycle (\d+): .*residual (\S+)", printout.getvalue())
    cycles, residuals = np.array(lines, dtype=float).reshape(-1, 2).T
    return seconds, cycles, residuals


def on_cycles(runs, cycles):
    """Residuals (run, cycle) of several histories; one that stopped keeps its last value."""
    rows = []
    for own, residuals in runs:
        last = np.searchsorted(own, cycles, side="right") - 1
        rows.append(residuals[np.clip(last, 0, None)])
    return np.array(rows)


def error(estimator, X, truth, **options):
    """Rms error relative to the rms of the truth."""
    return harness.rms(estimator.predict(X, **options) - truth) / harness.rms(truth)


def log_normal(values, width=1.0):
    """Statistics of positive values, `width` standard deviations about the mean."""
    logs = np.log(np.maximum(values, 1e-300))
    mean, spread = np.mean(logs), np.std(logs, ddof=1) if len(logs) > 1 else 0.0
    return Statistics(*(float(np.exp(mean + k * spread)) for k in (-width, 0.0, width)))


def statistics_columns(name, values):
    """Columns of a table with the log-normal statistics of a quantity."""
    low, mean, high = log_normal(values)
    return {f"{name}, mean - stdev": low, f"{name}, mean": mean, f"{name}, mean + stdev": high}


def slope(x, y):
    """Slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# Figures


def panels(n_rows, n_columns, width=3.6, height=2.7, **options):
    """Axes (n_rows, n_columns) in the style of the documentation's figures."""
    import matplotlib

    style = {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"}
    matplotlib.rcParams.update(style | {"axes.spines.top": False, "axes.spines.right": False})
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    return drawn, drawn.subplots(n_rows, n_columns, squeeze=False, **options)


def band(ax, x, values, color, label, *, style="-", width=1.0):
    """Log-normal mean of values (run, x) as a line and its standard deviations as a band."""
    low, mean, high = np.transpose([log_normal(column, width) for column in np.transpose(values)])
    ax.plot(x, mean, style, color=color, label=label, linewidth=1.5)
    ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def level_line(ax, values, color, label):
    """Log-normal mean of values as a horizontal line with its band."""
    low, mean, high = log_normal(values)
    ax.axhline(mean, color=color, linestyle="--", linewidth=1.5, label=label)
    ax.axhspan(low, high, color=color, alpha=0.15, linewidth=0)


def partitions(ax, estimator, x, level=None):
    """Partitions of unity over one coordinate, and where the most probable one changes."""
    proba = estimator.partition_proba(x[:, None], level=level)
    colors = (BLUE, ORANGE, GREEN, RED, PINK, SKY)
    for i, column in enumerate(proba.T):
        ax.plot(x, column, color=colors[i % len(colors)], linewidth=1.2)
    ax.set_ylim(-0.03, 1.05)
