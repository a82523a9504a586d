"""Fits and predictions do not depend on torch's global settings, and leave them as they were."""

import contextlib

import numpy as np
import pytest
import torch

from skpou import LSGDClassifier, NeuralSparseGridClassifier, SparseGridClassifier
from tests.estimators import (
    assert_same_bits,
    each_class,
    fitted,
    fitted_predictions,
    make,
    predictions,
    quick_configurations,
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


@contextlib.contextmanager
def all_of(*settings):
    with contextlib.ExitStack() as stack:
        for setting in settings:
            stack.enter_context(setting)
        yield


#: Every setting in one of two fits. "meta" stands for "cuda" on a machine without one: a tensor
#: made there has no values.
SETTINGS = {
    "meta, float16, no grad": lambda: all_of(
        default_device("meta"), default_dtype(torch.float16), torch.no_grad()
    ),
    "float64, inference": lambda: all_of(default_dtype(torch.float64), torch.inference_mode()),
}
each_setting = pytest.mark.parametrize("setting", SETTINGS)


@quick_configurations
@each_setting
def test_same_bits_under(setting, name):
    with SETTINGS[setting]():
        model = make(name, device="cpu").fit(X, Y)
        found = predictions(model)
        assert not torch.is_grad_enabled()
    assert_same_bits(found, fitted_predictions(name))


@each_class
@each_setting
def test_models_predict_the_same_under(setting, name):
    model = fitted(name)
    with SETTINGS[setting]():
        found = predictions(model)
    assert_same_bits(found, fitted_predictions(name))


#: Bits that differ do so from the first steps on.
ENCODER = {"hidden_layer_sizes": (5,), "max_iter": 10}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("cls", "params"),
    [
        (LSGDClassifier, {"hidden_layer_sizes": 3}),
        *(
            (cls, {"level": 2, "method": method, **params})
            for cls, params in ((SparseGridClassifier, {}), (NeuralSparseGridClassifier, ENCODER))
            for method in ("density", "one_hot", "softmax")
        ),
    ],
)
def test_classes_under(cls, params):
    model = cls(**params, device="cpu")
    expected = model.fit(X, Y > 0).predict_proba(X)
    for setting in SETTINGS.values():
        with setting():
            found = model.fit(X, Y > 0).predict_proba(X)
        assert same_bits(found, expected)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_tensors_that_were_made_there(mode):
    with mode():
        points, targets = torch.tensor(X), torch.tensor(Y)
        model = make("grid").fit(points, targets)
        gradient = model.predict_gradient(points)
    np.testing.assert_array_equal(gradient, make("grid").fit(X, Y).predict_gradient(X))
