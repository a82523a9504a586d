"""What cannot win: degrees by their fine cells, and pieces where blocks gain nothing."""

import numpy as np
import pytest
import torch

from skpou.core import Rows
from skpou.partitions.pieces import merging
from skpou.partitions.pieces.cells import fine_cells
from skpou.partitions.pieces.merging import MergeHistory, merge_multilevel, score
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.pieces.race import DegreeRace, cannot_win, is_beaten, one_is_enough


def problem_of(function, degree, noise=0.0, n=800):
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    y = function(X) + noise * rng.standard_normal(n)
    X, y = torch.as_tensor(X), torch.as_tensor(y / y.std())[:, None]
    return PieceProblem(Rows(X, y, torch.ones_like(y[:, 0]), torch.zeros_like(y)), degree)


def smooth(X):
    return np.sin(4 * X[:, 0] + X[:, 1])


def kinked(X):
    return np.abs(X[:, 0] - 0.3 * X[:, 1] - 0.3)


@pytest.mark.parametrize(
    ("function", "degree", "noise", "enough"),
    [
        (smooth, 5, 0.1, True),
        (smooth, 1, 0.1, False),
        (smooth, 3, 0.0, False),
        (lambda X: X[:, 0] ** 2 - X[:, 1], 2, 0.0, True),
        (kinked, 1, 0.1, False),
        (kinked, 2, 0.0, False),
    ],
)
def test_one_polynomial_is_enough_where_blocks_gain_nothing(function, degree, noise, enough):
    assert one_is_enough(problem_of(function, degree, noise)) is enough


def cells_of(function, degree):
    problem = problem_of(function, degree)
    return problem, fine_cells(problem, np.random.default_rng(0))


def test_low_degrees_of_a_smooth_function_cannot_win():
    assert cannot_win(*cells_of(smooth, 1), [cells_of(smooth, 4)])
    assert not cannot_win(*cells_of(smooth, 4), [cells_of(smooth, 1)])


def test_exact_pieces_of_a_low_degree_stay():
    assert not cannot_win(*cells_of(kinked, 1), [cells_of(kinked, 4)])


def test_pieces_are_beaten_by_a_score_that_no_merging_of_them_reaches():
    problem, cells = cells_of(smooth, 1)
    history = MergeHistory()
    merge_multilevel(problem, cells, 32, 1000, history)
    reached = history.score
    assert not is_beaten(problem, cells, reached)
    assert not is_beaten(problem, cells, float("inf"))
    ahead = MergeHistory()
    merge_multilevel(problem, cells, 32, 1000, ahead, rival=reached + 1e-6 * abs(reached))
    assert (ahead.score, ahead.scores) == (reached, history.scores)
    beaten = MergeHistory()
    pieces = merge_multilevel(problem, cells, 32, 1000, beaten, rival=reached - 8000)
    assert is_beaten(problem, cells, reached - 8000)
    assert pieces.n_pieces == 1 and len(beaten.scores) < len(history.scores)
    assert beaten.score == min(beaten.scores[-1], score(problem, pieces))


def test_pieces_that_have_lost_are_not_polished(monkeypatch):
    problem, cells = cells_of(smooth, 1)
    polished = []
    prune = merging.prune
    monkeypatch.setattr(merging, "prune", lambda *given: polished.append(1) or prune(*given))
    first, second = MergeHistory(), MergeHistory()
    merge_multilevel(problem, cells, 32, 1000, first)
    assert polished == [1]
    merge_multilevel(problem, cells, 32, 1000, second, rival=first.score)
    assert polished == [1]
    assert second.score == first.score


def test_exact_cells_are_never_beaten():
    problem, cells = cells_of(kinked, 1)
    assert not is_beaten(problem, cells, -1e9)


def test_most_promising_degree_first_unless_some_rows_are_exact():
    degrees = [0, 1, 2, 4]
    for function, expected in ((smooth, [0, 4, 2, 1]), (kinked, degrees)):
        seeds = dict.fromkeys(degrees, 3)
        race = DegreeRace(lambda degree, f=function: problem_of(f, degree), seeds)
        assert race.order(degrees) == expected
        assert race.problem(2) is race.start(2)[0]
    assert race.is_lost(0, -np.inf) is False
