"""Neural sparse grids on the Swiss roll: four variants, the thesis' trainings, rivals, levels.

8000 points, of which 20 % are the test; the thesis' trainings hold out another 20 % to pick their
best state. A pass of LS and ILS is one step with all rows, of SGD one for 64 rows: each gets as
many passes as take about as long as ours, with the rate and the ridge that do best on another
sample.
Errors are mean squares on the test. As printed, with noise 0.1 on points and response, no error
below 0.123 is to be had; the variants say what theirs is.
"""

import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.shared import harness
from skpou import LSGDRegressor, NeuralSparseGridRegressor
from skpou.datasets import make_spectra, make_swiss_roll

SEEDS = 10
N, N_TRAIN = 8000, 6400
#: Variant: what it is, least mean square error, bound, seconds.
VARIANTS = {
    "S0": ("height squared, noise on points", 0.0, 5e-6, 15),
    "S1": ("and sin(5 pi s), noise on points", 2.05e-4, 1.5 * 2.05e-4, 15),
    "S2": ("and sin(5 pi s)", 0.0, 1e-5, 15),
    "S3": ("as printed, sin(5 pi t), no noise", 0.0, 3e-3, 60),
}
LEVELS = (4, 5, 6, 7, 8)
#: Level for the 23.6 periods of the printed formula.
FINE_LEVEL = 8
#: Sizes of the dense head that has as many parameters as a grid of level 6 (Eq. 3.27).
DENSE_HEAD = (25, 25, 2, 80)


class Training(NamedTuple):
    """One of the thesis' trainings: solver, passes, rates and ridges tried, best of these."""

    solver: str
    passes: int
    rates: tuple
    ridges: tuple
    rate: float
    ridge: float


RIDGES = (1e-4, 1e-3, 1e-2)
THESIS = {
    "SGD": Training("gradient", 40, (1e-3, 1e-2, 5e-2), (1e-4,), 1e-2, 1e-4),
    "LS": Training("direct", 200, (1e-2, 5e-2, 1e-1), RIDGES, 1e-1, 1e-4),
    "ILS": Training("iterative", 200, (1e-2, 5e-2, 1e-1), RIDGES, 1e-1, 1e-4),
}
#: Sample by which rates and ridges are chosen.
OTHER_SEED = 100
NETWORK_STEPS = 40
#: Share of the passes in the table of levels against trainings, which is one of many long fits.
LEVEL_SHARE = 4
#: Spectra to fit to, with a quarter as many for the test; passes; the thesis' rates and levels.
N_SPECTRA, SPECTRA_PASSES = 1000, 40
SPECTRA_RATES, SPECTRA_LEVELS = (1e-3, 5e-3, 1e-2), (4, 6)


def data(variant, seed):
    """Training points and targets, and those of the test."""
    rng = np.random.RandomState(1000 + seed)
    X, y = make_swiss_roll(N, random_state=seed)
    t = np.hypot(X[:, 0], X[:, 2])
    if variant in ("S0", "S1"):
        X = X + 0.1 * rng.standard_normal(X.shape)
        wave = np.sin(5 * np.pi * (t / (3 * np.pi) - 0.5)) if variant == "S1" else 0.0
        y = X[:, 1] ** 2 + wave
    if variant == "S3":
        y = np.sin(5 * np.pi * t) + X[:, 1] ** 2
    return X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]


def measure(make, variant, seed):
    """Mean square error, seconds, and the fitted estimator."""
    X, y, X_test, y_test = data(variant, seed)
    model = make(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*of the embeddings lie within")
        seconds = harness.fit(model, X, y)
    return float(np.mean((model.predict(X_test) - y_test) ** 2)), seconds, model


def add(table, task, method, found, floor, bounds=()):
    """Row of several runs."""
    errors, seconds = ([run[i] for run in found] for i in range(2))
    models = [run[2] for run in found]
    row = {
        "task": task,
        "method": method,
        "median MSE": float(np.median(errors)),
        "worst MSE": float(np.max(errors)),
        "floor": floor,
        "fit (s)": float(np.median(seconds)),
    }
    if isinstance(models[0], NeuralSparseGridRegressor):
        row["active"] = float(np.median([model.active_fraction_ for model in models]))
    row["seeds"] = len(found)
    table.add(row, bounds)
    return row


def thesis(training, level=6):
    """Factory of one of the thesis' trainings."""
    return lambda seed: NeuralSparseGridRegressor(
        level=level,
        coef_solver=training.solver,
        learning_rate=training.rate,
        alpha=training.ridge,
        batch_size=64,
        max_iter=training.passes,
        init="scale",
        early_stopping=True,
        validation_fraction=0.25,
        n_iter_no_change=training.passes,
        random_state=seed,
    )


def gaussian_process(n):
    """Gaussian process of the first points: of all it would take hours."""
    kernel = ConstantKernel(1, (1e-5, 1e8)) * RBF(np.ones(3), (1e-3, 1e2))
    kernel += WhiteKernel(1e-8, (1e-12, 1))
    process = make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True))

    class Some:
        def fit(self, X, y):
            process.fit(X[:n], y[:n])

        def predict(self, X):
            return process.predict(X)

    return Some()


def network(sizes, seed):
    """Plain network trained by the same method, with as many steps as the grids take or more."""
    return LSGDRegressor(sizes, max_iter=NETWORK_STEPS, random_state=seed)


def rivals():
    """Other methods, and how many samples they get."""
    boosting = {"max_iter": 1000, "random_state": 0}
    found = {
        "network (25, 25), varpro": (lambda s: network((25, 25), s), 1),
        "network (25, 25, 2, 80), varpro": (lambda s: network(DENSE_HEAD, s), 1),
        "MLPRegressor (64, 64), L-BFGS": (lambda s: harness.neural_network("lbfgs"), 1),
        "HistGradientBoosting": (lambda s: HistGradientBoostingRegressor(**boosting), 3),
        "Gaussian process of 800 points": (lambda s: gaussian_process(800), 1),
        "5 nearest neighbours": (
            lambda s: make_pipeline(StandardScaler(), KNeighborsRegressor(5)),
            3,
        ),
    }  # fmt: skip
    try:
        from xgboost import XGBRegressor

        found["xgboost"] = (lambda s: XGBRegressor(n_estimators=1000, n_jobs=1, random_state=s), 3)
    except ImportError:
        pass
    return found


def ours(level):
    """Factory of the regressor as it is by default, but for the level."""
    return lambda seed: NeuralSparseGridRegressor(level=level, random_state=seed)


def compare(variant, seeds, quick):
    """Ours by default, the thesis' trainings and rivals on a variant."""
    table = harness.Table()
    text, floor, bound, limit = VARIANTS[variant]
    task, fine = f"{variant}: {text}", variant == "S3"
    level = FINE_LEVEL if fine else 6
    runs = [measure(ours(level), variant, s) for s in range(seeds)]
    bounds = [
        (f"MSE {harness.digits(bound)}", float(np.median([run[0] for run in runs])), bound),
        (f"{limit} s", float(np.median([run[1] for run in runs])), limit),
    ]
    add(table, task, f"skpou, level={level}" if fine else "skpou", runs, floor, bounds)
    for method, training in {} if fine or quick else THESIS.items():
        runs = [measure(thesis(training), variant, seed) for seed in range(min(seeds, 3))]
        add(table, task, f"thesis, {method}", runs, floor)
    for method, (make, samples) in {} if quick else rivals().items():
        runs = [measure(make, variant, seed) for seed in range(min(samples, seeds))]
        add(table, task, method, runs, floor)
    return table


def by_level(seeds, quick):
    """Tables 3.2 and 3.13 of the thesis: errors and active share of the grid against its level."""
    table = harness.Table()
    for level in LEVELS[:2] if quick else LEVELS:
        methods = {"skpou": ours(level), "thesis, SGD": thesis(THESIS["SGD"], level)}
        for name, make in methods.items():
            error, seconds, model = measure(make, "S0", 0)
            row = {"task": f"S0, level {level}", "method": name, "MSE": error}
            row |= {"active": model.active_fraction_, "fit (s)": seconds}
            bounds = [("active 0.6", -row["active"], -0.6)] if name == "skpou" else ()
            table.add(row, bounds)
    return table


def by_rate(seeds, quick):
    """Table 3.1 and Fig. 3.8 of the thesis: errors against learning rate and ridge."""
    table = harness.Table()
    for method, training in THESIS.items():
        for rate in training.rates[:1] if quick else training.rates:
            for ridge in training.ridges[:1] if quick else training.ridges:
                tried = thesis(training._replace(rate=rate, ridge=ridge))
                error, seconds, model = measure(tried, "S0", OTHER_SEED)
                row = {"task": "S0, level 6", "method": method, "learning rate": rate}
                row |= {"ridge": ridge, "MSE": error, "active": model.active_fraction_}
                table.add(row | {"fit (s)": seconds})
    return table


def by_training(seeds, quick):
    """Tables 3.2 and 3.9 of the thesis: levels against its three trainings, a quarter as long."""
    table = harness.Table()
    for level in LEVELS[:1] if quick else LEVELS:
        for name, training in THESIS.items():
            short = training._replace(passes=training.passes // LEVEL_SHARE)
            error, seconds, model = measure(thesis(short, level), "S0", 0)
            row = {"task": f"S0, level {level}", "method": name, "MSE": error}
            table.add(row | {"active": model.active_fraction_, "fit (s)": seconds})
    return table


def spectra(seeds, quick):
    """Tables 3.3 to 3.5 and 3.12 of the thesis, on a stand-in for its spectra.

    Labels in units of their range, so that errors of the three can be averaged.
    """
    table, n = harness.Table(), 300 if quick else N_SPECTRA
    X, y = make_spectra(n + n // 4, noise=0.03, random_state=0)
    y = (y - y.min(0)) / np.ptp(y, axis=0)
    plain = {"n_components": 3, "level": 5, "coef_solver": "gradient", "random_state": 0}
    plain |= {
        "batch_size": 64,
        "max_iter": 5 if quick else SPECTRA_PASSES,
        "alpha": 1e-4,
        "init": "scale",
    }

    def grid(**params):
        return NeuralSparseGridRegressor((64, 32), **(plain | params))

    def pixels(model):
        return make_pipeline(StandardScaler(), PCA(20), model)

    methods = {f"SGD, rate {rate:g}": grid(learning_rate=rate) for rate in SPECTRA_RATES}
    methods |= {f"SGD, level {k}": grid(level=k) for k in SPECTRA_LEVELS}
    methods |= {"LS": grid(coef_solver="direct", learning_rate=0.05)}
    methods |= {"ILS": grid(coef_solver="iterative", learning_rate=0.05)}
    methods |= {
        "boosting on 20 components": MultiOutputRegressor(pixels(harness.boosting())),
        "nearest neighbours": pixels(KNeighborsRegressor(5)),
    }
    for name, model in dict(list(methods.items())[: 2 if quick else None]).items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*of the embeddings lie within")
            seconds = harness.fit(model, X[:n], y[:n])
        left = model.predict(X[n:]) - y[n:]
        at_samples = model.predict(X[:n]) - y[:n]
        row = {"task": f"{n} spectra", "method": name, "MAE": float(np.abs(left).mean())}
        row |= {"MSE": float(np.mean(left**2)), "MSE at the samples": float(np.mean(at_samples**2))}
        table.add(row | {"fit (s)": seconds})
    return table


SECTIONS = {variant: partial(compare, variant) for variant in VARIANTS}
SECTIONS |= {"levels": by_level, "rates": by_rate, "trainings": by_training, "spectra": spectra}
