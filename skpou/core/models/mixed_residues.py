"""A mixture density about the mean of a model whose own density is one Gaussian a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skpou.core import Rows, pairs_of
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import EXACT_NOISE
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.model import Predictor
from skpou.core.models.residue_density import (
    Residue,
    ResidueDensity,
    choose_components,
    fit_density,
    is_uneven,
    left_out,
    noise_floor,
)


def better_residues(model: Predictor, rows: Rows) -> list[dict[str, Any]] | None:
    """What `fit_residues` returns; None where one Gaussian predicts left-out rows as well.

    Parameters
    ----------
    model : Predictor
        See `fit_residues`.
    rows : Rows
        Distinct rows.
    """
    states, several = [], False
    for found in _residues_of(model, rows):
        residue, floor = found.residue, found.floor
        # Of a fit without noise only round-off is left, or what its form misses.
        uneven = residue.variance() > EXACT_NOISE and is_uneven(residue)
        count = choose_components(residue, floor, found.own_noise()) if uneven else 1
        several |= count > 1
        density = (
            fit_density(residue, count, floor)
            if count > 1
            else ResidueDensity.single(float(found.noise.mean()), found.y)
        )
        states.append(density.arrays())
    return states if several else None


def fit_residues(model: Predictor, rows: Rows) -> list[dict[str, Any]]:
    """Gated widths of the noise of every target, from exact leave-one-out errors.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows; the variance of its mean is that of linear coefficients.
    rows : Rows
        Distinct rows.

    Returns
    -------
    list of dict of ndarray
        State for `MixedResidues`, one a target.
    """
    states = []
    for found in _residues_of(model, rows):
        residue, floor = found.residue, found.floor
        density = fit_density(residue, choose_components(residue, floor), floor)
        if len(found.y) == 1:
            density = ResidueDensity.single(1.0, found.y)
        states.append(density.arrays())
    return states


@dataclass(frozen=True)
class _OfTarget:
    """What a model leaves of one target.

    Attributes
    ----------
    residue : Residue
        Left-out errors.
    floor : float
        Least standard deviation of a component.
    noise : Tensor of shape (1,) or (k,)
        Variance that the model gives the noise: the same everywhere, or at each pair.
    y : Tensor of shape (k, 1)
        The target's values.
    """

    residue: Residue
    floor: float
    noise: Tensor
    y: Tensor

    def own_noise(self) -> Tensor | None:
        """The model's noise, where it is another one elsewhere."""
        return self.noise if len(self.noise) > 1 else None


def _residues_of(model: Predictor, rows: Rows) -> list[_OfTarget]:
    """Left-out errors of every target, with what they are compared with."""
    blocks = row_blocks(rows.n_rows, rows_within(model.numbers_per_row()))
    parts = [_of_one_gaussian(model.components(rows.X[block])) for block in blocks]
    mean, noise, spread = (torch.cat(part).double() for part in zip(*parts, strict=True))
    double = rows.to(torch.float64)
    found = []
    for output in range(rows.n_outputs):
        pairs = pairs_of(double, output)
        residue = left_out(pairs, mean[:, output], spread[:, output], double.X)
        own = noise[pairs.point, output]
        own = own[:1] if bool((own == own[:1]).all()) else own
        found.append(_OfTarget(residue, noise_floor(residue, pairs.y), own, pairs.y))
    return found


def _of_one_gaussian(parts: Components) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance of the noise, and that of the mean relative to it, (n, m) each."""
    noise, epistemic = parts.variances()
    return parts.expectation(), noise, epistemic / noise


@dataclass(frozen=True)
class MixedResidues:
    """A model's density with gated widths in place of its noise.

    Outside the box the gates are those of its nearest point.

    Attributes
    ----------
    model : Predictor
        One Gaussian a point; of a mixture the widths are about its mean.
    densities : tuple of ResidueDensity
        One a target.
    """

    model: Predictor
    densities: tuple[ResidueDensity, ...]

    @classmethod
    def from_states(
        cls, model: Predictor, states: list[dict[str, Any]], like: Tensor
    ) -> MixedResidues:
        """Rebuild from what `fit_residues` returned, on the device of `like`."""
        return cls(model, tuple(ResidueDensity.from_arrays(state, like) for state in states))

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) of the model."""
        return self.model.mean(X)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the model's mean."""
        return self.model.gradient(X)

    def flattened(self, targets: Tensor) -> MixedResidues:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        densities = tuple(
            ResidueDensity.single(1.0, density.variance) if flat else density
            for density, flat in zip(self.densities, targets.tolist(), strict=True)
        )
        return MixedResidues(self.model.flattened(targets), densities)  # type: ignore[attr-defined]

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        return self.model.numbers_per_row()

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m): those of the model, relative to the noise at either point."""
        _, epistemic = self.components(X).variances()
        shared = self.model.covariance(X)  # type: ignore[attr-defined]
        own = shared.diagonal().T
        ratio = (epistemic.double() / own.clamp_min(torch.finfo(own.dtype).tiny)).sqrt()
        return shared * ratio[:, None] * ratio

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d), independent for all targets."""
        parts = self.model.components(X, posterior)
        inside = X.clamp(0, 1)
        own_mean, _, relative = _of_one_gaussian(parts)
        mean = own_mean if torch.equal(X, inside) else self.model.mean(inside)
        targets = []
        for output, density in enumerate(self.densities):
            log_gates, variance = density.at(inside, mean[:, output])
            spread = relative[:, output : output + 1]
            variance = variance.expand_as(log_gates).to(X.dtype)
            targets.append(
                Components(
                    log_gates.to(X.dtype),
                    own_mean[:, output : output + 1].expand_as(log_gates)[..., None],
                    variance[..., None],
                    (variance * spread)[..., None],
                )
            )
        return IndependentComponents.of_targets(targets, own_mean)
