"""Sums over rows: the one place where rows are added up.

Everything that training needs from the rows of a least-squares problem is a triangular factor.
Factors of blocks combine into the factor of all rows, so the number of rows is bounded by
neither memory nor a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    while True:
        counts = torch.bincount(labels, minlength=n_segments)
        largest = int(counts.max()) if len(labels) else 0
        rows = p * min(max(-(-largest // p), 1), 4)
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
    # Blocks much longer than wide: combining costs p rows for each of them.
    rows = max(rows_within(S * p), 4 * p)
    factors = A.new_zeros((S, 0, p))
    for block in row_blocks(n, rows):
        stacked = weight[block].T.sqrt()[..., None] * A[block]
        factors = triangular_factor(torch.cat([factors, stacked], 1))
    return factors


def triangular_factor(A: Tensor) -> Tensor:
    """Upper triangular factor of a (batch of) matrices, square even when rows are few.

    Parameters
    ----------
    A : Tensor of shape (..., n, p)
        Matrices.

    Returns
    -------
    Tensor of shape (..., p, p)
    """
    n, p = A.shape[-2:]
    R = torch.linalg.qr(A, mode="r").R
    if n < p:
        R = torch.cat([R, R.new_zeros((*R.shape[:-2], p - n, p))], dim=-2)
    return R


def row_blocks(n_rows: int, batch_size: int) -> list[slice]:
    """Consecutive slices of at most `batch_size` rows.

    Parameters
    ----------
    n_rows : int
        Number of rows, at least 0.
    batch_size : int
        Rows a slice, at least 1.

    Returns
    -------
    list of slice
        At least one slice, empty when there are no rows.
    """
    starts = range(0, max(n_rows, 1), batch_size)
    return [slice(start, min(start + batch_size, n_rows)) for start in starts]


def rows_within(n_numbers: int, budget: int = 2_000_000) -> int:
    """Rows a block such that `n_numbers` numbers a row stay below `budget` numbers in all."""
    return max(1, budget // max(n_numbers, 1))
