"""Two quadratic pieces in four dimensions, ``|x1 + x2**2 - x3| + x1 x4 / 2``."""

from benchmarks.partitions.functions import d4
from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor


def run(seeds, quick):
    table = harness.Table()

    def repeated(make, seeds):
        return [harness.measure(make(), d4, 4, 2500, seed) for seed in range(seeds)]

    runs = repeated(lambda: HierarchicalPOURegressor(4, 2), seeds)
    table.add_runs("n=2500", "skpou, 4, 2", runs, error=1e-14, seconds=0.5, pieces=2)
    runs = repeated(HierarchicalPOURegressor, seeds)
    table.add_runs("n=2500", "skpou, auto, auto", runs, error=1e-13, pieces=2)
    for name, make in harness.rivals(2500, 4, quick).items():
        table.add_runs("n=2500", name, repeated(make, harness.rival_seeds(name, 2500, seeds)))
    return table
