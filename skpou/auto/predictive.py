"""The density of one member, and of the mixture of several, by what members show in public."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import SEEDS

#: Methods of a member with a density of its own.
OWN_DENSITY = ("log_density", "predict_cdf", "predict_quantile", "sample_y")
#: Least standard deviation that a density is computed with: a Gaussian process may say zero.
LEAST_STD = 1e-300
#: Parts that a bracket of a quantile is cut into, and how often: 16^16 is beyond float64.
PARTS, ROUNDS = 16, 16
#: Step of central differences, in units of a point's distance from zero and of the box: the cube
#: root of round-off, where the errors of rounding and of the form are equal.
STEP = 6e-6


def unit_of(spread: np.ndarray) -> np.ndarray:
    """Powers of two (m,) near the spreads of the targets: quotients by them change no bit."""
    return np.ldexp(1.0, np.frexp(spread)[1] - 1)


def columns(values: Any, n_outputs: int) -> Tensor:
    """What a member returned at n points, as a tensor (n, m)."""
    # A copy: what others return may be read-only.
    values = np.array(values, dtype=np.float64).reshape(-1, n_outputs)
    return torch.as_tensor(values, device="cpu")


def normal_log_density(y: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Logarithm (n,) of the joint density of independent Gaussians at y (n, m)."""
    z = (y - mean) / std
    return -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(1)


@dataclass(frozen=True)
class MemberDensity:
    """A fitted member's density at some points.

    Attributes
    ----------
    estimator : regressor
        Fitted, with ``predict(X, return_std=True)``, to y without an axis of outputs where there is
        one of them.
    X : ndarray of shape (n, d)
        Points.
    unit : Tensor of shape (m,)
        Powers of two that all targets are in units of.
    """

    estimator: Any
    X: np.ndarray
    unit: Tensor

    @property
    def is_own(self) -> bool:
        """Whether the density is the member's own; otherwise it is Gaussian by its std."""
        return all(hasattr(self.estimator, name) for name in OWN_DENSITY)

    def _columns(self, values: Any) -> Tensor:
        return columns(values, len(self.unit)) / self.unit

    def mean(self) -> Tensor:
        """Mean (n, m)."""
        return self._columns(self.estimator.predict(self.X))

    def moments(self, kind: bool | str = True) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, m) of all, of the noise or of the mean."""
        mean, std = self.estimator.predict(self.X, return_std=kind)
        return self._columns(mean), self._columns(std).clamp_min(LEAST_STD)

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Mean (n, m), and covariances (n, n, m) of targets at all pairs of points."""
        mean, found = self.estimator.predict(self.X, return_cov=True)
        n, m = len(self.X), len(self.unit)
        matrices = torch.as_tensor(np.array(found, dtype=np.float64), device="cpu")
        return self._columns(mean), matrices.reshape(n, n, m) / self.unit / self.unit

    def own_log_density(self, y: Tensor) -> Tensor:
        """Logarithm (n,) of the joint density that the member itself gives y (n, m)."""
        found = self.estimator.log_density(self.X, (y * self.unit).numpy())
        return columns(found, 1)[:, 0] + self.unit.log().sum()

    def cumulative(self, y: Tensor) -> Tensor:
        """Probability (n, q, m) of a target below y (n, q, m), by the member itself."""
        n, q, m = y.shape
        thresholds = (y * self.unit).mT
        found = self.estimator.predict_cdf(
            self.X, (thresholds[:, 0] if m == 1 else thresholds).numpy()
        )
        return columns(found, q).reshape(n, m, q).mT

    def quantiles(self, probabilities: Tensor) -> Tensor:
        """Quantiles (n, q, m), by the member itself."""
        found = self.estimator.predict_quantile(self.X, probabilities.numpy())
        return self._last_axis(found, len(probabilities))

    def sample(self, n_samples: int, seed: int, joint: bool = False) -> Tensor:
        """Draws (n, s, m) of y, by the member itself; of all points together if `joint`."""
        given = {"joint": True} if joint else {}
        found = self.estimator.sample_y(self.X, n_samples, random_state=seed, **given)
        return self._last_axis(found, n_samples)

    def _last_axis(self, values: Any, length: int) -> Tensor:
        """What a member returned with a last axis, (n, length, m)."""
        shape = (len(self.X), len(self.unit), length)
        found = torch.as_tensor(np.array(values, dtype=np.float64).reshape(shape), device="cpu")
        return found.mT / self.unit

    def floored_log_density(self, y: Tensor, factors: Sequence[float], floor: Tensor) -> Tensor:
        """Logarithm (n, S) of the density at y (n, m), for each factor that widens it, the first 1.

        Where a member's standard deviation is below the floor (m,), or it is widened, the density
        is Gaussian.
        """
        mean, std = self.moments()
        found = [normal_log_density(y, mean, (factor * std).maximum(floor)) for factor in factors]
        if self.is_own:
            found[0] = torch.where((std >= floor).all(1), self.own_log_density(y), found[0])
        return torch.stack(found, 1)

    def gradient(self, width: np.ndarray) -> Tensor:
        """Gradient (n, d, m) of the mean; by central differences where a member has none."""
        n, d = self.X.shape
        if hasattr(self.estimator, "predict_gradient"):
            rates = np.array(self.estimator.predict_gradient(self.X), dtype=np.float64)
            found = torch.as_tensor(rates.reshape(n, len(self.unit), d), device="cpu")
            return found.mT / self.unit
        result = torch.zeros((n, d, len(self.unit)), dtype=torch.float64, device="cpu")
        for j in np.flatnonzero(width > 0):
            step = STEP * np.maximum(np.abs(self.X[:, j]), width[j])
            ahead, behind = self.X.copy(), self.X.copy()
            ahead[:, j] += step
            behind[:, j] -= step
            rise = self._at(ahead).mean() - self._at(behind).mean()
            result[:, j] = rise / torch.as_tensor(ahead[:, j] - behind[:, j], device="cpu")[:, None]
        return result

    def _at(self, X: np.ndarray) -> MemberDensity:
        return MemberDensity(self.estimator, X, self.unit)


@dataclass(frozen=True)
class Part:
    """One summand of the mixture: a member's density, its weight, by what factor it is wider.

    With ``may_be_own=False`` it is Gaussian, whatever density the member has.
    """

    member: MemberDensity
    weight: float
    factor: float
    mean: Tensor
    std: Tensor
    may_be_own: bool = True

    @property
    def is_own(self) -> bool:
        """Whether the density is the member's own and no Gaussian."""
        return self.may_be_own and self.factor == 1.0 and self.member.is_own

    def log_density(self, y: Tensor) -> Tensor:
        """Logarithm (n,) of the joint density at y (n, m)."""
        if self.is_own:
            return self.member.own_log_density(y)
        return normal_log_density(y, self.mean, self.factor * self.std)

    def cumulative(self, y: Tensor) -> Tensor:
        """Probability (n, q, m) of a target below y (n, q, m)."""
        if self.is_own:
            return self.member.cumulative(y)
        return torch.special.ndtr((y - self.mean[:, None]) / (self.factor * self.std[:, None]))

    def quantiles(self, probabilities: Tensor) -> Tensor:
        """Quantiles (n, q, m)."""
        if self.is_own:
            return self.member.quantiles(probabilities)
        z = torch.special.ndtri(probabilities)[:, None]
        return self.mean[:, None] + self.factor * self.std[:, None] * z

    def sample(self, n_samples: int, rng: np.random.Generator) -> Tensor:
        """Draws (n, s, m) of y."""
        if self.is_own:
            return self.member.sample(n_samples, int(rng.integers(SEEDS)))
        n, m = self.mean.shape
        normal = torch.as_tensor(rng.standard_normal((n, n_samples, m)), device="cpu")
        return self.mean[:, None] + self.factor * self.std[:, None] * normal


@dataclass(frozen=True)
class StackedDensity:
    """Mixture of the members' densities at some points, what base classes read predictions from.

    Attributes
    ----------
    center : Tensor of shape (n, m)
        Mean of y.
    kind : bool or str
        Which standard deviation is asked for.
    doubt : Part or None
        Gaussian about the center as wide as another member says, for the chance that the members
        are wrong. It moves no mean.
    """

    parts: list[Part]
    center: Tensor
    kind: bool | str = True
    doubt: Part | None = None

    @property
    def all_parts(self) -> list[Part]:
        """The members' parts, and the doubt."""
        return self.parts if self.doubt is None else [*self.parts, self.doubt]

    def expectation(self) -> Tensor:
        """Mean (n, m) of y."""
        return self.center

    def variances(self) -> tuple[Tensor, Tensor]:
        """Variances (n, m) by noise and by what is not known, the latter with the disagreement.

        Of the total, asked for by ``kind=True``, all counts as noise.
        """
        apart = sum_of(part.weight * (part.mean - self.center).square() for part in self.parts)
        # What a part is widened by is not known either.
        wider = sum_of(
            part.weight * (part.factor**2 - 1) * part.std.square() for part in self.parts
        )
        if self.doubt is not None:
            apart = apart + self.doubt.weight * self.doubt.std.square()
        if self.kind is True:
            total = sum_of(part.weight * part.std.square() for part in self.parts)
            return total + wider + apart, torch.zeros_like(total)
        noise, epistemic = (
            sum_of(part.weight * part.member.moments(kind)[1].square() for part in self.parts)
            for kind in ("noise", "epistemic")
        )
        if self.doubt is not None:
            # The noise is there in any case, and the doubt is not narrower.
            more = noise * self.doubt.weight / (1 - self.doubt.weight)
            noise, wider = noise + more, wider - more
        return noise, epistemic + wider + apart

    def log_density(self, y: Tensor) -> Tensor:
        """Logarithm (n,) of the joint density at y (n, m)."""
        logs = [math.log(part.weight) + part.log_density(y) for part in self.all_parts]
        return torch.stack(logs).logsumexp(0)

    @property
    def mean(self) -> Tensor:
        """Mean (n, m) of y, as mixtures of Gaussians call it."""
        return self.center

    def tails(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (n, m) below and above targets y (n, m), each for itself."""
        below = self.cumulative(y[:, None])[:, 0]
        return below, 1 - below

    def cumulative(self, y: Tensor) -> Tensor:
        """Probability (n, q, m) of a target below y (n, q, m)."""
        return sum_of(part.weight * part.cumulative(y) for part in self.all_parts)

    def sample(self, n_samples: int, rng: np.random.Generator) -> Tensor:
        """Draws (n, s, m) of y: for each a member, then a target by this member."""
        total = np.cumsum([part.weight for part in self.all_parts])
        uniform = rng.random((len(self.center), n_samples)) * total[-1]
        pick = torch.as_tensor(np.searchsorted(total[:-1], uniform, side="right"), device="cpu")
        draws = torch.stack([part.sample(n_samples, rng) for part in self.all_parts])
        index = pick[None, :, :, None].expand(1, -1, -1, draws.shape[3])
        return draws.gather(0, index)[0]

    def quantiles(self, probabilities: Tensor) -> Tensor:
        """Quantiles (n, q, m), where the distribution function of the mixture meets them.

        Probabilities are (q,), or (q, m), other ones for each output. The members' own quantiles
        are a bracket, which is cut into parts again and again.
        """
        if probabilities.ndim == 2:
            each = [self.quantiles(p)[:, :, j] for j, p in enumerate(probabilities.unbind(1))]
            return torch.stack(each, 2)
        own = torch.stack([part.quantiles(probabilities) for part in self.all_parts])
        low, high = own.amin(0), own.amax(0)
        n, q, m = low.shape
        share = torch.linspace(0, 1, PARTS + 1, dtype=low.dtype, device=low.device)[1:-1]
        for _ in range(ROUNDS if len(self.all_parts) > 1 and q else 0):
            if not (high - low > torch.finfo(low.dtype).eps * high.abs()).any():
                break
            inner = low[:, :, None] + (high - low)[:, :, None] * share[:, None]
            reached = self.cumulative(inner.reshape(n, q * len(share), m)).reshape(inner.shape)
            below = (reached < probabilities[:, None, None]).sum(2, keepdim=True)
            edges = torch.cat([low[:, :, None], inner, high[:, :, None]], 2)
            low = edges.gather(2, below)[:, :, 0]
            high = edges.gather(2, below + 1)[:, :, 0]
        return low + 0.5 * (high - low)


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """Sum of tensors, the first one's bits where there is one."""
    first, *others = terms
    for other in others:
        first = first + other
    return first


@dataclass(frozen=True)
class Stack:
    """Fitted members and their weights: a predictor at points X as they are given.

    Attributes
    ----------
    weights : ndarray of shape (K,)
        Of the members; they add up to one.
    shares : ndarray of shape (K, S)
        With what probability each member is widened by each factor.
    factors : ndarray of shape (S,)
        Factors that standard deviations are widened by, the first 1.
    width : ndarray of shape (d,)
        Width of the box of the data, 0 along constant columns.
    unit : Tensor of shape (m,)
        Powers of two that all targets are in units of.
    kind : bool or str
        Which standard deviation is asked for.
    doubter : regressor or None
        Fitted member whose bars and distance say how far the others may be off.
    doubt : float
        Chance that they are.
    doubter_factor : float
        Factor of the doubter's standard deviations.
    """

    estimators: Sequence[Any]
    weights: np.ndarray
    shares: np.ndarray
    factors: np.ndarray
    width: np.ndarray
    unit: Tensor
    kind: bool | str = True
    doubter: Any = None
    doubt: float = 0.0
    doubter_factor: float = 1.0

    def _members(self, X: Tensor) -> list[MemberDensity]:
        return [MemberDensity(member, X.numpy(), self.unit) for member in self.estimators]

    def _average(self, values: Iterable[Tensor]) -> Tensor:
        return sum_of(float(w) * value for w, value in zip(self.weights, values))

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) of y: that of the mixture, by weights that are the same at all points.

        Weights by each member's bars at the point, and the median of the mixture, are no nearer to
        new targets: the bars of the members of a stack are about alike, and where means go wrong
        they do not say so.
        """
        return self._average(member.mean() for member in self._members(X))

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean."""
        each = [member.gradient(self.width) for member in self._members(X)]
        result = self._average(each)
        # Slopes beyond all numbers may point in opposite ways: the heavier ones stand.
        way = self._average(torch.where(slope.isinf(), slope.sign(), 0.0) for slope in each)
        opposed = result.isnan() & ~torch.stack(each).isnan().any(0)
        return torch.where(opposed, torch.where(way < 0, -math.inf, math.inf), result)

    # Any: no Components, but all that base classes ask of these.
    def components(self, X: Tensor, posterior: bool = True) -> Any:
        """The density of y at points X (n, d)."""
        members = self._members(X)
        moments = [member.moments() for member in members]
        trusted = 1.0 - self._doubt
        parts = [
            Part(member, float(trusted * weight * share), float(factor), mean, std)
            for member, (mean, std), weight, shares in zip(
                members, moments, self.weights, self.shares
            )
            for share, factor in zip(shares, self.factors)
            if share > 0
        ]
        density = StackedDensity(parts, self._average(mean for mean, _ in moments), self.kind)
        return density if self._doubt == 0.0 else self._doubted(density, X)

    @property
    def _doubt(self) -> float:
        return 0.0 if self.doubter is None else self.doubt

    def _doubted(self, density: StackedDensity, X: Tensor) -> StackedDensity:
        """The density with a Gaussian that is no narrower, as wide as the doubter is away."""
        member, center = MemberDensity(self.doubter, X.numpy(), self.unit), density.center
        mean, std = member.moments()
        own = sum_of(replace(density, kind=True).variances()) / (1.0 - self._doubt)
        wide = ((self.doubter_factor * std).square() + (mean - center).square()).maximum(own).sqrt()
        part = Part(member, self._doubt, 1.0, center, wide, may_be_own=False)
        return replace(density, doubt=part)

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point, members' own ones aside."""
        return PARTS * (len(self.unit) * self.shares.size + len(self.width))
