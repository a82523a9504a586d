"""Scores of targets, the intervals that belong to them, and ranks of finite samples."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skpou.core.models import (
    Components,
    IndependentComponents,
    conformal_rank,
    interval_of_score,
    interval_scores,
    least_rows,
)
from skpou.core.models.conformal import REACH


def mixture(n=6, seed=0):
    """Three Gaussians a point for two targets, of widths from 1e-6 to 1."""
    rng = np.random.default_rng(seed)
    parts = (
        np.log(rng.dirichlet(np.ones(3), n)),
        rng.standard_normal((n, 3, 2)),
        10.0 ** rng.uniform(-12, 0, (n, 3, 2)),
        10.0 ** rng.uniform(-12, 0, (n, 3, 2)),
    )
    return Components(*map(torch.as_tensor, parts))


def independent(n=6):
    one, two = (mixture(n, seed) for seed in (1, 2))
    log_pi = torch.stack([one.log_pi, two.log_pi], 2)
    return IndependentComponents(log_pi, one.mean, one.noise, one.epistemic)


def gaussian():
    parts = mixture()
    return Components(
        parts.log_pi[:, :1] * 0, parts.mean[:, :1], parts.noise[0, :1], parts.epistemic[:, :1]
    )


each = pytest.mark.parametrize("parts", [mixture(), independent(), gaussian()])


def test_score_of_a_gaussian_is_the_distance_in_standard_deviations():
    parts = gaussian()
    mean, std = parts.mean[:, 0], parts.variance.sqrt()[:, 0]
    for distance in (-1e6, -30.0, -3.0, 0.5, 4.0, 7.0):
        scores = interval_scores(parts, mean + distance * std)
        np.testing.assert_allclose(scores, np.full((6, 2), abs(distance)), rtol=1e-7)


@each
@pytest.mark.parametrize("score", [0.3, 1.7, REACH, 5.0, 1e3])
@pytest.mark.parametrize("side", [0, 1])
def test_ends_of_an_interval_have_its_score(parts, score, side):
    wanted = torch.tensor([score, 0.7 * score], dtype=torch.float64)
    ends = interval_of_score(parts, wanted)
    assert ends.shape == (6, 2, 2)
    np.testing.assert_allclose(
        interval_scores(parts, ends[:, side]), wanted.expand(6, 2), rtol=1e-4
    )


@each
def test_intervals_are_central_and_hold_their_probability(parts):
    score = torch.tensor([1.2, 2.5], dtype=torch.float64)
    for side in (0, 1):
        below, above = parts.tails(interval_of_score(parts, score)[:, side])
        beyond = np.broadcast_to(norm.sf(score), (6, 2))
        np.testing.assert_allclose((below, above)[side], beyond, rtol=1e-5)
        np.testing.assert_allclose(below + above, 1.0, rtol=1e-12)


@each
def test_intervals_of_larger_scores_hold_those_of_smaller_ones(parts):
    scores = np.concatenate([np.linspace(0, 8, 41), [np.inf]])
    ends = torch.stack(
        [interval_of_score(parts, torch.full((2,), s, dtype=torch.float64)) for s in scores]
    )
    assert (ends[1:, :, 0] <= ends[:-1, :, 0]).all()
    assert (ends[1:, :, 1] >= ends[:-1, :, 1]).all()
    assert torch.isinf(ends[-1]).all()


@pytest.mark.parametrize("coverage", ["0.5", "0.7", "0.9", "0.95", "0.99", "0.29", "0.07", "0.57"])
def test_ranks_are_those_of_exact_arithmetic(coverage):
    exact, coverage = Fraction(coverage), float(coverage)
    for n in (*range(1, 220), 10**7 - 1):
        assert conformal_rank(n, coverage) == ceil((n + 1) * exact)
    fewest = least_rows(coverage)
    assert ceil((fewest + 1) * exact) <= fewest
    assert fewest == 1 or ceil(fewest * exact) > fewest - 1
