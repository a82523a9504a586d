"""Gated widths of the noise, left-out errors, and joint densities of independent targets."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.residue_density import (
    Residue,
    ResidueDensity,
    choose_components,
    fit_density,
    is_uneven,
    left_out,
    noise_floor,
    rounding,
)
from skpou.core.rows import Pairs
from tests.examples import tensor


def widening(n=2000, seed=0):
    """Errors whose width grows tenfold along the first of two inputs."""
    rng = np.random.default_rng(seed)
    inputs = rng.random((n, 2))
    width = 10 ** inputs[:, 0]
    error = width * rng.standard_normal(n)
    return Residue(tensor(inputs), tensor(error), tensor(np.zeros(n)), tensor(np.ones(n))), width


def mean_log_density(density, residue):
    return float(density.log_density(residue)[1].mean())


def test_widths_follow_the_points():
    residue, _ = widening()
    judged, width = widening(seed=1)
    count = choose_components(residue, 0.0)
    density = fit_density(residue, count, 0.0)
    best = norm.logpdf(judged.error.numpy(), scale=width).mean()
    single = fit_density(residue, 1, 0.0)
    assert mean_log_density(density, judged) > best - 0.05
    assert mean_log_density(single, judged) < best - 0.2
    assert density.n_components > 1


def test_equal_widths_need_one_component():
    rng = np.random.default_rng(3)
    error = tensor(0.2 * rng.standard_normal(500))
    residue = Residue(tensor(rng.random((500, 3))), error, 0 * error, 0 * error + 1)
    density = fit_density(residue, choose_components(residue, 0.0), 0.0)
    assert mean_log_density(density, residue) == pytest.approx(
        norm.logpdf(error.numpy(), scale=0.2).mean(), abs=0.02
    )
    single = fit_density(residue, 1, 0.0)
    assert float(single.variance) == pytest.approx(float(error.square().mean()))


def test_noise_of_one_width_is_rarely_cut():
    rng = np.random.default_rng(0)
    for n in (60, 200):
        ones, zeros = np.ones(n), np.zeros(n)
        for _ in range(5):
            parts = (rng.random((n, 4)), rng.standard_normal(n), zeros, ones)
            assert choose_components(Residue(*map(tensor, parts)), 0.0) == 1


def test_steps_raise_the_likelihood_and_weights_are_repetitions():
    residue, _ = widening(300)
    values = [mean_log_density(fit_density(residue, 3, 0.0, n), residue) for n in (5, 10, 20, 40)]
    assert np.diff(values).min() > -1e-3  # the prior of the widths takes its share
    weight = tensor(np.random.default_rng(0).integers(1, 4, 300))
    weighted = Residue(residue.inputs, residue.error, residue.spread, weight)
    repeated = weighted.subset(torch.arange(300).repeat_interleave(weight.long()))
    repeated = Residue(*vars(repeated).values())
    repeated = Residue(
        repeated.inputs, repeated.error, repeated.spread, torch.ones_like(repeated.weight)
    )
    one, two = fit_density(weighted, 2, 0.0), fit_density(repeated, 2, 0.0)
    np.testing.assert_allclose(one.gates, two.gates, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.variance, two.variance, rtol=1e-8)


def test_the_spread_of_the_mean_is_not_noise():
    rng = np.random.default_rng(5)
    spread = rng.uniform(0, 4, 1000)
    error = 0.5 * np.sqrt(1 + spread) * rng.standard_normal(1000)
    residue = Residue(tensor(rng.random((1000, 1))), *map(tensor, (error, spread, np.ones(1000))))
    assert residue.variance() ** 0.5 == pytest.approx(0.5, rel=0.06)
    assert float(fit_density(residue, 1, 0.0).variance) ** 0.5 == pytest.approx(0.5, rel=0.06)


def test_rounded_targets_bound_the_width_unless_the_fit_is_exact():
    y = tensor(np.random.default_rng(0).integers(3, 9, 400))
    assert rounding(y) == 0.5
    error = torch.where(torch.arange(400) < 300, 1e-6, 1.0).double()
    residue = Residue(y[:, None], error, 0 * error, 0 * error + 1)
    floor = noise_floor(residue, y)
    assert floor == 0.5
    density = fit_density(residue, 4, floor)
    assert (density.variance >= 0.25).all()
    exact = Residue(y[:, None], 1e-9 * error, 0 * error, 0 * error + 1)
    assert noise_floor(exact, y) == 0.0


def test_left_out_errors_of_a_mean_of_repeated_targets():
    y = tensor([[1.0], [2.0], [4.0]])
    pairs = Pairs(torch.zeros(3, dtype=torch.int64), y, tensor([1.0, 1.0, 2.0]))
    mean = (pairs.weight @ y[:, 0] / 4).reshape(1)
    residue = left_out(pairs, mean, tensor([0.25]), tensor([[0.5]]))
    expected = [1 - 10 / 3, 2 - 9 / 3, 4 - 3 / 2]
    np.testing.assert_allclose(residue.error, expected)
    np.testing.assert_allclose(residue.spread, [1 / 3, 1 / 3, 1 / 2])
    # Of a constant the gates must learn nothing.
    np.testing.assert_allclose(residue.inputs[:, 1], mean.expand(3))


def test_state_survives_as_arrays():
    residue, _ = widening(100)
    density = fit_density(residue, 4, 0.0)
    again = ResidueDensity.from_arrays(density.arrays(), residue.error)
    for one, two in zip(density.log_density(residue), again.log_density(residue), strict=True):
        assert torch.equal(one, two)


def random_components(n_components, seed, n=20):
    rng = np.random.default_rng(seed)
    logits = tensor(rng.standard_normal((n, n_components)))
    parts = (tensor(rng.random((n, n_components, 1)) + 0.1) for _ in range(3))
    return Components(torch.log_softmax(logits, 1), *parts)


def test_independent_targets_are_each_their_own_mixture():
    targets = [random_components(3, 0), random_components(1, 1)]
    joint = IndependentComponents.of_targets(targets)
    y = tensor(np.random.default_rng(2).standard_normal((20, 2)))
    expected = sum(t.log_density(y[:, k : k + 1]) for k, t in enumerate(targets))
    np.testing.assert_allclose(joint.log_density(y), expected)
    for k, target in enumerate(targets):
        np.testing.assert_allclose(joint.expectation()[:, k], target.expectation()[:, 0])
        np.testing.assert_allclose(joint.variances()[0][:, k], target.variances()[0][:, 0])
        levels = tensor([0.1, 0.5, 0.9])
        np.testing.assert_allclose(
            joint.quantiles(levels)[..., k], target.quantiles(levels)[..., 0], rtol=1e-9
        )
    # One posterior for all components: their share of the variance does not fall with pi.
    np.testing.assert_allclose(
        joint.variances()[1][:, 0], (targets[0].log_pi.exp() * targets[0].epistemic[..., 0]).sum(1)
    )
    rng = np.random.default_rng(4)
    draws = joint.sample(
        tensor(rng.random((20, 20000, 2))), tensor(rng.normal(size=(20, 20000, 2)))
    )
    std = sum(joint.variances()).sqrt()
    np.testing.assert_allclose(draws.mean(1), joint.expectation(), atol=0.05)
    np.testing.assert_allclose(draws.std(1), std, rtol=0.03)
    assert np.abs(np.corrcoef(draws[0].T.numpy())[0, 1]) < 0.03


def test_what_is_added_to_the_variance_is_no_noise():
    rng = np.random.default_rng(0)
    added = tensor(rng.uniform(0, 3, 4000))
    error = tensor(rng.standard_normal(4000)) * (0.25 + added).sqrt()
    flat = torch.zeros(4000).double()
    residue = Residue(flat[:, None], error, flat, flat + 1, added)
    assert residue.variance() == pytest.approx(0.25, rel=0.15)
    density = ResidueDensity.single(0.25, error)
    expected = -0.5 * (error.square() / (0.25 + added) + torch.log(2 * math.pi * (0.25 + added)))
    torch.testing.assert_close(density.log_density(residue)[1], expected)
    mixture = fit_density(residue, 4, 0.0)
    assert float(mixture.log_density(residue)[1].mean()) > float(expected.mean()) - 0.01
    half = residue.subset(torch.arange(0, 4000, 2))
    assert torch.equal(half.added, added[::2])


def test_uneven_errors_are_told_from_even_ones():
    rng = np.random.default_rng(7)
    assert is_uneven(widening(200)[0])
    called = 0
    for n in (40, 200, 1000):
        inputs, ones = tensor(rng.random((n, 3))), tensor(np.ones(n))
        for _ in range(50):
            even = Residue(inputs, tensor(rng.standard_normal(n)), 0 * ones, ones)
            called += is_uneven(even)
        wild = Residue(inputs, tensor(rng.standard_t(2, n)), 0 * ones, ones)
        assert is_uneven(wild)
    assert called <= 9  # of 150, a hundredth and as many long tails


def test_rows_with_weights_are_so_many_rows():
    residue = widening(60)[0]
    twice = Residue(
        *(torch.cat([part, part]) for part in (residue.inputs, residue.error, residue.spread)),
        torch.cat([residue.weight, residue.weight]),
    )
    heavy = Residue(residue.inputs, residue.error, residue.spread, 2 * residue.weight)
    assert is_uneven(twice) == is_uneven(heavy)
