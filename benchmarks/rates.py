"""Theorem 1 of Trask et al. (MSML 2022): error against the largest partition's diameter.

sin(2 pi x) on 1000 random points, degrees m = 0 to 3, N = 4 to 32 partitions of the default
training; errors on 5001 points. The theorem says m + 1 for the exponent. "soft": the partitions as
trained by solver="varpro", their polynomials solved for jointly, a diameter being that of the
points where a partition has more than 1 %. "sharp": the indicators of the same model's most
probable partitions, each with a least-squares polynomial of its own.
"""

import numpy as np
from numpy.polynomial import Polynomial

from benchmarks import harness, paper
from skpou import HierarchicalPOURegressor

N_SAMPLES = 1000
DEGREES = (0, 1, 2, 3)
SIZES = (4, 8, 16, 32)
SHARE = 0.01
FLOOR = 1e-12  # round-off, no part of a rate
KINDS = ("soft", "sharp")
X_TEST = np.linspace(0, 1, 5001)[:, None]


def target(X):
    return np.sin(2 * np.pi * X[:, 0])


def diameter(members):
    """Largest extent of the points of each partition, columns of a boolean array."""
    x = X_TEST[:, 0]
    return max(float(np.ptp(x[column])) for column in members.T if column.any())


def sharp_error(model, X, degree):
    """Error of a least-squares polynomial on each of the most probable partitions."""
    labels, test = model.predict_partition(X), model.predict_partition(X_TEST)
    predicted = np.zeros(len(X_TEST))
    for label in np.unique(test):
        own = labels == label
        if own.sum() > degree:
            polynomial = Polynomial.fit(X[own, 0], target(X[own]), degree)
            predicted[test == label] = polynomial(X_TEST[test == label, 0])
    return harness.rms(predicted - target(X_TEST)) / harness.rms(target(X_TEST))


def measure(degree, size, seed):
    """Diameter and error, soft and sharp, and the seconds of the fit."""
    X = harness.sample(1, N_SAMPLES, seed)
    model = HierarchicalPOURegressor(size, degree, solver="varpro", random_state=seed)
    seconds = paper.fit(model, X, target(X))
    proba = model.partition_proba(X_TEST)
    best = np.eye(proba.shape[1], dtype=bool)[proba.argmax(1)]
    return {
        "soft": (diameter(proba > SHARE), paper.error(model, X_TEST, target(X_TEST))),
        "sharp": (diameter(best), sharp_error(model, X, degree)),
        "seconds": seconds,
        "pieces": proba.shape[1],
    }


def rate(points):
    """Exponent of the error in the diameter, above round-off."""
    diameters, errors = np.transpose([point for point in points if point[1] > FLOOR])
    return paper.slope(diameters, errors) if len(np.unique(diameters)) > 1 else None


def draw(found):
    drawn, axes = paper.panels(1, 2, 5, 4, sharey=True)
    colors = (paper.SKY, paper.BLUE, paper.ORANGE, paper.RED)
    for ax, kind in zip(axes[0], KINDS):
        for degree, color in zip(DEGREES, colors):
            points = np.array([one[kind] for one in found[degree]])
            ax.loglog(*points.T, ".", color=color, markersize=5)
            line = np.array([points[:, 0].min(), points[:, 0].max()])
            anchor = np.exp(np.log(points).mean(0))
            slope = degree + 1
            label = f"degree {degree}: slope {slope}"
            ax.loglog(line, anchor[1] * (line / anchor[0]) ** slope, color=color, label=label)
        ax.set(title=kind, xlabel="largest diameter of a partition")
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[0, 0].set_ylabel("relative error")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    harness.save(drawn, "rates")


def run(seeds, quick):
    table = harness.Table()
    found = {}
    sizes = SIZES[:2] if quick else SIZES
    for degree in DEGREES:
        runs = {size: [measure(degree, size, seed) for seed in range(seeds)] for size in sizes}
        found[degree] = [one for some in runs.values() for one in some]
        for kind in KINDS:
            row = {"degree": degree, "partitions": kind, "paper prints, rate": degree + 1}
            row["rate"] = rate([one[kind] for one in found[degree]])
            for size, some in runs.items():
                row[f"diameter, N={size}"] = float(np.median([one[kind][0] for one in some]))
                row[f"error, N={size}"] = float(np.median([one[kind][1] for one in some]))
            row["fit (s)"] = float(np.median([one["seconds"] for one in found[degree]]))
            row["seeds"] = seeds
            # Blended polynomials may do better than the theorem, never worse.
            limit = degree + 1
            table.add(row, [(f"rate {limit} - 0.2", limit - 0.2, row["rate"])])
    if not quick:
        draw(found)
    return table
