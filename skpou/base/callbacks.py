"""Scikit-learn's callbacks around a fit and after each line of its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from skpou.base.compat import callback_management
from skpou.core import Report

#: Root of the tasks of the fit that runs, and whether a callback has asked for its end.
_CONTEXT, _STOPPED = "_callback_fit_ctx", "_callback_stopped"
NO_MODEL = "A callback ended fit before there was any model."


class StopRequested(KeyboardInterrupt):
    """A callback asks training to end: as on Ctrl-C the best model so far is handed back."""


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
        try:
            yield
        except StopRequested:
            raise RuntimeError(NO_MODEL) from None
        finally:
            estimator.__dict__.pop(_STOPPED, None)
        # The estimator itself is what can predict by now.
        context.call_on_fit_task_end(**data, reconstruction_attributes=dict)


def step_task(estimator: Any, stoppable: bool) -> Report | None:
    """What takes the lines of a training's report to the callbacks; None where there are none.

    Each line is a task of the fit. With `stoppable` it raises `StopRequested` where a callback
    wants no further one.
    """
    context = getattr(estimator, _CONTEXT, None)
    if context is None or not getattr(estimator, "_skl_callbacks", None):
        return None

    def step(line: str) -> None:
        task = context.subcontext(task_name="step")
        task.call_on_fit_task_begin(estimator=estimator)
        stop = task.call_on_fit_task_end(estimator=estimator, metadata={"report": line})
        # What is left to do after the end has lines, too.
        if stop and stoppable and not is_stopped(estimator):
            setattr(estimator, _STOPPED, True)
            raise StopRequested

    return step


def is_stopped(estimator: Any) -> bool:
    """Whether a callback has ended the training of the fit that runs."""
    return getattr(estimator, _STOPPED, False)
