"""Multilevel merging of pieces: merge, smooth, dissolve, repeat; the best score is kept."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Report
from skpou.core.linalg import row_blocks, rows_within, split_factor, triangular_factor
from skpou.partitions.pieces.counts import dissolve
from skpou.partitions.pieces.problem import PieceProblem, Pieces, compact, price_of_parameter
from skpou.partitions.pieces.race import is_beaten, some_are_exact

#: Levels without a better score after which merging stops where the residual has grown, too.
LATE = 10
#: Sweeps of smoothing at a level of merging: a kink takes some to be found, but where noise is all
#: that pieces leave over, it moves rows to and fro for ever. Of fewer rows noise is not known.
SWEEPS, NOISY_SWEEPS, NOISY_ROWS = 6, 2, 1000
#: Pieces that may take the samples of a small one as a whole; each is tried with a smoothing.
MOST_HOSTS = 3
#: Cells near a sample without one: as many as touch a cell, in about any number of columns.
NEAR, NEAR_A_COLUMN = 8, 4
#: Pieces that a level leaves of many, and the allowed number's multiple down to which it does so.
LEFT, FAR_FROM_ALLOWED = 0.6, 1.5
#: Part of the pieces that a level merges near the allowed number, and the most that dissolve there.
CLOSE_LEVEL, DISSOLVED = 12, 0.3
#: Share of the least score by which a level is hopelessly worse; sweeps of the last smoothing,
#: which ends when no sample moves, and of one that is an attempt.
HOPELESS, LAST_SWEEPS, TRIAL_SWEEPS = 0.2, 30, 6
#: Multiple of the allowed number up to which joins of remote pieces are tried at every level, where
#: pieces leave no noise, which hides that two polynomials are the same.
JOINED = 4
#: Surprise that agreement of all neighbours outweighs: an error 4.5 times as large.
SMOOTHNESS = 1.5


def _joint_rss(problem: PieceProblem, first: Tensor, second: Tensor) -> Tensor:
    """Residual sums of squares (b,) of one polynomial for two pieces, from their factors."""
    joined = triangular_factor(torch.cat([first, second], dim=-2))
    return split_factor(joined, problem.n_columns)[2].mean(-1)


def adjacent_pairs(problem: PieceProblem, labels: Tensor) -> np.ndarray:
    """Pairs (a < b) of labels that hold neighbouring samples, shape (e, 2)."""
    own = labels[:, None].expand_as(problem.neighbours)
    other = labels[problem.neighbours]
    K = int(labels.max()) + 1
    code = torch.minimum(own, other) * K + torch.maximum(own, other)
    distinct = torch.unique(code[own != other]).cpu().numpy()
    return np.stack([distinct // K, distinct % K], 1)


class _Agglomeration:
    """Greedy merging of adjacent pieces by the smallest increase of generalised cross-validation.

    Factors of merged pieces come from stacked factors alone; no step touches the samples.
    """

    def __init__(self, problem: PieceProblem, pieces: Pieces):
        self.problem = problem
        K = pieces.n_pieces
        # None takes the place of what has been merged and is not needed any more.
        self.factors: list[Any] = list(pieces.factors)
        self.weight = pieces.weight.tolist()
        within = pieces.rss - split_factor(pieces.factors, problem.n_columns)[2].mean(1)
        self.within = within.clamp_min(0).tolist()
        self.value = [
            self._validation(rss, weight)
            for rss, weight in zip(pieces.rss.tolist(), self.weight, strict=True)
        ]
        self.neighbours: list[set[int]] = [set() for _ in range(K)]
        self.alive = set(range(K))
        self.heap: list[tuple[float, int, int]] = []
        pairs = adjacent_pairs(problem, pieces.labels)
        for a, b in pairs:
            self.neighbours[a].add(int(b))
            self.neighbours[b].add(int(a))
        self._push([(int(a), int(b)) for a, b in pairs])

    def _validation(self, rss: float, weight: float) -> float:
        """Generalised cross-validation ``RSS (n / (n - P))^2``."""
        free = weight - self.problem.n_columns
        return rss * (weight / max(free, 1.0)) ** 2 if free > 0 else rss * weight**2

    def _push(self, pairs: list[tuple[int, int]]) -> None:
        if not pairs:
            return
        first = torch.stack([self.factors[a] for a, _ in pairs])
        second = torch.stack([self.factors[b] for _, b in pairs])
        for (a, b), rss in zip(
            pairs, _joint_rss(self.problem, first, second).tolist(), strict=True
        ):
            rss += self.within[a] + self.within[b]
            value = self._validation(rss, self.weight[a] + self.weight[b])
            heapq.heappush(self.heap, (value - self.value[a] - self.value[b], a, b))

    def _connect_all(self) -> None:
        """The neighbour graph fell apart: every pair may merge from here on."""
        alive = sorted(self.alive)
        for a in alive:
            self.neighbours[a] = self.alive - {a}
        self._push([(a, b) for i, a in enumerate(alive) for b in alive[i + 1 :]])

    def run(self, target: int) -> list[tuple[int, int]]:
        """Merge down to `target` pieces; returns the merges, merge m making piece K + m."""
        merges = []
        while len(self.alive) > target:
            if not self.heap:
                self._connect_all()
            increase, a, b = heapq.heappop(self.heap)
            if a not in self.alive or b not in self.alive:
                continue
            self._merge(a, b, increase)
            merges.append((a, b))
        return merges

    def _merge(self, a: int, b: int, increase: float) -> None:
        new = len(self.factors)
        self.factors.append(triangular_factor(torch.cat([self.factors[a], self.factors[b]])))
        self.factors[a] = self.factors[b] = None
        self.weight.append(self.weight[a] + self.weight[b])
        self.within.append(self.within[a] + self.within[b])
        self.value.append(self.value[a] + self.value[b] + increase)
        near = (self.neighbours[a] | self.neighbours[b]) - {a, b}
        self.neighbours.append(near)
        for other in near:
            self.neighbours[other] -= {a, b}
            self.neighbours[other].add(new)
        self.alive -= {a, b}
        self.alive.add(new)
        self._push([(other, new) for other in sorted(near)])


def merge_labels(n_pieces: int, merges: list[tuple[int, int]]) -> np.ndarray:
    """Group 0 .. K-1 of each of the first `n_pieces` nodes after the merges."""
    owner = np.arange(n_pieces + len(merges))
    for m, (a, b) in enumerate(merges):
        owner[[a, b]] = n_pieces + m
    for node in reversed(range(len(owner))):
        owner[node] = owner[owner[node]]
    return np.unique(owner[:n_pieces], return_inverse=True)[1]


def agglomerate(problem: PieceProblem, pieces: Pieces, target: int) -> Tensor:
    """Labels (n,) after greedy merging to `target` pieces."""
    merges = _Agglomeration(problem, pieces).run(target)
    groups = torch.as_tensor(merge_labels(pieces.n_pieces, merges), device=pieces.labels.device)
    return groups[pieces.labels]


def merge_order(problem: PieceProblem, pieces: Pieces) -> list[tuple[int, int]]:
    """All K - 1 merges down to one piece, merge m making node K + m."""
    if pieces.n_pieces == 1:
        return []
    return _Agglomeration(problem, pieces).run(1)


def smooth(
    problem: PieceProblem, labels: Tensor, max_sweeps: int, known: Pieces | None = None
) -> Pieces:
    """Samples with a foreign neighbour choose again among their neighbours' labels.

    Iterated conditional modes on the surprise less `SMOOTHNESS` times the share of neighbours
    that agree. Labels left with fewer than P + 2 samples vanish; their samples take the label
    nearby that explains them best. `known` is a fit of labels that differ in a few samples.
    """
    pieces = problem.refit(known, labels) if known else problem.fit(compact(labels))
    for _ in range(max_sweeps):
        around = torch.cat([pieces.labels[:, None], pieces.labels[problem.neighbours]], 1)
        active = torch.nonzero((around != around[:, :1]).any(1)).squeeze(1)
        if not len(active):
            break
        around = around[active]
        score = problem.surprise(pieces, active, around)
        score = score - SMOOTHNESS * _agreement(around, pieces.n_pieces)
        new = pieces.labels.clone()
        new[active] = around.gather(1, score.argmin(1, keepdim=True)).squeeze(1)
        changed = bool((new != pieces.labels).any())
        new = _starve(problem, pieces, new)
        if not changed and bool((new == pieces.labels).all()):
            break
        pieces = problem.refit(pieces, new)
        if not changed:
            break
    return pieces


def _agreement(around: Tensor, n_labels: int) -> Tensor:
    """Share of the neighbours (itself included) that carry each candidate label, (a, c)."""
    share = torch.empty(around.shape, dtype=torch.float64, device=around.device)
    for block in row_blocks(len(around), rows_within(n_labels)):
        part = around[block]
        counts = torch.zeros((len(part), n_labels), dtype=share.dtype, device=share.device)
        counts.scatter_add_(1, part, torch.ones_like(part, dtype=counts.dtype))
        share[block] = counts.gather(1, part) / part.shape[1]
    return share


def _starve(problem: PieceProblem, pieces: Pieces, labels: Tensor) -> Tensor:
    """Hand the samples of labels that became too small to kept labels that explain them."""
    count = torch.bincount(labels, minlength=pieces.n_pieces)
    keep = count >= problem.n_columns + 2
    starving = (count > 0) & ~keep
    if not bool(starving.any()) or not bool(keep.any()):
        return labels
    settled = keep[labels].cpu().numpy()
    kept, lost = np.flatnonzero(settled), np.flatnonzero(~settled)
    n_near = min(NEAR_A_COLUMN * problem.d + NEAR, len(kept))
    near = cKDTree(problem.host_points[kept]).query(problem.host_points[lost], n_near)[1]
    device = labels.device
    around = labels[torch.as_tensor(kept[near.reshape(len(lost), n_near)], device=device)]
    index = torch.as_tensor(lost, device=device)
    best = problem.surprise(pieces, index, around).argmin(1, keepdim=True)
    labels = labels.clone()
    labels[index] = around.gather(1, best).squeeze(1)
    return labels


def score(problem: PieceProblem, pieces: Pieces) -> float:
    """Bayesian information criterion plus the description length of the labels.

    The last term, with c the neighbours (of k) that share a sample's label, keeps labels from
    following the noise from sample to sample: ``-log((c + 1/2) / (k + K/2))`` nats for each
    (Krichevsky and Trofimov 1981).
    """
    n, m, K = problem.total_weight, problem.rows.n_outputs, pieces.n_pieces
    mean_square = float(pieces.rss.sum()) / n + problem.least_error**2
    price = (m * problem.n_columns + problem.n_gate_columns) * price_of_parameter(n)
    k = problem.neighbours.shape[1]
    same = (pieces.labels[problem.neighbours] == pieces.labels[:, None]).sum(1)
    code_length = -((same.double() + 0.5) / (k + 0.5 * K)).log().sum()
    return m * n * math.log(mean_square) + K * price + 2 * float(code_length)


def join_remote(problem: PieceProblem, pieces: Pieces) -> Pieces:
    """Join pieces, adjacent or not, that one polynomial explains by the information criterion."""
    P, floor2 = problem.n_columns, problem.exact_error**2
    within = (pieces.rss - split_factor(pieces.factors, P)[2].mean(1)).clamp_min(0)
    factors, rss, weight = pieces.factors.clone(), pieces.rss.clone(), pieces.weight.clone()
    K = pieces.n_pieces
    owner = torch.arange(K, device=factors.device)

    def gains(a: Tensor, b: Tensor) -> Tensor:
        joined = _joint_rss(problem, factors[a], factors[b]) + within[a] + within[b]
        n = weight[a] + weight[b]
        apart = rss[a] + rss[b] + n * floor2
        m = problem.rows.n_outputs
        return m * n * ((joined + n * floor2) / apart).log() - m * P * n.log()

    a, b = torch.triu_indices(K, K, 1, device=factors.device)
    table = torch.full((K, K), torch.inf, dtype=factors.dtype, device=factors.device)
    if K > 1:
        table[a, b] = gains(a, b)
    while K > 1 and float(table.min()) < 0:
        i, j = divmod(int(table.argmin()), K)
        factors[i] = triangular_factor(torch.cat([factors[i], factors[j]]))
        within[i] += within[j]
        weight[i] += weight[j]
        rss[i] = split_factor(factors[i], P)[2].mean() + within[i]
        owner[owner == j] = i
        table[j, :] = table[:, j] = torch.inf
        others = torch.unique(owner)
        others = others[others != i]
        low, high = torch.minimum(others, owner[i]), torch.maximum(others, owner[i])
        if len(others):
            table[low, high] = gains(low, high)
    if int(torch.unique(owner).numel()) == pieces.n_pieces:
        return pieces
    return problem.fit(compact(owner[pieces.labels]))


@dataclass
class MergeHistory:
    """What happened while merging: best labels so far, and a score for each level.

    Attributes
    ----------
    labels : Tensor of shape (n,) or None
        Labels of the best score with at most the allowed number of pieces.
    score : float
        That score; lower is better.
    scores : list of float
        Score of each level, in order.
    converged : bool
        False when `max_iter` levels did not suffice and the rest was merged at once.
    most_finer : int
        Most pieces of `finer`.
    finer, finer_score : Tensor of shape (n,) or None, and float
        Labels of the best score with more pieces than are allowed.
    """

    labels: Tensor | None = None
    score: float = math.inf
    scores: list[float] = field(default_factory=list)
    converged: bool = True
    most_finer: int = 0
    finer: Tensor | None = None
    finer_score: float = math.inf

    def offer(self, score: float, labels: Tensor) -> None:
        """Keep labels if their score is the best so far."""
        if score < self.score:
            self.score, self.labels = score, labels.clone()

    def offer_finer(self, score: float, labels: Tensor) -> None:
        """Keep labels of more pieces, too."""
        if score < self.finer_score:
            self.finer_score, self.finer = score, labels.clone()

    def offer_alone(self, score: float, labels: Tensor) -> None:
        """The only labels there are: a single level."""
        self.offer(score, labels)
        self.scores.append(self.score)


def merge_multilevel(
    problem: PieceProblem,
    pieces: Pieces,
    max_pieces: int,
    max_iter: int,
    history: MergeHistory,
    report: Report | None = None,
    rival: float = math.inf,
) -> Pieces:
    """Step C: from many fine cells to the pieces of best score, at most `max_pieces`.

    Parameters
    ----------
    max_iter : int
        Largest number of levels; the last one merges all that is left at once.
    history : MergeHistory
        Filled as levels pass, so that an interrupted run leaves the best labels there.
    rival : float, default=math.inf
        A score of others at which to stop once these pieces, however merged, cannot reach it; those
        that have not reached it in the end are not polished.
    """
    _note(problem, pieces, max_pieces, history)
    while pieces.n_pieces > 1:
        K = pieces.n_pieces
        last = len(history.scores) >= max_iter
        if last:
            history.converged = False
        target = min(max_pieces, K - 1) if last else _next_number(K, max_pieces)
        labels = agglomerate(problem, pieces, max(target, 1))
        noisy = problem.n >= NOISY_ROWS and problem.residuals_are_white(pieces)
        pieces = smooth(problem, labels, max_sweeps=NOISY_SWEEPS if noisy else SWEEPS)
        K = pieces.n_pieces
        # Where nothing fits well, all pieces would go at once and no number be scored.
        pieces = dissolve(problem, pieces, max_pieces if K > max_pieces else K - int(DISSOLVED * K))
        _note(problem, pieces, max_pieces, history)
        if report:
            rms = math.sqrt(float(pieces.rss.sum()) / problem.total_weight)
            value = history.scores[-1]
            report(f"{pieces.n_pieces:5d} pieces, rms residual {rms:.2e}, score {value:.6g}")
        if history.score >= rival and is_beaten(problem, pieces, rival):
            whole = problem.fit(torch.zeros_like(pieces.labels))
            history.offer(score(problem, whole), whole.labels)
            return whole
        hopeless = _is_hopeless(history.scores, problem.total_weight)
        if last or (pieces.n_pieces <= max_pieces and hopeless):
            break
    if pieces.n_pieces > 1:
        whole = problem.fit(torch.zeros_like(pieces.labels))
        history.offer(score(problem, whole), whole.labels)
    best = history.labels if history.labels is not None else pieces.labels
    if history.score >= rival and not some_are_exact(problem, pieces):
        return problem.fit(compact(best))  # What follows is for those that may be taken.
    return polished(problem, best)


def polished(problem: PieceProblem, labels: Tensor) -> Pieces:
    """What merging ends with: joins of remote pieces, smoothing, and no small piece in a corner."""
    pieces = join_remote(problem, problem.fit(compact(labels)))
    return prune(problem, smooth(problem, pieces.labels, max_sweeps=LAST_SWEEPS))


def _next_number(K: int, most: int) -> int:
    """Number of pieces after the next level."""
    reduced = int(LEFT * K)
    if reduced > max(FAR_FROM_ALLOWED * most, 2):
        return reduced
    # Near the allowed number the levels are close, and from there on single steps: a level that
    # passes by the number of pieces merges two of them.
    return max(most, K - max(1, K // CLOSE_LEVEL)) if K > most else K - 1


def _is_hopeless(scores: list[float], total_weight: float) -> bool:
    """Whether the last level is so much worse than the best that none after it will be better."""
    # Plain scores are compared with plain ones: those after joins are on another footing.
    least = min(scores)
    worse = scores[-1] - least
    late = least < min(scores[-LATE:]) and worse > total_weight
    return late or worse > max(HOPELESS * abs(least), total_weight)


def prune(problem: PieceProblem, pieces: Pieces) -> Pieces:
    """Remove small pieces as long as that lowers the score.

    A piece that follows the noise in a corner, across a kink, survives merging, since every
    merge there is with a whole neighbour; its samples do better when each goes where it belongs.
    And two remote parts of one piece cannot be joined while a few foreign samples spoil one of
    them; the smoothing after the attempt sends those away.
    """
    if float(pieces.rss.sum()) <= problem.exact_rss:
        return pieces
    value = score(problem, pieces)
    searching = True
    # Piece and hosts that are what they were fare as they did.
    failed: set[tuple[tuple[int, float], ...]] = set()
    while searching and pieces.n_pieces > 1:
        searching = False
        small = pieces.count < problem.n / (2 * pieces.n_pieces)
        for j in torch.nonzero(small).squeeze(1).tolist():
            hosts = _hosts(problem, pieces, j)
            what = tuple((int(pieces.count[k]), float(pieces.rss[k])) for k in (j, *hosts))
            if what in failed:
                continue
            failed.add(what)
            attempts = [_without(problem, pieces, j)]
            attempts += [torch.where(pieces.labels == j, k, pieces.labels) for k in hosts]
            tried = [smooth(problem, labels, TRIAL_SWEEPS, known=pieces) for labels in attempts]
            values = [score(problem, fewer) for fewer in tried]
            best = min(range(len(values)), key=values.__getitem__)
            if values[best] < value:
                pieces, value, searching = tried[best], values[best], True
                break
    return pieces


def _hosts(problem: PieceProblem, pieces: Pieces, j: int) -> list[int]:
    """The other pieces whose polynomials take the samples of piece j with the least residual."""
    others = torch.arange(pieces.n_pieces, device=pieces.labels.device)
    others = others[others != j]
    first = pieces.factors[others]
    joined = _joint_rss(problem, first, pieces.factors[j].expand_as(first))
    within = (pieces.rss - split_factor(pieces.factors, problem.n_columns)[2].mean(1)).clamp_min(0)
    increase = joined + within[others] - pieces.rss[others]
    return others[increase.argsort(stable=True)[:MOST_HOSTS]].tolist()


def _without(problem: PieceProblem, pieces: Pieces, j: int) -> Tensor:
    """Labels after the samples of piece j took the other piece that explains them best."""
    others = [k for k in range(pieces.n_pieces) if k != j]
    members = torch.nonzero(pieces.labels == j).squeeze(1)
    candidates = torch.tensor(others, device=members.device).expand(len(members), -1)
    best = problem.surprise(pieces, members, candidates).argmin(1, keepdim=True)
    labels = pieces.labels.clone()
    labels[members] = candidates.gather(1, best).squeeze(1)
    return labels


def _note(problem: PieceProblem, pieces: Pieces, max_pieces: int, history: MergeHistory) -> None:
    """Record the score of a level and offer its labels, after joins where there are too many."""
    value = score(problem, pieces)
    history.scores.append(value)
    K = pieces.n_pieces
    if max_pieces < K <= history.most_finer:
        history.offer_finer(value, pieces.labels)
    if K <= max_pieces:
        history.offer(value, pieces.labels)
    elif K <= JOINED * max_pieces and (
        some_are_exact(problem, pieces) or not problem.residuals_are_white(pieces)
    ):
        joined = join_remote(problem, pieces)
        if joined.n_pieces <= max_pieces:
            history.offer(score(problem, joined), joined.labels)
