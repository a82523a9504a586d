"""Samples of rows: which rows are in one depends on the rows alone."""

import numpy as np
import pytest
import torch

from skpou.core import RowSample, sample
from skpou.core.sample import keys_of


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    X, y = (torch.as_tensor(rng.standard_normal(shape)) for shape in ((n, 2), (n, 1)))
    return X, y, torch.as_tensor(rng.integers(0, 3, n).astype(float))


def sampled(X, y, weight, blocks):
    found = RowSample.empty(2, 1, X)
    for block in blocks:
        found.add(X[block], y[block], weight[block])
    return found


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(sample, "MOST_ROWS", 30)


def test_neither_order_nor_blocks_matter(few):
    X, y, weight = rows(200)
    whole = sampled(X, y, weight, [slice(None)])
    order = torch.as_tensor(np.random.default_rng(1).permutation(200))
    other = sampled(X, y, weight, order.split(17))
    for name in ("X", "y", "weight", "key"):
        assert torch.equal(getattr(whole, name), getattr(other, name))
    assert len(whole.key) == 30
    assert bool((whole.weight > 0).all())


def test_equal_rows_are_one_with_all_their_weight(few):
    X, y, weight = rows(100)
    once = sampled(X, y, weight, [slice(None)])
    twice = sampled(X, y, weight, [slice(0, 60), slice(None), slice(60, None)])
    assert torch.equal(once.X, twice.X)
    assert torch.equal(2 * once.weight, twice.weight)


def test_merged_samples_are_that_of_all_rows(few):
    X, y, weight = rows(100)
    parts = [sampled(X, y, weight, [part]) for part in (slice(0, 20), slice(20, None))]
    parts[0].merge(parts[1])
    assert torch.equal(parts[0].X, sampled(X, y, weight, [slice(None)]).X)


def test_a_sample_is_like_the_rows():
    """Keys follow neither values nor their sums: means of the least keys are those of all."""
    grid = torch.cartesian_prod(*[torch.arange(40.0, dtype=torch.float64)] * 2)
    key = keys_of(grid)
    assert len(key.unique()) == len(key)
    part = grid[key.argsort()[:400]]
    # Five standard errors of a mean of 400 rows.
    np.testing.assert_allclose(part.mean(0), 19.5, atol=5 * 11.5 / 20)
    assert abs(float(torch.corrcoef(part.T)[0, 1])) < 5 / 20


def test_zeros_of_both_signs_are_one():
    assert torch.equal(*(keys_of(torch.tensor([[z, 1.0]])) for z in (0.0, -0.0)))


def test_state_survives():
    found = sampled(*rows(20), [slice(None)])
    again = RowSample.from_arrays(found.arrays(), found.X)
    assert torch.equal(found.key, again.key)
    assert torch.equal(found.y, again.y)
