"""Eight partitions in one level or in two: when does a given hierarchy pay?"""

import numpy as np

from benchmarks.partitions.functions import f1, f5
from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor

TITLES = {f1: "f1: smooth", f5: "f5: hinge on a parabola"}
SIZES = ((4, 2), (2, 4), 8)
SOLVERS = ("auto", "varpro")
DEGREE = 4


def draw(errors):
    """Errors by target, solver and size as bars."""
    drawn, axes = harness.figure(len(TITLES))
    floor = 10.0 ** np.floor(np.log10(min(map(min, errors.values()))) - 1)
    top = 3 * max(map(max, errors.values()))
    colors = dict(zip(SOLVERS, ("#0072b2", "#e69f00")))
    width = 0.36
    for ax, (function, title) in zip(axes, TITLES.items()):
        for i, solver in enumerate(SOLVERS):
            spreads = [harness.spread(errors[function, solver, size]) for size in SIZES]
            middle = np.array([median for median, _ in spreads])
            ax.bar(
                np.arange(len(SIZES)) + (i - 0.5) * width,
                middle - floor,
                width * 0.94,
                bottom=floor,
                yerr=np.transpose([bars for _, bars in spreads]),
                color=colors[solver],
                error_kw={"elinewidth": 1, "capsize": 3},
                label=f'solver="{solver}"',
            )
        ax.set(yscale="log", title=title, xlabel="n_partitions")
        ax.set_ylim(floor, top)
        ax.set_xticks(range(len(SIZES)), [str(size) for size in SIZES])
        ax.grid(axis="y", color="0.9", linewidth=0.7)
        ax.set_axisbelow(True)
    axes[0].set_ylabel("relative error")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    harness.save(drawn, "trees")


def run(seeds, quick):
    table = harness.Table()
    errors = {}
    for function, title in TITLES.items():
        for solver in SOLVERS[:1] if quick else SOLVERS:
            for size in SIZES:
                runs = [
                    harness.measure(
                        HierarchicalPOURegressor(size, DEGREE, solver=solver),
                        function,
                        2,
                        2500,
                        seed,
                    )
                    for seed in range(seeds)
                ]
                errors[function, solver, size] = [one.error for one in runs]
                method = f"skpou, {size}, {DEGREE}" + ", varpro" * (solver == "varpro")
                table.add_runs(f"{title}, n=2500", method, runs)
    if not quick:
        draw(errors)
    return table
