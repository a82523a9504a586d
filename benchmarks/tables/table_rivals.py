"""Rivals on tables: fit, then a mean, a density and intervals at points.

MAPIE, NGBoost and CatBoost are optional: those that are missing are left out with a line, and
conformal intervals then come from the ranks of cross-validated errors.
"""

import contextlib

import numpy as np
import torch
from scipy.special import ndtri
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.shared import harness
from skpou.core.models.residue_density import rounding

try:
    from mapie.regression import CrossConformalRegressor
except ImportError:
    CrossConformalRegressor = None
try:
    from ngboost import NGBRegressor
except ImportError:
    NGBRegressor = None
try:
    from catboost import CatBoostRegressor
except ImportError:
    CatBoostRegressor = None

#: Shares of the rows that intervals are to cover.
LEVELS = np.array([0.5, 0.68, 0.9, 0.95])
GAUSSIAN_PROCESS = "Gaussian process"
BOOSTING = "gradient boosting"
#: Networks of the ensemble.
N_NETWORKS = 5
NETWORKS = f"{N_NETWORKS} networks"
#: Most trees of those whose number is chosen, and how many may not help before they stop.
MOST_TREES, PATIENCE = 2000, 50
#: Virtual ensembles of CatBoost, its documentation's number.
N_VIRTUAL = 10


class Gaussian:
    """What turns a mean and a standard deviation into a density and intervals."""

    def log_density(self, X, y):
        mean, std = self.predict(X, return_std=True)
        return -0.5 * (np.log(2 * np.pi * std**2) + ((y - mean) / std) ** 2)

    def intervals(self, X):
        mean, std = self.predict(X, return_std=True)
        half = std[:, None] * ndtri(0.5 + 0.5 * LEVELS)
        return mean[:, None] - half, mean[:, None] + half


class GaussianProcess(Gaussian):
    """One scale a column and white noise, on at most 1000 rows."""

    def fit(self, X, y):
        kept = np.random.default_rng(0).permutation(len(X))[:1000]
        kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(np.ones(X.shape[1]), (1e-2, 1e4))
        kernel += WhiteKernel(0.1, (1e-6, 10))
        self.scaler = StandardScaler().fit(X[kept])
        self.model = GaussianProcessRegressor(kernel, normalize_y=True)
        self.model.fit(self.scaler.transform(X[kept]), y[kept])
        self.rounding = rounding(torch.as_tensor(y))
        return self

    def predict(self, X, return_std=False):
        return self.model.predict(self.scaler.transform(X), return_std=return_std)

    def variants(self):
        """Other readings of the same fit, by what is added to the name."""
        return {", noise floor": FlooredProcess(self)}


class FlooredProcess(Gaussian):
    """A fitted process whose noise is never narrower than the rounding of y.

    AdditivePOURegressor has the same floor. Without it the density on exact repeats of whole
    numbers has no bound.
    """

    def __init__(self, process):
        self.process = process

    def predict(self, X, return_std=False):
        mean, std = self.process.predict(X, return_std=True)
        return (mean, np.maximum(std, self.process.rounding)) if return_std else mean


def folds():
    """Shuffled: rows of a design lie in order."""
    return KFold(5, shuffle=True, random_state=0)


class Boosting(Gaussian):
    """One standard deviation, from shuffled cross-validation."""

    def fit(self, X, y):
        self.model = HistGradientBoostingRegressor(random_state=0)
        error = y - cross_val_predict(clone(self.model), X, y, cv=folds())
        self.std = harness.rms(error)
        self.errors = np.sort(np.abs(error))
        self.model.fit(X, y)
        return self

    def predict(self, X, return_std=False):
        mean = self.model.predict(X)
        return (mean, np.full(len(X), self.std)) if return_std else mean


class RankBoosting(Boosting):
    """The same mean with intervals from the ranks of cross-validated errors; it has no density."""

    log_density = None

    def intervals(self, X):
        n = len(self.errors)
        half = self.errors[np.minimum(np.ceil(LEVELS * (n + 1)).astype(int), n) - 1]
        mean = self.predict(X)[:, None]
        return mean - half, mean + half


class ConformalBoosting:
    """The same mean with MAPIE's cross-conformal intervals ("CV+"); it has no density."""

    log_density = None

    def fit(self, X, y):
        model = HistGradientBoostingRegressor(random_state=0)
        levels = LEVELS.tolist()
        self.model = CrossConformalRegressor(model, confidence_level=levels, cv=folds())
        self.model.fit_conformalize(X, y)
        return self

    def predict(self, X):
        return self.model.predict(X, aggregate_point_predictions=None)

    def intervals(self, X):
        _, found = self.model.predict_interval(X)
        return found[:, 0], found[:, 1]


class Ensemble(Gaussian):
    """Networks from different starts, with one noise from rows that each leaves out."""

    def fit(self, X, y):
        self.models, errors = [], []
        for seed in range(N_NETWORKS):
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


def held_fifth(n):
    """Rows that choose the number of trees, and the others."""
    order = np.random.default_rng(0).permutation(n)
    return order[: n // 5], order[n // 5 :]


class NaturalGradientBoosting(Gaussian):
    """NGBoost as in its paper: trees in the number that is best for a fifth, then all rows."""

    def fit(self, X, y):
        held, kept = held_fifth(len(X))
        options = {"verbose": False, "random_state": 0}
        trial = NGBRegressor(n_estimators=MOST_TREES, early_stopping_rounds=PATIENCE, **options)
        with contextlib.redirect_stdout(None):
            trial.fit(X[kept], y[kept], X_val=X[held], Y_val=y[held])
        n_trees = trial.best_val_loss_itr + 1
        self.model = NGBRegressor(n_estimators=n_trees, **options).fit(X, y)
        return self

    def predict(self, X, return_std=False):
        found = self.model.pred_dist(X)
        return (found.loc, found.scale) if return_std else found.loc


class CategoryBoosting(Gaussian):
    """CatBoost with a variance at each row, and that of its virtual ensembles; trees as above."""

    def fit(self, X, y):
        held, kept = held_fifth(len(X))
        trial = self._trees(MOST_TREES)
        trial.fit(X[kept], y[kept], eval_set=(X[held], y[held]), early_stopping_rounds=PATIENCE)
        # Virtual ensembles are the second half of the trees, so many at least.
        self.model = self._trees(max(trial.best_iteration_ + 1, 2 * N_VIRTUAL)).fit(X, y)
        return self

    @staticmethod
    def _trees(number):
        return CatBoostRegressor(
            iterations=number,
            loss_function="RMSEWithUncertainty",
            random_seed=0,
            thread_count=1,
            verbose=False,
            allow_writing_files=False,
        )

    def predict(self, X, return_std=False):
        mean, variance = self.model.predict(X, thread_count=1).T
        if not return_std:
            return mean
        kind = {"prediction_type": "TotalUncertainty", "thread_count": 1}
        kind["virtual_ensembles_count"] = N_VIRTUAL
        knowledge = self.model.virtual_ensembles_predict(X, **kind)[:, 1]
        return mean, np.sqrt(variance + knowledge)


def rivals():
    """Classes by name, as far as their packages are installed."""
    found = {GAUSSIAN_PROCESS: GaussianProcess, BOOSTING: Boosting}
    if CrossConformalRegressor is None:
        print("  MAPIE is not installed: conformal intervals by ranks")
        found[f"{BOOSTING}, conformal by ranks"] = RankBoosting
    else:
        found[f"{BOOSTING}, conformal (MAPIE)"] = ConformalBoosting
    found[NETWORKS] = Ensemble
    if NGBRegressor is None:
        print("  NGBoost is not installed, left out")
    else:
        found["NGBoost"] = NaturalGradientBoosting
    if CatBoostRegressor is None:
        print("  CatBoost is not installed, left out")
    else:
        found["CatBoost"] = CategoryBoosting
    return found
