"""Even partitions whose columns have widths of their own."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor
from skpou.core import Rows
from skpou.partitions.gates.tree import GateForm
from skpou.partitions.smooth.families import EvenPartitions, scaled_partitions
from skpou.partitions.smooth.prior_fits import LeftOutRows


def left_out_rows(X, y):
    y = torch.tensor(y[:, None])
    ones = torch.ones(len(X), dtype=torch.float64)
    return LeftOutRows(Rows(torch.tensor(X), y, ones, torch.zeros_like(y)))


def test_logits_are_scaled_distances():
    rng = np.random.default_rng(0)
    X, centres, rates = rng.random((30, 2)), rng.random((4, 2)), np.array([4.0, 0.25])
    rows = left_out_rows(X, X[:, 0])
    family = EvenPartitions(rows, centres, 1, GateForm(1), rates)
    log_pi = family._tree(0.7).log_proba(rows.rows.X).numpy()
    square = (((X[:, None] - centres) * rates * 4**0.5 / 0.7) ** 2).sum(2)
    expected = -0.5 * square - np.log(np.exp(-0.5 * square).sum(1, keepdims=True))
    assert log_pi == pytest.approx(expected, abs=1e-10)


def codes(n, rng):
    """Groups by number in no order, each with a curve at its own height."""
    code, x = np.arange(n) % 15, rng.random(n)
    y = rng.permutation(15)[code] / 4 + np.sin(3 * x) + 0.05 * rng.standard_normal(n)
    return np.column_stack([code, x]), y


def test_columns_of_codes_are_narrow():
    X, y = codes(150, np.random.default_rng(1))
    rows = left_out_rows(X / [14, 1], (y - y.mean()) / y.std())
    found = list(scaled_partitions(rows, (8, 20, 500), GateForm(1)))
    assert [len(family.centres) for family in found] == [8, 20]
    assert found[0].rates[0] > 3 * found[0].rates[1]


@pytest.mark.slow
def test_groups_by_number():
    rng = np.random.default_rng(1)
    X, y = codes(230, rng)
    model = HierarchicalPOURegressor().fit(X[:150], y[:150])
    error = model.predict(X[150:]) - y[150:]
    assert np.sqrt(np.mean(error**2)) < 0.2 * y.std()
