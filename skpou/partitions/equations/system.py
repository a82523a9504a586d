"""Equations, conditions and data as rows of pieces and of pairs of pieces that touch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, sobol_points
from skpou.core.linalg import TINY
from skpou.equations import Problem
from skpou.partitions.equations.boxes import Boxes, Face
from skpou.partitions.equations.columns import PieceColumns, exponents, face_columns, tensor_nodes
from skpou.partitions.equations.elimination import Elimination, Pair
from skpou.partitions.equations.oblique import edge_rows, is_wide, rows_of_jump
from skpou.partitions.equations.terms import MORE_NODES, TermRows, segments

#: Weight of the rows of values and slopes at faces, of conditions and of data, where an equation
#: has 1: they hold exactly, while an equation's residual falls with the pieces.
CONSTRAINT_WEIGHT = 10.0
#: Weight of conditions and of data where all pieces are solved for at once: a layer that no piece
#: resolves yet must not pull the solution elsewhere, as it would with more.
GIVEN = 1.0
#: Ridge of all columns, beside rows whose columns have norms of about 1: next to none.
RIDGE = 1e-14
#: Slopes of a term in a piece, as a share of those elsewhere, that are round-off.
VANISHED = 1e-10
#: Nodes of a piece by Sobol's sequence, for each column, from the dimension where tensor products
#: would be too many.
NODES_PER_COLUMN = 1.3
#: Nodes of a tensor product for each column that are too many.
MOST_NODES_PER_COLUMN = 4


Coefficients = list[Tensor]


class System:
    """All rows for some pieces.

    Parameters
    ----------
    rows : Rows
        Data in scaled units; there may be none.
    rings : frozenset of int
        Columns along which the pieces are closed to a ring.
    carried : callable, default=None
        What holds at the lower ends of a marched column: takes points and an order of the
        derivative along it, and returns (n, m).
    column : int, default=None
        The marched column.
    data_weight : float, default=1.0
        Factor of the weight of the data.
    tangent : callable, default=None
        Derivatives (n, m, q) of what is carried with respect to the unknowns.
    conditions_only : bool, default=False
        Whether equations are left out.
    """

    def __init__(
        self,
        boxes: Boxes,
        problem: Problem,
        rows: Rows,
        rings: frozenset[int] = frozenset(),
        carried: Callable[[np.ndarray, int], Tensor] | None = None,
        column: int | None = None,
        data_weight: float = 1.0,
        tangent: Callable[[np.ndarray, int], Tensor] | None = None,
        conditions_only: bool = False,
    ):
        self.boxes, self.problem, self.rows, self.rings = boxes, problem, rows, rings
        self.carried, self.column, self.data_weight = carried, column, data_weight
        self.tangent = tangent
        self.condition_weight = GIVEN if column is None else CONSTRAINT_WEIGHT
        self.like, self.d, self.m = rows.X, boxes.low.shape[1], rows.n_outputs
        self.lowest = boxes.low.min(0)
        self._scales: dict[Any, np.ndarray] = {}
        self._linearised: tuple[Coefficients, Tensor, list[list]] | None = None
        self.orders = highest_orders(problem, self.m)
        self.sizes = [self.m * len(exponents(boxes.degrees(e))) for e in range(boxes.n_boxes)]
        self.terms = [
            TermRows(self, i)
            for i, term in enumerate(problem.terms)
            if term.is_condition or not conditions_only
        ]
        self.pairs = self._pairs()
        self.bottom: list[tuple[int, Tensor, Tensor, Tensor | None]] = []
        if carried is not None and column is not None:
            self.bottom = self._bottom(carried, column)
        self._data()
        self.weights: list[list[Tensor]] = []

    # Geometry

    def tensor(self, array: np.ndarray) -> Tensor:
        """Numbers as a tensor of the fit."""
        return torch.as_tensor(array, dtype=self.like.dtype, device=self.like.device)

    def original(self, points: np.ndarray) -> Tensor:
        """Points of the unit box in units of X, all columns; those that do not vary are 0."""
        scaling = self.problem.scaling
        found = self.tensor(points) * scaling.width + scaling.offset
        if self.problem.terms[0].x.shape[1] == found.shape[-1]:
            return found
        full = self.problem.terms[0].x[0].expand(*found.shape[:-1], -1).clone()
        full[..., scaling.columns] = found
        return full

    def members(self, points: np.ndarray) -> np.ndarray:
        """Piece of each point; those at the lower end of a later slab are the earlier one's."""
        chosen = self.boxes.locate(points)
        if self.column is not None and self.carried is not None:
            chosen[points[:, self.column] <= self.lowest[self.column]] = -1
        return chosen

    def nodes(self, degree: tuple[int, ...]) -> np.ndarray:
        """Where an equation is asked for in a piece."""
        n_columns = len(exponents(degree))
        counts = [p + MORE_NODES for p in degree]
        if math.prod(counts) > MOST_NODES_PER_COLUMN * n_columns:
            n = int(NODES_PER_COLUMN * n_columns) + 1
            return 2 * sobol_points(self.d, n, 0).numpy() - 1
        return tensor_nodes(counts)

    def placed(self) -> np.ndarray:
        """Rows of conditions in each piece, at points of its own that determine its columns."""
        found = np.zeros(self.boxes.n_boxes, dtype=int)
        for term_rows in self.terms:
            if term_rows.term.is_condition and term_rows.term.region is not None:
                for part in term_rows.scattered:
                    found[part.piece] += part.rows.stop - part.rows.start
        return found

    def by_degree(self, pieces: np.ndarray) -> list[np.ndarray]:
        """Pieces of equal degree together."""
        found: dict[tuple[int, ...], list[int]] = {}
        for e in pieces:
            found.setdefault(self.boxes.degrees(int(e)), []).append(int(e))
        return [np.array(part) for part in found.values()]

    def scale(self, key, pieces: np.ndarray, orders: tuple[int, ...]) -> Tensor:
        """Derivative in units of y and X, of what has derivative 1 on [-1, 1]^d, by piece."""
        if key not in self._scales:
            per_piece = ((2 / self.boxes.width) ** np.array(orders)).prod(1)
            self._scales[key] = self.problem.unit(key) * per_piece
        return self.tensor(self._scales[key][pieces])

    # Rows that do not depend on the iterate

    def _pairs(self) -> list[tuple[int, int, Tensor]]:
        """Pieces that touch, and rows of both."""
        if self.boxes.edges is not None:
            return edge_rows(self, self.boxes.edges, CONSTRAINT_WEIGHT)
        found = [self._face(face) for face in self.boxes.faces(self.rings)]
        return [pair for pair in found if pair is not None]

    def _face(self, face: Face) -> tuple[int, int, Tensor] | None:
        """Rows of equal values, and slopes where an equation has second derivatives."""
        boxes, a, b, j = self.boxes, face.below, face.above, face.axis
        counts = tuple(int(n) + 2 for n in np.maximum(boxes.degree[a], boxes.degree[b]))
        n_nodes = math.prod(n for i, n in enumerate(counts) if i != j)
        ends = np.stack([face.low, face.high])
        others = ends.copy()
        others[:, j] = face.other
        A = face_columns(boxes.degrees(a), counts, j, boxes.local(a, ends), self.like)
        B = face_columns(boxes.degrees(b), counts, j, boxes.local(b, others), self.like)
        blocks = [
            rows_of_jump(self, (a, b), (A, B), output, j, order)
            for output in range(self.m)
            for order in range(int(self.orders[output, j]))
        ]
        if not blocks:
            return None
        return a, b, CONSTRAINT_WEIGHT / math.sqrt(n_nodes) * torch.cat(blocks)

    def _bottom(
        self, carried: Callable[[np.ndarray, int], Tensor], j: int
    ) -> list[tuple[int, Tensor, Tensor, Tensor | None]]:
        """Rows of what the earlier slab ends with: piece, rows and right-hand side."""
        boxes, found = self.boxes, []
        places, points = [], []
        for e in range(boxes.n_boxes):
            counts = tuple(int(p) + MORE_NODES for p in boxes.degree[e])
            nodes = tensor_nodes([0 if i == j else n for i, n in enumerate(counts)])
            nodes[:, j] = -1.0
            points.append(boxes.points(e, nodes))
            if boxes.edges is None:
                ends = np.stack([-np.ones(self.d), np.ones(self.d)])
                ends[1, j] = -1.0
                places.append(face_columns(boxes.degrees(e), counts, j, ends, self.like))
            else:
                if not is_wide(boxes.edges, e):
                    points[-1] = points[-1][:0]  # It begins where its edges meet.
                local = boxes.local(e, points[-1])
                places.append(PieceColumns(boxes.degrees(e), local, self.like))
            points[-1][:, j] = boxes.low[e, j]
        self._ends = points
        right = self.at_bottom(carried)
        moves = self.at_bottom(self.tangent) if self.tangent is not None else None
        for e, columns in enumerate(places):
            p, blocks = columns.n_columns, []
            for order, outputs in enumerate(self._carried_outputs()):
                matrix = columns.derivative(tuple(order if i == j else 0 for i in range(self.d)))
                matrix = matrix * 2.0**order
                for output in outputs:
                    block = self.like.new_zeros((len(points[e]), self.sizes[e]))
                    block[:, output * p : (output + 1) * p] = matrix
                    blocks.append(block)
            factor = CONSTRAINT_WEIGHT / math.sqrt(max(len(points[e]), 1))
            moved = -moves[e] if moves is not None else None
            found.append((e, factor * torch.cat(blocks), right[e], moved))
        return found

    def _carried_outputs(self) -> list[list[int]]:
        """Outputs whose derivative of each order along the marched column is carried."""
        orders = self.orders[:, self.column]
        return [np.flatnonzero(orders > order).tolist() for order in range(int(orders.max()))]

    def at_bottom(self, function: Callable[[np.ndarray, int], Tensor]) -> list[Tensor]:
        """What is carried as right-hand sides of the rows of `bottom`, piece by piece.

        Parameters
        ----------
        function : callable
            Takes points and an order of the derivative, and returns (n, m) or (n, m, q).
        """
        joined = np.concatenate(self._ends)
        count = [len(part) for part in self._ends]
        outputs = self._carried_outputs()
        known = [function(joined, order).split(count) for order in range(len(outputs))]
        found = []
        for e, n in enumerate(count):
            parts = [
                float(self.boxes.width[e, self.column]) ** order * known[order][e][:, output]
                for order, chosen in enumerate(outputs)
                for output in chosen
            ]
            found.append(CONSTRAINT_WEIGHT / math.sqrt(max(n, 1)) * torch.cat(parts))
        return found

    def _data(self) -> None:
        """Data by piece."""
        points = self.rows.X.cpu().numpy()
        chosen = self.members(points) if len(points) else np.zeros(0, dtype=int)
        order = np.flatnonzero(chosen >= 0)
        order = order[np.argsort(chosen[order], kind="stable")]
        self.data: list[tuple[int, PieceColumns, Tensor, Tensor]] = []
        self.data_index = [order[rows] for _, rows in segments(chosen[order])]
        parts = list(segments(chosen[order]))
        noisy = self.data_weight < 1
        share = math.sqrt(len(order) / max(len(parts), 1)) or 1.0
        for e, rows in parts:
            index = torch.as_tensor(order[rows], device=self.like.device)
            local = self.boxes.local(e, points[order[rows]])
            columns = PieceColumns(self.boxes.degrees(e), local, self.like)
            # Noise is the same in all rows; what holds exactly counts alike in all pieces.
            self.data_unit = (self.condition_weight * self.data_weight / share) ** 2
            n = share if noisy else math.sqrt(rows.stop - rows.start)
            root = self.condition_weight * self.data_weight / n * self.rows.weight[index].sqrt()
            self.data.append((e, columns, self.rows.y[index], root))

    # The problem at an iterate

    def weigh(self, coef: Coefficients, unknowns: Tensor) -> None:
        """Divide the rows of every term in every piece by what they do to a function of size 1.

        A function that changes by about 1 across the piece. So pieces of all sizes count alike,
        which solutions that are singular at a corner need.
        """
        self.weights = []
        volume = self.boxes.width.prod(1)
        # What is transported adds up along the way, not so what a second derivative smooths: in
        # one dimension this makes the sum of squares of a first-order equation an integral.
        share = (volume / volume.sum()) ** (0.5 / self.d)
        for term_rows, parts in zip(self.terms, self._parts(coef, unknowns), strict=True):
            found, common = [], self._common_slopes(parts)
            own = self.condition_weight if term_rows.term.is_condition else 1.0
            weight = own * term_rows.term.weight
            for pieces, _, scale, (result, slopes, _) in parts:
                natural = self.like.new_zeros((len(pieces), result.shape[2]))
                usual = self.like.new_zeros((len(pieces), 1))
                for key, slope in slopes.items():
                    times = scale(key)[:, None]
                    if len(key[1]) < 2 and not term_rows.term.is_condition:
                        times = times * self.tensor(share[pieces])[:, None]
                    natural += slope.square().mean(1).sqrt() * times
                    usual += common[key] * times
                usual = torch.where((usual > 0) & usual.isfinite(), usual, 1.0)
                # Rows that vanish in a piece are weighed as they would be with usual slopes.
                found.append(weight / torch.where(natural > VANISHED * usual, natural, usual))
            self.weights.append(found)

    @staticmethod
    def _common_slopes(parts: list) -> dict[Any, float]:
        """Root mean square slopes of a term with respect to values and derivatives."""
        squares: dict[Any, float] = {}
        n_points = 0
        for _, _, _, (result, slopes, _) in parts:
            n_points += result.numel()
            for key, slope in slopes.items():
                squares[key] = squares.get(key, 0.0) + float(slope.square().sum())
        return {key: math.sqrt(total / n_points) for key, total in squares.items()}

    def _parts(self, coef: Coefficients, unknowns: Tensor) -> list[list]:
        """All terms, linearised at an iterate: the weights and the first step share them."""
        known = self._linearised
        if known is None or known[0] is not coef or known[1] is not unknowns:
            found = [list(term_rows.parts(coef, unknowns)) for term_rows in self.terms]
            self._linearised = known = (coef, unknowns, found)
        return known[2]

    def elimination(self, coef: Coefficients, unknowns: Tensor) -> Elimination:
        """The linearised problem for a step from an iterate."""
        q = len(unknowns)
        own: list[list[Tensor]] = [[] for _ in self.sizes]
        parts_of_terms = self._parts(coef, unknowns)
        self._linearised = None  # The next iterate is another one.
        for term_rows, weights, parts in zip(self.terms, self.weights, parts_of_terms, strict=True):
            for weight, (pieces, columns, scale, found) in zip(weights, parts, strict=True):
                block = self._block(term_rows, columns, scale, found, weight, q)
                for e, rows in zip(pieces, block, strict=True):
                    own[e].append(rows)
        for e, rows, right, moved in self.bottom:
            left = right - rows @ flat(coef[e])
            moved = rows.new_zeros((len(rows), q)) if moved is None else moved
            own[e].append(torch.cat([rows, moved, left[:, None]], 1))
        for e, columns, y, root in self.data:
            own[e].append(self._data_rows(columns, coef[e], y, root, q))
        pairs = []
        for a, b, rows in self.pairs:
            left = -rows @ torch.cat([flat(coef[a]), flat(coef[b])])
            pairs.append(Pair(a, b, torch.cat([rows, rows.new_zeros((len(rows), q)),
                                               left[:, None]], 1)))  # fmt: skip
        width = [size + q + 1 for size in self.sizes]
        joined = [
            torch.cat(parts) if parts else self.like.new_zeros((0, w))
            for parts, w in zip(own, width, strict=True)
        ]
        return Elimination(self.sizes, joined, pairs, q, RIDGE)

    def _block(self, term_rows: TermRows, columns: PieceColumns, scale, found, weight: Tensor,
               q: int) -> Tensor:  # fmt: skip
        """Rows (G, n k, N m + q + 1) of one term in pieces of one degree."""
        result, by_value, by_unknown = found
        G, n, k = result.shape
        N = columns.n_columns
        block = result.new_zeros((G, n, k, N * self.m + q + 1))
        factor = weight / math.sqrt(n)
        for key, slope in by_value.items():
            orders = term_rows.orders(key)
            matrix = columns.derivative(orders)
            slope = slope * (factor * scale(key)[:, None])[:, None]
            start = key[0] * N
            block[..., start : start + N] += slope[..., None] * matrix[:, None]
        for i, slope in enumerate(by_unknown):
            block[..., N * self.m + i] = slope * factor[:, None]
        block[..., -1] = -result * factor[:, None]
        return block.reshape(G, n * k, -1)

    def _data_rows(self, columns: PieceColumns, coef: Tensor, y: Tensor, root: Tensor, q: int):
        phi = columns.derivative((0,) * self.d)
        left = (y - phi @ coef) * root[:, None]
        weighted = root[:, None] * phi
        zero = weighted.new_zeros((len(phi), q))
        N, blocks = columns.n_columns, []
        for output in range(self.m):
            block = weighted.new_zeros((len(phi), N * self.m))
            block[:, output * N : (output + 1) * N] = weighted
            blocks.append(torch.cat([block, zero, left[:, output : output + 1]], 1))
        return torch.cat(blocks)

    def squares(self, coef: Coefficients, unknowns: Tensor) -> float:
        """Sum of squares of all weighted rows at an iterate."""
        total = 0.0
        for term_rows, weights in zip(self.terms, self.weights, strict=True):
            parts = term_rows.parts(coef, unknowns, slopes=False)
            for weight, (_, _, _, found) in zip(weights, parts, strict=True):
                result = found[0] * weight[:, None]
                total += float(result.square().mean(1).sum())
        for e, rows, right, _ in self.bottom:
            total += float((right - rows @ flat(coef[e])).square().sum())
        for e, columns, y, root in self.data:
            phi = columns.derivative((0,) * self.d)
            left = (y - phi @ coef[e]) * root[:, None]
            total += float(left.square().sum())
        for a, b, rows in self.pairs:
            joined = torch.cat([flat(coef[a]), flat(coef[b])])
            total += float((rows @ joined).square().sum())
        return total if math.isfinite(total) else math.inf

    def misfit(self, coef: Coefficients, unknowns: Tensor) -> np.ndarray:
        """Residuals of each piece at fresh points, and of its data, as changes of the solution.

        Derivatives of the last columns are larger than these by powers of the degree, which are
        taken off.
        """
        rng = np.random.default_rng(self.boxes.n_boxes)
        found = np.zeros(self.boxes.n_boxes)
        top = self.boxes.degree.max(1)
        for i, term in enumerate(self.problem.terms):
            order = max(len(key[1]) for key in term.pointwise.keys)
            for pieces, _, scale, (result, slopes, _) in TermRows(self, i, rng).parts(
                coef, unknowns
            ):
                natural = sum(
                    slope.square().mean(1).sqrt() * scale(key)[:, None]
                    for key, slope in slopes.items()
                )
                part = result.square().mean(1).sqrt() / natural.clamp_min(TINY)
                size = part.max(1).values.cpu().numpy() / np.maximum(top[pieces], 1.0) ** order
                found[pieces] = np.maximum(found[pieces], size)
        return found

    def data_misfit(self, coef: Coefficients) -> np.ndarray:
        """Root mean square of what each piece's data differ from the solution."""
        found = np.zeros(self.boxes.n_boxes)
        for e, columns, y, _ in self.data:
            left = y - columns.derivative((0,) * self.d) @ coef[e]
            found[e] = float(left.square().mean().sqrt())
        return found

    def face_misfit(self, coef: Coefficients) -> float:
        """Largest root mean square by which values and changes of two pieces differ at a face."""
        worst = 0.0
        for a, b, rows in self.pairs:
            joined = torch.cat([flat(coef[a]), flat(coef[b])])
            worst = max(worst, float((rows @ joined).norm()) / CONSTRAINT_WEIGHT)
        return worst

    def shaped(self, solution: Sequence[Tensor]) -> Coefficients:
        """Solution of an elimination as coefficients (N, m) of every piece."""
        return [part.reshape(self.m, -1).T for part in solution]

    def zero(self) -> Coefficients:
        """Coefficients of nothing."""
        return [self.like.new_zeros((size // self.m, self.m)) for size in self.sizes]


def flat(coef: Tensor) -> Tensor:
    """Coefficients (N, m) output by output."""
    return coef.T.reshape(-1)


def highest_orders(problem: Problem, m: int) -> np.ndarray:
    """Highest derivative (m, d) of every output along every column in the equations."""
    d = len(problem.scaling.columns)
    found = np.zeros((m, d), dtype=int)
    for term in problem.terms:
        if term.is_condition or term.length:
            continue
        for key in term.pointwise.keys:
            along = problem.scaled(key)
            for j in set(along):
                found[key[0], j] = max(found[key[0], j], along.count(j))
    return found
