"""The mixture of members' densities beside what scipy says of Gaussians."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skpou import HierarchicalPOURegressor, SparseGridRegressor
from skpou.auto.predictive import MemberDensity, Stack, unit_of
from tests.auto.members import Constant, Line
from tests.estimators import kinked, same_bits

X, Y = kinked(60)
POINTS = torch.as_tensor(np.random.default_rng(1).uniform(-1, 1, (7, 2)))
FACTORS = np.array([1.0, 4.0])


def stack_of(members, weights, shares=None, n_outputs=1, kind=True):
    shares = np.array([[1.0, 0.0]] * len(members)) if shares is None else np.array(shares)
    unit = torch.ones(n_outputs, dtype=torch.float64)
    return Stack(members, np.array(weights), shares, FACTORS, np.ones(2), unit, kind)


@pytest.fixture(scope="module")
def gaussians():
    """A mixture of N(x_0, 0.5^2), N(1, 0.2^2) and the latter four times as wide."""
    members = [Line(std=0.5).fit(X, Y), Constant(1.0, 0.2).fit(X, Y)]
    return stack_of(members, [0.25, 0.75], [[1.0, 0.0], [0.8, 0.2]])


def parts(x):
    return [(0.25, norm(x, 0.5)), (0.6, norm(1.0, 0.2)), (0.15, norm(1.0, 0.8))]


def test_moments(gaussians):
    x = POINTS[:, 0].numpy()
    mean = sum(w * part.mean() for w, part in parts(x))
    variance = sum(w * (part.var() + (part.mean() - mean) ** 2) for w, part in parts(x))
    found = gaussians.components(POINTS)
    np.testing.assert_allclose(gaussians.mean(POINTS)[:, 0], mean, rtol=1e-14)
    assert same_bits(gaussians.mean(POINTS).numpy(), found.expectation().numpy())
    np.testing.assert_allclose(sum(found.variances())[:, 0], variance, rtol=1e-13)


def test_density_distribution_and_quantiles(gaussians):
    x, y = POINTS[:, :1].numpy(), np.linspace(-1, 3, 41)
    found = gaussians.components(POINTS)
    pdf = sum(w * part.pdf(y) for w, part in parts(x))
    logs = [found.log_density(torch.full((7, 1), float(v), dtype=torch.float64)) for v in y]
    np.testing.assert_allclose(torch.stack(logs, 1), np.log(pdf), rtol=1e-11)
    thresholds = torch.as_tensor(y).expand(7, -1)[..., None]
    cdf = sum(w * part.cdf(y) for w, part in parts(x))
    np.testing.assert_allclose(found.cumulative(thresholds)[..., 0], cdf, rtol=1e-12)
    levels = torch.tensor([1e-6, 0.05, 0.3, 0.5, 0.999], dtype=torch.float64)
    quantiles = found.quantiles(levels)[..., 0].numpy()
    reached = np.stack([sum(w * p.cdf(q) for w, p in parts(x[:, 0])) for q in quantiles.T], 1)
    np.testing.assert_allclose(reached, levels.expand(7, -1), rtol=1e-9)


def test_draws(gaussians):
    draws = gaussians.components(POINTS).sample(20_000, np.random.default_rng(0))[..., 0].numpy()
    assert draws.shape == (7, 20_000)
    for level in (0.1, 0.5, 0.9):
        at = gaussians.components(POINTS).quantiles(torch.tensor([level]).double())[:, 0, 0]
        np.testing.assert_allclose((draws < at.numpy()[:, None]).mean(1), level, atol=0.01)
    assert np.abs(np.corrcoef(draws) - np.eye(7)).max() < 0.05


def test_doubt(gaussians):
    """A chance of being as far off as another member is: the mean stays, the density has tails."""
    doubter = Constant(2.0, 0.1).fit(X, Y)
    doubted = replace(gaussians, doubter=doubter, doubt=0.02)
    x, found, before = (
        POINTS[:, 0].numpy(),
        doubted.components(POINTS),
        gaussians.components(POINTS),
    )
    center = before.expectation()[:, 0].numpy()
    assert same_bits(found.expectation().numpy(), before.expectation().numpy())
    own = sum(before.variances())[:, 0].numpy()
    wide = np.sqrt(np.maximum((2 - center) ** 2 + 0.01, own))
    np.testing.assert_allclose(sum(found.variances())[:, 0], 0.98 * own + 0.02 * wide**2)
    y = np.full(7, 1.3)
    pdf = 0.98 * sum(w * p.pdf(y) for w, p in parts(x)) + 0.02 * norm(center, wide).pdf(y)
    targets = torch.as_tensor(y)[:, None]
    np.testing.assert_allclose(found.log_density(targets), np.log(pdf), rtol=1e-11)
    cdf = 0.98 * sum(w * p.cdf(y) for w, p in parts(x)) + 0.02 * norm(center, wide).cdf(y)
    np.testing.assert_allclose(found.tails(targets)[0][:, 0], cdf, rtol=1e-11)
    assert found.sample(3, np.random.default_rng(0)).shape == (7, 3, 1)


def test_doubt_tells_noise_from_the_rest():
    members = [SparseGridRegressor(level=level).fit(X, Y) for level in (1, 4)]
    stack = replace(stack_of(members[:1], [1.0]), doubter=members[1], doubt=0.03)
    parts_of = replace(stack, kind="noise").components(POINTS).variances()
    whole = sum(stack.components(POINTS).variances())
    np.testing.assert_allclose(sum(parts_of), whole, rtol=1e-9)
    noise = members[0].predict(POINTS.numpy(), return_std="noise")[1]
    np.testing.assert_allclose(parts_of[0][:, 0], noise**2, rtol=1e-12)


class Steep(Line):
    """Its slopes are given."""

    def __init__(self, mean=0.0, std=1.0, slope=0.0):
        super().__init__(mean, std)
        self.slope = slope

    def predict_gradient(self, X):
        return np.full(X.shape, self.slope)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        *((np.inf, -np.inf, -np.inf), (-np.inf, np.inf, np.inf), (np.inf, np.inf, np.inf)),
        *((-np.inf, 1.0, -np.inf), (np.nan, np.inf, np.nan), (2.0, 4.0, 3.5)),
    ],
)
def test_the_heavier_of_opposite_slopes_beyond_all_numbers_stands(first, second, expected):
    """As along a column whose box is next to nothing."""
    members = [Steep(slope=slope).fit(X, Y) for slope in (first, second)]
    gradient = stack_of(members, [0.25, 0.75]).gradient(POINTS)
    np.testing.assert_array_equal(gradient, np.full(gradient.shape, expected))


def test_gradient_of_members_without_one_is_that_of_differences(gaussians):
    gradient = gaussians.gradient(POINTS)[..., 0].numpy()
    np.testing.assert_allclose(gradient, np.tile([0.25, 0.0], (7, 1)), atol=1e-10)


def test_one_member_gives_its_own_bits():
    member = HierarchicalPOURegressor(2, 1).fit(X, Y)
    stack = stack_of([member], [1.0])
    found = stack.components(POINTS)
    points = POINTS.numpy()
    mean, std = member.predict(points, return_std=True)
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    np.testing.assert_array_equal(found.expectation()[:, 0], mean)
    np.testing.assert_allclose(sum(found.variances()).sqrt()[:, 0], std, rtol=1e-15)
    np.testing.assert_array_equal(found.quantiles(levels)[..., 0], member.predict_quantile(points))
    own = member.log_density(points, mean)
    np.testing.assert_array_equal(found.log_density(torch.as_tensor(mean)[:, None]), own)
    np.testing.assert_array_equal(stack.gradient(POINTS)[..., 0], member.predict_gradient(points))


def test_own_densities_of_several_outputs():
    """Members' joint densities are mixed, and each output's own distribution."""
    targets = np.column_stack([Y, 3 - Y])
    members = [HierarchicalPOURegressor(2, 1).fit(X, targets), Constant(1.0, 0.7).fit(X, targets)]
    found = stack_of(members, [0.5, 0.5], n_outputs=2).components(POINTS)
    y = torch.as_tensor(np.random.default_rng(2).normal(1, 1, (7, 2)))
    own = members[0].log_density(POINTS.numpy(), y.numpy())
    gaussian = norm(1.0, 0.7).logpdf(y).sum(1)
    joint = np.logaddexp(own, gaussian) - np.log(2)
    np.testing.assert_allclose(found.log_density(y), joint, rtol=1e-12)
    levels = torch.tensor([0.1, 0.6], dtype=torch.float64)
    quantiles = found.quantiles(levels)
    assert quantiles.shape == (7, 2, 2)
    cdf = members[0].predict_cdf(POINTS.numpy(), quantiles.mT.numpy())
    reached = 0.5 * cdf + 0.5 * norm(1.0, 0.7).cdf(quantiles.mT)
    np.testing.assert_allclose(reached, levels.expand(7, 2, 2), rtol=1e-9)
    assert found.sample(3, np.random.default_rng(0)).shape == (7, 3, 2)


def test_disagreement_is_not_known():
    members = [SparseGridRegressor(level=level).fit(X, Y) for level in (1, 4)]
    noise, epistemic = stack_of(members, [0.5, 0.5], kind="noise").components(POINTS).variances()
    points = POINTS.numpy()
    (a, s), (b, t) = (member.predict(points, return_std="epistemic") for member in members)
    expected = 0.5 * (s**2 + t**2) + 0.25 * (a - b) ** 2
    np.testing.assert_allclose(epistemic[:, 0], expected, rtol=1e-12)
    whole = stack_of(members, [0.5, 0.5]).components(POINTS).variances()
    np.testing.assert_allclose(noise + epistemic, sum(whole), rtol=1e-9)


def test_floor():
    """Below the floor a density is the Gaussian of the floor's width, whatever the member says."""
    member = Constant(0.0, 1e-12).fit(X, Y)
    density = MemberDensity(member, X[:3], torch.ones(1, dtype=torch.float64))
    y = torch.tensor([[0.0], [1e-3], [1.0]], dtype=torch.float64)
    floor = torch.tensor([1e-3], dtype=torch.float64)
    found = density.floored_log_density(y, (1.0, 1e10), floor)
    np.testing.assert_allclose(found[:, 0], norm(0, 1e-3).logpdf(y[:, 0]))
    np.testing.assert_allclose(found[:, 1], norm(0, 1e-2).logpdf(y[:, 0]))


def test_units_are_powers_of_two():
    spread = np.array([1.0, 3.0, 1e-300, 1e300, 0.7])
    unit = unit_of(spread)
    assert ((unit <= spread) & (spread < 2 * unit)).all()
    assert (np.frexp(unit)[0] == 0.5).all()
