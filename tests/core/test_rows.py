"""Distinct rows: weights are frequencies, and nothing depends on order or repetition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpou.core.rows import lexicographic_order, merge_rows
from tests.contracts import DTYPES, same_bits

FIELDS = ("X", "y", "weight", "within")


INTEGERS = st.integers(0, 3).map(float)


@st.composite
def samples(draw, weights=INTEGERS, most_rows=12):
    """Rows with many equal points and targets; at least one of positive weight."""
    n, d, m = draw(st.integers(1, most_rows)), draw(st.integers(0, 3)), draw(st.integers(1, 2))
    values = st.sampled_from([0.0, 0.1, 0.3, 1.0])
    X = draw(st.lists(st.lists(values, min_size=d, max_size=d), min_size=n, max_size=n))
    y = draw(st.lists(st.lists(values, min_size=m, max_size=m), min_size=n, max_size=n))
    weight = draw(st.lists(weights, min_size=n, max_size=n).filter(any))
    parts = [np.array(X).reshape(n, d), np.array(y), np.array(weight)]
    return [torch.as_tensor(part, dtype=torch.float64) for part in parts]


def assert_same(a, b):
    for name in FIELDS:
        assert same_bits(getattr(a, name), getattr(b, name)), name


@settings(max_examples=100)
@given(samples())
def test_integer_weights_equal_repeated_rows(sample):
    X, y, weight = sample
    times = weight.long()
    repeated = [part.repeat_interleave(times, 0) for part in (X, y)]
    ones = torch.ones(int(times.sum()), dtype=weight.dtype)
    assert_same(merge_rows(X, y, weight), merge_rows(*repeated, ones))


@settings(max_examples=100)
@given(samples(), st.integers(0, 9))
def test_order_of_rows_does_not_matter(sample, seed):
    order = torch.as_tensor(np.random.default_rng(seed).permutation(len(sample[0])))
    assert_same(merge_rows(*sample), merge_rows(*(part[order] for part in sample)))


@settings(max_examples=50)
@given(samples(st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.7])), st.integers(0, 9))
def test_order_of_rows_with_any_weights_does_not_matter(sample, seed):
    order = torch.as_tensor(np.random.default_rng(seed).permutation(len(sample[0])))
    assert_same(merge_rows(*sample), merge_rows(*(part[order] for part in sample)))


def test_sums_of_weights_do_not_depend_on_the_order_of_rows():
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit.
    X, y = torch.zeros((4, 1)).double(), torch.tensor([[1.0], [1.0], [1.0], [2.0]]).double()
    weight = torch.tensor([0.1, 0.2, 0.3, 0.125], dtype=torch.float64)
    order = torch.tensor([2, 1, 0, 3])
    assert_same(merge_rows(X, y, weight), merge_rows(X[order], y[order], weight[order]))


@settings(max_examples=100)
@given(samples())
def test_rows_of_weight_zero_are_dropped(sample):
    kept = sample[2] > 0
    assert_same(merge_rows(*sample), merge_rows(*(part[kept] for part in sample)))


@settings(max_examples=100)
@given(samples())
def test_moments_against_a_loop(sample):
    X, y, weight = (part.numpy() for part in sample)
    groups = {}
    for x, target, w in zip(X, y, weight, strict=True):
        if w:
            groups.setdefault(tuple(x), []).append((target, w))
    rows = merge_rows(*sample)
    assert [tuple(x) for x in rows.X.tolist()] == sorted(groups)
    conflict = any(np.ptp([t for t, _ in pairs], axis=0).any() for pairs in groups.values())
    total = sum(w for pairs in groups.values() for _, w in pairs)
    unit = 1.0 if conflict else total / len(groups)
    for i, x in enumerate(sorted(groups)):
        targets = np.array([target for target, _ in groups[x]])
        w = np.array([value for _, value in groups[x]])
        mean = w @ targets / w.sum()
        np.testing.assert_allclose(rows.y[i], mean, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(rows.weight[i], w.sum() / unit, rtol=1e-14)
        np.testing.assert_allclose(
            rows.within[i], w @ np.square(targets - mean), rtol=1e-12, atol=1e-15
        )
    assert rows.n_rows == len(groups)
    assert (rows.n_features, rows.n_outputs) == (X.shape[1], y.shape[1])
    np.testing.assert_allclose(rows.total_weight, total / unit, rtol=1e-14)


def test_weights_are_divided_by_their_mean_only_without_conflicts():
    X = torch.tensor([[0.0], [1.0], [1.0]])
    weight = torch.tensor([4.0, 1.0, 1.0])
    agreeing = merge_rows(X, torch.tensor([[5.0], [2.0], [2.0]]), weight)
    assert agreeing.weight.tolist() == [pytest.approx(4 / 3), pytest.approx(2 / 3)]
    assert not agreeing.within.any()
    conflicting = merge_rows(X, torch.tensor([[5.0], [2.0], [4.0]]), weight)
    assert conflicting.weight.tolist() == [4.0, 2.0]
    assert conflicting.y.tolist() == [[5.0], [3.0]]
    assert conflicting.within.tolist() == [[0.0], [2.0]]


def test_targets_that_agree_are_kept_to_the_last_bit():
    # A weighted mean of equal numbers may differ from them by round-off; here it may not.
    X = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)
    y = torch.tensor([[0.1, 0.3], [0.1, 0.7], [1 / 3, 0.1], [1 / 3, 0.1]], dtype=torch.float64)
    rows = merge_rows(X, y, torch.tensor([0.3, 0.6, 0.1, 0.7], dtype=torch.float64))
    assert rows.y[0, 0] == 0.1
    assert rows.y[1].tolist() == [1 / 3, 0.1]
    assert rows.within[0, 0] == 0
    assert not rows.within[1].any()


def test_spread_beside_a_large_mean():
    y = 1e8 + torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    rows = merge_rows(torch.zeros((3, 1)).double(), y, torch.ones(3).double())
    assert rows.y.item() == 1e8 + 1
    assert rows.within.item() == 2.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_kept_and_input_not_changed(dtype):
    given_parts = [
        torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0]], dtype=dtype),
        torch.tensor([[1.0], [2.0], [3.0]], dtype=dtype),
        torch.tensor([1.0, 0.0, 2.0], dtype=dtype),
    ]
    kept = [part.clone() for part in given_parts]
    rows = merge_rows(*given_parts)
    for name in FIELDS:
        assert getattr(rows, name).dtype == dtype
        getattr(rows, name).fill_(-1.0)
    assert all(torch.equal(a, b) for a, b in zip(given_parts, kept, strict=True))


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=20))
def test_lexicographic_order_is_stable(rows):
    A = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 3)
    expected = sorted(range(len(rows)), key=lambda i: rows[i])
    assert lexicographic_order(A).tolist() == expected


# Pairs


@given(samples())
def test_pairs_are_the_distinct_rows_with_their_own_targets(sample):
    X, y, weight = sample
    rows = merge_rows(X, y, weight)
    pairs = rows.pairs()
    kept = weight > 0
    table = torch.cat([X, y], 1)[kept]
    assert pairs.n_rows == len(torch.unique(table, dim=0))
    assert not pairs.within.any()
    got = torch.cat([pairs.X, pairs.y], 1)
    scale = 1.0 if rows.repeats else float(pairs.weight.sum() / weight.sum())
    for row, total in zip(got, pairs.weight, strict=True):
        same = (table == row).all(1)
        assert bool(same.any())
        assert float(total) == pytest.approx(scale * float(weight[kept][same].sum()))
    torch.testing.assert_close(rows.total_weight, pairs.total_weight)


@given(samples())
def test_rows_and_pairs_in_other_units(sample):
    X, y, weight = sample
    m = y.shape[1]
    shift, unit = torch.full((m,), 0.5).double(), torch.full((m,), 4.0).double()
    rows = merge_rows(X, y, weight)
    changed, expected = (
        rows.in_units(shift, unit, torch.float64),
        merge_rows(X, (y - 0.5) / 4, weight),
    )
    for a, b in ((changed, expected), (changed.pairs(), expected.pairs())):
        for name in FIELDS:
            torch.testing.assert_close(getattr(a, name), getattr(b, name))
    single = rows.in_units(shift, unit, torch.float32).pairs()
    assert {getattr(single, name).dtype for name in FIELDS} == {torch.float32}


def test_rows_of_other_precision_are_alike_again():
    X, y = torch.tensor([[0.0], [1.0], [1.0], [2.0]]).double(), torch.arange(4.0).double()[:, None]
    rows = merge_rows(X, y, torch.ones(4).double())
    precision = torch.tensor([1.0, 2.0, 4.0]).double()
    weighed = rows.times(precision)
    ratio = weighed.weight / rows.weight
    torch.testing.assert_close(ratio / ratio[0], precision)
    assert weighed.total_weight == pytest.approx(rows.total_weight)
    torch.testing.assert_close(weighed.pairs().weight[1:3].sum(), weighed.weight[1])
    again = weighed.times(precision).alike()
    for name in ("weight", "within"):
        torch.testing.assert_close(getattr(again, name), getattr(rows, name))
    assert rows.alike() is rows
