"""Least squares of pieces that meet at faces: orthogonal elimination of one after the other.

The matrix has a block of columns for each piece, and rows that hold one piece or two that touch.
Eliminating a piece by a QR factorisation leaves rows of those that it touches (the multifrontal
method). In a chain of pieces the time is linear in their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Singular value of a piece's factor below which the rows leave its direction open. They are in
#: units in which a change of the solution by 1 changes them by about 1, noisy data by 1e-4.
OPEN = 1e-6
#: Least diagonal entry of the factor of the unknowns: the square of its inverse does not overflow.
LEAST_FACTOR = 1e-150


@dataclass
class Front:
    """What the elimination of a piece leaves: R c_e + S c_neighbours + U unknowns = rhs."""

    piece: int
    neighbours: list[int]
    R: Tensor
    S: Tensor
    rhs: Tensor


@dataclass
class Pair:
    """Rows that hold two pieces: columns of the first, of the second and the right-hand side."""

    first: int
    second: int
    rows: Tensor


@dataclass
class Elimination:
    """Least-squares problem in blocks.

    Parameters
    ----------
    sizes : sequence of int
        Number of columns of each piece.
    own : sequence of Tensor of shape (n_e, size_e + q + 1)
        Rows of a single piece: its columns, the unknowns and the right-hand side.
    pairs : sequence of Pair
        Rows of two pieces.
    q : int, default=0
        Number of unknowns, which all pieces share.
    ridge : float, default=0.0
        Added to every column as a row of its own.
    """

    sizes: Sequence[int]
    own: Sequence[Tensor]
    pairs: Sequence[Pair]
    q: int = 0
    ridge: float = 0.0
    fronts: list[Front] = field(default_factory=list)
    last: Tensor = field(init=False, repr=False)

    @property
    def n_rows(self) -> int:
        """Number of all rows."""
        return sum(map(len, self.own)) + sum(len(pair.rows) for pair in self.pairs)

    def factor(self) -> Elimination:
        """Eliminate all pieces; fills `fronts` and `last`, the rows of the unknowns alone."""
        order, _ = minimum_degree(self.sizes, [(pair.first, pair.second) for pair in self.pairs])
        position = {e: i for i, e in enumerate(order)}
        waiting: list[list[tuple[list[int], Tensor]]] = [[] for _ in order]
        for pair in self.pairs:
            first = min(pair.first, pair.second, key=position.__getitem__)
            waiting[first].append(([pair.first, pair.second], pair.rows))
        for e, rows in enumerate(self.own):
            waiting[e].append(([e], rows))
        tail = self.q + 1
        roots = [self.own[0].new_zeros((0, tail))]
        for e in order:
            parts, waiting[e] = waiting[e], []
            near = sorted({f for names, _ in parts for f in names} - {e}, key=position.__getitem__)
            front, k = self._front(e, near, parts), self.sizes[e]
            # Only the piece's own columns are eliminated: what is left stays as it falls.
            packed, tau = torch.geqrf(front[:, :k])
            right = torch.ormqr(packed, tau, front[:, k:], transpose=True)
            # Copies: a part of the rows would keep all of them.
            self.fronts.append(
                Front(e, near, packed[:k].triu(), right[:k, :-1].clone(), right[:k, -1].clone())
            )
            rest = right[k:]
            if len(rest) > rest.shape[1]:
                rest = torch.linalg.qr(rest, mode="r").R
            if near:
                waiting[near[0]].append((near, rest))
            else:
                roots.append(rest)
        padded = torch.cat([*roots, roots[0].new_zeros((tail, tail))])
        self.last = torch.linalg.qr(padded, mode="r").R
        return self

    def _front(self, e: int, near: list[int], parts: list[tuple[list[int], Tensor]]) -> Tensor:
        """All rows that hold a piece: its columns, those of its neighbours, and the tail."""
        start, total = {}, 0
        for f in (e, *near):
            start[f], total = total, total + self.sizes[f]
        n_rows, n_ridge = sum(len(rows) for _, rows in parts), self.sizes[e] if self.ridge else 0
        height = max(n_rows + n_ridge, self.sizes[e])
        front = self.own[e].new_zeros((height, total + self.q + 1))
        at = 0
        for names, rows in parts:
            column = 0
            for f in names:
                size = self.sizes[f]
                # A piece may be its own neighbour across a ring.
                own = front[at : at + len(rows), start[f] : start[f] + size]
                own += rows[:, column : column + size]
                column += size
            front[at : at + len(rows), total:] = rows[:, column:]
            at += len(rows)
        if n_ridge:
            front[at : at + n_ridge, : self.sizes[e]].diagonal().fill_(self.ridge)
        return front

    def solve(self, hold: bool = False) -> tuple[list[Tensor], Tensor]:
        """Columns' coefficients piece by piece, and the unknowns, which are 0 where held."""
        q = self.q
        unknowns = self.last.new_zeros(q)
        if q and not hold:
            factor, rhs = self.last[:, :q], self.last[:, q:]
            # What no row sees stays: an unknown whose terms vanish where the iterate does.
            seen = factor.norm(dim=0) > LEAST_FACTOR
            if bool(seen.all()):
                unknowns = _back(factor[:q], rhs[:q, 0])
            elif bool(seen.any()):
                n = int(seen.sum())
                own = torch.linalg.qr(torch.cat([factor[:, seen], rhs], 1), mode="r").R
                unknowns[seen] = _back(own[:n, :n], own[:n, n])
        return self._substituted(unknowns, 1.0), unknowns

    def _substituted(self, unknowns: Tensor, rhs: float) -> list[Tensor]:
        found: list[Tensor] = [unknowns] * len(self.sizes)
        for front in reversed(self.fronts):
            known = torch.cat([*(found[f] for f in front.neighbours), unknowns])
            found[front.piece] = _back(front.R, rhs * front.rhs - front.S @ known)
        return found

    def tangents(self) -> list[list[Tensor]]:
        """Derivatives of the pieces' coefficients with respect to each unknown."""
        eye = torch.eye(self.q, dtype=self.last.dtype, device=self.last.device)
        return [self._substituted(row, 0.0) for row in eye]

    def responses(self, gradients: Sequence[Tensor], draws: Sequence[Tensor]) -> list[Tensor]:
        """What right-hand sides do to the coefficients, and draws of these; unknowns held.

        Parameters
        ----------
        gradients : sequence of Tensor of shape (size_e, K)
            A' b of changes b of the right-hand sides.
        draws : sequence of Tensor of shape (size_e, L)
            Independent normal numbers.

        Returns
        -------
        list of Tensor of shape (size_e, K + L)
            (A' A)^-1 A' b, and columns with covariance (A' A)^-1.
        """
        left, halves = list(gradients), []
        for front in self.fronts:
            half = torch.linalg.solve_triangular(front.R.T, left[front.piece], upper=False)
            halves.append(torch.cat([half, draws[front.piece]], 1))
            at = 0
            for f in front.neighbours:
                left[f] = left[f] - front.S[:, at : at + self.sizes[f]].T @ half
                at += self.sizes[f]
        found: list[Tensor] = [draws[0]] * len(self.sizes)
        for front, rhs in zip(reversed(self.fronts), reversed(halves), strict=True):
            if front.neighbours:
                known = torch.cat([found[f] for f in front.neighbours])
                rhs = rhs - front.S[:, : len(known)] @ known
            found[front.piece] = torch.linalg.solve_triangular(front.R, rhs, upper=True)
        return found

    @property
    def residual(self) -> float:
        """Norm of what no coefficients explain."""
        return float(self.last[self.q :, self.q].norm())

    def n_open(self) -> int:
        """Number of directions that the rows leave open."""
        blocks = [front.R for front in self.fronts]
        singular = [torch.linalg.svdvals(block) for block in blocks]
        return sum(int((part < OPEN).sum()) for part in singular)

    def is_open(self) -> bool:
        """Whether there is one; inverses of a small norm have no small singular value."""
        for front in self.fronts:
            one = torch.eye(len(front.R), dtype=front.R.dtype, device=front.R.device)
            inverse = torch.linalg.solve_triangular(front.R, one, upper=True)
            small = bool(inverse.norm() <= 1 / OPEN)
            if not small and bool((torch.linalg.svdvals(front.R) < OPEN).any()):
                return True
        return False

    def covariances(self, hold: bool = False) -> tuple[list[Tensor], Tensor]:
        """Diagonal blocks of (A' A)^-1: of each piece, and of the unknowns, 0 where held.

        From the last piece to the first (the equations of Takahashi): what is eliminated later
        is known, and pieces that a front touches touch each other.
        """
        q = self.q
        known: dict[tuple[int, int], Tensor] = {}
        eye = torch.eye(q, dtype=self.last.dtype, device=self.last.device)
        last = self.last[:q, :q].clone()
        # An unknown that no row sees is as good as free, but its variance is a number.
        last.diagonal()[last.diagonal().abs() < LEAST_FACTOR] = LEAST_FACTOR
        inverse = torch.linalg.solve_triangular(last, eye, upper=True)
        known[-1, -1] = torch.zeros_like(inverse) if hold else inverse @ inverse.T
        diagonal: list[Tensor] = [self.last.new_zeros(0)] * len(self.sizes)
        for front in reversed(self.fronts):
            names = [*front.neighbours, -1]
            others = torch.cat([torch.cat([known[f, g] for g in names], 1) for f in names])
            k = len(front.R)
            one = torch.eye(k, dtype=front.R.dtype, device=front.R.device)
            inverse = torch.linalg.solve_triangular(front.R, one, upper=True)
            T = inverse @ front.S
            across = -T @ others
            diagonal[front.piece] = inverse @ inverse.T - across @ T.T
            known[front.piece, front.piece] = diagonal[front.piece]
            at = 0
            for f in names:
                size = self.sizes[f] if f >= 0 else q
                known[front.piece, f] = across[:, at : at + size]
                known[f, front.piece] = across[:, at : at + size].T
                at += size
        return diagonal, known[-1, -1]


def minimum_degree(
    sizes: Sequence[int], touching: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Order in which pieces are eliminated: the next is one that touches the fewest columns.

    Parameters
    ----------
    sizes : sequence of int
        Number of columns of each piece.
    touching : sequence of tuple of two int
        Pieces that share rows.

    Returns
    -------
    order : list of int
    columns : list of int
        Columns that the elimination of each of them touches beside its own.
    """
    n = len(sizes)
    graph: list[set[int]] = [set() for _ in range(n)]
    for a, b in touching:
        if a != b:
            graph[a].add(b)
            graph[b].add(a)
    cost = [sum(sizes[f] for f in near) for near in graph]
    left, order, columns = set(range(n)), [], []
    while left:
        e = min(left, key=lambda e: (cost[e], e))
        left.discard(e)
        order.append(e)
        columns.append(cost[e])
        near = graph[e]
        for f in near:
            graph[f] |= near
            graph[f] -= {e, f}
        for f in near:
            cost[f] = sum(sizes[g] for g in graph[f])
    return order, columns


def memory(
    sizes: Sequence[int], own: Sequence[int], pairs: Sequence[tuple[int, int, int]]
) -> tuple[int, int]:
    """Numbers that an elimination keeps, and those of its largest front, by counting alone.

    Parameters
    ----------
    sizes, own : sequence of int
        Number of columns of each piece, and of its own rows.
    pairs : sequence of tuple of three int
        Two pieces and the number of rows that hold both.

    Returns
    -------
    kept : int
        Numbers of all rows, and of the factor.
    largest : int
        Rows times columns of the largest front.
    """
    order, others = minimum_degree(sizes, [(a, b) for a, b, _ in pairs])
    position = {e: i for i, e in enumerate(order)}
    rows, largest = list(own), 0
    kept = sum(n * size for n, size in zip(own, sizes, strict=True))
    near: list[set[int]] = [set() for _ in sizes]
    for a, b, n in pairs:
        first, last = sorted((a, b), key=position.__getitem__)
        rows[first] += n
        near[first] |= {last} - {first}
        kept += n * (sizes[a] + sizes[b])
    for e, beside in zip(order, others, strict=True):
        largest = max(largest, rows[e] * (sizes[e] + beside))
        kept += sizes[e] * (sizes[e] + beside)
        if near[e]:
            following = min(near[e], key=position.__getitem__)
            rows[following] += min(max(rows[e] - sizes[e], 0), beside)
            near[following] |= near[e] - {following}
    return kept, largest


def _back(R: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(R, b[:, None], upper=True)[:, 0]
