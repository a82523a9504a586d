"""Sums over rows: the one place where rows are added up.

Everything that training needs from the rows of a least-squares problem is a triangular factor.
Factors of blocks combine into the factor of all rows, so the number of rows is bounded by
neither memory nor a batch, nor by one process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import processes

#: Rows for each column of a block that is factored: combining adds a quarter of its cost, then.
LENGTH = 4
#: Most rows of a block, in units of its columns: longer ones save little, and pad more.
LONGEST_BLOCK = 4
#: Numbers of a block of rows that are held at a time, 16 MB of float64: about what a processor's
#: cache holds, and so many that calls of operations cost nothing beside what they do.
BLOCK_NUMBERS = 2_000_000
#: Copies of a block's columns that are held: of its values the columns, what they are made of, and
#: their products with coefficients or a factor; of its sums the weighted columns, too.
COPIES_EVALUATED, COPIES_SUMMED = 3, 4


def triangular_factors(A: Tensor, labels: Tensor, n_segments: int) -> Tensor:
    """Triangular factor of each segment of rows, ``R_s' R_s = A_s' A_s``.

    Rows are cut into equal blocks, padded with zero rows, factored in one batch, and the
    factors of a segment combined in turn (tall and skinny QR).

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Rows of all segments.
    labels : Tensor of shape (n,), int64
        Segment of each row.
    n_segments : int
        Number S of segments; segments without rows get a zero factor.

    Returns
    -------
    Tensor of shape (S, p, p)
        Upper triangular; the sign of a row is arbitrary.
    """
    p = A.shape[1]
    if n_segments == 1 and len(A) < p:
        return triangular_factor(A)[None]  # Padded to a block it would cost as much as p rows.
    while True:
        counts = torch.bincount(labels, minlength=n_segments)
        largest = int(counts.max()) if len(labels) else 0
        rows = p * min(max(-(-largest // p), 1), LONGEST_BLOCK)
        blocks, block_labels = _padded_blocks(A, labels, counts, rows)
        factors = triangular_factor(blocks)
        if largest <= rows:
            result = torch.zeros((n_segments, p, p), dtype=A.dtype, device=A.device)
            result[block_labels] = factors
            return result
        A = factors.reshape(-1, p)
        labels = block_labels.repeat_interleave(p)


def _padded_blocks(A: Tensor, labels: Tensor, counts: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Cut each segment into blocks (b, rows, p); also returns the segment of each block."""
    order = torch.argsort(labels, stable=True)
    n_blocks = (counts + rows - 1).div(rows, rounding_mode="floor")
    segment_start = counts.cumsum(0) - counts
    block_start = n_blocks.cumsum(0) - n_blocks
    sorted_labels = labels[order]
    rank = torch.arange(len(A), device=A.device) - segment_start[sorted_labels]
    total = int(n_blocks.sum())
    blocks = torch.zeros((total * rows, A.shape[1]), dtype=A.dtype, device=A.device)
    blocks[block_start[sorted_labels] * rows + rank] = A[order]
    block_labels = torch.repeat_interleave(
        torch.arange(len(counts), device=A.device), n_blocks, output_size=total
    )
    return blocks.reshape(total, rows, A.shape[1]), block_labels


def weighted_factors(A: Tensor, weight: Tensor) -> Tensor:
    """Triangular factor of the same rows under each of several weights, ``R' R = A' W_s A``.

    Blocks of rows are factored in one batch for all weights and combined in turn.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Rows.
    weight : Tensor of shape (n, S)
        Non-negative weights.

    Returns
    -------
    Tensor of shape (S, p, p)
    """
    n, p = A.shape
    S = weight.shape[1]
    factors = A.new_zeros((S, 0, p))
    for block in long_blocks(n, p, S * p):
        stacked = weight[block].T.sqrt()[..., None] * A[block]
        factors = triangular_factor(torch.cat([factors, stacked], 1))
    return factors


def triangular_factor(A: Tensor) -> Tensor:
    """Upper triangular factors (..., p, p) of matrices (..., n, p), square if rows are few, too."""
    n, p = A.shape[-2:]
    R = torch.linalg.qr(A, mode="r").R
    if n < p:
        R = torch.cat([R, R.new_zeros((*R.shape[:-2], p - n, p))], dim=-2)
    return R


def evenly(n: int, most: int) -> slice:
    """Every k-th of n rows, the first of them, such that they are at most `most`."""
    return slice(None, None, max(1, -(-n // most)))


def row_blocks(n_rows: int, batch_size: int) -> list[slice]:
    """Consecutive slices of at most `batch_size` rows; one, which is empty, of no rows."""
    starts = range(0, max(n_rows, 1), batch_size)
    return [slice(start, min(start + batch_size, n_rows)) for start in starts]


def rows_within(n_numbers: int, budget: int = BLOCK_NUMBERS) -> int:
    """Rows a block such that `n_numbers` numbers a row stay below `budget` numbers in all."""
    return max(1, budget // max(n_numbers, 1))


def long_blocks(n_rows: int, n_columns: int, n_numbers: int) -> list[slice]:
    """Blocks for factors that are combined, which costs as much as `n_columns` rows more each.

    Parameters
    ----------
    n_rows, n_columns : int
        Of the matrix; blocks are at least `LENGTH` times as long as wide.
    n_numbers : int
        Numbers a row that are held at a time, see `rows_within`.
    """
    return row_blocks(n_rows, max(rows_within(n_numbers), LENGTH * n_columns))


@dataclass
class RowSums:
    """What the rows of a least-squares problem add up to, whichever blocks they come in.

    The rows are ``[A, y]``, those of the columns with the constant first, then the targets. Of
    their triangular factor normal equations are the square: it keeps the digits that these lose.

    Attributes
    ----------
    factor : Tensor of shape (p + m, p + m)
        Upper triangular, ``R' R = [A, y]' W [A, y]``.
    n_columns : int
        Number p of columns.
    total : float
        Sum of the weights.
    count : int
        Number of rows of positive weight.
    low, high : Tensor of shape (m,)
        Smallest and largest target.
    """

    factor: Tensor
    n_columns: int
    total: float
    count: int
    low: Tensor
    high: Tensor

    @classmethod
    def empty(cls, n_columns: int, n_outputs: int, like: Tensor) -> RowSums:
        """Sums over no rows, in float64, on the device of `like`."""
        k = n_columns + n_outputs
        edge = like.new_full((n_outputs,), torch.inf, dtype=torch.float64)
        factor = like.new_zeros((k, k), dtype=torch.float64)
        return cls(factor, n_columns, 0.0, 0, edge, -edge)

    def add(self, A: Tensor, y: Tensor, weight: Tensor) -> None:
        """Add rows of columns (n, p) and targets (n, m) with weights (n,)."""
        kept = weight > 0
        self.total += float(weight.sum())
        self.count += int(kept.sum())
        if not bool(kept.any()):
            return
        self.low = torch.minimum(self.low, y[kept].amin(0))
        self.high = torch.maximum(self.high, y[kept].amax(0))
        rows = torch.cat([A, y], 1) * weight.sqrt()[:, None]
        for block in long_blocks(len(rows), rows.shape[1], rows.shape[1]):
            self.factor = triangular_factor(torch.cat([self.factor, rows[block]]))

    def merge(self, other: RowSums) -> None:
        """Add the rows of other sums."""
        self.factor = triangular_factor(torch.cat([self.factor, other.factor]))
        self.total += other.total
        self.count += other.count
        self.low = torch.minimum(self.low, other.low)
        self.high = torch.maximum(self.high, other.high)

    @property
    def columns(self) -> Tensor:
        """Columns (p + m, p) of as many rows as stand for all."""
        return self.factor[:, : self.n_columns]

    def mean(self) -> Tensor:
        """Weighted mean (m,) of the targets."""
        return self.factor[0, self.n_columns :] / self.factor[0, 0]

    def rms(self) -> Tensor:
        """Weighted rms deviation (m,) of the targets from their means."""
        # Behind the first row there is what the constant leaves over. Its squares may overflow.
        rest = self.factor[1:, self.n_columns :]
        size = rest.abs().amax(0)
        size = torch.where(size > 0, size, 1.0)
        return torch.linalg.vector_norm(rest / size, dim=0) * (size / self.total**0.5)

    def targets(self, mean: Tensor, scale: Tensor) -> Tensor:
        """Targets (p + m, m) ``(y - mean) / scale`` of the rows that stand for all."""
        return (self.factor[:, self.n_columns :] - self.factor[:, :1] * mean) / scale

    def of_all_processes(self) -> RowSums:
        """Sums over the rows of all processes of a group, the same bits on each."""
        if processes.count() == 1:
            return self
        edges = torch.stack([self.low, self.high])
        sizes = processes.gather_objects((self.total, self.count))
        factors, all_edges = processes.gather(self.factor), processes.gather(edges)
        parts = [
            RowSums(factor, self.n_columns, total, count, edge[0], edge[1])
            for factor, edge, (total, count) in zip(factors, all_edges, sizes, strict=True)
        ]
        for part in parts[1:]:
            parts[0].merge(part)
        return parts[0]

    def arrays(self) -> dict[str, Any]:
        """State as numbers and numpy arrays."""
        tensors = {"factor": self.factor, "low": self.low, "high": self.high}
        return {
            "n_columns": self.n_columns,
            "total": self.total,
            "count": self.count,
            **{name: value.cpu().contiguous().numpy() for name, value in tensors.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> RowSums:
        """Rebuild from `arrays`, on the device of `like`."""
        factor, low, high = (
            torch.tensor(np.asarray(arrays[name]), device=like.device)
            for name in ("factor", "low", "high")
        )
        numbers = (int(arrays["n_columns"]), float(arrays["total"]), int(arrays["count"]))
        return cls(factor, *numbers, low, high)
