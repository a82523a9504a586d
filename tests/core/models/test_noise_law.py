"""Laws of the noise: functions of points and mean, jumps, and what is no law."""

import numpy as np
import pytest
import torch

from skpou.core.models.noise_law import Errors, NoiseLaw, fit_noise_law
from tests.examples import tensor


def errors_of(mean, width, n=300, d=1, seed=0):
    """Errors of a width that is a function of points (n, d) and mean (n,), and the truth."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    m = mean(X)
    error = width(X, m) * rng.standard_normal(n)
    base = np.full(n, np.mean(error**2))
    parts = (X, m, error**2, base, 0 * base, 0 * base + 1)
    return Errors(*map(tensor, parts))


def ratio_of(law, errors, mean, width, d=1):
    """Standard deviation by the law over the true one, at fresh points."""
    X = np.random.default_rng(9).random((1000, d))
    factor = law.log_factor(tensor(X), tensor(mean(X))).exp() * errors.base[0]
    return np.sqrt(factor.numpy()) / width(X, mean(X))


def share_near(ratio):
    return np.mean((ratio > 0.6) & (ratio < 1.7))


def growing(X):
    return 10 ** (2 * X.mean(1))


CASES = {
    "in proportion to the mean": (growing, lambda X, m: 0.02 * m, 2),
    "its root": (growing, lambda X, m: np.sqrt(m), 1),
    "one column": (lambda X: np.sin(5 * X[:, 0]), lambda X, m: 10 ** X[:, 1], 3),
    "falling": (lambda X: np.sin(5 * X[:, 0]), lambda X, m: 5 / (1 + 20 * X[:, 0]), 1),
    "a jump": (lambda X: np.sin(5 * X[:, 0]), lambda X, m: np.where(X[:, 0] < 0.5, 0.02, 1.0), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_noise_that_varies_follows_its_law(name):
    mean, width, d = CASES[name]
    errors = errors_of(mean, width, d=d)
    law = fit_noise_law(errors)
    assert share_near(ratio_of(law, errors, mean, width, d)) > 0.95
    again = NoiseLaw.from_arrays(law.arrays(), errors.base)
    factor = law.log_factor(errors.points, errors.mean)
    assert torch.equal(again.log_factor(errors.points, errors.mean), factor)
    assert float(factor.exp().mean()) == pytest.approx(law.usual)


def test_even_noise_and_long_tails_have_none():
    for seed in range(3):
        errors = errors_of(growing, lambda X, m: 1 + 0 * m, n=100, seed=seed)
        assert fit_noise_law(errors) is None
    rng = np.random.default_rng(0)
    square = tensor(rng.standard_t(3, 300) ** 2)
    X, one = rng.random((300, 2)), torch.ones(300, dtype=torch.float64)
    assert fit_noise_law(Errors(tensor(X), tensor(X.sum(1)), square, one, 0 * one, one)) is None


def test_rows_without_noise_are_a_matter_of_the_form():
    def half(X, m):
        return np.where(X[:, 0] < 0.5, 1e-6, 1.0)

    assert fit_noise_law(errors_of(growing, half)) is None


def test_what_the_law_does_not_multiply_is_no_noise():
    rng = np.random.default_rng(2)
    X = rng.random((2000, 1))
    width, added = 10 ** (2 * X[:, 0] - 1), np.full(2000, 0.25)
    square = (width**2 + added) * rng.standard_normal(2000) ** 2
    one = np.ones(2000)
    errors = Errors(*map(tensor, (X, X[:, 0], square, one, added, one)))
    found = fit_noise_law(errors).log_factor(errors.points, errors.mean).exp().sqrt().numpy()
    loud = X[:, 0] > 0.4
    assert share_near(found[loud] / width[loud]) > 0.95


def test_beyond_the_rows_the_noise_goes_on_with_the_mean():
    errors = errors_of(lambda X: 10 ** (2 * X[:, 0] * X[:, 1]), lambda X, m: 0.02 * m, d=2)
    law = fit_noise_law(errors)
    points = tensor([[1.0, 1.0], [1.0, 1.3]])
    at = [law.log_factor(points, tensor([m, m])) for m in (100.0, 150.0)]
    rise = 0.5 * (at[1] - at[0]).numpy()
    np.testing.assert_allclose(rise, np.log(1.5), atol=0.25)
    np.testing.assert_allclose(at[0][0], at[0][1], rtol=1e-14)


@pytest.mark.slow
def test_a_law_knows_how_well_it_is_known():
    mean, width, d = CASES["in proportion to the mean"]
    X = tensor(np.random.default_rng(9).random((500, d)))
    m, n_laws, square, doubt = mean(X.numpy()), 12, 0.0, 0.0
    for seed in range(n_laws):
        errors = errors_of(mean, width, n=100, d=d, seed=seed)
        log_factor, variance = fit_noise_law(errors).at(X, tensor(m))
        error = log_factor + errors.base[0].log() - 2 * tensor(width(X.numpy(), m)).log()
        square, doubt = square + float(error.square().mean()), doubt + float(variance.mean())
    assert 0.4 < square / doubt < 1.6
