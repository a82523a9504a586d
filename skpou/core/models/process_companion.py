"""A Gaussian process on the same rows: where left-out rows ask for it, the mean leans on it.

What a form errs by on few rows with noise is variance for the most part, and that of two unlike
models is not the same: a weighted mean of both errs by less than either [1]_. The weight is the one
under which left-out errors are least, drawn towards one half where few rows tell. Where the process
knows less of itself than at the rows that told its weight, it has less: far from all rows it knows
nothing. The variance is that of either, or between both, whichever left-out errors are likeliest
under.

Of many columns, as those of spectra, the process sees principal components of equal range.

References
----------
.. [1] L. Breiman, "Stacked regressions", Machine Learning 24 (1996).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.relevance import CONSTANT, gaussian, matern


@dataclass(frozen=True)
class ProcessCompanion:
    """Gaussian processes of all targets (m of them), each with a kernel and a weight.

    Attributes
    ----------
    points : Tensor of shape (k, d)
        Rows in scaled units.
    weight : Tensor of shape (k,)
        Their noise is divided by it.
    rates : Tensor of shape (m, d)
        Reciprocals of the lengths.
    variances : Tensor of shape (m, 3)
        Of line, process and noise.
    centre : Tensor of shape (d,)
        Where the line is zero.
    intercept : Tensor of shape (m,)
        Mean of the targets.
    coef : Tensor of shape (k, m)
        Weights of the kernel's values.
    share : Tensor of shape (m,)
        Weight beside the fit's; what has none is not evaluated.
    factor : Tensor of shape (m,)
        Of the variance of the weighted mean, that left-out errors ask for.
    usual : Tensor of shape (m,), default=None
        Part of the process that is known at the rows that told the weight. None: that is the same
        everywhere.
    part : Tensor of shape (m,), default=None
        Share of the process' variance in that of the weighted mean. None: that is the variance of a
        mixture of both, whose components stay as far apart as they are.
    rough : Tensor of shape (m,), default=None
        Whether the kernel is that of a rough process. None: all are smooth.
    directions : Tensor of shape (d, q), default=None
        The process sees these combinations of the columns; `points` are in their coordinates. None:
        the columns.
    """

    points: Tensor
    weight: Tensor
    rates: Tensor
    variances: Tensor
    centre: Tensor
    intercept: Tensor
    coef: Tensor
    share: Tensor
    factor: Tensor
    usual: Tensor | None = None
    part: Tensor | None = None
    rough: Tensor | None = None
    directions: Tensor | None = None

    def _seen(self, X: Tensor) -> Tensor:
        """Points in the coordinates of the kernel."""
        X = X.to(self.points)
        return X if self.directions is None else X @ self.directions

    def _kernel(self, X: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances (n, k) with the rows, the part that is not the line's, and how that falls."""
        rates, (of_line, of_process, _) = self.rates[target], self.variances[target]
        distance = torch.cdist(
            X * rates, self.points * rates, compute_mode="donot_use_mm_for_euclid_dist"
        )
        of_kind = matern if self.rough is not None and bool(self.rough[target]) else gaussian
        bent, fall = (of_process * part for part in of_kind(distance.square()))
        line = (X - self.centre) @ (self.points - self.centre).T
        return CONSTANT + of_line * line + bent, bent, fall

    def _of_targets(self, of_one: Callable[[int], Tensor], like: Tensor) -> Tensor:
        """What is asked for of every target with a weight, on a last axis; 0 for the others."""
        some = self.share.tolist()
        return torch.stack([of_one(k) if part else like for k, part in enumerate(some)], -1)

    def _slope(self, target: int) -> Tensor:
        """Slopes (d,) of the line."""
        return self.variances[target, 0] * self.coef[:, target] @ (self.points - self.centre)

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            coef = self.coef[:, k]
            bent = (self._kernel(X, k)[1] * coef).sum(1)
            line = ((X - self.centre) * self._slope(k)).sum(1)
            return self.intercept[k] + CONSTANT * coef.sum() + line + bent

        return self._of_targets(of_one, torch.zeros_like(X[:, 0]))

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            pull = self._kernel(X, k)[2] * self.coef[:, k]
            return self._bend(X, pull, k) + self._slope(k)

        return self._in_columns(self._of_targets(of_one, torch.zeros_like(X)))

    def _bend(self, X: Tensor, pull: Tensor, target: int) -> Tensor:
        """Gradient (n, q) of sums of the kernel's bent part, each fall times its weight, `pull`."""
        inner = pull @ self.points - X * pull.sum(1, keepdim=True)
        return self.rates[target].square() * inner

    def _in_columns(self, gradient: Tensor) -> Tensor:
        """Gradients (n, q, m) in the kernel's coordinates as those (n, d, m) in the columns."""
        if self.directions is None:
            return gradient
        return torch.einsum("dq,nqm->ndm", self.directions, gradient)

    @property
    def noise(self) -> Tensor:
        """Variance (m,) of the noise."""
        return self.variances[:, 2]

    @cached_property
    def _factors(self) -> list[Tensor]:
        factors = []
        for target, noise in enumerate(self.noise):
            K = self._kernel(self.points, target)[0]
            K.diagonal().add_(noise / self.weight)
            factors.append(torch.linalg.cholesky(K))
        return factors

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values, without the noise's."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            kernel = self._kernel(X, k)[0]
            columns = torch.linalg.solve_triangular(self._factors[k], kernel.T, upper=False)
            line = self.variances[k, 0] * (X - self.centre).square().sum(1)
            prior = CONSTANT + self.variances[k, 1] + line
            return (prior - columns.square().sum(0)).clamp_min(0)

        return self._of_targets(of_one, torch.zeros_like(X[:, 0]))

    def left_out(self, sets: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Errors (l, m) at rows that are left out in sets, and their variances (l, m)."""
        of_targets = []
        for factor, coef in zip(self._factors, self.coef.T, strict=True):
            inverse = torch.cholesky_inverse(factor)
            errors, variances = [], []
            for part in sets:
                index = torch.as_tensor(part, device=inverse.device)
                block = torch.linalg.inv(inverse[index][:, index])
                errors.append(block @ coef[index])
                variances.append(block.diagonal())
            of_targets.append((torch.cat(errors), torch.cat(variances)))
        error, variance = (torch.stack(part, 1) for part in zip(*of_targets, strict=True))
        return error, variance

    def _variance_gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the variance."""
        X = self._seen(X)

        def of_one(k: int) -> Tensor:
            kernel, _, fall = self._kernel(X, k)
            solved = torch.cholesky_solve(kernel.T, self._factors[k]).T
            pull = self._bend(X, solved * fall, k)
            from_line = X - self.centre - solved @ (self.points - self.centre)
            return 2 * (self.variances[k, 0] * from_line - pull)

        return self._in_columns(self._of_targets(of_one, torch.zeros_like(X)))

    def _told(self, variance: Tensor) -> Tensor:
        """Part (n, m) of the process that is known, of that at its rows, for its variance there."""
        assert self.usual is not None
        return known_part(variance, self.variances[:, 1]) / self.usual

    def weight_at(self, X: Tensor, variance: Tensor | None = None) -> Tensor:
        """Weight (n, m) beside a fit's; `variance` is that of the values, where it is known."""
        if self.usual is None:
            return self.share.expand(len(X), -1)
        variance = self.variance(X) if variance is None else variance
        return self.share * self._told(variance).clamp_max(1)

    def beside(self, mean: Tensor, X: Tensor) -> Tensor:
        """The weighted mean (n, m) with a fit's at the same points."""
        return mean + self.weight_at(X).to(mean) * (self.mean(X).to(mean) - mean)

    def gradient_beside(self, gradient: Tensor, mean: Tensor, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the weighted mean with a fit's gradient and mean."""
        weight = self.weight_at(X)
        step = self.gradient(X).to(gradient) - gradient
        gradient = gradient + weight.to(gradient)[:, None] * step
        if self.usual is None:
            return gradient
        variance = self.variance(X)
        bends = (self._told(variance) < 1) & (variance < self.variances[:, 1])
        bend = -bends.to(variance) * self.share / (self.usual * self.variances[:, 1])
        apart = self.mean(X) - mean.to(self.points)
        return gradient + ((bend * apart)[:, None] * self._variance_gradient(X)).to(gradient)

    def with_density(self, parts: Components, X: Tensor, posterior: bool = True) -> Components:
        """A fit's density about the weighted mean, with the variance of both."""
        if self.part is None:
            return self._as_mixture(parts, X, posterior)
        mean, values = parts.expectation(), self.variance(X)
        step = self.mean(X).to(mean) - mean
        share = self.weight_at(X, values).to(mean)
        part = torch.where(share > 0, self.part.to(mean), 0.0)
        part = part * self._told(values).to(mean).clamp_max(1) if self.usual is not None else part
        factor = torch.where(share > 0, self.factor.to(mean), 1.0)
        of_own, of_other = (1 - part) * factor, part * factor
        # No left-out row has told which goes on better outside the box: no variance is less there.
        outside = (X != X.clamp(0, 1)).any(1, keepdim=True)
        of_own = torch.where(outside, of_own.clamp_min(1), of_own)
        # The components come closer as their own variances count for less.
        kept = of_own.sqrt().clamp_max(1)
        parts, apart = _drawn_together(parts, kept)
        beside = factor * share * (1 - share) * step.square() + (of_own - kept.square()) * apart
        if posterior:
            beside = beside + of_other * values.to(mean)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            beside = beside / parts.log_pi.exp().square().sum(1, keepdim=True)
        parts = moved(parts, share * step)
        return replace(
            parts,
            noise=parts.noise * of_own[:, None] + (of_other * self.noise.to(mean))[:, None],
            epistemic=parts.epistemic * of_own[:, None] + beside[:, None],
        )

    def _as_mixture(self, parts: Components, X: Tensor, posterior: bool) -> Components:
        """The same with the variance of a mixture of both."""
        noise, epistemic = parts.variances()
        own, mean = noise + epistemic, parts.expectation()
        step = self.mean(X).to(mean) - mean
        share = self.share.to(mean)
        other = self.noise.to(mean).expand_as(mean)
        if posterior:
            other = other + self.variance(X).to(mean)
        total = (1 - share) * own + share * other + share * (1 - share) * step.square()
        total = torch.where(share > 0, self.factor.to(mean) * total, own)
        added = (total - own).clamp_min(0)
        if not isinstance(parts, IndependentComponents):
            added = added / parts.log_pi.exp().square().sum(1, keepdim=True)
        less = (total / own.clamp_min(torch.finfo(own.dtype).tiny)).clamp_max(1)[:, None]
        parts = moved(parts, share * step)
        return replace(
            parts, noise=parts.noise * less, epistemic=parts.epistemic * less + added[:, None]
        )

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        return 8 * len(self.points) + self.points.shape[1] * (1 + self.coef.shape[1])

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        return {
            k: v.cpu().contiguous().numpy()
            for k, v in vars(self).items()
            if k in _FIELDS and v is not None
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> ProcessCompanion:
        """Rebuild from `arrays`, in float64 on the device of `like`."""
        return cls(
            **{k: torch.tensor(np.asarray(v), device=like.device) for k, v in arrays.items()}
        )


_FIELDS = tuple(ProcessCompanion.__dataclass_fields__)


def known_part(variance: Any, prior: Any) -> Any:
    """Part of a process that is known: the prior variance has been cut by it."""
    return (1 - variance / prior).clip(0)


def _drawn_together(parts: Components, kept: Tensor) -> tuple[Components, Tensor]:
    """Components whose distances from the mean are multiplied, and their former mean square."""
    if parts.mean.shape[1] == 1:
        return parts, torch.zeros_like(kept)
    mean = parts.expectation()[:, None]
    apart = parts.mean - mean
    square = (parts._shares() * apart.square()).sum(1)
    return replace(parts, mean=mean + kept[:, None] * apart), square


def moved(parts: Components, step: Tensor) -> Components:
    """The same components about another mean."""
    if isinstance(parts, IndependentComponents) and parts.center is not None:
        return replace(parts, mean=parts.mean + step[:, None], center=parts.center + step)
    return replace(parts, mean=parts.mean + step[:, None])
