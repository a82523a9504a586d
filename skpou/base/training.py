"""What a fit is, whatever is fitted: callbacks, threads, starts, failures, Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from skpou.base.callbacks import (
    NO_MODEL,
    Remaining,
    attributes_of,
    counted_lines,
    fit_task,
    is_stopped,
    step_task,
)
from skpou.base.compat import CallbackSupportMixin
from skpou.base.parameters import random_generator
from skpou.base.streams import level_of_caller
from skpou.base.unpacked import UNPACKED
from skpou.core import (
    LONG_SEEDS,
    Report,
    TrainingInterrupted,
    TrainingResult,
    at_once,
    handing_over,
    jobs,
)
from skpou.core.linalg import check_alike, count


class InterruptedFit(KeyboardInterrupt):
    """Ctrl-C after which the estimator holds the best model so far."""


class DocumentedEstimator(BaseEstimator):
    """Estimator whose HTML representation links to its page.

    The pages are wherever `make doc` put them, or somebody keeps them: the environment variable
    SKPOU_DOCUMENTATION is the address of the folder ``generated`` in them. Without it there is no
    link.
    """

    _doc_link_module = "skpou"

    @property
    def _doc_link_template(self) -> str:
        address = os.environ.get("SKPOU_DOCUMENTATION", "").rstrip("/")
        return f"{address}/{{estimator_module}}.{{estimator_name}}.html" if address else ""


class TrainedEstimator(CallbackSupportMixin, DocumentedEstimator):
    """Estimator whose fit tells callbacks and ends in one way: stored whole, or as if never begun.

    A subclass trains inside `_fitting`, by `_best_of`, and writes `_store_result`.
    """

    #: That of models which an earlier version saved.
    n_jobs: int | None = None
    #: Attributes that a new fit drops: they were found for the model before.
    _dropped_by_fit: tuple[str, ...] = ("_summary",)
    #: Those that a new fit drops before it starts: not every way of fitting sets them.
    _dropped_before_fit: tuple[str, ...] = ("_outliers", "outliers_")
    #: What to lower where memory runs out.
    _size_parameters = "the size of the model"

    @contextlib.contextmanager
    def _fitting(self, X: Any, y: Any, sample_weight: Any, n_steps: int | None = None):
        """A fit of given data: callbacks are told, and an earlier fit is kept if this one fails.

        `n_steps` is the number of lines of its report at most, where that is known.
        """
        most = self._most_lines() if n_steps is None else n_steps
        with (
            self._earlier_fit_kept(),
            counted_lines(self, most),
            fit_task(self, X, y, sample_weight, most),
        ):
            yield

    def _most_lines(self) -> int | None:
        """Most lines of the report of a fit with these parameters; None where nobody knows."""
        return None

    @contextlib.contextmanager
    def _alike(self):
        """What validates the rows of one of many processes; all go on together, or none.

        The dictionary inside takes further facts that all must have in common.
        """
        facts: dict[str, Any] = {}
        if count() == 1:
            yield facts
            return
        # Addresses of functions and generators are of one process.
        words = re.sub(r" at 0x[0-9a-fA-F]+", "", str(self.get_params()))
        facts["parameters"] = f"{type(self).__name__}({words})"
        source = getattr(self, "random_state", None)
        facts["state of random_state"] = zlib.crc32(pickle.dumps(source))
        fault = None
        try:
            yield facts
        except Exception as error:
            fault = error
        facts["names of the columns"] = list(getattr(self, "feature_names_in_", []))
        check_alike(facts, fault)

    @contextlib.contextmanager
    def _earlier_fit_kept(self):
        """Undo what a failed validation or a failed fit changed on the estimator.

        Gradients are on inside, whatever mode the caller is in; whatever an interrupt leaves of
        the mode, the caller's is restored.
        """
        before = self.__dict__.copy()
        UNPACKED.drop(self)
        self.__dict__ = {k: v for k, v in before.items() if k not in self._dropped_before_fit}
        try:
            with torch.inference_mode(False), jobs(self._threads()):
                yield
            self._drop_what_was_of_the_last_fit()
        except torch.cuda.OutOfMemoryError as error:
            self.__dict__ = before
            torch.cuda.empty_cache()
            raise torch.cuda.OutOfMemoryError(
                f"{error}. {self._less_memory()}, or use device='cpu'."
            ) from error
        except (MemoryError, RuntimeError) as error:
            self.__dict__ = before
            # torch has no class of its own for this on the CPU.
            if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
                raise
            raise MemoryError(f"{error}. {self._less_memory()}.") from error
        except InterruptedFit:
            self._drop_what_was_of_the_last_fit()
            raise
        except BaseException:
            self.__dict__ = before
            raise

    def _threads(self) -> int | None:
        """Threads of a fit; one where callbacks are told of its steps in their order."""
        return None if getattr(self, "_skl_callbacks", None) else self.n_jobs

    def _drop_what_was_of_the_last_fit(self) -> None:
        for name in self._dropped_by_fit:
            self.__dict__.pop(name, None)

    def _best_of(
        self, train: Callable[[np.random.Generator], TrainingResult], n_init: int
    ) -> TrainingResult:
        """Best result of several starts; on Ctrl-C the best so far, inside the exception."""
        rng = random_generator(self.random_state)
        starts = [np.random.default_rng(rng.integers(LONG_SEEDS, size=2)) for _ in range(n_init)]
        done: dict[int, TrainingResult] = {}

        def run(k: int) -> None:
            done[k] = train(starts[k])

        def best() -> TrainingResult:
            return done[min(sorted(done), key=lambda k: done[k].score)]

        with handing_over(lambda: best() if done else None, or_inner=True):
            at_once(run, range(n_init))
        return best()

    def _less_memory(self) -> str:
        """What to do where memory has run out."""
        batch = ", set batch_size" if "batch_size" in self.get_params() else ""
        return f"Fit fewer rows at a time, lower {self._size_parameters}{batch}"

    def _store_result(self, result: TrainingResult, prepared: Any) -> None:
        """Store what was fitted, all at once: an interrupt must not mix two fits."""
        raise NotImplementedError

    def _keep_interrupted(self, stopped: TrainingInterrupted, prepared: Any) -> TrainingResult:
        """Store what an interrupt leaves, and say so; what a callback leaves is returned."""
        if stopped.result is None and is_stopped(self):
            raise RuntimeError(NO_MODEL) from None
        if stopped.result is None:
            raise KeyboardInterrupt from None
        self._store_result(stopped.result, prepared)
        if is_stopped(self):
            return stopped.result
        kept = "The best of the starts that were finished is kept."
        if stopped.result.code == "interrupted":
            kept = stopped.result.message
        warnings.warn(f"fit was interrupted. {kept}", UserWarning, stacklevel=level_of_caller())
        raise InterruptedFit from None

    def _reporter(self, stoppable: bool = True) -> Report | None:
        """What takes lines of progress: prints them, and tells the callbacks."""
        step = step_task(self, stoppable)
        if not self.verbose and step is None:
            return None
        remaining = Remaining(self) if self.verbose else None

        def report(line: str, *result: Callable[[], TrainingResult | None]) -> None:
            if remaining is not None:
                print(f"[{type(self).__name__}] {line}{remaining.after_one_more()}", flush=True)
            if step is not None:
                self._tell(step, line, *result)

        report.takes_models = True  # type: ignore[attr-defined]
        return report

    def _tell(
        self,
        step: Callable[..., None],
        line: str,
        result: Callable[[], TrainingResult | None] | None = None,
    ) -> None:
        """Tell callbacks of a step, and how to make what a fit that ends here would leave."""
        prepared = self.__dict__.get("_fit_prepared")
        if result is None or prepared is None:
            step(line)
            return
        step(line, lambda: attributes_of(self, result(), prepared))

    @contextlib.contextmanager
    def _training_on(self, prepared: Any):
        """A training on these rows, of which callbacks may ask for a model in between."""
        self._fit_prepared = prepared
        try:
            yield
        finally:
            del self._fit_prepared

    def _warn_if_not_converged(self, result: TrainingResult) -> None:
        if result.code not in ("converged", "interrupted"):
            warnings.warn(result.message, ConvergenceWarning, stacklevel=level_of_caller())
