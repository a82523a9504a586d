"""Errors that slabs pass on: an ensemble of them goes through the linearised solves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.bars import OwnErrors, own_errors, values_at_nodes
from skpou.partitions.equations.boxes import evaluate
from skpou.partitions.equations.columns import exponents
from skpou.partitions.equations.march import Slab
from skpou.partitions.equations.system import Coefficients, System

#: Members: a standard deviation of so many is right to 1 / sqrt(2 * 16) = 18 %.
MEMBERS = 16


class Ensemble:
    """Possible errors of a march, each of which is a function that every slab carries on.

    A slab adds a draw from the posterior of its coefficients, given what it starts with, and what
    its columns leave out, of a sign that is the same all over the slab: such errors are smooth,
    and do not cancel where they spread. What it starts with are the errors at the end of the slab
    before. Through the linearised solve they grow, decay and travel as the solution's changes do
    (Evensen, "The ensemble Kalman filter", Ocean Dynamics 2003, Sec. 3, without an analysis).
    """

    def __init__(self, column: int):
        self.column = column
        self.generator = torch.Generator().manual_seed(0)
        self.last: tuple[Slab, Coefficients] | None = None

    def deviations(self, slab: Slab, is_last: bool) -> Tensor:
        """Standard deviations (E, k, m) of the next slab at `variance_points`."""
        system = slab.system
        # The round-off of what is larger later is not in it yet.
        own = own_errors(system, slab.solved, slab.size)
        if self.last is None and is_last:
            return own.variance.sqrt()
        sizes = [*system.sizes, system.m]
        # The same numbers on all devices.
        drawn = torch.randn(
            (sum(sizes), MEMBERS), generator=self.generator, dtype=torch.float64, device="cpu"
        )
        *draws, signs = (drawn.to(system.like) * own.rows**0.5).split(sizes)
        signs = signs.sign()
        if self.last is None:
            gradients = [torch.zeros_like(draw) for draw in draws]
        else:
            changes = system.at_bottom(self._carried(*self.last))
            gradients = [
                rows.T @ change
                for (_, rows, _, _), change in zip(system.bottom, changes, strict=True)
            ]
        fields = [
            part.reshape(system.m, -1, 2 * MEMBERS).movedim(0, 1)
            for part in slab.solved.elimination.responses(gradients, draws)
        ]
        variance = own.variance + _variance(system, fields)
        if own.is_open or not bool(torch.isfinite(variance).all()):
            return self._anew(slab, own, signs)
        errors = []
        for e, field in enumerate(fields):
            error = field[..., :MEMBERS] + field[..., MEMBERS:]
            error[_constant(system, e)] += signs * own.left_out[e, :, None]
            errors.append(error.reshape(len(error), -1))
        self.last = slab, errors
        return variance.sqrt()

    def _anew(self, slab: Slab, own: OwnErrors, signs: Tensor) -> Tensor:
        """Where rows leave directions open no solve tells: all errors stay as large as they are."""
        system, variance = slab.system, own.variance
        if self.last is not None:
            fields = [error.reshape(len(error), system.m, MEMBERS) for error in self.last[1]]
            variance = variance + _variance(self.last[0].system, fields).mean((0, 1))
        size = variance.mean((0, 1)).sqrt()
        errors = []
        for e, part in enumerate(slab.coef):
            error = part.new_zeros((len(part), system.m, MEMBERS))
            error[_constant(system, e)] = signs * size[:, None]
            errors.append(error.reshape(len(error), -1))
        self.last = slab, errors
        return variance.sqrt()

    def _carried(self, slab: Slab, errors: Coefficients) -> Callable[[np.ndarray, int], Tensor]:
        """Derivatives (n, m, K) along the column of the errors at the end of a slab."""

        def derivatives(points: np.ndarray, order: int) -> Tensor:
            orders = tuple(order if j == self.column else 0 for j in range(points.shape[1]))
            return evaluate(slab.boxes, errors, points, orders).reshape(len(points), -1, MEMBERS)

        return derivatives


def _constant(system: System, e: int) -> int:
    """Number of the column of a piece that is 1."""
    return int(exponents(system.boxes.degrees(e)).sum(1).argmin())


def _variance(system: System, fields: list[Tensor]) -> Tensor:
    """Mean squares (E, k, m) of the first members of fields (N, m, K) at `variance_points`."""
    found = []
    for e, field in enumerate(fields):
        phi = values_at_nodes(system.boxes, e, system.like)
        values = (phi @ field.reshape(len(field), -1)).reshape(len(phi), *field.shape[1:])
        found.append(values[..., :MEMBERS].square().mean(2))
    return torch.stack(found)
