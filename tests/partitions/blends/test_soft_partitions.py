"""Soft partitions of one level: Algorithm 2, variable projection, gates of every form."""

import math

import numpy as np
import pytest
import torch

from skpou.core.records import TrainingInterrupted
from skpou.core.rows import merge_rows
from skpou.partitions.blends.soft_partitions import (
    SoftOptions,
    StagnationRidge,
    fit_soft_partitions,
    gate_with,
    logit_columns,
)
from skpou.partitions.gates.steps import random_gates
from skpou.partitions.gates.tree import GateForm, NetworkForm, PartitionTree
from tests.examples import slow

FORMS = {
    "linear": GateForm(1),
    "quadratic": GateForm(2),
    "radial": GateForm(2, isotropic=True),
    "plain network": NetworkForm((4, 3), "plain"),
    "residual network": NetworkForm((4, 4), "residual"),
}
NETWORKS = [name for name in FORMS if "network" in name]
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def rows(n=200, noise=0.0):
    x = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    rng = np.random.default_rng(0)
    y = torch.sin(9 * x) + noise * torch.as_tensor(rng.standard_normal((n, 1)))
    return merge_rows(x, y, torch.ones(n, dtype=torch.float64))


def fit(form, solver="varpro", seed=0, data=None, **options):
    options = {"n_partitions": 4, "degree": 3, "form": form, "solver": solver} | options
    data = rows() if data is None else data
    return fit_soft_partitions(data, SoftOptions(**options), np.random.default_rng(seed))


def between(result):
    """Error halfway between the samples."""
    x = torch.linspace(0.5 / 199, 1 - 0.5 / 199, 199, dtype=torch.float64)[:, None]
    mean = result.state.components(x, posterior=False).mean[:, 0]
    return float((mean - torch.sin(9 * x)).square().mean().sqrt())


@each_form
def test_logits_and_gates_are_two_forms_of_the_same(form):
    X = rows(20).X
    gate = random_gates(form, (4,), X, np.random.default_rng(1))[0]
    logits, theta = logit_columns(gate, X)
    log_pi = torch.log_softmax(logits.values(theta), 1)
    expected = PartitionTree(1, [gate]).log_proba(X)
    torch.testing.assert_close(log_pi, expected, rtol=1e-12, atol=1e-12)
    moved = gate_with(gate, logits, theta + 0.1)
    again, theta_again = logit_columns(moved, X)
    torch.testing.assert_close(theta_again, theta + 0.1)
    torch.testing.assert_close(again.values(theta_again), logits.values(theta + 0.1))


@pytest.mark.parametrize(
    "name", [name for name in FORMS if "network" not in name] + slow(*NETWORKS)
)
def test_variable_projection_of_every_form(name):
    result = fit(FORMS[name])
    assert result.state.tree.levels[-1].n_partitions == 4
    assert between(result) < 1e-6


@each_form
def test_two_phases(form):
    result = fit(form, "lsgd", max_iter=300)
    assert result.n_iter == len(result.curve) <= 300
    assert between(result) < 1e-3
    # Phase 2 solves without the ridge that phase 1 ended with.
    assert result.curve[150] <= result.curve[149]


def test_length_of_the_first_phase():
    form = FORMS["linear"]
    usual = fit(form, "lsgd", max_iter=20)
    assert fit(form, "lsgd", max_iter=20, pre_iter=10).curve == usual.curve
    without = fit(form, "lsgd", max_iter=20, pre_iter=0)
    assert without.curve == fit(form, "lsgd", alpha=0.0, max_iter=20).curve
    alone = fit(form, "lsgd", max_iter=20, pre_iter=20)
    assert len(alone.curve) == 20
    assert alone.curve[:10] == usual.curve[:10]
    # The ridge of its start is 0.3 still: phase 2 begins without any.
    assert usual.curve[10] < alone.curve[10]


def test_phase_one_is_skipped_without_a_ridge():
    form = FORMS["linear"]
    assert fit(form, "lsgd", alpha=0.0, max_iter=9).n_iter == 9
    ridged = fit(form, "lsgd", alpha=10.0, max_iter=9)
    assert ridged.curve[0] > 10 * ridged.curve[-1]


def test_ridge_decays_after_steps_without_progress():
    ridge = StagnationRidge(1.0, 0.25, 3)
    assert not ridge.follow(1.0)
    assert [ridge.follow(2.0) for _ in range(3)] == [False, False, True]
    assert ridge.value == 0.25
    # The residual under the smaller ridge is a new start, even a larger one.
    assert not ridge.follow(5.0)
    assert [ridge.follow(r) for r in (4.0, 4.0, 4.0)] == [False, False, False]
    assert ridge.follow(4.0)
    assert ridge.value == 0.0625


@pytest.mark.parametrize("solver", ["varpro", "lsgd"])
def test_noise_counts_the_parameters_of_the_gates(solver):
    data = rows(400, 0.1)
    result = fit(FORMS["linear"], solver, data=data, degree=2, max_iter=100)
    noise = float(result.state.experts[-1].noise.mean().sqrt())
    assert 0.085 < noise < 0.115


@pytest.mark.parametrize("solver", ["varpro", "lsgd"])
def test_same_bits_twice(solver):
    first, second = (fit(FORMS["residual network"], solver, max_iter=20) for _ in range(2))
    assert torch.equal(first.state.experts[-1].coef, second.state.experts[-1].coef)
    assert not math.isnan(first.score)


@pytest.mark.parametrize("solver", ["varpro", "lsgd"])
def test_interrupt_keeps_the_best(solver):
    calls = []

    def report(line):
        calls.append(line)
        if len(calls) == 4:
            raise KeyboardInterrupt

    options = SoftOptions(3, 1, GateForm(1), solver, max_iter=50)
    with pytest.raises(TrainingInterrupted) as stopped:
        fit_soft_partitions(rows(), options, np.random.default_rng(0), report=report)
    result = stopped.value.result
    assert result.code == "interrupted"
    assert 1 <= result.n_iter <= 4
