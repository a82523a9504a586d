"""Units of mixed kinds beside fixed columns: steps, hinges, bumps and peaks with free parameters.

Ridge units are functions of ``z = w . t + b``, radial ones of ``z = exp(2 b) |t - w|^2``, with
``t = 2 x - 1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from skpou.core import Basis, ParametricBasis
from skpou.core.linalg import TINY
from skpou.sines import SineFeatures

#: Kinds by their index: ridge units, so many of them, then radial ones.
KINDS, N_RIDGE = ("tanh", "log_cosh", "gaussian", "lorentzian"), 2
#: Bends of which all rows see less than so many of the largest residuals are lost in these: no row
#: tells their place.
SEEN = 2.0
#: Largest logarithm of a radial unit's inverse width, at which it is cut: 2e-9 of the box is far
#: below the distance of any two rows.
LARGEST_LOG = 20.0
#: Argument beyond which the hyperbolic cosine's square is none: its own overflows at 710.
LARGEST_ARGUMENT = 300


def unit_values(kind: int, z: Tensor) -> Tensor:
    """Function of one kind."""
    if kind == 0:
        return torch.tanh(z)
    if kind == 1:
        size = z.abs()
        return size + torch.log1p(torch.exp(-2 * size)) - math.log(2)
    return torch.exp(-z) if kind == 2 else 1 / (1 + z)


def unit_slopes(kind: int, z: Tensor) -> Tensor:
    """Derivative of `unit_values` with respect to z."""
    if kind == 0:
        return 1 / torch.cosh(z.clamp(-LARGEST_ARGUMENT, LARGEST_ARGUMENT)).square()
    if kind == 1:
        return torch.tanh(z)
    return -torch.exp(-z) if kind == 2 else -1 / (1 + z).square()


def distance_from_bend(kind: int, z: Tensor) -> Tensor:
    """How far a ridge unit is from its limit of infinite slope."""
    tail = torch.exp(-2 * z.abs())
    return 2 * tail / (1 + tail) if kind == 0 else torch.log1p(tail)


class Units:
    """Kinds, weights and biases of some units, evaluated kind by kind.

    Parameters
    ----------
    kinds : Tensor of shape (u,), int64
        Indices into `KINDS`.
    weights : Tensor of shape (u, d)
        Directions times slopes of ridge units, centres of radial ones.
    biases : Tensor of shape (u,)
        Biases of ridge units, logarithms of the inverse widths of radial ones.
    """

    def __init__(self, kinds: Tensor, weights: Tensor, biases: Tensor):
        self.kinds, self.weights, self.biases = kinds, weights, biases
        self._parts: list[tuple[int, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    @classmethod
    def from_theta(cls, kinds: Tensor, theta: Tensor, n_features: int) -> Units:
        """Units whose parameters are one flat vector: all weights, then all biases."""
        split = len(kinds) * n_features
        return cls(kinds, theta[:split].reshape(-1, n_features), theta[split:])

    def theta(self) -> Tensor:
        """Weights, then biases, as one vector."""
        return torch.cat([self.weights.reshape(-1), self.biases])

    def select(self, index: Tensor) -> Units:
        """Some of the units."""
        return Units(self.kinds[index], self.weights[index], self.biases[index])

    def join(self, other: Units) -> Units:
        """These units, then others."""
        pairs = (
            (self.kinds, other.kinds),
            (self.weights, other.weights),
            (self.biases, other.biases),
        )
        return Units(*(torch.cat(pair) for pair in pairs))

    def parts(self) -> list[tuple[int, Tensor]]:
        """Each kind that occurs, with the indices of its units."""
        if self._parts is None:
            found = ((k, torch.nonzero(self.kinds == k).squeeze(1)) for k in range(len(KINDS)))
            self._parts = [(kind, index) for kind, index in found if len(index)]
        return self._parts

    def arguments(self, t: Tensor) -> list[Tensor]:
        """Z of each of the `parts` at the points t."""
        return [self.argument(kind, index, t) for kind, index in self.parts()]

    def argument(self, kind: int, index: Tensor, t: Tensor) -> Tensor:
        """Z of the units `index`, of one kind, at the points t (n, d)."""
        weights, biases = self.weights[index].to(t), self.biases[index].to(t)
        if kind < N_RIDGE:
            return t @ weights.T + biases
        rate = torch.exp(2 * biases.clamp(max=LARGEST_LOG))
        if t.shape[1] == 1:
            return rate * (t - weights.T).square()
        return rate * (t[:, None, :] - weights).square().sum(2)

    def values(self, t: Tensor, arguments: list[Tensor] | None = None) -> Tensor:
        """Columns (n, u), from the `arguments` at t where these are known."""
        result = t.new_empty((len(t), len(self)))
        each: Iterable[Tensor] = arguments or (self.argument(*part, t) for part in self.parts())
        for (kind, index), z in zip(self.parts(), each, strict=True):
            result[:, index] = unit_values(kind, z)
        return result

    def derivatives(
        self, t: Tensor, arguments: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Derivatives with respect to the weights (n, u, d) and the biases (n, u)."""
        if arguments is None:
            arguments = self.arguments(t)
        by_weight = t.new_empty((len(t), len(self), t.shape[1]))
        by_bias = t.new_empty((len(t), len(self)))
        for (kind, index), z in zip(self.parts(), arguments, strict=True):
            slope = unit_slopes(kind, z)
            if kind < N_RIDGE:
                by_weight[:, index] = slope[:, :, None] * t[:, None, :]
                by_bias[:, index] = slope
            else:
                biases = self.biases[index].to(t)
                rate = torch.exp(2 * biases.clamp(max=LARGEST_LOG))
                offset = t[:, None, :] - self.weights[index].to(t)
                by_weight[:, index] = (-2 * rate * slope)[:, :, None] * offset
                by_bias[:, index] = 2 * z * slope * (biases <= LARGEST_LOG)
        return by_weight, by_bias

    def gaps(self, t: Tensor, sizes: Tensor, residual: float) -> Tensor:
        """Where bends lie that no point tells apart from infinitely sharp ones.

        Parameters
        ----------
        t : Tensor of shape (n, d)
            Points of the rows.
        sizes : Tensor of shape (u,)
            Of the units' coefficients.
        residual : float
            The largest that the fit leaves at a row.

        Returns
        -------
        Tensor of shape (u, 2)
            Arguments z of the points next to the bend on both sides; zeros for other units.
        """
        result = t.new_zeros((len(self), 2))
        for kind, index in self.parts():
            if kind >= N_RIDGE:
                continue
            z = self.argument(kind, index, t)
            seen = (sizes[index] * distance_from_bend(kind, z)).amax(0) > SEEN * residual
            below = torch.where(z < 0, z, -torch.inf).amax(0)
            above = torch.where(z >= 0, z, torch.inf).amin(0)
            inside = torch.isfinite(below) & torch.isfinite(above) & ~seen
            gap = torch.stack([below, above], 1)
            result[index] = torch.where(inside[:, None], gap, torch.zeros_like(gap))
        return result

    def unresolved(self, t: Tensor, gaps: Tensor) -> Tensor:
        """Mean squares (n, u) of what units are from those that the rows would allow as well.

        A step may be anywhere between its two rows. A kink is where two lines meet, but may be
        round or sharp.
        """
        result = t.new_zeros((len(t), len(self)))
        for kind, index in self.parts():
            if kind >= N_RIDGE:
                continue
            z, (low, high) = self.argument(kind, index, t), gaps[index].to(t).T
            between = (z > low) & (z < high)
            if kind == 0:
                share = ((z - low) / (high - low).clamp_min(TINY)).clamp(0, 1)
                mean = torch.tanh(z)
                square = share * (1 - mean).square() + (1 - share) * (1 + mean).square()
            else:
                square = distance_from_bend(kind, z).square()
            result[:, index] = torch.where(between, square, torch.zeros_like(square))
        return result

    def partial(self, t: Tensor, feature: int) -> Tensor:
        """Derivatives (n, u) along one coordinate of t."""
        result = t.new_empty((len(t), len(self)))
        for kind, index in self.parts():
            slope = unit_slopes(kind, self.argument(kind, index, t))
            weights = self.weights[index, feature].to(t)
            if kind < N_RIDGE:
                result[:, index] = slope * weights
            else:
                rate = torch.exp(2 * self.biases[index].to(t).clamp(max=LARGEST_LOG))
                result[:, index] = 2 * rate * slope * (t[:, feature : feature + 1] - weights)
        return result


class UnitBasis(Basis, kind="units"):
    """Columns 1, ``t_1 .. t_d``, or those of a background, then the units.

    Parameters
    ----------
    reach : Tensor of shape (u,), default=None
        Sizes of the units' coefficients. With them the posterior is also about the units'
        parameters.
    background : SineFeatures, default=None
        Columns that come first, in models of earlier versions.
    gaps : Tensor of shape (u, 2), default=None
        See `Units.gaps`. With them the variance knows that bends may be elsewhere in these.
    """

    def __init__(
        self,
        units: Units,
        n_features: int,
        reach: Tensor | None = None,
        background: SineFeatures | None = None,
        gaps: Tensor | None = None,
    ):
        self.units = units
        self.reach = reach
        self.background = background
        self.gaps = gaps
        self.n_features = n_features
        self.n_fixed = 1 + n_features if background is None else background.n_columns
        self.n_columns = self.n_fixed + len(units)

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        names = ("kinds", "weights", "biases")
        arrays: dict[str, Any] = {name: getattr(self.units, name).cpu().numpy() for name in names}
        for name in ("reach", "gaps"):
            if (part := getattr(self, name)) is not None:
                arrays[name] = part.cpu().numpy()
        if self.background is not None:
            arrays["background"] = self.background.arrays()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> UnitBasis:
        """Rebuild from `arrays`, on the device of `like`."""
        names = ("kinds", "weights", "biases")
        units = Units(*(torch.tensor(arrays[name], device=like.device) for name in names))
        reach, gaps = (
            torch.tensor(arrays[name], device=like.device) if name in arrays else None
            for name in ("reach", "gaps")
        )
        background = None
        if "background" in arrays:
            background = SineFeatures.from_arrays(arrays["background"], like)
        return cls(units, units.weights.shape[1], reach, background, gaps)

    def fixed(self, X: Tensor) -> Tensor:
        """The columns before the units (n, n_fixed)."""
        if self.background is not None:
            return self.background.matrix(X)
        return torch.cat([X.new_ones((len(X), 1)), 2 * X - 1], 1)

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        return torch.cat([self.fixed(X), self.units.values(2 * X - 1)], 1)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        t = 2 * X - 1
        if self.background is not None:
            fixed = self.background.partial(X, feature)
        else:
            fixed = t.new_zeros((len(t), 1 + self.n_features))
            fixed[:, 1 + feature] = 2.0
        return torch.cat([fixed, 2 * self.units.partial(t, feature)], 1)

    def unresolved(self, X: Tensor, coef: Tensor) -> Tensor:
        """Variance by the places of bends between the rows; see `Basis.unresolved`."""
        if self.gaps is None:
            return super().unresolved(X, coef)
        return self.units.unresolved(2 * X - 1, self.gaps) @ coef[self.n_fixed :].to(X).square()

    def posterior_columns(self, X: Tensor) -> Tensor:
        """Columns, then their derivatives times `reach`; see `Basis.posterior_columns`."""
        columns = self.matrix(X)
        if self.reach is None:
            return columns
        by_weight, by_bias = self.units.derivatives(2 * X - 1)
        reach = self.reach.to(X)
        return torch.cat([columns, (by_weight * reach[:, None]).flatten(1), by_bias * reach], 1)


class UnitColumns(ParametricBasis):
    """The columns of units of given kinds at fixed points, as functions of their parameters.

    Parameters
    ----------
    kinds : Tensor of shape (u,), int64
    X : Tensor of shape (n, d)
        Points.
    """

    def __init__(self, kinds: Tensor, X: Tensor):
        self.kinds, self.X, self.t = kinds, X, 2 * X - 1
        self.fixed = torch.cat([X.new_ones((len(X), 1)), self.t], 1)
        self.n_columns = self.fixed.shape[1] + len(kinds)
        self.n_parameters = len(kinds) * (X.shape[1] + 1)
        self._parts: list[tuple[int, Tensor]] | None = None
        self._last: tuple[Tensor, Units, list[Tensor]] | None = None

    def rows(self, index: slice | Tensor) -> UnitColumns:
        """The same columns at some of the points."""
        return UnitColumns(self.kinds, self.X[index])

    def units(self, theta: Tensor) -> Units:
        """Units with the parameters theta."""
        units = Units.from_theta(self.kinds, theta, self.X.shape[1])
        units._parts = self._parts
        self._parts = units.parts()
        return units

    def _at(self, theta: Tensor) -> tuple[Units, list[Tensor]]:
        """Units with their arguments at the points, which values and derivatives share."""
        known = self._last
        if known is None or known[0] is not theta:
            units = self.units(theta)
            known = self._last = theta, units, units.arguments(self.t)
        return known[1:]

    def matrix(self, theta: Tensor) -> Tensor:
        """Columns; see `ParametricBasis.matrix`."""
        units, arguments = self._at(theta)
        return torch.cat([self.fixed, units.values(self.t, arguments)], 1)

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivatives of the outputs; see `ParametricBasis.jacobian`."""
        units, arguments = self._at(theta)
        by_weight, by_bias = units.derivatives(self.t, arguments)
        own = coef[self.fixed.shape[1] :].T  # (m, u)
        weights = by_weight[:, None] * own[None, :, :, None]
        return torch.cat([weights.flatten(2), by_bias[:, None] * own[None]], 2)
