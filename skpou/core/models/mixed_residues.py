"""A mixture density about the mean of a model whose own density is one Gaussian a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows, pairs_of
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import EXACT_NOISE
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.model import Predictor, SameMean
from skpou.core.models.noise_law import Errors, NoiseLaw
from skpou.core.models.residue_density import (
    Residue,
    ResidueDensity,
    choose_components,
    fit_density,
    is_uneven,
    left_out,
    noise_floor,
    varies,
)
from skpou.core.models.tails import CLEAR_NOISE

#: Laws of the noise of all targets; None: that of one is the same everywhere.
Laws = Sequence[NoiseLaw | None]

#: Standard errors by which products of neighbours' errors are hardly ever positive by chance.
ALIKE = 3.0
#: How often even noise may seem to vary: left-out rows judge, and a look costs little.
MAY_VARY = 0.1


def better_residues(
    model: Predictor, rows: Rows, laws: Laws | None = None
) -> list[dict[str, Any]] | None:
    """What `fit_residues` returns; None where one Gaussian predicts left-out rows as well.

    Parameters
    ----------
    model : Predictor
        See `fit_residues`.
    laws : sequence of NoiseLaw or None, default=None
        See `fit_residues`.
    """
    states, several = [], False
    for found in residues_of(model, rows, laws):
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


def fit_residues(model: Predictor, rows: Rows, laws: Laws | None = None) -> list[dict[str, Any]]:
    """Gated widths of the noise of every target, from exact leave-one-out errors.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows; the variance of its mean is that of linear coefficients.
    laws : sequence of NoiseLaw or None, default=None
        By which the noise of each target varies: the widths are those of what it leaves.

    Returns
    -------
    list of dict of ndarray
        State for `MixedResidues`, one a target.
    """
    states = []
    for found in residues_of(model, rows, laws):
        residue, floor = found.residue, found.floor
        density = fit_density(residue, choose_components(residue, floor), floor)
        if len(found.y) == 1:
            density = ResidueDensity.single(1.0, found.y)
        states.append(density.arrays())
    return states


@dataclass(frozen=True)
class ResidueOfTarget:
    """What a model leaves of one target.

    Attributes
    ----------
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


def residues_of(model: Predictor, rows: Rows, laws: Laws | None = None) -> list[ResidueOfTarget]:
    """Left-out errors of every target, with what they are compared with; see `fit_residues`."""
    blocks = row_blocks(rows.n_rows, rows_within(model.numbers_per_row()))
    parts = [_of_one_gaussian(model.components(rows.X[block])) for block in blocks]
    mean, noise, spread = (torch.cat(part).double() for part in zip(*parts, strict=True))
    double = rows.to(torch.float64)
    found = []
    for output in range(rows.n_outputs):
        pairs = pairs_of(double, output)
        residue = left_out(pairs, mean[:, output], spread[:, output], double.X)
        floor = noise_floor(residue, pairs.y)
        if double.precision is not None:
            frequency = residue.weight / double.precision[pairs.point]
            residue = replace(residue, weight=frequency)
        law = None if laws is None else laws[output]
        if law is not None:
            factor = law.log_factor(residue.inputs[:, :-1], residue.inputs[:, -1]).exp()
            residue, floor = _of_unit_factor(residue, factor), floor / math.sqrt(law.usual)
        own = noise[pairs.point, output]
        own = own[:1] if bool((own == own[:1]).all()) else own
        found.append(ResidueOfTarget(residue, floor, own, pairs.y))
    return found


def _of_unit_factor(residue: Residue, factor: Tensor) -> Residue:
    """Errors where the noise has been divided by a factor (k,) of its variance."""
    return replace(residue, error=residue.error / factor.sqrt(), spread=residue.spread / factor)


def errors_of_law(found: ResidueOfTarget, rows: Rows) -> Errors:
    """Left-out errors of a target, which a law of the noise is fitted to.

    The variance of a mean that was fitted to rows of their precision is known. Of a mean that was
    fitted to rows as if their noise were the same everywhere it is not: there it counts as if it
    varied with the noise, as is nearly so where a fit is local.
    """
    residue = found.residue
    base = found.noise.expand_as(residue.error)
    own, added = base * (1 + residue.spread), torch.zeros_like(base)
    if rows.precision is not None and bool((rows.precision != rows.precision[0]).any()):
        own, added = base, base * residue.spread
    inputs = residue.inputs
    return Errors(inputs[:, :-1], inputs[:, -1], residue.error.square(), own, added, residue.weight)


def has_even_noise(found: ResidueOfTarget) -> bool:
    """Whether left-out errors of a target look as large everywhere, or are round-off."""
    return found.residue.variance() < CLEAR_NOISE**2 or not varies(found.residue, MAY_VARY)


def is_of_form(found: ResidueOfTarget, law: NoiseLaw) -> bool:
    """Whether left-out errors of a target are what its form misses, and not noise alone.

    They are like those of their nearest rows then, in units of y and in those of the law: a few
    large ones are alike by chance, and where the noise is least those of the mean are.
    """
    inputs = found.residue.inputs
    factor = law.log_factor(inputs[:, :-1], inputs[:, -1]).exp()
    points = inputs[:, :-1].cpu().numpy()
    return all(
        are_alike(points, residue.error.cpu().numpy())
        for residue in (found.residue, _of_unit_factor(found.residue, factor))
    )


def are_alike(points: np.ndarray, error: np.ndarray) -> bool:
    """Whether errors (n,) are like those of the nearest of the points (n, d), not by chance."""
    near = cKDTree(points).query(points, k=2)[1]
    other = np.where(near[:, 0] == np.arange(len(points)), near[:, 1], near[:, 0])
    product = error * error[other]
    return bool(product.sum() > ALIKE * np.sqrt((product**2).sum()))


def _of_one_gaussian(parts: Components) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance of the noise, and that of the mean relative to it, (n, m) each."""
    noise, epistemic = parts.variances()
    return parts.expectation(), noise, epistemic / noise


@dataclass(frozen=True)
class MixedResidues(SameMean):
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
