"""Means that stay plausible where the rows say little: joined with a line, within y's range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from skpou.core import Rows, to_tensor
from skpou.core.linalg import COPIES_SUMMED
from skpou.core.models.components import Components
from skpou.core.models.form_error import ROUND_OFF
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.interpolant import Interpolant
from skpou.core.models.linear_companion import FEWEST_OF_TABLE, LinearCompanion, share_of
from skpou.core.models.model import Predictor
from skpou.core.models.process_companion import ProcessCompanion, drawn_together, moved
from skpou.core.models.tails import Tails, with_tails
from skpou.core.models.with_form_error import WithFormError

#: Power of the precision that is the step, in units of the box, of the difference quotients of
#: shares: their errors by curvature and by round-off are about equal.
STEP_POWER = 1 / 3
#: Power of the distance from y's range, in units of it, by which the variance of what noise hides
#: grows: an error as large as the noise at the rows goes with the square of how far a mean goes.
HIDDEN_POWER = 4
#: Ranges of y that a mean is unsure by at most, at the box, and as many more each width of it
#: outside: a mean that is held within one range of y's errs by three where the truth leaves it by
#: two on the other side.
UNKNOWN_RANGES = 3.0
#: Shifted points that are evaluated at a time.
MOST_SHIFTED = 4000


@dataclass(frozen=True)
class Restrained:
    """A predictor whose mean gives way where its own variance is large.

    Its density is joined with that of a linear model by precision: the product of both. A weighted
    mean with that of a Gaussian process follows, where left-out rows ask for it. And where its
    standard deviation exceeds the range of y at the rows, no mean leaves this range by more than
    the range. In a table of four and more columns, whose empty corners are no continuation of
    anything, it comes back there: the share of its way that remains is the square of the range
    over its variance, to which counts what noise at the rows may hide that far away. In fewer
    columns it so comes back to its tangent, outside the box. So no mean is unsure by more than some
    ranges, the more the farther from the box: polynomials know of no such bound.

    Attributes
    ----------
    low, high : Tensor of shape (m,)
        Smallest and largest target at the rows, in scaled units.
    bars : WithFormError, default=None
        The model whose variance knows the error of its form; None: that is not known. It counts
        for the density alone: the mean is the same with and without.
    process : ProcessCompanion, default=None
        What the mean leans on everywhere.
    tails : Tails, default=None
        Those of the density; None: Gaussian ones.
    interpolant : Interpolant, default=None
        What predicts some of the targets in place of the model, where rows are few: for them
        nothing else counts.
    """

    model: Predictor
    companion: LinearCompanion | None
    low: Tensor
    high: Tensor
    bars: WithFormError | None = None
    process: ProcessCompanion | None = None
    tails: Tails | None = None
    interpolant: Interpolant | None = None

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m)."""
        return self._within(self._unheld(X), X)

    def _unheld(self, X: Tensor) -> Tensor:
        """Mean (n, m) before it is held near y's range."""
        if self._is_interpolant is not None:
            return self._is_interpolant.mean(X)
        mean = self._leaning(self._mean_beside_line(X), X)
        if self.interpolant is not None:
            mean = self.interpolant.instead(mean, self.interpolant.mean(X))
        return mean

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
        mean = parts.expectation() if inside is X else self.model.mean(X)
        return self._joined(self.companion, mean, X, parts)[0]

    def _leaning(self, mean: Tensor, X: Tensor) -> Tensor:
        """The mean beside the line, weighted with the process'."""
        return mean if self.process is None else self.process.beside(mean, X)

    def _parts_inside(self, X: Tensor) -> tuple[Tensor, Components]:
        """The nearest points of the box, and the model's density there."""
        inside = X.clamp(0, 1)
        inside = X if torch.equal(X, inside) else inside
        return inside, self.model.components(inside)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean."""
        return self._gradient_within(*self._unheld_gradient(X), X)

    def _unheld_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (n, d, m) of the mean before it is held near y's range, and that mean."""
        if self._is_interpolant is not None:
            return self._is_interpolant.gradient(X), self._is_interpolant.mean(X)
        gradient, mean = self.model.gradient(X), self.model.mean(X)
        if self.companion is not None:
            joined, share = self._joined(self.companion, mean, X)
            other = self.companion.mean(X).to(mean) - mean
            bent = other[:, None] * self._share_slopes(self.companion, X)
            own = self.companion.gradient().to(gradient) - gradient
            gradient, mean = gradient + share[:, None] * own + bent, joined
        if self.process is not None:
            gradient = self.process.gradient_beside(gradient, mean, X)
            mean = self._leaning(mean, X)
        if self.interpolant is not None:
            gradient = self.interpolant.instead(gradient, self.interpolant.gradient(X))
            mean = self.interpolant.instead(mean, self.interpolant.mean(X))
        return gradient, mean

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
        usual = None
        if self.bars is not None and posterior:
            usual = self.bars.usually_hidden(X)
            parts = self.bars.widened(own, X, usual)
        if self.companion is not None:
            mean = parts.expectation()
            known = posterior and torch.equal(X, X.clamp(0, 1))
            joined, share = self._joined(self.companion, mean, X, own if known else None)
            parts = moved(parts, joined - mean)
            parts = self._joined_variance(
                self.companion, parts, X, share, own if posterior else None, usual
            )
        if self.process is not None:
            parts = self.process.with_density(parts, X, posterior)
        return parts

    def _joined_variance(
        self,
        companion: LinearCompanion,
        parts: Components,
        X: Tensor,
        share: Tensor,
        own: Components | None,
        usual: Tensor | None,
    ) -> Components:
        """The density with the variance of the joined mean; `own` is the model's, None: no mean's.

        Noise is no more than what a line leaves at the rows, as far as the mean is the line's, and
        hides as much of a line's error as it does of the form's: `usual` by its usual size.
        """
        epistemic = parts.epistemic * (1 - share[:, None])
        parts, part = _with_noise_of_line(companion, parts, share)
        if own is None:
            return replace(parts, epistemic=epistemic)
        beside = share.square() * companion.understated(X, parts.variances()[0]).to(share)
        claimed = replace(own, noise=own.noise * part)
        hidden = None if self.bars is None else self.bars.hidden(X, claimed, usual)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            squares = parts.log_pi.exp().square().sum(1, keepdim=True)
            beside = beside / squares
            hidden = None if hidden is None else hidden / squares[:, None]
        epistemic = (epistemic + beside[:, None]).clamp_min(ROUND_OFF**2)
        if hidden is not None:
            epistemic = torch.maximum(epistemic, hidden.to(epistemic))
        return replace(parts, epistemic=epistemic)

    def _held(self, parts: Components, X: Tensor, posterior: bool) -> Components:
        """A density about a mean within the range of y, with the tails of few degrees."""
        mean = parts.expectation()
        within = self._within(mean, X)
        if within is not mean and not torch.equal(mean, within):
            parts = moved(parts, within - mean)
        if posterior:
            most = self._largest_variance(X).to(parts.epistemic)[:, None]
            # Not a number is no knowledge either.
            parts = replace(parts, epistemic=parts.epistemic.fmin(most))
        factors = self._factors[parts.mean.shape[1] > 1] if posterior else None
        return parts if factors is None else with_tails(parts, factors)

    def _largest_variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of a mean that nothing is known of but y's range; inf without range."""
        outside = torch.linalg.vector_norm(X - X.clamp(0, 1), dim=1, keepdim=True)
        spread = self._range(X)[0]
        most = (UNKNOWN_RANGES * (1 + outside) * spread).square()
        return torch.where(spread > 0, most, torch.inf)

    @cached_property
    def _factors(self) -> list[Tensor | None]:
        """Factors of the variance by the tails of a single Gaussian and of a mixture."""
        if self.tails is None:
            return [None, None]
        found = (self.tails.factors(is_mixture) for is_mixture in (False, True))
        return [
            one if one is None else torch.as_tensor(one, device=self.low.device) for one in found
        ]

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
        own = covariance.diagonal(dim1=0, dim2=1).T.clamp_min(torch.finfo(X.dtype).tiny)
        beyond = bool((own > self._largest_variance(X).to(own)).any())
        if beyond or self.process is not None or self.tails is not None:
            # Correlated as the fit's errors are, with the variance of what is predicted.
            root = (self.components(X).variances()[1].to(covariance) / own).sqrt()
            covariance = root[:, None] * covariance * root
        return covariance

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        companion = self.companion
        beside = 0 if companion is None else COPIES_SUMMED * companion.vectors.numel()
        beside += 0 if self.process is None else self.process.numbers_per_row()
        if self._is_interpolant is not None:
            return self._is_interpolant.bars.numbers_per_row()
        if self.interpolant is not None:
            beside += self.interpolant.bars.numbers_per_row()
        return (self.bars or self.model).numbers_per_row() + beside

    def _joined(
        self, companion: LinearCompanion, mean: Tensor, X: Tensor, inside: Components | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mean by both precisions, and the share of the companion.

        `inside` is the density at the nearest points of the box, where it is known.
        """
        share = share_of(companion, self.model, X, inside).to(mean)
        return mean + share * (companion.mean(X).to(mean) - mean), share

    def _share_slopes(self, companion: LinearCompanion, X: Tensor) -> Tensor:
        """Derivatives (n, d, m) of the companion's share."""
        return _slopes(lambda points: share_of(companion, self.model, points), X)

    def _within(self, mean: Tensor, X: Tensor) -> Tensor:
        """The mean, held near y's range where it has left it and is not known to do so."""
        mean = self._along_tangent(mean, X)
        spread, low, high = self._range(mean)
        inside = torch.clamp(mean, low, high)
        if torch.equal(inside, mean):
            return mean
        beyond = mean - inside
        left = self._outside(beyond, spread, X)
        if not len(left):
            return mean
        unknown, share = self._share_outside(X[left])
        drawn = inside[left] + share.to(mean) * beyond[left].clamp(-spread, spread)
        if not _is_table(X):
            drawn = self._back_to_tangent(drawn, beyond[left], X[left])
        result = mean.clone()
        result[left] = torch.where(unknown, drawn, mean[left])
        return result

    def _back_to_tangent(self, drawn: Tensor, beyond: Tensor, X: Tensor) -> Tensor:
        """Held means that have left y's range by `beyond`, nearer their tangent at the box.

        Where a mean runs away nothing says that the truth does. Of its way from the tangent remains
        the square of y's range over what it has left that by: none of a jump where it is held.
        """
        result, near = drawn.clone(), X.clamp(0, 1)
        outside = torch.nonzero((X != near).any(1)).squeeze(1)
        if not len(outside):
            return result
        near, step = near[outside], X[outside] - near[outside]
        tangent = self.mean(near) + (self._unheld_gradient(near)[0] * step[..., None]).sum(1)
        spread, low, high = self._range(tangent)
        tangent = tangent.clamp(low - spread, high + spread)
        share = (spread / beyond[outside].abs()).square().nan_to_num(0.0).clamp_max(1)
        result[outside] = torch.lerp(tangent, drawn[outside], share)
        return result

    def _gradient_within(self, gradient: Tensor, mean: Tensor, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of `_within` from that of the mean."""
        along = self._along_tangent(mean, X)
        if along is not mean:
            slopes = _slopes(lambda points: self._along_tangent(self._unheld(points), points), X)
            gradient = torch.where((along != mean)[:, None], slopes, gradient)
            mean = along
        spread, low, high = self._range(mean)
        beyond = mean - torch.clamp(mean, low, high)
        left = self._outside(beyond, spread, X)
        if not len(left):
            return gradient
        unknown = self._share_outside(X[left])[0] & (beyond[left] != 0)
        some = unknown.any(1)
        left, unknown = left[some], unknown[some]
        if not len(left):
            return gradient
        result = gradient.clone()
        result[left] = torch.where(unknown[:, None], _slopes(self.mean, X[left]), gradient[left])
        return result

    def _along_tangent(self, mean: Tensor, X: Tensor) -> Tensor:
        """The mean, nearer its tangent at the box where a process knows nothing beyond that.

        A smooth kernel goes on as a polynomial of high degree. Of what it leaves the tangent by
        remains the square of y's range over its variance.
        """
        if self.interpolant is None or _is_table(X) or torch.equal(X, X.clamp(0, 1)):
            return mean
        targets, near = self.interpolant.targets, X.clamp(0, 1)
        squares = (self.high - self.low).double().square()[targets]
        outside = torch.nonzero((X != near).any(1)).squeeze(1)
        variance = self.interpolant.variance(X[outside]).double()
        unknown = ~(variance <= squares).all(1)  # Not a number is no knowledge either.
        if not unknown.any():
            return mean
        left, near = outside[unknown], near[outside[unknown]]
        rise = (self.interpolant.gradient(near) * (X[left] - near)[..., None]).sum(1)
        tangent = self.interpolant.mean(near) + rise
        share = (squares / variance[unknown]).nan_to_num(0.0).clamp_max(1)
        own = mean[left]
        own[:, targets] = torch.lerp(tangent.to(mean), own[:, targets], share.to(mean))
        result = mean.clone()
        result[left] = own
        return result

    def _outside(self, beyond: Tensor, spread: Tensor, X: Tensor) -> Tensor:
        """Numbers of the points whose mean may be held, from how far it has left y's range."""
        far = beyond != 0 if _is_table(X) else ~(beyond.abs() <= spread)
        return torch.nonzero(far.any(1)).squeeze(1)

    def _share_outside(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a mean is unknown (n, m), and the share that remains of what it has left by."""
        noise, variance = (part.double() for part in self._own_variances(X))
        if _is_table(X):
            variance = variance + noise * self._ranges_beyond(X).pow(HIDDEN_POWER)
        squares = (self.high - self.low).double().square().to(variance.device)
        unknown = ~(variance <= squares)  # Not a number is no knowledge either.
        if not _is_table(X):
            return unknown, torch.ones_like(variance)
        return unknown, torch.where(unknown, (squares / variance).nan_to_num(0.0), 1.0)

    def _ranges_beyond(self, X: Tensor) -> Tensor:
        """How far (n, m) the mean has left y's range, in units of it."""
        mean = self._unheld(X)
        spread, low, high = self._range(mean)
        beyond = (mean - mean.clamp(low, high)).abs() / spread
        return torch.where(spread > 0, beyond, 0.0).double()

    def _own_variances(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Variances (n, m) by noise and of the mean that what predicts it knows of by itself."""
        if self._is_interpolant is not None:
            return self._is_interpolant.components(X).variances()
        noise, variance = self.model.components(X).variances()
        if self.companion is not None:
            # A line that is nearly exact knows what is beyond all rows, as no bend does.
            share, own = share_of(self.companion, self.model, X), variance.double()
            of_line = share.square() * self.companion.variance_of_form(X)
            joined = (1 - share).square() * own + of_line
            noise = torch.where(joined < own, self.companion.noise.minimum(noise), noise)
            variance = torch.fmin(own, joined)
        if self.interpolant is not None:
            variance = self.interpolant.instead(variance, self.interpolant.variance(X))
        return noise, variance

    def _range(self, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Width and ends of the range of y, in the precision of `mean`."""
        known = self._range_by_precision
        if mean.dtype not in known:
            low, high = self.low.to(mean), self.high.to(mean)
            known[mean.dtype] = (self.high - self.low).to(mean), low, high
        return known[mean.dtype]

    @cached_property
    def _range_by_precision(self) -> dict[torch.dtype, tuple[Tensor, Tensor, Tensor]]:
        return {}

    def arrays(self) -> dict[str, Any]:
        """State beside the model's, as plain values and numpy arrays."""
        companion = self.companion
        return {
            "low": self.low.cpu().numpy(),
            "high": self.high.cpu().numpy(),
            "companion": None if companion is None else companion.arrays(),
            "process": None if self.process is None else self.process.arrays(),
            "tails": None if self.tails is None else self.tails.arrays(),
            **({} if self.interpolant is None else {"interpolant": self.interpolant.arrays()}),
        }

    @classmethod
    def from_arrays(cls, model: Predictor, arrays: dict[str, Any], like: Tensor) -> Restrained:
        """Rebuild around a model from `arrays`, on the device of `like`; `bars` are not known."""
        companion, process = arrays["companion"], arrays.get("process")
        interpolant = arrays.get("interpolant")
        low, high = (to_tensor(arrays[k], like) for k in ("low", "high"))
        return cls(
            model,
            None if companion is None else LinearCompanion.from_arrays(companion, like),
            low,
            high,
            process=None if process is None else ProcessCompanion.from_arrays(process, like),
            tails=Tails.from_arrays(arrays),
            interpolant=None if interpolant is None else Interpolant.from_arrays(interpolant, like),
        )


def _is_table(X: Tensor) -> bool:
    """Whether points have as many columns as those of a table."""
    return X.shape[1] >= FEWEST_OF_TABLE


def _with_noise_of_line(
    companion: LinearCompanion, parts: Components, share: Tensor
) -> tuple[Components, Tensor]:
    """The density with the noise of the line by its share, and what part (n, 1, m) that is."""
    part = companion.part_of_noise(parts.variances()[0], share)
    parts, _ = drawn_together(parts, part.sqrt())
    return replace(parts, noise=parts.noise * part[:, None]), part[:, None]


def _slopes(function: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    """Derivatives (n, d, m) of a function (n, m) of points X (n, d), by central differences."""
    n, d = X.shape
    size = torch.finfo(X.dtype).eps ** STEP_POWER
    at_once = max(1, MOST_SHIFTED // (2 * max(n, 1)))
    slopes = []
    for steps in torch.split(size * torch.eye(d, dtype=X.dtype, device=X.device), at_once):
        shifted = torch.stack([X + steps[:, None], X - steps[:, None]])
        values = function(shifted.reshape(-1, d))
        above, below = values.reshape(2, len(steps), n, -1)
        slopes.append(((above - below) / (2 * size)).to(X))
    return torch.cat(slopes).movedim(0, 1)


def restrained(
    model: Predictor,
    companion: LinearCompanion | None,
    rows: Rows,
    process: ProcessCompanion | None = None,
    tails: Tails | None = None,
    interpolant: Interpolant | None = None,
) -> Restrained:
    """A fitted model with what its mean leans on and the range of y at the rows."""
    y = rows.y.double()
    return Restrained(
        model,
        companion,
        y.amin(0),
        y.amax(0),
        process=process,
        tails=tails,
        interpolant=interpolant,
    )
