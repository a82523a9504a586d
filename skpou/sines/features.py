"""Sine features: random Fourier features with quadrature pairs, beside an affine function.

Source: Rahimi, Recht (2007), "Random features for large-scale kernel machines".
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from skpou.core import Basis, TotalDegreePolynomials

#: Rows that are evaluated at once: their columns stay in the cache.
BLOCK_ROWS = 1024


class SineFeatures(Basis, kind="sine"):
    """Columns 1, ``t_1 .. t_d``, then ``sin(w . t + b)`` and ``cos(w . t + b)``, ``t = 2 x - 1``.

    Between them there may be products of Legendre polynomials of the t of total degree 2 and more.
    What is not a sine is multiplied by the square root of the number of sines, so that a ridge
    hardly shrinks it.

    Parameters
    ----------
    frequencies : Tensor of shape (h, d)
        Rows w, in radians over half the side of the box.
    phases : Tensor of shape (h,)
        Phases b.
    degree : int, default=1
        Largest total degree of the polynomials, at least 1.
    """

    def __init__(self, frequencies: Tensor, phases: Tensor, degree: int = 1):
        self.frequencies = frequencies
        self.phases = phases
        self.degree = degree
        self.n_features = frequencies.shape[1]
        self.polynomials = TotalDegreePolynomials(self.n_features, degree)
        self.n_columns = self.polynomials.n_columns + 2 * len(phases)
        self.unit = math.sqrt(max(2 * len(phases), 1))
        # Polynomials of degree 2 and more run away outside the box.
        self.n_running = self.polynomials.n_columns if degree > 1 else 0

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        return {
            "frequencies": self.frequencies.cpu().numpy(),
            "phases": self.phases.cpu().numpy(),
            "degree": self.degree,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> SineFeatures:
        """Rebuild from `arrays`, on the device of `like`."""
        names = ("frequencies", "phases")
        frequencies, phases = (torch.tensor(arrays[name], device=like.device) for name in names)
        return cls(frequencies, phases, arrays.get("degree", 1))

    def _curved(self, X: Tensor, feature: int | None = None) -> list[Tensor]:
        """Polynomials of degree 2 and more, or their derivatives along a coordinate."""
        if self.degree < 2:
            return []
        curved = self.polynomials
        values = curved.matrix(X) if feature is None else curved.partial(X, feature)
        return [self.unit * values[:, 1 + self.n_features :]]

    def _angle(self, t: Tensor) -> Tensor:
        return t @ self.frequencies.to(t).T + self.phases.to(t)

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        t = 2 * X - 1
        angle = self._angle(t)
        affine = [t.new_full((len(t), 1), self.unit), self.unit * t]
        return torch.cat([*affine, *self._curved(X), torch.sin(angle), torch.cos(angle)], 1)

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """Values (n, m), block by block; see `Basis.evaluate`."""
        if self._is_whole(len(X)):
            return self.matrix(X) @ coef.to(X)
        return torch.cat([self.matrix(part) @ coef.to(X) for part in X.split(BLOCK_ROWS)])

    def _is_whole(self, n_rows: int) -> bool:
        return n_rows <= BLOCK_ROWS

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        t = 2 * X - 1
        angle, rate = self._angle(t), 2 * self.frequencies[:, feature].to(t)
        affine = t.new_zeros((len(t), 1 + self.n_features))
        affine[:, 1 + feature] = 2 * self.unit
        curved = self._curved(X, feature)
        return torch.cat([affine, *curved, rate * torch.cos(angle), -rate * torch.sin(angle)], 1)

    def derivative(self, X: Tensor, coordinates: tuple[int, ...]) -> Tensor:
        """Derivatives of any order: sines turn by a right angle; see `Basis.derivative`."""
        order = len(coordinates)
        if order < 2 or self.degree > 1:
            return super().derivative(X, coordinates)
        t = 2 * X - 1
        angle = self._angle(t)
        rate = t.new_ones(len(self.phases))
        for feature in coordinates:
            rate = rate * (2 * self.frequencies[:, feature].to(t))
        sine, cosine = torch.sin(angle), torch.cos(angle)
        # The derivative turns (sin, cos) into (cos, -sin).
        turned = [(sine, cosine), (cosine, -sine), (-sine, -cosine), (-cosine, sine)][order % 4]
        affine = t.new_zeros((len(t), 1 + self.n_features))
        return torch.cat([affine, rate * turned[0], rate * turned[1]], 1)
