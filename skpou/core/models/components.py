"""The Gaussian components of a predictive density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Halvings of the bracket of a quantile: what is left of it, 1e-24, is round-off also of a quantile
#: that is a hundred millionth of the bracket.
N_HALVINGS = 80


@dataclass
class Components:
    """The Gaussian components of ``p(y | x)`` at some points.

    Attributes
    ----------
    log_pi : Tensor of shape (n, N)
        Logarithms of the partitions at the points.
    mean : Tensor of shape (n, N, m)
        The experts' values, Eq. 7.
    noise : Tensor of shape (N, m) or (n, N, m)
        The components' noise variances.
    epistemic : Tensor of shape (n, N, m)
        Variances of the experts' values under their coefficients' posterior.
    """

    log_pi: Tensor
    mean: Tensor
    noise: Tensor
    epistemic: Tensor

    @property
    def variance(self) -> Tensor:
        """Predictive variance of each component, (n, N, m)."""
        return self.noise + self.epistemic

    def expectation(self) -> Tensor:
        """Mean of y, Eq. 8, of shape (n, m)."""
        if self.log_pi.shape[1] == 1:
            return self.mean[:, 0]
        return _weighted(self.log_pi.exp(), self.mean)

    def variances(self) -> tuple[Tensor, Tensor]:
        """Variances (n, m) of y: by Eq. 9, and of its mean through the coefficients.

        Eq. 9 is summed about the mean, ``sum_i pi_i (sigma_i^2 + (mu_i - E[Y])^2)``, which has
        no cancellation. The mean ``sum_i pi_i mu_i`` of independent experts has the variance
        ``sum_i pi_i^2 s_i^2``.
        """
        if self.log_pi.shape[1] == 1:
            noise, epistemic = torch.broadcast_tensors(self.noise, self.epistemic)
            return noise[:, 0], epistemic[:, 0]
        pi = self.log_pi.exp()
        spread = (self.mean - self.expectation()[:, None]).square()
        noise = _weighted(pi, self.noise + spread)  # Eq. 9
        return noise, _weighted(pi.square(), self.epistemic)

    def log_density(self, y: Tensor) -> Tensor:
        """Logarithm of the density of Eq. 4 at targets y (n, m); shape (n,)."""
        variance = self.variance
        square = (y[:, None] - self.mean).square() / variance
        log_normal = -0.5 * (square + variance.log() + np.log(2 * np.pi)).sum(2)
        return torch.logsumexp(self.log_pi + log_normal, dim=1)

    def cumulative(self, y: Tensor) -> Tensor:
        """Probability (n, k, m) that a target is below each of k thresholds y (n, k, m)."""
        mean, std = self.mean[:, :, None], self.variance.sqrt()[..., None, :]
        return _mixed_cumulative(self.log_pi.exp(), mean, std, y)

    def quantiles(self, probabilities: Tensor) -> Tensor:
        """Quantiles of each target's mixture distribution, by bisection.

        Parameters
        ----------
        probabilities : Tensor of shape (k,) or (k, m)
            Between 0 and 1, exclusive; the same for all targets, or for each its own.

        Returns
        -------
        Tensor of shape (n, k, m)
        """
        pi = self.log_pi.exp()
        mean, std = self.mean[:, :, None], self.variance.sqrt()[..., None, :]
        if probabilities.ndim == 1:
            probabilities = probabilities[:, None]
        z = torch.special.ndtri(probabilities)
        present = (pi > torch.finfo(pi.dtype).eps)[..., None, None]
        own = mean + std * z
        low = torch.where(present, own, torch.inf).amin(1)
        high = torch.where(present, own, -torch.inf).amax(1)
        for _ in range(N_HALVINGS if pi.shape[1] > 1 else 0):
            middle = low + 0.5 * (high - low)
            below = _mixed_cumulative(pi, mean, std, middle) < probabilities
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low + 0.5 * (high - low)

    def _shares(self) -> Tensor:
        """Weights of the components, (n, N, 1), or (n, N, m) where each target has its own."""
        return self.log_pi.exp()[..., None]

    def tails(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (n, m) below and above targets y (n, m), each for itself, in float64."""
        z = (y.double()[:, None] - self.mean.double()) / self.variance.double().sqrt()
        pi = self._shares().double()
        below, above = (pi * torch.special.ndtr(sign * z) for sign in (1, -1))
        return below.sum(1), above.sum(1)

    def sample(self, uniform: Tensor, normal: Tensor, shared: Tensor | None = None) -> Tensor:
        """Draws of y from given random numbers.

        Parameters
        ----------
        uniform : Tensor of shape (n, s) or (n, s, m)
            Uniform on [0, 1): pick the components. They are those of all targets at once: of
            numbers for each target the first ones count.
        normal : Tensor of shape (n, s, m)
            Standard normal: the components' deviations.
        shared : Tensor of shape (n, s, m), default=None
            Standard normal, correlated between points: errors of the mean, which all components
            of a point have in common; `normal` is the noise alone then.

        Returns
        -------
        Tensor of shape (n, s, m)
        """
        uniform = uniform if uniform.ndim == 2 else uniform[..., 0].contiguous()
        cumulative = self.log_pi.exp().cumsum(1)
        total = cumulative[:, -1:]
        pick = torch.searchsorted(cumulative, uniform * total, right=True)
        pick = pick.clamp_max(cumulative.shape[1] - 1)
        index = pick[..., None].expand(-1, -1, self.mean.shape[2])

        def picked(variance: Tensor) -> Tensor:
            return variance.sqrt().expand_as(self.mean).gather(1, index)

        mean = self.mean.gather(1, index)
        if shared is None:
            return mean + picked(self.variance) * normal
        return mean + picked(self.noise) * normal + picked(self.epistemic) * shared


def _mixed_cumulative(pi: Tensor, mean: Tensor, std: Tensor, y: Tensor) -> Tensor:
    """Distribution function (n, k, m) of a mixture with weights (n, N), components (n, N, 1, m)."""
    return torch.einsum("nk,nkqm->nqm", pi, torch.special.ndtr((y[:, None] - mean) / std))


def _weighted(share: Tensor, values: Tensor) -> Tensor:
    """Sums ``sum_k share_nk values_nkm`` (n, m); faster than einsum where there are few."""
    return torch.bmm(share[:, None], values.expand(len(share), -1, -1)).squeeze(1)
