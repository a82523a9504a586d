"""Conjugate gradients for ridge regression, with a preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class LinearRows(Protocol):
    """Rows that can be multiplied from both sides."""

    def matmul(self, coef: Tensor) -> Tensor:
        """Products (n, m) with coefficients (p, m)."""
        ...

    def rmatmul(self, residual: Tensor) -> Tensor:
        """Products (p, m) of the transposed rows."""
        ...


def conjugate_gradients(
    rows: LinearRows,
    y: Tensor,
    penalty: Tensor,
    precondition: Callable[[Tensor], Tensor],
    coef: Tensor,
    *,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, int]:
    """Minimise ``|y - A c|^2 + c' diag(penalty) c``, each target by itself.

    The least-squares form of conjugate gradients (CGLS; Hestenes and Stiefel 1952): residuals
    are those of the rows, never of the normal equations' right-hand side. Steps along what is mere
    round-off may lead away without bound: the result is where the gradient was least.

    Parameters
    ----------
    rows : LinearRows
        The matrix A (n, p).
    y : Tensor of shape (n, m)
        Targets.
    penalty : Tensor of shape (p,)
        Non-negative.
    precondition : callable
        Approximates ``(A'A + diag(penalty))^-1 g`` for g (p, m); symmetric positive.
    coef : Tensor of shape (p, m)
        Start.
    tol : float
        Stop when the gradient, in the preconditioner's norm, has shrunk by this factor.

    Returns
    -------
    coef : Tensor of shape (p, m)
    n_iter : int
        Steps done.
    """
    c = coef.clone()
    pull = penalty[:, None]
    r = y - rows.matmul(c)
    s = rows.rmatmul(r) - pull * c
    z = precondition(s)
    p = z.clone()
    gamma = (s * z).sum(0)
    # Where the start is zero this is the whole gradient, else what the zero vector would have.
    right = rows.rmatmul(y) if bool((coef != 0).any()) else s
    target = tol**2 * (right * precondition(right)).sum(0)
    best, least = c.clone(), gamma
    for step in range(max_iter):
        if bool((gamma <= target).all()):
            return c, step
        q = rows.matmul(p)
        delta = q.square().sum(0) + (pull * p.square()).sum(0)
        length = torch.where(delta > 0, gamma / delta, 0.0)
        c += length * p
        r -= length * q
        s = rows.rmatmul(r) - pull * c
        z = precondition(s)
        following = (s * z).sum(0)
        p = z + torch.where(gamma > 0, following / gamma, 0.0) * p
        gamma = following
        best = torch.where(gamma < least, c, best)
        least = torch.minimum(gamma, least)
    return best, max_iter
