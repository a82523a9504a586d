"""Kernels that may have made a few rows: they tell of several, whether noisy or exact."""

import numpy as np
import pytest
import torch

from skpou import SparseGridRegressor
from skpou.core import Rows
from skpou.core.models import interpolant_fit, leave_out, residual_maker
from skpou.core.models.interpolant_fit import _left_out, solved
from skpou.core.models.kernel_average import likely_kernels, of_average
from skpou.core.models.likely_kernels import likeliest_kernel
from tests.examples import tensor


def rows_of(x, y):
    y = tensor((y - y.mean()) / y.std())[:, None]
    return Rows(tensor(x)[:, None], y, torch.ones(len(x)).double(), torch.zeros_like(y))


def kernels_of(rows):
    return likely_kernels(rows, 0, likeliest_kernel(rows, 0))


def test_exact_rows_of_a_smooth_function_leave_its_length_open():
    x, new = np.linspace(0, 1, 16), np.linspace(0, 1, 301)
    at, held = tensor(new)[:, None], []
    for steepness in range(3, 11):
        y, truth = (np.tanh(steepness * (part - 0.4)) for part in (x, new))
        rows = rows_of(x, y)
        kernels = kernels_of(rows)
        assert sum(share for share, _ in kernels) == pytest.approx(1)
        assert max(share for share, _ in kernels) < 0.7
        found = solved(rows, [kernels])
        error = (truth - y.mean()) / y.std() - found.mean(at)[:, 0].numpy()
        deviation = found.variance(at)[:, 0].sqrt().numpy()
        held.append(np.mean(np.abs(error) <= 3 * deviation))
    assert np.mean(held) >= 0.97


def test_a_kernel_whose_covariance_is_not_positive_is_left_out():
    x = np.linspace(0, 1, 52)
    rows = rows_of(x, np.sin(2 * x))
    unsound = 0, (0.0,), np.array([0.0, 8.0, -40.0])
    with pytest.raises(np.linalg.LinAlgError):
        solved(rows, [[(1.0, unsound)]])
    found = solved(rows, [likely_kernels(rows, 0, unsound)])
    assert torch.isfinite(found.variance(rows.X)).all()


def test_few_noisy_rows_may_have_been_made_by_many_of_which_the_likeliest_predicts():
    rng = np.random.default_rng(3)
    x = np.sort(rng.random(12))
    rows = rows_of(x, np.sin(5 * x) + 0.1 * rng.standard_normal(12))
    kernels = kernels_of(rows)
    assert len(kernels) > 3
    assert sum(share for share, _ in kernels) == pytest.approx(1)
    together, alone = solved(rows, [kernels]), solved(rows, [[(1.0, kernels[0][1])]])
    new = tensor(np.linspace(0, 1, 31))[:, None]
    torch.testing.assert_close(together.mean(new), alone.mean(new))
    torch.testing.assert_close(together.gradient(new), alone.gradient(new))
    # Eq. of total variance about the likeliest, each by itself.
    each = [solved(rows, [[(1.0, choice)]]) for _, choice in kernels]
    for one in (*each, together):
        diagonal = one.covariance(new).diagonal(dim1=0, dim2=1).T
        torch.testing.assert_close(diagonal, one.variance(new), rtol=1e-6, atol=1e-12)
    apart = torch.stack([(one.mean(new) - alone.mean(new)).square() for one in each])
    share = tensor([share for share, _ in kernels])[:, None, None]
    least = (share * apart).sum(0)
    assert (together.variance(new) > least).all()


def test_noise_that_one_kernel_takes_for_the_function_is_in_the_bars():
    held = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.random(11))
        y = np.sin(4 * x) + 0.1 * rng.standard_normal(11)
        rows = rows_of(x, y)
        found = solved(rows, [kernels_of(rows)])
        at = np.linspace(x[0], x[-1], 60)
        error = (
            found.mean(tensor(at[:, None]))[:, 0].numpy() - (np.sin(4 * at) - y.mean()) / y.std()
        )
        held.append(np.abs(error) <= 2 * found.variance(tensor(at[:, None]))[:, 0].sqrt().numpy())
    assert np.mean(held) > 0.88


def test_the_average_has_the_variance_about_the_first():
    mean, variance = of_average([0.25, 0.75], [np.zeros(2), np.ones(2)], [np.ones(2), np.ones(2)])
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_allclose(variance, 1.75)


def test_kernels_whose_covariance_fails_without_some_rows_do_not_count():
    x = np.linspace(0, 1, 52)[:, None]
    rows = rows_of(x[:, 0], np.sin(2 * x[:, 0]))
    sets = leave_out([[residual_maker(tensor(np.ones((len(x), 1))), 0.0)]], rows)[0]
    sound = likeliest_kernel(rows, 0)
    unsound = 0, (0.0,), np.array([0.0, 8.0, -40.0])
    kernels, found = _left_out(rows, [(0.5, unsound), (0.5, sound)], sets)
    assert kernels == [(1.0, sound)]
    assert np.isfinite(found.error).all()
    with pytest.raises(np.linalg.LinAlgError, match="no kernel"):
        _left_out(rows, [(1.0, unsound)], sets)


@pytest.mark.parametrize(("share", "has_tails"), [(0.05, False), (0.4, True)])
def test_hardly_likely_noise_leaves_no_tails(monkeypatch, share, has_tails):
    x = np.linspace(0, 1, 14)
    y = np.sin(5 * x) / (1 + x)
    kind, stretch, theta = likeliest_kernel(rows_of(x, y), 0)
    noisy = kind, stretch, np.r_[theta[:-1], np.log(1e-3)]
    kernels = [(1 - share, (kind, stretch, theta)), (share, noisy)]
    monkeypatch.setattr(interpolant_fit, "likely_kernels", lambda *_: kernels)
    model = SparseGridRegressor().fit(x[:, None], y)
    assert "interpolant" in model._restraint
    # The mean of their noise is clear in both, and differs by a factor of eight.
    assert (model._restraint["tails"] is not None) == has_tails
