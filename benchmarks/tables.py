"""Six tables of the UCI repository, standard splits: errors, densities, coverage, rivals.

Rivals see the same rows of the same splits; those that take long get the first few. What dropout
reached is printed as published for all twenty splits (Gal, Ghahramani 2016, code of Hernandez-
Lobato's splits, 100 times the epochs): it is not run again.
"""

import time
import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skpou
from benchmarks import harness
from skpou import AdditivePOURegressor

SEEDS = 20
#: Splits that rivals get.
RIVAL_SEEDS = 3
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
LEVELS = np.array([0.5, 0.68, 0.9, 0.95])


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


# Rivals: fit, then (mean, std) at points


class Gaussian:
    """What turns a mean and a standard deviation into scores."""

    def log_density(self, X, y):
        mean, std = self.predict(X, return_std=True)
        return -0.5 * (np.log(2 * np.pi * std**2) + ((y - mean) / std) ** 2)

    def predict_quantile(self, X, quantiles):
        mean, std = self.predict(X, return_std=True)
        return mean[:, None] + std[:, None] * ndtri(quantiles)


class GaussianProcess(Gaussian):
    """One scale a column and white noise, on at most 1000 rows."""

    def fit(self, X, y):
        kept = np.random.default_rng(0).permutation(len(X))[:1000]
        kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(np.ones(X.shape[1]), (1e-2, 1e4))
        kernel += WhiteKernel(0.1, (1e-6, 10))
        self.scaler = StandardScaler().fit(X[kept])
        self.model = GaussianProcessRegressor(kernel, normalize_y=True)
        self.model.fit(self.scaler.transform(X[kept]), y[kept])
        return self

    def predict(self, X, return_std=False):
        return self.model.predict(self.scaler.transform(X), return_std=return_std)


class Boosting(Gaussian):
    """One standard deviation, from shuffled cross-validation."""

    def fit(self, X, y):
        self.model = HistGradientBoostingRegressor(random_state=0)
        folds = KFold(5, shuffle=True, random_state=0)
        error = y - cross_val_predict(clone(self.model), X, y, cv=folds)
        self.std = harness.rms(error)
        self.errors = np.sort(np.abs(error))
        self.model.fit(X, y)
        return self

    def predict(self, X, return_std=False):
        mean = self.model.predict(X)
        return (mean, np.full(len(X), self.std)) if return_std else mean


class ConformalBoosting(Boosting):
    """The same mean with intervals from the ranks of cross-validated errors; it has no density."""

    def log_density(self, X, y):
        return np.full(len(X), np.nan)

    def predict_quantile(self, X, quantiles):
        n = len(self.errors)
        level = np.abs(2 * np.asarray(quantiles) - 1)
        rank = np.clip(np.ceil(level * (n + 1)).astype(int) - 1, 0, n - 1)
        half = np.sign(np.asarray(quantiles) - 0.5) * self.errors[rank]
        return self.predict(X)[:, None] + half


class Ensemble(Gaussian):
    """Five networks from different starts, with one noise from rows that each leaves out."""

    def fit(self, X, y):
        self.models, errors = [], []
        for seed in range(5):
            network = MLPRegressor(hidden_layer_sizes=(50, 50), max_iter=500, random_state=seed)
            network.set_params(learning_rate_init=5e-3, n_iter_no_change=20)
            inside = make_pipeline(StandardScaler(), network)
            model = TransformedTargetRegressor(inside, transformer=StandardScaler())
            held = np.random.default_rng(seed).permutation(len(X))[: len(X) // 10]
            kept = np.setdiff1d(np.arange(len(X)), held)
            model.fit(X[kept], y[kept])
            errors.append(y[held] - model.predict(X[held]))
            self.models.append(model)
        self.noise = harness.rms(np.concatenate(errors))
        return self

    def predict(self, X, return_std=False):
        values = np.stack([model.predict(X) for model in self.models])
        std = np.hypot(self.noise, values.std(0))
        return (values.mean(0), std) if return_std else values.mean(0)


#: Rivals by name.
RIVALS = {
    "Gaussian process": GaussianProcess,
    "gradient boosting": Boosting,
    "gradient boosting, conformal": ConformalBoosting,
    "5 networks": Ensemble,
}


def others():
    """Other estimators of this package, by name."""
    found = {"HierarchicalPOURegressor": skpou.HierarchicalPOURegressor}
    if hasattr(skpou, "MultiStageRegressor"):
        found["MultiStageRegressor"] = lambda: skpou.MultiStageRegressor(density="mixture")
    return found


# Scores


def judge(model, X, y, test):
    """Fit to the rows outside `test`, and score on those inside."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X[~test], y[~test])
    seconds = time.process_time() - start
    tails = 0.5 * (1 - LEVELS)
    quantiles = model.predict_quantile(X[test], np.concatenate([tails, 1 - tails]))
    low, high = quantiles[:, : len(LEVELS)], quantiles[:, len(LEVELS) :]
    inside = (low <= y[test][:, None]) & (y[test][:, None] <= high)
    error = harness.rms(model.predict(X[test]) - y[test])
    return Scores(error, float(model.log_density(X[test], y[test]).mean()), inside.mean(0), seconds)


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
        ("dropout's log density", -np.mean([run.log_density for run in ours]), -density),
        ("dropout's RMSE", np.mean([run.rmse for run in ours]), rmse),
    ]


def add_fresh(table, seeds):
    """Tables that nothing was chosen on, with rivals on all of the splits."""
    for name, (X, y) in fresh_tables().items():
        splits = masks_of(len(X), seeds)
        for method, make in {"AdditivePOURegressor": AdditivePOURegressor, **RIVALS}.items():
            table.add(row(name, method, [judge(make(), X, y, test) for test in splits]))


def run(seeds, quick):
    table = harness.Table()
    for name, (rmse, density) in DROPOUT.items():
        data = load(name)
        if data is None:
            print(f"  {name}: no data, left out")
            continue
        X, y, masks = data
        splits = masks[: min(seeds, len(masks))]
        ours = [judge(AdditivePOURegressor(), X, y, test) for test in splits]
        bounds = bounds_of(name, ours)
        runs = {}
        for rival, make in ({} if quick else {**RIVALS, **others()}).items():
            runs[rival] = [judge(make(), X, y, test) for test in splits[:RIVAL_SEEDS]]
        for rival in ("Gaussian process", "gradient boosting"):
            if rival in runs:
                same = ours[: len(runs[rival])]
                worse = [
                    -np.mean([run.log_density for run in part]) for part in (same, runs[rival])
                ]
                bounds.append((f"log density of {rival}", *worse))
        table.add(row(name, "AdditivePOURegressor", ours), bounds)
        if runs and len(ours) > RIVAL_SEEDS:
            table.add(row(name, "the same, splits of rivals", ours[:RIVAL_SEEDS]))
        for rival, found in runs.items():
            table.add(row(name, rival, found))
        published = {"RMSE": f"{rmse:.2f}", "log density": f"{density:.2f}"}
        table.add({"table": name, "method": "MC dropout, published", **published})
    if not quick:
        add_fresh(table, min(seeds, FRESH_SEEDS))
    return table
