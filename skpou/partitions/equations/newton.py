"""Gauss-Newton on pieces, with a line search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from skpou.core.linalg import TINY
from skpou.equations import inside
from skpou.partitions.equations.elimination import Elimination
from skpou.partitions.equations.system import Coefficients, System

#: Halvings of a step that does not lower the sum of squares.
HALVINGS = 8
#: Step relative to the solution after which the next one, which is about its square, is none.
LAST_STEP = 1e-7
#: Change of an unknown, relative to itself, that is none; and step relative to the solution, of
#: those that no longer gain, that is round-off.
SETTLED, ROUND_OFF = 1e-8, 1e-5
#: Smallest share of the sum of squares that a step must take away.
GAIN = 1e-4


@dataclass
class Solved:
    """Coefficients and unknowns of a system, and how they were found.

    Attributes
    ----------
    coef : list of Tensor of shape (N, m)
    unknowns : Tensor of shape (q,)
    squares : float
        Sum of squares of the weighted rows.
    """

    coef: Coefficients
    unknowns: Tensor
    squares: float
    elimination: Elimination
    converged: bool
    n_steps: int = 1


def solve(
    system: System,
    coef: Coefficients,
    unknowns: Tensor,
    limits: Sequence,
    max_iter: int,
    is_affine: bool,
    hold: bool = False,
) -> Solved:
    """Steps from an iterate; a single one where all equations are affine.

    Parameters
    ----------
    coef : list of Tensor of shape (N, m)
    unknowns : Tensor of shape (q,)
    max_iter : int
        Most steps, at least 1.
    hold : bool, default=False
        Whether the unknowns stay as they are.
    """
    system.weigh(coef, unknowns)
    value = math.inf if is_affine else system.squares(coef, unknowns)
    n_steps = 0
    while True:
        n_steps += 1
        elimination = system.elimination(coef, unknowns).factor()
        solution, change = elimination.solve(hold)
        step = system.shaped(solution)
        share, moved = 1.0, False
        for _ in range(HALVINGS):
            tried = [c + share * s for c, s in zip(coef, step, strict=True)]
            tried_unknowns = unknowns if hold else inside(unknowns + share * change, limits)
            new = value if is_affine else system.squares(tried, tried_unknowns)
            if is_affine or new <= value * (1 - GAIN * share):
                moved = True
                break
            share *= 0.5
        if is_affine:
            return Solved(tried, unknowns, elimination.residual**2, elimination, True)
        size = norm(coef) + norm(tried)
        small = norm(step) <= LAST_STEP * size
        if len(unknowns) and not hold:
            small &= bool((change.abs() <= SETTLED * unknowns.abs().clamp_min(TINY)).all())
        if not moved:
            # At round-off no step gains anything.
            converged = small or norm(step) <= ROUND_OFF * size
            break
        coef, unknowns, value = tried, tried_unknowns, new
        converged = small and share == 1.0
        if converged or n_steps >= max_iter:
            break
    return Solved(coef, unknowns, value, elimination, converged, n_steps)


def norm(coef: Coefficients) -> float:
    """Root of the sum of squares."""
    total = sum(float(part.square().sum()) for part in coef)
    return math.sqrt(total) if math.isfinite(total) else math.inf
