"""How far a damped Gauss-Newton step may go: as far as the steps before have shown.

Levenberg-Marquardt of every room tries its steps here; what a step is, it says itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

#: Steps that are tried from one place: with eight failures in a row Nielsen's damping has grown by
#: 2 ** 36, tenfold damping by 1e8, and what is left of the step is lost in round-off.
TRIES = 8
#: Least factor of the damping after a success: Nielsen's is a third, this trusts good steps sooner.
MOST_TRUST = 1 / 5
#: Factor of Marquardt's damping.
TENFOLD = 10


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
