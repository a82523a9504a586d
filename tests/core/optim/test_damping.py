"""Steps that are tried with more and more damping."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skpou.core.optim.damping import (
    MANY_PARAMETERS,
    TRIES,
    DampingControl,
    TenfoldDamping,
    damped_step,
    first_decrease,
)
from tests.examples import tensor


# A model that promises nothing is neither trusted more nor less by Nielsen's rule.
@pytest.mark.parametrize(
    ("damping", "after"), [(DampingControl(1e-3), 1.0), (TenfoldDamping(1e-3), 0.1)]
)
def test_the_first_step_that_lowers_the_value_is_taken(damping, after):
    tried = []

    def propose(mu):
        tried.append(mu)
        return SimpleNamespace(value=1 / mu), 0.0

    found = first_decrease(propose, 100.0, damping)
    assert found.value < 100 <= 1 / tried[-2] and tried == sorted(tried)
    assert damping.value == pytest.approx(after * tried[-1])


@pytest.mark.parametrize("damping", [DampingControl(1.0), TenfoldDamping(1.0)])
def test_none_is_taken_where_none_lowers_the_value(damping):
    tried = []

    def propose(mu):
        tried.append(mu)
        return SimpleNamespace(value=2.0), 1.0

    assert first_decrease(propose, 2.0, damping) is None
    assert len(tried) == TRIES and damping.value > tried[-1]
    assert first_decrease(lambda _: (None, 0.0), 2.0, damping) is None


def test_tenfold_damping_moves_by_ten_and_stays_positive():
    damping = TenfoldDamping(1e-9)
    damping.fail()
    assert damping.value == pytest.approx(1e-8)
    for _ in range(20):
        damping.succeed()
    assert 0 < damping.value <= 1e-16
    damping.fail()
    assert damping.value == pytest.approx(1e-15)


def factor_of(J, r):
    return tensor(np.linalg.qr(np.column_stack([J, r]), mode="r"))


@pytest.mark.parametrize("damping", [1e-8, 1e-3, 1.0, 1e4])
def test_damped_step_solves_the_stacked_system(damping):
    rng = np.random.default_rng(3)
    J = rng.standard_normal((20, 5)) * np.geomspace(1, 1e-4, 5)
    r = rng.standard_normal(20)
    step, predicted = damped_step(factor_of(J, r), damping)
    D = np.diag(np.linalg.norm(J, axis=0))
    stacked = np.concatenate([J, math.sqrt(damping) * D])
    expected = np.linalg.lstsq(stacked, np.concatenate([-r, np.zeros(5)]), rcond=None)[0]
    np.testing.assert_allclose(step, expected, rtol=1e-9)
    decrease = np.square(r).sum() - np.square(r + J @ step.numpy()).sum()
    assert predicted > 0
    np.testing.assert_allclose(predicted, decrease, rtol=1e-9)


@pytest.mark.parametrize(("damping", "accuracy"), [(1e-9, 1e-8), (1e-7, 1e-5), (1.0, 1e-11)])
def test_damped_step_of_many_parameters(damping, accuracy):
    """By normal equations where the damping bounds their condition, and otherwise without."""
    k, rng = MANY_PARAMETERS, np.random.default_rng(6)
    J = rng.standard_normal((k + 5, k)) @ np.diag(np.geomspace(1, 1e-3, k))
    J[:, 1] = J[:, 0] + 1e-6 * J[:, 2]
    r = rng.standard_normal(k + 5)
    step, predicted = damped_step(factor_of(J, r), damping)
    D = np.diag(np.linalg.norm(J, axis=0))
    stacked = np.concatenate([J, math.sqrt(damping) * D])
    expected = np.linalg.lstsq(stacked, np.concatenate([-r, np.zeros(k)]), rcond=None)[0]
    np.testing.assert_allclose(step, expected, atol=accuracy * np.abs(expected).max())
    decrease = np.square(r).sum() - np.square(r + J @ step.numpy()).sum()
    np.testing.assert_allclose(predicted, decrease, rtol=1e-9)


def test_damped_step_does_not_depend_on_the_units():
    rng, units = np.random.default_rng(4), np.array([1.0, 1e-4, 1e2])
    J, r = rng.standard_normal((9, 3)), rng.standard_normal(9)
    step, predicted = damped_step(factor_of(J, r), 0.1)
    other, same = damped_step(factor_of(J * units, r), 0.1)
    np.testing.assert_allclose(other.numpy() * units, step, rtol=1e-10)
    np.testing.assert_allclose(same, predicted, rtol=1e-10)


def test_damped_step_along_a_direction_without_effect_is_zero():
    rng = np.random.default_rng(5)
    J, r = rng.standard_normal((9, 3)), rng.standard_normal(9)
    J[:, 1] = 0
    step, predicted = damped_step(factor_of(J, r), 1e-3)
    assert torch.isfinite(step).all()
    assert abs(float(step[1])) < 1e-6 * float(step.abs().max())
    step, predicted = damped_step(factor_of(0 * J, r), 1e-3)
    assert not step.any()
    assert predicted == 0
