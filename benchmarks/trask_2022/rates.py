"""Theorem 1 of Trask et al. (MSML 2022): error against the largest partition's diameter.

The theorem takes the partitions as given. Here they are those that our training finds in waves of
2 to 12 parabolas (Eq. 46), on which `refit` then fits a smooth target (make_multiscale) with
degrees m = 0 to 3: "sharp" those of the default training, "soft" those of solver="varpro", whose
polynomials are solved for jointly. A diameter is the extent of the points where a partition has
more than 1 %; of soft ones, whose tails widen that and hardly take part in the error, also that of
an even piece of the same variance: sqrt(12) times the standard deviation of the points, weighed by
the partition. The exponent is m + 1 for the root mean square error; the paper prints it with a
square on that, which is weaker. 1000 random points, errors on 5001.
"""

import numpy as np

from benchmarks.shared import harness
from benchmarks.trask_2022 import paper
from skpou import HierarchicalPOURegressor
from skpou.datasets import make_multiscale, make_piecewise_quadratic

N_SAMPLES = 1000
DEGREES = (0, 1, 2, 3)
PIECES = (2, 4, 6, 8, 12)
SHARE = 0.01
KINDS = {"sharp": "auto", "soft": "varpro"}
X_TEST = np.linspace(0, 1, 5001)[:, None]


def target(X):
    return make_multiscale(X=2 * X - 1)[1]


def diameter(model):
    """Largest extent of the points of each partition."""
    members = model.partition_proba(X_TEST).T > SHARE
    return max(float(np.ptp(X_TEST[column])) for column in members if column.any())


def weighed_diameter(model):
    """Largest extent of an even piece as spread as the partition is."""
    share = model.partition_proba(X_TEST)
    mass = share.sum(0)
    kept = mass > SHARE  # A partition without any mass is nowhere.
    share, mass = share[:, kept], mass[kept]
    middle = X_TEST[:, 0] @ share / mass
    variance = ((X_TEST - middle) ** 2 * share).sum(0) / mass
    return float(np.sqrt(12 * variance.max()))


DIAMETERS = {"extent": diameter, "weighed": weighed_diameter}


def measure(kind, n_pieces, seed):
    """Diameters, error for each degree, and the seconds of the fit of the partitions."""
    X = harness.sample(1, N_SAMPLES, seed)
    model = HierarchicalPOURegressor(n_pieces, 2, solver=KINDS[kind], random_state=seed)
    seconds = paper.fit(model, *make_piecewise_quadratic(X=X, n_pieces=n_pieces))
    errors = []
    for degree in DEGREES:
        model.refit(X, target(X), degree=degree)
        errors.append(paper.error(model, X_TEST, target(X_TEST)))
    return {name: own(model) for name, own in DIAMETERS.items()}, errors, seconds


def points(runs, degree, how):
    """Diameters and errors (run, 2) of a degree."""
    return np.array([(one[0][how], one[1][degree]) for some in runs.values() for one in some])


#: Kinds of partitions and their diameters, as tabulated: sharp ones have no tails.
SHOWN = (("sharp", "extent"), ("soft", "extent"), ("soft", "weighed"))


def draw(found):
    drawn, axes = paper.panels(1, 3, 4, 4, sharey=True)
    colors = (paper.SKY, paper.BLUE, paper.ORANGE, paper.RED)
    for ax, (kind, how) in zip(axes[0], SHOWN):
        for degree, color in zip(DEGREES, colors):
            cloud = points(found[kind], degree, how)
            ax.loglog(*cloud.T, ".", color=color, markersize=5)
            ends = np.array([cloud[:, 0].min(), cloud[:, 0].max()])
            anchor, slope = np.exp(np.log(cloud).mean(0)), degree + 1
            line = anchor[1] * (ends / anchor[0]) ** slope
            ax.loglog(ends, line, color=color, label=f"degree {degree}, line of slope {slope}")
        ax.set(title=f"{kind}, {how}", xlabel="largest diameter of a partition")
        ax.set_xticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
        ax.set_xticks([], minor=True)
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[0, 0].set_ylabel("relative error")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    harness.save(drawn, "rates")


def medians(runs, degree, how):
    """Median diameter and error (n, 2) for each number of pieces."""
    return np.array(
        [
            np.median([(one[0][how], one[1][degree]) for one in some], axis=0)
            for some in runs.values()
        ]
    )


def tabulate(found):
    """Rows of both kinds and all degrees; the bounds are for the rate of all runs together."""
    table = harness.Table()
    for kind, how in SHOWN:
        runs = found[kind]
        for degree in DEGREES:
            slope = paper.slope(*points(runs, degree, how).T)
            row = {"partitions": kind, "diameter": how, "degree": degree}
            row["paper prints, rate"] = degree + 1
            middle = medians(runs, degree, how)
            row |= {"rate": slope, "rate of the medians": paper.slope(*middle.T)}
            for n, (extent, error) in zip(runs, middle):
                row |= {f"diameter, {n}": float(extent), f"error, {n}": float(error)}
            row["fit (s)"] = float(np.median([one[2] for some in runs.values() for one in some]))
            row["seeds"] = len(runs[PIECES[0]])
            table.add(row, [(f"rate {degree + 1} to 0.2", abs(slope - degree - 1), 0.2)])
    return table


def run(seeds, quick):
    found = {
        kind: {n: [measure(kind, n, seed) for seed in range(seeds)] for n in PIECES}
        for kind in KINDS
    }
    table = tabulate(found)
    if not quick:
        draw(found)
    return table
