"""Sums of products of one-dimensional splines, and one block of kernel columns over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from skpou.additive.b_splines import SplineColumn, fit_column
from skpou.additive.spline_columns import SplineColumns
from skpou.core import Basis, TensorState
from skpou.core.linalg import TINY

#: Columns of this size of correlation are the same column in other units.
SAME_COLUMN = 1 - 1e-12
#: Width, in units of X, of a column that does not vary.
NO_WIDTH = 1e-12
#: Rows whose kernel is evaluated at a time.
BLOCK = 4096
#: Eigenvalues of the landmarks' kernel below this share of the largest are left out.
SMALLEST_EIGENVALUE = 1e-13
#: Most numbers that are kept with the points of which they are the columns.
MOST_REMEMBERED = 10_000_000
#: Points up to which all products are formed at once: there calls cost more than work.
FEW_ROWS = 16


@dataclass(frozen=True)
class Block:
    """Products of functions of one, two or three columns: ``prod_j psi_{k_j}(x_j)``.

    Attributes
    ----------
    columns : tuple of int
        Columns j, ascending; ``(-1,)`` is the block over all columns.
    first, last : tuple of int
        Functions ``first_j <= k_j < last_j`` of each column.
    """

    columns: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of functions of each column."""
        return tuple(last - first for first, last in zip(self.first, self.last, strict=True))

    @cached_property
    def size(self) -> int:
        """Number of products."""
        return math.prod(self.shape)

    @property
    def key(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stays the same when the block gets more functions."""
        return self.columns, self.first

    @cached_property
    def order(self) -> int:
        """Number of columns; 0 for the block over all columns."""
        return 0 if self.columns == (-1,) else len(self.columns)


@dataclass(eq=False)
class Landmarks(TensorState):
    """Leading eigenvectors of a Gaussian kernel on some rows, in rotated and scaled coordinates.

    Parameters
    ----------
    scales : Tensor of shape (d, d)
        Rotation and scales in one: coordinates ``t @ scales``.
    points : Tensor of shape (L, d)
        Landmarks in these coordinates.
    weights : Tensor of shape (L, m)
        Eigenvectors over the roots of their eigenvalues.
    """

    scales: Tensor
    points: Tensor
    weights: Tensor

    @cached_property
    def _lengths(self) -> Tensor:
        return self.points.square().sum(1)

    @classmethod
    def from_rows(cls, scales: Tensor, T: Tensor, n_columns: int) -> Landmarks:
        """Eigenvectors of the kernel among the coordinates T (L, d), at most `n_columns`."""
        points = torch.unique(T @ scales, dim=0)
        bare = cls(scales, points, points.new_zeros((len(points), 0)))
        values, vectors = torch.linalg.eigh(bare._kernel(points))
        kept = values > SMALLEST_EIGENVALUE * values[-1]
        kept[: max(len(points) - n_columns, 0)] = False
        return cls(scales, points, (vectors[:, kept] / values[kept].sqrt()).contiguous())

    @property
    def n_columns(self) -> int:
        """Number m of columns."""
        return self.weights.shape[1]

    def _kernel(self, A: Tensor) -> Tensor:
        square = A.square().sum(1)[:, None] + self._lengths - 2 * A @ self.points.T
        return torch.exp(-0.5 * square.clamp_min(0))

    def matrix(self, T: Tensor) -> Tensor:
        """Columns (n, m) at coordinates T (n, d)."""
        blocks = torch.split(T @ self.scales, BLOCK)
        return torch.cat([self._kernel(A) @ self.weights for A in blocks])

    def partial(self, T: Tensor, slope: Tensor, feature: int) -> Tensor:
        """Derivatives (n, m) along one coordinate, whose own derivative is `slope` (n,)."""
        A = T @ self.scales
        direction = self.scales[feature]
        distance = (A @ direction)[:, None] - self.points @ direction
        return -slope[:, None] * ((self._kernel(A) * distance) @ self.weights)

    def gradient(self, T: Tensor, coef: Tensor) -> Tensor:
        """Gradient (n, d), by the coordinates, of the function with the coefficients coef (m,)."""
        values, parts = self.weights @ coef, []
        for A in torch.split(T @ self.scales, BLOCK):
            pull = self._kernel(A) * values
            parts.append((pull @ self.points - pull.sum(1, keepdim=True) * A) @ self.scales.T)
        return torch.cat(parts)


class _Evaluated(NamedTuple):
    """What derivatives need of the columns at some points."""

    coordinates: Tensor
    coordinate_slopes: Tensor
    functions: list[Tensor]
    slopes: list[Tensor]


class AdditiveBasis(Basis, kind="additive"):
    """A constant, then blocks of products of splines, in float64.

    Parameters
    ----------
    kept : tuple of int
        Features that have functions: neither constant nor copies of others.
    columns : tuple of SplineColumn
        Functions of each of these.
    blocks : tuple of Block
        Terms, by positions in `kept`.
    landmarks : Landmarks, default=None
        Columns of the block over all columns.
    """

    def __init__(
        self,
        n_features: int,
        kept: Sequence[int],
        columns: Sequence[SplineColumn],
        blocks: Sequence[Block],
        landmarks: Landmarks | None = None,
    ):
        self.n_features = n_features
        self.kept = tuple(kept)
        self._keeps_all = self.kept == tuple(range(n_features))
        self.columns = tuple(columns)
        self.splines = SplineColumns(self.columns) if self.columns else None
        self.blocks = tuple(blocks)
        self.landmarks = landmarks
        self.n_columns = 1 + sum(block.size for block in blocks)
        self._gathers: list[list[Tensor] | Landmarks] | None = None

    @cached_property
    def _evaluated(self) -> WeakTensorKeyDictionary:
        return WeakTensorKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """State without what is kept with points: neither pickles nor copies have these."""
        return {name: part for name, part in self.__dict__.items() if name != "_evaluated"}

    def with_blocks(
        self, blocks: Sequence[Block], landmarks: Landmarks | None = None
    ) -> AdditiveBasis:
        """The same columns in other terms."""
        return AdditiveBasis(
            self.n_features, self.kept, self.columns, blocks, landmarks or self.landmarks
        )

    def lines(self) -> AdditiveBasis:
        """The same terms, none of which bends, over columns that are straight lines."""
        columns = [column.line() for column in self.columns]
        return AdditiveBasis(self.n_features, self.kept, columns, self.blocks)

    @property
    def _parts(self) -> list[Block | Landmarks]:
        """What the columns of each block are made of: its products, or the landmarks."""
        found: list[Block | Landmarks] = []
        for block in self.blocks:
            if not block.order and self.landmarks is None:
                raise ValueError("A block over all columns needs landmarks.")
            found.append(block if block.order or self.landmarks is None else self.landmarks)
        return found

    @property
    def is_straight(self) -> bool:
        """Whether no function of any column bends."""
        return self.splines is not None and self.splines.lines is not None

    def coordinates(self, X: Tensor) -> Tensor:
        """Transformed values (n, k) of the columns kept."""
        X = X.double()
        if self.splines is None:
            return X[:, :0]
        return self.splines.coordinates(self.kept_of(X))

    def kept_of(self, X: Tensor) -> Tensor:
        """The columns that have functions."""
        return X if self._keeps_all else X[:, list(self.kept)]

    def functions(self, T: Tensor) -> list[Tensor]:
        """Values of the functions of every column kept at the coordinates T (n, k)."""
        return [] if self.splines is None else self.splines.functions(T)

    def from_functions(self, values: list[Tensor], T: Tensor) -> Tensor:
        """Columns (n, p) from `functions` and `coordinates`, evaluated once for many blocks."""
        if 0 < len(T) <= FEW_ROWS:
            return self._gathered(values, T)
        parts = [T.new_ones((len(T), 1))]
        for part in self._parts:
            if isinstance(part, Landmarks):
                parts.append(part.matrix(T))
            else:
                parts.append(_products(part, values))
        return torch.cat(parts, 1)

    def _gathered(self, values: list[Tensor], T: Tensor) -> Tensor:
        """What `from_functions` returns: all products of a kind at once, from gathered factors."""
        if self._gathers is None:
            self._gathers = _gathers(self._parts, [part.shape[1] for part in values], T.device)
        V = torch.cat([*values, T.new_ones((len(T), 1))], 1)
        parts = []
        for factors in self._gathers:
            if isinstance(factors, Landmarks):
                parts.append(factors.matrix(T))
                continue
            product = V.index_select(1, factors[0])
            for factor in factors[1:]:
                product = product * V.index_select(1, factor)
            parts.append(product)
        return torch.cat(parts, 1)

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in float64, returned in the precision of X; see `Basis.matrix`."""
        return self.evaluated(X)[0].to(X.dtype)

    def evaluated(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """`matrix` and `coordinates` of the same points, in float64.

        What is judged after a fit asks for those of its rows time and again: they are kept as long
        as the points, and must not be written to.
        """
        plain = len(X) > FEW_ROWS and not (X.is_inference() or X.requires_grad)
        known = self._evaluated.get(X) if plain else None
        if known is not None and known[0] == X._version:
            return known[1:]
        T = self.coordinates(X)
        F = self.from_functions(self.functions(T), T)
        if plain and F.numel() <= MOST_REMEMBERED:
            self._evaluated[X] = X._version, F, T
        return F, T

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives; see `Basis.partial`."""
        if self.splines is None or feature not in self.kept:
            return X.new_zeros((len(X), self.n_columns))
        points = self._at(X, self.splines)
        return self._partial(points, self.kept.index(feature)).to(X.dtype)

    def gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """Gradient (n, d), in float64, of the function with the coefficients coef (p,)."""
        result = X.new_zeros(X.shape, dtype=torch.float64)
        if self.splines is None:
            return result
        points, start = self._at(X, self.splines), 1
        kept = torch.zeros_like(points.coordinates)
        for block, part in zip(self.blocks, self._parts, strict=True):
            end = start + block.size
            own, start = coef[start:end], end
            if isinstance(part, Landmarks):
                kept += points.coordinate_slopes * part.gradient(points.coordinates, own)
                continue
            for column in part.columns:
                values = [*points.functions]
                values[column] = points.slopes[column]
                kept[:, column] += _products(part, values) @ own
        result[:, list(self.kept)] = kept
        return result

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """The functions are evaluated once; see `Basis.evaluate_gradient`."""
        return torch.stack([self.gradient(X, own) for own in coef.double().T], 2).to(X.dtype)

    def _at(self, X: Tensor, splines: SplineColumns) -> _Evaluated:
        X = self.kept_of(X).double()
        T, slopes = splines.coordinates(X), splines.coordinate_slopes(X)
        return _Evaluated(T, slopes, splines.functions(T), splines.slopes(T, slopes))

    def _partial(self, points: _Evaluated, column: int) -> Tensor:
        """Derivatives (n, p) along one of the columns kept."""
        result = points.coordinates.new_zeros((len(points.coordinates), self.n_columns))
        values = [*points.functions]
        values[column] = points.slopes[column]
        start = 1
        for block, part in zip(self.blocks, self._parts, strict=True):
            end = start + block.size
            if isinstance(part, Landmarks):
                slope = points.coordinate_slopes[:, column]
                result[:, start:end] = part.partial(points.coordinates, slope, column)
            elif column in part.columns:
                result[:, start:end] = _products(part, values)
            start = end
        return result

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        longest = max([block.order for block in self.blocks] + [1])
        table = np.full((len(self.blocks), 3, longest), -2)
        for row, block in zip(table, self.blocks, strict=True):
            for k, part in enumerate((block.columns, block.first, block.last)):
                row[k, : len(part)] = part
        return {
            "n_features": self.n_features,
            "kept": np.array(self.kept, dtype=np.int64),
            "columns": [column.arrays() for column in self.columns],
            "blocks": table,
            "landmarks": None if self.landmarks is None else self.landmarks.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> AdditiveBasis:
        """Rebuild from `arrays`, on the device of `like`."""
        blocks = []
        for row in np.asarray(arrays["blocks"]):
            order = int((row[2] > -2).sum())
            blocks.append(Block(*(tuple(int(v) for v in part[:order]) for part in row)))
        landmarks = arrays["landmarks"]
        return cls(
            int(arrays["n_features"]),
            tuple(int(j) for j in arrays["kept"]),
            [SplineColumn.from_arrays(column, like) for column in arrays["columns"]],
            blocks,
            None if landmarks is None else Landmarks.from_arrays(landmarks, like),
        )


def joint_splines(bases: Sequence[AdditiveBasis]) -> SplineColumns | None:
    """The splines of several bases as those of one; None where they are no such splines."""
    splines = [basis.splines for basis in bases]
    if len(bases) < 2 or any(part is None or part.lines is not None for part in splines):
        return None
    return SplineColumns([column for basis in bases for column in basis.columns])


def evaluated_together(
    bases: Sequence[AdditiveBasis], joint: SplineColumns | None, X: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """What `evaluated` returns for every basis, few points by their `joint_splines`.

    Parameters
    ----------
    joint : SplineColumns or None
        From `joint_splines`.
    X : Tensor of shape (n, d)
        Points in float64.
    """
    if joint is None or not 0 < len(X) <= FEW_ROWS:
        return [basis.evaluated(X) for basis in bases]
    T = joint.coordinates(torch.cat([basis.kept_of(X) for basis in bases], 1))
    values = joint.functions(T)
    results, start = [], 0
    for basis in bases:
        end = start + len(basis.columns)
        own = T[:, start:end]
        results.append((basis.from_functions(values[start:end], own), own))
        start = end
    return results


def _products(block: Block, values: list[Tensor]) -> Tensor:
    """All products of the functions of a block's columns, (n, size)."""
    parts = [
        values[j][:, first:last]
        for j, first, last in zip(block.columns, block.first, block.last, strict=True)
    ]
    product = parts[0]
    for part in parts[1:]:
        product = (product[:, :, None] * part[:, None, :]).flatten(1)
    return product


def _gathers(
    parts: Sequence[Block | Landmarks], sizes: Sequence[int], device: torch.device
) -> list[list[Tensor] | Landmarks]:
    """Factors of all columns, by their numbers among all functions and a last one, the constant.

    One list for columns that follow each other, factor by factor; `sizes` are the numbers of
    functions of every column.
    """
    starts = np.cumsum([0, *sizes])
    one = starts[-1]
    run = [np.full((1, 3), one)]
    runs: list[list[np.ndarray] | Landmarks] = [run]
    for block in parts:
        if isinstance(block, Landmarks):
            run = []
            runs += [block, run]
            continue
        ranges = [
            starts[j] + np.arange(first, last)
            for j, first, last in zip(block.columns, block.first, block.last, strict=True)
        ]
        table = np.full((block.size, 3), one)
        table[:, : block.order] = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(
            block.size, -1
        )
        run.append(table)
    gathers: list[list[Tensor] | Landmarks] = []
    for found in runs:
        if isinstance(found, Landmarks):
            gathers.append(found)
        elif found:
            table = np.concatenate(found)
            most = max(1, int((table != one).sum(1).max()))
            gathers.append([torch.tensor(table[:, k], device=device) for k in range(most)])
    return gathers


def distinct_columns(X: Tensor, weight: Tensor) -> list[int]:
    """Columns that vary and are not another column in other units."""
    share = (weight / weight.sum())[:, None]
    centred = X - (share * X).sum(0)
    width = (share * centred.square()).sum(0).sqrt()
    Z = share.sqrt() * centred / torch.where(width > 0, width, 1.0)
    correlation = (Z.T @ Z).abs()
    kept: list[int] = []
    for j in range(X.shape[1]):
        varies = float(width[j]) > NO_WIDTH
        if varies and not bool((correlation[j, kept] > SAME_COLUMN).any()):
            kept.append(j)
    return kept


def spline_basis(X: Tensor, weight: Tensor, n_functions: int, transform: bool) -> AdditiveBasis:
    """Basis without terms yet: the functions of every column of the rows X (n, d)."""
    X = X.double()
    kept = distinct_columns(X, weight)
    columns = [fit_column(X[:, j], weight, n_functions, transform) for j in kept]
    return AdditiveBasis(X.shape[1], kept, columns, ())


def line_products(values: list[Tensor], weighted: Tensor) -> Tensor:
    """Sums (d, d) of weighted errors times products of two lines, in standard deviations."""
    lines = torch.stack([value[:, 0] for value in values], 1)
    strength = lines.T @ (weighted[:, None] * lines)
    square = lines.square()
    deviation = (square.T @ (weighted.square()[:, None] * square)).sqrt()
    return strength / deviation.clamp_min(TINY)
