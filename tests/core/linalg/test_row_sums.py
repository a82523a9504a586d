"""Sums over rows: what they know of all rows, in whatever blocks these came."""

import numpy as np
import pytest
import torch

from skpou.core.linalg import RowSums


def rows(n=300, p=5, m=2):
    rng = np.random.default_rng(0)
    A = torch.as_tensor(np.hstack([np.ones((n, 1)), rng.standard_normal((n, p - 1))]))
    y = torch.as_tensor(rng.standard_normal((n, m)) + np.array([5.0, -100.0]))
    return A, y, torch.as_tensor(rng.integers(0, 3, n).astype(float))


def summed(A, y, weight, blocks):
    found = RowSums.empty(A.shape[1], y.shape[1], A)
    for block in blocks:
        found.add(A[block], y[block], weight[block])
    return found


@pytest.mark.parametrize("size", [7, 300])
def test_moments_are_those_of_the_rows(size):
    A, y, weight = rows()
    order = torch.as_tensor(np.random.default_rng(1).permutation(300))
    sums = summed(A, y, weight, order.split(size))
    root = weight.sqrt()[:, None]
    both = torch.cat([A, y], 1) * root
    torch.testing.assert_close(sums.factor.T @ sums.factor, both.T @ both)
    assert sums.total == float(weight.sum())
    assert sums.count == int((weight > 0).sum())
    kept = y[weight > 0]
    assert torch.equal(
        torch.stack([sums.low, sums.high]), torch.stack([*torch.aminmax(kept, dim=0)])
    )
    mean = np.average(y, axis=0, weights=weight)
    torch.testing.assert_close(sums.mean(), torch.as_tensor(mean))
    rms = np.sqrt(np.average((y.numpy() - mean) ** 2, axis=0, weights=weight))
    torch.testing.assert_close(sums.rms(), torch.as_tensor(rms))


def test_the_rows_that_stand_for_all_leave_the_same_residual():
    A, y, weight = rows()
    sums = summed(A, y, weight, [slice(None)])
    mean, scale = sums.mean(), sums.rms()
    coef = torch.as_tensor(np.random.default_rng(2).standard_normal((5, 2)))
    here = sums.targets(mean, scale) - sums.columns @ coef
    there = weight.sqrt()[:, None] * ((y - mean) / scale - A @ coef)
    torch.testing.assert_close(here.square().sum(0), there.square().sum(0))


def test_digits_that_normal_equations_lose_are_kept():
    """Columns that differ by 1e-9: their Gram matrix is singular, their factor is not."""
    A, _, weight = rows()
    A[:, 2] = A[:, 1] + 1e-9 * A[:, 2]
    y = (A @ torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0], dtype=torch.float64))[:, None]
    sums = summed(A, y, weight, torch.arange(300).split(50))
    least = torch.linalg.svdvals(sums.columns)[-1]
    torch.testing.assert_close(
        least, torch.linalg.svdvals(weight.sqrt()[:, None] * A)[-1], rtol=1e-6, atol=0
    )


def test_merged_sums_and_their_state():
    A, y, weight = rows()
    parts = [summed(A, y, weight, [part]) for part in (slice(0, 100), slice(100, None))]
    parts[0].merge(RowSums.from_arrays(parts[1].arrays(), A))
    whole = summed(A, y, weight, [slice(None)])
    torch.testing.assert_close(parts[0].factor.abs(), whole.factor.abs())
    assert (parts[0].total, parts[0].count) == (whole.total, whole.count)


def test_blocks_without_weight_are_nothing():
    A, y, weight = rows()
    sums = summed(A, y, 0 * weight, [slice(None)])
    assert (sums.total, sums.count) == (0.0, 0)
    assert not sums.factor.any()
