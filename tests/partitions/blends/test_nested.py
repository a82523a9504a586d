"""Trees of soft pieces that were asked for: coarse levels are fits of their own."""

import numpy as np
import pytest
import torch

from skpou.partitions.blends import nested
from skpou.partitions.blends.blends import BlendOptions, BlendTrainer
from skpou.partitions.blends.ladder import fit_ladder
from skpou.partitions.blends.nested import fit_tree
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from skpou.partitions.mixtures.experts import fit_experts_to_gates
from skpou.partitions.mixtures.mixture import Mixture
from tests.examples import labels_by, problem_of, slow, tensor

SHORT = BlendOptions(max_iter=60, pilot_iter=15)
SIZES = (2, 2)


def chirp(X):
    return np.sin(9 * X[:, 0] ** 2) * np.exp(X[:, 0])


def packet(X):
    return np.exp(-4 * np.square(X - 0.4).sum(1)) * np.cos(3 * X[:, 0])


def tree_of(problem, options=SHORT):
    index = torch.arange(problem.n)
    leaf = labels_by(problem, lambda X: np.floor(4 * X[:, 0]))
    parents = [torch.tensor([0, 0]), torch.tensor([0, 0, 1, 1])]
    return index, leaf, fit_tree(problem, index, [leaf // 2, leaf], parents, options, SIZES)


def errors(problem, blend, function, degree):
    """Relative errors of every level between the rows."""
    X = np.random.default_rng(9).random((2000, problem.d))
    exact = function(X)
    levels = [
        GateLevel(parent, theta, SHORT.form.degree)
        for parent, theta in zip(blend.parents, blend.theta, strict=True)
    ]
    tree, found = PartitionTree(problem.d, levels), []
    experts, _ = fit_experts_to_gates(problem.rows, tree, degree, None, 0)
    mixture = Mixture(tree, experts, degree, 0)
    for level in range(len(levels)):
        error = mixture.at(level).mean(tensor(X))[:, 0].numpy() - exact
        found.append(float(np.sqrt(np.square(error).mean() / np.square(exact).mean())))
    return found


@pytest.mark.parametrize(("function", "d", "n"), [(chirp, 1, 200), *slow((packet, 2, 400))])
def test_coarse_level_errs_as_a_fit_of_as_many_pieces_and_leaves_as_before(function, d, n):
    problem = problem_of(function, n, d, degree=3, seed=11)
    index, leaf, blend = tree_of(problem)
    assert [parent.tolist() for parent in blend.parents] == [[0, 0], [0, 0, 1, 1]]
    flat = fit_ladder(problem, index, leaf, SHORT, (2,))
    # The gates are those of a fit without the level below.
    assert torch.equal(blend.theta[0], flat.theta[0])
    coarse, fine = errors(problem, blend, function, 3)
    assert coarse <= 1.5 * errors(problem, flat, function, 3)[0]
    at_once = BlendTrainer(problem, index, SHORT).train([leaf // 2, leaf], blend.parents)
    assert blend.result.score <= 3 * at_once.result.score
    once = errors(problem, at_once, function, 3)
    assert fine <= 10 * once[1]
    assert coarse < 0.3 * once[0]


def test_gates_that_are_moved_at_once_stay_where_nested_ones_err_more(monkeypatch):
    problem = problem_of(chirp, 200, 1, degree=3, seed=11)
    expected = tree_of(problem)[2].theta
    monkeypatch.setattr(nested, "AS_GOOD", 0)
    monkeypatch.setattr(nested, "EXACT", 0)
    kept = tree_of(problem)[2]
    assert not torch.allclose(kept.theta[0], expected[0])
    assert kept.n_leaves == 4


@pytest.mark.parametrize("form", [GateForm(1), GateForm(2)])
@pytest.mark.parametrize("most", [2, 3])
def test_children_begin_side_by_side_along_the_longest_column(form, most):
    rng = np.random.default_rng(3)
    X = tensor(rng.random((600, 2)) * [1, 0.3])
    left = (X[:, 0] < 0.4).double()
    share = torch.stack([left, 1 - left], 1)
    features = form.basis(2).matrix(X)
    for theta in nested._children(share, X, BlendOptions(form=form), most):
        logits = features @ theta.reshape(2 * most, -1).T
        for k, side in enumerate((left > 0, left == 0)):
            own = logits[side, k * most : (k + 1) * most].argmax(1)
            # As many rows each, the first child at the low end.
            counts = torch.bincount(own, minlength=most) / own.shape[0]
            assert (counts - 1 / most).abs().max() < 0.15
            means = [X[side, 0][own == j].mean() for j in range(most)]
            assert means == sorted(means)
