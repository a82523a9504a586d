"""Triangular factors of segments of rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skpou.core.linalg import statistics
from skpou.core.linalg.statistics import (
    row_blocks,
    rows_within,
    triangular_factor,
    triangular_factors,
)
from tests.contracts import DTYPES, EPS, same_bits

UNEQUAL = [0, 1, 3, 4, 5, 1000, 17, 0, 64, 257, 16, 0]


def segments(sizes, p, seed=0, shuffle=True):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if shuffle:
        rng.shuffle(labels)
    return torch.as_tensor(rng.standard_normal((len(labels), p))), torch.as_tensor(labels)


def assert_factors(R, A, labels, n_segments, allowed=1e-13):
    """R is upper triangular, and R'R is the Gram matrix of each segment."""
    p = A.shape[1]
    assert R.shape == (n_segments, p, p)
    assert not R.tril(-1).any(), "the factors are not upper triangular"
    for s in range(n_segments):
        rows = A[labels == s].numpy().astype(np.longdouble)
        gram = rows.T @ rows
        product = R[s].numpy().astype(np.longdouble)
        error = np.abs(product.T @ product - gram).max()
        assert error <= allowed * max(np.abs(gram).max(), np.finfo(float).tiny), (s, error)


@pytest.mark.parametrize("p", [1, 4, 7])
@pytest.mark.parametrize("shuffle", [False, True])
def test_segments_of_very_unequal_sizes(p, shuffle):
    A, labels = segments(UNEQUAL, p, shuffle=shuffle)
    R = triangular_factors(A, labels, len(UNEQUAL))
    assert_factors(R, A, labels, len(UNEQUAL))
    for s, size in enumerate(UNEQUAL):
        if size >= p:
            expected = np.abs(np.linalg.qr(A[labels == s].numpy(), mode="r"))
            np.testing.assert_allclose(R[s].abs(), expected, rtol=1e-10, atol=1e-11)
        if not size:
            assert not R[s].any()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n_segments", "p"), [(1, 1), (1, 4), (3, 2), (5, 6)])
def test_segments_of_exactly_as_many_rows_as_columns(n_segments, p, shuffle):
    A, labels = segments([p] * n_segments, p, shuffle=shuffle)
    assert_factors(triangular_factors(A, labels, n_segments), A, labels, n_segments)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 99))
def test_any_sizes(sizes, p, seed):
    A, labels = segments(sizes, p, seed)
    assert_factors(triangular_factors(A, labels, len(sizes)), A, labels, len(sizes))


def test_no_rows():
    R = triangular_factors(torch.empty((0, 3)), torch.empty(0, dtype=torch.int64), 4)
    assert torch.equal(R, torch.zeros((4, 3, 3)))


def test_a_segment_does_not_depend_on_the_others():
    A, labels = segments(UNEQUAL, 3)
    together = triangular_factors(A, labels, len(UNEQUAL))
    for s in range(len(UNEQUAL)):
        rows = A[labels == s]
        alone = triangular_factors(rows, torch.zeros(len(rows), dtype=torch.int64), 1)[0]
        torch.testing.assert_close(
            alone.T @ alone, together[s].T @ together[s], rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("size", [1, 2, 3, 10, 999, 1000])
def test_blocks_of_any_size_combine_to_the_same_factor(size):
    A, _ = segments([1000], 4)
    running = torch.zeros((4, 4), dtype=A.dtype)
    for block in row_blocks(len(A), size):
        running = triangular_factor(torch.cat([running, A[block]]))
    assert_factors(running[None], A, torch.zeros(len(A)), 1, allowed=1e-12)
    whole = triangular_factors(A, torch.zeros(len(A), dtype=torch.int64), 1)[0]
    torch.testing.assert_close(running.abs(), whole.abs(), rtol=1e-10, atol=1e-11)


def test_small_columns_keep_their_digits():
    # A Gram matrix would lose a column of 1e-12 beside one of 1; QR does not.
    rng = np.random.default_rng(3)
    A = torch.as_tensor(rng.standard_normal((500, 3)))
    A[:, 2] = A[:, 0] + 1e-12 * A[:, 1]
    A[:, 1] = 1.0
    R = triangular_factors(A, torch.zeros(500, dtype=torch.int64), 1)[0]
    assert 1e-13 < abs(float(R[2, 2])) / 500**0.5 < 1e-11


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
def test_scale_and_dtype(scale, dtype):
    A, labels = segments([30, 2, 9], 3)
    A = A.to(dtype)
    R = triangular_factors(A * scale, labels, 3)
    assert R.dtype == dtype
    expected = triangular_factors(A, labels, 3)
    error = (R / scale - expected).abs().max() / expected.abs().max()
    assert error < 20 * EPS[dtype]


def test_same_bits_on_every_call():
    A, labels = segments(UNEQUAL, 5)
    first = triangular_factors(A, labels, len(UNEQUAL))
    held = []
    for i in range(50):
        held.append(torch.full((31 * i + 1,), torch.nan))
        assert same_bits(triangular_factors(A, labels, len(UNEQUAL)), first)


def test_input_is_not_changed():
    A, labels = segments([5, 2], 2)
    kept = A.clone(), labels.clone()
    triangular_factors(A, labels, 2).fill_(0.0)
    triangular_factor(A).fill_(0.0)
    assert torch.equal(A, kept[0])
    assert torch.equal(labels, kept[1])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8])
def test_square_factor_of_few_rows(n):
    A = torch.as_tensor(np.random.default_rng(4).standard_normal((2, n, 3)))
    R = triangular_factor(A)
    assert R.shape == (2, 3, 3)
    torch.testing.assert_close(R.mT @ R, A.mT @ A, rtol=1e-13, atol=1e-13)


@given(st.integers(0, 50), st.integers(1, 60))
def test_row_blocks_cover_all_rows_once(n_rows, batch_size):
    blocks = row_blocks(n_rows, batch_size)
    assert len(blocks) >= 1
    rows = [i for block in blocks for i in range(n_rows)[block]]
    assert rows == list(range(n_rows))
    assert all(block.stop - block.start <= batch_size for block in blocks)


def test_rows_within_a_budget():
    assert rows_within(10, 100) == 10
    assert rows_within(1000, 100) == 1
    assert rows_within(0, 100) == 100


@pytest.mark.parametrize("block", [1, 5, 1000])
@pytest.mark.parametrize("n", [0, 1, 3, 40])
def test_weighted_factors_are_those_of_scaled_rows(n, block, monkeypatch):
    rng = np.random.default_rng(0)
    A, weight = torch.as_tensor(rng.standard_normal((n, 4))), torch.as_tensor(rng.random((n, 3)))
    weight[:, 1] = 0.0
    monkeypatch.setattr(statistics, "rows_within", lambda *_: block)
    kept = A.clone()
    R = statistics.weighted_factors(A, weight)
    assert R.shape == (3, 4, 4)
    assert torch.equal(R, R.triu())
    expected = torch.einsum("na,ns,nb->sab", A, weight, A)
    torch.testing.assert_close(R.mT @ R, expected, rtol=1e-13, atol=1e-14)
    assert torch.equal(A, kept)
