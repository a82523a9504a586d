"""Orthonormal bases of columns that are dependent up to round-off."""

import numpy as np
import pytest
import torch

from skpou.core.linalg import range_to_round_off
from skpou.core.linalg.ranges import BLOCK, FEWEST_COLUMNS


def columns_of_rank(rank, n, p):
    """Columns (n, p) that are combinations of a few, of very different sizes."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** -np.linspace(0, 12, rank)
    few = np.linalg.qr(rng.standard_normal((n, rank)))[0] * sizes
    return torch.as_tensor(few @ np.linalg.qr(rng.standard_normal((p, rank)))[0].T)


@pytest.mark.parametrize(("n", "rank"), [(500, 20), (500, 100), (300, 100)])
def test_the_basis_has_all_of_the_columns_but_round_off(n, rank):
    A = columns_of_rank(rank, n, 400)
    Q = range_to_round_off(A)
    assert rank <= Q.shape[1] <= rank + 2 * BLOCK
    eye = torch.eye(Q.shape[1], dtype=A.dtype)
    torch.testing.assert_close(Q.T @ Q, eye, rtol=0, atol=1e-13)
    torch.testing.assert_close(Q @ (Q.T @ A), A, rtol=0, atol=1e-14)


def test_the_same_columns_give_the_same_bits():
    A = columns_of_rank(50, 500, 400)
    assert torch.equal(range_to_round_off(A), range_to_round_off(A.clone()))


def test_columns_that_are_few_or_mostly_independent_have_none():
    rng = np.random.default_rng(1)
    full = torch.as_tensor(rng.standard_normal((500, 400)))
    assert range_to_round_off(full) is None
    assert range_to_round_off(columns_of_rank(5, 500, FEWEST_COLUMNS - 1)) is None
    assert range_to_round_off(columns_of_rank(5, BLOCK - 1, 400)) is None
