"""Errors between the samples that the estimator must reach: kinks, smooth parts, noise, a diode."""

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor
from skpou.datasets import make_curved_ridge, make_piecewise_quadratic
from tests.examples import slow


def relative_rms(model, function, d, seed=99, n=20_000):
    """Root mean square error on fresh points over that of the target."""
    X = np.random.default_rng(seed).random((n, d))
    y = function(X)
    return np.sqrt(np.mean((model.predict(X) - y) ** 2) / np.mean(y**2))


def ridge(kind):
    return lambda X: make_curved_ridge(X=X, kind=kind)[1]


def hinge(X):
    """A kink on a parabola between two functions that are no polynomials."""
    return np.maximum(X[:, 0] ** 2 + X[:, 1] - 1, 0) * np.cos(X[:, 0]) + X[:, 1] ** 2


def sample(function, n, d, seed):
    X = np.random.default_rng(seed).random((n, d))
    return X, function(X)


@pytest.mark.parametrize("seed", range(3))
def test_thin_curved_pieces_from_few_samples(seed):
    model = HierarchicalPOURegressor(8, 4).fit(*sample(ridge("kinked"), 600, 2, seed))
    assert len(model.coef_) == 5
    assert relative_rms(model, ridge("kinked"), 2) <= 1e-13


def test_sixteen_pieces_in_one_dimension():
    X, y = make_piecewise_quadratic(1000, n_pieces=16, random_state=3)
    model = HierarchicalPOURegressor(32, 2).fit(X, y)
    assert len(model.coef_) == 16
    assert relative_rms(model, lambda X: make_piecewise_quadratic(X=X, n_pieces=16)[1], 1) <= 1e-12


@pytest.mark.parametrize("share", [1e-2, *slow(1e-3)])
def test_noise_does_not_hide_the_pieces(share):
    X, clean = sample(ridge("kinked"), 2500, 2, 5)
    noise = share * np.ptp(clean)
    y = clean + noise * np.random.default_rng(5).standard_normal(len(X))
    model = HierarchicalPOURegressor(8, 4).fit(X, y)
    assert len(model.coef_) == 5
    # Five quartics of fifteen coefficients each: their error with the true pieces known.
    oracle = noise * np.sqrt(75 / 2500) / np.sqrt(np.mean(clean**2))
    assert relative_rms(model, ridge("kinked"), 2) <= 1.5 * oracle
    np.testing.assert_allclose(model.noise_, noise, rtol=0.2)


@pytest.mark.parametrize(
    ("degree", "bound"),
    slow((1, 1e-4), (2, 1e-6)),
    ids=["linear", "quadratic pieces"],
)
def test_smooth_target_by_eight_soft_pieces(degree, bound):
    model = HierarchicalPOURegressor(8, degree).fit(*sample(ridge("smooth"), 2500, 2, 1))
    assert relative_rms(model, ridge("smooth"), 2) <= bound


@pytest.mark.slow
@pytest.mark.parametrize("n_partitions", [8, *slow(((2, 4),))])
def test_kink_between_smooth_parts(n_partitions):
    model = HierarchicalPOURegressor(n_partitions, 4).fit(*sample(hinge, 2500, 2, 2))
    assert len(model.tree_[0]) == 2
    assert relative_rms(model, hinge, 2) <= 1e-8
    kinked = np.array([[0.5, 0.75 - 1e-6], [0.5, 0.75 + 1e-6]])
    assert len(set(model.predict_partition(kinked, level=0).tolist())) == 2


@pytest.mark.parametrize("n_partitions", [8, *slow(((4, 2),))])
def test_diode_over_thirteen_decades(shared_data, n_partitions):
    table = np.loadtxt(shared_data / "devices" / "diode.csv.gz", delimiter=",", skiprows=1)
    y = np.log10(table[:, 1])
    y = (y - y.min()) / np.ptp(y)
    held_out = np.arange(len(y)) % 2 == 1
    model = HierarchicalPOURegressor(n_partitions, 4).fit(table[~held_out, :1], y[~held_out])
    error = model.predict(table[held_out, :1]) - y[held_out]
    assert np.sqrt(np.mean(error**2)) <= 1e-8


@pytest.mark.parametrize(("d", "gate"), [(2, "quadratic"), (30, "linear")])
def test_gates_are_as_simple_as_the_rows_ask(d, gate):
    X, y = sample(lambda X: np.abs(X[:, 0] - 0.5) + X[:, 1], 300, d, 0)
    model = HierarchicalPOURegressor(4, 1).fit(X, y)
    assert model.gate_ == gate
    assert np.isfinite(model.predict(X)).all()
