"""What holds the errors of refined sparse grids: the grid, the noise, or the hats.

The peak and the ridge of `sparse_grids` with and without noise, by hats and by quadratic ones, and
the peak by fewer hats. What is left without noise is the grid's own error; ``variance`` is that of
as many free coefficients, ``sigma^2 p / n``.
"""

from benchmarks.grids.sparse_grids import MAX_POINTS, NOISE, N, peak, ridge
from benchmarks.shared import harness
from skpou import SparseGridRegressor

SEEDS = 1
#: Most points of the grids of hats on the peak.
SIZES = (500, 1000, MAX_POINTS)


def row_of(function, basis, most, noise, seeds, quick):
    """Median over the seeds."""
    runs = []
    for seed in range(seeds):
        model = SparseGridRegressor(n_refinements=3 if quick else 100, max_points=most, basis=basis)
        own = harness.measure(model, function, 4, N, seed, noise=noise)
        size = harness.rms(function(harness.fresh(4, seed)))
        runs.append(((own.error * size) ** 2, own.fit, own.pieces))
    errors, seconds, points = (sorted(part)[seeds // 2] for part in zip(*runs, strict=True))
    row = {"task": function.__name__, "basis": basis, "noise": noise, "points": points}
    row |= {"median MSE": errors, "variance": noise**2 * points / N if noise else None}
    return row | {"fit (s)": seconds, "seeds": seeds}


def run(seeds, quick):
    table = harness.Table()
    for function in (peak, ridge):
        for basis in ("linear", "quadratic"):
            sweeps = function is peak and basis == "linear" and not quick
            for most in SIZES if sweeps else (MAX_POINTS,):
                for noise in (0.0, NOISE):
                    table.add(row_of(function, basis, most, noise, seeds, quick))
    return table
