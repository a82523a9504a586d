"""Sums of the same rows under each of many weights."""

import pytest
import torch

from skpou.core.linalg import WeightedSums, weighted_factors

SEED = 3


def rows_and_weights(n=700, p=6, S=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(SEED)
    rows = torch.rand((n, p), generator=generator, dtype=dtype)
    weight = torch.rand((n, S), generator=generator, dtype=dtype)
    return rows, weight


def summed(rows, weight, exact, size):
    sums = WeightedSums(rows.shape[1], exact, rows)
    for start in range(0, len(rows), size):
        sums.add(rows[start : start + size], weight[start : start + size])
    return sums.factors()


@pytest.mark.parametrize("size", [1, 64, 700])
def test_factors_are_those_of_the_rows(size):
    rows, weight = rows_and_weights()
    exact = torch.tensor([False, True, False, False, True])
    factors, lost = summed(rows, weight, exact, size)
    assert not lost.any()
    assert not factors.tril(-1).any()
    grams = torch.einsum("np,ns,nq->spq", rows, weight, rows)
    torch.testing.assert_close(factors.mT @ factors, grams, rtol=1e-12, atol=1e-12)


def test_scales_of_columns_do_not_matter():
    """Powers of two leave every digit as it is."""
    rows, weight = rows_and_weights()
    exact = torch.zeros(5, dtype=torch.bool)
    scale = 2.0 ** torch.tensor([-60, 40, 0, 3, 200, -7], dtype=torch.float64)
    plain = summed(rows, weight, exact, 100)[0]
    scaled, lost = summed(rows * scale, weight, exact, 100)
    assert not lost.any()
    assert torch.equal(scaled, plain * scale)


def test_columns_that_products_cannot_tell_apart_are_said_to_be():
    rows, weight = rows_and_weights()
    weight[:, 2] = 0
    exact = torch.zeros(5, dtype=torch.bool)
    near = torch.cat([rows, rows.sum(1, keepdim=True) + 1e-7 * rows[:, :1].square()], 1)
    assert summed(near, weight, exact, 100)[1].all()
    expected = torch.zeros(5, dtype=torch.bool)
    expected[2] = True  # Nothing has weight there.
    assert torch.equal(summed(rows, weight, exact, 100)[1], expected)
    factors, lost = summed(near, weight, ~exact, 100)
    assert not lost.any()
    torch.testing.assert_close(
        factors[0, -1, -1].abs(), weighted_factors(near, weight[:, :1])[0, -1, -1].abs()
    )


def test_single_precision_is_never_enough():
    rows, weight = rows_and_weights(dtype=torch.float32)
    assert summed(rows, weight, torch.zeros(5, dtype=torch.bool), 100)[1].all()
