"""Means that stay plausible where the rows say little: joined with a line, within y's range."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.models.claims import WrongClaims
from skpou.core.models.components import Components
from skpou.core.models.form_error import WithFormError
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.interpolant import Interpolant
from skpou.core.models.linear_companion import LinearCompanion, share_of
from skpou.core.models.model import Predictor
from skpou.core.models.process_companion import ProcessCompanion, moved
from skpou.core.models.tails import variance_factors, with_tails

#: Power of the precision that is the step, in units of the box, of the difference quotients of the
#: companion's share: their errors by curvature and by round-off are about equal.
STEP_POWER = 1 / 3
#: Shifted points that are evaluated at a time.
MOST_SHIFTED = 4000


@dataclass(frozen=True)
class Restrained:
    """A predictor whose mean gives way where its own variance is large.

    Its density is joined with that of a linear model by precision: the product of both. A weighted
    mean with that of a Gaussian process follows, where left-out rows ask for it. And no mean leaves
    the range of y at the rows by more than this range where its standard deviation exceeds it.

    Attributes
    ----------
    model : Predictor
    companion : LinearCompanion or None
    low, high : Tensor of shape (m,)
        Smallest and largest target at the rows, in scaled units.
    bars : WithFormError, default=None
        The model whose variance knows the error of its form; None: that is not known. It counts
        for the density alone: the mean is the same with and without.
    process : ProcessCompanion, default=None
        What the mean leans on everywhere.
    degrees : ndarray of shape (m,), default=None
        Degrees of freedom by which each target's noise is known, where these are few.
    interpolant : Interpolant, default=None
        What predicts some of the targets in place of the model, where rows are few: for them
        nothing else counts.
    claims : WrongClaims, default=None
        How often components that claim exactness amid noise are wrong.
    """

    model: Predictor
    companion: LinearCompanion | None
    low: Tensor
    high: Tensor
    bars: WithFormError | None = None
    process: ProcessCompanion | None = None
    degrees: np.ndarray | None = None
    interpolant: Interpolant | None = None
    claims: WrongClaims | None = None

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m)."""
        if self._is_interpolant is not None:
            return self._within(self._is_interpolant.mean(X), X)
        mean = self._leaning(self._mean_beside_line(X), X)
        if self.interpolant is not None:
            mean = self.interpolant.instead(mean, self.interpolant.mean(X))
        return self._within(mean, X)

    @cached_property
    def _is_interpolant(self) -> Interpolant | None:
        """The interpolant, where it predicts all targets."""
        some = self.interpolant
        return some if some is not None and some.predicts_all(len(self.low)) else None

    def _mean_beside_line(self, X: Tensor) -> Tensor:
        if self.companion is None:
            return self.model.mean(X)
        # One evaluation has the mean and the variance that the companion's share needs.
        inside, parts = self._parts_inside(X)
        mean = parts.expectation() if torch.equal(X, inside) else self.model.mean(X)
        return self._joined(mean, X, parts)[0]

    def _leaning(self, mean: Tensor, X: Tensor) -> Tensor:
        """The mean beside the line, weighted with the process'."""
        return mean if self.process is None else self.process.beside(mean, X)

    def _parts_inside(self, X: Tensor) -> tuple[Tensor, Components]:
        """The nearest points of the box, and the model's density there."""
        inside = X.clamp(0, 1)
        return inside, self.model.components(inside)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean; 0 where the range of y holds it."""
        if self._is_interpolant is not None:
            mean = self._is_interpolant.mean(X)
            held = self._within(mean, X) != mean
            return self._is_interpolant.gradient(X).masked_fill(held[:, None], 0.0)
        gradient, mean = self.model.gradient(X), self.model.mean(X)
        if self.companion is not None:
            joined, share = self._joined(mean, X)
            other = self.companion.mean(X).to(mean) - mean
            bent = other[:, None] * self._share_slopes(X)
            own = self.companion.gradient().to(gradient) - gradient
            gradient, mean = gradient + share[:, None] * own + bent, joined
        if self.process is not None:
            gradient = self.process.gradient_beside(gradient, mean, X)
            mean = self._leaning(mean, X)
        if self.interpolant is not None:
            gradient = self.interpolant.instead(gradient, self.interpolant.gradient(X))
            mean = self.interpolant.instead(mean, self.interpolant.mean(X))
        held = self._within(mean, X) != mean
        return gradient.masked_fill(held[:, None], 0.0)

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d)."""
        if self._is_interpolant is not None:
            return self._held(self._is_interpolant.bars.components(X, posterior), X, posterior)
        parts = self._beside_interpolant(X, posterior)
        if self.interpolant is not None:
            parts = self.interpolant.beside(parts, X, posterior)
        return self._held(parts, X, posterior)

    def _beside_interpolant(self, X: Tensor, posterior: bool) -> Components:
        """The density of y at points X (n, d) without an interpolant and the range of y."""
        own = parts = self.model.components(X, posterior)
        if self.bars is not None and posterior:
            parts = self.bars.widened(own, X)
        if self.claims is not None:
            parts = self.claims.doubted(parts)
        if self.companion is not None:
            mean = parts.expectation()
            known = posterior and torch.equal(X, X.clamp(0, 1))
            joined, share = self._joined(mean, X, own if known else None)
            parts = moved(parts, joined - mean)
            parts = self._joined_variance(parts, X, share, own if posterior else None)
        if self.process is not None:
            parts = self.process.with_density(parts, X, posterior)
        return parts

    def _joined_variance(
        self, parts: Components, X: Tensor, share: Tensor, own: Components | None
    ) -> Components:
        """The density with the variance of the joined mean; `own` is the model's, None: no mean's.

        Noise hides as much of a line's error as it does of the form's.
        """
        epistemic = parts.epistemic * (1 - share[:, None])
        if own is None:
            return replace(parts, epistemic=epistemic)
        assert self.companion is not None
        beside = share.square() * self.companion.understated(X, parts.variances()[0]).to(share)
        hidden = None if self.bars is None else self.bars.hidden(X, own)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            squares = parts.log_pi.exp().square().sum(1, keepdim=True)
            beside = beside / squares
            hidden = None if hidden is None else hidden / squares[:, None]
        epistemic = epistemic + beside[:, None]
        if hidden is not None:
            epistemic = torch.maximum(epistemic, hidden.to(epistemic))
        return replace(parts, epistemic=epistemic)

    def _held(self, parts: Components, X: Tensor, posterior: bool) -> Components:
        """A density about a mean within the range of y, with the tails of few degrees."""
        mean = parts.expectation()
        within = self._within(mean, X)
        if within is not mean and not torch.equal(mean, within):
            parts = moved(parts, within - mean)
        if self.degrees is None or not posterior:
            return parts
        return with_tails(parts, self._factors)

    @cached_property
    def _factors(self) -> Tensor:
        assert self.degrees is not None
        return torch.as_tensor(variance_factors(self.degrees), device=self.low.device)

    def covariance(self, X: Tensor) -> Tensor:
        """Covariance (n, n, m) of the mean between points X (n, d), as far as the model has one."""
        if self._is_interpolant is not None:
            covariance = self._is_interpolant.bars.covariance(X)
        else:
            covariance = (self.bars or self.model).covariance(X)  # type: ignore[attr-defined]
            if self.companion is not None:
                root = (1 - share_of(self.companion, self.model, X)).sqrt().to(covariance)
                covariance = root[:, None] * covariance * root
            if self.interpolant is not None:
                own = self.interpolant.bars.covariance(X)
                covariance = self.interpolant.instead(covariance, own)
        if self.process is not None or self.degrees is not None:
            # Correlated as the fit's errors are, with the variance of what is predicted.
            own = covariance.diagonal(dim1=0, dim2=1).T.clamp_min(torch.finfo(X.dtype).tiny)
            root = (self.components(X).variances()[1].to(covariance) / own).sqrt()
            covariance = root[:, None] * covariance * root
        return covariance

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        beside = 0 if self.companion is None else 4 * self.companion.vectors.numel()
        beside += 0 if self.process is None else self.process.numbers_per_row()
        if self._is_interpolant is not None:
            return self._is_interpolant.bars.numbers_per_row()
        if self.interpolant is not None:
            beside += self.interpolant.bars.numbers_per_row()
        return (self.bars or self.model).numbers_per_row() + beside

    def _joined(
        self, mean: Tensor, X: Tensor, inside: Components | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mean by both precisions, and the share of the companion.

        `inside` is the density at the nearest points of the box, where it is known.
        """
        assert self.companion is not None
        share = share_of(self.companion, self.model, X, inside).to(mean)
        return mean + share * (self.companion.mean(X).to(mean) - mean), share

    def _share_slopes(self, X: Tensor) -> Tensor:
        """Derivatives (n, d, m) of the companion's share."""
        assert self.companion is not None
        n, d = X.shape
        size = torch.finfo(X.dtype).eps ** STEP_POWER
        at_once = max(1, MOST_SHIFTED // (2 * max(n, 1)))
        slopes = []
        for steps in torch.split(size * torch.eye(d, dtype=X.dtype, device=X.device), at_once):
            shifted = torch.stack([X + steps[:, None], X - steps[:, None]])
            share = share_of(self.companion, self.model, shifted.reshape(-1, d))
            above, below = share.reshape(2, len(steps), n, -1)
            slopes.append(((above - below) / (2 * size)).to(X))
        return torch.cat(slopes).movedim(0, 1)

    def _within(self, mean: Tensor, X: Tensor) -> Tensor:
        """The mean, held by y's range where it has left it far and is not known to do so."""
        spread, low, high = self._bounds(mean)
        if torch.equal(mean, torch.clamp(mean, low, high)):
            return mean
        far = torch.nonzero(((mean < low) | (mean > high)).any(1)).squeeze(1)
        if not len(far):
            return mean
        held = torch.minimum(torch.maximum(mean[far], low), high)
        variance = self._own_variance(X[far]).to(mean)
        unknown = ~(variance <= spread.square())
        result = mean.clone()
        result[far] = torch.where(unknown, held, mean[far])
        return result

    def _own_variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the mean that what predicts it knows of by itself."""
        if self._is_interpolant is not None:
            return self._is_interpolant.components(X).variances()[1]
        variance = self.model.components(X).variances()[1]
        if self.interpolant is None:
            return variance
        return self.interpolant.instead(variance, self.interpolant.variance(X))

    def _bounds(self, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Range of y, and how low and how high a mean may go, in the precision of `mean`."""
        known = self._bounds_by_precision
        if mean.dtype not in known:
            spread = (self.high - self.low).to(mean)
            known[mean.dtype] = spread, self.low.to(mean) - spread, self.high.to(mean) + spread
        return known[mean.dtype]

    @cached_property
    def _bounds_by_precision(self) -> dict[torch.dtype, tuple[Tensor, Tensor, Tensor]]:
        return {}

    def arrays(self) -> dict[str, Any]:
        """State beside the model's, as plain values and numpy arrays."""
        companion = self.companion
        return {
            "low": self.low.cpu().numpy(),
            "high": self.high.cpu().numpy(),
            "companion": None if companion is None else companion.arrays(),
            "process": None if self.process is None else self.process.arrays(),
            # Infinite where there are many, which a saved state must not be.
            "degrees": None if self.degrees is None else 1 / self.degrees,
            **({} if self.interpolant is None else {"interpolant": self.interpolant.arrays()}),
            "claims": None if self.claims is None else self.claims.arrays(),
        }

    @classmethod
    def from_arrays(
        cls,
        model: Predictor,
        arrays: dict[str, Any],
        like: Tensor,
        bars: WithFormError | None = None,
    ) -> Restrained:
        """Rebuild around a model, and it with `bars`, from `arrays`, on the device of `like`."""
        companion, process = arrays["companion"], arrays.get("process")
        degrees, interpolant = arrays.get("degrees"), arrays.get("interpolant")
        claims = arrays.get("claims")
        low, high = (
            torch.tensor(np.asarray(arrays[k]), device=like.device) for k in ("low", "high")
        )
        return cls(
            model,
            None if companion is None else LinearCompanion.from_arrays(companion, like),
            low,
            high,
            bars,
            None if process is None else ProcessCompanion.from_arrays(process, like),
            None
            if degrees is None
            else np.where(degrees > 0, 1 / np.maximum(degrees, 1e-9), np.inf),
            None if interpolant is None else Interpolant.from_arrays(interpolant, like),
            None if claims is None else WrongClaims(**claims),
        )


def restrained(
    model: Predictor,
    companion: LinearCompanion | None,
    rows: Rows,
    process: ProcessCompanion | None = None,
    degrees: np.ndarray | None = None,
    interpolant: Interpolant | None = None,
    claims: WrongClaims | None = None,
) -> Restrained:
    """A fitted model with what its mean leans on and the range of y at the rows."""
    y = rows.y.double()
    return Restrained(
        model,
        companion,
        y.amin(0),
        y.amax(0),
        process=process,
        degrees=degrees,
        interpolant=interpolant,
        claims=claims,
    )
