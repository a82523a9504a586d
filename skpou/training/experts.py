"""Polynomial experts of every level for given gates: ridge, noise and posterior factor."""

from __future__ import annotations

import torch

from skpou.bases.partitions import PartitionTree
from skpou.solvers.least_squares import (
    back_substitute,
    effective_parameters,
    evidence_ridge,
    ridge_factor,
    split_factor,
)
from skpou.training.discovery import PieceProblem, Pieces
from skpou.training.mixture import Experts
from skpou.training.rows import Rows


def refit_by_gates(problem: PieceProblem, pieces: Pieces, tree: PartitionTree) -> Pieces:
    """Pieces as the gates cut them: the labels follow the gates, not the residuals.

    Where a gate misplaces samples so that the fit gets worse than noise can explain, only the
    samples on which gate and label agree determine the experts.
    """
    chosen = tree.log_proba(problem.rows.X, harden=True).argmax(1)
    if bool((chosen == pieces.labels).all()):
        return pieces
    refitted = problem.fit(chosen, pieces.n_pieces)
    allowed = 2 * float(pieces.rss.sum()) + problem.n * (10 * problem.floor) ** 2
    starved = bool((refitted.count < problem.n_columns + 2).any())
    if float(refitted.rss.sum()) <= allowed and not starved:
        return refitted
    return pieces


def fit_level_experts(
    problem: PieceProblem, tree: PartitionTree, pieces: Pieces, alpha: float | None
) -> tuple[list[Experts], float]:
    """Experts of every level; coarse ones are the restrictions of Eq. 36.

    For sharp gates the posterior weights of Eqs. 34 and 35 are indicators of the pieces.

    Parameters
    ----------
    problem : PieceProblem
        Samples.
    tree : PartitionTree
        Gates.
    pieces : Pieces
        Labels of the leaves.
    alpha : float or None
        Ridge relative to the largest column norm; None: by the log evidence of the leaves.

    Returns
    -------
    experts : list of Experts
        The coarsest level first.
    alpha : float
        The ridge used.
    """
    leaves = pieces
    if alpha is None:
        alpha, _ = evidence_ridge(
            leaves.factors, problem.n_columns, leaves.weight, problem.floor / 10
        )
    labels = pieces.labels
    experts = [_experts(problem, leaves, alpha)]
    for level in reversed(tree.levels[1:]):
        labels = level.parent[labels]
        n_parents = int(level.parent.max()) + 1
        experts.insert(0, _experts(problem, problem.fit(labels, n_parents), alpha))
    return experts, alpha


def _experts(problem: PieceProblem, pieces: Pieces, alpha: float) -> Experts:
    """Ridge solution (Eqs. 17, 36, 37), noise (Eq. 18) and posterior factor of every piece."""
    P = problem.n_columns
    ridged = ridge_factor(pieces.factors, P, alpha)
    R, projected, rss = split_factor(ridged, P)
    coef = back_substitute(R, projected)
    within = torch.zeros_like(rss).index_add_(0, pieces.labels, problem.rows.within)
    freedom = pieces.weight - effective_parameters(pieces.factors[:, :P, :P], R)
    noise = (rss + within) / freedom.clamp_min(1)[:, None]  # Eq. 18
    # Round-off of the targets themselves, so that a perfect fit still has a width.
    eps = torch.finfo(noise.dtype).eps
    noise = noise + eps**2
    if problem.n == 1:
        # One sample says nothing about noise: the target's own size stands for it.
        noise = torch.ones_like(noise)
    return Experts(coef, R, noise)


def experts_for_gates(
    rows: Rows, tree: PartitionTree, degree: int, alpha: float | None
) -> tuple[list[Experts], float]:
    """New experts of every level for gates that stay, by one least-squares solve.

    Sharp gates make the joint least-squares problem of all experts fall apart into one for
    each piece.

    Parameters
    ----------
    rows : Rows
        Distinct samples in the gates' box.
    tree : PartitionTree
        Gates.
    degree : int
        Total degree of the experts.
    alpha : float or None
        Ridge relative to the largest column norm; None: by log evidence.

    Returns
    -------
    experts : list of Experts
        The coarsest level first.
    alpha : float
        The ridge used.
    """
    problem = PieceProblem(rows, degree)
    labels = tree.log_proba(rows.X, harden=True).argmax(1)
    pieces = problem.fit(labels, tree.levels[-1].n_partitions)
    return fit_level_experts(problem, tree, pieces, alpha)
