"""What the benchmarks share: errors on fresh points, times, rivals, tables."""

import csv
import os
import platform
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import sklearn
import torch
from scipy.interpolate import RBFInterpolator, make_interp_spline
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import skpou

torch.set_num_threads(1)

RESULTS = Path(__file__).resolve().parents[1] / "results"
FIGURES = Path(__file__).resolve().parents[2] / "doc" / "_static"
N_TEST = 20_000


class Run(NamedTuple):
    """One fit: relative error, seconds, pieces (None for a rival)."""

    error: float
    fit: float
    predict: float
    pieces: int | None


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def shared(*names):
    """Path of a file of the shared data, which need not exist."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("SKPOU_SHARED_DATA", default)).joinpath(*names)


def mnist_images(quick):
    """Images (10,000, 784) and digits, or None with a word why."""
    path = shared("mnist_10k.npz")
    if quick or not path.exists():
        print(f"  MNIST is left out: {'quick' if quick else f'there is no {path.name}'}")
        return None
    images = np.load(path)
    return images["X"].astype(np.float32), images["y"]


def sample(n_features, n, seed):
    """Uniform training points of a seed."""
    return np.random.default_rng(seed).random((n, n_features))


def fresh(n_features, seed):
    """Uniform test points of a seed; no training sample has the same."""
    return np.random.default_rng(10_000 + seed).random((N_TEST, n_features))


def fit(estimator, X, y):
    """Fit, and the processor seconds it took, which depend little on what else is running."""
    start = time.process_time()
    with warnings.catch_warnings():
        # Iterations used up, bounds of kernel parameters reached: the error shows the outcome.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"sklearn|scipy")
        estimator.fit(X, y)
    return time.process_time() - start


def measure(estimator, function, n_features, n, seed, *, noise=0.0, X=None, keep=None):
    """Fit on a sample of a function; errors on fresh points relative to the target's rms.

    Parameters
    ----------
    estimator : estimator
        Fitted in place.
    function : callable
        Target at points (n, n_features).
    noise : float
        Standard deviation of the noise on the training targets.
    X : ndarray
        Training points in place of a random sample.
    keep : callable
        Takes the training and the test points, returns which of the latter count.
    """
    X = sample(n_features, n, seed) if X is None else X
    y = function(X) + noise * np.random.default_rng(20_000 + seed).standard_normal(len(X))
    X_test = fresh(n_features, seed)
    if keep is not None:
        X_test = X_test[keep(X, X_test)]
    truth = function(X_test)
    seconds = fit(estimator, X, y)
    start = time.process_time()
    predicted = estimator.predict(X_test)
    predict_seconds = time.process_time() - start
    coef = getattr(estimator, "coef_", None)
    pieces = None if coef is None else len(coef)
    return Run(rms(predicted - truth) / rms(truth), seconds, predict_seconds, pieces)


# Rivals


class Spline:
    """Interpolating spline in one dimension."""

    def __init__(self, k=3):
        self.k = k

    def fit(self, X, y):
        order = np.argsort(X[:, 0])
        self.spline = make_interp_spline(X[order, 0], y[order], k=self.k)
        return self

    def predict(self, X):
        return self.spline(X[:, 0])


class RadialBasis:
    """scipy's radial basis function interpolation."""

    def fit(self, X, y):
        self.low, self.width = X.min(0), np.ptp(X, 0)
        self.interpolant = RBFInterpolator((X - self.low) / self.width, y)
        return self

    def predict(self, X):
        return self.interpolant((X - self.low) / self.width)


def gaussian_process(n_features):
    scales = np.full(n_features, 0.1)
    kernel = ConstantKernel(1, (1e-5, 1e8)) * RBF(scales, (1e-3, 1e2))
    kernel += WhiteKernel(1e-10, (1e-15, 1))
    return GaussianProcessRegressor(kernel, alpha=1e-14, normalize_y=True)


def neural_network(solver):
    network = MLPRegressor(hidden_layer_sizes=(64, 64), activation="tanh", alpha=0, random_state=0)
    if solver == "lbfgs":
        network.set_params(solver=solver, max_iter=2000, max_fun=100_000, tol=0)
        # L-BFGS stops at an absolute change of the loss: targets of this size keep it going.
        scaler = MinMaxScaler((-200, 200))
    else:
        network.set_params(learning_rate_init=3e-3, max_iter=1000, n_iter_no_change=50, tol=1e-7)
        scaler = StandardScaler()
    return TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=scaler)


def boosting():
    return HistGradientBoostingRegressor(max_iter=500, random_state=0)


def rivals(n, n_features, quick=False):
    """Name and factory of every rival that suits a task; `quick` leaves out the slowest."""
    found = {}
    if n_features == 1:
        found = {f"spline, degree {k}": lambda k=k: Spline(k) for k in (3, 5, 7, 9)}
    found["radial basis functions"] = RadialBasis
    if n <= 2500 and not quick:
        found["Gaussian process"] = lambda: gaussian_process(n_features)
    found["neural network, L-BFGS"] = lambda: neural_network("lbfgs")
    found["neural network, Adam"] = lambda: neural_network("adam")
    found["gradient boosting"] = boosting
    return found


def rival_seeds(name, n, seeds):
    """Samples for a rival; a Gaussian process takes minutes for each of the larger ones."""
    return min(seeds, 1 if name == "Gaussian process" and n > 1000 else 3)


# Figures


def figure(n_axes):
    """Empty axes beside each other in the style of the documentation's figures."""
    import matplotlib

    style = {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"}
    matplotlib.rcParams.update(style | {"axes.spines.top": False, "axes.spines.right": False})
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5 * n_axes, 4), layout="constrained")
    return drawn, drawn.subplots(1, n_axes, sharey=True)


def save(drawn, name):
    FIGURES.mkdir(exist_ok=True)
    drawn.savefig(FIGURES / f"{name}.png", dpi=110)


def spread(errors):
    """Median and the distances to the least and the greatest, for error bars."""
    middle = float(np.median(errors))
    return middle, (middle - float(np.min(errors)), float(np.max(errors)) - middle)


# Tables


def digits(value, n=2):
    """A number with n significant digits, short; text as it is, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, (str, int)):
        return str(value)
    if value != 0 and not 1e-2 <= abs(value) < 1e4:
        return f"{value:.{n - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{float(f'{value:.{n - 1}e}'):g}"


def span(runs):
    """Numbers of pieces that runs found, from the least to the greatest."""
    found = sorted({run.pieces for run in runs if run.pieces is not None})
    return " to ".join(map(str, found[:: max(len(found) - 1, 1)]))


class Table:
    """Rows of a benchmark, with the bounds that some of them are held to.

    Attributes
    ----------
    is_kept : bool
        Whether the table is written to `RESULTS`.
    """

    is_kept = True

    def __init__(self):
        self.rows = []

    def add(self, row, bounds=()):
        """Add a row; bounds are triples (text, measured, limit)."""
        missed = [text for text, value, limit in bounds if not value <= limit]
        row = {key: digits(value) for key, value in row.items()}
        row["bound"] = ", ".join(text for text, _, _ in bounds)
        row["reached"] = "" if not bounds else f"no: {', '.join(missed)}" if missed else "yes"
        self.rows.append(row)
        print("  " + ", ".join(f"{k} {v}" for k, v in row.items() if v), flush=True)

    def add_runs(
        self,
        task,
        method,
        runs,
        *,
        error=None,
        seconds=None,
        pieces=None,
        reference=None,
        ratio=1.5,
    ):
        """Summary of the runs of one method on one task.

        `error` bounds the worst error, `seconds` the median time of a fit (the machine may be busy
        with other things), `pieces` is the number that every run must find. With the errors of a
        `reference` the table has the worst of the ratios to them, bounded by `ratio`.
        """
        errors, fits, predicts = (np.array([run[i] for run in runs]) for i in range(3))
        row = {
            "task": task,
            "method": method,
            "pieces": span(runs),
            "median error": float(np.median(errors)),
            "worst error": float(errors.max()),
            "fit (s)": float(np.median(fits)),
            "slowest fit (s)": float(fits.max()),
            "predict (s)": float(np.median(predicts)),
            "seeds": len(runs),
        }
        bounds = []
        if error is not None:
            bounds.append((f"error {digits(error, 1)}", errors.max(), error))
        if reference is not None:
            worst = float((errors / np.array(reference)).max())
            row["error / oracle"] = worst
            bounds.append((f"{ratio} times the oracle", worst, ratio))
        if seconds is not None:
            bounds.append((f"{seconds:g} s", np.median(fits), seconds))
        if pieces is not None:
            others = sum(run.pieces != pieces for run in runs)
            bounds.append((f"{pieces} pieces", others, 0))
        self.add(row, bounds)

    def columns(self):
        """Keys of all rows in their order, the bounds last."""
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        last = ["bound", "reached"]
        keys = [key for key in keys if key not in last]
        return keys + (last if any(row.get("bound") for row in self.rows) else [])

    def n_missed(self):
        return sum(row.get("reached", "").startswith("no") for row in self.rows)

    def show(self):
        keys = self.columns()
        lines = [keys] + [[row.get(key, "") for key in keys] for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(keys))]
        print()
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        print(f"\nbounds not reached: {self.n_missed()}", flush=True)

    def take_over(self, name, is_taken):
        """Rows of an earlier result for which `is_taken` says so."""
        path = RESULTS / f"{name}.csv"
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                self.rows += [row for row in csv.DictReader(file) if is_taken(row)]

    def write(self, name):
        RESULTS.mkdir(exist_ok=True)
        with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns(), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: row.get(k, "") for k in self.columns()} for row in self.rows)


def write_environment():
    """Note what the results were measured with."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    rows = {"processor, one thread": processor, "Python": platform.python_version()}
    for module in (skpou, np, scipy, sklearn, torch):
        rows[module.__name__] = module.__version__.split("+")[0]
    with open(RESULTS / "environment.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows.items())
