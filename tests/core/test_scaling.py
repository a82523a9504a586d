"""Units: boxes of points, means and deviations of targets, and the way back."""

import numpy as np
import pytest
import torch

from skpou.core.rows import merge_rows
from skpou.core.scaling import Scaling, order_of_columns, target_unit
from tests.contracts import same_bits
from tests.examples import tensor


def measured(X, y, weight=None):
    """Scaling as estimators measure it."""
    X, y = tensor(X), tensor(y).reshape(len(X), -1)
    weight = tensor(np.ones(len(X)) if weight is None else weight)
    box, unit = Scaling.from_box(X, weight), target_unit(y, weight, 1e305)
    return box.with_targets(unit, merge_rows(box.points(X), y / unit, weight))


def sample(n=40, d=3, m=2, seed=0):
    rng = np.random.default_rng(seed)
    X, y, weight = rng.standard_normal((n, d)), rng.standard_normal((n, m)), rng.integers(0, 4, n)
    X[n // 2 :] = X[: n - n // 2]  # two targets at every point
    return X, y * [1.0, 50.0][:m] + 7, weight


# Columns


def content(weight=None, seed=0):
    """Points in the unit box whose columns are alike but for a little, a target, weights."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.random((40, 2)), rng.permutation(40) / 39, rng.permutation(40) / 39])
    return tensor(X), tensor(X[:, 2] ** 2), tensor(np.ones(40) if weight is None else weight)


@pytest.mark.parametrize("seed", range(5))
def test_order_of_columns_is_that_of_what_is_in_them(seed):
    rng = np.random.default_rng(seed)
    X, y, weight = content(rng.integers(0, 3, 40).astype(float))
    order = order_of_columns(X, y, weight)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    columns, rows = torch.tensor(rng.permutation(4)), torch.tensor(rng.permutation(40))
    repeated = rows.repeat_interleave(weight[rows].long())
    for index, own in ((rows, weight[rows]), (repeated, torch.ones(len(repeated)).double())):
        other = order_of_columns(X[index][:, columns], -3 * y[index], own)
        assert torch.equal(columns[other], order)


def test_columns_that_cannot_be_told_apart_stay():
    X = torch.stack([torch.linspace(0, 1, 9).double()] * 3, 1)
    assert order_of_columns(X, X[:, 0], torch.ones(9).double()).tolist() == [0, 1, 2]


def test_boxes_have_their_columns_in_any_order():
    X, _, weight = content()
    X = torch.cat([X, torch.ones(40, 1).double()], 1)
    box, order = Scaling.from_box(X, weight), torch.tensor([2, 0, 3, 1])
    other = box.reordered(order)
    assert other.columns.tolist() == [2, 0, 3, 1]
    assert torch.equal(other.points(X), box.points(X)[:, order])
    some = Scaling.from_box(X[:, :4], weight)
    assert torch.equal(some.reordered(order).points(X[:, :4]), some.points(X[:, :4])[:, order])


# Points


@pytest.mark.parametrize("unit", [1e-310, 1e-30, 1.0, 1e307])
def test_corners_of_the_box_are_zero_and_one(unit):
    X = unit * np.random.default_rng(0).uniform(-1, 1, (50, 2))
    box = Scaling.from_box(tensor(X), torch.ones(50).double())
    points = box.points(tensor(X))
    assert points.amin(0).tolist() == [0, 0]
    assert points.amax(0).tolist() == [1, 1]
    assert (points.argsort(0) == tensor(X).argsort(0)).all()
    rtol = 1e-15 if unit > 1e-300 else 1e-12
    np.testing.assert_allclose(points, (X / unit - (X / unit).min(0)) / np.ptp(X / unit, axis=0),
                               rtol=0, atol=rtol)  # fmt: skip


def test_rows_without_weight_do_not_count():
    X = tensor([[0.0, 5.0, 1.0], [4.0, 5.0, 2.0], [-100.0, 6.0, 9.0]])
    box = Scaling.from_box(X, tensor([1.0, 0.5, 0.0]))
    assert box.columns.tolist() == [0, 2]
    assert box.offset.tolist() == [0, 1]
    assert box.width.tolist() == [4, 1]
    assert box.points(X).tolist() == [[0, 0], [1, 1], [-25, 8]]
    assert (box.mean.tolist(), box.scale.tolist()) == ([0], [1])
    one_row = Scaling.from_box(X, tensor([0.0, 1.0, 0.0]))
    assert one_row.points(X).shape == (3, 0)


def test_range_that_overflows_is_refused():
    X = tensor([[0.0, -1e308], [1.0, 1e308]])
    with pytest.raises(ValueError, match=r"column 1 of X, from -1e\+308 to 1e\+308, overflows"):
        Scaling.from_box(X, torch.ones(2).double())


# Targets


def test_mean_and_deviation_are_those_of_all_observations():
    X, y, weight = sample()
    scaling = measured(X, y, weight)
    every = np.repeat(y, weight, 0)
    np.testing.assert_allclose(scaling.mean, every.mean(0), rtol=1e-14)
    np.testing.assert_allclose(scaling.scale, every.std(0), rtol=1e-14)
    scaled = scaling.targets(tensor(every))
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(scaled.square().mean(0), 1, rtol=1e-14)
    np.testing.assert_allclose(scaling.original_targets(scaled), every, rtol=1e-14)


def test_order_and_repetition_do_not_matter():
    X, y, weight = sample()
    expected = measured(X, y, weight)
    order = np.random.default_rng(1).permutation(weight.sum())
    again = measured(*(np.repeat(part, weight, 0)[order] for part in (X, y)))
    for name in ("columns", "offset", "width", "mean", "scale"):
        assert same_bits(getattr(again, name), getattr(expected, name)), name


def test_targets_one_by_one():
    X, y, weight = sample()
    both = measured(X, y, weight)
    for k in range(2):
        alone = measured(X, y[:, k], weight)
        torch.testing.assert_close(alone.mean[0], both.mean[k], rtol=1e-15, atol=0)
        torch.testing.assert_close(alone.scale[0], both.scale[k], rtol=1e-15, atol=0)


@pytest.mark.parametrize("exponent", [-960, -40, 40, 960])
def test_units_of_y(exponent):
    X, y, weight = sample()
    one, other = measured(X, y, weight), measured(X, y * 2.0**exponent, weight)
    assert same_bits(other.mean, one.mean * 2.0**exponent)
    assert same_bits(other.scale, one.scale * 2.0**exponent)
    assert same_bits(other.targets(tensor(y) * 2.0**exponent), one.targets(tensor(y)))


@pytest.mark.parametrize("value", [0.0, -3.3, 1e-300, 0.1, 9e304])
@pytest.mark.parametrize("n", [1, 7])
def test_constant_targets_have_their_own_size(value, n):
    X = np.random.default_rng(0).random((n, 2))
    scaling = measured(X, np.full(n, value))
    assert scaling.mean.item() == value
    assert scaling.scale.item() == (abs(value) or 1)
    assert scaling.targets(tensor([[value]])).item() == 0


@pytest.mark.parametrize("shift", [0.0, 1.0, -1e6])
def test_offsets_of_y_cost_no_more_digits_than_they_have(shift):
    rng = np.random.default_rng(0)
    X, y = rng.random((100, 1)), rng.standard_normal(100)
    scaled = measured(X, y + shift).targets(tensor(y + shift)[:, None])
    exact = (y - y.mean()) / y.std()
    atol = 4 * np.finfo(float).eps * (abs(y).max() + abs(shift)) / y.std()
    np.testing.assert_allclose(scaled[:, 0], exact, rtol=0, atol=atol)


def test_huge_targets_do_not_overflow():
    y = np.array([-9e304, 9e304, 3e304, 0.0])
    scaling = measured(np.arange(4.0)[:, None], y)
    scaled = scaling.targets(tensor(y)[:, None])
    np.testing.assert_allclose(scaled[:, 0], (y / 1e304 - 0.75) / np.std(y / 1e304), rtol=1e-14)
    np.testing.assert_allclose(scaling.original_targets(scaled)[:, 0], y, rtol=1e-14, atol=1e290)


def test_unit_is_the_largest_size_of_rows_that_count():
    y = tensor([[1.0, 0.0, 1e-320], [-3.0, 0.0, 0.0], [np.inf, 8.0, 1.0]])
    unit = target_unit(y, tensor([1.0, 2.0, 0.0]), 1e305)
    assert unit.tolist() == [3, 1, 1e-320]
    for bad in (1e306, np.nan):
        with pytest.raises(ValueError, match=r"overflow\. Rescale y"):
            target_unit(tensor([[1.0], [bad]]), tensor([1.0, 1.0]), 1e305)


def test_state_survives_as_arrays():
    scaling = measured(*sample())
    again = Scaling.from_arrays(scaling.arrays(), torch.zeros(1))
    for name, value in scaling.arrays().items():
        assert same_bits(getattr(again, name), torch.tensor(value)), name
