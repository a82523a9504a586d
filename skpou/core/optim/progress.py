"""What a descent has come to: its best fit by a judge, and whether steps still gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from skpou.core import BestSoFar, TrainingResult

#: Steps over which a descent that may be given up lowers the residual by less than a factor.
CREEPING_STEPS, CREEPING_GAIN = 50, 1.25
#: Gain of a step, relative to the value, that is slow; slow steps in a row, and stalls, that are
#: borne: in a curved valley some steps are short.
SLOW, MOST_SLOW, MOST_STALLS = 1e-3, 3, 3


class Judged:
    """Judges fits, each once, and keeps the best with its ridge.

    Parameters
    ----------
    judge : callable
        Maps a fit to its score; lower is better.
    """

    def __init__(self, judge: Callable[[Any], float]):
        self.judge = judge
        self.best: BestSoFar[tuple[Any, float]] = BestSoFar()
        self._last: Any = None

    def show(self, fit: Any, ridge: float) -> None:
        """Judge a fit, unless it is the one of before."""
        if fit is self._last:
            return
        self._last = fit
        score = self.judge(fit)
        self.best.show((fit, ridge), math.inf if math.isnan(score) else score)

    def result(self, curve: list[float], code: str, message: str) -> TrainingResult:
        """The best fit, its score and its ridge."""
        fit, ridge = self.best.best
        score = self.best.score
        return TrainingResult(fit, score, len(curve), curve, code, message, {"ridge": ridge})


class Progress:
    """Whether steps still gain.

    Parameters
    ----------
    rms : float
        Root mean square residual at the start.
    """

    def __init__(self, rms: float):
        self._rms = rms
        self._slow = self._stalls = 0

    def creeps(self, step: int, fit: Any) -> bool:
        """Whether the last `CREEPING_STEPS` have lowered the residual next to not."""
        if step % CREEPING_STEPS != CREEPING_STEPS - 1:
            return False
        before, self._rms = self._rms, fit.rms()
        return self._rms * CREEPING_GAIN > before

    def is_slow(self, gain: float) -> bool:
        """Whether too many steps in a row were slow, with one of a relative gain."""
        self._slow = self._slow + 1 if gain < SLOW else 0
        return self._slow > MOST_SLOW

    def has_stalled_for_good(self) -> bool:
        """Whether this stall, after which slow steps count anew, is one too many."""
        self._slow, self._stalls = 0, self._stalls + 1
        return self._stalls > MOST_STALLS
