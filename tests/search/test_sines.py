"""Sine features: spectra, the search over them."""

import math

import numpy as np
import pytest
import torch

from skpou.search import sines
from skpou.search.scores import probe_points
from skpou.search.sines import SineSearch
from skpou.sines.spectrum import Spectrum
from tests.examples import rows_of, tensor

LIKE = tensor([0.0])


def search(function, n=200, d=1, noise=0.0, seed=0, **options):
    """Candidate for samples of a function, its rows, and its error on fresh points."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = np.asarray(function(X))
    scale = y.std()
    rows = rows_of(X, (y - y.mean()) / scale + noise * rng.standard_normal(n))
    candidate = SineSearch(rows, probe_points(rows.X, rng), seed, **options).run()
    fresh = rng.random((2000, d))
    expected = (np.asarray(function(fresh)) - y.mean()) / scale
    predicted = candidate.mean(tensor(fresh))[:, 0].numpy()
    return candidate, rows, float(np.sqrt(np.mean((predicted - expected) ** 2)))


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("shape", ["flat", "gauss", "matern"])
def test_frequencies_are_scaled_by_the_bandwidth(shape, d):
    small, large = (Spectrum(shape, k, (1.0,) * d).draw(64, 0, LIKE) for k in (1.0, 8.0))
    torch.testing.assert_close(large.frequencies, 8 * small.frequencies)
    again = Spectrum(shape, 1.0, (1.0,) * d).draw(64, 0, LIKE)
    assert torch.equal(small.frequencies, again.frequencies)
    assert small.frequencies.shape == (64, d)
    if shape == "flat":
        assert float(small.frequencies.abs().max()) <= 1


def test_normal_frequencies_have_the_right_spread():
    frequencies = Spectrum("gauss", 2.0, (1.0, 0.5)).draw(1024, 0, LIKE).frequencies
    np.testing.assert_allclose(frequencies.std(0), [2.0, 1.0], rtol=0.05)


def test_band_limited_function_is_met_to_round_off():
    candidate, _, error = search(lambda X: np.sin(20 * X[:, 0]) + np.cos(7 * X[:, 0]))
    assert error < 1e-11
    assert candidate.leave_one_out < 1e-11
    assert candidate.calibrated < 1e-10


@pytest.mark.parametrize("noise", [1e-3, 0.1])
def test_noise_is_averaged_out(noise):
    candidate, _, error = search(lambda X: np.sin(9 * X[:, 0]), n=400, noise=noise)
    assert error < 0.4 * noise
    assert candidate.leave_one_out == pytest.approx(noise, rel=0.15)
    assert candidate.dof < 60


def test_inputs_without_effect_fade_out():
    def function(X):
        return np.sin(8 * X[:, 0])

    scaled, _, error = search(function, n=300, d=3)
    sizes = scaled.stages[0].basis.frequencies.square().mean(0).sqrt()
    assert float(sizes[1:].max()) < 0.3 * float(sizes[0])
    _, _, other = search(function, n=300, d=3, rescale=False)
    assert error < 0.1 * other


def test_given_ridge_is_kept():
    candidate, _, _ = search(lambda X: np.sin(9 * X[:, 0]), alpha=1e-3)
    assert candidate.alpha == 1e-3


def test_calibrated_error_sees_gaps():
    rng = np.random.default_rng(0)
    X = np.concatenate([0.3 * rng.random(60), 1 - 0.3 * rng.random(60)])[:, None]
    rows = rows_of(X, np.sin(40 * X[:, 0]) * math.sqrt(2))
    candidate = SineSearch(rows, probe_points(rows.X, rng), 0).run()
    fresh = np.linspace(0, 1, 2001)[:, None]
    difference = candidate.mean(tensor(fresh))[:, 0].numpy() - math.sqrt(2) * np.sin(
        40 * fresh[:, 0]
    )
    error = np.sqrt(np.mean(difference**2))
    assert candidate.calibrated > 10 * candidate.leave_one_out
    assert candidate.calibrated > 0.05 * error


def test_polynomials_join_where_they_are_likelier():
    def curved(X):
        return 4 * X[:, 0] ** 3 - 3 * X[:, 0] + 0.1 * np.sin(40 * X[:, 0])

    candidate, _, error = search(curved, n=60, noise=1e-3)
    assert candidate.stages[0].basis.degree == 3
    assert error < 1e-3
    candidate, _, _ = search(lambda X: np.sin(25 * X[:, 0]), n=200, noise=0.1)
    assert candidate.stages[0].basis.degree == 1


def test_a_stage_without_hope_tries_no_other_shapes():
    rng = np.random.default_rng(0)
    X = rng.random((60, 1))
    rows = rows_of(X, rng.standard_normal(60))
    shapes = []
    for worth in (0.9, math.inf):
        stage = SineSearch(rows, probe_points(rows.X, rng), 0, worth=worth)
        stage.run()
        shapes.append({fit.spectrum.shape for fit in stage.memory.values()})
    assert shapes == [{"flat"}, {"flat", "gauss", "matern"}]


def test_variances_are_those_of_even_probes_where_columns_are_many(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.random((150, 2))
    y = np.sin(9 * X[:, 0]) + 0.1 * rng.standard_normal(150)
    rows = rows_of(X, y - y.mean())
    found = SineSearch(rows, probe_points(rows.X, rng), 0)
    fit = found._fit(Spectrum("flat", 8.0, (1.0, 1.0)))
    whole = fit.path.probed(fit.alpha, fit.basis.matrix(found.probes))
    assert found._probed(fit, fit.alpha) == whole
    monkeypatch.setattr(sines, "MOST_PROBING", 300 * fit.basis.n_columns**2)
    monkeypatch.setattr(sines, "FEWEST_PROBES", 100)
    some = found._probed(fit, fit.alpha)
    assert some != whole
    assert some == pytest.approx(whole, rel=0.1)


def n_fits(values, d=1, **options):
    """Number of spectra that a search fits, and its candidate."""
    values = (values - values.mean()) / values.std()
    rows = rows_of(np.random.default_rng(0).random((len(values), d)), values)
    found = SineSearch(rows, probe_points(rows.X, np.random.default_rng(0)), 0, **options)
    candidate = found.run()
    return len(found.memory), candidate


@pytest.mark.parametrize("d", [1, 2])
def test_noise_that_no_octave_tells_ends_the_search_for_more(d):
    noise = np.random.default_rng(5).standard_normal(120)
    octaves = int(max(math.log2(math.pi * 120 ** (1 / d) / 2), 1) + 0.1) + 1
    most, candidate = n_fits(noise, d, worth=0.9)
    assert most == octaves
    assert candidate.leave_one_out > 0.9
    assert n_fits(noise, d)[0] > octaves


def test_bands_far_too_wide_for_the_rows_are_not_tried():
    x = np.random.default_rng(0).random((600, 1))[:, 0]
    search = SineSearch(rows_of(x[:, None], np.sin(9 * x)), tensor(x[:, None]), 0)
    search.run()
    widest = max(fit.spectrum.bandwidth for fit in search.memory.values())
    assert widest < search.nyquist / 2


def test_fits_of_all_rows_are_spared_where_the_pilot_was_out_of_reach(monkeypatch):
    solved = []
    solve = SineSearch._solve

    def counted(self, spectrum, most, rows, ridge=0.0):
        if rows is self.rows:
            solved.append(spectrum.bandwidth)
        return solve(self, spectrum, most, rows, ridge)

    monkeypatch.setattr(SineSearch, "_solve", counted)
    monkeypatch.setattr(sines, "PILOT_ROWS", 300)
    monkeypatch.setattr(sines, "PILOT_COLUMNS", 200)
    *_, error = search(lambda X: np.sin(4 * X[:, 0]) * X[:, 1], n=700, d=2)
    assert len(solved) == 1
    assert error < 1e-9
