"""Means that give way where they know little, and their densities and gradients."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    SparseGridRegressor,
)
from skpou.core.models import Components, Restrained
from tests.examples import tensor

ESTIMATORS = {
    "AdditivePOURegressor": AdditivePOURegressor(max_order=1),
    "HierarchicalPOURegressor": HierarchicalPOURegressor(degree=2, n_partitions=1),
    "LSGDRegressor": LSGDRegressor((3,)),
    "LSGDRegressor, mixture": LSGDRegressor((3,), density="mixture"),
    "SparseGridRegressor": SparseGridRegressor(),
}


class Runaway:
    """A mean that explodes at one side of the box, with a variance that says so or not."""

    def __init__(self, variance):
        self.variance = variance

    def mean(self, X):
        return torch.exp(20 * X[:, :1]) / 100

    def gradient(self, X):
        return 20 * self.mean(X)[:, None]

    def components(self, X, posterior=True):
        mean = self.mean(X)[:, None]
        return Components(
            mean[..., 0] * 0, mean, torch.ones_like(mean), torch.full_like(mean, self.variance)
        )

    def numbers_per_row(self):
        return 1


def test_no_mean_leaves_the_range_far_where_its_std_exceeds_it():
    X = tensor([[0.1], [0.2], [1.0]])
    bounds = tensor([0.0]), tensor([2.0])
    unsure, sure = (Restrained(Runaway(v), None, *bounds) for v in (1e6, 1e-2))
    assert torch.equal(sure.mean(X), sure.model.mean(X))
    expected = torch.minimum(unsure.model.mean(X), tensor([4.0]))
    assert torch.equal(unsure.mean(X), expected)
    assert torch.equal(unsure.components(X).expectation(), expected)
    assert unsure.gradient(X)[2].item() == 0 and unsure.gradient(X)[0].item() > 0


def table(seed=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 6))
    y = X @ np.arange(6) + 0.3 * np.sin(3 * X[:, 0]) + 0.5 * rng.standard_normal(60)
    return X, y, rng


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request):
    """A fit to a noisy table with empty corners, and points in and beside the box."""
    X, y, rng = table()
    model = clone(ESTIMATORS[request.param]).fit(X, np.c_[y, -2 * y])
    assert model._restraint["companion"] is not None
    return model, rng.standard_normal((40, 6)) * 1.5


def test_all_kinds_of_prediction_have_one_mean(fitted):
    model, points = fitted
    mean = model.predict(points)
    np.testing.assert_allclose(model.predict(points, return_std=True)[0], mean, rtol=1e-9)
    draws = model.sample_y(points, 4000)
    spread = model.predict(points, return_std=True)[1]
    assert (np.abs(draws.mean(-1) - mean) < 6 * spread / np.sqrt(4000)).all()


def test_gradient_is_the_derivative_of_the_mean(fitted):
    model, points = fitted
    step, gradient = 1e-5, model.predict_gradient(points)
    for feature in range(6):
        h = step * np.eye(6)[feature]
        slope = (model.predict(points + h) - model.predict(points - h)) / (2 * step)
        error = np.abs(slope - gradient[..., feature])
        # At a kink of the nearest point of the box, or a cut, both sides differ.
        assert np.median(error) < 1e-6 * np.abs(slope).max()


def test_terms_of_the_additive_model_still_add_up():
    X, y, rng = table()
    model = AdditivePOURegressor(max_order=1).fit(X, y)
    assert model._restraint["companion"] is not None and model.terms_[-1] == tuple(range(6))
    points = 2 * rng.standard_normal((50, 6))
    total = model.intercept_ + model.predict_terms(points).sum(1)
    np.testing.assert_allclose(total, model.predict(points), rtol=1e-9)
    np.testing.assert_allclose(model.predict_terms(X).mean(0), 0, atol=1e-9)
    alone = AdditivePOURegressor(max_order=1, remainder=False).fit(X, y)
    assert alone._restraint["companion"] is None


def test_a_damaged_restraint_is_refused(fitted):
    model, _ = fitted
    state = model.__getstate__()
    state["_restraint"] = {**state["_restraint"], "low": np.array([np.nan, 0.0])}
    with pytest.raises(ValueError, match=r"_restraint.*low.*is not finite"):
        type(model)().__setstate__(state)
