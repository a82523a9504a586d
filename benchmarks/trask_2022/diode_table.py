"""A diode's current, Fig. 6 and Table 1 of Trask et al. (MSML 2022): one level against two.

The sweep and the scaling of the benchmark "diode": logarithm of the current and voltage on unit
intervals, every second point to fit, errors on those in between. The paper's data, a silicon
diode over five decades, are not published; these span 13. Its hyperparameters came from a grid
search, here they are those of its other examples, for 1000 V-cycles. Five runs, as in the paper;
ten take more than six minutes. A run has another random start, the data are the same.
"""

import numpy as np

from benchmarks.partitions.diode import load
from benchmarks.shared import harness
from benchmarks.trask_2022 import paper

SEEDS = 5
CYCLES = 1000
ROWS = (("8", 8, None), ("(4, 2) coarse", (4, 2), 0), ("(4, 2) fine", (4, 2), None))
#: l-infinity and l2 as printed, each mean - stdev, mean, mean + stdev.
PRINTED = {
    ("8", 2): ("3.1e-3", "3.8e-3", "4.7e-3", "1.1e-3", "1.3e-3", "1.5e-3"),
    ("8", 4): ("6.2e-5", "2.0e-4", "6.4e-4", "2.3e-5", "7.5e-5", "2.4e-4"),
    ("(4, 2) coarse", 2): ("6.6e-7", "1.8e-4", "3.3e-4", "4.7e-5", "7.7e-5", "1.2e-4"),
    ("(4, 2) coarse", 4): ("9.6e-5", "2.5e-4", "6.5e-4", "2.4e-5", "7.3e-5", "2.3e-4"),
    ("(4, 2) fine", 2): ("1.1e-3", "1.4e-3", "1.8e-3", "3.9e-4", "5.1e-4", "6.4e-4"),
    ("(4, 2) fine", 4): ("2.0e-6", "6.6e-6", "2.2e-5", "6.6e-7", "2.3e-6", "8.3e-6"),
}
COLUMNS = [
    f"{norm}, {which}"
    for norm in ("l-inf", "l2")
    for which in ("mean - stdev", "mean", "mean + stdev")
]


class Sweep:
    """The scaled data, split."""

    def __init__(self):
        self.voltage, self.current, self.origin = load()
        log = np.log10(self.current)
        self.low, self.range = log.min(), np.ptp(log)
        self.X, self.y = self.voltage[:, None], (log - self.low) / self.range
        self.test = np.arange(len(log)) % 2 == 1

    def current_of(self, y):
        """Current in ampere of scaled logarithms."""
        return 10 ** (self.low + self.range * y)


def train(make, size, degree, sweep, seeds):
    """Models and seconds."""
    models = [make(size, degree, seed) for seed in range(seeds)]
    times = [paper.fit(model, sweep.X[~sweep.test], sweep.y[~sweep.test]) for model in models]
    return models, times


def errors(models, sweep, level):
    """l-infinity and l2 errors of the scaled logarithm, and that of the current at its worst."""
    found = []
    for model in models:
        predicted = model.predict(sweep.X[sweep.test], level=level)
        deviation = np.abs(predicted - sweep.y[sweep.test])
        current = sweep.current[sweep.test]
        linear = np.abs(sweep.current_of(predicted) - current).max() / current.max()
        found.append((float(deviation.max()), harness.rms(deviation), float(linear)))
    return np.transpose(found)


def draw(found, sweep):
    """Fig. 6: linear and logarithmic current, errors, partitions, for both degrees."""
    drawn, axes = paper.panels(2, 4, 3.6, 3.0)
    x = sweep.voltage
    for degree, row in zip((2, 4), axes):
        curves = {paper.EM: paper.RED, paper.OURS: paper.BLUE}
        for ax in row[:2]:
            ax.plot(x, sweep.current, color="0.75", linewidth=4, label="data")
        for method, color in curves.items():
            predicted = found[method, (4, 2), degree][0][0].predict(sweep.X)
            style = "--" if method == paper.OURS else "-"
            for ax in row[:2]:
                ax.plot(x, sweep.current_of(predicted), style, color=color, label=method)
            deviation = np.abs(predicted - sweep.y)[sweep.test]
            row[2].semilogy(x[sweep.test], deviation + 1e-17, color=color, linewidth=0.8)
        row[0].set(title=f"degree {degree}: linear", ylabel="current (A)")
        row[1].set(title="logarithmic", ylabel="current (A)", yscale="log")
        row[2].set(title="error between the points", ylabel="of the range of log I")
        paper.partitions(row[3], found[paper.EM, (4, 2), degree][0][0], x)
        row[3].set(title=f"partitions, {paper.EM}", ylabel="probability")
    axes[0, 0].legend(frameon=False, fontsize=8)
    for ax in axes[1]:
        ax.set_xlabel("voltage (V)")
    harness.save(drawn, "diode_table")


def run(seeds, quick):
    sweep = Sweep()
    print(f"data: {sweep.origin}")
    table = harness.Table()
    found = {}
    for method, make in ((paper.EM, paper.printed), (paper.OURS, paper.ours)):
        if quick and method == paper.EM:

            def make(*args):
                return paper.printed(*args, cycles=30)

        for size in (8, (4, 2)):
            for degree in (2, 4):
                found[method, size, degree] = train(make, size, degree, sweep, seeds)
    for label, size, level in ROWS:
        for degree in (2, 4):
            row = {"N": label, "degree": degree, "method": "printed"}
            table.add(row | dict(zip(COLUMNS, PRINTED[label, degree])))
            for method in (paper.EM, paper.OURS):
                models, times = found[method, size, degree]
                worst, l2, linear = errors(models, sweep, level)
                row = {"N": label, "degree": degree, "method": method}
                row |= dict(zip(COLUMNS, (*paper.log_normal(worst), *paper.log_normal(l2))))
                row["current, max / max"] = paper.log_normal(linear).mean
                row |= {"fit (s)": float(np.median(times)), "seeds": seeds}
                table.add(row)
    if not quick:
        draw(found, sweep)
    return table
