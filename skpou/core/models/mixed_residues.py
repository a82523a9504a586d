"""A mixture density about the mean of a model whose own density is one Gaussian a point."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from skpou.core import Rows, pairs_of
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models.components import Components
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.residue_density import (
    ResidueDensity,
    choose_components,
    fit_density,
    left_out,
    noise_floor,
)


class GaussianModel(Protocol):
    """What is asked of the model: one component at every point."""

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density at points X (n, d)."""

    def mean(self, X: Tensor) -> Tensor:
        """The mean (n, m)."""

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""


def fit_residues(model: GaussianModel, rows: Rows) -> list[dict[str, Any]]:
    """Gated widths of the noise of every target, from exact leave-one-out errors.

    Parameters
    ----------
    model : GaussianModel
        Fitted to the rows; the variance of its mean is that of linear coefficients.
    rows : Rows
        Distinct rows.

    Returns
    -------
    list of dict of ndarray
        State for `mixed`, one a target.
    """
    blocks = row_blocks(rows.n_rows, rows_within(model.numbers_per_row()))
    means, spreads = [], []
    for block in blocks:
        parts = model.components(rows.X[block])
        noise = parts.noise if parts.noise.ndim == 3 else parts.noise[None]
        means.append(parts.mean[:, 0].double())
        spreads.append((parts.epistemic / noise)[:, 0].double())
    mean, spread = torch.cat(means), torch.cat(spreads)
    double = rows.to(torch.float64)
    states = []
    for output in range(rows.n_outputs):
        pairs = pairs_of(double, output)
        residue = left_out(pairs, mean[:, output], spread[:, output], double.X)
        floor = noise_floor(residue, pairs.y)
        density = fit_density(residue, choose_components(residue, floor), floor)
        if len(pairs.y) == 1:
            density = ResidueDensity.single(1.0, pairs.y)
        states.append(density.arrays())
    return states


def mixed(
    model: GaussianModel, states: list[dict[str, Any]], X: Tensor, posterior: bool
) -> Components:
    """The model's density at X with gated widths in place of its noise.

    Outside the box the gates are those of its nearest point.
    """
    parts = model.components(X, posterior)
    if not posterior:
        return parts
    inside = X.clamp(0, 1)
    mean = parts.mean[:, 0] if torch.equal(X, inside) else model.mean(inside)
    noise = parts.noise if parts.noise.ndim == 3 else parts.noise[None]
    targets = []
    for output, state in enumerate(states):
        density = ResidueDensity.from_arrays(state, X)
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
    return IndependentComponents.of_targets(targets)
