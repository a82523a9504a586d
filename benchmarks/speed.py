"""What defaults cost: one row, a fit beside two rivals, few rows, checks, imports, several threads.

All but the last are in processor seconds of one thread, ratios of fits made one after the other;
the gain by several threads is in seconds of the clock, and says something on an idle machine alone.
All sections take some twenty minutes of one processor.
"""

import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from sklearn.datasets import load_diabetes, make_friedman1, make_regression
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neural_network import MLPRegressor
from sklearn.utils.estimator_checks import check_estimator

import skpou
from benchmarks.shared import harness

SEEDS = 1
CLASSIFIERS = ("SparseGridClassifier", "NeuralSparseGridClassifier")
REGRESSORS = (
    *("AdditivePOURegressor", "HierarchicalPOURegressor", "LSGDRegressor", "MultiStageRegressor"),
    *("NeuralSparseGridRegressor", "POURegressor", "SparseGridRegressor"),
)
#: Milliseconds for one row: of the mean, with std, with std of a model that keeps rows.
MEAN, STD, STD_KEPT = 0.5, 1.0, 2.0
#: Geometric mean over the tasks of a fit's seconds over those of the faster rival, and the worst.
RATIOS = {
    "AdditivePOURegressor": 4,
    "HierarchicalPOURegressor": 8,
    "LSGDRegressor": 5,
    "MultiStageRegressor": 5,
    "NeuralSparseGridRegressor": 8,
    "POURegressor": 5,
    "SparseGridRegressor": 1,
}
WORST = 25
#: Gain by two threads on two processors.
GAINS = {"MultiStageRegressor": 1.6, "AdditivePOURegressor": 1.6, "HierarchicalPOURegressor": 1.4}
#: Seconds of all of scikit-learn's checks of a default, and of an import over those of torch and
#: scikit-learn.
CHECKS, IMPORT = 20, 1.1
#: Rows and columns of small tables.
FEW = ((20, 1), (30, 2), (100, 3), (150, 4))
#: Rows up to which a Gaussian process is a rival.
MOST_OF_PROCESS = 1000


def wave(X):
    return np.exp(-5 * ((X - 0.4) ** 2).sum(1)) + np.sin(5 * X[:, 0])


def kink(X):
    return np.abs(np.sin(4 * X[:, 0]) - X[:, 1]) + X[:, 1] ** 2


def products(X):
    return np.sin(3 * X[:, 0] * X[:, 1]) + X[:, 2] ** 2 * X[:, 3]


def tasks(seed):
    """Name, points and targets to fit, points and targets (without noise) to judge by."""
    cases = {
        "line, smooth, 300": (300, 1, lambda X: np.exp(X[:, 0]) * np.sin(9 * X[:, 0]), 0.0),
        "line, smooth, 1000": (1000, 1, lambda X: np.log(X[:, 0] + 0.02), 0.0),
        "line, noise 0.1, 300": (300, 1, lambda X: np.sin(9 * X[:, 0]), 0.1),
        "plane, smooth, 2000": (2000, 2, wave, 0.0),
        "plane, noise 0.05, 500": (500, 2, wave, 0.05),
        "plane, kink, 2000": (2000, 2, kink, 0.0),
        "4-D, noise 0.02, 5000": (5000, 4, products, 0.02),
    }
    for name, (n, d, function, noise) in cases.items():
        X, T = harness.sample(d, n, seed), harness.fresh(d, seed)[:3000]
        y = function(X) + noise * np.random.default_rng(20_000 + seed).standard_normal(n)
        yield name, X, y, T, function(T)
    tables = {
        "Friedman 1, 1000 x 10": make_friedman1(2000, noise=1.0, random_state=seed),
        "linear, 1000 x 30": make_regression(2000, 30, noise=10, random_state=seed),
        "diabetes, 221 x 10": load_diabetes(return_X_y=True),
    }
    for name, (X, y) in tables.items():
        half = len(y) // 2
        yield name, X[:half], y[:half], X[half:], y[half:]


def rivals(n, d):
    """The two whose faster one a fit is compared with."""
    found = [HistGradientBoostingRegressor(max_iter=300)]
    if n <= MOST_OF_PROCESS:
        kernel = ConstantKernel(1) * RBF(np.ones(d)) + WhiteKernel(1e-3, (1e-12, 10))
        found.append(GaussianProcessRegressor(kernel, normalize_y=True))
    return found


def milliseconds(method, X, n_batches=20, n_calls=10, **options):
    """Of one call: the tenth quantile of batches, for others run on the machine, too."""
    method(X, **options)
    seconds = []
    for _ in range(n_batches):
        start = time.process_time()
        for _ in range(n_calls):
            method(X, **options)
        seconds.append(time.process_time() - start)
    return 1e3 * float(np.quantile(seconds, 0.1)) / n_calls


def one_row(seeds, quick):
    """One row of models fitted to 200 rows, once they have predicted."""
    table = harness.Table()
    cases = {"plane, noise 0.05": (2, wave, 0.05), "plane, kink": (2, kink, 0.0)}
    cases |= {"plane, smooth": (2, wave, 0.0), "4-D, noise 0.02": (4, products, 0.02)}
    for task, (d, function, noise) in list(cases.items())[: 1 if quick else None]:
        X = harness.sample(d, 200, 0)
        y = function(X) + noise * np.random.default_rng(0).standard_normal(200)
        network = MLPRegressor(max_iter=50)
        harness.fit(network, X, y)
        mean = milliseconds(network.predict, X[:1])
        table.add({"task": task, "method": "MLPRegressor", "mean (ms)": mean})
        for name in (*REGRESSORS, *CLASSIFIERS):
            model, classifies = getattr(skpou, name)(), name in CLASSIFIERS
            harness.fit(model, X, y > np.median(y) if classifies else y)
            mean = milliseconds(model.predict, X[:1])
            bounds = [(f"{MEAN} ms", mean, MEAN)]
            row = {"task": task, "method": name, "mean (ms)": mean}
            if not classifies:
                std = milliseconds(model.predict, X[:1], return_std=True)
                instead = [(model._restraint or {}).get(k) for k in ("process", "interpolant")]
                keeps = any(len(form["points"]) for form in model._form_error or ())
                keeps = keeps or any(part is not None for part in instead)
                most = STD_KEPT if keeps else STD
                row |= {"with std (ms)": std, "keeps rows": "yes" if keeps else "no"}
                bounds.append((f"with std {most} ms", std, most))
            table.add(row, bounds)
    return table


def fits(seeds, quick):
    """Seconds of default fits beside the faster of gradient boosting and a Gaussian process."""
    table, ratios = harness.Table(), {name: [] for name in REGRESSORS}
    for seed in range(seeds):
        for task, X, y, T, truth in list(tasks(seed))[: 3 if quick else None]:
            fastest = min(harness.fit(model, X, y) for model in rivals(*X.shape))
            for name in REGRESSORS:
                model = getattr(skpou, name)()
                seconds = harness.fit(model, X, y)
                ratios[name].append(seconds / fastest)
                row = {"task": task, "method": name, "fit (s)": seconds}
                row["error"] = harness.rms(model.predict(T) - truth) / float(np.std(truth))
                table.add(row | {"of the faster rival": seconds / fastest})
    for name, of_tasks in ratios.items():
        mean, worst = float(np.exp(np.mean(np.log(of_tasks)))), max(of_tasks)
        row = {"task": "geometric mean", "method": name, "of the faster rival": mean}
        most = RATIOS[name]
        table.add(
            row | {"worst": worst}, [(f"mean {most}", mean, most), (f"{WORST}", worst, WORST)]
        )
    return table


def few(seeds, quick):
    """Seconds of default fits to few rows: the least of three, without noise and with."""
    table = harness.Table()
    for n, d in FEW[: 1 if quick else None]:
        X = harness.sample(d, n, 0)
        for noise in (0.0, 0.1):
            y = wave(X) + noise * np.random.default_rng(n).standard_normal(n)
            row = {"task": f"{n} x {d}, noise {noise}"}
            for name in REGRESSORS:
                seconds = [harness.fit(getattr(skpou, name)(), X, y) for _ in range(3)]
                row[name.removesuffix("Regressor") + " (s)"] = min(seconds)
            table.add(row)
    return table


def checks(seeds, quick):
    """Seconds of all of scikit-learn's checks of every default."""
    table = harness.Table()
    for name in (REGRESSORS[-1:]) if quick else (*REGRESSORS, *CLASSIFIERS):
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = check_estimator(getattr(skpou, name)(), on_skip=None, on_fail=None)
        seconds = time.process_time() - start
        failures = sum(result["status"] == "failed" for result in results)
        row = {"method": name, "checks": len(results), "seconds": seconds, "failures": failures}
        table.add(row, [(f"{CHECKS} s", seconds, CHECKS), ("all pass", failures, 0)])
    return table


def imports(seeds, quick):
    """Seconds of an import in a process of its own, the least of five."""

    def seconds(names):
        code = f"import {names}, time; print(time.process_time())"
        runs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(2 if quick else 5)
        ]
        return min(float(run.stdout) for run in runs)

    table = harness.Table()
    beside, own = seconds("torch, sklearn"), seconds("torch, sklearn, skpou")
    row = {"torch, sklearn (s)": beside, "with skpou (s)": own, "ratio": own / beside}
    table.add(row, [(f"{IMPORT}", own / beside, IMPORT)])
    return table


def jobs(seeds, quick):
    """Two threads against one; each with one thread of torch."""
    table = harness.Table()
    X = harness.sample(4, 500 if quick else 5000, 0)
    y = products(X) + 0.02 * np.random.default_rng(0).standard_normal(len(X))
    for name, least in GAINS.items():
        seconds, predicted = [], []
        for n_jobs in (1, 2):
            start = time.perf_counter()
            model = getattr(skpou, name)(n_jobs=n_jobs).fit(X, y)
            seconds.append(time.perf_counter() - start)
            predicted.append(model.predict(X, return_std=True))
        same = all(np.array_equal(a, b) for a, b in zip(*predicted, strict=True))
        gain = seconds[0] / seconds[1]
        row = {"method": name, "one thread (s)": seconds[0], "two threads (s)": seconds[1]}
        row |= {"gain": gain, "same bits": "yes" if same else "no"}
        table.add(row, [(f"gain {least}", -gain, -least), ("same bits", not same, 0)])
    assert torch.get_num_threads() == 1
    return table


SECTIONS = {
    "rows": one_row,
    "fits": fits,
    "few": few,
    "checks": checks,
    "imports": imports,
    "jobs": jobs,
}
