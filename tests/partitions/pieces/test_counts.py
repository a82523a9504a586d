"""More pieces: which is halved, and where it is cut; what it costs to do without some of them.

test_merging has what dissolves.
"""

import math

import numpy as np
import pytest
import torch

from skpou.partitions.pieces.counts import costs_without, split_pieces
from skpou.partitions.pieces.problem import PieceProblem
from tests.examples import kink, labels_by, problem_of, rows_of, wave


def whole(problem):
    return problem.fit(torch.zeros(problem.n, dtype=torch.int64))


def test_halves_are_cut_at_the_median_of_the_longest_side():
    rng = np.random.default_rng(0)
    X = rng.random((101, 3)) * [0.3, 1.0, 0.5]
    problem = PieceProblem(rows_of(X, X[:, 0]), 1)
    found = split_pieces(problem, whole(problem), 2)
    x = problem.rows.X[:, 1]
    upper = found.labels == 1
    assert int(upper.sum()) == 51
    assert float(x[~upper].max()) < float(x[upper].min())


@pytest.mark.parametrize("n_pieces", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_as_many_pieces_as_are_wanted(n_pieces, degree):
    problem = problem_of(wave(3), 200, degree=degree)
    found = split_pieces(problem, whole(problem), n_pieces)
    assert found.n_pieces == n_pieces
    assert torch.unique(found.labels).tolist() == list(range(n_pieces))
    expected = problem.fit(found.labels)
    for name in ("coef", "rss", "count", "weight"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert (found.count >= problem.n_columns).all()


def test_enough_pieces_stay_as_they_are():
    problem = problem_of(wave(3), 100)
    pieces = problem.fit(labels_by(problem, lambda X: np.floor(4 * X[:, 0])))
    assert split_pieces(problem, pieces, 4) is pieces
    assert split_pieces(problem, pieces, 2) is pieces


def test_the_piece_of_largest_misfit_is_halved():
    """A line on the left, a wave on the right; then the worse half of the wave."""

    def function(X):
        return np.where(X[:, 0] < 0.5, X[:, 0], np.sin(40 * X[:, 0] ** 2))

    problem = problem_of(function, 400)
    pieces = problem.fit(labels_by(problem, lambda X: X[:, 0] >= 0.5))
    for n_pieces in (3, 4, 5):
        worst = int(pieces.rss.argmax())
        found = split_pieces(problem, pieces, n_pieces)
        changed = found.labels != pieces.labels
        assert (pieces.labels[changed] == worst).all()
        assert (found.labels[changed] == n_pieces - 1).all()
        assert int(changed.sum()) == -(-int(pieces.count[worst]) // 2)
        assert float(found.rss.sum()) <= float(pieces.rss.sum()) * (1 + 1e-12)
        pieces = found


def test_exact_pieces_are_split_by_their_weight():
    """Where nothing is left over the largest piece is halved: no piece is split for round-off."""
    X = np.linspace(0, 1, 120)[:, None]
    problem = PieceProblem(rows_of(X, X[:, 0]), 1)
    pieces = problem.fit(labels_by(problem, lambda X: X[:, 0] > 0.8))
    found = split_pieces(problem, pieces, 5)
    assert sorted(found.count.tolist()) == [24, 24, 24, 24, 24]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 16])
def test_no_piece_has_fewer_samples_than_a_polynomial(n):
    """Two columns: pieces of four and more samples are halved, those of fewer are not."""
    X = np.random.default_rng(n).random((n, 1))
    problem = PieceProblem(rows_of(X, np.sin(9 * X)), 1)
    found = split_pieces(problem, whole(problem), 100)
    assert (found.count < 4).all()
    assert n < 4 or (found.count >= 2).all()
    assert int(found.count.sum()) == n


def test_without_features_there_is_nothing_to_cut():
    problem = PieceProblem(rows_of(np.zeros((3, 0)), [1.0, 2.0, 4.0]), 0)
    assert split_pieces(problem, whole(problem), 4).n_pieces == 1


def test_a_piece_without_samples_is_not_split():
    problem = problem_of(wave(2), 40)
    pieces = problem.fit(torch.zeros(40, dtype=torch.int64), 3)
    found = split_pieces(problem, pieces, 4)
    assert found.count.tolist() == [20, 0, 0, 20]


def test_several_outputs_share_their_pieces():
    """The misfit is the mean over the targets: only the second one needs the right half cut."""

    def function(X):
        return np.c_[X[:, 0], np.where(X[:, 0] > 0.5, np.sin(60 * X[:, 0]), 0)]

    problem = problem_of(function, 200)
    pieces = problem.fit(labels_by(problem, lambda X: X[:, 0] > 0.5))
    found = split_pieces(problem, pieces, 3)
    assert float(problem.rows.X[found.labels == 2].min()) > 0.5


def test_equal_coordinates_are_cut_by_the_next_one():
    """A grid whose longest side has few values: samples on one line are in one piece, or the cut
    runs between two of them."""
    x, y = np.meshgrid(np.arange(3) / 2, np.linspace(0, 0.4, 8))
    X = np.c_[x.ravel(), y.ravel()]
    problem = PieceProblem(rows_of(X, np.sin(9 * X[:, 0])), 1)
    found = split_pieces(problem, whole(problem), 2)
    assert found.count.tolist() == [12, 12]
    upper = found.labels == 1
    key = 10 * problem.rows.X[:, 0] + problem.rows.X[:, 1]
    assert float(key[~upper].max()) < float(key[upper].min())


def test_no_more_halves_of_a_piece_than_it_may_have():
    problem = problem_of(wave(3), 200, degree=1)
    sides = (problem.rows.X[:, 0] > 0.5).long()
    found = split_pieces(problem, problem.fit(sides), 6, torch.tensor([1, 3]))
    assert found.n_pieces == 4
    numbers = [len(torch.unique(found.labels[sides == side])) for side in (0, 1)]
    assert numbers == [1, 3]


def test_costs_of_all_pieces_are_those_of_each_by_itself():
    problem = problem_of(kink, 300, 2, 2, noise=0.01)
    labels = labels_by(problem, lambda X: np.floor(3 * X[:, 0]) + 3 * np.floor(2 * X[:, 1]))
    pieces = problem.fit(labels)
    for j, cost in enumerate(costs_without(problem, pieces)):
        members = torch.nonzero(labels == j).squeeze(1)
        others = torch.unique(labels[problem.neighbours[members]])
        others = others[others != j]
        values = problem.polynomials[members] @ pieces.coef[others, :, 0].T
        square = (problem.rows.y[members] - values).square().amin(1)
        expected = square * problem.rows.weight[members] + problem.rows.within[members].mean(1)
        assert math.isclose(cost, float(expected.sum()), rel_tol=1e-9)


def test_a_piece_alone_cannot_be_done_without():
    problem = problem_of(kink, 100, 2, 2)
    pieces = problem.fit(torch.zeros(100, dtype=torch.int64))
    assert costs_without(problem, pieces) == [math.inf]
