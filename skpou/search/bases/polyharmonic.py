"""Polyharmonic splines: an affine function and powers of the distances to centres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Basis, TensorState
from skpou.core.linalg import TINY


@dataclass(eq=False)
class PolyharmonicSplines(TensorState, Basis, kind="polyharmonic"):
    """Columns 1, ``s_1 x_1 .. s_d x_d``, then ``|s (x - c_j)|^power`` for the centres c.

    Source: Duchon (1977), "Splines minimizing rotation-invariant semi-norms in Sobolev spaces".

    Parameters
    ----------
    centres : Tensor of shape (k, d)
        Points of the unit box.
    scales : Tensor of shape (d,)
        Positive factors s of the coordinates.
    power : {1, 3}
        Exponent of the distance.
    share : float
        Mean share of a row's own target in its value: 1 for interpolation.
    """

    follows_rows = True

    centres: Tensor
    scales: Tensor
    power: int
    share: float = 1.0

    def __post_init__(self) -> None:
        self.n_features = self.centres.shape[1]
        self.n_columns = 1 + self.n_features + len(self.centres)

    def distances(self, X: Tensor) -> Tensor:
        """Scaled distances (n, k) of points and centres."""
        scales = self.scales.to(X)
        mode = "donot_use_mm_for_euclid_dist"  # The fast form loses half of the digits.
        return torch.cdist(X * scales, self.centres.to(X) * scales, compute_mode=mode)

    def affine(self, X: Tensor) -> Tensor:
        """The first columns (n, 1 + d)."""
        return torch.cat([torch.ones_like(X[:, :1]), X * self.scales.to(X)], 1)

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        return self._matrix(X, self.distances(X))

    def _matrix(self, X: Tensor, distances: Tensor) -> Tensor:
        return torch.cat([self.affine(X), distances**self.power], 1)

    def evaluate_beside(self, X: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
        """Both of the same distances; see `Basis.evaluate_beside`."""
        distances = self.distances(X)
        return self._matrix(X, distances) @ coef.to(X), self._deviations(distances)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`.

        At a centre, where the distance itself has none, that of power 1 is taken to be 0.
        """
        scale = self.scales[feature].to(X)
        step = scale * scale * (X[:, feature, None] - self.centres[:, feature].to(X))
        distance = self.distances(X)
        if self.power == 1:
            radial = step / distance.clamp_min(torch.finfo(X.dtype).tiny)
        else:
            radial = self.power * distance ** (self.power - 2) * step
        affine = X.new_zeros((len(X), 1 + self.n_features))
        affine[:, 1 + feature] = scale
        return torch.cat([affine, radial], 1)

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """The distances are taken once; see `Basis.evaluate_gradient`."""
        coef = coef.to(X)
        affine, radial = coef[1 : 1 + self.n_features], coef[1 + self.n_features :]
        distance, centres = self.distances(X), self.centres.to(X)
        if self.power == 1:
            factor = 1 / distance.clamp_min(torch.finfo(X.dtype).tiny)
        else:
            factor = self.power * distance ** (self.power - 2)
        scales = self.scales.to(X)
        partials = []
        for feature, scale in enumerate(scales):
            step = scale * (X[:, feature, None] - centres[:, feature])
            partials.append(scale * (affine[feature] + (factor * step) @ radial))
        return torch.stack(partials, 1)

    def posterior_columns(self, X: Tensor) -> Tensor:
        """Two columns (n, 2): root of the leverage, and growth of the error off the centres.

        The variance between the centres grows like the power of the distance to the nearest.
        """
        return self._deviations(self.distances(X))

    def _deviations(self, distances: Tensor) -> Tensor:
        nearest = distances.amin(1)
        share = torch.full_like(nearest, self.share**0.5)
        return torch.stack([share, nearest ** (self.power / 2)], 1)

    def weights_of_rows(
        self, weight: Tensor, residual: Tensor, coef: Tensor
    ) -> tuple[Tensor, float, int] | None:
        """Inverse of the bordered matrix of the fit; see `Basis.weights_of_rows`."""
        own = coef[1 + self.n_features :].to(residual) * (-1.0 if self.power == 1 else 1.0)
        return None if len(own) != len(weight) else self.weighing(weight, residual, own)

    def weighing(
        self, weight: Tensor, residual: Tensor, own: Tensor
    ) -> tuple[Tensor, float, int] | None:
        """The same with the weights of the rows, ``own`` (n, m): a part of each residual."""
        n, free = len(weight), 1 + self.n_features
        bent = own / weight[:, None]
        penalty = max(float((residual * bent).sum() / bent.square().sum().clamp_min(TINY)), 0.0)
        X = self.centres.to(residual)
        affine = self.affine(X)
        bordered = residual.new_zeros((n + free, n + free))
        kernel = self.distances(X) ** self.power * (-1.0 if self.power == 1 else 1.0)
        bordered[:n, :n] = kernel + torch.diag(penalty / weight)
        bordered[:n, n:], bordered[n:, :n] = affine, affine.T
        inverse, singular = torch.linalg.inv_ex(bordered)
        return None if bool(singular) else (inverse[:n, :n], penalty, free)
