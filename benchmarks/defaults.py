"""Seconds of a default fit on a small table, and of scikit-learn's checks of an estimator."""

import time
import warnings

import numpy as np
from sklearn.datasets import make_regression
from sklearn.utils.estimator_checks import check_estimator

from benchmarks.shared import harness
from skpou import HierarchicalPOURegressor, LSGDRegressor


def run(seeds, quick):
    table = harness.Table()
    for estimator in (HierarchicalPOURegressor(), LSGDRegressor()):
        seconds = []
        for seed in range(seeds):
            X, y = make_regression(200, 10, noise=1.0, random_state=seed)
            seconds.append(harness.fit(estimator, X, y))
        median = float(np.median(seconds))
        task = f"default fit of {type(estimator).__name__}, 200 rows, 10 columns"
        table.add({"task": task, "seconds": median}, [("0.2 s", median, 0.2)])

    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(HierarchicalPOURegressor(), on_skip=None, on_fail=None)
    elapsed = time.process_time() - start
    failed = sum(result["status"] == "failed" for result in results)
    bounds = [("60 s", elapsed, 60), ("all pass", failed, 0)]
    task = f"scikit-learn's {len(results)} checks"
    table.add({"task": task, "seconds": elapsed, "failures": failed}, bounds)
    return table
