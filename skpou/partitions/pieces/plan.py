"""Which pieces share a coarse partition: kinks above, smooth joints below."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

from skpou.core.linalg import split_factor, triangular_factor
from skpou.partitions.pieces.interfaces import Interface, coarse_groups, kink_linkage
from skpou.partitions.pieces.merging import merge_order
from skpou.partitions.pieces.problem import PieceProblem, Pieces

Merges = list[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """A tree for the pieces, and where its soft part begins.

    Attributes
    ----------
    levels : list of ndarray of shape (K,)
        Node number of each piece on each level; on the last level the piece itself.
    first_soft : int
        First level whose partitions join smoothly; the number of levels if kinks are everywhere.
    """

    levels: list[np.ndarray]
    first_soft: int


def plan_tree(
    problem: PieceProblem,
    pieces: Pieces,
    interface: Interface | None,
    sizes: tuple[int, ...] | None,
) -> Plan:
    """Levels of the tree, and which of them kinks separate: coarse = kinks, fine = smooth.

    Parameters are those of `plan_levels`.
    """
    levels = plan_levels(problem, pieces, interface, sizes)
    if interface is None:
        return Plan(levels, len(levels))
    groups = kink_groups(problem, pieces, interface)
    if len(groups) == 1:
        return Plan(levels, 0)
    kinks_on_top = len(levels) > 1 and _same_groups(levels[0], groups)
    if kinks_on_top and len(groups) < pieces.n_pieces:
        return Plan(levels, 1)
    return Plan(levels, len(levels))


def _same_groups(numbers: np.ndarray, groups: list[list[int]]) -> bool:
    """Whether node numbers and groups cut the pieces alike."""
    found = [sorted(np.flatnonzero(numbers == node).tolist()) for node in np.unique(numbers)]
    return sorted(found) == sorted(sorted(group) for group in groups)


def plan_levels(
    problem: PieceProblem,
    pieces: Pieces,
    interface: Interface | None,
    sizes: tuple[int, ...] | None,
) -> list[np.ndarray]:
    """Ancestor of every piece on every level, the coarsest first.

    Parameters
    ----------
    interface : Interface or None
        Where they meet; None for a single piece.
    sizes : tuple of int or None
        Most children of each node, level by level. None or one number: one level, or two when
        kinks separate groups of pieces that join smoothly.

    Returns
    -------
    list of ndarray of shape (K,)
        Node number of each piece on each level; on the last level the piece itself.
    """
    K = pieces.n_pieces
    leaves = np.arange(K)
    if sizes is not None and len(sizes) > 1:
        planner = _Planner(problem, pieces, interface)
        return [*planner.split(list(range(K)), sizes), leaves]
    if interface is None:
        return [leaves]
    groups = kink_groups(problem, pieces, interface)
    if not 1 < len(groups) < K:
        return [leaves]
    return [group_numbers(groups, K), leaves]


def kink_groups(problem: PieceProblem, pieces: Pieces, interface: Interface) -> list[list[int]]:
    """Step E: groups of pieces that kinks separate from each other."""
    merges = kink_linkage(interface, pieces.n_pieces)
    width = pieces.n_pieces ** (-1 / problem.d)
    resolution = float(pieces.error.max()) / width
    return coarse_groups(merges, resolution, problem.residuals_are_white(pieces))


def group_numbers(groups: list[list[int]], n_pieces: int) -> np.ndarray:
    """Number of the group of each piece."""
    numbers = np.empty(n_pieces, dtype=np.int64)
    for number, members in enumerate(groups):
        numbers[members] = number
    return numbers


def cut_merges(merges: Merges, n_pieces: int, nodes: list[int], n_groups: int) -> list[list[int]]:
    """Groups of some pieces when merging stops at `n_groups` of them."""
    members = {piece: [piece] if piece in set(nodes) else [] for piece in range(n_pieces)}
    alive = {node for node in members if members[node]}
    for m, (a, b) in enumerate(merges):
        if len(alive) <= n_groups:
            break
        new = n_pieces + m
        members[new] = members.pop(a, []) + members.pop(b, [])
        alive -= {a, b}
        if members[new]:
            alive.add(new)
    return sorted(sorted(members[node]) for node in alive)


def leaf_order(merges: Merges, n_pieces: int) -> list[int]:
    """Pieces in the order in which the dendrogram's branches leave them side by side."""
    members = {piece: [piece] for piece in range(n_pieces)}
    for m, (a, b) in enumerate(merges):
        members[n_pieces + m] = members[a] + members[b]
    return members[n_pieces + len(merges) - 1] if merges else list(range(n_pieces))


class _Planner:
    """Groups of bounded number and size on every level of a tree that was asked for."""

    def __init__(self, problem: PieceProblem, pieces: Pieces, interface: Interface | None):
        self.problem = problem
        self.pieces = pieces
        self.joins = merge_order(problem, pieces)
        self.kinks: list[tuple[int, int, float]] = []
        self.groups: list[list[int]] = [list(range(pieces.n_pieces))]
        if interface is not None:
            self.kinks = kink_linkage(interface, pieces.n_pieces)
            self.groups = kink_groups(problem, pieces, interface)

    def split(self, nodes: list[int], sizes: tuple[int, ...]) -> list[np.ndarray]:
        """Node numbers of every piece on all levels but the last."""
        K = self.pieces.n_pieces
        levels, current = [], [nodes]
        for depth in range(len(sizes) - 1):
            capacity = math.prod(sizes[depth + 1 :])
            blend = len(sizes) == 2
            current = [
                g for group in current for g in self._divide(group, sizes[depth], capacity, blend)
            ]
            levels.append(group_numbers(current, K))
        return levels

    def _divide(self, nodes: list[int], most: int, capacity: int, blend: bool) -> list[list[int]]:
        """At most `most` groups of at most `capacity` pieces.

        With `blend`, smooth parts between kinks stay whole: as many pieces as the bound allows
        will be blended in each.
        """
        inside = [[n for n in group if n in set(nodes)] for group in self.groups]
        groups = kinks = [group for group in inside if group]
        K = self.pieces.n_pieces
        if len(groups) > most:
            groups = cut_merges([(a, b) for a, b, _ in self.kinks], K, nodes, most)
        elif len(groups) == 1:
            groups = cut_merges(self.joins, K, nodes, most)
        whole = blend and 1 < len(groups) < len(nodes) and groups == kinks
        if not whole and max(len(group) for group in groups) > capacity:
            order = [n for n in leaf_order(self.joins, K) if n in set(nodes)]
            groups = self._consecutive(order, most, capacity)
        return groups

    def _consecutive(self, order: list[int], most: int, capacity: int) -> list[list[int]]:
        """Cut the ordered pieces into runs whose joint polynomials fit best (dynamic program)."""
        n = len(order)
        cost = {(i, i): 0.0 for i in range(n + 1)}
        for i in range(n):
            factor = self.pieces.factors[order[i]]
            cost[i, i + 1] = 0.0
            for j in range(i + 1, min(i + capacity, n)):
                factor = triangular_factor(torch.cat([factor, self.pieces.factors[order[j]]]))
                cost[i, j + 1] = float(split_factor(factor, self.problem.n_columns)[2].sum())
        best = {(0, 0): (0.0, -1)}
        for runs in range(1, most + 1):
            for end in range(1, n + 1):
                options = [
                    (best[runs - 1, start][0] + cost[start, end], start)
                    for start in range(max(0, end - capacity), end)
                    if (runs - 1, start) in best
                ]
                if options:
                    best[runs, end] = min(options)
        runs = min((best[r, n][0], r) for r in range(1, most + 1) if (r, n) in best)[1]
        cuts, end = [n], n
        while runs:
            end = best[runs, end][1]
            cuts.append(end)
            runs -= 1
        cuts = cuts[::-1]
        return [order[a:b] for a, b in itertools.pairwise(cuts)]
