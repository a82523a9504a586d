"""Rough splines: interpolation, smoothing, calibrated errors, error bars."""

import numpy as np
import pytest
import torch

from skpou.core.models.linear_model import model_of_stages
from skpou.search import rough as rough_family
from skpou.search.rough import MOST_ROWS, fit_rough
from skpou.search.scores import probe_points
from tests.examples import rows_of, tensor


def rough(X):
    return np.abs(np.sin(5 * X.sum(1))) + np.sqrt(np.abs(X[:, 0] - 0.4))


def fitted(d, n=300, noise=0.0, seed=0, target=np.inf):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    rows = rows_of(X, rough(X) + noise * rng.standard_normal(n))
    scales = torch.ones(d, dtype=torch.float64)
    return rows, fit_rough(rows, probe_points(rows.X, rng), scales, target, seed)


def error_of(candidate, d):
    fresh = np.random.default_rng(9).random((2000, d)) * 0.96 + 0.02
    return candidate.mean(tensor(fresh))[:, 0].numpy() - rough(fresh)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_smooth_targets_are_followed(d):
    X = np.random.default_rng(0).random((300, d))
    rows = rows_of(X, np.exp(X.sum(1)))
    probes = probe_points(rows.X, np.random.default_rng(0))
    candidate = fit_rough(rows, probes, torch.ones(d).double(), np.inf, 0)
    assert float((candidate.mean(rows.X) - rows.y).abs().max()) < 2e-3
    assert candidate.dof > 200


@pytest.mark.parametrize("d", [1, 2])
def test_noise_is_smoothed(d):
    _, candidate = fitted(d, noise=0.2)
    assert np.sqrt(np.mean(error_of(candidate, d) ** 2)) < 0.15
    assert candidate.dof < 150


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("d", [1, 2])
def test_calibrated_error_is_that_between_the_rows(d, noise):
    _, candidate = fitted(d, noise=noise)
    truth = np.sqrt(np.mean(error_of(candidate, d) ** 2) + noise**2)
    assert truth / 10 < candidate.calibrated < 3 * truth


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("d", [1, 2])
def test_standard_deviation_covers_the_error(d, noise):
    rows, candidate = fitted(d, noise=noise)
    residual = rows.y - candidate.mean(rows.X)
    left = max(rows.total_weight - candidate.dof, 0.1 * rows.total_weight)
    variance = rows.weight @ residual.square() / left
    model = model_of_stages(candidate.stages, variance, rows.X, rows.weight)
    fresh = np.random.default_rng(9).random((2000, d)) * 0.96 + 0.02
    std = model.epistemic(tensor(fresh)).sqrt()[:, 0].numpy()
    assert np.mean(np.abs(error_of(candidate, d)) < 2 * std) > 0.8


def test_too_few_or_too_many_rows():
    assert fitted(1, n=5)[1] is None
    assert fitted(2, n=MOST_ROWS + 1)[1] is None


def test_hopeless_pilot_is_enough():
    assert fitted(2, n=700, target=1e-9)[1] is None
    assert fitted(2, n=700)[1] is not None


def test_some_rows_tell_that_all_are_hopeless(monkeypatch):
    looked = []
    shape = rough_family._Polyharmonic._shape

    def counted(self, rows, power):
        looked.append(rows.n_rows)
        return shape(self, rows, power)

    monkeypatch.setattr(rough_family._Polyharmonic, "_shape", counted)
    assert fitted(2, 700, target=1e-9)[1] is None
    assert max(looked) <= rough_family.SCOUTING_ROWS
