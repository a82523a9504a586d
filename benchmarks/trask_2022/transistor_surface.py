"""A bipolar transistor's current over its two voltages, Fig. 7 of Trask et al. (MSML 2022).

The grid and the split of the benchmark "transistor", (4, 2) partitions, degree 4. The paper prints
the surfaces and no numbers, for data that are not published. The printed training, with the
larger networks of two layers of 20 that its two-dimensional examples take, runs for 200 V-cycles
and by default from three starts.
"""

import numpy as np

from benchmarks.partitions.transistor import load
from benchmarks.shared import harness
from benchmarks.trask_2022 import paper

SEEDS = 3
SIZE, DEGREE, CYCLES = (4, 2), 4, 200
HIDDEN = (20, 20)


def train(make, X, y, train_on, seeds):
    """Models and seconds."""
    models = [make(seed) for seed in range(seeds)]
    return models, [paper.fit(model, X[train_on], y[train_on]) for model in models]


def draw(found, X, current, back):
    """Surfaces of the data, of both predictions and the latter's errors."""
    from matplotlib.colors import LogNorm

    drawn, axes = paper.panels(2, 1 + 2 * len(found), 3.1, 2.6, sharex=True, sharey=True)
    shape = len(np.unique(X[:, 0])), len(np.unique(X[:, 1]))
    order = np.lexsort((X[:, 1], X[:, 0]))

    def show(ax, values, title, label, **options):
        grid = [array[order].reshape(shape) for array in (X[:, 1], X[:, 0], values)]
        mesh = ax.pcolormesh(*grid, rasterized=True, **options)
        drawn.colorbar(mesh, ax=ax, label=label)
        ax.set_title(title)

    scales = (LogNorm(current.min(), current.max()), None)
    for ax, scale in zip(axes[:, 0], scales):
        show(ax, current, "data", "I_C (A)", norm=scale)
        ax.set_ylabel("V_BE (V)")
    for i, (method, (models, _)) in enumerate(found.items()):
        predicted = back(models[0].predict(X))
        top, bottom = axes[:, 1 + i], axes[:, 1 + len(found) + i]
        show(top[0], predicted, method, "I_C (A)", norm=scales[0])
        show(top[1], predicted, method, "I_C (A)", vmax=current.max(), vmin=0)
        ratio = np.abs(np.log10(predicted / current)) + 1e-12
        norm = LogNorm(1e-8, 1)
        show(bottom[0], ratio, f"error, {method}", "decades", norm=norm, cmap="magma")
        difference = np.abs(predicted - current) + 1e-14
        norm = LogNorm(1e-10, current.max())
        show(bottom[1], difference, f"error, {method}", "A", norm=norm, cmap="magma")
    for ax in axes[1]:
        ax.set_xlabel("V_CE (V)")
    harness.save(drawn, "transistor_surface")


def run(seeds, quick):
    table = harness.Table()
    data = load()
    if data is None:
        print("skipped: the simulated sweep devices/bjt.csv.gz was not found; SKPOU_SHARED_DATA")
        print("names the folder that has it. Earlier results stay as they are.")
        return table
    X, current = data
    log = np.log10(current)
    low, extent = log.min(), np.ptp(log)
    y = (log - low) / extent
    test = np.arange(len(y)) % 3 == 1
    cycles = CYCLES // (10 if quick else 1)

    def em(seed):
        return paper.printed(SIZE, DEGREE, seed, cycles=cycles, hidden_layer_sizes=HIDDEN)

    def back(values):
        return 10 ** (low + extent * values)

    found = {
        paper.EM: train(em, X, y, ~test, seeds),
        paper.OURS: train(lambda seed: paper.ours(SIZE, DEGREE, seed), X, y, ~test, seeds),
    }
    for method, (models, times) in found.items():
        predictions = [model.predict(X[test]) for model in models]
        deviations = [np.abs(predicted - y[test]) for predicted in predictions]
        linear = [np.abs(back(p) - current[test]).max() / current.max() for p in predictions]
        row = {"method": method, "partitions": str(SIZE), "degree": DEGREE}
        row |= paper.statistics_columns("l2", [harness.rms(one) for one in deviations])
        row["l-inf, mean"] = paper.log_normal([one.max() for one in deviations]).mean
        row["current, max / max"] = paper.log_normal(linear).mean
        row |= {"fit (s)": float(np.median(times)), "seeds": seeds}
        table.add(row)
    if not quick:
        draw(found, X, current, back)
    return table
