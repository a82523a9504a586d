"""Tails of Student's t: degrees of freedom from left-out rows, and densities."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm, t

from skpou import LSGDRegressor
from skpou.core import Rows
from skpou.core.models import Components, IndependentComponents, leave_out, no_form_errors
from skpou.core.models.cross_validation import LeftOut, residual_maker
from skpou.core.models.tails import (
    SHARES,
    Tails,
    degrees_of_noise,
    fit_tails,
    variance_factors,
    with_tails,
)
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
            model._restraint["tails"] = model._restraint["tails"] if tails else None
            model = pickle.loads(pickle.dumps(model))
            low, high = model.predict_quantile([[0.3], [0.6]], [0.025, 0.975]).T
            inside[tails].append(((y > low) & (y < high)).mean())
    # A Gaussian is too sure of the noise; the tails mend a part of that.
    missing = {tails: 0.95 - np.mean(found) for tails, found in inside.items()}
    assert missing[False] > 0 and abs(missing[True]) < missing[False]


def told(error, noise=1.0):
    """Errors at rows that were left out one by one, of a fit that claims such a noise."""
    n = len(error)
    variance = np.full((n, 1), noise**2)
    sets = [np.array([k]) for k in range(n)]
    one = LeftOut(sets, n, error[:, None], variance, variance, np.ones(n), np.ones(n, dtype=bool))
    zero = torch.zeros((n, 1), dtype=torch.float64)
    return Rows(zero, zero, zero[:, 0] + 1, zero), [one]


def test_left_out_rows_tell_the_tails_of_the_noise():
    quantile = (np.arange(400) + 0.5) / 400
    assert fit_tails(*told(norm.ppf(quantile))) is None
    heavy = fit_tails(*told(t.ppf(quantile, 3)))
    assert heavy.known == 0 and 0.2 < heavy.own <= 1 / 3
    # The bulk is as wide as that of the errors, whose root mean square is given by few of them.
    rms = np.sqrt(np.mean(t.ppf(quantile, 3) ** 2))
    assert heavy.scale == pytest.approx(1 / rms, rel=0.1)
    factors = tensor(rms**2 * heavy.factors(is_mixture=False))
    found = with_tails(gaussian(1), factors).quantiles(tensor([0.75, 0.995]))[0, :, 0]
    assert found.tolist() == pytest.approx(t.ppf([0.75, 0.995], 3).tolist(), rel=0.15)
    # A mixture has them by its widths, noise that varies by its law.
    assert heavy.factors(is_mixture=True) is None
    assert fit_tails(*told(t.ppf(quantile, 3)), own=[False]) is None


def test_few_rows_leave_the_tails_open():
    rows, left_out = told(np.array([-1.0, 0.3, 0.5, -0.8, 1.2, 0.1, -0.4, 0.9]))
    few = fit_tails(rows, left_out)
    assert few.known == pytest.approx(1 / 8) and few.own > 0
    # They are heavier than those of the known degrees, and the bulk is hardly narrower.
    assert 0.8 < few.scale <= 1
    assert few.factors(is_mixture=False)[0] > few.factors(is_mixture=True)[0]
    assert fit_tails(*told(np.full(8, 1e-9), 1e-9)) is None


def test_few_exact_rows_tell_tails_at_the_variance_of_the_form():
    rows, left_out = told(np.full(20, 1e-9), 1e-9)
    ratio = t.ppf((np.arange(20) + 0.5) / 20, 3) ** 2
    form = replace(no_form_errors(rows)[0], ratio=ratio / ratio.mean())
    found = fit_tails(rows, left_out, [form])
    factors, known = found.factors(is_mixture=False), variance_factors(1 / found.known)
    assert found.own > 0.1 and factors[0] > 1.5 * known[0]
    assert SHARES @ factors == pytest.approx(SHARES @ known, rel=0.2)


def test_an_earlier_state_has_known_degrees():
    found = Tails.from_arrays({"degrees": np.array([0.25, 0.0])})
    assert found.factors(is_mixture=False) == pytest.approx(
        variance_factors(np.array([4.0, np.inf]))
    )
    assert Tails.from_arrays({"degrees": None}) is None
