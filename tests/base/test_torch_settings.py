"""Fits and predictions do not depend on torch's global settings, and leave them as they were."""

import contextlib

import numpy as np
import pytest
import torch

from skpou import LSGDClassifier, NeuralSparseGridClassifier, SparseGridClassifier
from tests.estimators import (
    assert_same_bits,
    each_class,
    each_solver,
    fitted,
    fitted_predictions,
    make,
    predictions,
    same_bits,
    stepped,
)

X, Y = stepped()


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


#: "meta" stands for "cuda" on a machine without one: a tensor made there has no values.
SETTINGS = {
    "meta": lambda: default_device("meta"),
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
}
each_setting = pytest.mark.parametrize("setting", SETTINGS)


@each_solver
@each_setting
def test_same_bits_under(setting, name):
    with SETTINGS[setting]():
        model = make(name, device="cpu").fit(X, Y)
        found = predictions(model)
    assert_same_bits(found, fitted_predictions(name))


@each_class
@each_setting
def test_models_predict_the_same_under(setting, name):
    model = fitted(name)
    with SETTINGS[setting]():
        found = predictions(model)
    assert_same_bits(found, fitted_predictions(name))


@pytest.mark.parametrize(
    ("cls", "params"),
    [
        (LSGDClassifier, {"hidden_layer_sizes": 3}),
        *(
            (cls, {"level": 2, "method": method})
            for cls in (SparseGridClassifier, NeuralSparseGridClassifier)
            for method in ("density", "one_hot", "softmax")
        ),
    ],
)
@each_setting
def test_classes_under(setting, cls, params):
    model = cls(**params, device="cpu")
    expected = model.fit(X, Y > 0).predict_proba(X)
    with SETTINGS[setting]():
        found = model.fit(X, Y > 0).predict_proba(X)
    assert same_bits(found, expected)


@pytest.mark.parametrize("setting", ["inference", "no grad"])
def test_tensors_that_were_made_there(setting):
    with SETTINGS[setting]():
        points, targets = torch.tensor(X), torch.tensor(Y)
        model = make("grid").fit(points, targets)
        gradient = model.predict_gradient(points)
    np.testing.assert_array_equal(gradient, make("grid").fit(X, Y).predict_gradient(X))


@each_class
def test_grad_mode_is_what_it_was(name):
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            make(name).fit(X, Y).predict_gradient(X[:3])
            assert torch.is_grad_enabled() == enabled
