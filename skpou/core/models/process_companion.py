"""A Gaussian process on the same rows: where left-out rows ask for it, the mean leans on it.

What a form errs by on few rows with noise is variance for the most part, and that of two unlike
models is not the same: a weighted mean of both errs by less than either [1]_. The weight is the one
under which left-out errors are least, drawn towards one half where few rows tell. Where the process
knows less of itself than at the rows that told its weight, it has less: far from all rows it knows
nothing. The variance is that of either, or between both, whichever left-out errors are likeliest
under.

Of many columns, as those of spectra, the process sees principal components of equal range. Columns
whose values are placed so, as doses are, it sees stretched by a logarithm, where that is likelier.

References
----------
.. [1] L. Breiman, "Stacked regressions", Machine Learning 24 (1996).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.core import TensorState
from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.likely_kernels import GAUSSIAN, MATERN, correlation, stretched
from skpou.core.models.relevance import CONSTANT

#: Numbers held for each point and row: distances, kernels, also about the centre, their slopes and
#: products.
NUMBERS_A_ROW = 8


class _Process(NamedTuple):
    """What no query changes of one target.

    Rates (q,), rows times the rates (k, q), variances of line and process, whether that is rough,
    the kernel's weights (k,), the mean without line and kernel, and slopes (q,) of the line.
    """

    rates: Tensor
    points: Tensor
    of_line: Tensor
    of_process: Tensor
    rough: bool
    coef: Tensor
    level: Tensor
    slope: Tensor


class _Kernel(NamedTuple):
    """Covariances (n, k) with the rows, the part that is not the line's, and how that falls."""

    whole: Tensor
    bent: Tensor
    fall: Tensor


class _AtPoints(NamedTuple):
    """Points (n, q) in the coordinates of the kernels, and these; None of a target of no weight.

    And the slopes (n, d) of the coordinates, where columns are stretched, and the points about the
    centre.
    """

    X: Tensor
    kernels: list[_Kernel | None]
    slope: Tensor | None
    centred: Tensor

    def of_targets(self, of_one: Callable[[int, _Kernel], Tensor], like: Tensor) -> Tensor:
        """What is asked for of every target with a weight, on a last axis; 0 for the others."""
        found = [
            like if kernel is None else of_one(k, kernel) for k, kernel in enumerate(self.kernels)
        ]
        return torch.stack(found, -1) if len(found) > 1 else found[0][..., None]


@dataclass(frozen=True)
class ProcessCompanion(TensorState):
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
    usual : Tensor of shape (m,)
        Part of the process that is known at the rows that told the weight.
    part : Tensor of shape (m,)
        Share of the process' variance in that of the weighted mean.
    rough : Tensor of shape (m,), default=None
        Whether the kernel is that of a rough process. None: all are smooth.
    directions : Tensor of shape (d, q), default=None
        The process sees these combinations of the columns; `points` are in their coordinates. None:
        the columns.
    stretches : Tensor of shape (d,), default=None
        By how much ends of the box are drawn out along each column, see `stretched`; `points` are
        in the coordinates after it, which there are without `directions` only. None: nowhere.
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
    usual: Tensor
    part: Tensor
    rough: Tensor | None = None
    directions: Tensor | None = None
    stretches: Tensor | None = None

    def without(self, targets: Tensor) -> ProcessCompanion | None:
        """The same with no weight for some targets; None where none is left."""
        share = self.share.clone()
        share[targets] = 0.0
        return replace(self, share=share) if bool((share > 0).any()) else None

    def _seen(self, X: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points in the coordinates of the kernel, and the slopes of stretched ones."""
        X = X.to(self.points)
        if self.stretches is not None:
            return stretched(X, self.stretches.tolist(), torch)
        return (X if self.directions is None else X @ self.directions), None

    @cached_property
    def _processes(self) -> list[_Process]:
        """Those of all targets, with all that no query changes."""
        rough = [False] * len(self.rates) if self.rough is None else self.rough.tolist()
        processes = []
        for k, (rates, (of_line, of_process, _)) in enumerate(
            zip(self.rates, self.variances, strict=True)
        ):
            coef = self.coef[:, k]
            processes.append(
                _Process(
                    rates,
                    self.points * rates,
                    of_line,
                    of_process,
                    bool(rough[k]),
                    coef,
                    self.intercept[k] + CONSTANT * coef.sum(),
                    of_line * coef @ self._about_centre,
                )
            )
        return processes

    @cached_property
    def _about_centre(self) -> Tensor:
        return self.points - self.centre

    @cached_property
    def _is_used(self) -> list[bool]:
        """Which targets have a weight."""
        return [bool(part) for part in self.share.tolist()]

    def _kernel(self, X: Tensor, target: int, centred: Tensor) -> _Kernel:
        """Covariances with the rows at points (n, q) in the kernel's coordinates."""
        own = self._processes[target]
        distance = torch.cdist(
            X * own.rates, own.points, compute_mode="donot_use_mm_for_euclid_dist"
        )
        kind = MATERN if own.rough else GAUSSIAN
        value, steep = correlation(distance.square(), kind, torch)
        bent = own.of_process * value
        fall = bent if steep is value else own.of_process * steep
        line = centred @ self._about_centre.T
        return _Kernel(CONSTANT + own.of_line * line + bent, bent, fall)

    def _at(self, X: Tensor) -> _AtPoints:
        """What values, variances and their gradients at scaled points X (n, d) are made of."""
        X, slope = self._seen(X)
        centred = X - self.centre
        kernels = [
            self._kernel(X, k, centred) if used else None for k, used in enumerate(self._is_used)
        ]
        return _AtPoints(X, kernels, slope, centred)

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        return self._mean(self._at(X))

    def _mean(self, at: _AtPoints) -> Tensor:
        def of_one(k: int, kernel: _Kernel) -> Tensor:
            # Constant and line apart, whose parts cancel; and the same bits in any block.
            own = self._processes[k]
            bent = (kernel.bent * own.coef).sum(1)
            line = (at.centred * own.slope).sum(1)
            return own.level + line + bent

        return at.of_targets(of_one, torch.zeros_like(at.X[:, 0]))

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the values."""
        return self._gradient(self._at(X))

    def _gradient(self, at: _AtPoints) -> Tensor:
        def of_one(k: int, kernel: _Kernel) -> Tensor:
            own = self._processes[k]
            return self._bend(at.X, kernel.fall * own.coef, k) + own.slope

        return self._in_columns(at.of_targets(of_one, torch.zeros_like(at.X)), at)

    def _bend(self, X: Tensor, pull: Tensor, target: int) -> Tensor:
        """Gradient (n, q) of sums of the kernel's bent part, each fall times its weight, `pull`."""
        inner = pull @ self.points - X * pull.sum(1, keepdim=True)
        return self.rates[target].square() * inner

    def _in_columns(self, gradient: Tensor, at: _AtPoints) -> Tensor:
        """Gradients (n, q, m) in the kernel's coordinates as those (n, d, m) in the columns."""
        if at.slope is not None:
            return gradient * at.slope[..., None]
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
            K = self._kernel(self.points, target, self._about_centre).whole
            K.diagonal().add_(noise / self.weight)
            factors.append(torch.linalg.cholesky(K))
        return factors

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values, without the noise's."""
        return self._variance(self._at(X))

    def _variance(self, at: _AtPoints) -> Tensor:
        def of_one(k: int, kernel: _Kernel) -> Tensor:
            own = self._processes[k]
            columns = torch.linalg.solve_triangular(self._factors[k], kernel.whole.T, upper=False)
            line = own.of_line * at.centred.square().sum(1)
            prior = CONSTANT + own.of_process + line
            return (prior - columns.square().sum(0)).clamp_min(0)

        return at.of_targets(of_one, torch.zeros_like(at.X[:, 0]))

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

    def _variance_gradient(self, at: _AtPoints) -> Tensor:
        """Gradient (n, d, m) of the variance."""

        def of_one(k: int, kernel: _Kernel) -> Tensor:
            solved = torch.cholesky_solve(kernel.whole.T, self._factors[k]).T
            pull = self._bend(at.X, solved * kernel.fall, k)
            from_line = at.centred - solved @ self._about_centre
            return 2 * (self._processes[k].of_line * from_line - pull)

        return self._in_columns(at.of_targets(of_one, torch.zeros_like(at.X)), at)

    def _told(self, variance: Tensor) -> Tensor:
        """Part (n, m) of the process that is known, of that at its rows, for its variance there."""
        return known_part(variance, self.variances[:, 1]) / self.usual

    def weight_at(self, X: Tensor, variance: Tensor | None = None) -> Tensor:
        """Weight (n, m) beside a fit's; `variance` is that of the values, where it is known."""
        variance = self.variance(X) if variance is None else variance
        return self.share * self._told(variance).clamp_max(1)

    def _weight(self, at: _AtPoints) -> Tensor:
        """The same where the kernels are known."""
        return self.share * self._told(self._variance(at)).clamp_max(1)

    def beside(self, mean: Tensor, X: Tensor) -> Tensor:
        """The weighted mean (n, m) with a fit's at the same points."""
        at = self._at(X)
        return mean + self._weight(at).to(mean) * (self._mean(at).to(mean) - mean)

    def gradient_beside(self, gradient: Tensor, mean: Tensor, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the weighted mean with a fit's gradient and mean."""
        at = self._at(X)
        weight = self._weight(at)
        step = self._gradient(at).to(gradient) - gradient
        gradient = gradient + weight.to(gradient)[:, None] * step
        variance = self._variance(at)
        bends = (self._told(variance) < 1) & (variance < self.variances[:, 1])
        bend = -bends.to(variance) * self.share / (self.usual * self.variances[:, 1])
        apart = self._mean(at) - mean.to(self.points)
        return gradient + ((bend * apart)[:, None] * self._variance_gradient(at)).to(gradient)

    def with_density(self, parts: Components, X: Tensor, posterior: bool = True) -> Components:
        """A fit's density about the weighted mean, with the variance of both."""
        at = self._at(X)
        mean, values = parts.expectation(), self._variance(at)
        step = self._mean(at).to(mean) - mean
        share = self.weight_at(X, values).to(mean)
        part = torch.where(share > 0, self.part.to(mean), 0.0)
        part = part * self._told(values).to(mean).clamp_max(1)
        factor = torch.where(share > 0, self.factor.to(mean), 1.0)
        of_own, of_other = (1 - part) * factor, part * factor
        # No left-out row has told which goes on better outside the box: no variance is less there.
        outside = (X != X.clamp(0, 1)).any(1, keepdim=True)
        of_own = torch.where(outside, of_own.clamp_min(1), of_own)
        # The components come closer as their own variances count for less.
        closer = of_own.sqrt().clamp_max(1)
        parts, apart = drawn_together(parts, closer)
        beside = factor * share * (1 - share) * step.square() + (of_own - closer.square()) * apart
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

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        k, d = self.points.shape
        return NUMBERS_A_ROW * k + d * (1 + self.coef.shape[1])


def known_part(variance: Any, prior: Any) -> Any:
    """Part of a process that is known: the prior variance has been cut by it."""
    return (1 - variance / prior).clip(0)


def drawn_together(parts: Components, closer: Tensor) -> tuple[Components, Tensor]:
    """Components whose distances from the mean are multiplied, and their former mean square."""
    if parts.mean.shape[1] == 1:
        return parts, torch.zeros_like(closer)
    mean = parts.expectation()[:, None]
    apart = parts.mean - mean
    square = (parts._shares() * apart.square()).sum(1)
    return replace(parts, mean=mean + closer[:, None] * apart), square


def moved(parts: Components, step: Tensor) -> Components:
    """The same components about another mean."""
    if isinstance(parts, IndependentComponents) and parts.center is not None:
        return replace(parts, mean=parts.mean + step[:, None], center=parts.center + step)
    return replace(parts, mean=parts.mean + step[:, None])
