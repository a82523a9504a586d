"""The additive model that training returns, and what it predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from skpou.additive.basis import AdditiveBasis, evaluated_together, joint_splines
from skpou.additive.members import Expert, Member, as_noisy
from skpou.additive.spline_columns import SplineColumns
from skpou.core import Rows, to_array
from skpou.core.linalg import TINY, evenly
from skpou.core.models import (
    EXACT_NOISE,
    FEWEST_OF_TABLE,
    MOST_TOGETHER,
    Components,
    IndependentComponents,
    LocalBlock,
    Maker,
    ResidueDensity,
    is_scattered,
    outside_steps,
    own_maker,
    prior_residual_makers,
    residual_makers,
    shared_tensor,
)

#: Variance of the noise, in units of y, up to which the priors of rows on lines and grids say what
#: is between these: what more noise hides is larger.
LITTLE_NOISE = 1e-4
#: Prior variances below this part of the largest are of functions that are not needed: those of the
#: roughest ones of a term are some millionths of the smoothest one's.
UNUSED = 1e-8
#: Most rows over which means are taken, and with a local block, which costs more a row.
MOST_ROWS, MOST_ROWS_OF_BLOCK = 10_000, 2000
#: Numbers a point for each function of a term, beside these, and at most: rows are then few enough
#: to stay in a core's cache.
NUMBERS_A_FUNCTION, NUMBERS_BESIDE, MOST_NUMBERS = 8, 100, 2000


@dataclass(frozen=True)
class TargetModel:
    """Model of one target: the shares of all members of all experts sum to 1.

    Attributes
    ----------
    slope : float
        Root mean square of the mean's gradient over the data: outside the box the standard
        deviation grows by this for each unit of distance.
    local : LocalBlock, default=None
        Smooths what each member leaves at the rows; one column of values for each, in order.
    """

    experts: tuple[Expert, ...]
    slope: float
    local: LocalBlock | None = None

    @cached_property
    def shares(self) -> Tensor:
        """Shares (M,) of all members."""
        first = self.experts[0].members[0].coef
        return first.new_tensor([m.share for expert in self.experts for m in expert.members])

    def mean(self, X: Tensor) -> Tensor:
        """Values (n,) at the points X (n, d)."""
        evaluated = self._evaluated(X.double())
        parts = [F @ e.coef for e, (F, _) in zip(self.experts, evaluated, strict=True)]
        if self.local is not None:
            parts.append(self.local.mean(X) @ self.shares)
        return torch.stack(parts).sum(0)

    def _evaluated(self, X: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Columns and coordinates of every expert at points X (n, d), in float64."""
        return evaluated_together([expert.basis for expert in self.experts], self._joint, X)

    @cached_property
    def _joint(self) -> SplineColumns | None:
        return joint_splines([expert.basis for expert in self.experts])

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d) of the mean."""
        parts = [expert.basis.gradient(X, expert.coef) for expert in self.experts]
        if self.local is not None:
            parts.append(self.local.gradient(X) @ self.shares)
        return torch.stack(parts).sum(0)

    def beyond(self, X: Tensor) -> Tensor:
        """The part (n, 1) of the mean's variance that grows with the distance from the box."""
        return (X - X.clamp(0, 1)).square().sum(1, keepdim=True) * self.slope**2

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at the points X (n, d), in float64; see `density`."""
        return self.density(X, posterior)[0]

    def density(self, X: Tensor, posterior: bool = True) -> tuple[Components, Tensor]:
        """The density of y at the points X (n, d), in float64, and its mean (n,).

        Outside the box of the data the posterior and the gates are those of the nearest point of
        the box, and the variance grows with the distance from it.
        """
        X = X.double()
        inside = X.clamp(0, 1)
        is_inside = torch.equal(X, inside)
        beyond: Any = 0.0
        if posterior and not is_inside:
            beyond = self.beyond(X)
        parts, means = [], []
        moves, around, near = self._moves(X, inside)
        number = 0
        evaluated = self._evaluated(X)
        at_inside = evaluated if is_inside else self._evaluated(inside)
        for expert, (F, _), (within, T) in zip(self.experts, evaluated, at_inside, strict=True):
            means.append(F @ expert.coef)
            for group in expert.groups:
                inner = within @ group.coef
                mean = inner if is_inside else F @ group.coef
                if self.local is not None:
                    own = slice(number, number + len(group.noise))
                    inner, mean = inner + near[:, own], mean + moves[:, own]
                log_gates, variance = group.densities.log_gates(T, inner), group.densities.variance
                epistemic = torch.zeros_like(log_gates)
                if posterior:
                    epistemic = group.posterior(within, variance)
                    if self.local is not None or not is_inside:
                        epistemic = epistemic + (beyond + around)[..., None]
                parts.append(
                    (
                        (log_gates + group.log_share).flatten(1),
                        mean[..., None].expand_as(log_gates).flatten(1),
                        variance.expand_as(log_gates).flatten(1),
                        epistemic.flatten(1),
                    )
                )
                number += len(group.noise)
        if self.local is not None:
            means.append(moves @ self.shares)
        log_pi, mean, noise, epistemic = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        components = Components(log_pi, mean[..., None], noise[..., None], epistemic[..., None])
        return components, torch.stack(means).sum(0)

    def _moves(self, X: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the local block adds to each member's mean (n, M), and the variance (n, 1) about it.

        Last the first at the nearest points of the box.
        """
        if self.local is None:
            none = X.new_zeros((len(X), len(self.shares)))
            return none, none[:, :1], none
        moves, variance = self.local.posterior(X)
        near = moves if torch.equal(X, inside) else self.local.mean(inside)
        return moves, variance[:, None], near

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n) of the mean, of which the components' variances are the diagonal.

        The mean's error is each member's with its share. What the local block does not know is
        correlated as its kernel says before any row was seen: given the rows it falls off faster.
        """
        X = X.double()
        inside = X.clamp(0, 1)
        steps = outside_steps(X)
        result = steps @ steps.T * self.slope**2
        near, number = self._moves(inside, inside)[2], 0
        for expert, (within, T) in zip(self.experts, self._evaluated(inside), strict=True):
            for member in expert.members:
                log_gates, variance = member.density.at(T, within @ member.coef + near[:, number])
                noise = (log_gates.exp() * variance).sum(1)
                root = within @ member.root
                known = root.square().sum(1)
                grown = as_noisy(known, known.new_tensor(member.noise), noise)
                root = root * (grown / known.clamp_min(TINY)).sqrt()[:, None]
                result = result + member.share * root @ root.T
                number += 1
        if self.local is not None:
            deviation = self.local.posterior(X)[1].sqrt()
            result = result + self.local.correlation(X) * deviation[:, None] * deviation
        return result

    def constant(self) -> TargetModel:
        """The mean of a target with unit noise, over the same columns.

        It is known as the rows tell it, no better: what is exact would give way to no line.
        """
        expert = self.experts[0]
        member = expert.members[0]
        root = torch.zeros_like(member.root)
        # Roots are upper triangular: the first entry is the deviation where all others are known.
        root[0, 0] = member.root[0, 0].abs() / math.sqrt(member.noise)
        flat = Member(
            torch.zeros_like(member.coef),
            root,
            1.0,
            torch.zeros_like(member.dof),
            1.0,
            ResidueDensity.single(1.0, member.coef),
        )
        return TargetModel((Expert(expert.basis, (flat,), flat),), 0.0)

    def terms(self) -> list[tuple[int, ...]]:
        """Features of every term of every expert, sorted by their number."""
        found = {
            features_of(expert.basis, number)
            for expert in self.experts
            for number in range(len(expert.basis.blocks))
        }
        if self.local is not None:
            found.add(self.experts[0].basis.kept)
        return sorted(found, key=lambda term: (len(term), term))

    def dof(self) -> dict[tuple[int, ...], float]:
        """Effective degrees of freedom of every term, averaged over the members."""
        result = dict.fromkeys(self.terms(), 0.0)
        for expert in self.experts:
            for member in expert.members:
                for number, dof in enumerate(member.dof.tolist()):
                    result[features_of(expert.basis, number)] += member.share * dof
        if self.local is not None:
            result[self.experts[0].basis.kept] += self.local.dof
        return result

    def term_values(self, X: Tensor, posterior: bool) -> dict[tuple[int, ...], Tensor]:
        """Contribution of every term, (n, 2): its mean, and its variance (0 unless asked for)."""
        result = {term: X.new_zeros((len(X), 2), dtype=torch.float64) for term in self.terms()}
        for expert in self.experts:
            F = expert.basis.matrix(X.double())
            for term, columns in columns_of(expert.basis).items():
                part = F[:, columns]
                for member in expert.members:
                    result[term][:, 0] += member.share * (part @ member.coef[columns])
                    if posterior:
                        spread = (part @ member.root[columns]).square().sum(1)
                        result[term][:, 1] += member.share * spread
        if self.local is not None:
            moves, variance = self.local.posterior(X)
            result[self.experts[0].basis.kept][:, 0] += moves @ self.shares
            if posterior:
                result[self.experts[0].basis.kept][:, 1] += variance
        return result

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "slope": self.slope,
            "local": None if self.local is None else self.local.arrays(),
            "experts": [
                {
                    "basis": expert.basis.arrays(),
                    "members": [
                        {
                            "coef": member.coef.cpu().numpy(),
                            "root": to_array(member.root),
                            "noise": member.noise,
                            "dof": member.dof.cpu().numpy(),
                            "share": member.share,
                            "density": member.density.arrays(),
                        }
                        for member in expert.members
                    ],
                }
                for expert in self.experts
            ],
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> TargetModel:
        """Rebuild from `arrays`, on the device of `like`, in float64."""
        experts = []
        for expert in arrays["experts"]:
            members = tuple(
                Member(
                    shared_tensor(member["coef"], like),
                    shared_tensor(member["root"], like),
                    float(member["noise"]),
                    shared_tensor(member["dof"], like),
                    float(member["share"]),
                    ResidueDensity.from_arrays(member["density"], like),
                )
                for member in expert["members"]
            )
            experts.append(Expert(AdditiveBasis.from_arrays(expert["basis"], like), members))
        # Models that were saved before there was a local block have none.
        local = arrays.get("local")
        block = None if local is None else LocalBlock.from_arrays(local, like)
        return cls(tuple(experts), float(arrays["slope"]), block)


class AdditiveModel:
    """A model for every target, in scaled units.

    Parameters
    ----------
    targets : sequence of TargetModel
        One for each target.
    """

    def __init__(self, targets: Sequence[TargetModel]):
        self.targets = tuple(targets)

    @property
    def has_local(self) -> bool:
        """Whether a target has a local block."""
        return any(target.local is not None for target in self.targets)

    def without_local(self) -> AdditiveModel:
        """The sums of terms alone."""
        return AdditiveModel([replace(target, local=None) for target in self.targets])

    def some(self, X: Tensor, weight: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
        """At most so many of the points X (n, d), evenly, and their shares in all weights (n,)."""
        most = most or (MOST_ROWS_OF_BLOCK if self.has_local else MOST_ROWS)
        some = evenly(len(X), most)
        weight = weight[some].double()
        return X[some], weight / weight.sum()

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m)."""
        return torch.stack([target.mean(X) for target in self.targets], 1)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean."""
        return torch.stack([target.gradient(X) for target in self.targets], 2)

    def beyond(self, X: Tensor) -> Tensor:
        """See `TargetModel.beyond`; of all targets, (n, m)."""
        return torch.cat([target.beyond(X.double()) for target in self.targets], 1)

    def components(self, X: Tensor, posterior: bool = True) -> IndependentComponents:
        """The density of y at the points X, independent for all targets."""
        parts, means = zip(*(target.density(X, posterior) for target in self.targets), strict=True)
        return IndependentComponents.of_targets(parts, torch.stack(means, 1))

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the mean, in float64."""
        return torch.stack([target.covariance(X) for target in self.targets], 2)

    def residual_makers(self, rows: Rows, plain: bool = False) -> list[list[Maker]]:
        """Those of the likeliest expert of every target, with its own shrinkage.

        In tables and of scattered rows its first fit counts, whose covariance is that of rows of
        equal weights. Lines and grids of few columns take that of the likeliest member, which
        density has given weights: rows with a small residue have more leverage than is theirs, and
        the errors without them are rather too large, as is safe where rows are regular and the
        noise is what the terms miss. Scattered ones have leverages above one then, which is none.
        `plain` has the first fit count in any case: where errors are weighed against others'.
        None with a local block: its errors at left-out rows are in the density already.
        """
        if self.has_local:
            return []
        makers: list[list[Maker]] = []
        plain = plain or rows.n_features >= FEWEST_OF_TABLE or is_scattered(rows.X)
        for number, target in enumerate(self.targets):
            pairs = [(e, m) for e in target.experts for m in e.members]
            expert, member = max(pairs, key=lambda pair: pair[1].share)
            if plain and expert.first is not None:
                member = expert.first
            columns = expert.basis.matrix(rows.X)
            prior = None if expert.first is None else expert.first.prior
            least = EXACT_NOISE if plain or prior is None else LITTLE_NOISE
            if member.noise <= least and rows.n_rows <= MOST_TOGETHER:
                weighted = columns * rows.weight.sqrt()[:, None]
                makers.append(makers_of_prior(weighted, prior, member.noise))
                continue
            influence = columns @ member.root / math.sqrt(member.noise)
            only = slice(number, number + 1)
            one = Rows(rows.X, rows.y[:, only], rows.weight, rows.within[:, only])
            alone = target
            if member is expert.first:
                alone = TargetModel((Expert(expert.basis, (member,)),), 0.0)
            makers.append([own_maker(AdditiveModel([alone]), influence, one)])
        return makers

    def flattened(self, targets: Tensor) -> AdditiveModel:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        pairs = zip(self.targets, targets.tolist(), strict=True)
        return AdditiveModel([target.constant() if flat else target for target, flat in pairs])

    def term_values(
        self, terms: Sequence[tuple[int, ...]], X: Tensor, posterior: bool
    ) -> tuple[Tensor, Tensor]:
        """Contributions of some terms and their variances (0 unless asked for), (n, k, m)."""
        shape = (len(X), len(terms), len(self.targets), 2)
        result = X.new_zeros(shape, dtype=torch.float64)
        for number, target in enumerate(self.targets):
            values = target.term_values(X, posterior)
            for place, term in enumerate(terms):
                if term in values:
                    result[:, place, number] = values[term]
        return result[..., 0], result[..., 1]

    def term_moments(
        self, terms: Sequence[tuple[int, ...]], X: Tensor, weight: Tensor, most: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted means and variances over the rows, of terms and last of the prediction.

        Returns
        -------
        means, variances : Tensor of shape (m, k + 1)
        """
        X, share = self.some(X, weight, most)
        value = torch.cat([self.term_values(terms, X, False)[0], self.mean(X)[:, None]], 1)
        means = torch.einsum("n,nkm->mk", share, value)
        squares = (value - means.T).square()
        return means, torch.einsum("n,nkm->mk", share, squares)

    def noise(self, X: Tensor, weight: Tensor, most: int | None = None) -> Tensor:
        """Root mean square (m,) of the noise over the rows."""
        X, share = self.some(X, weight, most)
        noise, _ = self.components(X, False).variances()
        return (share @ noise).sqrt()

    def numbers_per_row(self) -> int:
        """Numbers that `components` allocates for each point, to size blocks of rows."""
        widest = max(
            len(member.coef)
            for target in self.targets
            for expert in target.experts
            for member in expert.members
        )
        beside = [t.local.numbers_per_row() for t in self.targets if t.local is not None]
        return max(min(NUMBERS_A_FUNCTION * widest + NUMBERS_BESIDE, MOST_NUMBERS), *beside, 0)

    def arrays(self) -> list[dict[str, Any]]:
        """State of every target."""
        return [target.arrays() for target in self.targets]

    @classmethod
    def from_arrays(cls, arrays: list[dict[str, Any]], like: Tensor) -> AdditiveModel:
        """Rebuild from `arrays`, on the device of `like`."""
        return cls([TargetModel.from_arrays(target, like) for target in arrays])


def features_of(basis: AdditiveBasis, number: int) -> tuple[int, ...]:
    """Features of the points in a block of a basis; all that have functions in the remainder."""
    block = basis.blocks[number]
    if block.order == 0:
        return basis.kept
    return tuple(basis.kept[j] for j in block.columns)


def columns_of(basis: AdditiveBasis) -> dict[tuple[int, ...], list[int]]:
    """Columns of the basis matrix that make up each term."""
    result: dict[tuple[int, ...], list[int]] = {}
    start = 1
    for number, block in enumerate(basis.blocks):
        columns = result.setdefault(features_of(basis, number), [])
        columns += range(start, start + block.size)
        start += block.size
    return result


def makers_of_prior(A: Tensor, prior: Tensor | None, noise: float) -> list[Maker]:
    """Those of the weighted columns A (n, p) of a fit with little noise or none.

    A level that is left out has functions of its own, which only the prior ties to its neighbours.
    That a function is not needed was found with all levels, as the slope of an even function on a
    symmetric grid: without one of them nothing says so, and it may be as large as any.
    """
    if prior is None:
        return residual_makers(A)
    largest = prior[1:].max() if len(prior) > 1 else prior[0]
    unused = prior < UNUSED * largest
    prior = torch.where(unused, largest, prior)
    return prior_residual_makers(A * (prior / noise).sqrt())
