"""Where pieces meet: roots of the differences of neighbouring models, and their strength."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import TotalDegreePolynomials
from skpou.core.linalg import TINY, evenly
from skpou.partitions.gates.tree import GateLevel, PartitionTree
from skpou.partitions.pieces.problem import PieceProblem

#: Pairs of neighbouring samples on which roots are looked for.
MOST_PAIRS = 10_000
#: Share of the pieces' difference at a sample beyond their crossing that their errors may make up
#: for the crossing to be at the sample on this side: beyond it the two could be a jump.
DOUBTED = 0.1
#: Share of it within which a crossing beyond a row is at the row whatever the errors: a jump ends
#: so close to a crossing once in a hundred times.
CLOSE = 0.01
#: Slope of two models' difference at their root, in units of its mean slope on the segment, below
#: which they touch rather than cross.
FLAT = 0.1
#: Ratio of successive strengths that separates kinks from smooth joints where there is no noise,
#: and whatever the residuals look like, which few rows take for noise: it leaves none as wide.
GAP, WIDE_GAP = 10.0, 1000
#: Change of slope, in units of the resolution, of the weakest kink: without noise ten times what
#: polynomials of a smooth function differ by, with noise hardly more; see `coarse_groups`.
KINK, NOISY_KINK = 1000, 60
#: Weight of a root below which it says nothing: its place is not known to thirty spacings.
LEAST_WEIGHT = 1e-2
#: Standard deviations of a place or a value that it is known to.
DEVIATIONS = 3
#: Bisections beyond the digits of a number: signs at the end are those of round-off.
MORE_BISECTIONS = 4


class NodeModels:
    """The models of all partitions of one level: experts seen through the finer gates.

    Parameters
    ----------
    coef : Tensor of shape (K, P, m)
        Experts of the leaves.
    finer : list of GateLevel
        Gates below the level in question, from coarse to fine; empty at the leaves.
    """

    def __init__(self, problem: PieceProblem, coef: Tensor, finer: list[GateLevel]):
        self.basis = problem.basis
        self.coef = coef
        self.gates = PartitionTree(problem.d, finer)

    def degree_along(self) -> int | None:
        """Degree of the models along a line; None where they are no polynomials."""
        polynomial = isinstance(self.basis, TotalDegreePolynomials) and not self.gates.levels
        return self.basis.degree if polynomial else None

    def values(self, X: Tensor) -> Tensor:
        """Values (n, N, m) of every partition's model."""
        values = torch.einsum("np,kpm->nkm", self.basis.matrix(X), self.coef)
        for depth in reversed(range(len(self.gates.levels))):
            weight = self.gates.log_conditional(X, depth).exp()[..., None]
            values = self._sum_children(weight * values, depth)
        return values

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Derivatives (n, N, m) along one coordinate; across sharp gates of the chosen piece."""
        values = torch.einsum("np,kpm->nkm", self.basis.matrix(X), self.coef)
        slopes = torch.einsum("np,kpm->nkm", self.basis.partial(X, feature), self.coef)
        for depth in reversed(range(len(self.gates.levels))):
            weight = self.gates.log_conditional(X, depth).exp()[..., None]
            if not self.gates.levels[depth].sharp:
                gate_slope = self.gates.log_conditional_partial(X, feature, depth)
                slopes = slopes + gate_slope[..., None] * values
            values = self._sum_children(weight * values, depth)
            slopes = self._sum_children(weight * slopes, depth)
        return slopes

    def _sum_children(self, weighted: Tensor, depth: int) -> Tensor:
        """Add up the children of each parent of one level."""
        parent = self.gates.levels[depth].parent
        shape = (len(weighted), int(parent.max()) + 1, weighted.shape[2])
        return weighted.new_zeros(shape).index_add_(1, parent, weighted)

    def difference(self, values: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Differences (n, m) of two partitions' entries in `values` (n, N, m), row by row."""
        rows = torch.arange(len(values), device=values.device)
        return values[rows, first] - values[rows, second]


@dataclass(frozen=True)
class Interface:
    """Points where the models of neighbouring samples cross, with what a gate must honour.

    Attributes
    ----------
    roots : Tensor of shape (r, d)
        Crossing points on segments between neighbouring samples.
    first, second : Tensor of shape (r,), int64
        Partitions on the two sides.
    normal : Tensor of shape (r, d)
        Unit vectors across the interface, towards `first`.
    slope : Tensor of shape (r,)
        Strength of the kink: growth of the models' difference along the normal.
    weight : Tensor of shape (r,)
        Trust in the root's position, in (0, 1]: its uncertainty against the samples' spacing.
    spacing : float
        Median distance of neighbouring samples on different sides.
    pairs : Tensor of shape (e, 2), int64
        Partitions of all neighbouring samples on different sides.
    jump : Tensor of shape (e,)
        Difference of the models half way between the two samples, over the spacing.
    """

    roots: Tensor
    first: Tensor
    second: Tensor
    normal: Tensor
    slope: Tensor
    weight: Tensor
    spacing: float
    pairs: Tensor
    jump: Tensor

    def select(self, chosen: Tensor) -> Interface:
        """Keep some of the roots; `chosen` is (r,) bool."""
        names = ("roots", "first", "second", "normal", "slope", "weight")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def localised(self, number: Tensor) -> Interface:
        """Renumber the partitions of the roots by the table `number` (N,)."""
        return replace(self, first=number[self.first], second=number[self.second])


def foreign_pairs(problem: PieceProblem, labels: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbouring samples in different partitions of the same parent, each pair once."""
    own, other = labels[:, None], labels[problem.neighbours]
    foreign = (own != other) & (parent[own] == parent[other])
    i, position = torch.nonzero(foreign, as_tuple=True)
    j = problem.neighbours[i, position]
    mutual = (problem.neighbours[j] == i[:, None]).any(1)
    once = (i < j) | ~mutual
    return i[once], j[once]


def find_interface(
    problem: PieceProblem,
    labels: Tensor,
    models: NodeModels,
    error: Tensor,
    parent: Tensor,
    least_weight: float = LEAST_WEIGHT,
) -> Interface:
    """Step D: roots between neighbouring samples of different labels, by bisection.

    With several targets the models' difference is projected on its change along the segment,
    so that a root is where all targets meet if there is such a point. Models that touch without
    crossing, as on both sides of a kink of the curvature, meet where they are closest.

    Parameters
    ----------
    labels : Tensor of shape (n,), int64
        Partition of each sample on the level in question.
    error : Tensor of shape (N,)
        Residual error of each model.
    parent : Tensor of shape (N,), int64
        Only partitions with the same parent have an interface.
    least_weight : float, default=LEAST_WEIGHT
        Roots of smaller weight are left out.
    """
    i, j = foreign_pairs(problem, labels, parent)
    # In many dimensions every sample has a foreign neighbour; some of the pairs will do.
    some = evenly(len(i), MOST_PAIRS)
    i, j = i[some], j[some]
    a, b = problem.rows.X[i], problem.rows.X[j]
    first, second = labels[i], labels[j]
    distance = (a - b).square().sum(1).sqrt()
    spacing = float(distance.median()) if len(distance) else 1.0
    middle = models.difference(models.values(0.5 * (a + b)), first, second)
    jump = middle.square().sum(1).sqrt() / spacing
    doubt = (error[first].square() + error[second].square()).sqrt() + problem.exact_error
    segments, roots = _contacts(models, a, b, first, second, doubt)
    slope, normal = segments.growth(roots)
    uncertainty = (
        error[segments.first].square() + error[segments.second].square()
    ).sqrt() + problem.exact_error
    reach = (slope * spacing).clamp_min(torch.finfo(slope.dtype).tiny)
    weight = 1 / (1 + (DEVIATIONS * uncertainty / reach).square()).sqrt()
    pairs = torch.stack([labels[i], labels[j]], 1)
    every = Interface(
        roots, segments.first, segments.second, normal, slope, weight, spacing, pairs, jump
    )
    return every.select(weight > least_weight)


@dataclass(frozen=True)
class _Segments:
    """Segments between neighbouring samples, and the difference of the models of their ends.

    Attributes
    ----------
    a, b : Tensor of shape (r, d)
        Ends.
    first, second : Tensor of shape (r,), int64
        Partitions of the ends.
    direction : Tensor of shape (r, m)
        Unit vectors on which the targets' differences are projected.
    """

    models: NodeModels
    a: Tensor
    b: Tensor
    first: Tensor
    second: Tensor
    direction: Tensor

    def select(self, chosen: Tensor) -> _Segments:
        """Some of the segments; `chosen` is (r,) bool."""
        names = ("a", "b", "first", "second", "direction")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def followed_by(self, other: _Segments) -> _Segments:
        """These segments and others."""
        names = ("a", "b", "first", "second", "direction")
        both = [torch.cat([getattr(self, name), getattr(other, name)]) for name in names]
        return _Segments(self.models, *both)

    def value(self, X: Tensor) -> Tensor:
        """Projected difference (r,) at a point of each segment."""
        values = self.models.difference(self.models.values(X), self.first, self.second)
        return (values * self.direction).sum(1)

    def gradient(self, X: Tensor) -> Tensor:
        """Its gradient (r, d)."""
        parts = [
            self.models.difference(self.models.partial(X, c), self.first, self.second)
            for c in range(X.shape[1])
        ]
        return torch.stack([(part * self.direction).sum(1) for part in parts], 1)

    def fall(self, X: Tensor) -> Tensor:
        """How fast (r,) the projected difference falls from a to b."""
        return (self.gradient(X) * (self.a - self.b)).sum(1)

    def bisected(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Roots (r, d) of a function of points that is positive at a, and is not at b."""
        low = torch.zeros(len(self.a), dtype=self.a.dtype, device=self.a.device)
        high = torch.ones_like(low)
        n_bisections = int(-math.log2(torch.finfo(low.dtype).eps)) + MORE_BISECTIONS
        along = self._along(function)
        for _ in range(n_bisections if len(low) else 0):
            middle = 0.5 * (low + high)
            positive = along(middle) > 0
            low, high = torch.where(positive, middle, low), torch.where(positive, high, middle)
        return self.a + (0.5 * (low + high))[:, None] * (self.b - self.a)

    def _along(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function of points as one of the share (r,) of the way from a to b.

        Polynomials stay polynomials on the way: a few values tell of all, to round-off.
        """

        def directly(share: Tensor) -> Tensor:
            return function(self.a + share[:, None] * (self.b - self.a))

        degree = self.models.degree_along()
        if degree is None or not len(self.a):
            return directly
        angles = (torch.arange(degree + 1, dtype=self.a.dtype, device=self.a.device) + 0.5) * (
            math.pi / (degree + 1)
        )
        orders = torch.arange(degree + 1, dtype=self.a.dtype, device=self.a.device)
        shares = 0.5 * (1 + angles.cos())
        values = torch.stack([directly(share.expand(len(self.a))) for share in shares], 1)
        coef = values @ (angles[:, None] * orders).cos() * (2 / (degree + 1))
        coef[:, 0] *= 0.5

        def interpolated(share: Tensor) -> Tensor:
            angle = (2 * share - 1).clamp(-1, 1).acos()
            return ((angle[:, None] * orders).cos() * coef).sum(1)

        return interpolated

    def growth(self, roots: Tensor) -> tuple[Tensor, Tensor]:
        """How fast the difference grows away from its roots (r,), and unit normals towards a.

        Where two models touch, the gradient at the root is round-off: the difference at the
        farther end over the length is what the sides differ by, and the gradient there the normal.
        """
        at_a, at_b = self.value(self.a).abs(), self.value(self.b).abs()
        length = (self.a - self.b).square().sum(1).sqrt()
        tiny = torch.finfo(length.dtype).tiny
        chord = torch.maximum(at_a, at_b) / length.clamp_min(tiny)
        gradient = self.gradient(roots)
        flat = gradient.square().sum(1).sqrt() < FLAT * chord
        ends = torch.where((at_a > at_b)[:, None], self.a, self.b)
        gradient = torch.where(flat[:, None], self.gradient(ends), gradient)
        slope = gradient.square().sum(1).sqrt()
        normal = gradient / slope.clamp_min(tiny)[:, None]
        normal = normal * (1 - 2 * ((normal * (self.a - self.b)).sum(1) < 0).to(slope))[:, None]
        return torch.where(flat, chord, slope), normal


def _contacts(
    models: NodeModels, a: Tensor, b: Tensor, first: Tensor, second: Tensor, doubt: Tensor
) -> tuple[_Segments, Tensor]:
    """Segments on which two models cross, or touch as at a kink of the curvature, and where."""
    at_a = models.difference(models.values(a), first, second)
    at_b = models.difference(models.values(b), first, second)
    across = _Segments(models, a, b, first, second, _unit(at_a - at_b))
    from_a, from_b = (at_a * across.direction).sum(1), (at_b * across.direction).sum(1)

    def meets(least: Tensor, larger: Tensor, doubt: Tensor) -> Tensor:
        told = (least <= DEVIATIONS * doubt) & (doubt <= DOUBTED * larger)
        return told | (least <= CLOSE * larger)

    crossing = from_a * from_b <= 0
    beside = replace(across, direction=_unit(at_a + at_b))
    turning = ~crossing & (beside.fall(a) > 0) & (beside.fall(b) < 0)
    touching = beside.select(turning)
    lowest = touching.bisected(touching.fall)
    larger = torch.maximum(touching.value(touching.a), touching.value(touching.b))
    met = meets(touching.value(lowest).abs(), larger, doubt[turning])
    # On a row where two pieces meet their difference is round-off, or noise, of either sign.
    larger = torch.maximum(from_a.abs(), from_b.abs())
    on_row = meets(torch.minimum(from_a.abs(), from_b.abs()), larger, doubt)
    on_row[torch.nonzero(turning).squeeze(1)[met]] = False
    crossed = across.select(crossing | on_row)
    # The projection is positive at a by its construction.
    roots = crossed.bisected(crossed.value)
    return crossed.followed_by(touching.select(met)), torch.cat([roots, lowest[met]])


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (r, m) of length one."""
    size = vectors.square().sum(1, keepdim=True).sqrt()
    return vectors / size.clamp_min(torch.finfo(vectors.dtype).tiny)


def kink_linkage(interface: Interface, n_pieces: int) -> list[tuple[int, int, float]]:
    """Step E: average linkage of pieces by the mean logarithm of their interfaces' strength.

    Parameters
    ----------
    interface : Interface
        Roots and jumps between the pieces.

    Returns
    -------
    list of (int, int, float)
        Merges, weakest first, with the strength at which they happen; merge m makes node K + m.
    """
    strengths, weights = _pair_strengths(interface, n_pieces)
    strength = {(a, b): strengths[a, b] for a in range(n_pieces) for b in range(n_pieces)}
    weight = {(a, b): weights[a, b] for a in range(n_pieces) for b in range(n_pieces)}
    alive, merges, new = list(range(n_pieces)), [], n_pieces
    while len(alive) > 1:
        pairs = [(a, b) for i, a in enumerate(alive) for b in alive[i + 1 :] if weight[a, b] > 0]
        a, b = min(pairs, key=strength.__getitem__) if pairs else (alive[0], alive[1])
        merges.append((a, b, math.exp(strength[a, b])))
        alive = [c for c in alive if c not in (a, b)]
        for c in alive:
            total = weight[a, c] + weight[b, c]
            mean = weight[a, c] * strength[a, c] + weight[b, c] * strength[b, c]
            weight[new, c] = weight[c, new] = total
            strength[new, c] = strength[c, new] = mean / total if total > 0 else 0.0
        alive.append(new)
        new += 1
    return merges


def _pair_strengths(interface: Interface, n_pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean log strength and number of neighbouring samples of each pair of pieces, symmetric."""

    def mean_log(first, second, values):
        total, count = np.zeros((n_pieces, n_pieces)), np.zeros((n_pieces, n_pieces))
        logs = np.log(np.maximum(values.cpu().numpy(), TINY))
        a, b = first.cpu().numpy(), second.cpu().numpy()
        for x, y in ((a, b), (b, a)):
            np.add.at(total, (x, y), logs)
            np.add.at(count, (x, y), 1)
        return np.where(count > 0, total / np.maximum(count, 1), -np.inf), count

    kink, n_roots = mean_log(interface.first, interface.second, interface.slope)
    jump, n_pairs = mean_log(interface.pairs[:, 0], interface.pairs[:, 1], interface.jump)
    weight = n_roots + n_pairs
    return np.where(weight > 0, np.maximum(kink, jump), 0.0), weight


def coarse_groups(
    merges: list[tuple[int, int, float]], resolution: float, white: bool
) -> list[list[int]]:
    """Pieces that only weak interfaces separate.

    Adjacent polynomials fitted to a smooth function differ in slope, too: by up to some hundred
    times the resolution where their error is the model's, and some forty times where it is
    white noise, which averages out along an interface.

    Parameters
    ----------
    merges : list of (int, int, float)
        From `kink_linkage`.
    resolution : float
        Slope that counts as none: largest error of a piece over the width of a piece.
    white : bool
        Whether the pieces' residuals are white noise.

    Returns
    -------
    list of list of int
        Groups of piece numbers.
    """
    n_pieces = len(merges) + 1
    strengths = np.sort([height for _, _, height in merges])
    least = KINK * resolution
    ratios = strengths[1:] / np.maximum(strengths[:-1], TINY)
    at = int(ratios.argmax()) if len(ratios) else -1
    is_gap = at >= 0 and ratios[at] > GAP and strengths[at + 1] > least
    if white:
        is_gap = is_gap and ratios[at] > WIDE_GAP and strengths[at] < least
    if is_gap:
        threshold = math.sqrt(strengths[at]) * math.sqrt(strengths[at + 1])
    elif white:
        threshold = NOISY_KINK * resolution
    elif len(strengths) and strengths[0] > least:
        threshold = 0.0
    else:
        threshold = math.inf
    return groups_below(n_pieces, merges, threshold)


def groups_below(
    n_pieces: int, merges: list[tuple[int, int, float]], threshold: float
) -> list[list[int]]:
    """Groups that form when only merges weaker than `threshold` happen."""
    members = {piece: [piece] for piece in range(n_pieces)}
    alive = set(range(n_pieces))
    for m, (a, b, height) in enumerate(merges):
        members[n_pieces + m] = members[a] + members[b]
        if height < threshold and a in alive and b in alive:
            alive = (alive - {a, b}) | {n_pieces + m}
    return [sorted(members[node]) for node in sorted(alive)]
