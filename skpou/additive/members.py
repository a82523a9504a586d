"""Fits of an additive model's terms that predict together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from skpou.additive.basis import AdditiveBasis
from skpou.additive.terms import Candidate
from skpou.core.linalg import times_upper
from skpou.core.models import ResidueDensity, StackedDensities

#: Variance of y in its units, which are those of its spread.
VARIANCE_OF_Y = 1.0


def as_noisy(known: Tensor, noise: Tensor, variance: Tensor) -> Tensor:
    """Variances of values that were `known` under a noise of one variance, under another.

    What the rows tell grows with the noise, but not what the prior alone tells. Rows hide no more
    of a value than their noise, and no more than y's own variance where they say nothing of it: a
    fit that meets few rows exactly and errs where they are left out has bars of y's spread.
    """
    return torch.minimum(known * variance / noise, known + variance.clamp_min(VARIANCE_OF_Y))


@dataclass(frozen=True)
class Member:
    """One posterior of the coefficients, and the density of what they leave over.

    Attributes
    ----------
    coef : Tensor of shape (p,)
    root : Tensor of shape (p, p)
        Upper triangular; the coefficients' posterior covariance is ``root @ root.T``.
    dof : Tensor of shape (G,)
        Effective degrees of freedom of each block.
    share : float
        Weight of the member among all.
    prior : Tensor of shape (p,), default=None
        Prior variances of the coefficients; only right after training.
    """

    coef: Tensor
    root: Tensor
    noise: float
    dof: Tensor
    share: float
    density: ResidueDensity
    prior: Tensor | None = None


class MemberGroup(NamedTuple):
    """M members over the same p columns whose densities have as many components.

    Coefficients (p, M), roots (M, p, p), variances of the noise (M,), logarithms of the shares
    (M, 1), and densities.
    """

    coef: Tensor
    root: Tensor
    noise: Tensor
    log_share: Tensor
    densities: StackedDensities

    @classmethod
    def of(cls, members: Sequence[Member]) -> MemberGroup:
        """Put members together."""
        coef = torch.stack([member.coef for member in members], 1)
        return cls(
            coef,
            torch.stack([member.root for member in members]),
            coef.new_tensor([member.noise for member in members]),
            coef.new_tensor([[member.share] for member in members]).log(),
            StackedDensities.of([member.density for member in members]),
        )

    def posterior(self, columns: Tensor, variance: Tensor) -> Tensor:
        """Variances (n, M, K) of the values at columns (n, p), for the densities' own (M, K)."""
        squares = [times_upper(columns, root).square_().sum(1) for root in self.root]
        return as_noisy(torch.stack(squares, 1)[..., None], self.noise[:, None], variance)


@dataclass(frozen=True)
class Expert:
    """Members over the same basis.

    Attributes
    ----------
    first : Member, default=None
        Fit to rows of equal widths, before the density of its residue gave them weights; only
        right after training.
    found : Candidate, default=None
        What the search has found; only right after training.
    """

    basis: AdditiveBasis
    members: tuple[Member, ...]
    first: Member | None = None
    found: Candidate | None = None

    @cached_property
    def coef(self) -> Tensor:
        """Coefficients (p,) of the expert's part of the mean: those of its members by share."""
        return torch.stack([member.share * member.coef for member in self.members]).sum(0)

    @cached_property
    def groups(self) -> list[MemberGroup]:
        """Members one after the other, those together whose densities have as many components."""
        by_count = itertools.groupby(self.members, lambda member: member.density.n_components)
        return [MemberGroup.of(list(members)) for _, members in by_count]

    def times(self, share: float) -> Expert:
        """The same with the shares of all members multiplied."""
        members = (replace(member, share=share * member.share) for member in self.members)
        return replace(self, members=tuple(members))
