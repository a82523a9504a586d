"""More pieces than the data ask for."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.partitions.pieces.problem import PieceProblem, Pieces


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
