"""Factors on logits: what left-out observations say of them."""

import numpy as np
import pytest
import torch

from skpou.core import merge_rows
from skpou.core.classes import (
    CalibratedClasses,
    Calibration,
    LeftOutClasses,
    best_factors,
    calibrate,
    observations_at,
)
from skpou.core.classes import calibration as module
from tests.examples import tensor

NOTHING = torch.zeros(2, dtype=torch.float64)


def draw(n, seed=0):
    """Logits, and indicators of classes that were drawn by them."""
    rng = np.random.default_rng(seed)
    logits = np.column_stack([np.zeros(n), 2 * rng.standard_normal(n)])
    second = rng.random(n) < 1 / (1 + np.exp(-logits[:, 1]))
    return tensor(logits), tensor(np.eye(2)[second.astype(int)]), tensor(np.ones(n))


def test_the_factor_undoes_what_is_too_sure():
    logits, y, weight = draw(2000)
    (factor,), loss = best_factors([4 * logits], NOTHING, y, weight)
    assert abs(4 * factor - 1) < 0.15
    # With the offset of the shares alone where the logits are those of other rows
    shuffled = logits[torch.as_tensor(np.random.default_rng(1).permutation(2000))]
    (factor,), other = best_factors([shuffled], NOTHING, y, weight)
    assert factor < 0.1
    assert loss < other


def test_factors_are_the_minimum():
    logits, y, weight = draw(300)
    noise = tensor(np.random.default_rng(2).standard_normal((300, 2)))
    parts = [logits + noise, 0.5 * logits - noise]
    factors, loss = best_factors(parts, NOTHING, y, weight)

    def value(a, b):
        logs = torch.log_softmax(a * parts[0] + b * parts[1], 1)
        prior = (a + b - 1) ** 2 / (2 * module.DEVIATION**2)
        prior += ((a - 0.5) ** 2 + (b - 0.5) ** 2) / (2 * module.PART_DEVIATION**2)
        return -float((y * logs).sum()) + prior

    assert min(factors) > 0
    for step in (-0.02, 0.02):
        assert value(*factors) < min(value(factors[0] + step, factors[1]),
                                     value(factors[0], factors[1] + step))  # fmt: skip
    # What is told by both together neither tells alone.
    assert loss < min(best_factors([part], NOTHING, y, weight)[1] for part in parts)


def test_no_factor_is_negative():
    logits, y, weight = draw(500)
    factors, _ = best_factors([logits, -logits], NOTHING, y, weight)
    assert factors[1] == 0
    assert factors[0] > 0.8
    factors, _ = best_factors([-logits], NOTHING, y, weight)
    assert factors == [0]


def test_logits_that_are_no_numbers_say_nothing():
    logits, y, weight = draw(100)
    wild = logits.clone()
    wild[0], wild[1] = torch.nan, torch.inf
    (factor,), loss = best_factors([wild], NOTHING, y, weight)
    assert 0 < factor < 4
    assert np.isfinite(loss)


class Fixed:
    """A model whose logits are a multiple of the first column."""

    def __init__(self, factor):
        self.factor = factor

    def log_proba(self, X):
        value = self.factor * (X[:, :1] - 0.5)
        return torch.log_softmax(torch.cat([0 * value, value], 1), 1)

    def numbers_per_row(self):
        return 2


def rows_of_two_columns(n=400, seed=0):
    """Log odds 8 (x1 - 1/2) + 8 (x2 - 1/2)."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    second = rng.random(n) < 1 / (1 + np.exp(-8 * (X.sum(1) - 1)))
    return merge_rows(
        tensor(X), tensor(np.eye(2)[second.astype(int)]), tensor(np.ones(n)), counts=True
    )


@pytest.mark.parametrize("most", [5000, 100])
def test_the_companion_knows_what_the_model_does_not(most, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", most)
    rows, model = rows_of_two_columns(), Fixed(8.0)
    some = torch.arange(0, 400, 2)
    found = calibrate(rows, LeftOutClasses(some, model.log_proba(rows.X[some])))
    assert found.companion is not None
    again = Calibration.from_arrays(found.arrays(), rows.X)
    joined = CalibratedClasses(model, again)
    X = tensor(np.random.default_rng(5).random((500, 2)))
    truth = torch.sigmoid(8 * (X.sum(1) - 1))
    assert (joined.log_proba(X).exp()[:, 1] - truth).abs().mean() < 0.05
    assert (model.log_proba(X).exp()[:, 1] - truth).abs().mean() > 0.1
    assert torch.equal(joined.log_proba(X), CalibratedClasses(model, found).log_proba(X))
    assert joined.numbers_per_row() > model.numbers_per_row()


def test_a_model_that_knows_all_stands_alone():
    rows = rows_of_two_columns()
    truth = 8 * (rows.X.sum(1, keepdim=True) - 1)
    logits = torch.cat([0 * truth, 3 * truth], 1)
    found = calibrate(rows, LeftOutClasses(torch.arange(400), logits))
    assert found.companion is None
    assert abs(3 * found.factor - 1) < 0.2


def test_few_rows_say_nothing():
    rows = rows_of_two_columns(8)
    assert calibrate(rows, LeftOutClasses(torch.arange(8), 9 * rows.y)) is None


def test_observations_at_points_of_several_classes():
    X, y = tensor([[0.0], [0.0], [0.5], [1.0]]), torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0]]
    rows = merge_rows(X, y, tensor(np.ones(4)), counts=True)
    number, place = observations_at(rows, torch.tensor([0, 2]))
    assert rows.pairs().X[number, 0].tolist() == [0, 0, 1]
    assert place.tolist() == [0, 0, 1]
