"""Level vectors of sparse grids, and the order in which their products are formed.

One dimension has *factors*: the constant 1, a linear function of level 0, or all hat functions of
one level, of which exactly one is not zero at a point. A level vector picks one factor for each
dimension; its subspace has one non-zero function at a point, the product of the factors' values.
A `Plan` forms all these products, each from a shorter one by one multiplication, and in blocks of
neighbouring rows, so that no product is ever looked up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Kinds of one-dimensional functions, as the plan's tables number them.
CONSTANT, LEFT, RIGHT, HAT, MODIFIED = range(5)

#: How a grid treats the faces of the box.
BOUNDARIES = ("modified", "zero", "full", "truncated")
#: What the functions of one dimension are: hats, or parabolas on the same supports.
BASES = ("linear", "quadratic")


@dataclass(frozen=True)
class Factors:
    """The factors of one dimension, cheapest first.

    Attributes
    ----------
    kind : ndarray of shape (S,)
        CONSTANT, LEFT (``1 - x``), RIGHT (``x``), HAT or MODIFIED (hats, those at the faces
        linear).
    level : ndarray of shape (S,)
        Level l of Eq. 2.3 of Zhang (2021); 0 for LEFT and RIGHT, 1 for CONSTANT.
    cost : ndarray of shape (S,)
        What a factor takes from the budget of its level vector.
    shift : ndarray of shape (S,)
        Binary logarithm of the number of functions.
    budget : int
        Largest sum of costs of a level vector.
    basis : {"linear", "quadratic"}
        Whether hats are hats, or parabolas on the hats' supports.
    """

    kind: np.ndarray
    level: np.ndarray
    cost: np.ndarray
    shift: np.ndarray
    budget: int
    basis: str = "linear"

    @property
    def n_factors(self) -> int:
        """Number S of factors."""
        return len(self.kind)

    @property
    def skips(self) -> bool:
        """Whether factor 0 is the constant 1: products then skip the dimensions that take it."""
        return bool(self.kind[0] == CONSTANT)


def make_factors(n_features: int, level: int, boundary: str, basis: str = "linear") -> Factors:
    """Factors of a regular sparse grid.

    Parameters
    ----------
    level : int
        Level n of the grid, at least 1.
    boundary : {"modified", "zero", "full", "truncated"}
        ``"zero"``: hats of level 1 and above (Eqs. 2.4 and 2.14). ``"full"``: level 0 besides
        (Eq. 2.15). ``"truncated"``: level 0 counts as level 1 (Eq. 2.16). ``"modified"``: level
        1 is the constant, the outermost hats of the others go on linearly to the face.
    basis : {"linear", "quadratic"}, default="linear"
        Hats, or parabolas (Bungartz, Griebel 2004, section 4.2) on their supports. The outermost
        ones of ``"modified"``, from level 3 on, go through zero at the two nearest points of lower
        levels instead of one.
    """
    if basis not in BASES:
        raise ValueError(f"basis must be one of {BASES}. Got {basis!r}.")
    n = level
    if boundary in ("zero", "modified"):
        levels = np.arange(1, n + 1)
        kind = np.full(n, HAT if boundary == "zero" else MODIFIED)
        if boundary == "modified":
            kind[0] = CONSTANT
        return Factors(kind, levels, levels - 1, levels - 1, n - 1, basis)
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {BOUNDARIES}. Got {boundary!r}.")
    # |l|_1 <= n + d - 1 (Eq. 2.13); with every level at least 1 what is left over is n - 1.
    budget = n - 1 if boundary == "truncated" else n + n_features - 1
    highest = n if boundary == "truncated" else budget
    hats = np.arange(1, highest + 1)
    cost = hats - 1 if boundary == "truncated" else hats
    return Factors(
        np.concatenate([[LEFT, RIGHT], np.full(highest, HAT)]),
        np.concatenate([[0, 0], hats]),
        np.concatenate([[0, 0], cost]),
        np.concatenate([[0, 0], hats - 1]),
        budget,
        basis,
    )


def vectors_within(n_features: int, factors: Factors) -> np.ndarray:
    """All vectors of factors (M, d) whose costs add up to at most the budget."""
    vectors = np.zeros((1, 0), dtype=np.int16)
    spent = np.zeros(1, dtype=np.int64)
    for _ in range(n_features):
        blocks, costs = [], []
        for factor, cost in enumerate(factors.cost):
            within = spent + cost <= factors.budget
            column = np.full((int(within.sum()), 1), factor, dtype=np.int16)
            blocks.append(np.hstack([vectors[within], column]))
            costs.append(spent[within] + cost)
        vectors, spent = np.concatenate(blocks), np.concatenate(costs)
    return vectors


def count_points(n_features: int, level: int, boundary: str) -> tuple[int, int]:
    """Numbers of points and of level vectors of a regular grid, without making it.

    Parameters
    ----------
    n_features : int
        Dimension d, at least 0.
    level : int
        Level n, at least 1.
    boundary : {"modified", "zero", "full", "truncated"}
        See `make_factors`.
    """
    factors = make_factors(n_features, level, boundary)
    vectors = [1] + [0] * factors.budget  # by what they have spent
    points = list(vectors)
    for _ in range(n_features):
        before = list(zip(vectors, points, strict=True))
        vectors, points = [0] * len(before), [0] * len(before)
        for cost, shift in zip(factors.cost.tolist(), factors.shift.tolist(), strict=True):
            for spent in range(factors.budget + 1 - cost):
                vectors[spent + cost] += before[spent][0]
                points[spent + cost] += before[spent][1] << shift
    return sum(points), sum(vectors)


@dataclass(frozen=True)
class Step:
    """Multiply some products of a buffer by one factor of one dimension.

    Attributes
    ----------
    source, target : int
        Buffers.
    start, stop : int
        Rows of the source; where `parents` is given, they only bound it.
    parents : ndarray or None
        Rows of the source that are not neighbours.
    first : int
        First row of the target.
    row : int
        ``dimension * S + factor``.
    shift : int
        Binary logarithm of the factor's number of functions.
    offset : int or ndarray
        The product's function has the number ``(parent's number << shift) + cell + offset``.
    """

    source: int
    target: int
    start: int
    stop: int
    parents: np.ndarray | None
    first: int
    row: int
    shift: int
    offset: int | np.ndarray


@dataclass(frozen=True)
class Plan:
    """All products of a grid.

    Attributes
    ----------
    steps : list of Step
        In an order in which every source is ready.
    sizes : list of int
        Rows of every buffer; row 0 of the first is the empty product. The last is the result.
    vectors : ndarray of shape (M, d)
        Factors of the result's rows.
    first_function : ndarray of shape (M + 1,)
        Numbers at which the functions of every row begin, and their total.
    tables : dict
        What evaluations at few points need anew each time, by device and precision.
    """

    steps: list[Step]
    sizes: list[int]
    vectors: np.ndarray
    first_function: np.ndarray
    tables: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n_functions(self) -> int:
        """Number of functions, that is, of grid points."""
        return int(self.first_function[-1])


class _Buffer:
    """Rows of one buffer, sorted into groups of equal cost and number of functions."""

    def __init__(self, vectors: np.ndarray, factors: Factors):
        used = vectors.shape[1]
        self.cost = factors.cost[vectors].sum(1) if used else np.zeros(len(vectors), np.int64)
        self.shift = factors.shift[vectors].sum(1) if used else np.zeros(len(vectors), np.int64)
        keys = list(zip(self.cost.tolist(), self.shift.tolist(), strict=True))
        self.row_start, self.function_start = {}, {}
        rows = functions = 0
        for key in sorted(set(keys)):
            self.row_start[key], self.function_start[key] = rows, functions
            rows += keys.count(key)
            functions += keys.count(key) << key[1]
        self.filled = dict.fromkeys(self.row_start, 0)
        self.position: dict[bytes, tuple[tuple[int, int], int]] = {}
        self.size = rows
        self.n_functions = functions

    def place(self, vectors: np.ndarray, key: tuple[int, int]) -> int:
        """Give vectors the next free ranks of their group; returns the first."""
        rank = self.filled[key]
        for i, vector in enumerate(vectors):
            self.position[vector.tobytes()] = key, rank + i
        self.filled[key] = rank + len(vectors)
        return rank


def make_plan(vectors: np.ndarray, factors: Factors) -> Plan:
    """Order in which the products of some level vectors are formed.

    Parameters
    ----------
    vectors : ndarray of shape (M, d)
        Distinct vectors of factors. With a constant factor, each with its last other factor
        made constant must be among them.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.int16)
    d = vectors.shape[1]
    buffers, steps = [], []
    if factors.skips:
        buffers = [_Buffer(vectors, factors)]
        buffers[0].place(vectors[:1] * 0, (0, 0))
        last = ((vectors > 0) * np.arange(1, d + 1)).max(1, initial=0) - 1
        stages = [(j, 0, 0, vectors[last == j]) for j in range(d)]
    else:
        prefixes = [vectors[:1, :0] * 0]
        prefixes += [np.unique(vectors[:, : j + 1], axis=0) for j in range(d)]
        buffers = [_Buffer(prefix, factors) for prefix in prefixes]
        buffers[0].place(prefixes[0], (0, 0))
        stages = [(j, j, j + 1, prefixes[j + 1]) for j in range(d)]
    for feature, source, target, children in stages:
        pair = buffers[source], buffers[target]
        for step in _stage(feature, *pair, children, factors):
            steps.append(Step(source, target, *step))
    return _finished(buffers, steps, vectors, factors)


def _stage(
    feature: int, source: _Buffer, target: _Buffer, children: np.ndarray, factors: Factors
) -> Iterator[tuple]:
    """Steps that multiply by the factors of one dimension, in fixed order."""
    parents = children.copy()
    parents[:, feature] = 0
    if source is not target:
        parents = np.ascontiguousarray(parents[:, :feature])
    places = [source.position[parent.tobytes()] for parent in parents]
    order = sorted(range(len(places)), key=lambda i: (children[i, feature], places[i]))

    def block(i: int) -> tuple:
        return int(children[i, feature]), places[i][0]

    for (factor, key), members in itertools.groupby(order, key=block):
        rows = np.array(list(members))
        ranks = np.array([places[i][1] for i in rows])
        cost, shift = int(factors.cost[factor]), int(factors.shift[factor])
        child_key = key[0] + cost, key[1] + shift
        rank = target.place(children[rows], child_key)
        # A function's number: its group's first, then rank by rank, then its cells.
        number = target.function_start[child_key] - (source.function_start[key] << shift)
        offset = number + ((rank + np.arange(len(rows)) - ranks) << child_key[1])
        neighbours = ranks[-1] - ranks[0] == len(ranks) - 1
        start = source.row_start[key] + int(ranks[0])
        yield (
            start,
            source.row_start[key] + int(ranks[-1]) + 1,
            None if neighbours else source.row_start[key] + ranks,
            target.row_start[child_key] + rank,
            feature * factors.n_factors + factor,
            shift,
            int(offset[0]) if neighbours else offset,
        )


def _finished(
    buffers: list[_Buffer], steps: list[Step], vectors: np.ndarray, factors: Factors
) -> Plan:
    """Plan with the vectors in the order of the result's rows."""
    last = buffers[-1]
    ordered = np.empty_like(vectors)
    for vector in vectors:
        key, rank = last.position[vector.tobytes()]
        ordered[last.row_start[key] + rank] = vector
    shift = factors.shift[ordered].sum(1) if vectors.shape[1] else np.zeros(1, np.int64)
    first = np.concatenate([[0], np.cumsum(np.left_shift(1, shift))])
    return Plan(steps, [buffer.size for buffer in buffers], ordered, first)
