"""Soft pieces within soft pieces: coarse ones first, their children inside each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from skpou.partitions.blends.blends import Blend, BlendOptions, BlendTrainer
from skpou.partitions.blends.ladder import EXACT, fit_ladder
from skpou.partitions.gates.tree import coordinate_columns, log_softmax_among_siblings
from skpou.partitions.pieces.problem import PieceProblem

#: Differences of neighbouring children's logits, over a standard deviation of what their parent
#: takes: wide children begin as nearly the same, narrow ones apart.
TILTS = (0.3, 3.0)
#: Factor by which children inside coarse partitions of their own may err above those of gates that
#: are all moved at once.
AS_GOOD = 3


def fit_tree(
    problem: PieceProblem,
    index: Tensor,
    nodes: list[Tensor],
    parents: list[Tensor],
    options: BlendOptions,
    sizes: tuple[int, ...],
) -> Blend:
    """Blend of a tree that was asked for.

    Coarse gates are placed where a fit of as many pieces has them, and their children inside each,
    if the leaves then err hardly more than those of gates that are all moved at once.

    Parameters
    ----------
    index : Tensor of shape (n_g,), int64
        Samples of the part.
    nodes : list of Tensor of shape (n_g,), int64
        Node of each sample of the part on every level.
    parents : list of Tensor of shape (N_l,), int64
        Tree.
    sizes : tuple of int
        Most children of each node, level by level.
    """
    blend = _nested(problem, index, nodes[-1], options, sizes)
    size = float(problem.rows.y[index].square().mean()) ** 0.5
    if blend.result.score <= EXACT * size:
        return blend
    at_once = BlendTrainer(problem, index, options).train(nodes, parents)
    return blend if blend.result.score <= AS_GOOD * at_once.result.score else at_once


def _nested(
    problem: PieceProblem,
    index: Tensor,
    labels: Tensor,
    options: BlendOptions,
    sizes: tuple[int, ...],
) -> Blend:
    """Levels one after the other: the gates that were found stay, those of their children move.

    The coarsest level is fitted as if there were no other.
    """
    blend = fit_ladder(problem, index, labels, options, sizes[:1])
    X = problem.rows.X[index]
    features = options.form.basis(problem.d).matrix(X)
    for most in sizes[1:]:
        parent = torch.arange(blend.n_leaves, device=X.device).repeat_interleave(most)
        trainer = BlendTrainer(problem, index, options, blend.theta)
        starts = _children(_shares(blend, features), X, options, most)
        blend = trainer.follow(starts, [*blend.parents, parent])
    return blend


def _shares(blend: Blend, features: Tensor) -> Tensor:
    """Leaves' partitions (n, N) at some gate features (n, q)."""
    log_pi = torch.zeros_like(features[:, :1])
    for theta, parent in zip(blend.theta, blend.parents, strict=True):
        log_pi = log_pi[:, parent] + log_softmax_among_siblings(features @ theta.T, parent)
    return log_pi.exp()


def _children(share: Tensor, X: Tensor, options: BlendOptions, most: int) -> Iterator[Tensor]:
    """Coefficients (flat) of the children's logits for each tilt: side by side in each partition.

    Their centres are quantiles of the column along which the partition (n, N) is longest.
    """
    columns = coordinate_columns(options.form.basis(X.shape[1]))
    n_columns = options.form.basis(X.shape[1]).n_columns
    position = 2 * X - 1
    total = share.sum(0)
    mean = share.T @ position / total[:, None]
    spread = (share.T @ position.square() / total[:, None] - mean.square()).clamp_min(0)
    longest = spread.argmax(1)
    ranks = (torch.arange(most, dtype=X.dtype, device=X.device) + 0.5) / most
    for tilt in TILTS:
        theta = X.new_zeros((share.shape[1], most, n_columns))
        for k, column in enumerate(longest.tolist()):
            order = torch.argsort(position[:, column], stable=True)
            below = torch.cumsum(share[order, k], 0) / total[k]
            at = torch.searchsorted(below, ranks).clamp_max(len(X) - 1)
            centre = position[order, column][at]
            scale = tilt / spread[k, column].clamp_min(torch.finfo(X.dtype).eps)
            theta[k, :, columns[column]] = scale * centre
            theta[k, :, 0] = -0.5 * scale * centre.square()
        yield theta.reshape(-1)
