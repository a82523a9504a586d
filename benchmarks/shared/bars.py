"""Error bars on random smooth functions, exact and with noise, beside a Gaussian process.

Ten functions for each number of columns and rows: sums of cosines with the spectrum of a Gaussian
kernel of a drawn length. Exact targets: where the error is above `SEEN` of y's rms, 95 % and 50 %
intervals are counted on the truth; below it errors beyond three standard deviations, and the median
of these: fresh points lie outside the rows' box, too, where no fit is known to be exact. Noisy
ones: both intervals on fresh noisy targets, and 95 % bars of the mean alone.
"""

import inspect
import warnings

import numpy as np

import skpou
from benchmarks.shared import harness

SEEDS = 10
COLUMNS, ROWS = (1, 2, 4), (20, 50, 200)
#: Standard deviations of the noise, in units of the target's.
NOISE = {"exact": 0.0, "noisy": 0.1}
#: Cosines of a function, and its length in units of the root of the number of columns.
N_COSINES, LENGTHS = 30, (0.3, 1.0)
N_TEST = 1000
#: Error that counts as none.
ROUND_OFF = 1e-16
#: Error, in units of y's rms, above which intervals are counted.
SEEN = 1e-6
#: Bounds of shares: of 95 % and of 50 % intervals, and of 95 % bars of the mean alone.
SHARES = {
    "exact": {0.95: (0.88, 0.995), 0.5: (0.35, 0.80)},
    "noisy": {0.95: (0.90, 0.98), 0.5: (0.43, 0.58)},
}
#: With few rows and noise a 95 % interval may hold a little less.
FEW, FEW_HELD, LEAST_OF_MEAN = 20, 0.88, 0.88
#: Where the fit is exact: share of errors beyond three standard deviations, and the median one.
MOST_BEYOND, MOST_STD = 0.01, 1e-5
#: Regressors that are measured with ``quick``.
QUICK = ("SparseGridRegressor",)


class GaussianProcess:
    """The likeliest of two kernels and two starts each, with noise."""

    def fit(self, X, y):
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

        d = X.shape[1]
        self.centre, self.width = X.mean(0), X.std(0)
        kernels = [
            ConstantKernel(1, (1e-6, 1e9)) * kind(np.full(d, length), (1e-3, 1e3), **options)
            + WhiteKernel(1e-8, (1e-14, 1))
            for kind, options in ((RBF, {}), (Matern, {"nu": 2.5}))
            for length in (0.3, 1.0)
        ]
        fits = [
            GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(
                (X - self.centre) / self.width, y
            )
            for kernel in kernels
        ]
        self.best = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
        return self

    def _moments(self, X):
        """Mean, standard deviation with the noise and without."""
        mean, std = self.best.predict((X - self.centre) / self.width, return_std=True)
        noise = self.best.kernel_.k2.noise_level * self.best._y_train_std**2
        return mean, std, np.sqrt(np.maximum(std**2 - noise, 0))

    def predict(self, X, return_std=False):
        mean, std, own = self._moments(X)
        return (mean, own if return_std == "epistemic" else std) if return_std else mean

    def predict_quantile(self, X, quantiles):
        from scipy.stats import norm

        mean, std, _ = self._moments(X)
        return mean[:, None] + std[:, None] * norm.ppf(quantiles)

    def log_density(self, X, y):
        from scipy.stats import norm

        mean, std, _ = self._moments(X)
        return norm.logpdf(y, mean, std)


def methods():
    """Name and class of the Gaussian process and of every regressor that has error bars."""
    found = {"Gaussian process": GaussianProcess}
    for name in skpou.__all__:
        kind = getattr(skpou, name)
        predict = getattr(kind, "predict", None) if name.endswith("Regressor") else None
        if predict is not None and "return_std" in inspect.signature(predict).parameters:
            found[name] = kind
    return found


def function(n_features, seed):
    """A smooth function of points (n, n_features), of about unit variance."""
    random = np.random.default_rng([seed, n_features])
    low, high = np.log(LENGTHS)
    length = np.exp(random.uniform(low, high)) * np.sqrt(n_features)
    frequencies = random.standard_normal((n_features, N_COSINES)) / length
    phases = random.uniform(0, 2 * np.pi, N_COSINES)
    amplitudes = random.standard_normal(N_COSINES) * np.sqrt(2 / N_COSINES)
    return lambda X: np.cos(X @ frequencies + phases) @ amplitudes


def task(n_features, n, seed, noise):
    """Rows, and fresh points with their true values and with noise, both of unit deviation."""
    truth = function(n_features, seed)
    points = np.random.default_rng([seed, n_features, 1]).random((N_TEST, n_features))
    unit = truth(points).std()
    X = np.random.default_rng([seed, n_features, n]).random((n, n_features))
    random = np.random.default_rng([seed, n_features, n, 2])
    y = truth(X) / unit + noise * random.standard_normal(n)
    exact = truth(points) / unit
    return X, y, points, exact, exact + noise * random.standard_normal(N_TEST)


def judged(model, points, exact, noisy):
    """What one fitted model's bars are worth: a row of numbers by name."""
    mean, own = model.predict(points, return_std="epistemic")
    _, std = model.predict(points, return_std=True)
    ends = model.predict_quantile(points, (0.025, 0.25, 0.75, 0.975))
    error = np.abs(mean - exact)
    return {
        "error": harness.rms(error),
        0.95: np.mean((noisy >= ends[:, 0]) & (noisy <= ends[:, 3])),
        0.5: np.mean((noisy >= ends[:, 1]) & (noisy <= ends[:, 2])),
        "mean": np.mean(error <= 1.96 * own),
        "beyond": np.mean(error > 3 * std),
        "std": np.median(std),
        "own": np.median(own) / max(np.median(error), ROUND_OFF),
        "log density": np.mean(model.log_density(points, noisy)),
    }


def bounds_of(kind, n, runs):
    """Bounds of a group of runs of one kind with n rows each."""
    seen = [run for run in runs if kind == "noisy" or run["error"] > SEEN]
    exact = [run for run in runs if not (kind == "noisy" or run["error"] > SEEN)]
    bounds = []
    if seen:
        for share, (least, most) in SHARES[kind].items():
            least = FEW_HELD if kind == "noisy" and n <= FEW and share > 0.9 else least
            held = np.mean([run[share] for run in seen])
            bounds += [(f"{share} >= {least}", -held, -least), (f"{share} <= {most}", held, most)]
    if kind == "noisy":
        held = np.mean([run["mean"] for run in seen])
        bounds.append((f"mean >= {LEAST_OF_MEAN}", -held, -LEAST_OF_MEAN))
    if exact:
        beyond, std = (np.max([run[key] for run in exact]) for key in ("beyond", "std"))
        bounds += [("beyond", beyond, MOST_BEYOND), ("std", std, MOST_STD)]
    return bounds


def summary(runs):
    """Columns of a row of the table."""
    seen = [run for run in runs if run["error"] > SEEN]
    found = {"error": np.median([run["error"] for run in runs]), "seen": len(seen)}
    for key, name in ((0.95, "95 %"), (0.5, "50 %"), ("mean", "95 %, mean alone")):
        found[name] = f"{np.mean([run[key] for run in seen]):.3f}" if seen else ""
    found["beyond 3 std"] = f"{np.mean([run['beyond'] for run in runs]):.3f}"
    found["own std / error"] = np.median([run["own"] for run in runs])
    found["log density"] = f"{np.mean([run['log density'] for run in runs]):.2f}"
    found["fit (s)"] = np.median([run["fit"] for run in runs])
    return found


def section(kind):
    """The benchmark of one kind of targets."""

    def run(seeds, quick):
        table = harness.Table()
        chosen = methods()
        chosen = {name: chosen[name] for name in QUICK} if quick else chosen
        shapes = [(d, n) for d in COLUMNS for n in (ROWS[:2] if quick else ROWS)]
        for name, make in chosen.items():
            for d, n in shapes:
                runs = []
                for seed in range(seeds):
                    X, y, *fresh = task(d, n, seed, NOISE[kind])
                    model = make()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        seconds = harness.fit(model, X, y)
                        runs.append({"fit": seconds, **judged(model, *fresh)})
                row = {"method": name, "columns": d, "rows": n, **summary(runs)}
                table.add(row, [] if make is GaussianProcess else bounds_of(kind, n, runs))
        return table

    return run


SECTIONS = {kind: section(kind) for kind in NOISE}
