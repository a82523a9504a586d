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
from skpou.core.models.model import Predictor, SameMean
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
    noise = model.components(rows.X[:1]).noise.flatten()  # the same everywhere
    for output, (residue, floor, y) in enumerate(_residues_of(model, rows)):
        # Of a fit without noise only round-off is left, or what its form misses.
        uneven = residue.variance() > EXACT_NOISE and is_uneven(residue)
        count = choose_components(residue, floor) if uneven else 1
        several |= count > 1
        density = (
            fit_density(residue, count, floor)
            if count > 1
            else ResidueDensity.single(float(noise[output]), y)
        )
        states.append(density.arrays())
    return states if several else None


def fit_residues(model: Predictor, rows: Rows) -> list[dict[str, Any]]:
    """Gated widths of the noise of every target, from exact leave-one-out errors.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows, one Gaussian a point; the variance of its mean is that of linear
        coefficients.
    rows : Rows
        Distinct rows.

    Returns
    -------
    list of dict of ndarray
        State for `MixedResidues`, one a target.
    """
    states = []
    for residue, floor, y in _residues_of(model, rows):
        density = fit_density(residue, choose_components(residue, floor), floor)
        if len(y) == 1:
            density = ResidueDensity.single(1.0, y)
        states.append(density.arrays())
    return states


def _residues_of(model: Predictor, rows: Rows) -> list[tuple[Residue, float, Tensor]]:
    """Left-out errors of every target, the floor of their width, and its values."""
    blocks = row_blocks(rows.n_rows, rows_within(model.numbers_per_row()))
    means, spreads = [], []
    for block in blocks:
        parts = model.components(rows.X[block])
        noise = parts.noise if parts.noise.ndim == 3 else parts.noise[None]
        means.append(parts.mean[:, 0].double())
        spreads.append((parts.epistemic / noise)[:, 0].double())
    mean, spread = torch.cat(means), torch.cat(spreads)
    double = rows.to(torch.float64)
    found = []
    for output in range(rows.n_outputs):
        pairs = pairs_of(double, output)
        residue = left_out(pairs, mean[:, output], spread[:, output], double.X)
        found.append((residue, noise_floor(residue, pairs.y), pairs.y))
    return found


@dataclass(frozen=True)
class MixedResidues(SameMean):
    """A model's density with gated widths in place of its noise.

    Outside the box the gates are those of its nearest point.

    Attributes
    ----------
    model : Predictor
        One Gaussian a point.
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

    def flattened(self, targets: Tensor) -> MixedResidues:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        densities = tuple(
            ResidueDensity.single(1.0, density.variance) if flat else density
            for density, flat in zip(self.densities, targets.tolist(), strict=True)
        )
        return MixedResidues(self.model.flattened(targets), densities)  # type: ignore[attr-defined]

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
        mean = parts.mean[:, 0] if torch.equal(X, inside) else self.model.mean(inside)
        noise = parts.noise if parts.noise.ndim == 3 else parts.noise[None]
        targets = []
        for output, density in enumerate(self.densities):
            log_gates, variance = density.at(inside, mean[:, output])
            spread = (parts.epistemic / noise)[:, 0, output : output + 1]
            variance = variance.expand_as(log_gates).to(X.dtype)
            targets.append(
                Components(
                    log_gates.to(X.dtype),
                    parts.mean[:, :, output].expand_as(log_gates)[..., None],
                    variance[..., None],
                    (variance * spread)[..., None],
                )
            )
        return IndependentComponents.of_targets(targets, parts.mean[:, 0])
