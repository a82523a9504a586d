"""Sharp gates of whole trees: every level chooses the pieces' own samples, and the kinks."""

import numpy as np
import pytest
import torch

from skpou.partitions.gates.tree import GateForm
from skpou.partitions.pieces.gate_tree import fit_gate_tree, fit_root_gate
from skpou.partitions.pieces.interfaces import NodeModels
from skpou.partitions.pieces.problem import PieceProblem
from skpou.partitions.pieces.sharp_gates import envelope_gates
from tests.examples import kink, labels_by, parabola, problem_of, rows_of, tensor

LINEAR, QUADRATIC = GateForm(1), GateForm(2)
ENDS = np.array([0.21, 0.5, 0.83])


def zigzag(X):
    """Four lines that meet in kinks."""
    return np.interp(X[:, 0], [0, *ENDS, 1], [0, 1, -0.5, 0.7, 0.0])


def quarters(X):
    return np.searchsorted(ENDS, X[:, 0])


def line_pieces(n=200, seed=0):
    problem = problem_of(zigzag, n, seed=seed)
    return problem, problem.fit(labels_by(problem, quarters))


def leaves(tree, X):
    return tree.log_proba(tensor(X), harden=True).argmax(1).numpy()


LEVELS = {
    "flat": [[0, 1, 2, 3]],
    "pairs": [[0, 0, 1, 1], [0, 1, 2, 3]],
    "outer and inner": [[0, 1, 1, 0], [0, 1, 2, 3]],
    "one and three": [[0, 1, 1, 1], [0, 1, 2, 3]],
    "renumbered": [[1, 1, 0, 0], [3, 1, 0, 2]],
    "three levels": [[0, 0, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
    "no choice": [[0, 0, 0, 0], [0, 1, 2, 3]],
}


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("quick", [False, True])
def test_leaves_are_the_pieces(name, quick):
    problem, pieces = line_pieces()
    levels = [np.array(level) for level in LEVELS[name]]
    # Two pieces apart need a gate that is not monotonic.
    form = QUADRATIC if name in ("outer and inner", "flat") else LINEAR
    tree = fit_gate_tree(problem, pieces, levels, (form,), quick)
    assert len(tree.levels) == len(levels)
    X = problem.rows.X.numpy()
    labels = pieces.labels.numpy()
    for chosen, level in zip(tree.choose(problem.rows.X), levels, strict=True):
        np.testing.assert_array_equal(chosen, level[labels])
    np.testing.assert_array_equal(leaves(tree, X), levels[-1][labels])
    for depth, gate in enumerate(tree.levels):
        assert gate.sharp
        above = levels[depth - 1] if depth else np.zeros(4, dtype=int)
        np.testing.assert_array_equal(gate.parent[levels[depth]], above)
    # Sharp gates are zeros and ones on samples.
    pi = tree.log_proba(problem.rows.X).exp()
    assert float(pi.max(1).values.min()) > 1 - 1e-9


@pytest.mark.parametrize("name", ["pairs", "three levels"])
def test_kinks_are_found_to_round_off(name):
    problem, pieces = line_pieces()
    levels = [np.array(level) for level in LEVELS[name]]
    tree = fit_gate_tree(problem, pieces, levels, (LINEAR,))
    offsets = np.array([1e-9, -1e-9])
    X = (ENDS[:, None] + offsets).reshape(-1, 1)
    np.testing.assert_array_equal(leaves(tree, X), levels[-1][quarters(X)])


def test_levels_without_a_choice_have_constant_gates():
    problem, pieces = line_pieces()
    levels = [np.array(level) for level in LEVELS["no choice"]]
    tree = fit_gate_tree(problem, pieces, levels, (QUADRATIC,))
    first = tree.levels[0]
    assert first.degree == 0
    assert first.n_partitions == 1
    assert not first.theta.any()
    assert tree.levels[1].degree == 2


def test_children_without_a_choice_have_zero_logits():
    problem, pieces = line_pieces()
    levels = [np.array(level) for level in LEVELS["three levels"]]
    tree = fit_gate_tree(problem, pieces, levels, (LINEAR,))
    gate = tree.levels[1]  # The second node of the first level has one child there.
    assert not gate.theta[2].any()
    assert gate.theta[:2].any()


def test_one_piece_needs_no_gate():
    problem, _ = line_pieces()
    pieces = problem.fit(torch.zeros(problem.n, dtype=torch.int64))
    tree = fit_gate_tree(problem, pieces, [np.array([0])], (LINEAR, QUADRATIC))
    assert tree.levels[0].degree == 0
    np.testing.assert_array_equal(leaves(tree, problem.rows.X), 0)


def test_first_level_takes_the_simplest_form_that_will_do():
    problem = problem_of(kink, 300, d=2, degree=2)
    pieces = problem.fit(labels_by(problem, lambda X: parabola(X) > 0))
    tree = fit_gate_tree(problem, pieces, [np.array([0, 1])], (LINEAR, QUADRATIC))
    assert tree.levels[0].degree == 2
    x = np.linspace(0.05, 0.95, 30)
    height = 0.3 + 0.5 * x**2
    for side, shift in enumerate((-1e-7, 1e-7)):
        np.testing.assert_array_equal(leaves(tree, np.c_[x, height + shift]), side)
    straight = problem_of(lambda X: np.abs(X[:, 0] + X[:, 1] - 1), 300, d=2)
    pieces = straight.fit(labels_by(straight, lambda X: X.sum(1) > 1))
    tree = fit_gate_tree(straight, pieces, [np.array([0, 1])], (LINEAR, QUADRATIC))
    assert tree.levels[0].degree == 1
    # Of several parents on one level all have the first form.
    problem, pieces = line_pieces()
    levels = [np.array(level) for level in LEVELS["pairs"]]
    tree = fit_gate_tree(problem, pieces, levels, (LINEAR, QUADRATIC))
    assert tree.levels[1].degree == 1


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_units_of_y_leave_the_boundaries_where_they_are(size):
    levels, X = [np.array(level) for level in LEVELS["pairs"]], np.linspace(0, 1, 999)[:, None]
    found = []
    for s in (1.0, size):
        problem = problem_of(lambda X, s=s: s * zigzag(X), 200)
        pieces = problem.fit(labels_by(problem, quarters))
        found.append(leaves(fit_gate_tree(problem, pieces, levels, (LINEAR,)), X))
    np.testing.assert_array_equal(*found)


def test_several_outputs_meet_where_all_of_them_do():
    def function(X):
        return np.c_[zigzag(X), 3 - 2 * zigzag(X)]

    problem = problem_of(function, 200)
    pieces = problem.fit(labels_by(problem, quarters))
    levels = [np.array(level) for level in LEVELS["pairs"]]
    tree = fit_gate_tree(problem, pieces, levels, (LINEAR,))
    X = (ENDS[:, None] + [1e-8, -1e-8]).reshape(-1, 1)
    np.testing.assert_array_equal(leaves(tree, X), quarters(X))


def test_jumps_are_between_the_samples():
    rng = np.random.default_rng(1)
    X = rng.random((80, 1))
    y = np.where(X[:, 0] < 0.4, X[:, 0], 5 - X[:, 0])
    problem = PieceProblem(rows_of(X, y), 1)
    pieces = problem.fit(labels_by(problem, lambda X: X[:, 0] > 0.4))
    for quick in (False, True):
        tree = fit_gate_tree(problem, pieces, [np.array([0, 1])], (LINEAR,), quick)
        ends = X[X < 0.4].max(), X[X > 0.4].min()
        np.testing.assert_array_equal(leaves(tree, np.array(ends)[:, None]), [0, 1])


def test_two_samples():
    problem = PieceProblem(rows_of([[0.0], [1.0]], [0.0, 1.0]), 0)
    pieces = problem.fit(torch.tensor([0, 1]))
    tree = fit_gate_tree(problem, pieces, [np.array([0, 1])], (LINEAR, QUADRATIC))
    np.testing.assert_array_equal(leaves(tree, [[0.0], [1.0]]), [0, 1])


def test_root_gate_is_that_of_a_tree_of_one_level():
    problem, pieces = line_pieces()
    halves = pieces.labels // 2
    coarse = problem.fit(halves)
    models = NodeModels(problem, coarse.coef, [])
    gate = fit_root_gate(problem, halves, models, (LINEAR, QUADRATIC))
    tree = fit_gate_tree(problem, coarse, [np.array([0, 1])], (LINEAR, QUADRATIC))
    torch.testing.assert_close(gate.theta, tree.levels[0].theta)
    assert gate.parent.tolist() == [0, 0]


def test_root_gate_sees_the_pieces_through_the_finer_gates():
    """The kink between the second and third line, though each side is two lines."""
    problem, pieces = line_pieces()
    levels = [np.array(level) for level in LEVELS["pairs"]]
    finer = fit_gate_tree(problem, pieces, levels, (LINEAR,)).levels[1:]
    models = NodeModels(problem, pieces.coef, finer)
    gate = fit_root_gate(problem, pieces.labels // 2, models, (LINEAR,))
    X = np.array([[0.5 - 1e-9], [0.5 + 1e-9]])
    logits = gate.basis(1).matrix(tensor(X)) @ gate.theta.T
    assert logits.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("degree", "form"), [(1, LINEAR), (1, QUADRATIC), (2, QUADRATIC)])
def test_a_largest_or_smallest_of_polynomials_is_known_where_there_are_no_rows(sign, degree, form):
    def sides(X):
        planes = [X[:, 0], X[:, 1], 1.2 - X[:, 0] - X[:, 1]]
        bent = (degree == 2) * np.array([1.0, 0.4, 0.7])
        return np.stack([y + a * (X[:, 0] - 0.3) ** 2 for y, a in zip(planes, bent, strict=True)])

    def function(X):
        return sign * sides(X).max(0)

    rows = np.random.default_rng(8).uniform(0.15, 0.85, (400, 2))
    problem = PieceProblem(rows_of(rows, function(rows)), degree)
    pieces = problem.fit(labels_by(problem, lambda X: sides(X).argmax(0)))
    tree = fit_gate_tree(problem, pieces, [np.arange(3)], (form,))
    everywhere = np.random.default_rng(9).random((5000, 2))
    low, high = np.sort(sides(everywhere), axis=0)[-2:]
    apart = high - low > 1e-9
    assert (leaves(tree, everywhere) == sides(everywhere).argmax(0))[apart].all()


def test_an_envelope_needs_logits_of_its_degree():
    problem = problem_of(zigzag, 50, degree=2)
    coef = torch.tensor([[[0.0], [1.0], [0.5]], [[0.2], [-1.0], [0.1]]], dtype=torch.float64)
    models, both = NodeModels(problem, coef, []), torch.arange(2)
    assert envelope_gates(models, both, LINEAR) == []
    largest, smallest = envelope_gates(models, both, QUADRATIC)
    torch.testing.assert_close(largest, -smallest, rtol=0, atol=0)
    torch.testing.assert_close(largest[0] - largest[1], (coef[0] - coef[1])[:, 0])
