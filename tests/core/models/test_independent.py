"""Mixtures of independent targets: put together from any shapes, moments, quantiles, draws."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from tests.examples import tensor

N = 6
LEVELS = tensor([1e-6, 0.1, 0.5, 0.77, 1 - 1e-6])


def one_target(K, seed=0, n=N, shared=False):
    """A mixture of K Gaussians; with `shared` its noise is the same at all points."""
    rng = np.random.default_rng(seed)
    log_pi = torch.log_softmax(tensor(2 * rng.standard_normal((n, K))), 1)
    mean = tensor(3 * rng.standard_normal((n, K, 1)))
    noise = tensor(rng.uniform(0.1, 2, (K, 1) if shared else (n, K, 1)))
    epistemic = tensor(rng.uniform(0.1, 2, (n, K, 1)))
    return Components(log_pi, mean, noise, epistemic)


def three_targets(shared=False, n=N):
    return [one_target(K, K, n, shared) for K in (3, 1, 5)]


def parts_of(target):
    """Weights, means and standard deviations (n, K) in numpy."""
    std = target.variance.sqrt().expand_as(target.mean)
    return target.log_pi.exp().numpy(), target.mean[..., 0].numpy(), std[..., 0].numpy()


def cumulative(target, values):
    """Distribution function (n, q) at values (n, q)."""
    pi, mean, std = parts_of(target)
    below = norm.cdf(values[:, None], mean[..., None], std[..., None])
    return (pi[..., None] * below).sum(1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n", [1, 3, 5, 6])
def test_density_is_the_product(shared, n):
    """Also where there are as many points as components."""
    targets = three_targets(shared, n)
    y = np.random.default_rng(2).standard_normal((n, 3))
    expected = 1.0
    for k, target in enumerate(targets):
        pi, mean, std = parts_of(target)
        expected = expected * (pi * norm.pdf(y[:, k : k + 1], mean, std)).sum(1)
    found = IndependentComponents.of_targets(targets).log_density(tensor(y))
    np.testing.assert_allclose(found, np.log(expected), rtol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_moments(shared):
    targets = three_targets(shared)
    joint = IndependentComponents.of_targets(targets)
    total = sum(joint.variances())
    for k, target in enumerate(targets):
        pi, mean, std = parts_of(target)
        expected = (pi * mean).sum(1)
        np.testing.assert_allclose(joint.expectation()[:, k], expected)
        second = (pi * (mean**2 + std**2)).sum(1)
        np.testing.assert_allclose(total[:, k], second - expected**2, rtol=1e-10)


@pytest.mark.parametrize("shared", [False, True])
def test_quantiles_invert_the_distribution(shared):
    targets = three_targets(shared)
    found = IndependentComponents.of_targets(targets).quantiles(LEVELS).numpy()
    assert found.shape == (N, 5, 3)
    for k, target in enumerate(targets):
        np.testing.assert_allclose(
            cumulative(target, found[..., k]), np.tile(LEVELS, (N, 1)), rtol=1e-9
        )


def test_draws_are_those_of_each_target():
    """Stratified uniform numbers pick components in their proportions; none that is padding."""
    targets, s = three_targets(), 4000
    joint = IndependentComponents.of_targets(targets)
    uniform = ((torch.arange(s).double() + 0.5) / s)[:, None].expand(N, s, 3)
    draws = joint.sample(uniform, torch.zeros(N, s, 3).double())
    for k, target in enumerate(targets):
        pi, mean, _ = parts_of(target)
        share = (draws[:, None, :, k] == tensor(mean)[..., None]).double().mean(2)
        np.testing.assert_allclose(share, pi, atol=1 / s)
        np.testing.assert_allclose(share.sum(1), 1)
    # Deviations are in units of the component's standard deviation.
    higher = joint.sample(uniform, torch.ones(N, s, 3).double())
    pi, _, std = parts_of(targets[1])
    np.testing.assert_allclose((higher - draws)[:, 0, 1], std[:, 0])


def test_targets_use_their_own_random_numbers():
    target = one_target(3)
    joint = IndependentComponents.of_targets([target, target])
    rng = np.random.default_rng(0)
    uniform, normal = tensor(rng.random((N, 50, 2))), tensor(rng.standard_normal((N, 50, 2)))
    draws = joint.sample(uniform, normal)
    for k in range(2):
        expected = target.sample(uniform[..., k], normal[..., k : k + 1])
        assert torch.equal(draws[..., k : k + 1], expected)
    assert not torch.equal(draws[..., 0], draws[..., 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_target_is_its_mixture(dtype):
    target = Components(*(part.to(dtype) for part in vars(one_target(4)).values()))
    joint = IndependentComponents.of_targets([target])
    y = torch.linspace(-2, 2, N, dtype=dtype)[:, None]
    torch.testing.assert_close(joint.log_density(y), target.log_density(y))
    torch.testing.assert_close(joint.expectation(), target.expectation())
    torch.testing.assert_close(
        joint.quantiles(LEVELS.to(dtype)), target.quantiles(LEVELS.to(dtype))
    )
    assert joint.log_density(y).dtype == dtype
    assert joint.noise.dtype == dtype


def test_components_without_weight_do_not_count():
    target = one_target(3)
    log_pi = torch.log(tensor([[0.25, 0.0, 0.75]])).expand(N, 3)
    target.log_pi = log_pi
    target.mean[:, 1] = 1e6
    joint = IndependentComponents.of_targets([target, one_target(1)])
    assert float(joint.quantiles(LEVELS)[..., 0].max()) < 100
    assert torch.isfinite(joint.log_density(torch.zeros(N, 2).double())).all()
    assert float(joint.expectation()[:, 0].abs().max()) < 100
