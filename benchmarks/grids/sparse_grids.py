"""Sparse grids: speed of evaluation, regression with refinement, two moons.

The functions of the regression have four variables, 10,000 rows and noise 0.01. SG++ takes part
where the variable SKPOU_PYSGPP names the interpreter of an environment with pysgpp and numpy < 2;
its rows are missing otherwise.
"""

import time

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.grids import sgpp
from benchmarks.shared import harness
from skpou import SparseGridClassifier, SparseGridRegressor
from skpou.datasets import make_two_moons_3d
from skpou.nn import SparseGridLayer

SEEDS = 10
N, NOISE = 10_000, 0.01
#: Samples for SG++, which takes minutes.
SGPP_SEEDS = 1
#: Most points of a refined grid.
MAX_POINTS = 2000

# Speed

#: Dimension, level, outputs, points at which ours, dense and SG++ are evaluated.
GRIDS = (
    (2, 6, 1, 200_000, 2_000, 20_000),
    (8, 4, 10, 10_000, 200, 2_000),
    (8, 7, 1, 2_000, 16, 500),
    (8, 7, 10, 2_000, 16, 500),
)


def dense(X, level, index):
    """All functions at all points, as a layer without any structure would form them."""
    t = torch.exp2(level) * X[:, None] - index
    last = torch.exp2(level) - 1
    hat = torch.where(index == 1, 1 - t, torch.where(index == last, 1 + t, 1 - t.abs()))
    return torch.where(level == 1, torch.ones_like(t), hat.clamp_min(0)).prod(2)


def seconds_per_point(function, X, coef):
    """Least processor seconds of three, forward alone and with gradients for points and coef."""
    found = []
    for backward in (False, True):
        X, coef = (v.detach().requires_grad_(backward) for v in (X, coef))
        runs = []
        for _ in range(3):
            start = time.process_time()
            with torch.set_grad_enabled(backward):
                value = function(X, coef).sum()
            if backward:
                value.backward()
            runs.append(time.process_time() - start)
        found.append(min(runs) / len(X))
    return found


def speed(seeds, quick):
    table = harness.Table()
    for d, level, m, n_ours, n_dense, n_sgpp in GRIDS[:2] if quick else GRIDS:
        X = harness.sample(d, n_ours, 0)
        layer = SparseGridLayer(d, level, m, dtype=torch.float64)
        levels, index = (torch.as_tensor(v) for v in layer.grid.levels_and_indices())
        task = f"d={d}, level {level}, {layer.grid.n_columns} points, {m} output{'s' * (m > 1)}"

        def add(method, forward, both=None, bounds=(), task=task):
            row = {"task": task, "method": method, "forward (us)": 1e6 * forward}
            row["and backward (us)"] = None if both is None else 1e6 * both
            table.add(row, bounds)

        times = {}
        for dtype in (torch.float32, torch.float64):
            name = str(dtype).removeprefix("torch.")
            points, coef = torch.tensor(X, dtype=dtype), layer.coef.detach().to(dtype)
            ours = seconds_per_point(layer.grid.evaluate, points, coef)
            l, i = levels.to(dtype), index.to(dtype)
            naive = seconds_per_point(
                lambda x, c, l=l, i=i: dense(x, l, i) @ c, points[:n_dense], coef
            )
            with torch.no_grad():
                value = layer.grid.evaluate(points[:n_dense], coef)
                expected = dense(points[:n_dense], l, i) @ coef
                scale = float(expected.abs().max())
                assert float((value - expected).abs().max()) < 1e3 * torch.finfo(dtype).eps * scale
            times[name] = ours, naive
        streaming = np.inf
        if sgpp.interpreter() and m == 1:
            for method, flag in (("SG++ streaming", True), ("SG++ default", False)):
                found = sgpp.call("speed", X=X[:n_sgpp], level=level, streaming=flag)
                assert found["n_points"] == layer.grid.n_columns
                forward, transposed = found["seconds"] / n_sgpp
                add(f"{method}, float64", forward, forward + transposed)
                streaming = min(streaming, forward)
        for name, (ours, naive) in times.items():
            add(f"dense, {name}", *naive)
            bounds = []
            if (d, level, m) == (8, 7, 1):
                times_faster = 20 if name == "float32" else 10
                bounds = [
                    ("1/200 of dense", 200 * ours[0], naive[0]),
                    (f"1/{times_faster} of SG++", times_faster * ours[0], streaming),
                ]
            if d == 2 and name == "float32":
                bounds = [("0.05 us", 1e6 * ours[0], 0.05)]
            add(f"skpou, {name}", *ours, bounds)
    return table


# Regression


def smooth(X):
    return np.exp(X[:, 0] * X[:, 1]) * np.cos(X[:, 2] + X[:, 3])


def peak(X):
    return np.exp(-20 * ((X - np.array([0.3, 0.4, 0.5, 0.6])) ** 2).sum(1))


def ridge(X):
    return np.tanh(20 * (X[:, 0] + X[:, 1] - 1))


class SmoothedRadialBasis:
    """Radial basis functions of 100 neighbours, smoothed as rows held out ask for."""

    def fit(self, X, y):
        n = len(X) // 10
        errors = {}
        for smoothing in (1e-3, 1e-2, 1e-1, 1.0):
            predict = self._interpolant(X[n:], y[n:], smoothing)
            errors[smoothing] = harness.rms(predict(X[:n]) - y[:n])
        self.predict = self._interpolant(X, y, min(errors, key=errors.get))
        return self

    def _interpolant(self, X, y, smoothing):
        return RBFInterpolator(X, y, neighbors=100, smoothing=smoothing)


class AdaptiveSGpp:
    """SG++'s surplus-adaptive regression, the ridge by rows held out; seconds of the best alone."""

    def fit(self, X, y, X_test):
        found = [
            sgpp.call(
                "regression", X=X, y=y, X_test=X_test, level=2, ridge=lam, max_points=MAX_POINTS
            )
            for lam in (1e-6, 1e-5)
        ]
        return min(found, key=lambda run: run["held_out"])


def regression(seeds, quick):
    table, drawn = harness.Table(), {}
    methods = {
        "skpou, level 5": lambda: SparseGridRegressor(level=5),
        "skpou, refined": lambda: SparseGridRegressor(n_refinements=100, max_points=MAX_POINTS),
    }
    rivals = {
        "radial basis functions": SmoothedRadialBasis,
        "gradient boosting": harness.boosting,
        "neural network, Adam": lambda: harness.neural_network("adam"),
    }
    for function in (smooth, peak, ridge):
        runs = {}

        def add(name, run, function=function, runs=runs):
            runs.setdefault(name, []).append(run)
            drawn.setdefault((function.__name__, name), []).append(run)

        for seed in range(min(seeds, SGPP_SEEDS)):
            if sgpp.interpreter() and not quick:
                X, X_test = harness.sample(4, N, seed), harness.fresh(4, seed)
                noise = NOISE * np.random.default_rng(20_000 + seed).standard_normal(N)
                found = AdaptiveSGpp().fit(X, function(X) + noise, X_test)
                error = harness.rms(found["predicted"] - function(X_test))
                points = int(found["n_points"])
                add("SG++, refined", (error**2, float(found["seconds"]), points))
        for name, make in {**methods, **({} if quick else rivals)}.items():
            for seed in range(seeds if name in methods else 1):
                run = harness.measure(make(), function, 4, N, seed, noise=NOISE)
                size = harness.rms(function(harness.fresh(4, seed)))
                add(name, ((run.error * size) ** 2, run.fit, run.pieces))
        theirs = runs.get("SG++, refined")
        for name, found in runs.items():
            errors, fits, points = zip(*found, strict=True)
            row = {
                "task": function.__name__,
                "method": name,
                "points": None if points[0] is None else int(np.median(points)),
                "median MSE": float(np.median(errors)),
                "worst MSE": float(np.max(errors)),
                "fit (s)": float(np.median(fits)),
                "seeds": len(found),
            }
            bounds = []
            if name == "skpou, refined" and theirs:
                error, seconds, _ = np.median(theirs, axis=0)
                bounds = [
                    ("MSE of SG++", row["median MSE"], error),
                    ("1/5 of its time", 5 * row["fit (s)"], seconds),
                ]
            table.add(row, bounds)
    return table, drawn


# Two moons


def moons(seeds, quick):
    table = harness.Table()
    methods = {
        f'skpou, method="{method}"': lambda method=method: SparseGridClassifier(method=method)
        for method in ("density", "one_hot", "softmax")
    }
    methods |= {
        "support vector classifier": SVC,
        "15 nearest neighbours": lambda: KNeighborsClassifier(15),
        "gradient boosting": lambda: HistGradientBoostingClassifier(random_state=0),
        "neural network": lambda: make_pipeline(
            StandardScaler(), MLPClassifier((15, 15), max_iter=1000, random_state=0)
        ),
    }
    for noise in (0.1, 0.2):
        for n in (1000, 3600):
            for name, make in methods.items():
                runs = []
                for seed in range(seeds):
                    X, y = make_two_moons_3d(n, noise=noise, random_state=seed)
                    X_test, y_test = make_two_moons_3d(
                        harness.N_TEST, noise=noise, random_state=10_000 + seed
                    )
                    bayes = np.mean(make_two_moons_3d(noise=noise, X=X_test)[1] == y_test)
                    model = make()
                    seconds = harness.fit(model, X[:, :2], y)
                    accuracy = model.score(X_test[:, :2], y_test)
                    runs.append((accuracy, accuracy - bayes, seconds))
                accuracy, gap, seconds = np.transpose(runs)
                row = {
                    "task": f"noise {noise}, n={n}",
                    "method": name,
                    "accuracy": f"{accuracy.mean():.4f}",
                    "above Bayes": f"{gap.mean():.4f}",
                    "worst": f"{gap.min():.4f}",
                    "fit (s)": float(np.median(seconds)),
                    "seeds": seeds,
                }
                bounds = []
                if "density" in name:
                    bounds = [
                        ("0.002 below Bayes", -gap.mean(), 0.002),
                        ("0.1 s", np.median(seconds), 0.1),
                    ]
                table.add(row, bounds)
                if quick and "softmax" in name:
                    break
    return table


# Figure


def contours(ax, title, noise=0.2):
    """Probability of the second moon, Bayes' border and the rows."""
    X, y = make_two_moons_3d(1000, noise=noise, random_state=0)
    model = SparseGridClassifier().fit(X[:, :2], y)
    low, high = X[:, :2].min(0) - 0.1, X[:, :2].max(0) + 0.1
    axes = np.meshgrid(*(np.linspace(a, b, 300) for a, b in zip(low, high, strict=True)))
    grid = np.column_stack([axes[0].ravel(), axes[1].ravel(), np.zeros(axes[0].size)])
    probability = model.predict_proba(grid[:, :2])[:, 1].reshape(axes[0].shape)
    bayes = make_two_moons_3d(noise=noise, X=grid)[1].reshape(axes[0].shape)
    shades = ax.pcolormesh(
        *axes, probability, cmap="RdBu_r", vmin=0, vmax=1, alpha=0.6, rasterized=True
    )
    for moon, color in enumerate(("#08519c", "#a50f15")):
        ax.scatter(*X[y == moon, :2].T, s=3, color=color, linewidths=0)
    ax.contour(*axes, probability, levels=[0.5], colors="black", linewidths=1.5)
    ax.contour(*axes, bayes, levels=[0.5], colors="black", linewidths=1, linestyles="dotted")
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    return shades


COLORS = {
    "skpou, level 5": "#56b4e9",
    "skpou, refined": "#0072b2",
    "SG++, refined": "#d55e00",
    "radial basis functions": "#009e73",
    "gradient boosting": "#999999",
    "neural network, Adam": "#cc79a7",
}
MARKERS = {"smooth": "o", "peak": "^", "ridge": "s"}


def draw(runs):
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    style = {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"}
    matplotlib.rcParams.update(style)
    drawn = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for (task, method), found in runs.items():
        errors, fits, _ = zip(*found, strict=True)
        left.scatter(
            np.median(fits), np.median(errors), marker=MARKERS[task], color=COLORS[method], s=40
        )
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLORS[name], label=name)
        for name in COLORS
        if any(method == name for _, method in runs)
    ]
    handles += [
        Line2D([], [], marker=marker, linestyle="", color="black", fillstyle="none", label=task)
        for task, marker in MARKERS.items()
    ]
    drawn.legend(handles=handles, frameon=False, fontsize=8, ncols=5, loc="outside lower center")
    left.set(xscale="log", yscale="log", xlabel="fit (s)", ylabel="mean square error")
    left.set_title(f"Four variables, {N} rows, noise {NOISE}")
    left.grid(color="0.9", linewidth=0.7)
    left.set_axisbelow(True)
    left.spines[["top", "right"]].set_visible(False)
    shades = contours(right, "Two moons, noise 0.2: border (solid) and Bayes' (dotted)")
    drawn.colorbar(shades, ax=right, shrink=0.8, label="probability of the lower moon")
    harness.save(drawn, "sparse_grids")


def run(seeds, quick):
    if not sgpp.interpreter():
        print("  SKPOU_PYSGPP is not set: without SG++")
    table, runs = regression(seeds, quick)
    for name, measure in (("speed", speed), ("moons", moons)):
        other = measure(seeds, quick)
        if not quick:
            other.show()
            other.write(f"sparse_grids_{name}")
    if not quick:
        draw(runs)
    return table
