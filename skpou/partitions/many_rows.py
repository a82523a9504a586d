"""Pieces that some of many rows have found, their experts told by the others, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from skpou.core import Blocks, Rows, TrainingResult, drawn_points, handing_over
from skpou.core.linalg import (
    COPIES_SUMMED,
    back_substitute,
    gather,
    long_blocks,
    split_factor,
    sum_of_all,
    triangular_factor,
    triangular_factors,
)
from skpou.core.models import is_exact
from skpou.partitions.mixtures.mixture import Experts, Mixture
from skpou.partitions.options import PieceOptions

#: Rows up to which all take part in the search for pieces of free number or degree, and how many
#: are drawn of more: every degree and number that is tried costs as much as there are rows.
MANY_ROWS, SEARCHED = 10_000, 5_000
#: Part of a group's rows that its parameters may take off: what few rows leave tells no noise.
MOST_TOLD = 0.5


def searched_points(rows: Rows, options: PieceOptions, of_more: bool = False) -> Tensor | None:
    """Mask (n,) of the points among which pieces are searched for; None: all.

    `of_more` says that the rows are a sample of more.
    """
    given = options.sizes is not None and options.degree is not None
    if given or rows.n_rows <= (SEARCHED if of_more else MANY_ROWS):
        return None
    return drawn_points(rows, SEARCHED)


def fit_to_blocks(found: TrainingResult, seen: Rows, others: Blocks) -> TrainingResult:
    """Add rows in blocks, of all processes, to the posterior of the experts' coefficients.

    That of the search is the prior: ``R c`` stands for its targets as R does for its rows
    (recursive least squares). Gates stay. Exact experts do, too: a gate between two rows that
    were searched misplaces others, which would spoil them. So do those of a mixture whose soft
    gates were found together with them.

    Parameters
    ----------
    found : TrainingResult
        Of the search; its state is a `Mixture`.
    others : callable
        Reads the others, in the same units.
    """
    mixture: Mixture = found.state
    first, n_levels = mixture.first_blended, len(mixture.tree.levels)
    if mixture.tree.first_soft < first or is_exact(mixture.experts[-1].noise):
        return found
    message = "The experts are those of the rows that were searched."
    with handing_over(lambda: replace(found, code="interrupted", message=message)):
        experts = list(mixture.experts)
        for depth in range(min(first, n_levels)):
            experts[depth] = _updated(experts[depth], _Pieces(mixture, depth), seen, others)
        if first < n_levels:
            experts[-1] = _updated(experts[-1], _Blends(mixture), seen, others)
        state = Mixture(mixture.tree, experts, mixture.degree, first, mixture.space)
        return replace(found, state=state)


class _Pieces:
    """Sharp partitions of a level: each row is one expert's."""

    def __init__(self, mixture: Mixture, depth: int):
        self.mixture, self.depth = mixture, depth
        self.n_experts = mixture.tree.levels[depth].n_partitions

    def __call__(self, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Group (n,) of each point, its columns (n, q), and the experts' shares (n, N) of it."""
        node = self.mixture.tree.log_proba(X, self.depth, harden=True).argmax(1)
        share = torch.nn.functional.one_hot(node, self.n_experts).to(X)
        return node, self.mixture.basis.matrix(X), share

    def together(self, coef: Tensor) -> Tensor:
        """Coefficients (G, q, m) of the groups from those (N, P, m) of the experts."""
        return coef

    def apart(self, solved: Tensor) -> Tensor:
        """Those of the experts again."""
        return solved


class _Blends:
    """Leaves that add up: each row is one blend's, whose experts' columns stand side by side."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture
        self.ancestor = mixture.tree.ancestors(mixture.first_blended)
        n_blends = int(self.ancestor.max()) + 1
        leaves = mixture.experts[-1]
        self.n_columns = leaves.coef.shape[1]
        # Of those that were solved for; the last ones may have had no rows.
        self.most = leaves.factor.shape[-1] // self.n_columns
        self.leaves = [
            torch.nonzero(self.ancestor == g).squeeze(1)[: self.most] for g in range(n_blends)
        ]

    def __call__(self, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `_Pieces`."""
        tree, first = self.mixture.tree, self.mixture.first_blended
        blend = self.ancestor[tree.log_proba(X, harden=True).argmax(1)]
        pi = torch.where(self.ancestor == blend[:, None], tree.log_below(X, first).exp(), 0.0)
        share = X.new_zeros((len(X), self.most))
        for g, leaves in enumerate(self.leaves):
            own = torch.nonzero(blend == g).squeeze(1)
            share[own, : len(leaves)] = pi[own][:, leaves]
        phi = self.mixture.basis.matrix(X)
        return blend, (share[:, :, None] * phi[:, None]).flatten(1), pi

    def together(self, coef: Tensor) -> Tensor:
        """See `_Pieces`."""
        shape = (len(self.leaves), self.most, *coef.shape[1:])
        result = coef.new_zeros(shape)
        for g, leaves in enumerate(self.leaves):
            result[g, : len(leaves)] = coef[leaves]
        return result.flatten(1, 2)

    def apart(self, solved: Tensor) -> Tensor:
        """See `_Pieces`."""
        parts = solved.unflatten(1, (self.most, self.n_columns))
        result = solved.new_zeros((len(self.ancestor), self.n_columns, solved.shape[-1]))
        for g, leaves in enumerate(self.leaves):
            result[leaves] = parts[g, : len(leaves)]
        return result


def _updated(experts: Experts, design: _Pieces | _Blends, seen: Rows, others: Blocks) -> Experts:
    """Coefficients, factors and noise by further rows."""
    q = experts.factor.shape[-1]
    prior = torch.cat([experts.factor, experts.factor @ design.together(experts.coef)], 2)
    below = prior[:, :0]
    for rows in others():
        for block in long_blocks(rows.n_rows, q, COPIES_SUMMED * q):
            group, columns, _ = design(rows.X[block])
            new = torch.cat([columns, rows.y[block]], 1) * rows.weight[block].sqrt()[:, None]
            more = triangular_factors(new, group, len(prior))
            below = triangular_factor(torch.cat([below, more], 1))
    joint = triangular_factor(torch.cat([prior, *gather(below)], 1))
    R, projected, _ = split_factor(joint, q)
    solved = back_substitute(R, projected)
    coef, noise = design.apart(solved), _noise(solved, design, seen, others)
    return replace(experts, coef=coef, factor=R, noise=noise)


def _noise(solved: Tensor, design: _Pieces | _Blends, seen: Rows, others: Blocks) -> Tensor:
    """Variances (N, m) of what the experts leave over, Eq. 18, the parameters taken off."""
    first = _left(solved, design, (seen,))
    told = zip(first, _left(solved, design, others()), strict=True)
    mass, square, of_group = (own + sum_of_all(more) for own, more in told)
    known = (solved.shape[1] / of_group).clamp_max(MOST_TOLD).amax()
    return square / (mass * (1 - known)).clamp_min(1)[:, None]


def _left(
    solved: Tensor, design: _Pieces | _Blends, parts: Iterable[Rows]
) -> tuple[Tensor, Tensor, Tensor]:
    """Masses (N,) and squares (N, m) of the experts, masses (G,) of the groups."""
    n_groups, q, m = solved.shape
    n_experts = len(design.apart(solved))
    mass, square = solved.new_zeros(n_experts), solved.new_zeros((n_experts, m))
    of_group = solved.new_zeros(n_groups)
    for rows in parts:
        for block in long_blocks(rows.n_rows, q, COPIES_SUMMED * q):
            group, columns, share = design(rows.X[block])
            mean = torch.einsum("nq,nqm->nm", columns, solved[group])
            weight = rows.weight[block]
            left = weight[:, None] * (rows.y[block] - mean).square() + rows.within[block]
            mass, square = mass + share.T @ weight, square + share.T @ left
            of_group.index_add_(0, group, weight)
    return mass, square, of_group
