"""What every training loop returns, and how it is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Takes a line of progress; it may raise to end the training.
Report = Callable[[str], None]


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

    Parameters
    ----------
    result : TrainingResult or None
        Usable result, or None when there was nothing yet.
    """

    def __init__(self, result: TrainingResult | None):
        super().__init__("training was interrupted")
        self.result = result
