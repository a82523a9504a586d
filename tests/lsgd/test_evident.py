"""Networks of a given size by evidence: noise is not followed, exact rows are met."""

import numpy as np
import pytest
import torch

from skpou.lsgd.evident import MOST_WORK, climb, is_affordable
from skpou.networks import NetworkBasis
from skpou.networks.architecture import Network
from skpou.networks.initializations import box
from tests.examples import rows_of


def climbed(noise, n=40, sizes=(20,), **options):
    """End of a climb on a wave, its variance of the noise, and the error at other points."""
    rng = np.random.default_rng(0)
    X, points = rng.random((n, 1)), np.linspace(0.02, 0.98, 99)[:, None]
    wave = lambda x: np.sin(5 * x[:, 0]) * 1.4  # noqa: E731
    rows, network = rows_of(X, wave(X) + noise * rng.standard_normal(n)), Network(1, sizes)
    theta = box(network, np.random.default_rng(0), rows.X)
    options = {"max_iter": 300, "tol": 1e-14, "watch": lambda *_: None} | options
    result, variance = climb(rows, network, theta, **options)
    columns = NetworkBasis(network, result.state.theta).matrix(torch.tensor(points))
    error = (columns @ result.state.coef)[:, 0].numpy() - wave(points)
    return result, variance, np.sqrt(np.mean(error**2))


def test_more_parameters_than_rows_follow_no_noise():
    result, variance, error = climbed(0.2)
    assert len(result.state.theta) + len(result.state.coef) > 40
    assert np.sqrt(variance) == pytest.approx(0.2, rel=0.3)
    assert error < 0.15 and result.code == "converged"


def test_exact_rows_are_met_between_them():
    _, variance, error = climbed(0.0, max_iter=100)
    assert error < 1e-6 and variance < 1e-12


def test_steps_are_bounded():
    seen = []
    result, _, _ = climbed(0.0, max_iter=15, watch=lambda fit, ridge: seen.append(ridge))
    assert result.code == "max_iter" and len(result.curve) <= 15 == len(seen)


def test_large_jacobians_are_not_affordable():
    rows = rows_of(np.linspace(0, 1, 50)[:, None], np.zeros(50))
    assert is_affordable(Network(1, (8, 8)), rows)
    assert not is_affordable(Network(1, (round(MOST_WORK**0.25),) * 2), rows)
