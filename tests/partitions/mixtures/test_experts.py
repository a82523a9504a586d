"""Experts and gates of whole trees for pieces that are known."""

import numpy as np
import pytest
import torch

from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from skpou.partitions.mixtures.experts import fit_level_experts, refit_by_gates
from skpou.partitions.pieces.gate_tree import fit_gate_tree
from skpou.partitions.pieces.problem import PieceProblem
from tests.examples import kink, labels_by, parabola, problem_of, rows_of, wave


def quarter_tree(harden_at=1e12):
    """Two levels whose sharp gates cut [0, 1] at 1/2 and the halves at 1/4 and 3/4."""

    def linear(cuts):
        # Logits k (t - c) with t = 2 x - 1: columns are the constant and t.
        rows = [(harden_at * s * -(2 * c - 1), harden_at * s) for c, s in cuts]
        return torch.tensor(rows, dtype=torch.float64)

    first = GateLevel(torch.tensor([0, 0]), linear([(0.5, 0.0), (0.5, 1.0)]), 1, True)
    second = GateLevel(
        torch.tensor([0, 0, 1, 1]),
        linear([(0.25, 0.0), (0.25, 1.0), (0.75, 0.0), (0.75, 1.0)]),
        1,
        True,
    )
    return PartitionTree(1, [first, second])


def quarters(problem):
    return labels_by(problem, lambda X: np.floor(4 * X[:, 0]))


@pytest.mark.parametrize("alpha", [0.0, 1e-2])
def test_experts_of_every_level_are_ridge_fits(alpha):
    problem = problem_of(wave(4), 300, 1, 2, noise=0.1)
    pieces = problem.fit(quarters(problem))
    experts, used = fit_level_experts(problem, quarter_tree(), pieces.labels, 2, alpha)
    assert used == alpha
    assert [len(level.coef) for level in experts] == [2, 4]
    for level, labels in zip(experts, (pieces.labels // 2, pieces.labels), strict=True):
        for k in range(len(level.coef)):
            own = (labels == k).numpy()
            A, y = problem.polynomials.numpy()[own], problem.rows.y.numpy()[own]
            gram = A.T @ A
            ridged = gram + alpha**2 * gram.diagonal().max() * np.eye(3)
            coef = np.linalg.solve(ridged, A.T @ y)
            np.testing.assert_allclose(level.coef[k], coef, rtol=1e-9)
            factor = level.factor[k].numpy()
            np.testing.assert_allclose(factor.T @ factor, ridged, rtol=1e-11, atol=1e-11)
            # Eq. 18 with the trace of the hat matrix taken off.
            hat = np.trace(A @ np.linalg.solve(ridged, A.T))
            penalised = np.square(y - A @ coef).sum() + coef.T @ (ridged - gram) @ coef
            np.testing.assert_allclose(level.noise[k], penalised[0] / (own.sum() - hat), 1e-9)


def test_noise_of_repeated_points_counts():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.random((50, 1)), 20, axis=0)
    noise = 0.3 * rng.standard_normal((1000, 1))
    problem = PieceProblem(rows_of(X, X + noise), 1)
    labels = torch.zeros(problem.n, dtype=torch.int64)
    tree = PartitionTree(1, [GateLevel(torch.tensor([0]), torch.zeros((1, 1)).double(), 0)])
    experts, alpha = fit_level_experts(problem, tree, labels, 1, None)
    assert 0 < alpha < 0.1
    assert abs(float(experts[0].noise) / 0.09 - 1) < 0.15


def test_labels_follow_the_gates_where_that_costs_nothing():
    problem = problem_of(wave(4), 400, 1, 2, noise=0.05)
    truth = quarters(problem)
    labels = truth.clone()
    near = (problem.rows.X[:, 0] - 0.5).abs() < 0.01
    labels[near] = 1
    refitted = refit_by_gates(problem, problem.fit(labels), quarter_tree())
    assert torch.equal(refitted.labels, truth)


def test_labels_stay_where_the_gates_are_wrong():
    problem = problem_of(wave(4), 400, 1, 2)
    pieces = problem.fit(quarters(problem))
    tree = quarter_tree()
    assert refit_by_gates(problem, pieces, tree) is pieces
    tree.levels[1].theta = tree.levels[1].theta.roll(2, 0)
    assert refit_by_gates(problem, pieces, tree) is pieces


def test_gates_of_known_pieces_on_two_levels():
    problem = problem_of(wave(4), 400, 1, 2)
    pieces = problem.fit(quarters(problem))
    levels = [np.array([0, 0, 1, 1]), np.arange(4)]
    tree = fit_gate_tree(problem, pieces, levels, (GateForm(2),))
    assert [level.parent.tolist() for level in tree.levels] == [[0, 0], [0, 0, 1, 1]]
    assert all(level.sharp for level in tree.levels)
    X = torch.rand((5000, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clear = (X - torch.tensor([[0.25, 0.5, 0.75]])).abs().amin(1) > 1e-12
    weights = tree.log_proba(X, harden=True).exp()
    assert ((weights == 0) | (weights == 1)).all()
    chosen = weights.argmax(1)
    assert torch.equal(chosen[clear], (4 * X[:, 0]).long()[clear])
    for level in (0, 1):
        soft = tree.log_proba(X, level).exp()
        expected = torch.floor((2, 4)[level] * X[:, 0]).long()
        assert torch.equal(soft.argmax(1)[clear], expected[clear])


def test_quick_gates_follow_the_labels():
    problem = problem_of(kink, 500, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    tree = fit_gate_tree(
        problem, problem.fit(labels), [np.arange(2)], (GateForm(2), GateForm(3)), quick=True
    )
    assert tree.levels[0].degree == 2
    wrong = tree.log_proba(problem.rows.X).argmax(1) != labels
    assert int(wrong.sum()) <= 5


def test_only_children_need_no_gate():
    problem = problem_of(wave(2), 200, 1, 2)
    pieces = problem.fit(labels_by(problem, lambda X: np.floor(2 * X[:, 0])))
    tree = fit_gate_tree(problem, pieces, [np.array([0, 1]), np.array([0, 1])], (GateForm(2),))
    assert not tree.levels[1].theta.any()
    X = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    assert torch.equal(tree.log_proba(X, harden=True).exp(), torch.eye(2, dtype=torch.float64))
