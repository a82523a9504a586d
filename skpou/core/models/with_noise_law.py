"""A predictor whose noise varies by a law; see `skpou.core.models.noise_law`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from skpou.core.models.components import Components
from skpou.core.models.model import Predictor, SameMean
from skpou.core.models.noise_law import NoiseLaw


@dataclass(frozen=True)
class WithNoiseLaw(SameMean):
    """A predictor of one target whose noise has another variance elsewhere.

    Attributes
    ----------
    model : Predictor
        Fitted to rows by their precision: what it knows of its mean stays.
    law : NoiseLaw
        Of the factor by which the variance of its noise is multiplied.
    """

    model: Predictor
    law: NoiseLaw

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, 1) of the model's mean."""
        return self.model.covariance(X)  # type: ignore[attr-defined]

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d)."""
        parts = self.model.components(X, posterior)
        factor = self.law.log_factor(X, parts.expectation()[:, 0]).exp().to(parts.mean)
        noise = parts.noise.expand_as(parts.mean) * factor[:, None, None]
        return replace(parts, noise=noise)
