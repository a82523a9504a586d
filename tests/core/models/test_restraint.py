"""Means that give way where they know little, and their densities and gradients."""

from dataclasses import replace

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
from skpou.core.models import Components, Restrained, fit_companion
from tests.examples import rows_of, slow, tensor

ESTIMATORS = {
    "AdditivePOURegressor": AdditivePOURegressor(max_order=1),
    "HierarchicalPOURegressor": HierarchicalPOURegressor(degree=2, n_partitions=1),
    "LSGDRegressor": LSGDRegressor((3,)),
    "LSGDRegressor, mixture": LSGDRegressor((3,), density="mixture"),
    "SparseGridRegressor": SparseGridRegressor(),
}
RESTRAINED = [name for name in ESTIMATORS if name != "AdditivePOURegressor"]
RESTRAINED += slow("AdditivePOURegressor")


class Runaway:
    """A mean that explodes at one side of the box, with a variance that says so or not."""

    def __init__(self, variance, growth=0.0, noise=0.0):
        self.variance, self.growth, self.noise = variance, growth, noise

    def mean(self, X):
        return torch.exp(20 * X[:, :1]) / 100

    def gradient(self, X):
        gradient = X.new_zeros((*X.shape, 1))
        gradient[:, 0] = 20 * self.mean(X)
        return gradient

    def components(self, X, posterior=True):
        mean = self.mean(X)[:, None]
        variance = (self.variance * torch.exp(self.growth * X[:, :1]))[:, None]
        return Components(mean[..., 0] * 0, mean, self.noise * torch.ones_like(mean), variance)

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


class BentOutside(Runaway):
    """A line in the box, which a cubic term drives away outside."""

    def mean(self, X):
        return X[:, :1] + 1e3 * (X[:, :1] - 1).clamp_min(0) ** 3

    def gradient(self, X):
        return (1 + 3e3 * (X - 1).clamp_min(0) ** 2)[..., None]


def test_a_mean_that_runs_away_outside_comes_back_to_its_tangent_without_a_jump():
    bounds = tensor([0.0]), tensor([1.0])
    unsure, sure = (Restrained(BentOutside(v), None, *bounds) for v in (1e6, 1e-2))
    X = torch.linspace(0.9, 1.6, 1401, dtype=torch.float64)[:, None]
    mean, own = unsure.mean(X), unsure.model.mean(X)
    assert torch.equal(sure.mean(X), own)
    assert torch.equal(mean[own <= 2], own[own <= 2]) and mean.max() < 2.001
    far = X[:, 0] > 1.4
    assert (mean[far] - X[far]).abs().max() < 1e-3
    assert mean.diff(dim=0).abs().max() < 2 * own[own <= 2].diff().abs().max()
    slopes = unsure.gradient(X)[:, 0]
    torch.testing.assert_close(slopes[far][:-1], mean[far].diff(dim=0) / 5e-4, rtol=1e-2, atol=0)


def of_a_table(x):
    """Points of four columns, of which the first is given."""
    return tensor(np.c_[x, np.full((len(x), 3), 0.5)])


def test_a_mean_is_unsure_by_three_ranges_of_y_and_as_many_each_width_outside():
    X = tensor([[0.5], [1.0], [1.5], [-1.0]])
    model = Restrained(Runaway(4.0, growth=20.0), None, tensor([1.0]), tensor([3.0]))
    own = 4 * torch.exp(20 * X)
    most = tensor([[6.0], [6.0], [9.0], [12.0]]).square()
    torch.testing.assert_close(model.components(X).variances()[1], torch.minimum(own, most))
    lost = Restrained(Runaway(torch.nan), None, tensor([1.0]), tensor([3.0]))
    torch.testing.assert_close(lost.components(X).variances()[1], most)


def test_in_a_table_a_mean_outside_the_range_comes_back_where_its_std_exceeds_it():
    X = of_a_table([0.1, 0.2, 0.28, 1.0])  # Two of them inside; .28 is 0.7 above the range.
    bounds = tensor([0.0]), tensor([2.0])
    unsure, sure = (Restrained(Runaway(v), None, *bounds) for v in (16.0, 1e-2))
    assert torch.equal(sure.mean(X), sure.model.mean(X))
    excess = (unsure.model.mean(X) - 2).clamp(0, 2)
    expected = torch.where(excess > 0, 2 + 2**2 / 16 * excess, unsure.model.mean(X))
    torch.testing.assert_close(unsure.mean(X), expected, rtol=1e-14, atol=0)
    assert torch.equal(unsure.components(X).expectation(), unsure.mean(X))


def test_in_a_table_a_mean_comes_back_without_a_jump():
    # It leaves the range at 0.5; at 0.52 its std is as wide as this range.
    width = 220.3
    model = Restrained(
        Runaway(width**2 * np.exp(-8 * 0.52), growth=8.0), None, tensor([0.0]), tensor([width])
    )
    at = of_a_table(np.linspace(0.45, 0.55, 2001))
    mean, own = model.mean(at), model.model.mean(at)
    assert not torch.equal(mean, own) and torch.equal(mean[:1400], own[:1400])
    assert mean.diff(dim=0).abs().max() <= own.diff(dim=0).abs().max()


@pytest.mark.parametrize(("noise", "goes_on"), [(0.0, True), (1e-3, True), (0.3, False)])
def test_beyond_the_range_a_nearly_exact_line_goes_on_and_a_noisy_one_does_not(noise, goes_on):
    rng = np.random.default_rng(5)
    X = rng.random((40, 4))
    rows = rows_of(X, X @ [1.0, 1.0, 0.0, 0.0] + noise * rng.standard_normal(40))
    model = Runaway(1e12)
    line = fit_companion(model, rows, None)
    # As trusted as left-out rows would have it.
    line = replace(line, doubt=torch.ones_like(line.doubt))
    restrained = Restrained(model, line, rows.y.amin(0), rows.y.amax(0))
    far = tensor([[1.5, 1.5, 0.5, 0.5], [-4.0, 0.5, 0.5, 0.5]])
    reached = ((restrained.mean(far) - line.mean(far)).abs() < 1e-2 * line.mean(far).abs()).all()
    assert bool(reached) is goes_on
    torch.testing.assert_close(restrained.components(far).expectation(), restrained.mean(far))


def test_in_a_table_noise_hides_what_drives_a_mean_many_ranges_away():
    X, bounds = of_a_table([0.28, 1.0]), (tensor([0.0]), tensor([2.0]))
    exact, noisy = (Restrained(Runaway(1e-2, noise=n), None, *bounds) for n in (0.0, 0.5))
    assert torch.equal(exact.mean(X), exact.model.mean(X))
    held = noisy.mean(X)
    assert held[0] == noisy.model.mean(X)[0] and 2 <= held[1] < 2.01


class Unsure:
    """Two components on both sides of a mean that is hardly known, with noise."""

    def mean(self, X):
        return X.sum(1, keepdim=True)

    def components(self, X, posterior=True):
        mean = self.mean(X)[:, None] + tensor([[-0.5], [0.5]])
        return Components(
            mean.new_full((len(X), 2), 0.5).log(), mean, 0 * mean + 0.1, 0 * mean + 4.0
        )


def test_where_the_mean_is_an_exact_line_there_is_no_noise():
    rng = np.random.default_rng(2)
    X, model = tensor(rng.random((30, 4))), Unsure()
    y = 3 * X[:, 1].numpy()
    line = fit_companion(model, rows_of(X.numpy(), y), None)
    parts = Restrained(model, line, tensor([0.0]), tensor([3.0])).components(X)
    noise, epistemic = (part.sqrt() for part in parts.variances())
    np.testing.assert_allclose(parts.expectation()[:, 0], y, atol=1e-12)
    # No standard deviation is below round-off, which a density would not survive.
    assert (noise < 1e-12).all() and (epistemic > 1e-13).all()
    assert (parts.log_density(tensor(y[:, None])) > 20).all()


@pytest.mark.parametrize("points", [lambda x: tensor(x[:, None]), of_a_table])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_gradient_outside_of_the_range_is_that_of_the_mean(points, noise):
    model = Restrained(Runaway(9.0, growth=3.0, noise=noise), None, tensor([0.0]), tensor([2.0]))
    X = points(np.r_[np.linspace(0.05, 0.26, 9), 0.28, 0.31, 0.4, 0.7, 1.0, 1.2])
    step = torch.zeros_like(X)
    step[:, 0] = 1e-6
    slope = (model.mean(X + step) - model.mean(X - step)) / 2e-6
    gradient = model.gradient(X)
    torch.testing.assert_close(gradient[:, 0], slope, rtol=1e-5, atol=1e-7)
    assert not gradient[:, 1:].any()


def table(seed=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 6))
    y = X @ np.arange(6) + 0.3 * np.sin(3 * X[:, 0]) + 0.5 * rng.standard_normal(60)
    return X, y, rng


@pytest.fixture(scope="module", params=RESTRAINED)
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


@pytest.mark.slow
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
