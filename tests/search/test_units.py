"""Grown units: dictionary, pursuit, growth."""

import numpy as np
import pytest
import torch

from skpou.search import units
from skpou.search.family import Stages, Task
from skpou.search.scores import probe_points
from skpou.search.units import UnitSearch, make_dictionary, pursue
from tests.examples import rows_of, tensor


def sample(function, n=200, d=1, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = np.asarray(function(X)) + noise * rng.standard_normal(n)
    return rows_of(X, (y - y.mean()) / y.std())


def search(rows, **options):
    rng = np.random.default_rng(1)
    return UnitSearch(rows, probe_points(rows.X, rng), rng, **options)


@pytest.mark.parametrize("d", [1, 2])
def test_dictionary_columns_are_units_without_their_affine_parts(d):
    rows = sample(lambda X: X[:, 0], d=d)
    dictionary = make_dictionary(rows, rows.n_rows, np.random.default_rng(0))
    columns, root = dictionary.columns, rows.weight.sqrt()[:, None]
    torch.testing.assert_close(columns.norm(dim=0), torch.ones(columns.shape[1]).to(columns))
    affine = torch.cat([torch.ones_like(root), rows.X], 1) * root
    assert float((affine.T @ columns).abs().max()) < 1e-8
    assert set(dictionary.units.kinds.tolist()) == {0, 1, 2, 3}
    raw = dictionary.units.values(2 * rows.X - 1) * root
    Q = torch.linalg.qr(affine).Q
    raw = raw - Q @ (Q.T @ raw)
    part = raw / raw.norm(dim=0)
    # Almost affine units lose digits in the projection.
    assert float(((part * columns).sum(0) - 1).abs().max()) < 1e-4


def test_pursuit_finds_the_units_of_a_target():
    rows = sample(lambda X: X[:, 0])
    dictionary = make_dictionary(rows, rows.n_rows, np.random.default_rng(0))
    wanted = [len(dictionary.units) // 7, len(dictionary.units) // 2]
    y = (dictionary.columns[:, wanted] @ tensor([1.0, -3.0]))[:, None]
    A = torch.cat([torch.ones_like(rows.X), rows.X], 1)
    found = pursue(dictionary, A, y, 2)
    left = torch.cat([A, found.values(2 * rows.X - 1)], 1)
    Q = torch.linalg.qr(left).Q
    assert float((y - Q @ (Q.T @ y)).norm()) < 0.3 * float(y.norm())


@pytest.mark.parametrize(
    ("function", "d"),
    [
        (lambda X: np.tanh(30 * X[:, 0] - 11), 1),
        (lambda X: 1 / (1 + 100 * (X[:, 0] - 0.4) ** 2), 1),
        (lambda X: np.exp(-40 * np.square(X - 0.45).sum(1)), 2),
    ],
    ids=["step", "peak", "bump"],
)
def test_single_units_are_met_to_round_off(function, d):
    rows = sample(function, n=300, d=d)
    candidate = search(rows).run()
    assert candidate.n_units <= 4
    assert candidate.leave_one_out < 1e-9
    assert float((candidate.mean(rows.X) - rows.y).abs().max()) < 1e-9


def test_growth_does_not_follow_noise():
    candidate = search(sample(lambda X: np.tanh(20 * X[:, 0] - 9), noise=0.1)).run()
    assert candidate.n_units <= 6
    assert candidate.leave_one_out == pytest.approx(0.1, rel=0.3)


def test_growth_ends_when_the_others_are_out_of_reach():
    sizes = []
    rows = sample(lambda X: np.sin(60 * X[:, 0]))
    search(rows, target=1e-12, tell=lambda size, score: sizes.append(size), max_iter=20).run()
    assert sizes[0] == 1
    assert sizes[-1] < 20


def test_given_ridge_is_the_least():
    rows = sample(lambda X: np.abs(X[:, 0] - 0.4), n=60)
    assert search(rows, alpha=1e-2, max_iter=20).run().alpha == pytest.approx(1e-2)


def test_growth_without_hope_ends_early_on_many_rows(monkeypatch):
    rows = sample(lambda X: np.abs(X[:, 0] - X[:, 1] ** 2), n=80, d=2)
    sizes = []
    for many in (80, 79):
        monkeypatch.setattr(units, "MANY_ROWS", many)
        told = []
        search(
            rows, target=1e-9, most=6, tell=lambda size, score, told=told: told.append(size)
        ).run()
        sizes.append(told)
    assert sizes == [[1, 2, 3, 4, 6], [1, 2, 3, 4]]


def test_growth_beside_noise_ends_where_few_units_do_no_better():
    rows, told = sample(lambda X: np.sin(6 * X[:, 0]), n=90, noise=0.3), []
    search(
        rows,
        target=0.4,
        max_iter=20,
        hopeless=units.HOPELESS_IN_NOISE,
        tell=lambda size, score: told.append(size),
    ).run()
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("function", "options", "hopeless"),
    [
        (lambda X: np.tanh(9 * X[:, 0] + 5 * X[:, 1] - 6), {}, False),
        (lambda X: np.sin(15 * X[:, 0]) * np.sin(15 * X[:, 1]), {}, True),
        (lambda X: np.tanh(9 * X[:, 0] + 5 * X[:, 1] - 6), {"most": units.FEW_UNITS}, False),
        (lambda X: np.sin(15 * X[:, 0]), {"most": units.FEW_UNITS}, True),
    ],
)
def test_some_of_many_rows_tell_whether_units_have_hope(monkeypatch, function, options, hopeless):
    monkeypatch.setattr(units, "PURSUIT_ROWS_OF_FEW", 90)
    rows, target = sample(function, n=120, d=2), 1e-10 if options else 1e-2
    task = Task(rows, 0, None, 60, 1e-14, Stages())
    assert not units.are_hopeless(task, target, **options)  # Rows are few.
    monkeypatch.setattr(units, "PILOTED_ROWS", 120)
    assert units.are_hopeless(task, target, **options) == hopeless
