"""Interfaces between pieces: roots, normals, slopes and weights of kinks that are known."""

import itertools
import math

import numpy as np
import pytest
import torch

from skpou.partitions.gates.tree import GateLevel, PartitionTree
from skpou.partitions.pieces.interfaces import (
    Interface,
    NodeModels,
    coarse_groups,
    find_interface,
    foreign_pairs,
    groups_below,
    kink_linkage,
)
from tests.examples import kink, labels_by, parabola, problem_of, tensor, wave


def interface_of(problem, labels, finer=(), parent=None, **options):
    pieces = problem.fit(labels)
    models = NodeModels(problem, pieces.coef, list(finer))
    if parent is None:
        parent = torch.zeros(pieces.n_pieces, dtype=torch.int64)
    return find_interface(problem, labels, models, pieces.error, parent, **options)


def kink_problem(noise=0.0, n=600, seed=0):
    problem = problem_of(kink, n, 2, 2, seed, noise)
    return problem, labels_by(problem, lambda X: parabola(X) > 0)


def gradient_of_parabola(X):
    return np.stack([-X[:, 0], np.ones(len(X))], 1)


def test_roots_lie_on_the_kink():
    problem, labels = kink_problem()
    interface = interface_of(problem, labels)
    roots = interface.roots.numpy()
    assert len(roots) > 30
    assert np.abs(parabola(roots)).max() < 1e-13
    assert (roots >= 0).all()
    assert (roots <= 1).all()


def test_normals_and_slopes():
    problem, labels = kink_problem()
    interface = interface_of(problem, labels)
    gradient = gradient_of_parabola(interface.roots.numpy())
    size = np.linalg.norm(gradient, axis=1)
    # The difference of the two models is twice the parabola's function.
    np.testing.assert_allclose(interface.slope, 2 * size, rtol=1e-10)
    sign = np.where(interface.first.numpy() == 1, 1.0, -1.0)[:, None]
    np.testing.assert_allclose(interface.normal, sign * gradient / size[:, None], atol=1e-10)
    assert (interface.first != interface.second).all()
    # A small step along the normal leads to the side of `first`.
    ahead = interface.roots + 1e-3 * interface.normal
    assert torch.equal(torch.as_tensor(parabola(ahead.numpy()) > 0).long(), interface.first)


def test_weights_fall_with_noise():
    weights = []
    for noise in (0.0, 1e-3, 1e-2, 5e-2):
        problem, labels = kink_problem(noise)
        interface = interface_of(problem, labels, least_weight=0.0)
        assert ((interface.weight > 0) & (interface.weight <= 1)).all()
        pieces = problem.fit(labels)
        error = (pieces.error[0] ** 2 + pieces.error[1] ** 2).sqrt() + 10 * problem.floor
        expected = 1 / (1 + (3 * error / (interface.slope * interface.spacing)) ** 2).sqrt()
        torch.testing.assert_close(interface.weight, expected)
        weights.append(float(interface.weight.mean()))
        kept = interface_of(problem, labels, least_weight=0.5)
        assert len(kept.roots) == int((interface.weight > 0.5).sum())
    assert weights[0] > 1 - 1e-6
    assert all(b < a for a, b in itertools.pairwise(weights))


def test_roots_move_with_noise_no_more_than_the_weights_say():
    problem, labels = kink_problem(1e-2)
    interface = interface_of(problem, labels)
    distance = np.abs(parabola(interface.roots.numpy()))
    error = float(problem.fit(labels).error.max())
    assert np.median(distance) < error


def test_foreign_pairs_against_a_loop():
    problem = problem_of(kink, 80, 2, 1)
    rng = np.random.default_rng(1)
    labels = torch.as_tensor(rng.integers(0, 4, problem.n))
    for parent in (torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 0, 1])):
        expected = set()
        for i, row in enumerate(problem.neighbours.tolist()):
            for j in row:
                a, b = labels[i], labels[j]
                if a != b and parent[a] == parent[b]:
                    expected.add(frozenset((i, j)))
        i, j = foreign_pairs(problem, labels, parent)
        got = [frozenset(pair) for pair in zip(i.tolist(), j.tolist(), strict=True)]
        assert len(got) == len(set(got)), "a pair occurs twice"
        assert set(got) == expected
    interface = interface_of(problem, labels)
    i, j = foreign_pairs(problem, labels, torch.zeros(4, dtype=torch.int64))
    distance = (problem.rows.X[i] - problem.rows.X[j]).square().sum(1).sqrt()
    assert interface.spacing == float(distance.median())


def test_only_children_of_one_parent_meet():
    problem = problem_of(wave(4), 300, 1, 2)
    labels = labels_by(problem, lambda X: np.floor(4 * X[:, 0]))
    interface = interface_of(problem, labels, parent=torch.tensor([0, 0, 1, 1]))
    pairs = torch.stack([interface.first, interface.second], 1).sort(1).values
    assert sorted(set(map(tuple, pairs.tolist()))) == [(0, 1), (2, 3)]
    np.testing.assert_allclose(interface.roots[pairs[:, 0] == 0], 0.25, atol=1e-13)
    np.testing.assert_allclose(interface.roots[pairs[:, 0] == 2], 0.75, atol=1e-13)


def test_a_jump_has_no_roots():
    problem = problem_of(lambda X: 2.0 * (X[:, 0] > 0.4), 100, 1, 1)
    interface = interface_of(problem, labels_by(problem, lambda X: X[:, 0] > 0.4))
    assert len(interface.roots) == 0
    assert len(interface.pairs) > 0
    np.testing.assert_allclose(interface.jump, 2 / interface.spacing, rtol=1e-10)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_models_that_touch_meet_where_they_are_closest(n_outputs):
    """A kink of the curvature along a line: no difference of the two models changes its sign."""
    level = 0.4137

    def distance(X):
        return (X @ [0.6, 0.8]) - level

    def bend(X):
        y = np.maximum(distance(X), 0) ** 2 + X[:, 0]
        return np.stack([y, 2 * y - X[:, 1]], 1)[:, :n_outputs]

    problem = problem_of(bend, 300, 2, 2)
    interface = interface_of(problem, labels_by(problem, lambda X: distance(X) > 0))
    assert len(interface.roots) > 10
    assert np.abs(distance(interface.roots.numpy())).max() < 1e-7
    sign = np.where(interface.first.numpy() == 1, 1.0, -1.0)[:, None]
    np.testing.assert_allclose(interface.normal, sign * [[0.6, 0.8]], atol=1e-6)
    assert float(interface.weight.min()) > 0.5


def test_one_piece_has_no_interface():
    problem = problem_of(kink, 50, 2, 1)
    interface = interface_of(problem, torch.zeros(50, dtype=torch.int64))
    assert len(interface.roots) == len(interface.pairs) == len(interface.jump) == 0
    assert interface.roots.shape == interface.normal.shape == (0, 2)


def test_several_targets_meet_in_common_roots():
    def both(X):
        return np.stack([kink(X), 1 - 3 * kink(X), X[:, 0]], 1)

    problem = problem_of(both, 600, 2, 2)
    labels = labels_by(problem, lambda X: parabola(X) > 0)
    interface = interface_of(problem, labels)
    assert np.abs(parabola(interface.roots.numpy())).max() < 1e-13
    size = np.linalg.norm(gradient_of_parabola(interface.roots.numpy()), axis=1)
    np.testing.assert_allclose(interface.slope, 2 * math.sqrt(10) * size, rtol=1e-9)


def test_models_seen_through_finer_gates():
    problem = problem_of(kink, 40, 2, 2)
    rng = np.random.default_rng(2)
    coef = tensor(rng.standard_normal((5, problem.n_columns, 2)))
    finer = [
        GateLevel(torch.tensor([0, 1, 0]), tensor(rng.standard_normal((3, 3))), 1, True),
        GateLevel(torch.tensor([2, 0, 1, 1, 0]), tensor(rng.standard_normal((5, 6))), 2, True),
    ]
    models, X = NodeModels(problem, coef, finer), problem.rows.X
    gates = PartitionTree(2, finer)
    first, second = (gates.log_conditional(X, depth).exp().numpy() for depth in (0, 1))
    for got, phi in (
        (models.values(X), problem.basis.matrix(X)),
        (models.partial(X, 1), problem.basis.partial(X, 1)),
    ):
        leaves = torch.einsum("np,kpm->nkm", phi, coef).numpy()
        expected = np.zeros((40, 2, 2))
        for leaf, parent in enumerate([2, 0, 1, 1, 0]):
            share = second[:, leaf] * first[:, parent]
            expected[:, [0, 1, 0][parent]] += share[:, None] * leaves[:, leaf]
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    values = models.values(X)
    a, b = torch.zeros(40, dtype=torch.int64), torch.ones(40, dtype=torch.int64)
    assert torch.equal(models.difference(values, a, b), values[:, 0] - values[:, 1])


def made_up(edges, n_roots=2, spacing=1.0):
    """Interface with given (first, second, strength) edges; each has `n_roots` equal roots."""
    a, b, slope = zip(*(edges * n_roots), strict=True)
    a, b, slope = torch.tensor(a), torch.tensor(b), tensor(slope)
    n = len(a)
    zeros, ones = torch.zeros((n, 1)).double(), torch.ones(n).double()
    pairs = torch.stack([a, b], 1)
    return Interface(zeros, a, b, zeros, slope, ones, spacing, pairs, torch.full((n,), 1e-30))


def test_linkage_against_a_naive_average():
    rng = np.random.default_rng(3)
    K = 6
    edges = [(a, b, float(np.exp(rng.normal()))) for a in range(K) for b in range(a)]
    edges += [(1, 0, 3.0), (4, 2, 0.1)]
    merges = kink_linkage(made_up(edges), K)
    logs = {}
    for a, b, strength in edges:
        logs.setdefault(frozenset((a, b)), []).append(math.log(strength))
    pairs = {key: (np.mean(value), len(value)) for key, value in logs.items()}
    clusters = {k: [k] for k in range(K)}
    for m, (a, b, height) in enumerate(merges):
        heights = {}
        names = sorted(clusters)
        for i, p in enumerate(names):
            for q in names[i + 1 :]:
                terms = [pairs[frozenset((u, v))] for u in clusters[p] for v in clusters[q]]
                total = sum(count for _, count in terms)
                heights[p, q] = sum(mean * count for mean, count in terms) / total
        assert abs(math.log(height) - min(heights.values())) < 1e-10
        assert abs(heights[tuple(sorted((a, b)))] - min(heights.values())) < 1e-10
        clusters[K + m] = clusters.pop(a) + clusters.pop(b)


def test_linkage_joins_only_pieces_that_meet():
    merges = kink_linkage(made_up([(0, 1, 5.0), (2, 3, 4.0), (1, 2, 100.0)]), 4)
    assert [tuple(sorted(merge[:2])) for merge in merges] == [(2, 3), (0, 1), (4, 5)]
    np.testing.assert_allclose([height for *_, height in merges], [4.0, 5.0, 100.0])


def test_pieces_that_never_meet_end_in_one_node():
    merges = kink_linkage(made_up([(0, 1, 5.0)]), 4)
    assert len(merges) == 3
    assert sorted(a for *pair, _ in merges for a in pair) == [0, 1, 2, 3, 4, 5]


def test_groups_of_kinks_and_smooth_joints():
    edges = [(0, 1, 0.01), (1, 2, 3.0), (2, 3, 0.02), (3, 4, 2.0)]
    merges = kink_linkage(made_up(edges), 5)
    assert sorted(coarse_groups(merges, 1e-11, False)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("resolution", "white", "expected"),
    [
        (1e-5, False, [[0], [1], [2]]),
        (0.01, False, [[0, 1, 2]]),
        (0.01, True, [[0], [1], [2]]),
        (0.02, True, [[0, 1], [2]]),
    ],
)
def test_without_a_gap_the_residual_decides(resolution, white, expected):
    merges = kink_linkage(made_up([(0, 1, 1.0), (1, 2, 2.0)]), 3)
    assert sorted(coarse_groups(merges, resolution, white)) == expected


@pytest.mark.parametrize(
    ("resolution", "jump", "expected"),
    [
        # Joints above what noise would leave, below what a model's error may: the jump tells.
        (0.01, 1e4, [[0, 1], [2]]),
        (0.01, 1e2, [[0], [1], [2]]),
        # A kink that no model's error explains is one beside any jump.
        (5e-4, 1e4, [[0], [1], [2]]),
    ],
)
def test_jump_far_above_smooth_joints_counts_where_residuals_look_white(resolution, jump, expected):
    merges = kink_linkage(made_up([(0, 1, 1.0), (1, 2, jump)]), 3)
    assert sorted(coarse_groups(merges, resolution, True)) == expected


def test_groups_of_no_or_one_merge():
    assert coarse_groups([], 0.0, False) == [[0]]
    assert sorted(coarse_groups([(0, 1, 1.0)], 1e-8, False)) == [[0], [1]]
    assert sorted(coarse_groups([(0, 1, 1.0)], 1.0, True)) == [[0, 1]]


def test_groups_below_a_threshold():
    merges = [(0, 1, 1.0), (2, 4, 5.0), (3, 5, 2.0)]
    assert sorted(groups_below(4, merges, 0.5)) == [[0], [1], [2], [3]]
    assert sorted(groups_below(4, merges, 1.5)) == [[0, 1], [2], [3]]
    # The third merge needs the second, which is too strong.
    assert sorted(groups_below(4, merges, 3.0)) == [[0, 1], [2], [3]]
    assert sorted(groups_below(4, merges, math.inf)) == [[0, 1, 2, 3]]
