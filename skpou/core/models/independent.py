"""Densities of several targets that have nothing to do with each other, given the point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core.models.components import Components


@dataclass
class IndependentComponents(Components):
    """A mixture of Gaussians for every target of its own, all independent.

    The components of a target share one posterior of its mean.

    Attributes
    ----------
    log_pi : Tensor of shape (n, N, m)
        Logarithms of the components' weights, for each target.
    mean, noise, epistemic : Tensor of shape (n, N, m)
        As in `Components`.
    center : Tensor of shape (n, m), default=None
        Mean of y, where it is known apart from the components: the same bits as alone.
    """

    center: Tensor | None = None

    @classmethod
    def of_targets(
        cls, targets: Sequence[Components], center: Tensor | None = None
    ) -> IndependentComponents:
        """Put together the densities of single targets (m = 1), which may differ in N."""
        most = max(target.log_pi.shape[1] for target in targets)

        def padded(part: Tensor, value: float) -> Tensor:
            if part.shape[1] == most:
                return part
            missing = part.new_full((len(part), most - part.shape[1]), value)
            return torch.cat([part, missing], 1)

        def stacked(name: str, value: float) -> Tensor:
            parts = []
            for target in targets:
                part = getattr(target, name)
                part = part if name == "log_pi" else part[..., 0]  # Noise may be (N, 1).
                parts.append(padded(part.expand_as(target.log_pi), value))
            return torch.stack(parts, 2)

        return cls(
            stacked("log_pi", -torch.inf),
            stacked("mean", 0.0),
            stacked("noise", 1.0),
            stacked("epistemic", 0.0),
            center,
        )

    def expectation(self) -> Tensor:
        """Mean of y, of shape (n, m)."""
        if self.center is not None:
            return self.center
        return (self.log_pi.exp() * self.mean).sum(1)

    def variances(self) -> tuple[Tensor, Tensor]:
        """Variances (n, m) of y about its mean, and of this mean through the coefficients."""
        pi = self.log_pi.exp()
        spread = (self.mean - self.expectation()[:, None]).square()
        return (pi * (self.noise + spread)).sum(1), (pi * self.epistemic).sum(1)

    def log_density(self, y: Tensor) -> Tensor:
        """Logarithm of the joint density at targets y (n, m); shape (n,)."""
        variance = self.variance
        square = (y[:, None] - self.mean).square() / variance
        log_normal = -0.5 * (square + variance.log() + np.log(2 * np.pi))
        return torch.logsumexp(self.log_pi + log_normal, dim=1).sum(1)

    def _of_target(self, k: int) -> Components:
        parts = (getattr(self, name)[:, :, k : k + 1] for name in ("mean", "noise", "epistemic"))
        return Components(self.log_pi[:, :, k], *parts)

    def cumulative(self, y: Tensor) -> Tensor:
        """Probability (n, k, m) that a target is below each of k thresholds y (n, k, m)."""
        targets = range(self.mean.shape[2])
        return torch.cat([self._of_target(k).cumulative(y[..., k : k + 1]) for k in targets], 2)

    def quantiles(self, probabilities: Tensor) -> Tensor:
        """Quantiles (n, k, m) of each target; see `Components.quantiles`."""
        m = self.mean.shape[2]
        own = probabilities if probabilities.ndim == 2 else probabilities[:, None].expand(-1, m)
        targets = [self._of_target(k).quantiles(own[:, k : k + 1]) for k in range(m)]
        return torch.cat(targets, 2)

    def _shares(self) -> Tensor:
        """Weights of the components, (n, N, m)."""
        return self.log_pi.exp()

    def sample(self, uniform: Tensor, normal: Tensor, shared: Tensor | None = None) -> Tensor:
        """Draws (n, s, m) of y from random numbers (n, s, m) of two kinds, or three.

        Where errors of the mean are shared between points they have one size for all components.
        Uniform numbers (n, s) pick the same component for all outputs.
        """
        targets, epistemic = [], self.variances()[1]
        for k in range(self.mean.shape[2]):
            only, part, own = slice(k, k + 1), self._of_target(k), None
            if shared is not None:
                own = shared[..., only]
                part = replace(part, epistemic=epistemic[:, None, only].expand_as(part.mean))
            picks = uniform if uniform.ndim == 2 else uniform[..., k]
            targets.append(part.sample(picks, normal[..., only], own))
        return torch.cat(targets, 2)
