"""Cubic splines on a line by their values and second derivatives at the knots.

Source: Green, Silverman (1994), "Nonparametric regression and generalized linear models",
section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Basis, TensorState
from skpou.search.bases.polyharmonic import PolyharmonicSplines


@dataclass(eq=False)
class CubicSplines(TensorState, Basis, kind="cubic_splines"):
    """Piecewise cubics; columns are those of the values, then of the second derivatives.

    Between the knots ``x_i`` and ``x_{i+1} = x_i + h``, at ``x_i + t h``, the spline is
    ``(1 - t) g_i + t g_{i+1} - h^2 t (1 - t) ((2 - t) c_i + (1 + t) c_{i+1}) / 6``
    (Eq. 2.22 there) for values g and second derivatives c. Beyond the ends it goes on linearly.

    Parameters
    ----------
    knots : Tensor of shape (k,)
        Rising, at least 2.
    leverage : Tensor of shape (k,)
        Share of each knot's own target in its value: 1 for interpolation.
    """

    n_features = 1

    follows_rows = True

    knots: Tensor
    leverage: Tensor

    def __post_init__(self) -> None:
        self.n_columns = 2 * len(self.knots)

    def _locate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Interval i, its width h, the place t in it from 0 to 1, what x lies beyond the ends."""
        knots = self.knots.to(x)
        inside = x.clamp(knots[0], knots[-1])
        i = (torch.searchsorted(knots, inside.contiguous(), right=True) - 1).clamp(
            0, len(knots) - 2
        )
        h = knots[i + 1] - knots[i]
        return i, h, (inside - knots[i]) / h, x - inside

    def _weights(self, x: Tensor, slope: bool) -> tuple[Tensor, Tensor]:
        """Columns (n, 4) that are not zero, and their weights (n, 4)."""
        i, h, t, beyond = self._locate(x)
        k = len(self.knots)
        index = torch.stack([i, i + 1, k + i, k + i + 1], 1)
        one = torch.ones_like(t)
        rate = torch.stack(
            [-one / h, one / h, h * (-2 + 6 * t - 3 * t * t) / 6, h * (3 * t * t - 1) / 6], 1
        )
        if slope:
            return index, rate
        bend = -h * h * t * (1 - t) / 6
        value = torch.stack([1 - t, t, bend * (2 - t), bend * (1 + t)], 1)  # Eq. 2.22
        return index, value + beyond[:, None] * rate

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        index, weights = self._weights(X[:, 0], slope=False)
        return X.new_zeros((len(X), self.n_columns)).scatter_(1, index, weights)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        index, weights = self._weights(X[:, 0], slope=True)
        return X.new_zeros((len(X), self.n_columns)).scatter_(1, index, weights)

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """See `Basis.evaluate`; only the four columns of each interval."""
        index, weights = self._weights(X[:, 0], slope=False)
        return torch.einsum("nk,nkm->nm", weights, coef.to(X)[index])

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """See `Basis.evaluate_gradient`; only the four columns of each interval."""
        index, weights = self._weights(X[:, 0], slope=True)
        return torch.einsum("nk,nkm->nm", weights, coef.to(X)[index])[:, None]

    def posterior_columns(self, X: Tensor) -> Tensor:
        """Two columns (n, 2): root of the leverage, and growth of the error between the knots.

        A random curve whose second derivative is white noise and that is pinned at the ends of
        an interval has about the variance ``h^3 (4 t (1 - t))^2`` in it.
        """
        i, h, t, _ = self._locate(X[:, 0])
        leverage = self.leverage.to(X)
        share = (1 - t) * leverage[i] + t * leverage[i + 1]
        return torch.stack([share.sqrt(), h**1.5 * 4 * t * (1 - t)], 1)

    def weights_of_rows(
        self, weight: Tensor, residual: Tensor, coef: Tensor
    ) -> tuple[Tensor, float, int] | None:
        """Those of cubes of distances, a twelfth of the third derivative's jumps.

        They are the natural spline's; see `Basis.weights_of_rows`.
        """
        if len(self.knots) != len(weight):
            return None
        knots = self.knots.to(residual)
        third = coef[len(knots) :].to(residual).diff(dim=0) / knots.diff()[:, None]
        zero = torch.zeros_like(third[:1])
        own = torch.cat([zero, third, zero]).diff(dim=0) / 12
        cubes = PolyharmonicSplines(knots[:, None], torch.ones_like(knots[:1]), 3)
        return cubes.weighing(weight, residual, own)
