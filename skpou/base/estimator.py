"""What all estimators share: devices, seeds, points in the unit box, state that pickles."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import pickle
import re
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou._version import __version__
from skpou.base import summary, validation
from skpou.base.callbacks import (
    NO_MODEL,
    Remaining,
    attributes_of,
    counted_lines,
    fit_task,
    is_stopped,
    step_task,
)
from skpou.base.compat import CallbackSupportMixin, StrOptions
from skpou.base.parameters import N_JOBS, random_generator
from skpou.base.streams import (
    LARGEST_TARGET,
    box_of_edges,
    count_outside,
    edges_of_bounds,
    warn_of_rows_outside,
)
from skpou.base.unpacked import UNPACKED
from skpou.core import (
    Report,
    Rows,
    Scaling,
    TrainingInterrupted,
    TrainingResult,
    at_once,
    jobs,
    merge_rows,
    target_unit,
)
from skpou.core.linalg import check_alike, count, row_blocks, rows_within
from skpou.core.models import ClassPredictor, Predictor

#: Rows predicted together where a smaller `batch_size` is given: so few rows take no memory
#: worth the name, and one at a time each would cost what all of them do.
FEWEST_TOGETHER = 256


Part = TypeVar("Part")


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


class TorchEstimator(CallbackSupportMixin, DocumentedEstimator):
    """Estimator whose numbers live in torch: training rows, queries and pickles.

    A subclass calls `_merged`, trains and stores arrays, among them `scaling_`.
    """

    _parameter_constraints: dict = {
        "n_jobs": N_JOBS,
        "device": [str],
        "dtype": [StrOptions({"float64", "float32"})],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
    }

    #: That of models which an earlier version saved.
    n_jobs: int | None = None
    #: Whether equal rows are so many observations, also where none differs from the others.
    _counts_repeats = False
    #: Attributes that hold the fitted state, as arrays in dicts and lists.
    _state_names: tuple[str, ...] = (
        "scaling_", "model_", "mixture_", "density_", "_term_centres", "_restraint", "_form_error",
        "_outliers",
    )  # fmt: skip
    #: Attributes that a new fit drops: they were found for the model before.
    _dropped_by_fit: tuple[str, ...] = ("_summary",)
    #: Those that a new fit drops before it starts: not every way of fitting sets them.
    _dropped_before_fit: tuple[str, ...] = ("_outliers", "outliers_")
    #: What to lower where memory runs out.
    _size_parameters = "the size of the model"

    # Training

    def _torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _merged(
        self, X: Tensor, y: Tensor, weight: Tensor, box: Scaling | None = None
    ) -> tuple[Rows, Scaling, Tensor]:
        """Distinct rows with points in the unit box, their scaling, and the unit of the targets.

        Parameters
        ----------
        X, y, weight : Tensor of shape (n, d), (n, m), (n,)
            Validated, in float64.
        box : Scaling, default=None
            Keep the box and the columns of an earlier fit.

        Returns
        -------
        rows : Rows
            Targets in units of their largest absolute value.
        scaling : Scaling
            Box and mean and scale of the targets.
        unit : Tensor of shape (m,)
            Largest absolute value of each target.
        """
        dtype = self._torch_dtype()
        if box is not None and not len(X):
            y = y.to(dtype)
            one = box.offset.new_ones(y.shape[1])
            empty = Rows(box.points(X).to(dtype), y, weight.to(dtype), y)
            return empty, replace(box, mean=0 * one, scale=one), one
        measured = Scaling.from_box(X, weight)  # refuses a range that overflows
        scaling = box or self._box_of_bounds(X, weight) or measured
        unit = target_unit(y, weight, LARGEST_TARGET[dtype])
        # Points that single precision cannot tell apart are one point.
        points = scaling.points(X).to(dtype).to(torch.float64)
        rows = merge_rows(points, y / unit, weight, counts=self._counts_repeats)
        return rows, scaling.with_targets(unit, rows), unit

    def _box_of_bounds(self, X: Tensor, weight: Tensor) -> Scaling | None:
        """Box of the parameter `bounds`, for estimators that have it; None: that of the rows."""
        bounds = getattr(self, "bounds", None)
        if bounds is None:
            return None
        edges = edges_of_bounds(bounds, X)
        # Past this method, two that prepare, fit and its wrapper, to the line that called fit.
        warn_of_rows_outside(count_outside(X, weight, edges), stacklevel=7)
        return box_of_edges(edges)

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
        starts = [np.random.default_rng(rng.integers(2**63, size=2)) for _ in range(n_init)]
        done: dict[int, TrainingResult] = {}

        def run(k: int) -> None:
            done[k] = train(starts[k])

        def best() -> TrainingResult:
            return done[min(sorted(done), key=lambda k: done[k].score)]

        try:
            at_once(run, range(n_init))
        except TrainingInterrupted as stopped:
            raise TrainingInterrupted(best() if done else stopped.result) from None
        except KeyboardInterrupt:
            raise TrainingInterrupted(best() if done else None) from None
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
        # Past this method, its caller, fit and its wrapper, to the line that called fit.
        warnings.warn(f"fit was interrupted. {kept}", UserWarning, stacklevel=5)
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
            # Past this method, fit and its wrapper, to the line that called fit.
            warnings.warn(result.message, ConvergenceWarning, stacklevel=4)

    # Prediction

    def __sklearn_is_fitted__(self) -> bool:
        """Whether a fit has left a model."""
        return hasattr(self, "scaling_")

    def _given_points(self, X: Any) -> tuple[Tensor, validation.Origin]:
        """Validated points (n, d) on the device, in float64, and where they came from."""
        if "scaling_" not in self.__dict__:  # Looking for the reason takes long for one row.
            check_is_fitted(self)
        origin = validation.origin_of(X)
        device = validation.resolve_device(self.device, origin)
        return validation.owned(validation.query_points(self, X), torch.float64, device), origin

    def _model(self, like: Tensor) -> Any:
        """The fitted model in scaled units, on the device and in the dtype of `like`."""
        raise NotImplementedError

    def _unpacked(self, what: str, like: Tensor, unpack: Callable[[Tensor], Part]) -> Part:
        """A part of the fitted state, unpacked once for the device and the dtype of `like`."""

        def anew() -> Part:
            with torch.inference_mode(False):
                return unpack(like.new_zeros(0))

        return UNPACKED.get(self, self._state_names, (what, like.device, like.dtype), anew)

    def _unpacked_model(self, like: Tensor) -> Any:
        """The fitted model, unpacked once."""
        return self._unpacked("model", like, self._model)

    def _units(self, like: Tensor) -> tuple[Scaling, torch.dtype | None]:
        """The scaling, and the precision of results in units of y, where there are such."""
        return Scaling.from_arrays(self.scaling_, like), None

    def _query(self, X: Any) -> tuple[Tensor, Scaling, validation.Origin]:
        """Scaled points on the device, the scaling, and where X came from."""
        X, origin = self._given_points(X)
        scaling, dtype = self._unpacked("units", X, self._units)
        origin = validation.Origin(origin.is_tensor, origin.device, dtype)
        points = scaling.points(X).to(self._torch_dtype())
        # A sum tells faster; one that overflows need not mean that a part does.
        if not math.isfinite(points.sum()) and not bool(torch.isfinite(points).all()):
            k = int(torch.nonzero(~torch.isfinite(points))[0, 1])
            column = int(scaling.columns[k])
            raise ValueError(
                f"Column {column} of X goes up to {float(X[:, column].abs().max()):.3g}, so far "
                f"from the data that it overflows in {self.dtype}."
            )
        return points, scaling, origin

    def _original_points(self, points: np.ndarray) -> np.ndarray:
        """Points (k, n_features_in_) in units of X; NaN along constant columns."""
        original = np.full((len(points), self.n_features_in_), np.nan)
        box = self.scaling_
        original[:, box["columns"]] = box["offset"] + box["width"] * points
        return original

    def _rows_a_block(self, model: Predictor | ClassPredictor) -> int:
        """Rows that are predicted together."""
        most = rows_within(model.numbers_per_row())
        batch = getattr(self, "batch_size", None)
        return most if batch is None else max(batch, min(FEWEST_TOGETHER, most))

    def _in_blocks(
        self,
        points: Tensor,
        model: Predictor | ClassPredictor,
        function: Callable[[Tensor, slice], Any],
    ) -> Any:
        """Concatenate a function's results over blocks of rows; tuples part by part.

        Blocks go through as many threads as `n_jobs` says, and do not depend on these.
        """
        if len(points) == 1:
            results = [function(points, slice(0, 1))]
        else:
            blocks = row_blocks(len(points), self._rows_a_block(model))
            # A card has threads of its own.
            with jobs(self.n_jobs if points.device.type == "cpu" else None):
                results = at_once(lambda block: function(points[block], block), blocks)
        if isinstance(results[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
        return torch.cat(results)

    # In words

    def summary(self) -> str:
        """Describe the fitted model in words and numbers, in units of X and y.

        Columns and their box, what the model consists of (pieces with their boundaries and
        polynomials, terms with their shares of the variance, stages), unknown constants with their
        standard deviations, noise, and what the search compared and took.

        Returns
        -------
        str
            Some lines; nothing of it is meant to be read by programs.
        """
        check_is_fitted(self)
        lines = [*summary.head(self), *self._summary_lines(), *summary.tail(self)]
        return summary.joined(lines)

    def _summary_lines(self) -> list[str]:
        """What a family says about its model."""
        return []

    # Pickling

    def __getstate__(self):
        """State with this package's version."""
        return {**super().__getstate__(), "_skpou_version": __version__}

    def __setstate__(self, state):
        """Restore a state; warn when another version wrote it."""
        state = dict(state)
        written = state.pop("_skpou_version", "unknown")
        if written != __version__:
            warnings.warn(
                f"This {type(self).__name__} was pickled by skpou {written} and is read by skpou "
                f"{__version__}. Its predictions may differ.",
                UserWarning,
                stacklevel=2,
            )
        for name, parameter in inspect.signature(type(self)).parameters.items():
            # Parameters that came after it was saved have their defaults.
            state.setdefault(name, parameter.default)
        super().__setstate__(state)
        if self.__sklearn_is_fitted__():
            self._check_state()

    def _check_state(self) -> None:
        """Refuse a fitted state whose arrays were cut or hold what is no number.

        Raises
        ------
        ValueError
            If so.
        """
        # What left-out rows tell is bounded when it is used, and may be infinite.
        for name in [name for name in self._state_names if name != "_form_error"]:
            bad = validation.not_finite(self.__dict__.get(name), name)
            if bad:
                raise ValueError(
                    f"This saved {type(self).__name__} is damaged: {bad} is not finite."
                )
        try:
            middle = torch.full((1, len(self.scaling_["width"])), 0.5, device="cpu")
            self._evaluate(middle.double())
        except Exception as error:
            raise ValueError(
                f"This saved {type(self).__name__} is damaged: {type(error).__name__}, {error}"
            ) from error

    def _evaluate(self, points: Tensor) -> None:
        """Evaluate all that the fitted state holds at scaled points."""
        raise NotImplementedError
