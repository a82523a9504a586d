"""Error against the number of partitions, as in Fig. 5 of Trask et al. (MSML 2022).

Beside the model, fitted to random points, stands a discontinuous Galerkin approximation on a
Cartesian grid of as many elements: the L2 projection of the target itself.
"""

import numpy as np

from benchmarks.partitions.functions import f1, f2
from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor

TITLES = {f1: "f1: smooth", f2: "f2: kinked"}
PARTITIONS = (2, 4, 8, 16)
CELLS = (1, 4, 9, 16, 25, 36)
DEGREES = (1, 2, 3, 4)
ERRORS = {(f1, 1): 1e-4, (f1, 2): 1e-7, (f1, 4): 1e-9}  # of 8 partitions
SECONDS = 6
MODEL, GRID = "skpou", "Cartesian grid"


class Grid:
    """L2 projection onto polynomials of a total degree on k times k cells of the unit square."""

    N_NODES = 60  # a cell and axis; far past round-off where the target is smooth

    def __init__(self, function, k, degree):
        self.k = k
        self.exponents = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        t, weights = np.polynomial.legendre.leggauss(self.N_NODES)
        nodes = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
        # The average over a cell times the basis, whose mean squares there are one.
        dual = self.features(nodes) * (np.outer(weights, weights).reshape(-1, 1) / 4)
        self.coef = np.empty((k, k, len(self.exponents)))
        for cell in np.ndindex(k, k):
            self.coef[cell] = function((np.array(cell) + (nodes + 1) / 2) / k) @ dual

    def features(self, t):
        degree = max(i for i, _ in self.exponents)
        P = np.polynomial.legendre.legvander(t, degree) * np.sqrt(2 * np.arange(degree + 1) + 1)
        return np.stack([P[:, 0, i] * P[:, 1, j] for i, j in self.exponents], axis=1)

    def predict(self, X):
        cell = np.minimum((self.k * X).astype(int), self.k - 1)
        features = self.features(2 * (self.k * X - cell) - 1)
        return np.sum(features * self.coef[cell[:, 0], cell[:, 1]], axis=1)


def model_errors(function, degree, size, seeds):
    return [
        harness.measure(HierarchicalPOURegressor(size, degree), function, 2, 2500, seed)
        for seed in range(seeds)
    ]


def grid_errors(function, degree, n_cells, seeds):
    grid = Grid(function, round(n_cells**0.5), degree)
    errors = []
    for seed in range(seeds):
        X = harness.fresh(2, seed)
        truth = function(X)
        errors.append(harness.rms(grid.predict(X) - truth) / harness.rms(truth))
    return errors


def rate(errors):
    """Exponent r of the decay N**-r of the median errors, a dict by N."""
    medians = [np.median(found) for found in errors.values()]
    return float(-np.polyfit(np.log(list(errors)), np.log(medians), 1)[0])


def draw(found):
    """Errors by target, degree and method, each a dict by N, into a figure of two panels."""
    from matplotlib.lines import Line2D

    drawn, axes = harness.figure(len(TITLES))
    colors = dict(zip(DEGREES, ("#56b4e9", "#0072b2", "#e69f00", "#d55e00")))
    styles = {
        MODEL: {"linestyle": "-", "marker": "o", "markersize": 5},
        GRID: {"linestyle": ":", "marker": "s", "markersize": 4, "markerfacecolor": "white"},
    }
    for ax, (function, title) in zip(axes, TITLES.items()):
        for (target, degree, method), errors in found.items():
            if target is function:
                spreads = [harness.spread(values) for values in errors.values()]
                ax.errorbar(
                    list(errors),
                    [middle for middle, _ in spreads],
                    yerr=np.transpose([bars for _, bars in spreads]),
                    color=colors[degree],
                    elinewidth=1,
                    **styles[method],
                )
        ticks = sorted({*PARTITIONS, *CELLS})
        ax.set(xscale="log", yscale="log", title=title, xlabel="N")
        ax.set_xticks(ticks, ticks)
        ax.set_xticks([], minor=True)
        ax.grid(axis="y", color="0.9", linewidth=0.7)
    axes[0].set_ylabel("relative error")
    handles = [Line2D([], [], color=colors[k], label=f"degree {k}") for k in DEGREES]
    handles += [Line2D([], [], color="0.4", label=name, **styles[name]) for name in styles]
    drawn.legend(handles=handles, loc="outside right upper", frameon=False)
    harness.save(drawn, "convergence")


def run(seeds, quick):
    table = harness.Table()
    found = {}
    sizes, cells = (PARTITIONS[:3], CELLS[:3]) if quick else (PARTITIONS, CELLS)
    for function, title in TITLES.items():
        for degree in DEGREES[:2] if quick else DEGREES:
            runs = {size: model_errors(function, degree, size, seeds) for size in sizes}
            errors = {size: [one.error for one in some] for size, some in runs.items()}
            grid = {size: grid_errors(function, degree, size, seeds) for size in cells}
            found[function, degree, MODEL], found[function, degree, GRID] = errors, grid
            median = float(np.median(errors[8]))
            fit = float(np.median([one.fit for one in runs[8]]))
            bounds = [("the grid's rate", rate(grid), rate(errors))]
            if (function, degree) in ERRORS:
                limit = ERRORS[function, degree]
                bounds.append((f"error {harness.digits(limit, 1)} at N=8", median, limit))
                bounds.append((f"{SECONDS} s at N=8", fit, SECONDS))
            for method, results in ((MODEL, errors), (GRID, grid)):
                row = {"target": title, "degree": degree, "method": method}
                for size in sorted({*sizes, *cells}):
                    row[f"N={size}"] = float(np.median(results[size])) if size in results else None
                row["rate"] = rate(results)
                if method == MODEL:
                    row["worst, N=8"] = max(errors[8])
                    row["fit (s), N=8"] = fit
                    row["slowest fit (s)"] = max(one.fit for some in runs.values() for one in some)
                    row["seeds"] = seeds
                table.add(row, bounds if method == MODEL else ())
    if not quick:
        draw(found)
    return table
