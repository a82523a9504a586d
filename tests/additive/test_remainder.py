"""The block over all columns: the pilot against dense matrices, its limits and its price."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, ortho_group

from skpou.additive import remainder as additive_remainder
from skpou.additive.basis import Block, spline_basis
from skpou.additive.remainder import (
    CONSTANT_VARIANCE,
    LEAST_NOISE,
    SCALE_SPREAD,
    Pilot,
    PilotFit,
    with_remainder,
)
from skpou.additive.terms import TargetRows, TermSearch
from tests.examples import tensor

THETA = np.array([-0.3, -1.0, 0.2, -1.2, -0.7, -2.3])


def rotation(d=3, seed=0):
    return tensor(ortho_group.rvs(d, random_state=seed))


def make_pilot(n=60, d=3, seed=0, unit=1.0):
    """Pilot whose lines are those of its coordinates in other units."""
    rng = np.random.default_rng(seed)
    T = tensor(rng.standard_normal((n, d)))
    y = torch.sin(1.5 * T.sum(1)) + 0.3 * T[:, 0]
    weight = unit * tensor(rng.integers(1, 4, n))
    return Pilot(T, T * tensor([0.7, -2.0, 1.0][:d]) + 0.4, y, weight, seed=1)


def dense(pilot, theta, turned):
    """Columns at the rows, and the prior variance of each."""
    d = len(turned)
    scale, (line, block, _) = np.exp(theta[:d]), np.exp(theta[d:])
    angle = (pilot.T @ turned).numpy() * scale @ pilot.frequencies.numpy().T
    waves = np.sqrt(2 / (2 * len(pilot.frequencies))) * np.hstack([np.sin(angle), np.cos(angle)])
    F = np.column_stack([pilot.fixed, waves])
    prior = np.r_[CONSTANT_VARIANCE, [line] * d, [block] * waves.shape[1]]
    return F, prior, np.exp(theta[-1]) + LEAST_NOISE


# The pilot


@pytest.mark.parametrize("turned", [torch.eye(3).double(), rotation()])
def test_evidence_is_the_density_of_a_gaussian(turned):
    pilot = make_pilot()
    weight = pilot.weight.numpy()
    assert weight.mean() == pytest.approx(1)
    offsets = []
    for shift in (0.0, 0.5, -1.0):
        theta = THETA + shift * np.array([1, -0.3, 0, 1, -1, 2])
        F, prior, noise = dense(pilot, theta, turned)
        covariance = F * prior @ F.T + noise * np.diag(1 / weight)
        density = multivariate_normal.logpdf(pilot.y.numpy(), cov=covariance)
        penalty = np.square(theta[:3] - theta[:3].mean()).sum() / (2 * SCALE_SPREAD**2)
        offsets.append(-pilot.evidence(theta, pilot.T @ turned)[0] - (density - penalty))
    np.testing.assert_allclose(offsets, offsets[0], rtol=1e-9)


def test_left_out_density_is_that_of_refits():
    pilot, turned = make_pilot(), rotation()
    F, prior, noise = dense(pilot, THETA, turned)
    y, weight = pilot.y.numpy(), pilot.weight.numpy()
    terms = []
    for row in range(len(y)):
        kept = np.arange(len(y)) != row
        A = F[kept].T * weight[kept]
        covariance = np.linalg.inv(A @ F[kept] / noise + np.diag(1 / prior))
        mean = F[row] @ covariance @ (A @ y[kept]) / noise
        variance = noise + F[row] @ covariance @ F[row]
        terms.append(-0.5 * (math.log(2 * math.pi * variance) + (y[row] - mean) ** 2 / variance))
    found = pilot.left_out_density(PilotFit(0.0, THETA, turned))
    assert found == pytest.approx(np.average(terms, weights=weight), rel=1e-6)


def test_kernel_of_many_frequencies_is_gaussian(monkeypatch):
    monkeypatch.setattr(additive_remainder, "PILOT_FEATURES", 2**14)
    pilot = make_pilot(12)
    F, *_ = dense(pilot, THETA, torch.eye(3).double())
    scaled = pilot.T.numpy() * np.exp(THETA[:3])
    square = np.square(scaled[:, None] - scaled).sum(2)
    kernel = F[:, 4:] @ F[:, 4:].T
    np.testing.assert_allclose(kernel, np.exp(-square / 2), atol=0.01)


def test_gradient_of_the_penalty_and_of_large_variances():
    pilot = make_pilot()
    theta = np.array([-4.0, 1.5, 0.2, 3.0, 5.0, -12.0])
    _, gradient = pilot.evidence(theta, pilot.T)
    for k, step in enumerate(1e-5 * np.eye(6)):
        ahead, behind = (pilot.evidence(theta + s * step, pilot.T)[0] for s in (1, -1))
        expected = (ahead - behind) / 2e-5
        assert gradient[k] == pytest.approx(expected, rel=1e-4, abs=1e-4 * abs(gradient).max())


def test_units_of_the_weights_do_not_matter():
    one, other = make_pilot(), make_pilot(unit=1e4)
    assert one.evidence(THETA, one.T)[0] == pytest.approx(other.evidence(THETA, other.T)[0])


def test_scales_are_those_of_the_rotated_coordinates():
    fit = PilotFit(0.0, THETA, rotation())
    T = make_pilot().T
    expected = (T @ rotation()) * tensor(np.exp(THETA[:3]))
    torch.testing.assert_close(T @ fit.scales(), expected)
    assert fit.is_rotated
    assert not PilotFit(0.0, THETA, torch.eye(3).double()).is_rotated


@pytest.mark.parametrize("turned", [torch.eye(3).double(), rotation()])
def test_gradients_of_the_mean_against_differences(turned):
    pilot, step = make_pilot(), 1e-6
    fit = PilotFit(0.0, THETA, turned)
    F, prior, noise = dense(pilot, THETA, turned)
    A = F.T * pilot.weight.numpy()
    coef = np.linalg.solve(A @ F / noise + np.diag(1 / prior), A @ pilot.y.numpy() / noise)
    lines, T = pilot.fixed[:, 1:], pilot.T
    gradient = pilot.gradients(fit)
    for j in range(3):
        values = []
        for sign in (1, -1):
            moved = make_pilot()
            moved.T = T + sign * step * torch.eye(3).double()[j]
            moved.fixed = torch.cat([pilot.fixed[:, :1], lines], 1)
            moved.fixed[:, 1 + j] += sign * step * [0.7, -2.0, 1.0][j]
            values.append(dense(moved, THETA, turned)[0] @ coef)
        expected = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradient[:, j], expected, rtol=1e-5, atol=1e-6)


def test_maximum_is_within_bounds_and_no_worse_than_the_start():
    pilot = make_pilot()
    start = np.array([-9.0, 0.0, 5.0, 0.0, 0.0, -30.0])
    fit = pilot.maximise(start, rotation(), 8)
    low, high = np.array([(-6, 2)] * 3 + [(-12, 5), (-7, 7), (-16, 1)]).T
    assert (low <= fit.theta).all()
    assert (fit.theta <= high).all()
    assert fit.value == pytest.approx(-pilot.evidence(fit.theta, pilot.T @ rotation())[0])
    assert fit.value >= -pilot.evidence(np.clip(start, low, high), pilot.T @ rotation())[0]
    assert fit.value <= pilot.maximise(fit.theta, rotation(), 8).value


@pytest.mark.parametrize("n", [1, 2, 40])
def test_targets_that_do_not_vary(n):
    pilot = make_pilot(n)
    pilot.y = 0 * pilot.y
    fit = pilot.best()
    assert math.isfinite(fit.value)
    assert np.isfinite(fit.theta).all()
    assert not pilot.gradients(fit).any()


# The block


def task_of(n=100, d=5, max_columns=800, seed=0):
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((n, d)))
    y = torch.sin(0.9 * (2 * X - 1).sum(1)) + 0.05 * tensor(rng.standard_normal(n))
    y = (y - y.mean()) / y.std(correction=0)
    weight = torch.ones(n).double()
    basis = spline_basis(X, weight, 6, False)
    return TermSearch(TargetRows(X, y, weight, 0.0), basis, 4, 2, max_columns, 100)


@pytest.fixture(scope="module")
def taken():
    task = task_of()
    best = task.grow(task.first())
    return task, best, with_remainder(task, best, np.random.default_rng(0))


def test_score_pays_for_scales_and_rotation(taken):
    task, best, whole = taken
    (block,) = (block for block in whole.blocks if block.order == 0)
    landmarks = whole.basis.landmarks
    assert block == Block((-1,), (0,), (landmarks.n_columns,))
    unpaid = whole.fit.log_evidence - len(whole.blocks)
    direction = landmarks.scales / landmarks.scales.norm(dim=0)
    torch.testing.assert_close(direction.T @ direction, torch.eye(5).double(), atol=1e-9, rtol=0)
    rotated = not torch.equal(direction.abs(), torch.eye(5).double())
    assert whole.score == pytest.approx(unpaid - (7.5 if rotated else 5.0))
    assert whole.score > best.score
    densities = [c.fit.left_out_density(task.rows.y, task.rows.weight) for c in (best, whole)]
    assert densities[1] - densities[0] > 0.5 * (15 if rotated else 5)


def test_same_draws_give_the_same_block(taken):
    task, best, whole = taken
    again = with_remainder(task, best, np.random.default_rng(0))
    assert again.score == whole.score
    assert torch.equal(again.fit.coef, whole.fit.coef)


def test_block_keeps_to_the_most_columns():
    task = task_of(max_columns=60)
    best = task.grow(task.first())
    assert best.basis.n_columns <= 60
    whole = with_remainder(task, best, np.random.default_rng(0))
    assert whole.basis.landmarks.n_columns <= 60
    assert whole.basis.n_columns <= 120


def test_only_some_of_many_rows(monkeypatch, taken):
    monkeypatch.setattr(additive_remainder, "PILOT_ROWS", 60)
    monkeypatch.setattr(additive_remainder, "LANDMARK_ROWS", 50)
    seen = []

    class Watched(Pilot):
        def __init__(self, T, *args, **options):
            seen.append(len(T))
            super().__init__(T, *args, **options)

    monkeypatch.setattr(additive_remainder, "Pilot", Watched)
    task, best, _ = taken
    whole = with_remainder(task, best, np.random.default_rng(0))
    assert seen == [60]
    assert whole.basis.landmarks.n_columns <= 50
    assert len(np.unique(whole.basis.landmarks.points.numpy(), axis=0)) == 50


def test_pilot_that_fails_leaves_the_terms(monkeypatch, taken):
    def failing(self):
        raise torch.linalg.LinAlgError("singular")

    task, best, _ = taken
    monkeypatch.setattr(Pilot, "best", failing)
    assert with_remainder(task, best, np.random.default_rng(0)) is best


def test_no_pilot_is_asked_beside_exact_terms(monkeypatch, taken):
    task, best, _ = taken
    exact = dataclasses.replace(
        best, fit=dataclasses.replace(best.fit, noise=1e-12, fitted=task.rows.y)
    )
    monkeypatch.setattr(additive_remainder, "Pilot", None)
    assert with_remainder(task, exact, np.random.default_rng(0)) is exact


def test_no_pilot_is_likelier_than_its_bounds_allow():
    pilot = make_pilot()
    theta = np.array([-5.0, -5.0, -5.0, 4.0, -6.0, additive_remainder.NOISE_BOUNDS[0]])
    exact = PilotFit(0.0, theta, torch.eye(3).double())
    pilot.y = pilot.T @ tensor([1.0, 2.0, 3.0])
    density = pilot.left_out_density(exact)
    assert additive_remainder.MOST_DENSITY - 1 < density < additive_remainder.MOST_DENSITY


def test_block_must_raise_the_score(taken):
    task, best, _ = taken
    better = dataclasses.replace(best, score=math.inf)
    assert with_remainder(task, better, np.random.default_rng(0)) is better
