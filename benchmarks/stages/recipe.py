"""The papers' recipe for stages of networks, after Figs. 1(d), 2 and 3 of W. Pan's lecture on it.

Target and points are the lecture's: sin(2x + 1) + 0.2 exp(1.3x) at even points from -1 to 1. Eight
repeats differ in the random weights alone. Errors are root mean squares, at the samples and at
10,001 even points between them.

Less than in the lecture: 5000 iterations for one network alone, where it goes on after them, and
1000 of Adam and 1000 of L-BFGS for each network of its Figs. 2 and 3; steps of Adam fall to 0 along
half a cosine. Which sizes, numbers of points and magnitudes its figures have is not in its text:
those here are ours.
"""

import time

import numpy as np
import torch

from benchmarks.shared import harness
from benchmarks.stages import targets
from skpou import MultiStageRegressor
from skpou.core.rows import Rows
from skpou.multi_stage.joint_descent import JointDescent
from skpou.multi_stage.recipe import LEARNING_RATE
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkBasis
from skpou.networks.initializations import glorot

SEEDS = 8
SIZES, N = (20, 20, 20), 300
#: Steps of Adam, of L-BFGS; the learning rate.
OPTIMISERS = {
    "Adam, 1e-3": (5000, 0, LEARNING_RATE),
    "Adam, 1e-2": (5000, 0, 1e-2),
    "L-BFGS": (0, 5000, LEARNING_RATE),
    "Adam, then L-BFGS": (2500, 2500, LEARNING_RATE),
}
STEPS = 1000
UNITS, LAYERS, POINTS = (10, 20, 30, 40), (2, 3, 4, 5), (100, 200, 300, 600)
MAGNITUDES = (1e-4, 1e-2, 1.0, 1e2, 1e4)
TARGET = targets.LINE["ug"][0]
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def rows_of(n, magnitude=1.0):
    """Even points from -1 to 1 and the target times a magnitude, not normalized."""
    X = targets.points("uniform", n, 0)
    y = torch.as_tensor(magnitude * TARGET(X))[:, None]
    return Rows(torch.as_tensor(X), y, torch.ones(n, dtype=y.dtype), torch.zeros_like(y))


def errors_of(descent, network, magnitude):
    """Errors of the best parameters at the samples and between them, relative to the magnitude."""
    X = targets.fresh(1)
    basis = NetworkBasis(network, descent.best.theta)
    found = basis.evaluate(torch.as_tensor(X), descent.best.coef)[:, 0].numpy()
    between = harness.rms(found - magnitude * TARGET(X))
    return np.sqrt(descent.least) / magnitude, between / magnitude


def one_network(seed, adam, lbfgs, learning_rate=LEARNING_RATE, magnitude=1.0):
    """Errors after so many steps of Adam, then of L-BFGS; losses at each evaluation; seconds."""
    start = time.process_time()
    rows, network = rows_of(N, magnitude), Network(1, SIZES, activation="tanh")
    theta = glorot(network, np.random.default_rng(seed), rows.X)
    coef = torch.zeros((network.n_columns, 1), dtype=theta.dtype)
    descent, errors = JointDescent(network, rows, theta, coef, 1.0), []
    descent.adam(adam, learning_rate)
    if adam:
        errors.append(errors_of(descent, network, magnitude))
    descent.lbfgs(lbfgs, 0.0)
    errors.append(errors_of(descent, network, magnitude))
    return errors, descent.best.curve, time.process_time() - start


def stages_of(seed, sizes, n, n_stages, max_iter):
    """Errors of each stage at the samples and between them, scale factors, seconds."""
    X, fresh = targets.points("uniform", n, 0), targets.fresh(1)
    model = MultiStageRegressor(
        n_stages, hidden_layer_sizes=sizes, solver="adam_lbfgs", max_iter=max_iter,
        random_state=seed,
    )  # fmt: skip
    seconds = harness.fit(model, X, TARGET(X))
    between = [harness.rms(part - TARGET(fresh)) for part in model.staged_predict(fresh)]
    return list(zip(model.residual_rms_, between)), model.scale_factors_, seconds


def row(task, case, stage, errors, seconds, factors=()):
    """Summary of the repeats: median and standard deviation, which are the lecture's bars."""
    at, between = np.array(errors).T
    return {
        "task": task,
        "network": case,
        "stage": stage,
        "at the samples": float(np.median(at)),
        "deviation": float(np.std(at)),
        "between the samples": float(np.median(between)),
        "worst between": float(between.max()),
        "scale factor": float(np.median(factors)) if len(factors) else None,
        "fit (s)": float(np.median(seconds)),
        "repeats": len(at),
    }


def optimisers(table, seeds, share):
    """Fig. 1(d): one network by Adam, by L-BFGS, and by both; returns the losses."""
    curves = {}
    for name, (adam, lbfgs, rate) in OPTIMISERS.items():
        steps = int(share * adam), int(share * lbfgs)
        runs = [one_network(seed, *steps, rate) for seed in range(seeds)]
        errors, curves[name], seconds = zip(*runs)
        table.add(row(name, "3 layers of 20", 1, [both[-1] for both in errors], seconds))
    return curves


def stages(table, task, case, sizes, n, n_stages, seeds, max_iter):
    """Rows of one network, a row for each stage; returns the errors of each repeat by stage."""
    runs = [stages_of(seed, sizes, n, n_stages, max_iter) for seed in range(seeds)]
    for stage in range(max(len(errors) for errors, *_ in runs)):
        # A repeat whose next stage did not halve the residual has fewer.
        some = [run for run in runs if len(run[0]) > stage]
        errors, factors, seconds = zip(*[(e[stage], f[stage], s) for e, f, s in some])
        table.add(row(task, case, stage + 1, errors, seconds, factors))
    return [np.array(errors) for errors, *_ in runs]


def sizes(table, seeds, quick, max_iter):
    """Fig. 2: units, layers and points, each with two stages; returns errors by what varies."""
    found, known = {}, {}
    cases = {
        "units": [((units,) * 3, N, units) for units in UNITS],
        "layers": [((20,) * layers, N, layers) for layers in LAYERS],
        "points": [(SIZES, n, n) for n in POINTS],
    }
    for varied, some in cases.items():
        found[varied] = []
        for widths, n, value in some[: 2 if quick else None]:
            if (widths, n) not in known:
                case = f"{len(widths)} layers of {widths[0]}, {n} points"
                known[widths, n] = stages(
                    table, "two stages", case, widths, n, 2, seeds, max_iter
                )  # fmt: skip
            found[varied].append((value, known[widths, n]))
    return found


def magnitudes(table, seeds, steps):
    """Fig. 3: targets of several magnitudes, not normalized; returns errors after each optimiser.

    L-BFGS divides the loss by its value at the start, so Adam alone shows the magnitude's effect.
    """
    found = []
    for magnitude in MAGNITUDES:
        runs = [one_network(seed, steps, steps, magnitude=magnitude) for seed in range(seeds)]
        errors, _, seconds = zip(*runs)
        for index, name in enumerate(("Adam", "Adam, then L-BFGS")):
            some = [both[index] for both in errors]
            table.add(row(f"{name}, times {magnitude:.0e}", "3 layers of 20", 1, some, seconds))
        found.append((magnitude, np.array(errors)))
    return found


def band(ax, steps, values, color, label, marker=None):
    """Median of the repeats, and from the least to the greatest of them."""
    ax.plot(steps, np.median(values, 0), color=color, label=label, marker=marker, markersize=4)
    ax.fill_between(steps, np.min(values, 0), np.max(values, 0), color=color, alpha=0.15, lw=0)


def draw_training(curves, found, relative):
    """Optimisers, stages and magnitudes."""
    drawn, axes = harness.figure(3)
    for color, (name, runs) in zip(COLORS, curves.items()):
        length = max(map(len, runs))
        least = [np.sqrt(np.minimum.accumulate(run)) for run in runs]
        # A run that has ended stays where it is.
        padded = [np.pad(run, (0, length - len(run)), mode="edge") for run in least]
        band(axes[0], np.arange(1, length + 1), padded, color, name)
    axes[0].set(xlabel="evaluations", ylabel="rms error", title="one network, at the samples")
    for repeat, errors in enumerate(found):
        for index, name in enumerate(("at the samples", "between the samples")):
            label = None if repeat else name
            axes[1].plot(range(1, len(errors) + 1), errors[:, index], "o-", color=COLORS[index],
                         alpha=0.5, markersize=4, linewidth=1, label=label)  # fmt: skip
    axes[1].set(xlabel="stage", title="stages", xticks=range(1, max(map(len, found)) + 1))
    steps = [magnitude for magnitude, _ in relative]
    for index, name in enumerate(("Adam", "Adam, then L-BFGS")):
        values = np.array([errors[:, index, 1] for _, errors in relative]).T
        band(axes[2], steps, values, COLORS[3 * index], name, "o")
    axes[2].set(xlabel="magnitude of the target", title="not normalized: relative error between")
    axes[2].set_xscale("log")
    axes[0].set_yscale("log")
    for ax in axes:
        ax.legend(frameon=False)
    harness.save(drawn, "multi_stage_recipe")


def draw_sizes(found):
    """Errors of two stages against units, layers and points: median, least and greatest."""
    drawn, axes = harness.figure(3)
    for ax, (varied, some) in zip(axes, found.items()):
        values = np.array([value for value, _ in some])
        for stage in range(2):
            for index, name in enumerate(("at the samples", "between the samples")):
                errors = [[e[stage, index] for e in runs if len(e) > stage] for _, runs in some]
                middle, away = zip(*map(harness.spread, errors))
                # Shifted a little: the errors of the first stage are the same at both places.
                ax.errorbar(
                    values * (1.015 if index else 0.985), middle, np.transpose(away),
                    fmt="s--" if index else "o-", color=COLORS[stage], capsize=3, markersize=4,
                    label=f"stage {stage + 1}, {name}",
                )  # fmt: skip
        ax.set(xlabel=varied, title=f"{varied}, two stages", yscale="log", xscale="log")
        ax.set_xticks(values, [str(value) for value in values])
        ax.minorticks_off()
    axes[0].set_ylabel("rms error")
    axes[2].legend(frameon=False)
    harness.save(drawn, "multi_stage_recipe_sizes")


def training(seeds, quick):
    """Optimisers, four stages, magnitudes."""
    table, steps = harness.Table(), STEPS // 5 if quick else STEPS
    curves = optimisers(table, seeds, 0.1 if quick else 1.0)
    errors = stages(table, "four stages", "3 layers of 20, 300 points", SIZES, N, 4, seeds, steps)
    relative = magnitudes(table, seeds, steps)
    if not quick:
        draw_training(curves, errors, relative)
    return table


def two_stages(seeds, quick):
    """Units, layers and points."""
    table = harness.Table()
    found = sizes(table, seeds, quick, STEPS // 5 if quick else STEPS)
    if not quick:
        draw_sizes(found)
    return table


SECTIONS = {"training": training, "sizes": two_stages}
