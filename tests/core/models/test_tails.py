"""Tails of Student's t: degrees of freedom from left-out rows, and densities."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import norm, t

from skpou import LSGDRegressor
from skpou.core import Rows
from skpou.core.models import Components, IndependentComponents, degrees_of_noise, leave_out
from skpou.core.models.cross_validation import residual_maker
from skpou.core.models.tails import variance_factors, with_tails
from tests.examples import tensor


def gaussian(n, m=1):
    one = torch.ones((n, 1, m), dtype=torch.float64)
    return Components(one[..., 0] * 0, 0 * one, 0.75 * one, 0.25 * one)


@pytest.mark.parametrize("degrees", [3.0, 6.0, 20.0])
def test_density_and_quantiles_are_those_of_a_t_distribution(degrees):
    found = with_tails(gaussian(7), tensor(variance_factors(np.array([degrees]))))
    y = np.array([-9.0, -4.0, -1.0, 0.0, 0.5, 2.5, 6.0])
    error = np.abs(found.log_density(tensor(y[:, None])).numpy() - t.logpdf(y, degrees))
    # Near the centre as it is; far off by little of what a Gaussian is off by.
    assert (error < np.maximum(0.15, 0.1 * (t.logpdf(y, degrees) - norm.logpdf(y)))).all()
    for p in (0.025, 0.25, 0.9):
        quantile = found.quantiles(tensor([p]))[0, 0, 0].item()
        assert quantile == pytest.approx(t.ppf(p, degrees), rel=0.1)


def test_many_degrees_leave_the_gaussian():
    factors = variance_factors(np.array([np.inf, 4.0]))
    assert (factors[:, 0] == 1).all() and (np.diff(factors[:, 1]) < 0).all()
    found = with_tails(gaussian(3, 2), tensor(factors))
    y = tensor([[0.3, 0.0]] * 3)
    alone = gaussian(3).log_density(y[:, :1])
    assert isinstance(found, IndependentComponents)
    assert found.variances()[1][:, 0].tolist() == pytest.approx([0.25] * 3)
    only = with_tails(gaussian(3), tensor(factors[:, 1:])).log_density(y[:, 1:])
    assert found.log_density(y).numpy() == pytest.approx((alone + only).numpy())


def test_degrees_are_rows_less_coefficients():
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(16))
    A = tensor(np.vander(x, 4))
    y = tensor(rng.standard_normal(16))[:, None]
    rows = Rows(tensor(x)[:, None], y, torch.ones(16, dtype=torch.float64), 0 * y)
    left_out = leave_out([[residual_maker(A, 0.0)]], rows)
    # Rows that are left out in twos lack their neighbour, too.
    assert degrees_of_noise(rows, left_out)[0] == pytest.approx(12, abs=2)
    assert degrees_of_noise(rows, left_out)[0] == pytest.approx(12, abs=1e-6)
    exact = Rows(rows.X, 1e-9 * y, rows.weight, rows.within)
    assert degrees_of_noise(exact, leave_out([[residual_maker(A, 0.0)]], exact)) is None
    assert degrees_of_noise(rows, None) is None


def test_few_rows_with_noise_do_not_claim_to_know_it():
    rng = np.random.default_rng(1)
    inside: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(6):
        x = rng.random(8)[:, None]
        model = LSGDRegressor().fit(x, x[:, 0] + 0.1 * rng.standard_normal(8))
        y = np.array([0.3, 0.6]) + 0.1 * rng.standard_normal((200, 2))
        for tails in (True, False):
            model._restraint["degrees"] = model._restraint["degrees"] if tails else None
            model = pickle.loads(pickle.dumps(model))
            low, high = model.predict_quantile([[0.3], [0.6]], [0.025, 0.975]).T
            inside[tails].append(((y > low) & (y < high)).mean())
    # A Gaussian is too sure of the noise; the tails mend a part of that.
    missing = {tails: 0.95 - np.mean(found) for tails, found in inside.items()}
    assert missing[False] > 0 and abs(missing[True]) < missing[False]
