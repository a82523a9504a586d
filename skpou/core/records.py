"""What every training loop returns, and how it is interrupted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

#: Takes a line of progress at a time, for every iteration or what was tried; it may raise to end
#: the training. Docstrings of fits name neither it nor the generator of all their draws.
Report = Callable[[str], None]

Candidate = TypeVar("Candidate")


class BestSoFar(Generic[Candidate]):
    """The best of what it was shown: that of the lowest score, the first of equals.

    Attributes
    ----------
    score : float
        Score of the best; infinite before anything was shown.
    """

    def __init__(self) -> None:
        self._shown: list[Candidate] = []
        self.score = math.inf

    @property
    def is_empty(self) -> bool:
        """Whether nothing was shown yet."""
        return not self._shown

    @property
    def best(self) -> Candidate:
        """What has the lowest score.

        Raises
        ------
        LookupError
            If nothing was shown yet.
        """
        if not self._shown:
            raise LookupError("There is no best of nothing.")
        return self._shown[0]

    def show(self, candidate: Candidate, score: float) -> bool:
        """Keep a candidate if it is the first, or better than the best; whether it was kept."""
        better = self.is_empty or score < self.score
        if better:
            self._shown, self.score = [candidate], score
        return better


@dataclass
class TrainingResult:
    """Outcome of a training loop.

    Attributes
    ----------
    state : object
        The trained model, such as a `Mixture`.
    score : float
        Value that ranks results of several starts; lower is better.
    n_iter : int
        Iterations done, at least 1.
    curve : list of float
        Score or loss after each iteration.
    code : str
        ``"converged"``, ``"max_iter"``, ``"non_finite"`` or ``"interrupted"``.
    message : str
        Sentence for the user when the code is not ``"converged"``.
    chosen : dict
        Sizes, ridges and degrees that were chosen automatically.
    left_out : LeftOutClasses or None
        What a model of classes says of observations that it does not know, where that is known.
    """

    state: Any
    score: float
    n_iter: int
    curve: list[float] = field(default_factory=list)
    code: str = "converged"
    message: str = ""
    chosen: dict[str, Any] = field(default_factory=dict)
    left_out: Any = None


def tell(report: Report, line: str, result: Callable[[], TrainingResult | None]) -> None:
    """Report a step after which there is a model; `result` makes it where somebody asks."""
    if getattr(report, "takes_models", False):
        report(line, result)  # type: ignore[call-arg]
    else:
        report(line)


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; carries the best result so far.

    All that trains raises it; docstrings name it where what it carries is something else.

    Parameters
    ----------
    result : TrainingResult or None
        Usable result, or None when there was nothing yet.
    """

    def __init__(self, result: TrainingResult | None):
        super().__init__("training was interrupted")
        self.result = result


@contextlib.contextmanager
def handing_over(
    best: Callable[[], TrainingResult | None] = lambda: None, or_inner: bool = False
) -> Iterator[None]:
    """On Ctrl-C inside, what is best so far leaves in the exception: the one way out of training.

    Parameters
    ----------
    best : callable
        Returns the best result so far, whose code is ``"interrupted"``; None where there is none.
    or_inner : bool, default=False
        Whether, where there is none, that of a training inside will do.

    Raises
    ------
    TrainingInterrupted
        On Ctrl-C. One that comes from further inside is replaced.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        inner = getattr(stopped, "result", None) if or_inner else None
        raise TrainingInterrupted(best() or inner) from None
