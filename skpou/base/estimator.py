"""What all estimators share: devices, seeds, points in the unit box, state that pickles."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou._version import __version__
from skpou.base import summary, validation
from skpou.base.compat import StrOptions
from skpou.base.parameters import N_JOBS
from skpou.base.streams import (
    LARGEST_TARGET,
    box_of_edges,
    count_outside,
    edges_of_bounds,
    warn_of_rows_outside,
)
from skpou.base.training import TrainedEstimator
from skpou.base.unpacked import UNPACKED
from skpou.core import Rows, Scaling, at_once, jobs, merge_rows, order_of_columns, target_unit
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models import ClassPredictor, Predictor

#: Rows predicted together where a smaller `batch_size` is given: so few rows take no memory
#: worth the name, and one at a time each would cost what all of them do.
FEWEST_TOGETHER = 256


Part = TypeVar("Part")


class TorchEstimator(TrainedEstimator):
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

    #: Whether equal rows are so many observations, also where none differs from the others.
    _counts_repeats = False
    #: Attributes that hold the fitted state, as arrays in dicts and lists.
    _state_names: tuple[str, ...] = (
        "scaling_", "model_", "mixture_", "density_", "_term_centres", "_restraint", "_form_error",
        "_outliers", "_noise_law",
    )  # fmt: skip

    # Training

    def _torch_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _merged(
        self, X: Tensor, y: Tensor, weight: Tensor, box: Scaling | None = None
    ) -> tuple[Rows, Scaling, Tensor]:
        """Distinct rows with points in the unit box, their scaling, and the targets' unit (m,).

        The unit is the largest absolute value of each target. `box` keeps the box and the columns
        of an earlier fit; X (n, d), y (n, m) and weight (n,) are validated, in float64.
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
        if box is None:
            scaling = self._in_own_order(scaling, X, y[:, 0] / unit[0], weight)
        # Points that single precision cannot tell apart are one point.
        points = scaling.points(X).to(dtype).to(torch.float64)
        rows = merge_rows(points, y / unit, weight, counts=self._counts_repeats)
        return rows, scaling.with_targets(unit, rows), unit

    def _in_own_order(self, box: Scaling, X: Tensor, y: Tensor, weight: Tensor) -> Scaling:
        """The box with its columns in the order of the fit; y (n,) is a target in its unit."""
        if len(box.columns) < 2 or not self._sorts_columns():
            return box
        points = box.points(X).to(self._torch_dtype()).to(torch.float64)
        return box.reordered(order_of_columns(points, y, weight))

    def _sorts_columns(self) -> bool:
        """Whether a fit has the columns in an order of its own: where draws go by their order."""
        return False

    def _box_of_bounds(self, X: Tensor, weight: Tensor) -> Scaling | None:
        """Box of the parameter `bounds`, for estimators that have it; None: that of the rows."""
        bounds = getattr(self, "bounds", None)
        if bounds is None:
            return None
        edges = edges_of_bounds(bounds, X)
        warn_of_rows_outside(count_outside(X, weight, edges))
        return box_of_edges(edges)

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
            size = min(self._rows_a_block(model), max(len(points), 1))
            while (found := self._of_blocks(points, function, size)) is None:
                size = -(-size // 2)
            results = found
        if isinstance(results[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
        return torch.cat(results)

    def _of_blocks(
        self, points: Tensor, function: Callable[[Tensor, slice], Any], size: int
    ) -> list[Any] | None:
        """A function's results over blocks of rows; None where a card's memory is too small."""
        blocks = row_blocks(len(points), size)
        try:
            # A card has threads of its own.
            with jobs(self.n_jobs if points.device.type == "cpu" else None):
                return at_once(lambda block: function(points[block], block), blocks)
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
        # What was held is free by now.
        torch.cuda.empty_cache()
        return None

    # In words

    def summary(self) -> str:
        """Describe the fitted model in words and numbers, in units of X and y.

        Columns and their box, what the model consists of (pieces with their boundaries and
        polynomials, terms with their shares of the variance, stages), unknown constants with their
        standard deviations, noise, a Gaussian process that predicts in place of all this or beside
        it, and what the search compared and took.

        Returns
        -------
        str
            Some lines; nothing of it is meant to be read by programs.
        """
        check_is_fitted(self)
        own = [*self._summary_lines(), *summary.process_lines(self)]
        return summary.joined([*summary.head(self), *own, *summary.tail(self)])

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
