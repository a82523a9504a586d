"""Densities that know outliers: with their share a row is far from the mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.model import Predictor, SameMean


@dataclass(frozen=True)
class WithOutliers(SameMean):
    """A predictor whose density knows the outliers: with its share each Gaussian is a wide one.

    Attributes
    ----------
    model : Predictor
        Of the other rows.
    share : ndarray of shape (m,)
        Of the outliers, for each target.
    variance : ndarray of shape (m,)
        Theirs about the mean, in scaled units.
    """

    model: Predictor
    share: np.ndarray
    variance: np.ndarray

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the model's mean."""
        return self.model.covariance(X)  # type: ignore[attr-defined]

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d)."""
        parts = self.model.components(X, posterior)
        n, count, m = parts.mean.shape
        independent = isinstance(parts, IndependentComponents)
        log_pi, share = parts.log_pi, parts.mean.new_tensor(self.share)
        if not independent and count > 1 and m > 1:
            # Targets that share their components share the outliers.
            shares: Tensor = share.max()
        else:
            shares = share
            log_pi = log_pi if independent else log_pi[..., None].expand(n, count, m)
        # Single precision holds no square of an outlier of 1e30: half of what it holds is as wide.
        variance = self.variance.clip(max=torch.finfo(parts.mean.dtype).max / 2)
        wide = parts.noise.expand(n, count, m) + parts.mean.new_tensor(variance)
        log_pi = torch.cat([log_pi + torch.log1p(-shares), log_pi + torch.log(shares)], 1)
        mean = torch.cat([parts.mean, parts.mean], 1)
        noise = torch.cat([parts.noise.expand(n, count, m), wide], 1)
        epistemic = torch.cat([parts.epistemic.expand(n, count, m)] * 2, 1)
        if log_pi.ndim == 2:
            return Components(log_pi, mean, noise, epistemic)
        return IndependentComponents(log_pi, mean, noise, epistemic, parts.expectation())
