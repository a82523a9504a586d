"""Predictions unpack the model once, and ask it for no more than they need."""

import numpy as np
import pytest
import torch

from skpou import (
    LSGDClassifier,
    NeuralSparseGridClassifier,
    SparseGridClassifier,
    SparseGridRegressor,
)
from skpou.sparse_grids.model import SparseGridModel
from tests.estimators import QUERY, each_class, each_class_with_a_model, fitted, same_bits, stepped

#: Rows of several blocks, which are made this long for it.
MANY = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
BLOCK = 300

CALLS = {
    "predict": {},
    "predict with std": {"return_std": True},
    "predict_gradient": {},
    "predict_quantile": {},
    "sample_y": {},
    "log_density": {"y": np.zeros(len(MANY))},
    "partition_proba": {},
    "predict_terms": {},
    "predict_proba": {},
    "transform": {},
}


def count_models(model, monkeypatch):
    """A list that grows by one whenever the estimator unpacks its model; blocks are short."""
    monkeypatch.setattr(type(model), "_rows_a_block", lambda self, model: BLOCK)
    unpacked, original = [], type(model)._model

    def counted(self, like):
        unpacked.append(len(like))
        return original(self, like)

    monkeypatch.setattr(type(model), "_model", counted)
    return unpacked


def calls_of(model):
    """Name of each kind of prediction that the estimator knows, and the call itself."""
    for name, arguments in CALLS.items():
        method = getattr(model, name.split()[0], None)
        if method is not None and not (
            name == "predict with std" and model.__class__ in CLASSIFIERS
        ):
            yield name, lambda X, method=method, arguments=arguments: method(X, **arguments)


CLASSIFIERS = (LSGDClassifier, SparseGridClassifier, NeuralSparseGridClassifier)


@each_class_with_a_model
def test_predictions_unpack_the_model_once(name, monkeypatch):
    model = fitted(name)
    unpacked = count_models(model, monkeypatch)
    for kind, call in calls_of(model):
        call(MANY)
        assert len(unpacked) == 1, kind


@pytest.mark.parametrize("cls", CLASSIFIERS)
def test_classifications_unpack_the_model_once(cls, monkeypatch):
    X, y = stepped()
    params = {"level": 2} if hasattr(cls(), "level") else {"hidden_layer_sizes": 3}
    model = cls(**params).fit(X, y > 0)
    unpacked = count_models(model, monkeypatch)
    for kind, call in calls_of(model):
        call(MANY)
        assert len(unpacked) == 1, kind


@each_class
def test_the_mean_is_the_same_with_and_without_std(name):
    model = fitted(name)
    for return_std in (True, "epistemic", "noise"):
        assert same_bits(model.predict(QUERY, return_std=return_std)[0], model.predict(QUERY))


@each_class
def test_the_mean_alone_asks_for_no_density(name, monkeypatch):
    """But for mixtures of experts, whose mean is that of their density, without its variances."""
    model = fitted(name)
    kind = type(model._model(torch.zeros(1, 2).double()))
    asked = []
    original = kind.components

    def components(self, X, posterior=True, **others):
        asked.append(posterior)
        return original(self, X, posterior, **others)

    monkeypatch.setattr(kind, "components", components)
    model.predict(QUERY)
    assert not any(asked)
    assert not asked or hasattr(model, "mixture_")


@pytest.mark.parametrize("most", [7, 0])
def test_a_card_whose_memory_is_too_small_predicts_smaller_blocks(monkeypatch, most):
    X = np.random.default_rng(0).random((60, 2))
    model = SparseGridRegressor(level=2).fit(X, X[:, 0])
    mean, std = model.predict(X, return_std=True)
    inside = SparseGridModel.components

    def components(self, points, *args, **kwargs):
        if len(points) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return inside(self, points, *args, **kwargs)

    monkeypatch.setattr(SparseGridModel, "components", components)
    if not most:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            model.predict(X, return_std=True)
        return
    np.testing.assert_allclose(model.predict(X, return_std=True), (mean, std), rtol=1e-12)
