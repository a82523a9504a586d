"""MultiStageRegressor by default: errors between the samples down to round-off, and noise.

Errors are root mean squares at 10,001 even points of a line, or 10,000 random ones of a box, that
no model has seen. The limits of a task on a line with noise are in units of the noise. In one
dimension the largest error is compared with that of an interpolating cubic spline.

Each section has its own table: ``python -m benchmarks multi_stage:noise`` measures and
writes one of them anew. Rivals whose fits take seconds are given fewer samples.
"""

import functools

import numpy as np

from benchmarks.shared import harness
from benchmarks.stages import rivals, targets
from skpou import MultiStageRegressor

SEEDS = 10
SIGMAS = (1e-6, 1e-3, 1e-1)
#: Bounds of the error without noise: three times the best prototype's, or 2e-15.
EXACT = {
    ("ug", "uniform"): 1e-15, ("ug", "gaps"): 6.9e-15,
    ("runge", "uniform"): 5.1e-13, ("runge", "gaps"): 2e-15,
    ("tanh30", "uniform"): 2e-15, ("tanh30", "gaps"): 2e-15,
    ("tanh100", "uniform"): 2e-15, ("tanh100", "gaps"): 2e-15,
    ("hf", "uniform"): 3.9e-15, ("hf", "gaps"): 3.9e-14,
    ("twoscale", "uniform"): 1e-13, ("twoscale", "gaps"): 1e-6,
    ("abs", "uniform"): 1.9e-5, ("abs", "gaps"): 1.2e-5,
    ("step", "uniform"): 0.11, ("step", "gaps"): 0.11,
}  # fmt: skip
#: The same with noise, in units of it, for 1e-6, 1e-3, 1e-1.
NOISY = {
    ("ug", "uniform"): (0.25, 0.25, 0.25), ("ug", "gaps"): (0.66, 0.42, 0.33),
    ("runge", "uniform"): (2.7, 1.2, 0.63), ("runge", "gaps"): (0.54, 1.7, 0.81),
    ("tanh30", "uniform"): (0.33, 0.36, 1.1), ("tanh30", "gaps"): (1.6, 0.51, 1.9),
    ("tanh100", "uniform"): (0.3, 0.33, 1.7), ("tanh100", "gaps"): (1.3e5, 201.0, 3.6),
    ("hf", "uniform"): (1.1, 1.1, 0.93), ("hf", "gaps"): (3.0, 2.0, 1.3),
    ("twoscale", "uniform"): (1.5, 2.8, 0.36), ("twoscale", "gaps"): (1.8e3, 3.9, 0.33),
}  # fmt: skip
SECOND = {
    ("mix", "uniform"): 6.3e-15, ("mix", "gaps"): 0.11, ("chirp", "uniform"): 3.3e-11,
    ("chirp", "gaps"): 1.1e-7, ("peak", "uniform"): 2e-15, ("peak", "gaps"): 2e-15,
    ("poly", "uniform"): 2e-15, ("poly", "gaps"): 2e-15, ("diode", "uniform"): 2e-15,
    ("diode", "gaps"): 2e-15,
}  # fmt: skip
BOX = {
    "smooth2, 2000": 6.6e-12, "smooth2, 4000": 5e-13, "ridge2": 2e-15, "peak2": 3.6e-9,
    "absxy": 3.3e-6, "franke": 2.9e-6, "f3": 1e-9, "front2": 2.7e-2, "front2, noise": 5.7e-2,
    "abs2": 5.7e-3, "abs2, noise": 1.6e-2,
}  # fmt: skip
BOX_SECONDS = {"smooth2, 4000": 4.0, "f3": 15.0}
#: Targets on boxes that a Gaussian process gets, too: it takes a minute and a half for each.
WITH_PROCESS = ("franke", "front2", "abs2, noise")
NETWORK = (20, 20, 20)
LINES = {**targets.LINE, **targets.SECOND, **targets.FRESH}


def runs_of(make, function, d, sample, fresh, noise, seeds):
    """Errors, largest errors, seconds and bases of some seeds."""
    found = []
    for seed in range(seeds):
        X = sample(seed)
        rng = np.random.default_rng([seed, 77])
        y = function(X) + noise * rng.standard_normal(len(X))
        model = make(seed)
        seconds = harness.fit(model, X, y)
        error = np.abs(model.predict(fresh) - function(fresh))
        found.append((harness.rms(error), float(error.max()), seconds, model))
    return found


def row(name, points, method, found, noise=0.0):
    errors = [run[0] for run in found]
    bases = {"+".join(getattr(run[3], "basis_", [])) for run in found}
    return {
        "target": name,
        "points": points,
        "noise": noise,
        "method": method,
        "median error": float(np.median(errors)),
        "worst error": max(errors),
        "largest error": max(run[1] for run in found),
        "basis": ", ".join(sorted(bases)),
        "fit (s)": float(np.median([run[2] for run in found])),
        "seeds": len(found),
    }


def default(seed):
    return MultiStageRegressor()


def on_line(table, name, layout, limit, seeds, *, noise=0.0, fast=False):
    """One task on a line by this model and its rivals; returns the median error of each."""
    function, n = LINES[name]
    fresh = targets.fresh(1)
    task = (function, 1, lambda seed: targets.points(layout, n, seed), fresh, noise)
    # The even points of all samples are the same.
    varied = seeds if noise or layout == "gaps" else 1
    found = {"MultiStageRegressor": runs_of(default, *task, varied)}
    for method, make in rivals.on_line(n, fast).items():
        some = rivals.samples(method, n, varied)
        found[method] = runs_of(lambda _, make=make: make(), *task, some)
    ours, splines = found["MultiStageRegressor"], found["spline, degree 3"]
    bounds = [("3 times the spline's largest error",
               max(a[1] / b[1] for a, b in zip(ours, splines)), 3)]  # fmt: skip
    if limit is not None:
        median = float(np.median([run[0] for run in ours]))
        unit = noise or 1.0
        bounds.append((f"error {limit:.2g}{' sigma' if noise else ''}", median / unit, limit))
    for method, runs in found.items():
        table.add(row(name, layout, method, runs, noise), bounds if runs is ours else ())
    return {method: float(np.median([run[0] for run in runs])) for method, runs in found.items()}


def lines(seeds, quick):
    """Targets on a line without noise, with all rivals; their medians in a table beside."""
    table, medians = harness.Table(), harness.Table()
    for name in LINES:
        few = seeds if name in targets.LINE else min(seeds, 5)
        for layout in ("uniform", "gaps") if name != "noise" else ():
            limit = {**EXACT, **SECOND}.get((name, layout))
            errors = on_line(table, name, layout, limit, few, fast=quick)
            medians.rows.append(
                {"target": name, "points": layout, "bound": ""}
                | {method: harness.digits(error) for method, error in errors.items()}
            )
    if not quick:
        medians.write("multi_stage_medians")
    return table


def noisy(seeds, quick):
    """The same with noise, beside the rivals that take milliseconds; noise alone."""
    table = harness.Table()
    for name in targets.LINE:
        for layout in ("uniform", "gaps"):
            for sigma, limit in zip(SIGMAS, NOISY.get((name, layout), ())):
                few = seeds if name == "ug" else min(seeds, 3)
                on_line(table, name, layout, limit, few, noise=sigma, fast=True)
    for layout in ("uniform", "gaps"):
        task = (LINES["noise"][0], 1, lambda seed, layout=layout: targets.points(layout, 300, seed))
        found = runs_of(default, *task, targets.fresh(1), 1.0, seeds)
        spread = max(np.ptp(run[3].predict(targets.fresh(1))) for run in found)
        table.add(row("noise", layout, "MultiStageRegressor", found, 1.0),
                  [("a constant", spread, 1e-12)])  # fmt: skip
    return table


def boxes(seeds, quick):
    """Targets on boxes of two and three dimensions."""
    table = harness.Table()
    for name, (function, d, n, sigma) in targets.BOX.items():
        fresh = targets.fresh(d, 10_000)
        sample = functools.partial(targets.scattered, d, n)
        task = (function, d, sample, fresh, sigma)
        ours = runs_of(default, *task, min(seeds, 10 if name in BOX_SECONDS else 3))
        median = float(np.median([run[0] for run in ours]))
        bounds = [(f"error {BOX[name]:.2g}", median, BOX[name])]
        if name in BOX_SECONDS:
            seconds = float(np.median([run[2] for run in ours]))
            bounds.append((f"{BOX_SECONDS[name]:.2g} s", seconds, BOX_SECONDS[name]))
        table.add(row(name, "random", "MultiStageRegressor", ours, sigma), bounds)
        if quick or n > 4000:
            continue
        for method, make in harness.rivals(n, d, quick=name not in WITH_PROCESS).items():
            some = rivals.samples(method, n, min(seeds, 3))
            found = runs_of(lambda _, make=make: make(), *task, some)
            table.add(row(name, "random", method, found, sigma))
    return table


def large(seeds, quick):
    """100,000 rows in ten dimensions, four of which do not matter, with noise."""

    def function(X):
        return np.sin(2 * X[:, 0] + X[:, 1]) + X[:, 2] * X[:, 3] + 0.5 * np.cos(X[:, 4] + X[:, 5])

    fresh = targets.fresh(10, 10_000)
    found = runs_of(default, function, 10, lambda s: targets.scattered(10, 100_000, s), fresh,
                    0.05, 1)  # fmt: skip
    bounds = [("30 s", found[0][2], 30), ("half the noise", found[0][0] / 0.05, 0.5)]
    table = harness.Table()
    table.add(row("ten dimensions", "random", "MultiStageRegressor", found, 0.05), bounds)
    return table


def stages(seeds, quick):
    """The lecture's target by three kinds of stages: error at the samples and between them."""
    table = harness.Table()
    function, n = targets.LINE["ug"]
    fresh, curves = targets.fresh(1), {}
    X = targets.points("uniform", n, 0)
    kinds = {
        "default": {},
        "network, then sines": {"hidden_layer_sizes": NETWORK},
        "recipe": {"hidden_layer_sizes": NETWORK, "solver": "adam_lbfgs", "max_iter": 4000},
    }
    for name, params in kinds.items():
        between, at, seconds = [], [], []
        for seed in range(3 if name == "recipe" else seeds):
            model = MultiStageRegressor(random_state=seed, **params)
            seconds.append(harness.fit(model, X, function(X)))
            truth = function(fresh)
            between.append([harness.rms(p - truth) for p in model.staged_predict(fresh)])
            at.append(list(model.residual_rms_))
            if name == "recipe" and quick:
                break
        curves[name] = (between, at)
        last = [errors[-1] for errors in between]
        result = {
            "target": "ug",
            "points": "uniform",
            "noise": 0.0,
            "method": f"stages: {name}",
            "median error": float(np.median(last)),
            "worst error": max(last),
            "largest error": float(np.median([left[-1] for left in at])),
            "basis": f"{np.median([len(left) for left in at]):.0f} stages",
            "fit (s)": float(np.median(seconds)),
            "seeds": len(last),
        }
        bounds = []
        if name != "recipe":
            bounds = [("error 1e-15", result["median error"], 1e-15),
                      ("worst 2e-15", max(last), 2e-15)]  # fmt: skip
        table.add(result, bounds)
    if not quick:
        draw(curves)
    return table


def draw(curves):
    drawn, axes = harness.figure(2)
    for axis, place, title in zip(axes, (1, 0), ("at the samples", "between the samples")):
        for number, (name, both) in enumerate(curves.items()):
            for index, errors in enumerate(both[place]):
                label = name if not index else None
                steps = range(1, len(errors) + 1)
                axis.semilogy(steps, errors, "o-", color=f"C{number}", alpha=0.6, label=label)
        axis.set(xlabel="stage", title=f"rms error {title}", xticks=range(1, 5))
    axes[0].set_ylabel("rms error")
    axes[1].legend(frameon=False)
    harness.save(drawn, "multi_stage")


SECTIONS = {"stages": stages, "large": large, "boxes": boxes, "lines": lines, "noise": noisy}
