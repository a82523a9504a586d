"""Distinct rows: what every fit works on instead of the rows as they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Distinct (point, target) pairs of rows whose points repeat with different targets.

    Attributes
    ----------
    point : Tensor of shape (k,), int64
        Number of the distinct point.
    y : Tensor of shape (k, m)
        Targets.
    weight : Tensor of shape (k,)
        Sum of the weights of each pair.
    """

    point: Tensor
    y: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Rows:
    """Distinct points with the weighted mean of their targets.

    Weights are frequencies: weight 2 is the row twice, weight 0 the row removed. After merging
    nothing depends on the order or the repetition of rows, bit for bit.

    What trains takes them in scaled units, points in the unit box and targets of about unit rms,
    and does not say so again.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Distinct points, sorted lexicographically.
    y : Tensor of shape (n, m)
        Weighted mean of the targets at each point.
    weight : Tensor of shape (n,)
        Sum of the weights at each point. Where no point has two different targets, repetition
        says nothing about noise, and weights are divided by their mean; not so those of classes.
    within : Tensor of shape (n, m)
        Weighted sum of squares of the targets about their mean.
    repeats : Pairs, default=None
        The pairs before equal points were merged; None where each point has one target.
    precision : Tensor of shape (n,), default=None
        What the frequencies at each point were multiplied by, since its noise is not that of
        others; None: nothing.
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    within: Tensor
    repeats: Pairs | None = None
    precision: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Number n of distinct points."""
        return len(self.X)

    @property
    def n_features(self) -> int:
        """Dimension d of the points."""
        return self.X.shape[1]

    @property
    def n_outputs(self) -> int:
        """Number m of targets."""
        return self.y.shape[1]

    @property
    def total_weight(self) -> float:
        """Sum of the weights: the number of observations."""
        return float(self.weight.sum())

    def standard(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (d,) of the columns; 1 where one is constant."""
        weight, total = self.weight[:, None], self.weight.sum()
        centre = (weight * self.X).sum(0) / total
        spread = ((weight * (self.X - centre).square()).sum(0) / total).sqrt()
        return centre, torch.where(spread > 0, spread, 1.0)

    def pairs(self) -> Rows:
        """Rows of the distinct pairs: what a likelihood needs, since means hide the spread."""
        if self.repeats is None:
            return self
        part = self.repeats
        precision = None if self.precision is None else self.precision[part.point]
        nothing = torch.zeros_like(part.y)
        return Rows(self.X[part.point], part.y, part.weight, nothing, None, precision)

    def times(self, precision: Tensor) -> Rows:
        """The same, each point's so many times (n,) as precise; weights sum to the same."""
        precision = precision.to(self.weight)
        precision = precision * (self.weight.sum() / (self.weight @ precision))
        part, whole = self.repeats, precision
        if self.precision is not None:
            whole = self.precision * precision
        return replace(
            self,
            weight=self.weight * precision,
            within=self.within * precision[:, None],
            repeats=part and replace(part, weight=part.weight * precision[part.point]),
            precision=whole,
        )

    def alike(self) -> Rows:
        """The same, each point's as precise as all others."""
        return self if self.precision is None else self.times(1 / self.precision)

    def subset(self, index: Tensor) -> Rows:
        """Some of the points, with the mean and the spread of their targets."""
        precision = None if self.precision is None else self.precision[index]
        rest = (self.weight[index], self.within[index], None, precision)
        return Rows(self.X[index], self.y[index], *rest)

    def of_target(self, target: int) -> Rows:
        """The points with one of the targets."""
        only = slice(target, target + 1)
        rest = (self.weight, self.within[:, only], None, self.precision)
        return Rows(self.X, self.y[:, only], *rest)

    def of_targets(self, targets: Tensor) -> Rows:
        """The points with some of the targets (k,), int64, and their pairs."""
        part = self.repeats
        part = part and replace(part, y=part.y[:, targets])
        return replace(self, y=self.y[:, targets], within=self.within[:, targets], repeats=part)

    def to(self, dtype: torch.dtype) -> Rows:
        """The same rows in another precision."""
        return self.in_units(self.y.new_zeros(()), self.y.new_ones(()), dtype)

    def in_units(self, shift: Tensor, unit: Tensor, dtype: torch.dtype) -> Rows:
        """Rows with targets ``(y - shift) / unit``, shift and unit of shape (m,), in `dtype`."""

        def scaled(y: Tensor) -> Tensor:
            return ((y - shift) / unit).to(dtype)

        part = self.repeats
        return Rows(
            self.X.to(dtype),
            scaled(self.y),
            self.weight.to(dtype),
            (self.within / unit.square()).to(dtype),
            part and Pairs(part.point, scaled(part.y), part.weight.to(dtype)),
            None if self.precision is None else self.precision.to(dtype),
        )


#: Reads rows once, in scaled units and parts of any size; as often as it is called.
Blocks = Callable[[], Iterator[Rows]]


def pairs_of(rows: Rows, output: int) -> Pairs:
    """Distinct pairs of point and one of the targets, however many a point has."""
    pairs = rows.repeats
    if pairs is None:
        point = torch.arange(rows.n_rows, device=rows.X.device)
        pairs = Pairs(point, rows.y, rows.weight)
    return Pairs(pairs.point, pairs.y[:, output : output + 1], pairs.weight)


def all_but(n: int, part: Tensor) -> Tensor:
    """Numbers (k,), in order, of those of n rows that are not among `part`."""
    others = torch.ones(n, dtype=torch.bool, device=part.device)
    others[part] = False
    return torch.nonzero(others).squeeze(1)


def with_all_targets(rows: Rows, kept: Tensor) -> Rows:
    """The points that are kept, a mask (n,), with all of their targets."""
    part = rows.subset(torch.nonzero(kept).squeeze(1))
    if rows.repeats is None:
        return part
    inside = kept[rows.repeats.point]
    number = kept.cumsum(0) - 1
    pairs = rows.repeats
    repeats = Pairs(number[pairs.point[inside]], pairs.y[inside], pairs.weight[inside])
    return replace(part, repeats=repeats)


def drawn_points(rows: Rows, most: int) -> Tensor:
    """Mask (n,) of at most so many points, drawn at random, always the same."""
    kept = torch.zeros(rows.n_rows, dtype=torch.bool, device=rows.X.device)
    order = np.random.default_rng(0).permutation(rows.n_rows)
    kept[torch.as_tensor(order[:most], device=rows.X.device)] = True
    return kept


def drawn_and_others(rows: Rows, drawn: Tensor) -> tuple[Rows, Blocks]:
    """Rows of a mask (n,) of points, and the others as a single block."""
    chosen, others = (rows.subset(torch.nonzero(part).squeeze(1)) for part in (drawn, ~drawn))
    return chosen, lambda: iter((others,))


def lexicographic_order(A: Tensor) -> Tensor:
    """Order that sorts the rows of A (n, k) by the first column, then the second, and so on."""
    order = torch.arange(len(A), device=A.device)
    for column in reversed(range(A.shape[1])):
        order = order[torch.argsort(A[order, column], stable=True)]
    return order


def _group_starts(A: Tensor) -> Tensor:
    """Index of the group of equal consecutive rows that each row of sorted A belongs to."""
    changed = torch.ones(len(A), dtype=torch.int64, device=A.device)
    if len(A) > 1:
        changed[1:] = (A[1:] != A[:-1]).any(1).to(torch.int64)
    return changed.cumsum(0) - 1


def group_rows(A: Tensor) -> tuple[Tensor, Tensor]:
    """Number (n,) of each row of A among its sorted distinct rows, and where each of these is."""
    order = lexicographic_order(A)
    starts = _group_starts(A[order])
    group = torch.empty_like(starts)
    group[order] = starts
    numbers = torch.arange(int(starts[-1]) + 1, device=A.device)
    return group, order[torch.searchsorted(starts, numbers)]


def merge_rows(X: Tensor, y: Tensor, weight: Tensor, *, counts: bool = False) -> Rows:
    """Drop rows of weight 0, merge equal (point, target) pairs, then equal points.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Points; d may be 0.
    y : Tensor of shape (n, m)
        Targets.
    weight : Tensor of shape (n,)
        Non-negative weights, at least one of them positive.
    counts : bool, default=False
        Whether weights stay as they are also where no point has two different targets: each draw
        of a class counts, not so the repetition of an exact number.
    """
    kept = weight > 0
    X, y, weight = X[kept], y[kept], weight[kept]
    d = X.shape[1]
    pairs = torch.cat([X, y], 1)
    # Weights of equal pairs in a fixed order, too: sums of floats depend on it.
    order = lexicographic_order(torch.cat([pairs, weight[:, None]], 1))
    pairs, weight = pairs[order], weight[order]
    group = _group_starts(pairs)
    n_pairs = int(group[-1]) + 1
    first = torch.searchsorted(group, torch.arange(n_pairs, device=X.device))
    weight = weight.new_zeros(n_pairs).index_add_(0, group, weight)
    X, y = pairs[first, :d], pairs[first, d:]
    group = _group_starts(X) if d else torch.zeros(n_pairs, dtype=torch.int64, device=X.device)
    n_points = int(group[-1]) + 1
    if n_points == n_pairs:
        weight = weight if counts else weight / weight.mean()
        return Rows(X.contiguous(), y.contiguous(), weight, torch.zeros_like(y))
    first = torch.searchsorted(group, torch.arange(n_points, device=X.device))
    total = weight.new_zeros(n_points).index_add_(0, group, weight)
    # Deviations from one target of the group keep the mean exact where all targets agree.
    reference = y[first]
    deviation = (y - reference[group]) * weight[:, None]
    mean = (
        reference
        + y.new_zeros((n_points, y.shape[1])).index_add_(0, group, deviation) / (total[:, None])
    )
    spread = weight[:, None] * (y - mean[group]).square()
    within = torch.zeros_like(mean).index_add_(0, group, spread)
    repeats = Pairs(group, y.contiguous(), weight)
    return Rows(X[first].contiguous(), mean, total, within, repeats)
