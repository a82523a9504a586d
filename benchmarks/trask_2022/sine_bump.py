"""A sine with a bump, Fig. 3 of Trask et al. (MSML 2022): two levels against one, and time.

(15, 3) partitions against one level of 15 and of 45, degree 2, on 500 random points (the paper
does not print its number); errors on 5001 points, relative. The paper's training is run to 10,
30, 100, 300 and 1000 V-cycles. Then the degree rises while the partitions stay: each polynomial
on its own with Eq. 17's weights, as in training, or all at once by Eq. 2, which is `refit`. The
default is five seeds, as many as the paper's runs; ten take more than six minutes.
"""

from copy import deepcopy

import numpy as np

from benchmarks.shared import harness
from benchmarks.trask_2022 import paper
from skpou.datasets import make_sine_bump

SEEDS = 5
N_SAMPLES = 500
SIZES = ((15, 3), 15, 45)
CYCLES = (10, 30, 100, 300, 1000)
DEGREES = range(1, 9)
STYLES = {(15, 3): (paper.RED, "-"), 15: (paper.SKY, "-"), 45: (paper.BLUE, "-")}
X_TEST = np.linspace(0, 1, 5001)[:, None]


def data(seed):
    return make_sine_bump(N_SAMPLES, random_state=seed)


def error(model, level=None):
    return paper.error(model, X_TEST, make_sine_bump(X=X_TEST)[1], level=level)


def train(size, seeds, cycles):
    """Errors (run, cycles), those of the coarse level, seconds (run, cycles), last models."""
    errors, coarse, seconds, models = [], [], [], []
    for seed in range(seeds):
        X, y = data(seed)
        row, times = [], []
        for n in cycles:
            model = paper.printed(size, 2, seed, cycles=n)
            times.append(paper.fit(model, X, y))
            row.append(error(model))
        errors.append(row)
        coarse.append(error(model, 0))
        seconds.append(times)
        models.append(model)
    return np.array(errors), np.array(coarse), np.array(seconds), models


def train_ours(size, seeds):
    """Errors, seconds and models of the default training."""
    found = []
    for seed in range(seeds):
        model = paper.ours(size, 2, seed)
        seconds = paper.fit(model, *data(seed))
        found.append((error(model), seconds, model))
    errors, seconds, models = zip(*found)
    return np.array(errors), np.array(seconds), models


def jointly(model, seed, degree):
    return model.refit(*data(seed), degree=degree)


def weighted(model, seed, degree):
    """Polynomials by Eq. 17: a cycle whose step of the gates is none to speak of."""
    model.set_params(warm_start=True, degree=degree, max_iter=1, learning_rate=1e-12)
    paper.fit(model, *data(seed))
    return model


def refit(models, method):
    """Errors (run, degree) with new polynomials on the partitions found."""
    models = [deepcopy(model) for model in models]
    return np.array(
        [
            [error(method(model, seed, degree)) for degree in DEGREES]
            for seed, model in enumerate(models)
        ]
    )


def decay(errors):
    """Factor by which the error falls with each degree, down to ten times its least value.

    None where it is there within two degrees.
    """
    mean = np.exp(np.log(errors).mean(0))
    n = int(np.flatnonzero(mean < 10 * mean.min())[0]) + 1
    if n < 3:
        return None
    return float(np.exp(-np.polyfit(list(DEGREES)[:n], np.log(mean[:n]), 1)[0]))


def draw(em, default, refits, cycles):
    drawn, axes = paper.panels(1, 3, 4.6, 3.8)
    for ax in axes[0, :2]:
        ax.set(xscale="log", yscale="log", ylabel="relative error")
    for size, (color, style) in STYLES.items():
        errors, _, seconds, _ = em[size]
        paper.band(axes[0, 0], cycles, errors, color, f"EM, N = {size}", style=style)
        middle = np.median(seconds, axis=0)
        paper.band(axes[0, 1], middle, errors, color, f"EM, N = {size}", style=style)
    markers = {(15, 3): "D", 15: "o", 45: "s"}
    for size, (errors, seconds, _) in default.items():
        color = STYLES[size][0]
        axes[0, 1].plot(
            seconds, errors, markers[size], color=color, alpha=0.8, label=f"skpou, N = {size}"
        )
    axes[0, 0].set(title="the printed training", xlabel="V-cycles")
    axes[0, 1].set(title="error against time", xlabel="seconds of one fit")
    styles = {(paper.EM, "Eq. 17"): "-o", (paper.EM, "refit"): ":s", (paper.OURS, "refit"): "--D"}
    for (method, size, how), errors in refits.items():
        label = f"{method.split()[0]}, N = {size}, {how}"
        style = styles[method, how]
        paper.band(axes[0, 2], list(DEGREES), errors, STYLES[size][0], label, style=style)
    axes[0, 2].set(yscale="log", title="refit on the partitions found", xlabel="degree")
    for ax in axes[0]:
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    for ax in axes[0, :2]:
        ax.legend(frameon=False, fontsize=7.5)
    axes[0, 2].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    harness.save(drawn, "sine_bump")


def rows(table, em, default, seeds):
    """Rows of the three sizes under both trainings, with the paper's statements as bounds."""
    single = paper.log_normal(em[15][0][:, -1]).mean
    for size in SIZES:
        errors, coarse, seconds, _ = em[size]
        last = errors[:, -1]
        mean = paper.log_normal(last).mean
        row = {"method": paper.EM, "partitions": str(size)}
        row["paper prints"] = "a tenth of N=15" if size == (15, 3) else ""
        row |= paper.statistics_columns("error", last)
        row["coarse level"] = paper.log_normal(coarse).mean if size == (15, 3) else None
        row["below EM, N=15"] = single / mean
        row |= {"fit (s)": float(np.median(seconds[:, -1])), "seeds": seeds}
        two_levels = [("a tenth of EM, N=15", mean / single, 0.1)]
        table.add(row, two_levels if size == (15, 3) else ())
    for size in SIZES:
        errors, seconds, _ = default[size]
        mean = paper.log_normal(errors).mean
        row = {"method": paper.OURS, "partitions": str(size)}
        row |= paper.statistics_columns("error", errors)
        row["below EM, N=15"] = single / mean
        row |= {"fit (s)": float(np.median(seconds)), "seeds": seeds}
        rival = paper.log_normal(em[size][0][:, -1]).mean
        table.add(row, [("a tenth of EM, same N", mean / rival, 0.1)])


def refit_table(refits, seeds):
    table = harness.Table()
    for (method, size, how), errors in refits.items():
        row = {"partitions of": method, "N": str(size), "polynomials": how}
        means = np.exp(np.log(errors).mean(0))
        row |= {f"degree {k}": float(m) for k, m in zip(DEGREES, means)}
        table.add(row | {"factor a degree": decay(errors), "seeds": seeds})
    return table


def run(seeds, quick):
    table = harness.Table()
    cycles = CYCLES[:2] if quick else CYCLES
    em = {size: train(size, seeds, cycles) for size in SIZES}
    default = {size: train_ours(size, seeds) for size in SIZES}
    rows(table, em, default, seeds)
    refits = {}
    for size in SIZES[:2]:
        refits[paper.EM, size, "Eq. 17"] = refit(em[size][3], weighted)
        refits[paper.EM, size, "refit"] = refit(em[size][3], jointly)
        refits[paper.OURS, size, "refit"] = refit(default[size][2], jointly)
    degrees = refit_table(refits, seeds)
    if not quick:
        degrees.write("sine_bump_refit")
        draw(em, default, refits, cycles)
    return table
