"""A predictor whose bars know the error of its form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg import COPIES_SUMMED, TINY
from skpou.core.models.components import Components
from skpou.core.models.discrepancy import MOST_FUNCTIONS
from skpou.core.models.form_error import ROUND_OFF, FormError
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.level_error import narrowed
from skpou.core.models.model import Predictor, SameMean
from skpou.core.models.outside import runaway
from skpou.core.models.power_function import n_nearest


@dataclass(frozen=True)
class WithFormError(SameMean):
    """A predictor whose epistemic variance knows the error of its form.

    Outside the box the standard deviation is at least the distance of the mean from its own
    tangent at the box, since a basis may run away, and half the rise of that tangent; not that of a
    process whose claims left-out rows bear out.

    Attributes
    ----------
    forms : tuple of FormError
        One a target.
    """

    model: Predictor
    forms: tuple[FormError, ...]

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        n, d = max(len(form.points) for form in self.forms), len(self.forms[0].scales)
        k = n_nearest(n, d)
        columns = max(k * (k + d), MOST_FUNCTIONS)
        return max(self.model.numbers_per_row(), COPIES_SUMMED * columns)

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d)."""
        parts = self.model.components(X, posterior)
        return self.widened(parts, X) if posterior else parts

    def widened(self, parts: Components, X: Tensor, usual: Tensor | None = None) -> Components:
        """The model's density at points X (n, d), and the error of the form.

        `usual` is what `usually_hidden` returns, where that is known.
        """
        parts = self._told(parts, X)
        added = self._added_to_each(X, parts, usual)
        if not isinstance(parts, IndependentComponents):
            # The components' own variances of the mean count by the squares of their shares.
            added = added / parts.log_pi.exp().square().sum(1)[:, None, None]
        return replace(parts, epistemic=parts.epistemic + added)

    def _told(self, parts: Components, X: Tensor) -> Components:
        """The model's density with no more variance of its own than left-out errors bear out."""
        of_model = getattr(self.model, "beyond", None)
        part = None if of_model is None else self._part_outside(X)
        if of_model is not None and part is not None:
            beyond = of_model(X).to(part)
            own = parts.epistemic - ((1 - part) * beyond).to(parts.epistemic)[:, None]
            parts = replace(parts, epistemic=own.clamp_min(0))
        return narrowed(parts, X, self.model, self.forms)

    def _part_outside(self, X: Tensor) -> Tensor | None:
        """Part (n, m) of the variance outside the box that is borne out; None where all stays."""
        if all(form.part_outside is None for form in self.forms) or torch.equal(X, X.clamp(0, 1)):
            return None
        points = X.detach().cpu().double().numpy()
        parts = [
            np.ones(len(X)) if form.part_outside is None else form.part_outside.part(points)
            for form in self.forms
        ]
        return torch.as_tensor(np.square(np.stack(parts, 1)), device="cpu").to(X)

    def _least_outside(self, X: Tensor) -> Tensor:
        """Variance (n, m) that errors at the sides of the box tell at least."""
        points = X.detach().cpu().double().numpy()
        sizes = [
            np.zeros(len(X)) if form.part_outside is None else form.part_outside.size(points)
            for form in self.forms
        ]
        return torch.as_tensor(np.square(np.stack(sizes, 1)), device="cpu").to(X)

    def _added_to_each(self, X: Tensor, parts: Components, usual: Tensor | None = None) -> Tensor:
        """Variance (n, N, m) that is added to each component, or one for all of them (N = 1)."""
        added = self._added(X, parts)[:, None]
        hidden = self.hidden(X, parts, usual)
        return added if hidden is None else torch.maximum(added, hidden.to(added))

    def usually_hidden(self, X: Tensor) -> Tensor | None:
        """Variance (n, m) that usual noise hides, in float64; None where it hides none."""
        if all(form.discrepancy is None for form in self.forms):
            return None
        points = X.detach().cpu().double().numpy()
        found = np.stack([form.hidden(points) for form in self.forms], 1)
        return torch.as_tensor(found, device="cpu")

    def hidden(self, X: Tensor, parts: Components, usual: Tensor | None = None) -> Tensor | None:
        """Variance (n, N, m) of each component that noise hides; None where it hides none."""
        usual = self.usually_hidden(X) if usual is None else usual
        if usual is None:
            return None
        noise = parts.noise
        # What noise hides is as small as it is: next to nothing of a narrow component.
        most = self._usual_noise.to(noise)
        return usual.to(noise)[:, None] * (noise / most).clamp_max(1)

    @cached_property
    def _usual_noise(self) -> Tensor:
        """Variance (m,) of the noise that hides what `usually_hidden` says."""
        usual = [form.usual_noise for form in self.forms]
        return torch.tensor(usual, dtype=torch.float64, device="cpu")

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the mean: of the model, and of the kernel of the form's error.

        What is added to a point's variance is correlated between points as the kernel says, before
        any row was seen: given the rows it falls off faster.
        """
        shared = self.model.covariance(X)  # type: ignore[attr-defined]
        parts = self.model.components(X)
        told = self._told(parts, X)
        if told is not parts:
            part = (told.epistemic.sum(1) / parts.epistemic.sum(1).clamp_min(TINY)).clamp_max(1)
            root = part.sqrt().to(shared)
            shared, parts = shared * root[:, None] * root, told
        added, pi = self._added_to_each(X, parts).double(), parts.log_pi.exp().double()
        if not isinstance(parts, IndependentComponents):
            pi = (pi.square() / pi.square().sum(1, keepdim=True))[..., None]
        deviation = (pi * added).sum(1).sqrt()
        points = X.detach().cpu().double()
        for target, form in enumerate(self.forms):
            own = deviation[:, target]
            shared[..., target] += form.correlation(points).to(own) * own[:, None] * own
        return shared

    def _added(self, X: Tensor, parts: Components) -> Tensor:
        """Variance (n, m) of the mean that the model itself does not know."""
        noise, own = parts.variances()
        known = noise + own
        added = self._runaway(X).to(known)
        if any(form.is_known for form in self.forms):
            points = X.detach().cpu().double().numpy()
            found = np.stack([form.variance(points) for form in self.forms], 1)
            jumped = np.stack([form.jumped(points) for form in self.forms], 1)
            between = torch.as_tensor(found, device="cpu").to(known)
            added = torch.minimum(between, (1 - known).clamp_min(0)) + added
            if jumped.any():
                # Units whose bends no row has seen know of their own jumps.
                unknown = torch.as_tensor(jumped, device="cpu").to(known)
                added = added + (unknown - own).clamp_min(0)
        largest = known.new_tensor([form.largest for form in self.forms])
        beyond = (parts.expectation().to(known).abs() - 2 * largest).clamp_min(0)
        return added + beyond.square() + (ROUND_OFF * (largest > 0).to(known)).square()

    def _runaway(self, X: Tensor) -> Tensor:
        """Square (n, m) of what the mean may run away by from the nearest point of the box."""
        inside, result = X.clamp(0, 1), X.new_zeros((len(X), len(self.forms)))
        if not torch.equal(X, inside):
            outside = torch.nonzero((X != inside).any(1)).squeeze(1)
            doubt = runaway(self.model, inside[outside], X[outside])
            part = self._part_outside(X[outside])
            doubt = doubt if part is None else part * doubt + self._least_outside(X[outside])
            points = X[outside].detach().cpu().double().numpy()
            parts = np.square(np.stack([form.doubted(points) for form in self.forms], 1))
            result[outside] = torch.as_tensor(parts, device="cpu").to(doubt) * doubt
        return result
