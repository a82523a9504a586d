"""Merging, smoothing, dissolving and joining, each on pieces whose truth is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skpou.core.linalg.least_squares import split_factor
from skpou.partitions.pieces.cells import fine_cells
from skpou.partitions.pieces.counts import dissolve, noise_variance
from skpou.partitions.pieces.merging import (
    MergeHistory,
    adjacent_pairs,
    agglomerate,
    join_remote,
    merge_labels,
    merge_multilevel,
    merge_order,
    score,
    smooth,
)
from skpou.partitions.pieces.plan import cut_merges
from skpou.partitions.pieces.problem import PieceProblem
from tests.examples import (
    five_pieces,
    kink,
    labels_by,
    parabola,
    problem_of,
    rows_of,
    tensor,
    wave,
)


@st.composite
def dendrograms(draw, most=12):
    """(K, K - 1 merges): merge m joins two living nodes into node K + m."""
    K = draw(st.integers(1, most))
    alive, merges = list(range(K)), []
    for m in range(K - 1):
        a = alive.pop(draw(st.integers(0, len(alive) - 1)))
        b = alive.pop(draw(st.integers(0, len(alive) - 1)))
        merges.append((a, b))
        alive.append(K + m)
    return K, merges


def same_partition(a, b):
    """Whether two labellings make the same groups."""
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def tent(X):
    """The same line on both sides of another one."""
    x = X[:, 0]
    return np.where((x > 0.3) & (x < 0.7), 1 - x, x)


def thirds(X):
    return np.digitize(X[:, 0], [0.3, 0.7])


@given(dendrograms(), st.data())
def test_merge_labels_against_sets(dendrogram, data):
    K, merges = dendrogram
    done = merges[: data.draw(st.integers(0, len(merges)))]
    groups = {k: {k} for k in range(K)}
    for m, (a, b) in enumerate(done):
        groups[K + m] = groups.pop(a) | groups.pop(b)
    labels = merge_labels(K, done)
    assert sorted(set(labels.tolist())) == list(range(len(groups)))
    got = {frozenset(np.flatnonzero(labels == g).tolist()) for g in range(len(groups))}
    assert got == {frozenset(group) for group in groups.values()}


@given(dendrograms())
def test_cuts_equal_prefixes_of_the_merges(dendrogram):
    K, merges = dendrogram
    for n_groups in range(1, K + 1):
        labels = merge_labels(K, merges[: K - n_groups])
        groups = cut_merges(merges, K, list(range(K)), n_groups)
        expected = sorted(np.flatnonzero(labels == g).tolist() for g in range(n_groups))
        assert groups == expected


def test_adjacent_pairs_against_a_loop():
    problem = problem_of(kink, 120, 2, 1)
    labels = torch.as_tensor(np.random.default_rng(0).integers(0, 5, problem.n))
    expected = set()
    for i, row in enumerate(problem.neighbours.tolist()):
        for j in row:
            a, b = int(labels[i]), int(labels[j])
            if a != b:
                expected.add((min(a, b), max(a, b)))
    assert sorted(map(tuple, adjacent_pairs(problem, labels).tolist())) == sorted(expected)


def generalised_cross_validation(problem, members):
    """``RSS (n / (n - P))^2`` of one polynomial for some samples."""
    pieces = problem.fit(torch.zeros(problem.n, dtype=torch.int64).masked_fill(~members, 1), 2)
    n = float(pieces.weight[0])
    return float(pieces.rss[0]) * (n / (n - problem.n_columns)) ** 2


def test_every_merge_is_the_cheapest_of_adjacent_pairs():
    problem = problem_of(wave(3), 200, 1, 1, noise=0.05)
    labels = labels_by(problem, lambda X: np.floor(7.999 * X[:, 0]))
    pieces = problem.fit(labels)
    merges = merge_order(problem, pieces)
    assert len(merges) == 7
    for m in range(7):
        now = torch.as_tensor(merge_labels(8, merges[:m]))[labels]
        then = torch.as_tensor(merge_labels(8, merges[: m + 1]))[labels]
        gcv = [generalised_cross_validation(problem, now == g) for g in range(8 - m)]
        costs = {}
        for a, b in adjacent_pairs(problem, now):
            both = (now == a) | (now == b)
            costs[a, b] = generalised_cross_validation(problem, both) - gcv[a] - gcv[b]
        best = min(costs, key=costs.__getitem__)
        joined = torch.where(now == best[1], torch.as_tensor(best[0]), now)
        assert same_partition(joined, then)


def test_agglomerate_stops_at_the_target_and_cuts_are_nested():
    problem = problem_of(wave(4), 300, 1, 2)
    pieces = fine_cells(problem, np.random.default_rng(0))
    finer = agglomerate(problem, pieces, pieces.n_pieces)
    assert same_partition(finer, pieces.labels)
    for target in range(pieces.n_pieces - 1, 0, -1):
        coarser = agglomerate(problem, pieces, target)
        assert len(torch.unique(coarser)) == target
        assert len(set(zip(finer.tolist(), coarser.tolist(), strict=True))) == target + 1
        finer = coarser


def test_islands_without_common_neighbours_still_merge():
    rng = np.random.default_rng(1)
    X = np.concatenate([0.1 * rng.random((30, 1)), 0.9 + 0.1 * rng.random((30, 1))])
    problem = PieceProblem(rows_of(X, np.sin(9 * X)), 1)
    labels = labels_by(problem, lambda X: (X[:, 0] > 0.05).astype(int) + 2 * (X[:, 0] > 0.5))
    assert len(merge_order(problem, problem.fit(labels))) == int(labels.max())


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.02])
def test_remote_patches_of_one_polynomial_are_joined(noise):
    problem = problem_of(tent, 300, degree=1, noise=noise)
    joined = join_remote(problem, problem.fit(labels_by(problem, thirds)))
    assert same_partition(joined.labels, labels_by(problem, lambda X: thirds(X) == 1))
    assert torch.equal(problem.fit(joined.labels).coef, joined.coef)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_different_polynomials_are_not_joined(noise):
    problem = problem_of(lambda X: thirds(X) * X[:, 0], 300, degree=1, noise=noise)
    pieces = problem.fit(labels_by(problem, thirds))
    assert join_remote(problem, pieces) is pieces


def test_many_patches_of_two_polynomials():
    problem = problem_of(lambda X: np.floor(10 * X[:, 0]) % 2 * X[:, 0], 400, degree=1)
    pieces = problem.fit(labels_by(problem, lambda X: np.floor(10 * X[:, 0])))
    joined = join_remote(problem, pieces)
    assert same_partition(joined.labels, pieces.labels % 2)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_pieces_of_one_polynomial_dissolve(noise):
    problem = problem_of(lambda X: X[:, 0] ** 2 - X[:, 1], 400, 2, 2, noise=noise)
    strip = problem.fit(labels_by(problem, lambda X: np.abs(X[:, 0] - 0.5) < 0.1))
    assert dissolve(problem, strip).n_pieces == 1
    thirds = problem.fit(labels_by(problem, lambda X: np.floor(3 * X[:, 0])))
    # With noise the neighbours' extrapolation over a whole third explains less.
    assert dissolve(problem, thirds).n_pieces <= (2 if noise else 1)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_pieces_of_different_polynomials_do_not_dissolve(noise):
    problem = problem_of(kink, 400, 2, 2, noise=noise)
    pieces = problem.fit(labels_by(problem, lambda X: parabola(X) > 0))
    assert dissolve(problem, pieces) is pieces


def test_samples_of_a_dissolved_piece_go_where_they_are_explained():
    problem = problem_of(kink, 500, 2, 2)
    truth = labels_by(problem, lambda X: parabola(X) > 0)
    labels = truth.clone()
    labels[(problem.rows.X[:, 0] - 0.5).abs() < 0.1] += 2
    assert same_partition(dissolve(problem, problem.fit(labels)).labels, truth)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_smoothing_mends_labels_that_were_flipped_at_random(noise):
    problem = problem_of(kink, 800, 2, 2, noise=noise)
    truth = labels_by(problem, lambda X: parabola(X) > 0)
    flipped = torch.as_tensor(np.random.default_rng(2).random(problem.n) < 0.03)
    labels = torch.where(flipped, 1 - truth, truth)
    mended = smooth(problem, labels, 30).labels
    allowed = 0 if not noise else 24
    assert int((mended != truth).sum()) <= allowed


def test_smoothing_removes_labels_that_are_too_small():
    problem = problem_of(kink, 300, 2, 2)
    truth = labels_by(problem, lambda X: parabola(X) > 0)
    labels = truth.clone()
    labels[:5] = 2
    labels[100:107] = 3
    assert same_partition(smooth(problem, labels, 6).labels, truth)


def test_smoothing_leaves_the_truth_alone():
    problem = problem_of(five_pieces, 2500, 2, 4)
    truth = labels_by(
        problem, lambda X: 1 + np.floor(4 * (X[:, 1] - (X[:, 0] - 0.5) ** 2)).clip(-1, 3)
    )
    assert same_partition(smooth(problem, truth, 6).labels, truth)


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.02])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_score_prefers_the_truth(noise, seed):
    problem = problem_of(kink, 600, 2, 2, seed, noise)
    X = problem.rows.X
    truth = labels_by(problem, lambda X: parabola(X) > 0)
    best = score(problem, problem.fit(truth))
    residual = problem.rows.y - problem.polynomials @ problem.fit(0 * truth).coef[0]
    noisy = (problem.rows.y[:, 0] > tensor(kink(X.numpy()))).long()
    others = {
        "one piece": 0 * truth,
        "halves": truth + 2 * (X[:, 0] > 0.5),
        "too low": labels_by(problem, lambda X: parabola(X) > -0.15),
        "signs of residuals": (residual[:, 0] > 0).long(),
    }
    if noise:
        others["colours of the noise"] = truth + 2 * noisy
    for name, labels in others.items():
        assert score(problem, problem.fit(labels)) > best, name


def test_noise_variance_is_that_of_the_median_sample():
    problem = problem_of(lambda X: X[:, 0], 400, degree=1, noise=0.1)
    pieces = problem.fit(labels_by(problem, lambda X: X[:, 0] > 0.8))
    assert abs(noise_variance(problem, pieces) / 0.01 - 1) < 0.2
    expected = float(pieces.error[0]) ** 2 + (3 * problem.floor) ** 2
    assert noise_variance(problem, pieces) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("max_pieces", [1, 2, 5, 9])
def test_multilevel_respects_the_bound_and_keeps_the_best_score(max_pieces):
    problem = problem_of(wave(5), 300, 1, 2)
    history, lines = MergeHistory(), []
    start = fine_cells(problem, np.random.default_rng(0))
    pieces = merge_multilevel(problem, start, max_pieces, 1000, history, lines.append)
    assert pieces.n_pieces <= max_pieces
    assert history.converged
    assert len(lines) == len(history.scores) - 1
    assert np.isfinite(history.score)
    assert score(problem, problem.fit(history.labels)) == history.score
    if max_pieces >= 5:
        assert same_partition(pieces.labels, labels_by(problem, lambda X: np.floor(5 * X[:, 0])))


def test_multilevel_merges_the_rest_at_once_after_max_iter():
    problem = problem_of(wave(5), 300, 1, 2)
    history = MergeHistory()
    start = fine_cells(problem, np.random.default_rng(0))
    pieces = merge_multilevel(problem, start, 5, 1, history)
    assert not history.converged
    assert len(history.scores) <= 2
    assert pieces.n_pieces <= 5


def test_joint_factors_give_the_joint_residual():
    problem = problem_of(kink, 200, 2, 2, noise=0.1)
    pieces = problem.fit(labels_by(problem, lambda X: X[:, 0] > 0.5))
    stacked = torch.linalg.qr(torch.cat([pieces.factors[0], pieces.factors[1]]), mode="r").R
    rss = split_factor(stacked[None], problem.n_columns)[2].mean()
    whole = problem.fit(0 * pieces.labels)
    np.testing.assert_allclose(rss, whole.rss[0], rtol=1e-12)
