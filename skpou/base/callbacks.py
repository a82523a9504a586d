"""Scikit-learn's callbacks around a fit and after each line of its report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from skpou.base.compat import callback_management

#: Root of the tasks of the fit that runs, and whether a callback has asked for its end.
_CONTEXT, _STOPPED = "_callback_fit_ctx", "_callback_stopped"
#: Lines that the report of the fit that runs has at most; None where that is not known.
_MOST_LINES = "_fit_most_lines"
#: Data of the fit that runs, as callbacks are told of them.
_DATA = "_fit_data"
#: Units of time, in seconds, and their names; seconds up to the last number have a decimal.
UNITS_OF_TIME, WHOLE_SECONDS = ((3600, "h"), (60, "min")), 10
NO_MODEL = "A callback ended fit before there was any model."


class StepMetadata(dict):
    """What callbacks are told of a step: ``["report"]`` is its line.

    The line is found, but is not among the items: scikit-learn's ScoringMonitor hands these to
    scorers, which refuse what they do not know.
    """

    def __init__(self, line: str, items: dict[str, Any] | None):
        super().__init__(items or {})
        self.line = line

    def __missing__(self, key: str) -> str:
        if key == "report":
            return self.line
        raise KeyError(key)


class StopRequested(KeyboardInterrupt):
    """A callback asks training to end: as on Ctrl-C the best model so far is handed back."""


@contextmanager
def counted_lines(estimator: Any, most: int | None) -> Iterator[None]:
    """A fit whose report has no more than so many lines; None: nobody knows."""
    setattr(estimator, _MOST_LINES, most)
    try:
        yield
    finally:
        estimator.__dict__.pop(_MOST_LINES, None)


class Remaining:
    """Words on what remains of a fit, to be asked for once a line.

    Nothing is said where the number of lines is not known. Training may end before all of them, so
    that a time by the lines so far is one at most.
    """

    def __init__(self, estimator: Any):
        self.most = getattr(estimator, _MOST_LINES, None)
        self.done, self.start = 0, perf_counter()

    def after_one_more(self) -> str:
        """What remains after one more line."""
        self.done += 1
        if self.most is None or self.done > self.most:
            return ""
        seconds = (perf_counter() - self.start) / self.done * (self.most - self.done)
        return f" ({self.done} of at most {self.most}, at most {in_words(seconds)} to go)"


def in_words(seconds: float) -> str:
    """A time in the largest unit of which there are two or more."""
    for unit, name in UNITS_OF_TIME:
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= WHOLE_SECONDS else f"{seconds:.1f} s"


@contextmanager
def fit_task(
    estimator: Any, X: Any, y: Any, sample_weight: Any, n_steps: int | None = None
) -> Iterator[None]:
    """Begin and end of a fit for the callbacks of an estimator; nothing where it has none.

    They are told of how many steps it has, where that is known.

    Raises
    ------
    RuntimeError
        If a callback ends the fit before there is a model.
    """
    # Only scikit-learn from 1.9 on has callbacks.
    if not hasattr(estimator, "_init_callback_context"):
        yield
        return
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    with callback_management(estimator):
        context = estimator._init_callback_context(max_subtasks=n_steps)
        context.call_on_fit_task_begin(**data)
        told = {key: value for key, value in data.items() if key != "estimator"}
        setattr(estimator, _DATA, told)
        try:
            yield
        except StopRequested:
            raise RuntimeError(NO_MODEL) from None
        finally:
            estimator.__dict__.pop(_STOPPED, None)
            estimator.__dict__.pop(_DATA, None)
        # The estimator itself is what can predict by now.
        context.call_on_fit_task_end(**data, reconstruction_attributes=dict)


def step_task(estimator: Any, stoppable: bool) -> Callable[..., None] | None:
    """What takes the lines of a training's report to the callbacks; None where there are none.

    Each line is a task of the fit. A second argument makes the fitted attributes after it, where
    there is a model. With `stoppable` it raises `StopRequested` where a callback
    wants no further one.
    """
    context = getattr(estimator, _CONTEXT, None)
    if context is None or not getattr(estimator, "_skl_callbacks", None):
        return None

    most, taken = getattr(estimator, _MOST_LINES, None), itertools.count()

    def step(line: str, attributes: Callable[[], dict[str, Any] | None] | None = None) -> None:
        # scikit-learn refuses a task beyond those announced; a fit must not fail for that.
        if most is not None and next(taken) >= most:
            return
        task = context.subcontext(task_name="step")
        task.call_on_fit_task_begin(estimator=estimator)
        data = dict(getattr(estimator, _DATA, {}))
        data["metadata"] = StepMetadata(line, data.get("metadata"))
        if attributes is not None:
            data["reconstruction_attributes"] = attributes
        stop = task.call_on_fit_task_end(estimator=estimator, **data)
        # What is left to do after the end has lines, too.
        if stop and stoppable and not is_stopped(estimator):
            setattr(estimator, _STOPPED, True)
            raise StopRequested

    return step


def attributes_of(estimator: Any, result: Any, prepared: Any) -> dict[str, Any] | None:
    """Fitted attributes that a fit with this result would leave; None where there is none."""
    if result is None:
        return None
    fitted = object.__new__(type(estimator))
    # What judges a whole fit by left-out rows knows nothing of a part of it.
    fitted.__dict__.update(vars(estimator), _form_error=None, _restraint=None, _outliers=None)
    fitted._store_result(result, prepared)
    own = vars(estimator)
    return {key: value for key, value in vars(fitted).items() if own.get(key, own) is not value}


def is_stopped(estimator: Any) -> bool:
    """Whether a callback has ended the training of the fit that runs."""
    return getattr(estimator, _STOPPED, False)
