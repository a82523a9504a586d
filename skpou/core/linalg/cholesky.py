"""Gram matrices, Cholesky factors of those that round-off may have made indefinite, batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.core.linalg.statistics import row_blocks

#: Below all that counts, with a finite inverse: keeps divisors and logarithms from zero.
TINY = 1e-300
#: Variance, relative to that of the targets, that is none: a deviation of 1e-10 may be round-off of
#: sums of numbers of order one.
NO_VARIANCE = 1e-20
#: Standard deviation of a column in the unit box that is none: what varies less is divided by this.
LEAST_SPREAD = 1e-12
#: Least ridge, relative to the largest column norm, for which a Gram matrix can be factored.
LEAST_ALPHA = 1e-6
#: Columns of a Gram matrix at a time: wide enough for full speed, little above the diagonal.
PANEL = 256
#: Factor of a ridge that was too small.
MORE_RIDGE = 10
#: Order of a system from which on a batch is solved one by one: factors of batches of larger ones
#: by several threads (torch with oneMKL, seen from 150 on) have pivots that are not valid.
LARGE_SYSTEM = 100


def largest_norm(squares: Tensor) -> float:
    """Largest column norm from the squares of all; 1 where all columns are zero."""
    return float(squares.max().sqrt()) or 1.0


def factored(matrix: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Cholesky factor of ``matrix + ridge I``, with more ridge where round-off asks for it.

    The factor of a matrix that is not finite is not finite, either.
    """
    while True:
        shifted = matrix.clone()
        shifted.diagonal().add_(ridge)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not int(info):
            return factor, ridge
        least = torch.finfo(matrix.dtype).eps * float(matrix.diagonal().abs().max())
        if not math.isfinite(ridge + least):
            return factor * math.nan, ridge
        ridge = max(MORE_RIDGE * ridge, least or 1.0)


def whitened_factor(lower: Tensor, growth: Tensor, strength: float) -> tuple[Tensor, float]:
    """Lower factor of ``D^-1/2 H D^-1/2 + r I``, and r: the ridge, or what round-off asks for.

    Of a Hessian H (k, k), of which the lower part is read, D the growth (k,) of its ridge, whose
    root is `strength` where the growth is 1.
    """
    root = growth.sqrt()
    return factored(lower / (root[:, None] * root), strength**2)


def symmetric(lower: Tensor) -> Tensor:
    """Symmetric matrix from its lower part."""
    full = torch.tril(lower)
    return full.add_(torch.tril(full, -1).T)


def gram_of(J: Tensor) -> Tensor:
    """``J'J``, for half the products where numpy sees that both factors are one matrix."""
    if J.device.type != "cpu" or J.requires_grad:
        return J.T @ J
    columns = J.numpy()
    return torch.from_numpy(columns.T @ columns)


def add_gram(total: Tensor, J: Tensor) -> None:
    """Add the lower part of ``J'J``, panel by panel."""
    for part in row_blocks(len(total), PANEL):
        total[part, : part.stop].addmm_(J[:, part].T, J[:, : part.stop])


def solve_each(A: Tensor, b: Tensor) -> Tensor:
    """``A^-1 b`` of a batch (..., n, n) and (..., n, k); on a processor large ones in turn."""
    if A.ndim == 2 or A.is_cuda or A.shape[-1] < LARGE_SYSTEM:
        return torch.linalg.solve(A, b)
    solved = [torch.linalg.solve(*pair) for pair in zip(A.flatten(0, -3), b.flatten(0, -3))]
    return torch.stack(solved).reshape(b.shape)
