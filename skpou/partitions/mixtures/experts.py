"""Polynomial experts of every level for given gates: ridge, noise and posterior factor."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import (
    back_substitute,
    effective_parameters,
    evidence_ridge,
    ridge_factor,
    split_factor,
    triangular_factors,
    weighted_factors,
)
from skpou.partitions.gates.tree import PartitionTree
from skpou.partitions.mixtures.mixture import Experts
from skpou.partitions.pieces.problem import PieceProblem, Pieces
from skpou.partitions.pieces.spaces import POLYNOMIAL

#: Least part of a row that is its own, and least weight of a partition, when noise is estimated.
LEAST_FREE, LEAST_MASS = 1e-3, 1e-12


def refit_by_gates(problem: PieceProblem, pieces: Pieces, tree: PartitionTree) -> Pieces:
    """Pieces as the gates cut them: the labels follow the gates, not the residuals.

    Where a gate misplaces samples so that the fit gets worse than noise can explain, the
    pieces stay as they were.
    """
    chosen = tree.log_proba(problem.rows.X, harden=True).argmax(1)
    if bool((chosen == pieces.labels).all()):
        return pieces
    refitted = problem.fit(chosen, pieces.n_pieces)
    allowed = 2 * float(pieces.rss.sum()) + problem.exact_rss
    starved = bool((refitted.count < problem.n_columns + 2).any())
    if float(refitted.rss.sum()) <= allowed and not starved:
        return refitted
    return pieces


def gates_follow(problem: PieceProblem, labels: Tensor, tree: PartitionTree) -> bool:
    """Whether the experts of some pieces, chosen by the gates, leave hardly more residual."""
    pieces = problem.fit(labels, tree.levels[-1].n_partitions)
    chosen = tree.log_proba(problem.rows.X, harden=True).argmax(1)
    mean = torch.einsum("np,npm->nm", problem.polynomials, pieces.coef[chosen])
    square = (problem.rows.weight * (problem.rows.y - mean).square().mean(1)).sum()
    allowed = 2 * float(pieces.rss.sum()) + problem.exact_rss
    return float(square) <= allowed


def fit_level_experts(
    problem: PieceProblem,
    tree: PartitionTree,
    labels: Tensor,
    first_blended: int,
    alpha: float | None,
) -> tuple[list[Experts], float]:
    """Experts of every level; coarse ones are the restrictions of Eq. 36.

    For sharp gates the posterior weights of Eqs. 34 and 35 are indicators of the pieces; those of
    a soft level add up, as those of the finest do, and are solved for at once.

    Parameters
    ----------
    labels : Tensor of shape (n,), int64
        Partition of each sample on the last level that is not blended; 0 if all are.
    first_blended : int
        First blended level; the number of levels if none is.
    alpha : float or None
        Ridge relative to the largest column norm; None: by the log evidence of the leaves.

    Returns
    -------
    experts : list of Experts
        The coarsest level first.
    alpha : float
        The ridge used.
    """
    n_levels = len(tree.levels)
    if first_blended == n_levels:
        pieces = problem.fit(labels, tree.levels[-1].n_partitions)
        leaves, alpha = _piece_experts(problem, pieces, alpha)
    else:
        leaves, alpha = _blended_experts(problem, tree, labels, first_blended, alpha)
    experts = [leaves]
    for depth in reversed(range(n_levels - 1)):
        n_nodes = tree.levels[depth].n_partitions
        if depth < first_blended:
            node = labels
            for gate in reversed(tree.levels[depth + 1 : first_blended]):
                node = gate.parent[node]
            experts.insert(0, _piece_experts(problem, problem.fit(node, n_nodes), alpha)[0])
        else:
            coarse = PartitionTree(problem.d, tree.levels[: depth + 1])
            experts.insert(0, _blended_experts(problem, coarse, labels, first_blended, alpha)[0])
    return experts, alpha


def fit_experts_to_gates(
    rows: Rows,
    tree: PartitionTree,
    degree: int,
    alpha: float | None,
    first_blended: int,
    space: str = POLYNOMIAL,
) -> tuple[list[Experts], float]:
    """New experts of every level for gates that stay, by one joint least-squares solve.

    Sharp gates make the joint problem fall apart into one for each piece, or for each blend.

    Parameters
    ----------
    rows : Rows
        Distinct samples in the gates' box.
    alpha : float or None
        Ridge relative to the largest column norm; None: by log evidence.
    first_blended : int
        First blended level; the number of levels if none is.
    space : str, default="polynomial"
        Space that they come from.

    Returns
    -------
    experts : list of Experts
        The coarsest level first.
    alpha : float
        The ridge used.
    """
    problem = PieceProblem(rows, degree, space=space)
    labels = torch.zeros(problem.n, dtype=torch.int64, device=rows.X.device)
    if first_blended:
        labels = tree.log_proba(rows.X, first_blended - 1, harden=True).argmax(1)
    return fit_level_experts(problem, tree, labels, first_blended, alpha)


def _round_off(noise: Tensor, problem: PieceProblem) -> Tensor:
    """Noise that is at least round-off of the targets, so that a perfect fit has a width."""
    if problem.n == 1 and not bool(problem.rows.within.any()):
        # One target says nothing about noise: its own size stands for it.
        return torch.ones_like(noise)
    return noise + torch.finfo(noise.dtype).eps ** 2


def _piece_experts(
    problem: PieceProblem, pieces: Pieces, alpha: float | None
) -> tuple[Experts, float]:
    """Experts of sharp pieces: Eqs. 17, 36 and 37 with indicator weights, noise by Eq. 18."""
    shape = (pieces.n_pieces, problem.rows.n_outputs)
    within = torch.zeros(shape, dtype=pieces.rss.dtype, device=pieces.rss.device)
    within.index_add_(0, pieces.labels, problem.rows.within)
    return _ridged(problem, pieces.factors, pieces.weight, within, alpha)


def _ridged(
    problem: PieceProblem, factors: Tensor, weight: Tensor, within: Tensor, alpha: float | None
) -> tuple[Experts, float]:
    """Solution for a ridge, or for that of largest log evidence."""
    if alpha is None and problem.n == 1:
        alpha = 0.0  # The evidence of a single sample is flat.
    elif alpha is None:
        alpha, _ = evidence_ridge(factors, problem.n_columns, weight, problem.least_noise)
    return _solve(problem, factors, weight, within, alpha), alpha


def _solve(
    problem: PieceProblem, factors: Tensor, weight: Tensor, within: Tensor, alpha: float
) -> Experts:
    """Ridge solution, noise and posterior factor from triangular factors of ``[A, y]``."""
    P = problem.n_columns
    # A ridge at round-off keeps the coefficients determined whatever was asked for.
    alpha = max(alpha, torch.finfo(factors.dtype).eps)
    R, projected, rss = split_factor(ridge_factor(factors, P, alpha), P)
    freedom = weight - effective_parameters(factors[:, :P, :P], R)
    noise = (rss + within) / freedom.clamp_min(1)[:, None]  # Eq. 18
    return Experts(back_substitute(R, projected), R, _round_off(noise, problem))


def experts_of_factors(
    problem: PieceProblem, factors: Tensor, weight: Tensor, alpha: float | None
) -> tuple[Experts, float]:
    """Experts from sums over rows that are not at hand, and their ridge, see `soft_experts`.

    `factors` (N, P + m, P + m) are those of the weighted functions and targets of all rows, and
    `weight` (N,) is that of each partition; the problem has some of the rows.
    """
    within = factors.new_zeros((len(factors), factors.shape[1] - problem.n_columns))
    return _ridged(problem, factors, weight, within, alpha)


def soft_experts(
    problem: PieceProblem, share: Tensor, alpha: float | None
) -> tuple[Experts, float]:
    """Experts of a soft level by Eqs. 17, 36 and 37, noise by Eq. 18, and the ridge.

    `share` (n, N) is the part of each sample that a partition takes: its posterior or its pi. The
    ridge is relative to the largest column norm; None: by log evidence.
    """
    factors = weighted_factors(problem.weighted, share)
    weight, within = share.T @ problem.rows.weight, share.T @ problem.rows.within
    return _ridged(problem, factors, weight, within, alpha)


def _blended_experts(
    problem: PieceProblem,
    tree: PartitionTree,
    labels: Tensor,
    first_blended: int,
    alpha: float | None,
) -> tuple[Experts, float]:
    """Joint ridge solution of the experts of every blend, and one ridge for all."""
    ancestor = tree.ancestors(first_blended)
    blends = [
        _BlendSolve(problem, tree, first_blended, ancestor == g, labels == g)
        for g in range(int(ancestor.max()) + 1)
    ]
    if alpha is None:
        ridges = [blend.evidence_ridge() for blend in blends]
        alpha = min(ridges)
    P, m = problem.n_columns, problem.rows.n_outputs
    widest = max(blend.n_columns for blend in blends)
    like = problem.polynomials
    factor = torch.eye(widest, dtype=like.dtype, device=like.device).repeat(len(blends), 1, 1)
    coef, noise = like.new_zeros((len(ancestor), P, m)), like.new_zeros((len(ancestor), m))
    for g, blend in enumerate(blends):
        solution, R = blend.solve(alpha)
        coef[blend.solved] = solution.reshape(-1, P, m)
        factor[g, : blend.n_columns, : blend.n_columns] = R
        noise[blend.leaves] = blend.noise(solution, R)
    return Experts(coef, factor, _round_off(noise, problem)), alpha


class _BlendSolve:
    """The joint least-squares problem of one blend's experts."""

    def __init__(
        self,
        problem: PieceProblem,
        tree: PartitionTree,
        first_blended: int,
        is_leaf: Tensor,
        is_member: Tensor,
    ):
        self.problem = problem
        self.leaves = torch.nonzero(is_leaf).squeeze(1)
        self.members = torch.nonzero(is_member).squeeze(1)
        below = tree.log_below(problem.rows.X[self.members], first_blended)
        self.pi = below[:, self.leaves].exp()
        phi = problem.polynomials[self.members]
        # Empty partitions at the end have no columns: their polynomials stay zero.
        used = torch.nonzero((self.pi > 0).any(0)).squeeze(1)
        self.solved = self.leaves[: max(used.tolist(), default=0) + 1]
        self.n_columns = len(self.solved) * problem.n_columns
        pi = self.pi[:, : len(self.solved), None]
        self.A = (pi * phi[:, None]).reshape(len(phi), self.n_columns)
        self.weight = problem.rows.weight[self.members]
        root = self.weight.sqrt()[:, None]
        stack = torch.cat([self.A * root, problem.rows.y[self.members] * root], 1)
        zeros = torch.zeros(len(stack), dtype=torch.int64, device=stack.device)
        self.factor = triangular_factors(stack, zeros, 1)

    def evidence_ridge(self) -> float:
        """Ridge of largest log evidence of this blend alone."""
        total = self.weight.sum()[None]
        return evidence_ridge(self.factor, self.n_columns, total, self.problem.least_noise)[0]

    def solve(self, alpha: float) -> tuple[Tensor, Tensor]:
        """Coefficients (K P, m) and posterior factor (K P, K P)."""
        alpha = max(alpha, torch.finfo(self.A.dtype).eps)
        ridged = ridge_factor(self.factor, self.n_columns, alpha)
        R, projected, _ = split_factor(ridged, self.n_columns)
        return back_substitute(R, projected)[0], R[0]

    def noise(self, coef: Tensor, R: Tensor) -> Tensor:
        """Noise variances (K, m): Eq. 18 with partitions as weights and left-out residuals."""
        rows = self.problem.rows
        reduced = torch.linalg.solve_triangular(R.T, self.A.T, upper=False)
        leverage = self.weight * reduced.square().sum(0)
        residual = rows.y[self.members] - self.A @ coef
        left_out = residual / (1 - leverage).clamp_min(LEAST_FREE)[:, None]
        square = self.weight[:, None] * left_out.square() + rows.within[self.members]
        mass = self.pi.T @ self.weight
        everywhere = square.sum(0) / self.weight.sum().clamp_min(1)
        local = (self.pi.T @ square) / mass.clamp_min(LEAST_MASS)[:, None]
        return torch.where(mass[:, None] > 1, local, everywhere)
