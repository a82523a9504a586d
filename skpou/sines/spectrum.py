"""Spectra from which random sine features are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv
from torch import Tensor

from skpou.core import sobol_points
from skpou.sines.features import SineFeatures

#: Smoothness of the Matern shape: between the rough 5/2 and the Gaussian, with three derivatives.
SMOOTHNESS = 3.5
#: Share of its stratum that a frequency in one dimension is drawn from: two that fall together make
#: columns alike.
JITTER = 0.8
#: Distance of levels from 0 and 1, where quantiles are infinite.
EDGE = 1e-9


@dataclass(frozen=True)
class Spectrum:
    """Density that frequencies are drawn from.

    Attributes
    ----------
    shape : {"flat", "gauss", "matern"}
        A box, a normal density, or ``(1 + |w|^2)^-(3.5 + d/2)``.
    bandwidth : float
        Scale of the frequencies, in radians over half the side of the box.
    scales : tuple of float
        Factors of the columns of X, at most 1.
    degree : int
        Largest degree of the polynomials beside the sines.
    """

    shape: str
    bandwidth: float
    scales: tuple[float, ...]
    degree: int = 1

    def draw(self, n_sines: int, seed: int, like: Tensor) -> SineFeatures:
        """Features with `n_sines` frequencies, stratified or of low discrepancy."""
        d, rng = len(self.scales), np.random.default_rng([seed, 2])
        if d == 1:
            jitter = JITTER * (rng.random(n_sines) - 0.5)
            uniform = ((np.arange(n_sines) + 0.5 + jitter) / n_sines)[:, None]
        else:
            uniform = sobol_points(d + 1, n_sines, seed).numpy()
        frequencies = self._transform(uniform, rng)
        frequencies = self.bandwidth * frequencies * np.array(self.scales)
        phases = rng.uniform(0, np.pi, n_sines)
        drawn = [torch.as_tensor(part, device="cpu").to(like) for part in (frequencies, phases)]
        return SineFeatures(drawn[0], drawn[1], self.degree)

    def _transform(self, uniform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Uniform numbers (h, d or d + 1) to frequencies (h, d) of bandwidth 1."""
        d = len(self.scales)
        if self.shape == "flat":
            return uniform if d == 1 else 2 * uniform[:, :d] - 1
        # In one dimension a frequency and its negative are the same function.
        quantile = np.clip(0.5 + uniform / 2 if d == 1 else uniform[:, :d], EDGE, 1 - EDGE)
        normal = torch.special.ndtri(torch.as_tensor(quantile, device="cpu")).numpy()
        if self.shape == "gauss":
            return normal
        level = rng.random(len(uniform)) if d == 1 else uniform[:, d]
        chi_square = 2 * gammaincinv(SMOOTHNESS, np.clip(level, EDGE, 1 - EDGE))
        return normal / np.sqrt(chi_square)[:, None]
