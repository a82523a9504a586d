"""Tree plans: sizes and capacities are kept, groups nest, and cuts are the best ones."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpou.partitions.pieces import plan as trees
from skpou.partitions.pieces.interfaces import NodeModels, coarse_groups, find_interface
from skpou.partitions.pieces.plan import cut_merges, group_numbers, leaf_order, plan_levels
from tests.examples import labels_by, problem_of, wave


def random_dendrogram(rng, K):
    """K - 1 merges of random pairs of living nodes."""
    alive, merges = list(range(K)), []
    for m in range(K - 1):
        a, b = (alive.pop(int(rng.integers(len(alive)))) for _ in range(2))
        merges.append((a, b))
        alive.append(K + m)
    return merges


def random_planner(rng, K):
    """Planner of K noisy pieces of a line, with random dendrograms."""
    problem = problem_of(lambda X: np.sin(7 * X[:, 0]), 12 * K, 1, 1, int(rng.integers(99)), 0.1)
    pieces = problem.fit(torch.arange(problem.n) % K)
    planner = trees._Planner(problem, pieces, None)
    planner.joins = random_dendrogram(rng, K)
    heights = np.exp(rng.normal(0, 3, max(K - 1, 0)))
    planner.kinks = [(a, b, h) for (a, b), h in zip(random_dendrogram(rng, K), heights)]
    planner.groups = coarse_groups(planner.kinks, 0.1, 1.0)
    return planner


def assert_plan(levels, sizes, K):
    """Nested levels; nodes have at most `sizes` children each and at most their capacity."""
    assert len(levels) == len(sizes) - 1
    levels = [*levels, np.arange(K)]
    parents = np.zeros(K, dtype=int)
    for depth, nodes in enumerate(levels):
        assert sorted(set(nodes.tolist())) == list(range(nodes.max() + 1))
        # Every node has one parent, and every parent at most sizes[depth] children.
        family = {}
        for parent, node in zip(parents.tolist(), nodes.tolist(), strict=True):
            assert family.setdefault(node, parent) == parent, "a node with two parents"
        counts = np.bincount(list(family.values()))
        assert counts.max() <= sizes[depth], f"level {depth}: {counts} children"
        capacity = math.prod(sizes[depth + 1 :])
        assert np.bincount(nodes).max() <= capacity
        parents = nodes


@settings(max_examples=150)
@given(
    st.sampled_from([(2, 2), (3, 4), (4, 3), (2, 2, 2), (1, 5), (5, 1), (3, 1, 3), (2, 3, 2)]),
    st.integers(0, 10**6),
    st.data(),
)
def test_sizes_and_capacities_are_kept_for_any_dendrogram(sizes, seed, data):
    K = data.draw(st.integers(1, math.prod(sizes)))
    planner = random_planner(np.random.default_rng(seed), K)
    levels = planner.split(list(range(K)), sizes)
    if len(sizes) == 2 and 1 < len(planner.groups) < K and len(planner.groups) <= sizes[0]:
        # Smooth parts between kinks stay whole; fewer pieces will be blended in each.
        assert trees._same_groups(levels[0], planner.groups)
    else:
        assert_plan(levels, sizes, K)


@settings(max_examples=100)
@given(st.integers(1, 9), st.integers(0, 999), st.data())
def test_cut_of_some_pieces(K, seed, data):
    merges = random_dendrogram(np.random.default_rng(seed), K)
    nodes = sorted(data.draw(st.sets(st.integers(0, K - 1), min_size=1)))
    n_groups = data.draw(st.integers(1, K))
    groups = cut_merges(merges, K, nodes, n_groups)
    assert sorted(itertools.chain(*groups)) == nodes
    assert len(groups) == min(n_groups, len(nodes))
    # A coarser cut only joins groups.
    if n_groups > 1:
        for group in groups:
            coarser = cut_merges(merges, K, nodes, n_groups - 1)
            assert any(set(group) <= set(other) for other in coarser)


@settings(max_examples=100)
@given(st.integers(1, 12), st.integers(0, 999))
def test_leaves_of_every_branch_lie_side_by_side(K, seed):
    merges = random_dendrogram(np.random.default_rng(seed), K)
    order = leaf_order(merges, K)
    assert sorted(order) == list(range(K))
    position = {piece: i for i, piece in enumerate(order)}
    members = {k: [k] for k in range(K)}
    for m, (a, b) in enumerate(merges):
        members[K + m] = members[a] + members[b]
        places = [position[piece] for piece in members[K + m]]
        assert max(places) - min(places) == len(places) - 1


def test_group_numbers():
    assert group_numbers([[1, 3], [0], [2]], 4).tolist() == [1, 0, 2, 0]


def brute_force_cost(planner, order, most, capacity):
    """Least residual over all ways to cut `order` into at most `most` runs of bounded length."""
    labels, n = planner.pieces.labels, len(order)
    best = math.inf
    for runs in range(1, most + 1):
        for cuts in itertools.combinations(range(1, n), runs - 1):
            bounds = [0, *cuts, n]
            parts = [order[a:b] for a, b in itertools.pairwise(bounds)]
            if max(map(len, parts)) <= capacity:
                best = min(best, sum(joint_excess(planner, labels, part) for part in parts))
    return best


def joint_excess(planner, labels, part):
    """Residual of one polynomial for several pieces; a single piece costs nothing."""
    if len(part) == 1:
        return 0.0
    own = torch.isin(labels, torch.tensor(part))
    return float(planner.problem.fit((~own).long(), 2).rss[0])


@pytest.mark.parametrize(
    ("K", "most", "capacity"), [(1, 2, 2), (4, 2, 3), (6, 3, 2), (7, 3, 3), (7, 4, 4), (6, 1, 6)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_consecutive_split_is_the_best_of_all(K, most, capacity, seed):
    rng = np.random.default_rng(seed)
    planner = random_planner(rng, K)
    x = planner.problem.rows.X[:, 0]
    labels = (x * K).long().clamp_max(K - 1)
    planner.pieces = planner.problem.fit(labels, K)
    order = rng.permutation(K).tolist()
    runs = planner._consecutive(order, most, capacity)
    assert list(itertools.chain(*runs)) == order
    assert len(runs) <= most
    assert max(map(len, runs)) <= capacity
    cost = sum(joint_excess(planner, labels, run) for run in runs)
    expected = brute_force_cost(planner, order, most, capacity)
    assert abs(cost - expected) <= 1e-10 * max(expected, 1e-10)


#: The first two of four pieces apart from the last two; groups may have any numbers.
PAIRS = ([0, 0, 1, 1], [1, 1, 0, 0])


def discovered(function, labels, n=400, degree=2):
    problem = problem_of(function, n, 1, degree)
    pieces = problem.fit(labels_by(problem, labels))
    root = torch.zeros(pieces.n_pieces, dtype=torch.int64)
    models = NodeModels(problem, pieces.coef, [])
    return problem, pieces, find_interface(problem, pieces.labels, models, pieces.error, root)


def smooth_joints_and_kink(X):
    """Two pairs of parabolas, each pair joined smoothly, with a kink between the pairs."""
    x = X[:, 0]
    t = x - np.where(x < 0.5, 0.25, 0.75)
    # The second derivative changes at the joint; the slope does not.
    return t + np.where(t > 0, 3.0, 1.0) * t**2 - np.where(x < 0.5, 0.0, 3 * (x - 0.5))


def quarters(X):
    return np.floor(4 * X[:, 0])


@pytest.mark.parametrize("sizes", [None, (8,)])
def test_kinks_alone_make_one_level(sizes):
    levels = plan_levels(*discovered(wave(4), quarters), sizes)
    assert [level.tolist() for level in levels] == [[0, 1, 2, 3]]


@pytest.mark.parametrize("sizes", [None, (8,)])
def test_a_kink_between_smooth_joints_makes_two_levels(sizes):
    problem, pieces, interface = discovered(smooth_joints_and_kink, quarters)
    coarse, fine = plan_levels(problem, pieces, interface, sizes)
    assert coarse.tolist() in PAIRS
    assert fine.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sizes", [(2, 2), (4, 4), (2, 2, 2)])
def test_sizes_that_are_asked_for(sizes):
    problem, pieces, interface = discovered(smooth_joints_and_kink, quarters)
    levels = plan_levels(problem, pieces, interface, sizes)
    assert len(levels) == len(sizes)
    assert_plan(levels[:-1], sizes, 4)
    assert levels[0].tolist() in PAIRS


@pytest.mark.parametrize("sizes", [None, (4,), (2, 2), (3, 1, 2)])
def test_one_piece(sizes):
    problem = problem_of(lambda X: X[:, 0], 20)
    pieces = problem.fit(torch.zeros(20, dtype=torch.int64))
    levels = plan_levels(problem, pieces, None, sizes)
    assert len(levels) == len(sizes or (1,))
    assert all(level.tolist() == [0] for level in levels)
