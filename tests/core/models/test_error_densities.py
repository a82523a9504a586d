"""Densities of errors against those of scipy."""

import numpy as np
import pytest
from scipy.stats import lognorm, norm

from skpou.core.models.error_densities import gaussian, skewed, two_widths


def errors():
    rng = np.random.default_rng(2)
    return np.concatenate([rng.standard_normal(190), 20 * rng.standard_normal(10)])


def test_one_gaussian_is_the_likeliest_about_zero():
    u, weight = errors(), np.ones(200)
    found = gaussian(u, weight)
    values = [norm.logpdf(u, 0, width).sum() for width in np.geomspace(1, 20, 400)]
    assert found == pytest.approx(max(values), abs=1e-2) and found >= max(values)


def test_two_widths_have_the_density_that_is_claimed():
    u, weight = errors(), np.ones(200)
    share, narrow, wide, _, log_density = two_widths(u, weight)
    density = (1 - share) * norm.pdf(u, 0, narrow) + share * norm.pdf(u, 0, wide)
    # That of the last step but one: it has converged.
    np.testing.assert_allclose(log_density, np.log(density), atol=1e-6)
    assert log_density.sum() > gaussian(u, weight) + 50


@pytest.mark.parametrize("sign", [1, -1])
def test_a_skewed_density_is_that_of_a_lognormal_and_has_two_sides(sign):
    rng = np.random.default_rng(4)
    u, weight = np.exp(0.8 * rng.standard_normal(300)), np.ones(300)
    true = lognorm.logpdf(u, 0.8).sum()
    assert skewed(sign * u, weight) == pytest.approx(true, abs=10)
    assert skewed(sign * u, weight) > gaussian(u - u.mean(), weight) + 30
