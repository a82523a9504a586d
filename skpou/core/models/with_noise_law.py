"""A predictor whose noise varies by a law; see `skpou.core.models.noise_law`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skpou.core.models.components import Components
from skpou.core.models.model import Predictor, SameMean
from skpou.core.models.noise_law import NoiseLaw
from skpou.core.models.tails import mixed_widths

#: Nodes and weights of the rule of Gauss and Hermite with three nodes, for a standard normal.
NODES, SHARES = (math.sqrt(3.0), 0.0, -math.sqrt(3.0)), (1 / 6, 2 / 3, 1 / 6)


@dataclass(frozen=True)
class WithNoiseLaw(SameMean):
    """A predictor whose noise has another variance elsewhere.

    Attributes
    ----------
    model : Predictor
        Fitted to rows by their precision: what it knows of its mean stays.
    laws : tuple of NoiseLaw or None
        Of the factor by which the variance of each target's noise is multiplied.
    """

    model: Predictor
    laws: tuple[NoiseLaw | None, ...]

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the model's mean."""
        return self.model.covariance(X)  # type: ignore[attr-defined]

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d).

        With the posterior of the law's coefficients, which is nearly normal in the logarithm of the
        variance, it is an integral over this by the quadrature of Gauss and Hermite.
        """
        parts = self.model.components(X, posterior)
        mean = parts.expectation()
        log_factor, doubt = mean.new_zeros((2, *mean.shape), dtype=torch.float64)
        for target, law in enumerate(self.laws):
            if law is not None:
                log_factor[:, target], doubt[:, target] = law.at(X, mean[:, target])
        noise = parts.noise.expand_as(parts.mean) * log_factor.exp().to(parts.mean)[:, None]
        parts = replace(parts, noise=noise)
        if not posterior:
            return parts
        shares, nodes = doubt.new_tensor(SHARES), doubt.new_tensor(NODES)[:, None]
        # As of a mean of few squares, the likeliest variance is below the median of its posterior.
        widths = (0.5 * doubt[:, None] + doubt.sqrt()[:, None] * nodes).exp()
        return mixed_widths(parts, shares, widths, torch.ones_like(widths))
