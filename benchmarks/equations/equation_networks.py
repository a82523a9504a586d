"""Advection by networks of a given size: gradient descent against least squares inside.

After the figures of M. Gulian's talk on Cyr et al. (MSML 2020). The equation is u_t + a u_x = 0 on
the unit square, with u(x, 0) = u_0(x) and u(0, t) = 0, on a grid of 33 x 33 points.
"""

import numpy as np

from benchmarks.shared import harness
from skpou import LSGDRegressor
from skpou.physics import Equation

SIDE, N_FRESH = 33, 10_000
WIDTHS, DEPTHS = (8, 16, 32, 64, 128), (1, 2, 4)
STEPS, RATE_SEEDS = 1000, 2
LABELS = {"gd": "GD", "lsgd": "LSGD", "relu": "ReLU", "tanh": "tanh"}
COLORS = {"gd": "#d55e00", "lsgd": "#0072b2", "relu": "#009e73", "tanh": "#cc79a7"}


def constant(u, x, p):
    return u.d(1) + u.d(0)


def varying(u, x, p):
    return u.d(1) + x[:, 0] * u.d(0)


def hat(x):
    """Piecewise linear, within the range of three rectified units."""
    return np.maximum(0, 1 - np.abs(x - 0.3) / 0.2)


def moved_hat(X):
    return hat(X[:, 0] - X[:, 1])


def stretched(X):
    return np.sin(np.pi * X[:, 0] * np.exp(-X[:, 1])) ** 2


def grids():
    """Points of the data and of the equation."""
    t = np.linspace(0, 1, SIDE)
    data = np.unique(np.r_[np.c_[t, 0 * t], np.c_[0 * t, t]], axis=0)
    inner = np.stack(np.meshgrid(t[1:], t[1:], indexing="ij"), -1).reshape(-1, 2)
    return data, inner


def solve(residual, exact, sizes, seed, *, weight="auto", **options):
    """Error at fresh points, seconds and the losses of one run."""
    X, points = grids()
    model = LSGDRegressor(
        sizes, init="box", physics=Equation(residual, points, weight=weight), random_state=seed,
        **options,
    )  # fmt: skip
    seconds = harness.fit(model, X, exact(X))
    fresh = np.random.default_rng(30_000 + seed).random((N_FRESH, 2))
    return harness.rms(model.predict(fresh) - exact(fresh)), seconds, model.loss_curve_


def add(table, task, method, runs):
    errors, fits, curves = zip(*runs)
    table.add(
        {
            "task": task,
            "method": method,
            "median error": float(np.median(errors)),
            "worst error": max(errors),
            "median loss": float(np.median([min(curve) for curve in curves])),
            "fit (s)": float(np.median(fits)),
            "slowest fit (s)": max(fits),
            "seeds": len(runs),
        }
    )


def solve_hat(table, seeds, quick):
    """One layer of 32 rectified units; the weight of the equation is 1."""
    found = {}
    for solver, steps in (("gd", 5000), ("lsgd", 500), ("varpro", 100)):
        steps = min(steps, 300) if quick else steps
        options = {"activation": "relu", "solver": solver, "max_iter": steps, "weight": 1.0}
        runs = [solve(constant, moved_hat, (32,), seed, **options) for seed in range(seeds)]
        found[solver] = runs
        add(table, "a = 1, hat, 32 rectified units", f"{solver}, {steps} steps", runs)
    return found


def solve_rates(table, quick):
    """Errors for a = x against width, then against depth."""
    seeds, steps = (1, 100) if quick else (RATE_SEEDS, STEPS)
    by_width, by_depth = {}, {}
    for activation, rate in (("relu", 1e-3), ("tanh", 1e-2)):
        for width in WIDTHS[:2] if quick else WIDTHS:
            options = {"activation": activation, "solver": "lsgd", "learning_rate": rate}
            runs = [
                solve(varying, stretched, (width,), seed, max_iter=steps, **options)
                for seed in range(seeds)
            ]
            by_width[activation, width] = [run[0] for run in runs]
            add(table, f"a = x, sin^2, {width} units", f"lsgd, {activation}", runs)
    for solver in ("gd", "lsgd"):
        for depth in DEPTHS[:2] if quick else DEPTHS:
            options = {"activation": "tanh", "solver": solver, "learning_rate": 1e-2}
            runs = [
                solve(varying, stretched, (32,) * depth, seed, max_iter=steps, **options)
                for seed in range(seeds)
            ]
            by_depth[solver, depth] = [run[0] for run in runs]
            add(table, f"a = x, sin^2, {depth} layers of 32", f"{solver}, tanh", runs)
    return by_width, by_depth


def draw(hats, by_width, by_depth):
    from matplotlib.figure import Figure

    harness.figure(1)  # The style of all figures
    drawn = Figure(figsize=(13, 4), layout="constrained")
    loss, width, depth = drawn.subplots(1, 3)
    for solver in ("gd", "lsgd"):
        for i, (_, _, curve) in enumerate(hats[solver]):
            least = np.minimum.accumulate(curve)
            label = solver.upper() if not i else None
            loss.plot(np.arange(1, len(least) + 1), least, color=COLORS[solver], lw=1, label=label)
    loss.set(xscale="log", yscale="log", xlabel="steps", ylabel="loss")
    loss.set(title="a = 1: a hat by 32 rectified units")
    for ax, errors, name in ((width, by_width, "units in one layer"),
                             (depth, by_depth, "layers of 32 units")):  # fmt: skip
        for kind in dict.fromkeys(key[0] for key in errors):
            sizes = [size for key, size in errors if key == kind]
            middle = [np.median(errors[kind, size]) for size in sizes]
            ax.plot(
                sizes,
                middle,
                color=COLORS[kind],
                label={"gd": "GD", "lsgd": "LSGD"}.get(kind, kind),
            )
            for size in sizes:
                values = errors[kind, size]
                ax.plot([size] * len(values), values, "x", color=COLORS[kind], ms=5)
        ax.set(xscale="log", yscale="log", xlabel=name, ylabel="error")
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
    width.plot(WIDTHS, 0.02 * (np.array(WIDTHS) / WIDTHS[0]) ** -0.5, "k:", label="W^(-1/2)")
    width.set(title="a = x: width, LSGD")
    depth.set(title="a = x: depth, tanh")
    for ax in (loss, width, depth):
        ax.legend(frameon=False)
    harness.save(drawn, "equation_networks")


def run(seeds, quick):
    table = harness.Table()
    hats = solve_hat(table, seeds, quick)
    by_width, by_depth = solve_rates(table, quick)
    if not quick:
        draw(hats, by_width, by_depth)
    return table
