"""LSGDClassifier: labels, weights, tensors, parameters, bad input, saving."""

import copy
import functools
import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skpou import LSGDClassifier
from tests.base.test_bad_input import BAD_PARAMETERS, BAD_WEIGHT, BAD_X, quiet
from tests.base.test_interoperability import documented, odd_parts
from tests.estimators import no_training, same_bits

RESULTS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]
RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 5, (60, 2))
Y = (X[:, 0] + X[:, 1] > 2).astype(int) + (X[:, 0] > 3)
QUERY = RNG.uniform(-3, 6, (20, 2))


def make(**params):
    return LSGDClassifier(**{"hidden_layer_sizes": 4, "max_iter": 200} | params)


def fitted(labels=Y, **params):
    return make(**params).fit(X, labels)


#: A fit that many tests change a copy of.
FITTED = functools.cache(fitted)


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_kinds_of_prediction_agree(n_classes):
    model = fitted(np.minimum(Y, n_classes - 1))
    proba, logs = model.predict_proba(QUERY), model.predict_log_proba(QUERY)
    assert proba.shape == (20, n_classes)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_allclose(np.exp(logs), proba)
    assert (model.classes_[proba.argmax(1)] == model.predict(QUERY)).all()
    odds = logs if n_classes == 3 else logs[:, -1] - logs[:, 0]
    np.testing.assert_allclose(model.decision_function(QUERY), odds)
    assert model.score(X, np.minimum(Y, n_classes - 1)) > 0.9
    assert model.coef_.shape == (5, n_classes)


def test_labels_of_any_kind():
    names = np.array(["low", "mid", "top"])
    model = fitted(names[Y])
    assert model.predict(QUERY).tolist() == names[fitted().predict(QUERY)].tolist()
    assert same_bits(model.predict_proba(QUERY), fitted().predict_proba(QUERY))


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["varpro", "lsgd", "gd"])
def test_weights_count_rows(solver):
    weight = np.arange(60) % 3
    weighted = make(solver=solver, max_iter=20).fit(X, Y, weight)
    repeated = make(solver=solver, max_iter=20).fit(np.repeat(X, weight, 0), np.repeat(Y, weight))
    assert same_bits(weighted.predict_proba(QUERY), repeated.predict_proba(QUERY))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_tensors(dtype):
    points = torch.tensor(X, dtype=getattr(torch, dtype))
    model = make(dtype=dtype).fit(points, torch.tensor(Y))
    proba = model.predict_proba(torch.tensor(QUERY, dtype=points.dtype))
    assert isinstance(proba, torch.Tensor)
    assert proba.dtype == points.dtype
    np.testing.assert_allclose(proba, fitted().predict_proba(QUERY), atol=1e-3)


def test_the_best_of_some_starts():
    scores = [fitted(random_state=0, n_init=n).loss_ for n in (1, 4)]
    assert scores[1] <= scores[0]


def test_a_descent_that_is_cut_short_says_so():
    with pytest.warns(ConvergenceWarning, match="used all max_iter=3 .* the mean cross entropy is"):
        fitted(solver="gd", max_iter=3)


def test_iris():
    points, labels = load_iris(return_X_y=True)
    model = LSGDClassifier((8,)).fit(points[::2], labels[::2])
    assert model.score(points[1::2], labels[1::2]) > 0.93


def test_saving_and_words():
    model = fitted()
    assert not odd_parts(vars(model))
    assert same_bits(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    assert "hidden layers (4)" in model.summary()
    state = model.__getstate__()
    state["model_"] = {**state["model_"], "coef": state["model_"]["coef"] * np.nan}
    with pytest.raises(ValueError, match="saved LSGDClassifier is damaged"):
        LSGDClassifier().__setstate__(state)


def test_documentation():
    cls = LSGDClassifier
    signature = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    assert documented(cls.__doc__, "Parameters") == signature
    assert set(cls._parameter_constraints) == set(signature)
    model = make().fit(pd.DataFrame(X, columns=["a", "b"]), Y)
    public = {key for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    assert set(documented(cls.__doc__, "Attributes")) == public


# Bad input


@pytest.fixture
def model():
    """Fitted classifier whose state must not change."""
    model = copy.deepcopy(FITTED())
    before = model.predict_proba(QUERY)
    yield model
    assert same_bits(model.predict_proba(QUERY), before)


@quiet
@pytest.mark.parametrize("case", BAD_X)
def test_bad_x(model, case):
    bad, error, match = BAD_X[case]
    with no_training(), pytest.raises(error, match=match):
        model.fit(bad, Y)


@pytest.mark.parametrize("case", BAD_WEIGHT)
def test_bad_weight(model, case):
    bad, error, match = BAD_WEIGHT[case]
    with no_training(), pytest.raises(error, match=match):
        model.fit(X, Y, sample_weight=bad)


@pytest.mark.parametrize(
    ("parameter", "value", "match"),
    [
        *(
            case
            for case in BAD_PARAMETERS
            if case[0] in LSGDClassifier().get_params() and case[0] != "hidden_layer_sizes"
        ),
        ("hidden_layer_sizes", "auto", "'hidden_layer_sizes' parameter of"),
        ("hidden_layer_sizes", (4, 0), "hidden_layer_sizes must hold one or more integers >= 1"),
        ("solver", "lbfgs", "'solver' parameter of .* Got 'lbfgs'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_parameter(model, parameter, value, match):
    good = model.get_params()
    with no_training(), pytest.raises(ValueError, match=match):
        model.set_params(**{parameter: value}).fit(X, Y)
    model.set_params(**good)


def test_networks_that_do_not_fit_into_memory():
    with (
        no_training(),
        pytest.raises(ValueError, match=r"Lower hidden_layer_sizes, or take solver"),
    ):
        make(hidden_layer_sizes=(3000, 3000)).fit(X, Y)


def test_not_fitted():
    for name in RESULTS:
        with pytest.raises(NotFittedError, match=r"This LSGDClassifier .* not fitted yet"):
            getattr(LSGDClassifier(), name)(X)
