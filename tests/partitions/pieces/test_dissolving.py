"""What it costs to do without pieces; test_merging has what dissolves."""

import math

import numpy as np
import torch

from skpou.partitions.pieces.dissolving import costs_without
from tests.examples import kink, labels_by, problem_of


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
