"""Covariances, draws and densities of all points together, of a mixture of members."""

import copy

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from skpou import AutoRegressor
from tests.auto.members import Constant
from tests.estimators import kinked

X, Y = kinked(60)
#: Inside the box of the rows, with two neighbours, and outside.
POINTS = np.array([[0.1, 0.2], [0.12, 0.2], [-0.7, 0.6], [0.5, -0.5], [1.3, 0.4]])


class Told(Constant):
    """Errors that all points have in common; several outputs alike."""

    def predict(self, X, return_std=False, return_cov=False):
        found = super().predict(X, return_std)
        cov = np.full((len(X), len(X), *self.shape_), self.std**2)
        return (found, cov) if return_cov else found


def mixture(*members, weights, doubter=None, doubt=0.0, shares=(1.0, 0.0, 0.0, 0.0, 0.0), y=Y):
    """A stack of members that are fitted to the same rows, with given weights."""
    model = AutoRegressor([Told(0.0, 1.0)]).fit(X, y)
    model.estimators_ = [copy.deepcopy(member).fit(X, y) for member in members]
    model.weights_ = np.array(weights)
    model.widened_ = np.tile(shares, (len(members), 1))
    model.doubter_ = None if doubter is None else doubter.fit(X, y)
    model.doubt_ = doubt
    return model


@pytest.fixture(scope="module", params=["process and grid", "pieces and splines"])
def stack(request):
    if request.param == "process and grid":
        kernel = RBF(0.7) + WhiteKernel(0.0025)
        process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
        return AutoRegressor([process, "SparseGridRegressor"]).fit(X, Y)
    return AutoRegressor(["HierarchicalPOURegressor", "AdditivePOURegressor"]).fit(X, Y)


def test_the_diagonal_is_the_square_of_the_standard_deviation(stack):
    assert stack.doubt_ > 0
    mean, std = stack.predict(POINTS, return_std=True)
    same, cov = stack.predict(POINTS, return_cov=True)
    np.testing.assert_array_equal(same, mean)
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-12)
    correlation = cov / np.outer(std, std)
    assert np.linalg.eigvalsh(correlation).min() > -1e-12
    assert correlation[0, 1] > max(correlation[0, 2:].max(), 0.1)


def test_noise_is_that_of_each_point():
    model = AutoRegressor(["HierarchicalPOURegressor", "AdditivePOURegressor"]).fit(X, Y)
    unsure, std = (
        model.predict(POINTS, return_cov="epistemic")[1],
        model.predict(POINTS, return_std="epistemic")[1],
    )
    np.testing.assert_allclose(np.sqrt(np.diag(unsure)), std, rtol=1e-12)
    noise = model.predict(POINTS, return_cov=True)[1] - unsure
    assert np.abs(noise - np.diag(np.diag(noise))).max() < 1e-12
    assert np.linalg.eigvalsh(unsure).min() > -1e-12 * np.trace(unsure)


def test_disagreement_is_shared_by_all_points():
    """Two members that each know all, at distance 2, with weights 1/4 and 3/4."""
    model = mixture(Told(0.0, 1e-6), Told(2.0, 1e-6), weights=[0.25, 0.75])
    mean, cov = model.predict(POINTS, return_cov=True)
    np.testing.assert_allclose(mean, 1.5)
    np.testing.assert_allclose(cov, 0.25 * 1.5**2 + 0.75 * 0.5**2, rtol=1e-9)
    draws = model.sample_y(POINTS, 4000, joint=True)
    assert np.ptp(draws, axis=0).max() < 1e-4  # one member a draw
    assert abs(np.mean(draws[0] > 1) - 0.75) < 0.03
    alone = model.sample_y(POINTS, 4000)
    assert np.ptp(alone, axis=0).max() > 1


def test_joint_density_is_that_of_the_mixture():
    kernel = RBF(0.7) + WhiteKernel(0.0025)
    members = [GaussianProcessRegressor(k * kernel, optimizer=None) for k in (1.0, 9.0)]
    model = mixture(*members, weights=[0.25, 0.75])
    y = model.predict(POINTS) + 0.1
    parts = [
        multivariate_normal(*member.predict(POINTS, return_cov=True)).logpdf(y)
        for member in model.estimators_
    ]
    expected = np.logaddexp(np.log(0.25) + parts[0], np.log(0.75) + parts[1])
    np.testing.assert_allclose(model.log_density(POINTS, y, joint=True), expected, rtol=1e-9)


def test_what_is_widened_or_doubted_counts():
    shares = (0.5, 0.5, 0.0, 0.0, 0.0)
    model = mixture(Told(0.0, 1.0), weights=[1.0], shares=shares)
    wide = np.array([1.0, model.factors_[1] ** 2]).mean()
    np.testing.assert_allclose(model.predict(POINTS, return_cov=True)[1], wide)
    model = mixture(Told(0.0, 1.0), weights=[1.0], doubter=Told(10.0, 1.0), doubt=0.1)
    np.testing.assert_allclose(model.predict(POINTS, return_cov=True)[1], 0.9 + 0.1 * 101)
    draws = model.sample_y(POINTS, 4000, joint=True)
    np.testing.assert_allclose(np.cov(draws), 0.9 + 0.1 * 101, rtol=0.1)


def test_a_doubter_without_covariances():
    """Its bars count at each point for itself, its distance from the stack at all together."""
    model = mixture(Told(0.0, 1.0), weights=[1.0], doubter=Constant(10.0, 2.0), doubt=0.1)
    expected = 0.9 + 0.1 * (100 + 4 * np.eye(5))
    np.testing.assert_allclose(model.predict(POINTS, return_cov=True)[1], expected)
    assert model.sample_y(POINTS, 2, joint=True).shape == (5, 2)


def test_outputs_have_their_own_covariances():
    y = np.column_stack([Y, -1e3 * Y])
    model = AutoRegressor(["SparseGridRegressor", "HierarchicalPOURegressor"]).fit(X, y)
    std = model.predict(POINTS, return_std=True)[1]
    cov = model.predict(POINTS, return_cov=True)[1]
    assert cov.shape == (5, 5, 2)
    np.testing.assert_allclose(np.sqrt(np.einsum("iik->ik", cov)), std, rtol=1e-12)
    draws = model.sample_y(POINTS, 3000, joint=True)
    assert draws.shape == (5, 2, 3000)
    unit = np.outer(std[:, 1], std[:, 1])
    np.testing.assert_allclose(np.cov(draws[:, 1]) / unit, cov[..., 1] / unit, atol=0.15)


def test_members_without_covariances_are_named():
    model = mixture(Told(0.0, 1.0), Constant(0.0, 1.0), weights=[0.5, 0.5])
    message = r"needs members with predict\(X, return_cov=True\), which Constant has not"
    with pytest.raises(ValueError, match="return_cov=True " + message):
        model.predict(POINTS, return_cov=True)
    with pytest.raises(ValueError, match="joint=True " + message):
        model.sample_y(POINTS, joint=True)
    with pytest.raises(ValueError, match="joint=True " + message):
        model.log_density(POINTS, np.zeros(5), joint=True)
