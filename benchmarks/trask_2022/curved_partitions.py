"""Partitions in the plane, Fig. 5 of Trask et al. (MSML 2022), under both trainings.

f1 and f2 of the benchmark "convergence", degrees 1 to 4, from 2500 random points; errors on 20,000
new ones, relative. The printed training has networks of two layers of 20 and (2, 2) and (4, 2)
partitions, ours as many at most in any tree. 150 V-cycles and, for 16 runs of each training, one
start by default.
"""

import numpy as np

from benchmarks.partitions.functions import f1, f2
from benchmarks.shared import harness
from benchmarks.trask_2022 import paper
from skpou import HierarchicalPOURegressor

SEEDS = 1
TITLES = {f1: "f1: smooth", f2: "f2: kinked"}
SIZES = ((2, 2), (4, 2))
DEGREES = (1, 2, 3, 4)
CYCLES = 150
HIDDEN = (20, 20)
N_SAMPLES = 2500
DRAWN = 2  # degree of the partitions shown


def train(method, function, size, degree, seeds, cycles):
    """Errors, seconds and models of all seeds."""
    errors, times, models = [], [], []
    for seed in range(seeds):
        X = harness.sample(2, N_SAMPLES, seed)
        if method == paper.EM:
            model = paper.printed(size, degree, seed, cycles=cycles, hidden_layer_sizes=HIDDEN)
        else:
            model = HierarchicalPOURegressor(int(np.prod(size)), degree)
        times.append(paper.fit(model, X, function(X)))
        X_test = harness.fresh(2, seed)
        errors.append(paper.error(model, X_test, function(X_test)))
        models.append(model)
    return errors, times, models


def contours(ax, model, function):
    """The target as a map, the borders of the most probable partitions as lines."""
    axis = np.linspace(0, 1, 301)
    grid = np.meshgrid(axis, axis)
    X = np.column_stack([one.ravel() for one in grid])
    mesh = ax.pcolormesh(*grid, function(X).reshape(301, 301), cmap="Greys", rasterized=True)
    labels = model.predict_partition(X).reshape(301, 301)
    for label in np.unique(labels):
        ax.contour(*grid, labels == label, levels=[0.5], colors=[paper.RED], linewidths=1.2)
    ax.set(aspect="equal", xlabel="x1")
    return mesh


def draw(found):
    drawn, axes = paper.panels(2, 3, 4.0, 3.5)
    for row, (function, title) in zip(axes, TITLES.items()):
        for ax, method in zip(row, (paper.EM, paper.OURS)):
            model = found[method, function, SIZES[-1], DRAWN][2][0]
            mesh = contours(ax, model, function)
            ax.set_title(f"{title}, {method}")
        drawn.colorbar(mesh, ax=row[1], label="target")
        row[0].set_ylabel("x2")
        for size, style in zip(SIZES, ("--", "-")):
            for method, color in ((paper.EM, paper.RED), (paper.OURS, paper.BLUE)):
                errors = [np.median(found[method, function, size, k][0]) for k in DEGREES]
                label = f"{method}, N = {np.prod(size)}"
                row[2].plot(DEGREES, errors, style + "o", color=color, label=label)
        row[2].set(title="error", xlabel="degree", ylabel="relative error", yscale="log")
        row[2].set_xticks(DEGREES)
    axes[0, 2].legend(frameon=False, fontsize=8)
    harness.save(drawn, "curved_partitions")


def run(seeds, quick):
    table = harness.Table()
    found = {}
    for function, title in TITLES.items():
        for size in SIZES[:1] if quick else SIZES:
            for method in (paper.EM, paper.OURS):
                row = {"target": title, "method": method}
                row["N"] = str(size) if method == paper.EM else str(np.prod(size))
                times = []
                for degree in DEGREES[:2] if quick else DEGREES:
                    one = train(method, function, size, degree, seeds, CYCLES // (1 + 9 * quick))
                    found[method, function, size, degree] = one
                    row[f"degree {degree}"] = float(np.median(one[0]))
                    times += one[1]
                row |= {"fit (s)": float(np.median(times)), "slowest fit (s)": max(times)}
                table.add(row | {"seeds": seeds})
    if not quick:
        draw(found)
    return table
