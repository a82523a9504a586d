"""A Gaussian bump, Fig. 2 of Trask et al. (MSML 2022): how the partitions evolve.

(3, 2) partitions, degree 2, on 500 random points; errors on 5001 points. The printed training is
shown after its first, 1000 and 5000 V-cycles (there 100,000) for one start; the table has ten
starts, the last number of cycles only one.
"""

import numpy as np

from benchmarks.shared import harness
from benchmarks.trask_2022 import paper
from skpou.datasets import make_bump

N_SAMPLES = 500
SIZE = (3, 2)
CYCLES = {1: 10, 1000: 10, 5000: 1}  # and most starts
X_TEST = np.linspace(0, 1, 5001)[:, None]


def error(model):
    return paper.error(model, X_TEST, make_bump(X=X_TEST)[1])


def width(model):
    """Share of the line where no partition has 90 %."""
    return float(np.mean(model.partition_proba(X_TEST).max(1) < 0.9))


def train(make, seeds):
    """Models and seconds of all starts."""
    models = [make(seed) for seed in range(seeds)]
    times = [
        paper.fit(model, *make_bump(N_SAMPLES, random_state=seed))
        for seed, model in enumerate(models)
    ]
    return models, times


def draw(found):
    """Columns of growing numbers of cycles and one of ours: partitions, fit, error."""
    drawn, axes = paper.panels(3, len(found), 3.4, 2.3, sharex=True, sharey="row")
    x, truth = X_TEST[:, 0], make_bump(X=X_TEST)[1]
    for (label, (models, _)), column in zip(found.items(), axes.T):
        model = models[0]
        paper.partitions(column[0], model, x)
        color = paper.BLUE if label == paper.OURS else paper.RED
        column[1].plot(x, truth, color="0.75", linewidth=4)
        column[1].plot(x, model.predict(X_TEST), color=color, linewidth=1.2)
        deviation = np.abs(model.predict(X_TEST) - truth)
        column[2].semilogy(x, deviation + 1e-17, color=color, linewidth=0.8)
        column[0].set_title(label)
        column[2].set_xlabel("x")
    for ax, name in zip(axes[:, 0], ("partitions", "y: data (grey), fit", "error")):
        ax.set_ylabel(name)
    harness.save(drawn, "bump")


def run(seeds, quick):
    table = harness.Table()
    found = {}
    for cycles, most in CYCLES.items():
        if quick and cycles > 1000:
            continue
        label = f"EM, {cycles} cycle{'s' * (cycles > 1)}"

        def make(seed, cycles=cycles):
            return paper.printed(SIZE, 2, seed, cycles=cycles)

        found[label] = train(make, min(seeds, most))
    found[paper.OURS] = train(lambda seed: paper.ours(SIZE, 2, seed), seeds)
    for label, (models, times) in found.items():
        row = {"method": label} | paper.statistics_columns("error", [error(m) for m in models])
        row["blended share of [0, 1]"] = float(np.mean([width(m) for m in models]))
        row |= {"fit (s)": float(np.median(times)), "seeds": len(models)}
        table.add(row)
    if not quick:
        draw(found)
    return table
