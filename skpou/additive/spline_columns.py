"""The splines of many columns at once: one operation for all where each would cost its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skpou.additive.b_splines import (
    DEGREE,
    EXTENSION,
    LARGEST_COORDINATE,
    SplineColumn,
    local_splines,
    yeo_johnson,
    yeo_johnson_slope,
)

#: Values of B-splines that are held at once: a block of rows of the narrow table that they fill.
BLOCK_VALUES = 4_000_000


class SplineColumns:
    """Functions of several columns, padded to one table.

    Parameters
    ----------
    columns : sequence of SplineColumn
        At least one.
    """

    def __init__(self, columns: Sequence[SplineColumn]):
        self.sizes = [column.n_functions for column in columns]
        like = columns[0].knots
        numbers = [[c.centre, c.width, c.exponent, c.shift, c.spread] for c in columns]
        place = torch.tensor(numbers, dtype=like.dtype, device=like.device)
        self.centre, self.width, self.exponent, self.shift, self.spread = place.unbind(1)
        self.is_log = any(column.exponent in (0, 2) for column in columns)
        longest = max(len(column.knots) for column in columns)
        self.knots = torch.stack(
            [torch.cat([c.knots, c.knots[-1:].expand(longest - len(c.knots))]) for c in columns]
        )
        #: Last interval of each column that is not empty, as in `bspline_matrix`.
        last = [len(column.knots) - DEGREE - 2 for column in columns]
        self.last = torch.tensor(last, device=like.device)[:, None]
        rows = longest - DEGREE - 1
        self.transform = like.new_zeros((len(columns), rows, max(self.sizes)))
        for table, column in zip(self.transform, columns, strict=True):
            table[: len(column.transform), : column.n_functions] = column.transform
        self.low, self.high = self.knots[:, 0], self.knots[:, -1]
        self.reach = EXTENSION * (self.high - self.low)
        #: Straight lines alone: value at the first knot, and slope, of each.
        self.lines: tuple[Tensor, Tensor] | None = None
        if max(self.sizes) == 1:
            ends = torch.stack([column.transform[[0, -1], 0] for column in columns])
            self.lines = ends[:, 0], (ends[:, 1] - ends[:, 0]) / (self.high - self.low)
        self.shape = (len(columns), rows)
        #: Numbers of the four B-splines that are not zero, before that of the interval.
        self.before = torch.arange(-DEGREE, 1, device=like.device)

    def _straight(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Standardized values, before and after the transform."""
        z = (X - self.centre) / self.width
        transformed = yeo_johnson(z, self.exponent, self.is_log)
        return z, (transformed - self.shift) / self.spread

    def coordinates(self, X: Tensor) -> Tensor:
        """Standardized and transformed values (n, k), cut at 4, of the columns X (n, k)."""
        return self._straight(X)[1].clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)

    def coordinate_slopes(self, X: Tensor) -> Tensor:
        """Derivatives (n, k) of `coordinates`."""
        z, t = self._straight(X)
        slope = yeo_johnson_slope(z, self.exponent) / (self.width * self.spread)
        return torch.where(t.abs() <= LARGEST_COORDINATE, slope, 0.0)

    def functions(self, T: Tensor) -> list[Tensor]:
        """Values (n, m_j) of every column's functions at the coordinates T (n, k).

        They are straight outside the knots and constant far outside.
        """
        if self.lines is not None:
            # No B-splines are needed.
            at, slope = self.lines
            t = torch.clamp(T, self.low - self.reach, self.high + self.reach)
            return list((at + (t - self.low) * slope).unsqueeze(2).unbind(1))
        return self._blocks(T, self._functions)

    def slopes(self, T: Tensor, of_coordinates: Tensor) -> list[Tensor]:
        """Derivatives (n, m_j) of `functions`, given those of the coordinates, (n, k)."""
        moves = (T >= self.low - self.reach) & (T <= self.high + self.reach)
        factor = torch.where(moves, of_coordinates, 0.0)
        inside = torch.clamp(T, self.low, self.high)
        tables = self._blocks(inside, self._first_derivatives)
        return [table * factor[:, j, None] for j, table in enumerate(tables)]

    def _blocks(self, T: Tensor, evaluate) -> list[Tensor]:
        parts = [
            evaluate(block) for block in T.split(max(BLOCK_VALUES // math.prod(self.shape), 1))
        ]
        values = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return [table[:, :size] for table, size in zip(values, self.sizes, strict=True)]

    def _functions(self, T: Tensor) -> Tensor:
        inside = torch.clamp(T, self.low, self.high)
        span = self._span(inside)
        local = self._local(inside, span, 0)
        if not torch.equal(inside, T):
            beyond = torch.clamp(T, self.low - self.reach, self.high + self.reach) - inside
            local = local + beyond.T[:, :, None] * self._local(inside, span, 1)
        return self._combined(span, local)

    def _first_derivatives(self, inside: Tensor) -> Tensor:
        span = self._span(inside)
        return self._combined(span, self._local(inside, span, 1))

    def _span(self, inside: Tensor) -> Tensor:
        """Interval (k, n) of knots that each coordinate lies in."""
        span = torch.searchsorted(self.knots, inside.T.contiguous(), right=True) - 1
        return torch.minimum(span.clamp_min(DEGREE), self.last)

    def _local(self, inside: Tensor, span: Tensor, derivative: int) -> Tensor:
        """The four B-splines (k, n, 4) of every coordinate (n, k) that are not zero there."""
        return local_splines(inside.T, self.knots, span, derivative)

    def _combined(self, span: Tensor, local: Tensor) -> Tensor:
        """Functions (k, n, m) from the local B-splines."""
        k, rows = self.shape
        table = local.new_zeros((k, span.shape[1], rows))
        places = span[:, :, None] + self.before
        return table.scatter_(2, places, local) @ self.transform
