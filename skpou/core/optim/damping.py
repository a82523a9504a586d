"""How far a damped Gauss-Newton step may go: as far as the steps before have shown.

Levenberg-Marquardt of every room tries its steps here; what a step is, it says itself, by
`damped_step` where it has a triangular factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from skpou.core.linalg import back_substitute

#: Steps that are tried from one place: with eight failures in a row Nielsen's damping has grown by
#: 2 ** 36, tenfold damping by 1e8, and what is left of the step is lost in round-off.
TRIES = 8
#: Least factor of the damping after a success: Nielsen's is a third, this trusts good steps sooner.
MOST_TRUST = 1 / 5
#: Factor of Marquardt's damping.
TENFOLD = 10
#: Least squared norm of a column of the Jacobian, relative to the largest, in the damping.
LEAST_NORM = 1e-14
#: Parameters from which on a step is found by normal equations, in a quarter of the time, and the
#: least damping with which these leave it more than four digits.
MANY_PARAMETERS, WELL_DAMPED = 512, 1e-8


@dataclass
class DampingControl:
    """Damping by the ratio of actual to predicted decrease (Nielsen 1999)."""

    #: First value as of Nielsen; below the least, round-off damps as much.
    value: float = 1e-3
    growth: float = 2.0
    least: float = 1e-12

    def succeed(self, ratio: float) -> None:
        """Trust the linear model more, the better it predicted."""
        self.value = max(self.value * max(MOST_TRUST, 1 - (2 * ratio - 1) ** 3), self.least)
        self.growth = 2.0

    def fail(self) -> None:
        """Trust it less, and ever less if it fails again."""
        self.value *= self.growth
        self.growth *= 2


class TenfoldDamping(DampingControl):
    """Damping in steps of ten, by success alone (Marquardt 1963).

    For steps that are cut short on the way: what the linear model promised says nothing of them.
    """

    #: Bounds of the value: after a failure, and after a success. Below, round-off damps as much.
    lowest_failed, lowest = 1e-15, 1e-17

    def succeed(self, ratio: float = 1.0) -> None:
        """A tenth."""
        self.value = max(self.value / TENFOLD, self.lowest)

    def fail(self) -> None:
        """Ten times."""
        self.value = max(self.value * TENFOLD, self.lowest_failed)


class Valued(Protocol):
    """What a step leads to."""

    value: float


AnyFit = TypeVar("AnyFit", bound=Valued)


def first_decrease(
    propose: Callable[[float], tuple[AnyFit | None, float]], value: float, damping: DampingControl
) -> AnyFit | None:
    """First of `TRIES` ever shorter steps that lowers the value, or None.

    Parameters
    ----------
    propose : callable
        Takes the damping; returns where its step leads, None for nowhere, and the decrease that a
        model promises, 0 without one.
    value : float
        Value to be lowered.
    damping : DampingControl
        Told of every failure and of the success.
    """
    for _ in range(TRIES):
        candidate, predicted = propose(damping.value)
        if candidate is None:
            return None
        if candidate.value < value:
            decrease = value - candidate.value
            damping.succeed(min(decrease / predicted, 1.0) if predicted > 0 else 0.5)
            return candidate
        damping.fail()
    return None


def damped_step(factor: Tensor, damping: float) -> tuple[Tensor, float]:
    """Solve ``min |J s + r|^2 + damping |D s|^2`` as the stacked system ``[J; sqrt(mu) D]``.

    D holds the column norms of J (Marquardt), so that the step does not depend on the units
    of theta. The normal equations would square J's condition: they are taken where there are many
    parameters and a damping that bounds it.

    Parameters
    ----------
    factor : Tensor of shape (k + 1, k + 1)
        Triangular factor of ``[J, r]``.
    damping : float
        Positive.

    Returns
    -------
    step : Tensor of shape (k,)
    predicted : float
        Decrease of the sum of squares that the linear model promises.
    """
    R, z = factor[:-1, :-1], factor[:-1, -1:]
    norms = R.square().sum(0)
    tiny = torch.finfo(R.dtype).tiny
    norms = norms.clamp_min(LEAST_NORM * float(norms.max()) + tiny).sqrt()
    if len(R) >= MANY_PARAMETERS and damping >= WELL_DAMPED:
        step = _step_by_normal_equations(R / norms, z, damping) / norms[:, None]
    else:
        stacked = torch.cat([R, math.sqrt(damping) * torch.diag(norms)])
        target = torch.cat([-z, torch.zeros_like(z)])
        Q, small = torch.linalg.qr(stacked)
        step = back_substitute(small, Q.T @ target)
    change = R @ step
    return step.squeeze(1), -float((change * (2 * z + change)).sum())


def _step_by_normal_equations(R: Tensor, z: Tensor, damping: float) -> Tensor:
    """Minimiser (k, 1) of ``|R s + z|^2 + damping |s|^2`` for columns of norm 1."""
    matrix = R.T @ R
    matrix.diagonal().add_(damping)
    return -torch.cholesky_solve(R.T @ z, torch.linalg.cholesky(matrix))
