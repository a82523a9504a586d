"""Soft pieces of a smooth part: how well, and side by side in one tree."""

import math

import numpy as np
import pytest
import torch

from skpou.core.polynomials import TotalDegreePolynomials
from skpou.core.records import TrainingResult
from skpou.partitions.blends.blends import Blend, BlendOptions, BlendTrainer, compose
from skpou.partitions.gates.tree import GateForm, PartitionTree
from tests.examples import labels_by, problem_of, tensor

SHORT = BlendOptions(max_iter=60, pilot_iter=15)


def wave(X):
    return np.sin(2 * np.pi * X[:, 0])


def all_of(problem):
    return torch.arange(problem.n)


def values(blend, X, degree, form):
    """A blend at points, by a loop over the paths from the root to the leaves."""
    features, phi = form.basis(X.shape[1]).matrix(X), TotalDegreePolynomials(X.shape[1], degree)
    pi = [np.ones(len(X))]
    for parent, theta in zip(blend.parents, blend.theta, strict=True):
        power, parent = (features @ theta.T).exp().numpy(), parent.tolist()
        siblings = [[k for k in range(len(parent)) if parent[k] == p] for p in parent]
        pi = [
            pi[p] * power[:, k] / sum(power[:, s] for s in siblings[k])
            for k, p in enumerate(parent)
        ]
    experts = [(phi.matrix(X) @ coef).numpy() for coef in blend.coef]
    return sum(p[:, None] * f for p, f in zip(pi, experts, strict=True))


def relative_error(blend, function, degree, form, d=1):
    X = np.random.default_rng(9).random((1000, d))
    exact = function(X).reshape(1000, -1)
    error = values(blend, tensor(X), degree, form) - exact
    return float(np.sqrt(np.square(error).mean() / np.square(exact).mean()))


def test_tree_that_was_asked_for():
    problem = problem_of(wave, 300, degree=2)
    leaf = labels_by(problem, lambda X: np.searchsorted([0.3, 0.5, 0.75], X[:, 0]))
    # The first node has one child, the other three.
    nodes, parents = [(leaf > 0).long(), leaf], [[0, 0], [0, 1, 1, 1]]
    blend = BlendTrainer(problem, all_of(problem), SHORT).train(
        nodes, [torch.tensor(parent) for parent in parents]
    )
    assert [parent.tolist() for parent in blend.parents] == parents
    assert [theta.shape for theta in blend.theta] == [(2, 3), (4, 3)]
    assert relative_error(blend, wave, 2, SHORT.form) < 1e-5


@pytest.mark.parametrize("alpha", [None, 1e-3, 0.0])
def test_ridge_of_the_options(alpha):
    ridge = BlendOptions(alpha=alpha).ridge()
    before = ridge.value
    assert ridge.follow(1e-8) == (alpha is None)
    assert ridge.value == before or alpha is None
    assert alpha is None or ridge.value == alpha**2


@pytest.mark.parametrize("counts", [[3], [1, 4, 2]])
@pytest.mark.parametrize("form", [GateForm(1), GateForm(2), GateForm(2, isotropic=True)])
def test_parts_of_one_level_side_by_side(counts, form):
    check_composed([[[0] * count] for count in counts], form)


@pytest.mark.parametrize(
    "parts",
    [
        [[[0, 0], [0, 1, 1]], [[0], [0, 0]], [[0, 0, 0], [2, 0, 1, 1]]],
        [[[0], [0]], [[0, 0], [1, 0]]],
        [[[0, 0], [1, 0, 1], [0, 1, 2, 2]], [[0, 0, 0], [0, 1, 2], [2, 1, 0, 0, 2]]],
    ],
)
def test_parts_of_several_levels_side_by_side(parts):
    check_composed(parts, GateForm(1))


def check_composed(parts, form):
    """Leaves of the composed tree, given their part, against each part's own paths."""
    rng, X = np.random.default_rng(3), tensor(np.random.default_rng(4).random((7, 2)))
    q, degree = form.basis(2).n_columns, 1
    blends = []
    for parents in parts:
        theta = [tensor(rng.standard_normal((len(parent), q))) for parent in parents]
        coef = tensor(rng.standard_normal((len(parents[-1]), 3, 2)))
        record = TrainingResult(None, math.nan, 1)
        blends.append(Blend([torch.tensor(p) for p in parents], theta, coef, record))
    levels = compose(blends, form)
    for depth, level in enumerate(levels):
        above = levels[depth - 1].n_partitions if depth else len(parts)
        assert torch.unique(level.parent).tolist() == list(range(above))
        assert level.n_partitions == sum(len(part[depth]) for part in parts)
        assert not level.sharp
        assert (level.degree, level.isotropic) == (form.degree, form.isotropic)
    gate, first = [], 0
    if len(parts) > 1:
        # Some gate between the parts.
        choice = tensor(rng.standard_normal((len(parts), q)))
        root = Blend([torch.zeros(len(parts), dtype=torch.int64)], [choice], None, None)
        gate, first = compose([root], form), 1
    tree = PartitionTree(2, [*gate, *levels])
    assert tree.ancestors(first).tolist() == [g for g, part in enumerate(parts) for _ in part[-1]]
    below = tree.log_below(X, first).exp()
    phi = TotalDegreePolynomials(2, degree).matrix(X)
    whole = tree.log_proba(X).exp()
    share = torch.ones_like(X[:, :1]) if not first else tree.log_proba(X, 0).exp()
    start = 0
    for g, blend in enumerate(blends):
        own = slice(start, start + blend.n_leaves)
        start += blend.n_leaves
        got = torch.einsum("nk,np,kpm->nm", below[:, own], phi, blend.coef)
        np.testing.assert_allclose(got, values(blend, X, degree, form), rtol=1e-12, atol=1e-13)
        product = share[:, g : g + 1] * below[:, own]
        torch.testing.assert_close(whole[:, own], product, rtol=1e-12, atol=1e-15)
