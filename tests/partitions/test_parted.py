"""Partitions of one level that are sharp between kinks and soft elsewhere."""

from functools import cache

import numpy as np
import pytest
import torch

from skpou.partitions.fewer import fit_no_worse, grown_where_better
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from skpou.partitions.parted import flat_level, parted_pieces, parts_of
from skpou.partitions.pieces.interfaces import NodeModels, find_interface
from skpou.partitions.pieces.problem import PieceProblem
from tests.examples import rows_of, slow

RADIAL = (GateForm(2, True),)
CUT = 0.43


def jump(x):
    """A wave, and beyond a jump a curve of its own."""
    return np.where(x < CUT, np.sin(9 * x), 2 + np.exp(-3 * x))


def kink(x):
    """A wave with a kink."""
    return np.sin(6 * x) + 2 * np.abs(x - CUT)


def on_line(function, n=200):
    X = np.random.default_rng(5).random((n, 1))
    return rows_of(X, function(X[:, 0]))


def options(number, degree, exactly=True):
    return PieceOptions(sizes=(number,), degree=degree, gates=RADIAL, exactly=exactly)


@cache
def found(function, number, degree):
    rows = on_line(function)
    return fit_no_worse(rows, options(number, degree), np.random.default_rng(0))


def error(state, function, away=0.0):
    T = np.linspace(0.01, 0.99, 4000)
    T = T[np.abs(T - CUT) > away]
    mean = state.mean(torch.as_tensor(T)[:, None])[:, 0].numpy()
    return float(np.sqrt(np.mean((mean - function(T)) ** 2)))


def test_parts_lie_between_kinks_whatever_the_degree():
    rows = on_line(jump)
    sides = rows.X[:, 0] < CUT
    for degree in (0, 3):
        parts = parts_of(rows, options(8, degree), None)
        assert len(torch.unique(parts)) == 2
        assert len(torch.unique(parts[sides])) == len(torch.unique(parts[~sides])) == 1


def test_smooth_rows_have_no_parts():
    rows = on_line(lambda x: np.sin(5 * x))
    assert parts_of(rows, options(8, 3), None) is None


def test_parts_of_pieces_that_another_search_has_left():
    rows = on_line(jump)
    sides = rows.X[:, 0] < CUT
    finer = fit_pieces(rows, options(4, 2), np.random.default_rng(0)).chosen["finer"]
    assert len(torch.unique(finer)) > 4
    parts = parts_of(rows, options(4, 2), finer)
    assert len(torch.unique(parts)) == 2
    assert len(torch.unique(parts[sides])) == len(torch.unique(parts[~sides])) == 1


def test_no_parts_are_looked_for_where_soft_pieces_err_far_less_than_sharp_ones(monkeypatch):
    asked = []
    monkeypatch.setattr("skpou.partitions.fewer.parts_of", lambda *given: asked.append(given))
    fit_no_worse(on_line(lambda x: np.sin(9 * x)), options(2, 2), np.random.default_rng(0))
    assert not asked


@pytest.mark.parametrize("degree", [4, *slow(1, 2)])
def test_beside_a_jump_soft_pieces_are_as_good_as_alone(degree):
    best = found(jump, 8, degree)
    assert best.chosen["parts"] == 2
    assert len(best.state.tree.levels) == 1
    assert best.state.n_leaves == 8
    # Rows are a two hundredth apart: within the gap the jump may be anywhere.
    assert error(best.state, jump, 0.02) < {1: 1e-5, 2: 1e-9, 4: 1e-12}[degree]


def test_the_place_of_a_kink_is_kept():
    best = found(kink, 6, 3)
    assert best.chosen["parts"] == 2
    assert error(best.state, kink) < 1e-7


def test_more_pieces_are_no_worse_between_jumps():
    few, many = (max(error(found(jump, n, 2).state, jump, 0.02), 1e-12) for n in (4, 8))
    assert many < 3 * few


def test_fewer_pieces_than_parts_are_none():
    rows = on_line(jump)
    parts = (3 * rows.X[:, 0]).long()
    never = pytest.fail
    assert parted_pieces(rows, options(2, 2), parts, never) is None


def test_a_boundary_that_gates_cannot_follow_is_left_alone():
    X = np.random.default_rng(0).random((400, 2))
    above = np.sin(12 * X[:, 0]) > 4 * X[:, 1] - 2
    rows = rows_of(X, np.where(above, 1.0, 0.0))
    assert parted_pieces(rows, options(4, 0), torch.as_tensor(above).long(), pytest.fail) is None


def test_one_level_chooses_as_two_levels_do():
    rows = on_line(kink)
    parts = (rows.X[:, 0] > CUT).long()
    theta = torch.tensor([[4 * CUT - 2, 0, 0], [0.0, 2.0, 0]], dtype=torch.float64)
    gate = GateLevel(torch.zeros(2, dtype=torch.int64), theta, 2, True, True)
    inside = torch.tensor([[0, 0, 0], [-3, 9, 0], [0, 2, 0.5]], dtype=torch.float64)
    soft = GateLevel(torch.tensor([0, 0, 1]), inside, 2, False, True)
    problem = PieceProblem(rows, 1)
    models = NodeModels(problem, problem.fit(parts).coef[[0, 0, 1]], [soft])
    root = torch.zeros(2, dtype=torch.int64)
    kinks = find_interface(problem, parts, models, torch.full((2,), 1e-9).double(), root)
    flat = PartitionTree(1, [flat_level(gate, soft, rows.X, parts, kinks)])
    both = PartitionTree(1, [gate, soft])
    expected = both.log_proba(rows.X, harden=True).exp()
    assert float((flat.log_proba(rows.X).exp() - expected).abs().max()) < 1e-9


def test_pieces_below_sharp_gates_grow_by_themselves():
    X = np.random.default_rng(5).random((400, 1))
    x = X[:, 0]
    truth = np.where(x < 0.3, np.sin(8 * x), np.where(x < 0.7, 2.0, -np.exp(x)))
    rows, some = (rows_of(X[part::2], truth[part::2]) for part in (0, 1))
    wanted = PieceOptions(sizes=(8,), degree=3)
    first = fit_pieces(rows, wanted, np.random.default_rng(0))
    assert first.state.tree.first_soft == 1
    grown = grown_where_better(first, rows, wanted)
    assert len(grown.state.tree.levels) == 2
    # Rows beside the jumps may be on either side.
    errors = [
        float((one.state.mean(some.X) - some.y).abs().quantile(0.9)) for one in (first, grown)
    ]
    assert 1e3 * errors[1] < errors[0]
    # Starts are compared by the pieces that they have found.
    assert grown.score == first.score
