"""Run the benchmarks named, or all: ``python -m benchmarks [NAME ...] [--seeds 10] [--quick]``.

``NAME:SECTION`` runs one section of a benchmark that has some; each writes a table of its own,
except where the rows of the others are kept: ``tables:yacht``.
"""

import argparse
import importlib
import time

from benchmarks.shared import harness

#: What each benchmark measures.
NAMES = {
    "waves": "squared waves in 1-D: 1 to 16 parabolas, scattered points and a grid, jumps",
    "curved_ridge": "five curved pieces in 2-D: size of the sample, noise, rivals",
    "functions": "smooth functions, kinks and jumps on curves, in 2-D and 4-D",
    "four_dimensions": "two pieces in 4-D, rivals",
    "convergence": "error against the number of partitions, beside a grid of cells",
    "trees": "one level or two: smooth, and with a hinge",
    "levels": "every level of a tree of soft pieces beside fits of as many pieces",
    "diode": "a diode's current over 13 decades, rivals",
    "transistor": "a bipolar transistor's current against two voltages, rivals",
    "scaling": "seconds and memory against the number of points",
    "bump": "Fig. 2: partitions on a Gaussian bump as training goes on",
    "sine_bump": "Fig. 3: two levels against one, refit, error against time",
    "piecewise_quadratic": "Fig. 4: one to five parabolas, POU-net and networks",
    "curved_partitions": "Fig. 5: partitions in the plane, both trainings",
    "diode_table": "Fig. 6, Table 1: a diode's current, one level and two",
    "transistor_surface": "Fig. 7: a transistor's current, logarithmic and linear",
    "noise_levels": "Figs. 8, 9: three levels of noise, both ways to estimate it",
    "long_em": "Figs. 2 to 4, Table 1: the printed training to 12,000 cycles, one seed",
    "rates": "Theorem 1: error against the diameter of the partitions",
    "cross": "one level on a cross: partitions against degrees, all trainings",
    "more_pieces": "more is never worse: errors over pieces and degrees, and how far they rise",
    "triangle_waves": "one level on triangle waves with 2 to 32 pieces, exact and with noise",
    "two_phase": "triangle waves by residual gates, in two phases of LSGD",
    "lsgd": "a sine by 32 tanh units: four solvers, ranks, images of the unit square",
    "lsgd_classes": "LSGDClassifier on digits, moons, spirals, MNIST; loss against epochs",
    "lsgd_depth": "deep ReLU networks under three initializations",
    "equations": "differential equations by one fit: advection to Burgers, beside DeepXDE",
    "equation_pieces": "equations on pieces: fronts, layers, corners, what networks fail at",
    "equation_networks": "advection by networks: GD against LSGD, widths and depths",
    "equation_stages": "networks in stages on equations: the error after each stage",
    "equation_bars": "error bars of networks on equations, beside their errors",
    "steep": "LSGDRegressor by default: steep, peaked and fresh targets, noise, gaps, rivals",
    "multi_stage": "MultiStageRegressor: stages, exact and noisy targets, fresh ones, rivals",
    "multi_stage_recipe": "Adam, L-BFGS; units, layers, points, magnitudes in the papers' stages",
    "multi_stage_package": "the JAX package multistage on the papers' target",
    "kinks_and_jumps": "MultiStageRegressor on kinks and jumps, beside HierarchicalPOURegressor",
    "sparse_grids": "sparse grids: speed, regression with refinement, two moons, beside SG++",
    "sparse_grid_limits": "what is left of refined grids' errors without noise; quadratic hats",
    "tables": "six UCI tables: errors, densities and coverage of AdditivePOURegressor, rivals",
    "real_tables": "tables as people have them: all defaults out of fold, beside four rivals",
    "intervals": "coverage of predict_interval on UCI tables, before and after conformalize",
    "neural_sparse_grids": "an encoder before the grid: Swiss roll, the thesis' trainings, rivals",
    "neural_sparse_grid_classes": "moons, digits, MNIST, stuck starts, bursts of the loss",
    "latent_spaces": "embeddings of two components, pass by pass, and MNIST by two encoders",
    "front_door": "forty tasks for AutoRegressor, beside its members, rivals",
    "bars": "error bars on random smooth functions, exact and noisy, beside a Gaussian process",
    "rows": "rows on disk: seconds and memory of fits that sum a million and ten million",
    "gpu": "a graphics card beside two cores, at most six minutes; kept where there is a card",
    "defaults": "seconds of a default fit and of scikit-learn's checks",
    "speed": "one row, default fits, few rows, scikit-learn's checks, imports, several threads",
}

#: Folder of the benchmarks, and the files whose names are not the benchmark's own.
FOLDERS = {
    "auto": ("front_door",),
    "equations": (
        *("equations", "equation_pieces", "equation_networks", "equation_stages"),
        "equation_bars",
    ),
    "grids": (
        *("sparse_grids", "sparse_grid_limits", "neural_sparse_grids"),
        *("neural_sparse_grid_classes", "latent_spaces"),
    ),
    "networks": ("lsgd", "lsgd_classes", "lsgd_depth", "steep"),
    "partitions": (
        *("waves", "curved_ridge", "functions", "four_dimensions", "convergence", "trees"),
        *("diode", "transistor", "scaling", "cross", "more_pieces", "triangle_waves", "two_phase"),
        "levels",
    ),
    "scale": ("rows", "gpu"),
    "shared": ("bars",),
    "stages": (*("multi_stage", "multi_stage_recipe", "multi_stage_package", "kinks_and_jumps"),),
    "tables": ("tables", "real_tables", "intervals"),
    "trask_2022": (
        *("bump", "sine_bump", "piecewise_quadratic", "curved_partitions", "diode_table"),
        *("transistor_surface", "noise_levels", "long_em", "rates"),
    ),
}
FILES = {
    "multi_stage": "defaults",
    "multi_stage_recipe": "recipe",
    "multi_stage_package": "package",
    "kinks_and_jumps": "kinks",
}


def module_of(name):
    """Dotted name of a benchmark's module."""
    folders = [folder for folder, names in FOLDERS.items() if name in names]
    return ".".join(["benchmarks", *folders, FILES.get(name, name)])


def tables(name, section, seeds, quick, only=None):
    """Name and table of each section or of the one asked for; of a benchmark that has none.

    A benchmark with ``CASES`` has one table for all of them, and keeps the rows not asked for.
    """
    module = importlib.import_module(module_of(name))
    seeds = 2 if quick else seeds or getattr(module, "SEEDS", 10)
    sections, cases = getattr(module, "SECTIONS", {}), getattr(module, "CASES", ())
    if section and section not in (*sections, *cases):
        known = ", ".join((*sections, *cases)) or "none"
        raise SystemExit(f"{name} has no section {section}; there are {known}")
    if not sections:
        some = {"cases": [section]} if section else {}
        if only:
            some["only"] = only.split(",")
        yield name, module.run(seeds, quick, **some)
    for key, part in sections.items():
        if section in ("", key):
            yield f"{name}_{key}", part(seeds, quick)


def main():
    listing = "\n".join(f"  {name:16} {text}" for name, text in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Each benchmark prints its table and writes it to benchmarks/results.",
        epilog=f"benchmarks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="or NAME:SECTION; default: all, in this order"
    )
    parser.add_argument("--seeds", type=int, help="random samples of each task, else 10 or less")
    parser.add_argument("--methods", help="of tables: these alone, by commas; other rows are kept")
    parser.add_argument("--quick", action="store_true", help="2 seeds, few cases, nothing written")
    options = parser.parse_args()
    unknown = {name.partition(":")[0] for name in options.names} - set(NAMES)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are\n{listing}")
    if not options.names:
        print(f"All benchmarks:\n{listing}")
    failed, asked_for = 0, (options.seeds, options.quick, options.methods)
    for asked in options.names or NAMES:
        name, _, section = asked.partition(":")
        start = time.perf_counter()
        print(f"\n== {asked}: {NAMES[name]}", flush=True)
        for results, table in tables(name, section, *asked_for):
            if not table.rows:
                continue
            table.show()
            if not options.quick and table.is_kept:
                table.write(results)
            failed += table.n_missed()
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    if not options.quick:
        harness.write_environment()
    print(f"\nbounds not reached: {failed}")


if __name__ == "__main__":
    main()
