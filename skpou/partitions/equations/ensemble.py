"""Errors that slabs pass on: an ensemble of them goes through the linearised solves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.partitions.equations.bars import OwnErrors, own_errors, values_at_nodes
from skpou.partitions.equations.columns import exponents
from skpou.partitions.equations.evaluation import evaluate
from skpou.partitions.equations.march import Slab
from skpou.partitions.equations.refinement import solution_size
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

    Parameters
    ----------
    column : int
        The marched column.
    n_outputs : int
    """

    def __init__(self, column: int, n_outputs: int):
        self.column = column
        #: Of the solution so far: the round-off of what is larger later is not in it yet.
        self.size = np.zeros(n_outputs)
        self.generator = torch.Generator().manual_seed(0)
        self.last: tuple[Slab, Coefficients] | None = None

    def deviations(self, slab: Slab) -> Tensor:
        """Standard deviations (E, k, m) of the next slab at `variance_points`."""
        system = slab.system
        self.size = np.maximum(self.size, solution_size(slab.boxes, slab.coef))
        own = own_errors(system, slab.solved, self.size)
        *draws, signs = self._normal(system)
        draws = [draw * own.rows**0.5 for draw in draws]
        signs = signs.sign()
        gradients = [draw.new_zeros(draw.shape) for draw in draws]
        if self.last is not None:
            changes = system.at_bottom(self._carried)
            for (e, rows, _, _), change in zip(system.bottom, changes, strict=True):
                gradients[e] = rows.T @ change
        carried, drawn = slab.solved.elimination.responses(gradients, draws)
        fields = [self._field(system, part) for part in carried]
        variance = own.variance + _variance(system, fields)
        if own.is_open or not bool(torch.isfinite(variance).all()):
            return self._anew(slab, own, signs)
        errors = []
        for e, (field, part) in enumerate(zip(fields, drawn, strict=True)):
            error = field + self._field(system, part)
            errors.append(_raised(system, e, error, signs * own.left_out[e, :, None]))
        self.last = slab, errors
        return variance.sqrt()

    def _anew(self, slab: Slab, own: OwnErrors, signs: Tensor) -> Tensor:
        """Where rows leave directions open no solve tells: all errors stay as large as they are."""
        system, variance = slab.system, own.variance
        if self.last is not None:
            variance = variance + _variance(self.last[0].system, self.last[1]).mean((0, 1))
        size = variance.mean((0, 1)).sqrt()
        errors = []
        for e, part in enumerate(slab.coef):
            zero = part.new_zeros((len(part), system.m * MEMBERS))
            errors.append(_raised(system, e, zero, signs * size[:, None]))
        self.last = slab, errors
        return variance.sqrt()

    def _normal(self, system: System) -> tuple[Tensor, ...]:
        """Normal numbers (size_e, K) for every piece, and (m, K)."""
        sizes = [*system.sizes, system.m]
        drawn = torch.randn((sum(sizes), MEMBERS), generator=self.generator, dtype=torch.float64)
        return drawn.to(system.like).split(sizes)

    def _field(self, system: System, part: Tensor) -> Tensor:
        """Coefficients (N, m K) of functions, from those of an elimination, (m N, K)."""
        cube = part.reshape(system.m, -1, MEMBERS)
        return cube.movedim(0, 1).reshape(cube.shape[1], -1)

    def _carried(self, points: np.ndarray, order: int) -> Tensor:
        """Derivatives (n, m, K) along the column of the errors at the end of the last slab."""
        assert self.last is not None
        slab, errors = self.last
        orders = tuple(order if j == self.column else 0 for j in range(points.shape[1]))
        return evaluate(slab.boxes, errors, points, orders).reshape(len(points), -1, MEMBERS)


def _raised(system: System, e: int, field: Tensor, by: Tensor) -> Tensor:
    """Functions of a piece with constants (m, K) added."""
    constant = int(np.flatnonzero(exponents(system.boxes.degrees(e)).sum(1) == 0)[0])
    field[constant] += by.reshape(-1)
    return field


def _variance(system: System, fields: Coefficients) -> Tensor:
    """Mean squares (E, k, m) of an ensemble at `variance_points`."""
    found = []
    for e, field in enumerate(fields):
        values = values_at_nodes(system.boxes.degrees(e), system.like) @ field
        found.append(values.reshape(len(values), system.m, MEMBERS).square().mean(2))
    return torch.stack(found)
