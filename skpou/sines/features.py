"""Sine features: random Fourier features with quadrature pairs, beside an affine function.

Source: Rahimi, Recht (2007), "Random features for large-scale kernel machines".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Basis, TensorState, TotalDegreePolynomials

#: Rows that are evaluated at once: their columns stay in the cache.
BLOCK_ROWS = 1024
#: Splits a number of 53 binary digits into two of 26 (Veltkamp): products of halves are exact.
SPLITTER = 2.0**27 + 1


@dataclass(eq=False)
class SineFeatures(TensorState, Basis, kind="sine"):
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

    frequencies: Tensor
    phases: Tensor
    degree: int = 1

    def __post_init__(self) -> None:
        self.n_features = self.frequencies.shape[1]
        self.polynomials = TotalDegreePolynomials(self.n_features, self.degree)
        self.n_columns = self.polynomials.n_columns + 2 * len(self.phases)
        self.unit = math.sqrt(max(2 * len(self.phases), 1))
        # Polynomials of degree 2 and more run away outside the box.
        self.n_running = self.polynomials.n_columns if self.degree > 1 else 0
        self.is_precise = False

    def precise(self) -> SineFeatures:
        """The same functions, without what rounding of large angles changes in their values."""
        features = copy.copy(self)
        features.is_precise = True
        return features

    def _curved(self, X: Tensor, feature: int | None = None) -> list[Tensor]:
        """Polynomials of degree 2 and more, or their derivatives along a coordinate."""
        if self.degree < 2:
            return []
        curved = self.polynomials
        values = curved.matrix(X) if feature is None else curved.partial(X, feature)
        return [self.unit * values[:, 1 + self.n_features :]]

    def _angle(self, t: Tensor) -> Tensor:
        return t @ self.frequencies.to(t).T + self.phases.to(t)

    def _sines(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Sines and cosines of the angles."""
        if not self.is_precise:
            angle = self._angle(t)
            return torch.sin(angle), torch.cos(angle)
        angle, rest = self.phases.to(t).expand(len(t), -1), t.new_zeros(())
        for feature in range(self.n_features):
            product, below = exact_product(t[:, feature, None], self.frequencies[:, feature].to(t))
            angle, lost = exact_sum(angle, product)
            rest = rest + below + lost
        sine, cosine = torch.sin(angle), torch.cos(angle)
        return sine + rest * cosine, cosine - rest * sine

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        t = 2 * X - 1
        affine = [t.new_full((len(t), 1), self.unit), self.unit * t]
        return torch.cat([*affine, *self._curved(X), *self._sines(t)], 1)

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
        (sine, cosine), rate = self._sines(t), 2 * self.frequencies[:, feature].to(t)
        affine = t.new_zeros((len(t), 1 + self.n_features))
        affine[:, 1 + feature] = 2 * self.unit
        return torch.cat([affine, *self._curved(X, feature), rate * cosine, -rate * sine], 1)

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """The sines are evaluated once; see `Basis.evaluate_gradient`."""
        t, coef = 2 * X - 1, coef.to(X)
        n_plain, h = self.polynomials.n_columns, len(self.phases)
        (sine, cosine), rate = self._sines(t), 2 * self.frequencies.to(t)[:, :, None]
        of_sines, of_cosines = coef[n_plain:].split([h, h])
        slopes = cosine @ (rate * of_sines[:, None]).flatten(1)
        slopes -= sine @ (rate * of_cosines[:, None]).flatten(1)
        gradient = slopes.unflatten(1, (self.n_features, -1))
        gradient = gradient + 2 * self.unit * coef[1 : 1 + self.n_features]
        if self.degree < 2:
            return gradient
        bent = coef[1 + self.n_features : n_plain]
        curved = [self._curved(X, j)[0] @ bent for j in range(self.n_features)]
        return gradient + torch.stack(curved, 1)

    def derivative(self, X: Tensor, coordinates: tuple[int, ...]) -> Tensor:
        """Derivatives of any order: sines turn by a right angle; see `Basis.derivative`."""
        return self.derivatives(X, [coordinates])[0]

    def derivatives(self, X: Tensor, orders: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Several derivatives of the same sines; see `Basis.derivatives`."""
        if self.degree > 1:
            return [super(SineFeatures, self).derivative(X, coordinates) for coordinates in orders]
        t = 2 * X - 1
        sines = self._sines(t)
        return [self._turned(t, *sines, coordinates) for coordinates in orders]

    def _turned(
        self, t: Tensor, sine: Tensor, cosine: Tensor, coordinates: tuple[int, ...]
    ) -> Tensor:
        """One derivative of sines and cosines, which it turns into cosines and negative sines."""
        order, h, d = len(coordinates), len(self.phases), self.n_features
        rate = t.new_ones(h)
        for feature in coordinates:
            rate = rate * (2 * self.frequencies[:, feature].to(t))
        columns = t.new_zeros((len(t), self.n_columns))
        if not order:
            columns[:, 0], columns[:, 1 : 1 + d] = self.unit, self.unit * t
        elif order == 1:
            columns[:, 1 + coordinates[0]] = 2 * self.unit
        first, second = (sine, cosine) if order % 2 == 0 else (cosine, sine)
        signs = [(1, 1), (1, -1), (-1, -1), (-1, 1)][order % 4]
        columns[:, 1 + d : 1 + d + h] = signs[0] * rate * first
        columns[:, 1 + d + h :] = signs[1] * rate * second
        return columns


def exact_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded sums and what rounding has lost (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def exact_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded products of float64 and what rounding has lost (Dekker)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = (halves(part) for part in (a, b))
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def halves(a: Tensor) -> tuple[Tensor, Tensor]:
    """Leading and other binary digits of float64."""
    large = SPLITTER * a
    high = large - (large - a)
    return high, a - high
