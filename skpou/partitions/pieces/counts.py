"""Fewer pieces, where those beside them explain them at less than their price, or more pieces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.partitions.pieces.problem import PieceProblem, Pieces


def noise_variance(problem: PieceProblem, pieces: Pieces) -> float:
    """Weighted median of the pieces' squared errors, at least round-off."""
    order = torch.argsort(pieces.error, stable=True)
    total = pieces.weight[order].cumsum(0)
    middle = int(torch.searchsorted(total, 0.5 * total[-1]))
    return float(pieces.error[order[middle]]) ** 2 + problem.least_error**2


def dissolve(problem: PieceProblem, pieces: Pieces, least: int = 1) -> Pieces:
    """Remove pieces whose samples the neighbours' polynomials explain at less than their price.

    The price of a piece is that of the Bayesian information criterion, ``(P + q) log n``. No
    fewer than `least` pieces are left.
    """
    price = (problem.n_columns + problem.n_gate_columns) * math.log(problem.n)
    variance = noise_variance(problem, pieces)
    labels = pieces.labels.clone()
    n_alive = pieces.n_pieces
    P = problem.n_columns
    rss, weight = pieces.rss.tolist(), pieces.weight.tolist()
    # As long as nothing has changed around a piece; 0 of others: they are looked at again.
    costs = costs_without(problem, pieces)
    for j in torch.argsort(pieces.count, stable=True).tolist():
        if n_alive <= max(least, 1):
            break
        least_cost = variance * price + rss[j] * (1 + 2 * P / max(weight[j] - P, 1.0))
        if costs[j] >= least_cost:
            continue
        members = torch.nonzero(labels == j).squeeze(1)
        around = torch.unique(labels[problem.neighbours[members]])
        around = around[around != j]
        if not len(around):
            continue
        square = (
            problem.squared_residuals(pieces.coef, members, around.expand(len(members), -1))
            * (problem.rows.weight[members, None])
        )
        cost = float(square.amin(1).sum() + problem.rows.within[members].mean(1).sum())
        if cost < least_cost:
            moved = labels == j
            labels[members] = around[square.argmin(1)]
            n_alive -= 1
            touched = moved | moved[problem.neighbours].any(1)
            for k in torch.unique(labels[touched]).tolist():
                costs[k] = 0.0
    if n_alive == pieces.n_pieces:
        return pieces
    return problem.refit(pieces, labels)


def costs_without(problem: PieceProblem, pieces: Pieces) -> list[float]:
    """Residual (K,) of each piece's samples by the best of the pieces beside it, of all at once."""
    K, labels = pieces.n_pieces, pieces.labels
    beside = torch.zeros((K, K), dtype=torch.bool, device=labels.device)
    beside[labels[:, None].expand_as(problem.neighbours), labels[problem.neighbours]] = True
    beside.fill_diagonal_(False)
    most = int(beside.sum(1).max())
    if not most:
        return [math.inf] * K
    # The first ones of each are beside it; of the others the first is tried again.
    order = (~beside).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    order = torch.where(beside.gather(1, order), order, order[:, :1])
    everything = torch.arange(problem.n, device=labels.device)
    square = problem.squared_residuals(pieces.coef, everything, order[labels])
    each = square.amin(1) * problem.rows.weight + problem.rows.within.mean(1)
    costs = torch.zeros_like(pieces.rss).index_add_(0, labels, each)
    return costs.masked_fill(~beside.any(1), math.inf).tolist()


def split_pieces(
    problem: PieceProblem, pieces: Pieces, n_pieces: int, most: Tensor | None = None
) -> Pieces:
    """Halve the piece of largest misfit until there are enough.

    A piece is cut at the median of the coordinate along which it is longest.

    Parameters
    ----------
    n_pieces : int
        Number wanted; fewer remain where no piece has samples for two polynomials.
    most : Tensor of shape (K,), int64, default=None
        Most pieces that each of the K pieces is cut into; None: as many as there are samples for.
    """
    source = torch.arange(pieces.n_pieces, device=pieces.labels.device)
    while pieces.n_pieces < n_pieces:
        misfit = pieces.rss + pieces.weight * problem.floor**2
        misfit = torch.where(pieces.count >= 2 * problem.n_columns, misfit, -1.0)
        if most is not None:
            misfit = torch.where(torch.bincount(source)[source] < most[source], misfit, -1.0)
        piece = int(misfit.argmax())
        if misfit[piece] < 0:
            break
        labels = pieces.labels.clone()
        labels[_farther_half(problem, labels, piece)] = pieces.n_pieces
        pieces = problem.fit(labels, pieces.n_pieces + 1)
        source = torch.cat([source, source[piece, None]])
    return pieces


def _farther_half(problem: PieceProblem, labels: Tensor, piece: int) -> Tensor:
    """Samples of a piece in the upper half along its longest side."""
    members = torch.nonzero(labels == piece).squeeze(1)
    X = problem.rows.X[members]
    longest = int((X.amax(0) - X.amin(0)).argmax())
    order = torch.argsort(X[:, longest], stable=True)
    return members[order[len(members) // 2 :]]
