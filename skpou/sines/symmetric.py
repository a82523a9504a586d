"""Sine features with symmetries: odd, even and periodic along coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skpou.core import Basis
from skpou.sines.features import SineFeatures


@dataclass(frozen=True)
class Mirror:
    """Odd or even about a point along one coordinate.

    Attributes
    ----------
    center : float
        In the units of the unit box.
    sign : int
        -1: odd, 1: even.
    """

    feature: int
    center: float
    sign: int


class SymmetricFeatures(Basis, kind="symmetric sine"):
    """Odd or even parts of sine features, ``(phi(x) + sign phi(mirrored x)) / 2``.

    Parameters
    ----------
    mirrors : sequence of Mirror
        At most one for a coordinate.
    columns : Tensor of int64
        Columns of the base that are taken.
    """

    def __init__(self, base: SineFeatures, mirrors: Sequence[Mirror], columns: Tensor):
        self.base, self.mirrors, self.columns = base, tuple(mirrors), columns
        self.n_features, self.n_columns = base.n_features, len(columns)

    @classmethod
    def draw(
        cls, base: SineFeatures, mirrors: Sequence[Mirror], periods: dict[int, float]
    ) -> SymmetricFeatures:
        """Give features symmetries, by nearby frequencies where they are to be periodic.

        Parameters
        ----------
        periods : dict of int to float
            Periods along coordinates, in units of the unit box.
        """
        frequencies, phases, d = base.frequencies.clone(), base.phases, base.n_features
        for feature, period in periods.items():
            # t = 2 x - 1 runs twice as fast as x.
            lowest = 2 * math.pi / (2 * period)
            frequencies[:, feature] = lowest * (frequencies[:, feature] / lowest).round()
        h = len(phases)
        sines = 2 * h
        if {mirror.feature for mirror in mirrors} == set(range(d)):
            # Odd and even along all coordinates leaves one function for each frequency.
            centers = [2 * m.center - 1 for m in sorted(mirrors, key=lambda m: m.feature)]
            phases = math.pi / 4 - frequencies @ frequencies.new_tensor(centers)
            sines = h
        affine = [0, *(1 + j for j in range(d) if j not in periods)]
        columns = torch.tensor([*affine, *range(1 + d, 1 + d + sines)], device="cpu")
        return cls(SineFeatures(frequencies, phases), mirrors, columns)

    def precise(self) -> SymmetricFeatures:
        """See `SineFeatures.precise`."""
        return SymmetricFeatures(self.base.precise(), self.mirrors, self.columns)

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "base": self.base.arrays(),
            "mirrors": [[m.feature, m.center, m.sign] for m in self.mirrors],
            "columns": self.columns.cpu().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> SymmetricFeatures:
        """Rebuild from `arrays`, on the device of `like`."""
        base = SineFeatures.from_arrays(arrays["base"], like)
        mirrors = [Mirror(*mirror) for mirror in arrays["mirrors"]]
        return cls(base, mirrors, torch.tensor(arrays["columns"], device="cpu"))

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate in the precision of X; see `Basis.matrix`."""
        return self.derivative(X, ())

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives in the precision of X; see `Basis.partial`."""
        return self.derivative(X, (feature,))

    def derivative(self, X: Tensor, coordinates: tuple[int, ...]) -> Tensor:
        """Derivatives of any order; see `Basis.derivative`."""
        return self.derivatives(X, [coordinates])[0]

    def derivatives(self, X: Tensor, orders: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Several derivatives; see `Basis.derivatives`."""
        return self._parts(X, orders, self.mirrors)

    def _parts(
        self, X: Tensor, orders: Sequence[tuple[int, ...]], mirrors: Sequence[Mirror]
    ) -> list[Tensor]:
        if not mirrors:
            columns = self.columns.to(X.device)
            return [found[:, columns] for found in self.base.derivatives(X, orders)]
        mirror, *others = mirrors
        reflected = X.clone()
        reflected[:, mirror.feature] = 2 * mirror.center - X[:, mirror.feature]
        # Both are images of each other to the last digit: what they differ by is not odd or even.
        X = X.clone()
        X[:, mirror.feature] = 2 * mirror.center - reflected[:, mirror.feature]
        parts = []
        sides = (self._parts(side, orders, others) for side in (X, reflected))
        for coordinates, here, there in zip(orders, *sides, strict=True):
            # A derivative along the mirrored coordinate changes its sign.
            sign = mirror.sign * (-1) ** coordinates.count(mirror.feature)
            parts.append((here + sign * there) / 2)
        return parts
