"""What holds the errors of refined sparse grids: the grid, the noise, or the hats.

The peak and the ridge of `sparse_grids` with and without noise, by hats and by quadratic ones.
What is left without noise is the grid's own error.
"""

from benchmarks.grids.sparse_grids import MAX_POINTS, NOISE, N, peak, ridge
from benchmarks.shared import harness
from skpou import SparseGridRegressor

SEEDS = 1


def run(seeds, quick):
    table = harness.Table()
    for function in (peak, ridge):
        for basis in ("linear", "quadratic"):
            for noise in (0.0, NOISE):
                runs = []
                for seed in range(seeds):
                    model = SparseGridRegressor(
                        n_refinements=3 if quick else 100, max_points=MAX_POINTS, basis=basis
                    )
                    own = harness.measure(model, function, 4, N, seed, noise=noise)
                    size = harness.rms(function(harness.fresh(4, seed)))
                    runs.append(((own.error * size) ** 2, own.fit, own.pieces))
                errors, seconds, points = (sorted(part) for part in zip(*runs, strict=True))
                row = {"task": function.__name__, "basis": basis, "noise": noise}
                row |= {"points": points[seeds // 2], "median MSE": errors[seeds // 2]}
                table.add(row | {"fit (s)": seconds[seeds // 2], "seeds": seeds})
    return table
