"""Every classifier: probabilities that left-out observations have calibrated."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpou import LSGDClassifier, NeuralSparseGridClassifier, SparseGridClassifier

CLASSIFIERS = {
    "grid": SparseGridClassifier(),
    "network": LSGDClassifier((4,), max_iter=20),
    "encoder": NeuralSparseGridClassifier((4,), level=2, max_iter=15),
}
each_classifier = pytest.mark.parametrize("name", CLASSIFIERS)


def table(n, seed=0):
    """Six columns of long tails, two of which decide by their ranks, and the probability of "b"."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 6))
    proba = 1 / (1 + np.exp(-4 * np.sin(2 * np.pi * X[:, 0]) - 4 * (X[:, 1] - 0.5)))
    return X**8, np.where(rng.random(n) < proba, "b", "a"), proba


X, Y, _ = table(400)
QUERY, LABELS, PROBA = table(2000, seed=1)


def log_density(proba):
    return np.log(proba[np.arange(len(LABELS)), (LABELS == "b").astype(int)]).mean()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@each_classifier
def test_columns_of_long_tails_are_seen(name):
    model = CLASSIFIERS[name].fit(X, Y)
    proba = model.predict_proba(QUERY)
    best = log_density(np.column_stack([1 - PROBA, PROBA]))
    line = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    assert best - log_density(proba) < 0.5 * (best - log_density(line.predict_proba(QUERY)))
    assert "times those of a logistic regression of single columns" in model.summary()
    np.testing.assert_allclose(proba, np.exp(model.predict_log_proba(QUERY)))
    assert (model.predict(QUERY) == model.classes_[proba.argmax(1)]).all()
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.predict_proba(QUERY), proba)
    # Models that an earlier version saved have no calibration.
    del copy._calibration
    assert log_density(copy.predict_proba(QUERY)) < log_density(proba) - 0.03
    assert "logistic regression" not in copy.summary()


@each_classifier
@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_damage_of_the_calibration_is_told(name):
    model = CLASSIFIERS[name].fit(X, Y)
    state = model.__getstate__()
    coef = state["_calibration"]["companion"]["coef"].copy()
    coef[0, 0] = np.nan
    companion = {**state["_calibration"]["companion"], "coef": coef}
    state["_calibration"] = {**state["_calibration"], "companion": companion}
    with pytest.raises(ValueError, match="is damaged: _calibration"):
        type(model)().__setstate__(state)
