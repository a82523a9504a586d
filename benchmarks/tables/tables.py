"""Six tables of the UCI repository, standard splits: errors, densities, coverage, rivals.

All methods see the same rows of the same splits; those that take long get the first few. What
dropout reached is printed as published for all twenty splits (Gal, Ghahramani 2016, code of
Hernandez-Lobato's splits, 100 times the epochs): it is not run again.
"""

import time
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes

import skpou
from benchmarks.shared import harness
from benchmarks.tables.table_rivals import BOOSTING, GAUSSIAN_PROCESS, LEVELS, NETWORKS, rivals
from skpou import AdditivePOURegressor

SEEDS = 20
#: Splits of methods that would take too long on all of them: all in all an hour on one core.
SPLITS = {
    GAUSSIAN_PROCESS: 10,
    "MultiStageRegressor": 10,
    "HierarchicalPOURegressor": 5,
    NETWORKS: 5,
    "NGBoost": 5,
}
#: Random splits of the tables that nothing was chosen on.
FRESH_SEEDS = 5
#: RMSE and mean log density of Monte Carlo dropout as published, over all splits.
DROPOUT = {
    "yacht": (0.67, -1.25),
    "boston_housing": (2.90, -2.40),
    "energy": (0.54, -1.21),
    "concrete": (4.83, -2.94),
    "wine_red": (0.62, -0.93),
    "power_plant": (4.01, -2.81),
}
#: Sections.
FRESH = "fresh"
CASES = (*DROPOUT, FRESH)
OURS = "AdditivePOURegressor"
PUBLISHED = "MC dropout, published"
#: The process whose noise is never narrower than the rounding of y, as ours is.
FLOORED = (f"{GAUSSIAN_PROCESS}, noise floor",)


class Scores(NamedTuple):
    """One split."""

    rmse: float
    log_density: float
    coverage: np.ndarray
    seconds: float


def load(name):
    """Points, targets and masks (20, n) of the test rows; None where the data are not there."""
    path = harness.shared("uci", f"{name}.npz")
    if not path.exists():
        return None
    with np.load(path) as data:
        return data["X"].astype(float), data["y"].astype(float).ravel(), data["test_mask"]


def fresh_tables():
    """Tables that nothing was chosen on, as far as their packages are installed: X, y by name."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    found = {"diabetes (scikit-learn)": (X, y)}
    try:
        from vega_datasets import local_data

        names = ["Cylinders", "Displacement", "Horsepower", "Weight_in_lbs", "Acceleration"]
        cars = local_data.cars().dropna()
        columns = [*(cars[name] for name in names), cars["Year"].dt.year]
        columns += [cars["Origin"] == origin for origin in ("Europe", "Japan")]
        X = np.column_stack([column.to_numpy(float) for column in columns])
        found["cars (vega_datasets)"] = X, cars["Miles_per_Gallon"].to_numpy(float)
    except ImportError:
        print("  cars: vega_datasets is not installed, left out")
    try:
        from statsmodels.datasets import star98

        table = star98.load_pandas()
        share = table.endog.to_numpy(float)
        found["star98 (statsmodels)"] = (
            table.exog.to_numpy(float),
            100 * share[:, 0] / share.sum(1),
        )
    except ImportError:
        print("  star98: statsmodels is not installed, left out")
    return found


def masks_of(n, seeds):
    """Random tenths of the rows."""
    rng = np.random.default_rng(0)
    return [np.isin(np.arange(n), rng.permutation(n)[: n // 10]) for _ in range(seeds)]


def methods():
    """Everything beside AdditivePOURegressor, by name."""
    return {
        "MultiStageRegressor": lambda: skpou.MultiStageRegressor(density="mixture"),
        "HierarchicalPOURegressor": skpou.HierarchicalPOURegressor,
        **rivals(),
    }


# Scores


def intervals(model, X):
    """Ends of the central intervals of all levels, each (n, levels)."""
    if hasattr(model, "intervals"):
        return model.intervals(X)
    tails = 0.5 * (1 - LEVELS)
    quantiles = model.predict_quantile(X, np.concatenate([tails, 1 - tails]))
    return quantiles[:, : len(LEVELS)], quantiles[:, len(LEVELS) :]


def score(model, X, y, seconds):
    """Of a fitted model on rows that it has not seen."""
    low, high = intervals(model, X)
    inside = (low <= y[:, None]) & (y[:, None] <= high)
    density = np.nan if model.log_density is None else float(model.log_density(X, y).mean())
    return Scores(harness.rms(model.predict(X) - y), density, inside.mean(0), seconds)


def judge(make, X, y, splits):
    """Fits to the rows outside each of the splits, scored inside: runs by what is added to a name.

    The fit itself adds nothing; other readings of it have the same seconds.
    """
    runs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in splits:
            start = time.process_time()
            model = make().fit(X[~test], y[~test])
            seconds = time.process_time() - start
            found = {"": model, **(model.variants() if hasattr(model, "variants") else {})}
            for suffix, reading in found.items():
                runs.setdefault(suffix, []).append(score(reading, X[test], y[test], seconds))
    return runs


def mean_density(runs):
    return float(np.mean([run.log_density for run in runs]))


def row(name, method, runs):
    """Means over the splits and standard errors, which overlap of the splits makes too small."""
    errors, densities = (np.array([run[i] for run in runs]) for i in range(2))
    root = np.sqrt(max(len(runs) - 1, 1))
    coverage = np.mean([run.coverage for run in runs], 0)
    return {
        "table": name,
        "method": method,
        "RMSE": f"{errors.mean():.3f}",
        "s.e.": f"{errors.std() / root:.3f}",
        "log density": "" if np.isnan(densities).any() else f"{densities.mean():.3f}",
        "s.e. ": "" if np.isnan(densities).any() else f"{densities.std() / root:.3f}",
        **{f"{100 * level:.0f} %": f"{c:.3f}" for level, c in zip(LEVELS, coverage)},
        "fit (s)": float(np.mean([run.seconds for run in runs])),
        "splits": len(runs),
    }


def bounds_of(name, ours):
    """Coverage within 3 points and two standard errors; both scores beside dropout's."""
    coverage = np.array([run.coverage for run in ours])
    error = np.abs(coverage.mean(0) - LEVELS)
    allowed = 0.03 + 2 * coverage.std(0) / np.sqrt(max(len(ours) - 1, 1))
    rmse, density = DROPOUT[name]
    return [
        ("coverage", float((error - allowed).max()), 0.0),
        ("dropout's log density", -mean_density(ours), -density),
        ("dropout's RMSE", np.mean([run.rmse for run in ours]), rmse),
    ]


def rival_bounds(method, error, density, ours):
    """Both scores beside a rival's on the same splits: ahead, or within our standard error."""
    root = np.sqrt(max(len(ours) - 1, 1))
    errors, densities = (np.array([run[i] for run in ours]) for i in range(2))
    found = [(f"log density of {method}", -densities.mean(), -density + densities.std() / root)]
    if method == BOOSTING:
        found.append((f"RMSE of {method}", errors.mean(), error + errors.std() / root))
    return found


def run_table(table, name, X, y, splits, quick=False, only=None):
    """Rows of all methods; where some have fewer splits, rows for ours on the same.

    Scores are compared on the splits that a rival has. Rows of methods that are not in `only`, if
    it is given, are the earlier ones.
    """
    kept = {row["method"]: row for row in table.rows if row["table"] == name}
    chosen = {} if quick else methods()
    chosen = {k: make for k, make in chosen.items() if only is None or k in only}
    table.rows = [row for row in table.rows if row["table"] != name]
    ours = judge(AdditivePOURegressor, X, y, splits)[""] if only is None or OURS in only else []
    bounds = bounds_of(name, ours) if ours and name in DROPOUT else []
    runs = {}
    for method, make in chosen.items():
        part = splits[: SPLITS.get(method, len(splits))]
        found = judge(make, X, y, part)
        runs |= {method + suffix: scores for suffix, scores in found.items()}
    new = [row(name, method, found) for method, found in runs.items()]
    is_old = {} if only is None else kept
    rows = {found["method"]: found for found in (*is_old.values(), *new)}
    if ours and name in DROPOUT:
        for method in (*FLOORED, BOOSTING):
            if method in rows:
                rival = rows[method]
                scores = (float(rival[key]) for key in ("RMSE", "log density"))
                bounds += rival_bounds(method, *scores, ours[: int(rival["splits"])])
    counts = {int(found["splits"]) for found in rows.values() if found.get("splits")}
    if ours:
        table.add(row(name, OURS, ours), bounds)
        for n in sorted({n for n in counts if n < len(ours)}, reverse=True):
            table.add(row(name, f"{OURS}, first {n} splits", ours[:n]))
        rows = {key: found for key, found in rows.items() if not key.startswith(OURS)}
    for found in rows.values():
        if found in new:
            table.add(found)
        elif found["method"] != PUBLISHED:
            table.rows.append(found)


def case_of(row):
    return row["table"] if row["table"] in DROPOUT else FRESH


def run(seeds, quick, cases=CASES, only=None):
    table = harness.Table()
    if not quick:
        table.take_over("tables", lambda row: only is not None or case_of(row) not in cases)

    def write():
        # After each table: an interrupted run keeps what it has measured.
        table.rows.sort(key=lambda row: CASES.index(case_of(row)))
        if not quick:
            table.write("tables")

    for name, (rmse, density) in DROPOUT.items():
        data = load(name) if name in cases else None
        if data is None:
            print(f"  {name}: {'no data' if name in cases else 'not asked for'}, left out")
            continue
        X, y, masks = data
        run_table(table, name, X, y, masks[: min(seeds, len(masks))], quick, only)
        published = {"RMSE": f"{rmse:.2f}", "log density": f"{density:.2f}"}
        table.add({"table": name, "method": PUBLISHED, **published})
        write()
    for name, (X, y) in (fresh_tables() if FRESH in cases and not quick else {}).items():
        run_table(table, name, X, y, masks_of(len(X), min(seeds, FRESH_SEEDS)), only=only)
        write()
    return table
