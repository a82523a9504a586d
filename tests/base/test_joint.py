"""Covariances between points, and draws of whole functions."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor

from tests.estimators import (
    CONFIGURATIONS,
    ONE_OF_EACH,
    QUERY,
    QUICK,
    each_quick_class,
    fitted,
    make,
    same_bits,
    slow_beyond,
    stepped,
)

X, Y = stepped()
#: Points inside the box of the data and on both sides outside of it.
POINTS = np.vstack([QUERY, [[1.5, 0.0], [1.7, 0.1], [-1.6, 0.2]]])
JOINT = list(CONFIGURATIONS)
each_joint_class = slow_beyond(QUICK, [name for name in JOINT if name in ONE_OF_EACH])


def covariance(model, points, kind=True):
    return model.predict(points, return_cov=kind)[1].astype(float)


@slow_beyond(ONE_OF_EACH, JOINT)
def test_covariance_agrees_with_the_standard_deviation(name):
    model = fitted(name)
    tolerance = 1e-12 if model.dtype == "float64" else 1e-5
    for kind in (True, "epistemic"):
        mean, std = model.predict(POINTS, return_std=kind)
        same, cov = model.predict(POINTS, return_cov=kind)
        assert same_bits(same, mean)
        assert cov.dtype == std.dtype
        np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=tolerance)
        correlation = cov.astype(float) / np.outer(std, std)
        np.testing.assert_allclose(correlation, correlation.T, atol=tolerance)
        assert np.linalg.eigvalsh(correlation).min() > -1e-6
    noise = covariance(model, POINTS) - covariance(model, POINTS, "epistemic")
    assert np.abs(noise - np.diag(np.diag(noise))).max() < tolerance


@each_joint_class
def test_neighbours_err_together_and_far_points_hardly(name):
    model = fitted(name)
    points = np.array([[0.6, 0.1], [0.6001, 0.1], [-0.8, -0.7]])
    std = model.predict(points, return_std="epistemic")[1]
    correlation = covariance(model, points, "epistemic") / np.outer(std, std)
    assert correlation[0, 1] > 0.95
    assert abs(correlation[0, 2]) < 0.75


@each_quick_class
@pytest.mark.parametrize("shape", [(), (1,), (2,)], ids=str)
def test_covariance_is_shaped_as_that_of_a_gaussian_process(name, shape):
    targets = np.stack([Y] * shape[0], axis=1) if shape else Y
    model = make(name).fit(X, targets) if shape else fitted(name)
    several = shape == (2,)
    process = GaussianProcessRegressor(optimizer=None).fit(X, targets if several else Y)
    wanted = list(process.predict(QUERY, return_cov=True)[1].shape)
    cov = model.predict(QUERY, return_cov=True)[1]
    assert list(cov.shape) == wanted + ([1] if shape == (1,) else [])
    if several:
        std = model.predict(QUERY, return_std=True)[1]
        np.testing.assert_allclose(np.sqrt(np.einsum("iik->ik", cov)), std, rtol=1e-9)


@each_joint_class
def test_joint_draws_have_the_covariance(name):
    model = fitted(name)
    n_samples = 4000
    draws = model.sample_y(POINTS, n_samples, random_state=3, joint=True).astype(float)
    mean, std = model.predict(POINTS, return_std=True)
    assert (np.abs(draws.mean(1) - mean) < 5 * std / np.sqrt(n_samples)).all()
    expected = covariance(model, POINTS) / np.outer(std, std)
    np.testing.assert_allclose(np.cov(draws) / np.outer(std, std), expected, atol=0.1)
    assert same_bits(draws, model.sample_y(POINTS, n_samples, 3, joint=True).astype(float))


@each_quick_class
def test_joint_draws_of_two_outputs(name):
    model = make(name).fit(X, np.column_stack([Y, -2 * Y]))
    draws = model.sample_y(POINTS, 2000, joint=True)
    assert draws.shape == (len(POINTS), 2, 2000)
    for output in range(2):
        std = model.predict(POINTS, return_std=True)[1][:, output]
        expected = covariance(model, POINTS)[..., output] / np.outer(std, std)
        got = np.cov(draws[:, output]) / np.outer(std, std)
        np.testing.assert_allclose(got, expected, atol=0.15)
    np.testing.assert_allclose(np.corrcoef(draws[0])[0, 1], 0, atol=0.1)


@slow_beyond(QUICK, [name for name in JOINT if name in ONE_OF_EACH and name != "front door"])
def test_joint_density_is_that_of_the_covariance(name):
    model, points, y = fitted(name), POINTS[:4], Y[:4]
    mean, cov = model.predict(points, return_cov=True)
    found = model.log_density(points, y, joint=True)
    gaussian = multivariate_normal(mean.astype(float), cov.astype(float))
    tolerance = 1e-9 if model.dtype == "float64" else 1e-3
    np.testing.assert_allclose(found, gaussian.logpdf(y), rtol=tolerance)
    assert found.shape == ()


def test_a_joint_density_is_per_unit_of_y():
    model = make("grid").fit(X, 1e3 * Y)
    expected = fitted("grid").log_density(POINTS, POINTS[:, 0], joint=True)
    found = model.log_density(POINTS, 1e3 * POINTS[:, 0], joint=True)
    np.testing.assert_allclose(found, expected - len(POINTS) * np.log(1e3), rtol=1e-9)


@pytest.mark.parametrize("joint", [False, True])
def test_no_seed_draws_anew(joint):
    model = fitted("grid")
    first, second = (model.sample_y(QUERY, random_state=None, joint=joint) for _ in range(2))
    assert not np.array_equal(first, second)
    assert same_bits(*(model.sample_y(QUERY, joint=joint) for _ in range(2)))
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002 (the source of scikit-learn's None)
    third = model.sample_y(QUERY, random_state=None, joint=joint)
    np.random.seed(5)  # noqa: NPY002
    assert same_bits(third, model.sample_y(QUERY, random_state=None, joint=joint))
    np.random.set_state(state)  # noqa: NPY002


def test_a_level_has_a_covariance():
    model = fitted("tree")
    _, std = model.predict(QUERY, return_std=True, level=0)
    _, cov = model.predict(QUERY, level=0, return_cov=True)
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), std, rtol=1e-9)


def test_tensors_stay_tensors():
    mean, cov = fitted("grid").predict(torch.as_tensor(QUERY), return_cov=True)
    assert isinstance(mean, torch.Tensor)
    assert isinstance(cov, torch.Tensor)


@pytest.mark.parametrize("return_cov", ["noise", 1, None, "yes"])
def test_bad_return_cov(return_cov):
    with pytest.raises(ValueError, match=r"return_cov must be False, True or 'epistemic'\. Got"):
        fitted("grid").predict(QUERY, return_cov=return_cov)


def test_bad_combinations():
    with pytest.raises(ValueError, match="At most one of"):
        fitted("grid").predict(QUERY, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match=r"joint must be False or True\. Got 1"):
        fitted("grid").sample_y(QUERY, joint=1)
    with pytest.raises(ValueError, match=r"joint must be False or True\. Got 1"):
        fitted("grid").log_density(QUERY, QUERY[:, 0], joint=1)


def test_memory_is_refused_before_it_is_taken():
    with pytest.raises(ValueError, match=r"return_cov=True at 600000 points needs about"):
        fitted("grid").predict(np.zeros((600_000, 2)), return_cov=True)
