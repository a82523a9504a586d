"""Mixture densities about a linear model: left-out errors by brute force, the density point by
point, outside of the box, and with a posterior or without."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skpou.core.linalg.statistics import triangular_factor
from skpou.core.models import mixed_residues
from skpou.core.models.linear_model import Stage, model_of_stages
from skpou.core.models.mixed_residues import (
    MixedResidues,
    errors_of_law,
    fit_residues,
    residues_of,
)
from skpou.core.models.residue_density import (
    ResidueDensity,
    choose_components,
    fit_density,
    left_out,
    noise_floor,
)
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.core.rows import pairs_of
from tests.examples import rows_of, tensor

BASIS = TotalDegreePolynomials(1, 2)


def linear(rows):
    """Least squares with quadratic polynomials."""
    phi, root = BASIS.matrix(rows.X), rows.weight.sqrt()[:, None]
    coef = torch.linalg.lstsq(root * phi, root * rows.y).solution
    noise = (rows.weight[:, None] * (rows.y - phi @ coef).square() + rows.within).sum(0)
    noise = noise / (rows.total_weight - 3)
    stage = Stage(BASIS, coef, triangular_factor(root * phi))
    return model_of_stages((stage,), noise, rows.X, rows.weight)


def noisy(n=200, m=2, seed=0, repeats=False):
    """Noise that grows along x; points may repeat with other targets."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 1))
    if repeats:
        X = np.round(X * 20) / 20
    width = 10 ** (X - 1.5)
    y = np.cos(2 * X) + width * rng.standard_normal((n, m))
    return rows_of(X, y)


def captured(monkeypatch, model, rows):
    """Residues that the densities are fitted to."""
    found = []

    def watch(*args):
        found.append(left_out(*args))
        return found[-1]

    monkeypatch.setattr(mixed_residues, "left_out", watch)
    fit_residues(model, rows)
    return found


@pytest.mark.parametrize("repeats", [False, True])
def test_errors_are_those_of_fits_without_the_pair(monkeypatch, repeats):
    """Each pair of point and target is left out in turn and predicted by the rest."""
    rows = noisy(40, 2, repeats=repeats)
    assert (rows.repeats is not None) == repeats
    residues = captured(monkeypatch, linear(rows), rows)
    assert len(residues) == 2
    for output, residue in enumerate(residues):
        pairs = pairs_of(rows, output)
        x, y = rows.X[pairs.point].numpy(), pairs.y[:, 0].numpy()
        weight = pairs.weight.numpy()
        A = BASIS.matrix(tensor(x)).numpy()
        for i in range(0, len(y), 5):
            others = np.arange(len(y)) != i
            gram = (A[others] * weight[others, None]).T @ A[others]
            inverse = np.linalg.inv(gram)
            coef = inverse @ (A[others] * weight[others, None]).T @ y[others]
            assert float(residue.error[i]) == pytest.approx(y[i] - A[i] @ coef, rel=1e-7)
            assert float(residue.spread[i]) == pytest.approx(A[i] @ inverse @ A[i], rel=1e-7)
            assert float(residue.inputs[i, 0]) == x[i, 0]


def test_blocks_of_rows_make_no_difference(monkeypatch):
    rows = noisy(90, 2)
    model = linear(rows)
    whole = captured(monkeypatch, model, rows)
    monkeypatch.setattr(mixed_residues, "rows_within", lambda numbers: 7)
    parts = captured(monkeypatch, model, rows)
    for one, two in zip(whole, parts, strict=True):
        for name in ("error", "spread", "inputs"):
            torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-12, atol=0)


def test_every_target_has_a_density_of_its_own():
    rows = noisy(150, 3)
    model = linear(rows)
    states = fit_residues(model, rows)
    assert len(states) == 3
    for output, state in enumerate(states):
        pairs = pairs_of(rows, output)
        parts = model.components(rows.X)
        spread = (parts.epistemic[:, 0] / parts.noise)[:, output].reshape(-1)
        residue = left_out(pairs, parts.mean[:, 0, output], spread, rows.X)
        floor = noise_floor(residue, pairs.y)
        expected = fit_density(residue, choose_components(residue, floor), floor).arrays()
        for name, array in expected.items():
            np.testing.assert_allclose(state[name], array, rtol=1e-7, atol=1e-10)


def two_widths():
    """A density with two widths, gated along the first input and the mean."""
    gates = tensor([[0.3, -0.2], [1.5, -1.0], [0.4, 0.1]])
    parts = tensor([0.5, 0.0]), tensor([0.3, 1.0]), gates, tensor([0.01, 0.5])
    return ResidueDensity(*parts).arrays()


def mixed(model, states, X, posterior=True):
    """The model's density with those states about its mean."""
    return MixedResidues.from_states(model, states, X).components(X, posterior)


def by_hand(model, state, x):
    """Gates at the nearest point of the box, widths that grow with the spread of the mean."""
    inside = np.clip(x, 0, 1)
    mean_inside = float(model.mean(tensor([[inside]]))[0, 0])
    z = (np.array([inside, mean_inside]) - state["centre"]) / state["width"]
    logits = np.r_[1.0, np.clip(z, -4, 4)] @ state["gates"]
    pi = np.exp(logits) / np.exp(logits).sum()
    mean = float(model.mean(tensor([[x]]))[0, 0])
    spread = float(model.epistemic(tensor([[x]]))[0, 0] / model.noise[0])
    return pi, mean, state["variance"] * (1 + spread)


@pytest.mark.parametrize("x", [0.0, 0.31, 1.0, 1.7, -40.0])
def test_density_at_a_point(x):
    model, state = linear(noisy(60, 1)), two_widths()
    pi, mean, variance = by_hand(model, state, x)
    found = mixed(model, [state], tensor([[x]]))
    y = np.array([mean - 0.3, mean, mean + 2.0])
    expected = (pi * norm.pdf(y[:, None], mean, np.sqrt(variance))).sum(1)
    density = [float(found.log_density(tensor([[v]]))) for v in y]
    np.testing.assert_allclose(density, np.log(expected), rtol=1e-9)
    assert float(found.expectation()) == pytest.approx(mean)
    assert float(sum(found.variances())) == pytest.approx(pi @ variance, rel=1e-9)


def test_points_outside_do_not_change_those_inside():
    model, state = linear(noisy(60, 1)), two_widths()
    inside, outside = tensor([[0.2], [0.9]]), tensor([[-3.0], [1.4]])
    alone = mixed(model, [state], inside)
    together = mixed(model, [state], torch.cat([outside, inside]))
    for name in ("log_pi", "mean", "noise", "epistemic"):
        torch.testing.assert_close(getattr(alone, name), getattr(together, name)[2:])


def test_the_mean_is_that_of_the_model():
    model = linear(noisy(60, 2))
    X = tensor([[0.2], [1.9]])
    whole = MixedResidues.from_states(model, [two_widths()] * 2, X)
    assert torch.equal(whole.mean(X), model.mean(X))
    assert torch.equal(whole.gradient(X), model.gradient(X))
    for posterior in (False, True):
        found = whole.components(X, posterior)
        torch.testing.assert_close(found.expectation(), model.mean(X))
    assert not whole.components(X, False).epistemic.any()


def test_targets_with_different_numbers_of_components():
    model = linear(noisy(60, 2))
    single = ResidueDensity.single(0.04, model.noise).arrays()
    X = tensor(np.linspace(-0.5, 1.5, 9)[:, None])
    found = mixed(model, [two_widths(), single], X)
    assert found.log_pi.shape == (9, 2, 2)
    spread = model.epistemic(X) / model.noise
    variance = sum(found.variances())[:, 1]
    torch.testing.assert_close(variance, 0.04 * (1 + spread[:, 1]))


def test_single_precision_points():
    model, state = linear(noisy(60, 1)), two_widths()
    X = tensor([[0.1], [0.8], [1.3]])
    expected = mixed(model, [state], X)
    found = mixed(model, [state], X.float())
    assert found.log_pi.dtype == found.noise.dtype == found.epistemic.dtype == torch.float32
    torch.testing.assert_close(found.noise.double(), expected.noise, rtol=1e-5, atol=1e-6)


@dataclass
class Constant:
    """The model of one row: its target, as uncertain as the noise."""

    value: float

    def mean(self, X):
        return X.new_full((len(X), 1), self.value)

    def components(self, X, posterior=True):
        one = X.new_ones((len(X), 1, 1))
        return mixed_residues.Components(X.new_zeros((len(X), 1)), self.value * one, one[0], one)

    def numbers_per_row(self):
        return 1


def test_one_row_says_nothing_about_noise():
    (state,) = fit_residues(Constant(3.0), rows_of([[0.5]], [3.0]))
    assert state["variance"].tolist() == [1.0]


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_units_of_the_target_are_units_of_the_widths(size):
    rows = noisy(120, 1)
    scaled = rows.in_units(tensor([0.0]), tensor([1 / size]), torch.float64)
    (one,), (two,) = (fit_residues(linear(part), part) for part in (rows, scaled))
    np.testing.assert_allclose(two["variance"], size**2 * one["variance"], rtol=1e-6)
    np.testing.assert_allclose(two["gates"], one["gates"], rtol=1e-5, atol=1e-6)


def test_intervals_cover_what_was_never_seen():
    """Noise ten times larger on one side: both sides are covered as they should be."""
    rows, fresh = noisy(600, 1), noisy(4000, 1, seed=5)
    model = linear(rows)
    density = mixed(model, fit_residues(model, rows), fresh.X)
    low, high = density.quantiles(tensor([0.05, 0.95])).unbind(1)
    covered = ((fresh.y > low) & (fresh.y < high))[:, 0].double()
    left = fresh.X[:, 0] < 0.5
    for side in (left, ~left):
        assert float(covered[side].mean()) == pytest.approx(0.9, abs=0.04)
    assert math.isfinite(float(density.log_density(fresh.y).mean()))


def test_the_variance_of_a_mean_is_known_where_rows_count_by_their_precision():
    rows = noisy(60, 1)
    alike = errors_of_law(residues_of(linear(rows), rows)[0], rows)
    assert float(alike.added.abs().max()) == 0
    weighed = rows.times(torch.linspace(1, 3, rows.n_rows, dtype=torch.float64))
    found = residues_of(linear(weighed), weighed)[0]
    errors = errors_of_law(found, weighed)
    torch.testing.assert_close(errors.added, errors.base * found.residue.spread)
    # Frequencies, not weights: no row counts twice for its precision.
    torch.testing.assert_close(errors.weight, alike.weight)
