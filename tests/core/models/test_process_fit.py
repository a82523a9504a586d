"""A process fitted beside a form: rough kernels, many columns, and where it knows nothing."""

import numpy as np
import pytest
import torch

from skpou.core import merge_rows
from skpou.core.models.process_companion import ProcessCompanion
from skpou.core.models.process_fit import MOST_DIRECTIONS, _directions, _fit_process, fit_process
from tests.core.models.test_process_companion import left_out_with, rows_of
from tests.examples import slow, tensor


def wave(n=60, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    return X, np.sin(5 * X[:, 0]) + X[:, 1] + noise * rng.standard_normal(n)


@pytest.fixture(scope="module", params=["smooth", "rough"])
def local(request):
    X, y = wave()
    process = _fit_process(rows_of(X, y))
    rough = torch.tensor([request.param == "rough"])
    parts = {**vars(process), "share": tensor([0.7]), "usual": tensor([0.9]), "rough": rough}
    return ProcessCompanion(**{k: v for k, v in parts.items() if not k.startswith("_")})


def test_weight_falls_with_what_is_known_of_the_process(local):
    at_row = local.weight_at(local.points[:1])
    far = local.weight_at(tensor([[40.0, -40.0]]))
    assert at_row.item() == pytest.approx(0.7, abs=0.07)
    assert far.item() == 0
    variance = local.variance(tensor([[1.3, 0.5]]))
    known = 1 - variance / local.variances[:, 1]
    expected = 0.7 * min(known.clamp_min(0).item() / 0.9, 1)
    assert local.weight_at(tensor([[1.3, 0.5]])).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_of_the_weighted_mean_is_its_derivative(local):
    X = tensor(np.random.default_rng(1).random((8, 2)) * 1.6 - 0.3)
    slopes = tensor([2.0, -1.0])

    def weighted(X):
        return local.beside((X @ slopes)[:, None], X)

    step = 1e-5
    numeric = torch.stack(
        [(weighted(X + e) - weighted(X - e)) / (2 * step) for e in step * torch.eye(2).double()], 1
    )
    own = slopes.expand(8, 2)[..., None]
    found = local.gradient_beside(own, (X @ slopes)[:, None], X)
    torch.testing.assert_close(found, numeric, rtol=1e-6, atol=1e-7)


def test_what_bends_sharply_is_rough_and_what_is_smooth_is_not():
    rng = np.random.default_rng(3)
    x = np.sort(rng.random(120))[:, None]
    walk = np.cumsum(rng.standard_normal(120)) / 8
    assert bool(_fit_process(rows_of(x, walk)).rough)
    assert (
        _fit_process(rows_of(x, np.sin(7 * x[:, 0]) + 0.05 * rng.standard_normal(120))).rough
        is None
    )


def spectra(n, rng, d=60):
    """Smooth curves of two hidden numbers, with offsets; a target that bends with one of them."""
    t = np.linspace(0, 1, d)
    a, b = rng.random(n), rng.random(n)
    X = np.outer(a, np.sin(3 * t)) + np.outer(b, t**2) + 0.001 * rng.standard_normal((n, d))
    return X, np.sin(4 * a)


def test_spectra_are_seen_through_their_principal_components():
    rng = np.random.default_rng(4)
    X, y = spectra(100, rng)
    rows = rows_of(X, y)
    directions = _directions(rows)
    assert directions.shape == (60, MOST_DIRECTIONS)
    seen = rows.X @ directions
    torch.testing.assert_close(seen.amax(0) - seen.amin(0), torch.ones(MOST_DIRECTIONS).double())
    process = _fit_process(rows)
    new, truth = spectra(50, rng)
    assert np.abs(process.mean(tensor(new))[:, 0].numpy() - truth).max() < 0.1
    step = 1e-4
    along = rng.standard_normal(60)
    ahead, behind = (process.mean(tensor(new + s * step * along)) for s in (1, -1))
    slope = torch.einsum("ndm,d->nm", process.gradient(tensor(new)), tensor(along))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)
    assert _directions(rows_of(X[:, :20], y)) is None


def test_variance_beside_a_fit_that_promises_too_much_of_it_is_that_of_the_errors():
    X, y = wave(100, 0.3, 5)
    rows = rows_of(X, y)
    truth = np.sin(5 * X[:, 0]) + X[:, 1]
    left_out = left_out_with(rows, truth - truth.mean())
    found = fit_process(rows, left_out, None, torch.full((100, 1), 25.0).double())
    assert found.share.item() > 0.8
    assert found.part.item() == 1
    assert 0.5 < found.factor.item() < 2


def test_more_rows_tell_a_short_length_from_noise():
    rng = np.random.default_rng(6)
    X = rng.random((320, 2))
    y = np.exp(-60 * ((X - 0.4) ** 2).sum(1)) + np.exp(-90 * ((X - 0.7) ** 2).sum(1))
    assert _fit_process(rows_of(X, y)).noise.item() < 1e-5


@pytest.mark.parametrize("n", [60, *slow(150)])
def test_pure_noise_asks_for_no_process_and_a_wave_does(n):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, y = rng.random((n, 3)), rng.standard_normal(n)
        rows = rows_of(X, (y - y.mean()) / y.std())
        # A form that explains nothing leaves y itself.
        assert fit_process(rows, left_out_with(rows, rows.y[:, 0].numpy())) is None
    y = np.sin(12 * X[:, 0]) + 0.5 * y
    rows = rows_of(X, (y - y.mean()) / y.std())
    assert fit_process(rows, left_out_with(rows, rows.y[:, 0].numpy())).share.item() > 0.5


def test_few_doses_tried_again_have_a_process_with_the_noise_that_these_tell():
    rng = np.random.default_rng(8)
    x = np.repeat(np.linspace(0, 1, 7), 4)
    y = np.tanh(6 * x - 3) + 0.2 * rng.standard_normal(28)
    one = torch.ones(28, dtype=torch.float64)
    rows = merge_rows(tensor(x[:, None]), tensor(y - y.mean())[:, None], one)
    process = _fit_process(rows)
    within = rows.within.sum().item() / 21
    assert process.noise.item() == pytest.approx(within, rel=0.5)
    truth = torch.tanh(6 * rows.X[:, 0] - 3)
    assert (process.mean(rows.X)[:, 0] + y.mean() - truth).abs().max() < 0.3
    assert _fit_process(rows_of(rows.X.numpy(), rows.y[:, 0].numpy())) is None


def test_rows_that_are_too_few_to_search_again_lean_on_the_process_of_all():
    X = np.random.default_rng(9).random((16, 5))
    y = X @ np.array([3.0, -2.0, 1.0, 0.0, 0.0])
    rows = rows_of(X, (y - y.mean()) / y.std())
    found = fit_process(rows, left_out_with(rows, 0.5 * rows.y[:, 0].numpy()))
    assert found.share.item() > 0.5
