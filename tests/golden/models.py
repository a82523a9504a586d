"""Models that are fitted once a release and must stay readable, and what they predict.

``python -m tests.golden.models`` writes those of the present version. It is called once, when a
version is released, and what it wrote is never written again.
"""

import warnings
import zipfile
from pathlib import Path

import joblib
import numpy as np
import skops.io
import torch

import skpou
from skpou import (
    LSGDClassifier,
    NeuralSparseGridClassifier,
    SparseGridClassifier,
    SparseGridRegressor,
    TransformedRegressor,
)
from tests.estimators import CONFIGURATIONS, ONE_OF_EACH, QUERY, kinked, make, stepped

FOLDER = Path(__file__).parent

#: Every classifier and each way to a probability.
CLASSIFIERS = {
    "density classes": SparseGridClassifier(),
    "one-hot classes": SparseGridClassifier(level=3, method="one_hot"),
    "softmax classes": SparseGridClassifier(level=2, method="softmax"),
    "network classes": LSGDClassifier((6,), max_iter=20),
    "neural softmax classes": NeuralSparseGridClassifier((8,), level=3, max_iter=40),
    "neural one-hot classes": NeuralSparseGridClassifier(
        (8,), level=3, method="one_hot", coef_solver="iterative", max_iter=40, learning_rate=0.1
    ),
    "neural density classes": NeuralSparseGridClassifier(
        (8,), level=3, method="density", coef_solver="gradient", max_iter=40, learning_rate=0.1
    ),
}

#: What other tests have by itself.
MORE = {
    "transformed targets": TransformedRegressor(SparseGridRegressor(level=3), "yeo-johnson"),
    "calibrated grid": SparseGridRegressor(),
    "grid of parabolas": SparseGridRegressor(basis="quadratic"),
}
#: Those whose intervals are calibrated by rows set aside.
CALIBRATED = ("calibrated grid",)

#: The points of the other tests, and some outside the box of the data.
POINTS = np.vstack([QUERY, [[1.2, 0.3], [-1.4, -1.1]]])


def models():
    """Name, unfitted estimator, X and y of every model."""
    X, y = stepped()
    for name in CONFIGURATIONS:
        yield name, make(name), X, y
    for name, estimator in MORE.items():
        yield name, estimator, X, y
    for name in ONE_OF_EACH:
        yield f"{name} with two outputs", make(name), X, np.column_stack([y, X[:, 0] - 2 * y])
    labels = np.array(["low", "middle", "high"])[np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])]
    for name, classifier in CLASSIFIERS.items():
        yield name, classifier, X, labels


def file_name(name):
    """Name of a model's files, without an ending."""
    return name.replace(" ", "-")


def predictions(model):
    """Predictions of every kind that the model knows at `POINTS`, by name."""
    if hasattr(model, "predict_proba"):
        names = ("predict_proba", "decision_function", "predict")
        return {name: getattr(model, name)(POINTS) for name in names}
    mean, std = model.predict(POINTS, return_std=True)
    known = {
        "mean": mean,
        "std": std,
        "epistemic": model.predict(POINTS, return_std="epistemic")[1],
        "noise": model.predict(POINTS, return_std="noise")[1],
        "quantiles": model.predict_quantile(POINTS),
        "gradient": model.predict_gradient(POINTS),
        "samples": model.sample_y(POINTS, n_samples=2),
        "log_density": model.log_density(POINTS, 0.5 * mean),
        "interval": model.predict_interval(POINTS),
    }
    for name in ("partition_proba", "predict_terms"):
        if hasattr(model, name):
            known[name] = getattr(model, name)(POINTS)
    return known


def fitted(estimator, X, y):
    """The estimator after a fit on one thread, whatever it warns of."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, y)


def write():
    """Fit and save all models of the present version."""
    folder = FOLDER / skpou.__version__
    folder.mkdir()  # What a release has written stays: an error where the folder exists.
    for name, estimator, X, y in models():
        model = fitted(estimator, X, y)
        if name in CALIBRATED:
            model.conformalize(*kinked(50, seed=1))
        path = folder / file_name(name)
        skops.io.dump(model, path.with_suffix(".skops"), compression=zipfile.ZIP_DEFLATED)
        joblib.dump(model, path.with_suffix(".joblib"), compress=3)
        arrays = {f"predicted_{key}": value for key, value in predictions(model).items()}
        np.savez_compressed(path.with_suffix(".npz"), X=X, y=y, points=POINTS, **arrays)


if __name__ == "__main__":
    write()
