"""Calibrated probabilities of a classification network, from rows left out one at a time.

A row is left out by one Newton step from the solution for all rows (Rad, Maleki 2020), in all
parameters or in the coefficients alone. One factor on the logits then makes the left-out classes
most likely (Guo, Pleiss, Sun, Weinberger 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skpou.core.linalg import add_gram, factored, row_blocks, rows_within, symmetric

#: Factors on the logits that are tried. Below 1 / 20 next to nothing is left of them; above 4 few
#: rows would make too sure of classes that are well apart.
LEAST_FACTOR, MOST_FACTOR, N_FACTORS = 0.05, 4.0, 89
#: Standard deviation of the factor's logarithm before any row has been seen.
DEVIATION = 0.5
#: Numbers of a Jacobian that are formed at a time.
JACOBIAN_NUMBERS = 8_000_000
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
    """Logits (k, K) of some rows by the model of all others.

    With J a row's Jacobian, ``W = w (diag(pi) - pi pi')`` its curvature, ``g = w (pi - t)`` its
    pull and H the Hessian of all rows, the logits move by ``A (I - W A)^-1 g``, ``A = J H^-1 J'``.

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
    eye = torch.eye(K, dtype=logits.dtype, device=logits.device)
    moved = []
    for block in blocks:
        part = torch.nonzero(left_out[block]).squeeze(1)
        if not len(part):
            continue
        J, p = jacobian(block)[part], pi[block][part]
        w, t = weight[block][part, None], targets[block][part]
        inner = torch.linalg.solve_triangular(factor, J.reshape(-1, q).T, upper=False)
        inner = inner.T.reshape(len(part), K, q)
        A = inner @ inner.mT
        W = w[:, :, None] * (torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
        pulled = torch.linalg.solve((1 + ROUND_OFF) * eye - W @ A, (w * (p - t))[:, :, None])
        moved.append(logits[block][part] + (A @ pulled)[:, :, 0])
    return torch.cat(moved)


def best_factor(
    logits: Tensor, offset: Tensor, targets: Tensor, weight: Tensor
) -> tuple[float, float]:
    """Factor on what logits add to an offset, and the mean negative log likelihood with it.

    Parameters
    ----------
    logits : Tensor of shape (n, K)
        Of rows that the model does not know.
    offset : Tensor of shape (K,)
        Logits of the classes' shares.
    targets : Tensor of shape (n, K)
        Shares of the classes.
    weight : Tensor of shape (n,)
    """
    device = logits.device
    logs = torch.linspace(0, 1, N_FACTORS, dtype=logits.dtype, device=device)
    factors = LEAST_FACTOR * (MOST_FACTOR / LEAST_FACTOR) ** logs
    own = weight[:, None] * targets
    beyond = torch.nan_to_num(logits - offset)
    losses = [-float((own * torch.log_softmax(offset + f * beyond, 1)).sum()) for f in factors]
    prior = 0.5 * (factors.log() / DEVIATION).square()
    best = min(range(N_FACTORS), key=lambda i: losses[i] + float(prior[i]))
    return float(factors[best]), losses[best] / float(weight.sum())
