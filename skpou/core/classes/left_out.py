"""Logits of rows by the model of all others, from one Newton step (Rad, Maleki 2020).

In all parameters, or in the coefficients alone; no refits. A row of weight 3 is three observations,
of which one is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skpou.core.linalg import add_gram, factored, row_blocks, rows_within, solve_each, symmetric
from skpou.core.optim import JACOBIAN_NUMBERS, DenseRows, hessian

#: Ridge, relative to one, that keeps a row that alone determines a parameter from leaving nothing.
ROUND_OFF = 1e-9


def left_out_logits(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor,
    jacobian: Callable[[slice], Tensor],
    ridge: Tensor,
    some: Tensor,
) -> Tensor:
    """Logits (k, K) of some rows by the model of all other observations.

    With J a row's Jacobian, ``W = diag(pi) - pi pi'`` its curvature, ``g = pi - t`` its pull and H
    the Hessian of all rows, the logits move by ``A (I - W A)^-1 g``, ``A = J H^-1 J'``.

    Parameters
    ----------
    logits : Tensor of shape (n, K)
        By the model of all rows.
    targets : Tensor of shape (n, K)
        Shares of the classes.
    weight : Tensor of shape (n,)
    jacobian : callable
        Derivatives (k, K, q) of the logits of some rows by the parameters.
    ridge : Tensor of shape (q,)
        Ridge of every parameter.
    some : Tensor of shape (k,), int64
        Rows to leave out, in their order.
    """
    n, K = logits.shape
    fits = n * K * len(ridge) <= JACOBIAN_NUMBERS
    if n * K < len(ridge) and fits and bool((ridge > 0).all()):
        jacobian, ridge = _in_their_span(jacobian(slice(0, n)), ridge)
    q = len(ridge)
    pi = torch.softmax(logits, 1)
    H = logits.new_zeros((q, q))
    left_out = torch.zeros(n, dtype=torch.bool, device=logits.device)
    left_out[some] = True
    blocks = row_blocks(n, rows_within(K * q, JACOBIAN_NUMBERS))
    for block in blocks:
        J = jacobian(block)
        mean = torch.einsum("nk,nkq->nq", pi[block], J)
        share = (pi[block] * weight[block, None]).sqrt()
        add_gram(H, (share[:, :, None] * (J - mean[:, None])).reshape(-1, q))
    factor, _ = factored(symmetric(H) + ridge.diag(), 0.0)
    moved = []
    for block in blocks:
        part = torch.nonzero(left_out[block]).squeeze(1)
        if not len(part):
            continue
        inner = torch.linalg.solve_triangular(
            factor, jacobian(block)[part].reshape(-1, q).T, upper=False
        )
        inner = inner.T.reshape(len(part), K, q)
        own = logits[block][part], targets[block][part], weight[block][part]
        moved.append(_without_themselves(*own, inner @ inner.mT))
    return torch.cat(moved)


def _in_their_span(J: Tensor, ridge: Tensor) -> tuple[Callable[[slice], Tensor], Tensor]:
    """Derivatives (k, K, n K) by as many parameters as there are logits, and their ridge, ones.

    Parameters in units of their ridge, turned so that the logits depend on no others: ``J H^-1 J'``
    is the same.
    """
    n, K, q = J.shape
    turned = torch.linalg.qr((J.reshape(n * K, q) / ridge.sqrt()).T, mode="r").R.T
    rows = turned.reshape(n, K, n * K)
    return lambda block: rows[block], ridge.new_ones(n * K)


def left_out_of_columns(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor,
    columns: Tensor,
    ridge: Tensor,
    some: Tensor | None = None,
) -> Tensor:
    """The same for logits that are linear in columns.

    Parameters
    ----------
    logits, targets, weight : Tensor
        As in `left_out_logits`.
    columns : Tensor of shape (n, p)
    ridge : Tensor of shape (p,)
        Ridge of the coefficients of every column, the same for all classes.
    some : Tensor of shape (k,), int64, default=None
        Rows to leave out; None: all.
    """
    K, p = logits.shape[1], columns.shape[1]
    H = hessian(DenseRows(columns, weight.sqrt()[:, None]), torch.softmax(logits, 1))
    H.diagonal().add_(ridge.repeat(K))
    factor, _ = factored(H, 0.0)
    inverse = torch.cholesky_inverse(factor).view(K, p, K, p)
    if some is not None:
        logits, targets, weight, columns = (
            part[some] for part in (logits, targets, weight, columns)
        )
    A = logits.new_empty((len(logits), K, K))
    for k in range(K):
        for other in range(k + 1):
            A[:, k, other] = ((columns @ inverse[k, :, other]) * columns).sum(1)
            A[:, other, k] = A[:, k, other]
    return _without_themselves(logits, targets, weight, A)


def _without_themselves(logits: Tensor, targets: Tensor, weight: Tensor, A: Tensor) -> Tensor:
    """Logits (k, K) after the step that leaves each row out, A (k, K, K) its ``J H^-1 J'``."""
    pi, w = torch.softmax(logits, 1), weight.clamp_max(1.0)[:, None]
    W = w[:, :, None] * (torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :])
    eye = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    pulled = solve_each((1 + ROUND_OFF) * eye - W @ A, (w * (pi - targets))[:, :, None])
    return logits + (A @ pulled)[:, :, 0]
