"""Regressors whose fit is a sum over rows: `partial_fit`, rows on disk, and many processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.base.classifier import BaseClassifier, PreparedClasses
from skpou.base.compat import available_if, fit_context
from skpou.base.docstrings import sections_of
from skpou.base.estimator import TorchEstimator
from skpou.base.regressor import BaseRegressor, Prepared
from skpou.base.streams import (
    NO_WEIGHT,
    Columns,
    Stream,
    Summary,
    box_of_edges,
    check_summary,
    edges_of,
    edges_of_all,
    edges_of_bounds,
    joined_edges,
    lies_on_disk,
    sample_of_all_processes,
    warn_of_rows_outside,
)
from skpou.core import Rows, RowSample, Scaling, TrainingResult
from skpou.core.linalg import RowSums, count, gather_objects


class SummedEstimator(TorchEstimator):
    """What partial_fit and fits of rows in blocks share; parameters `bounds` and `batch_size`."""

    batch_size: int | None
    bounds: Any
    _form_error: list[dict[str, Any]] | None
    _restraint: dict[str, Any] | None

    def _in_order_of(self, sample: RowSample, box: Scaling) -> Scaling:
        """The box with its columns in the order that a fit to the sample has them in."""
        target = sample.y[:, 0]
        unit = target.abs().amax()
        return self._in_own_order(
            box, sample.X, target / torch.where(unit > 0, unit, 1.0), sample.weight
        )

    def _why_no_sum(self) -> str:
        """Why the parameters ask for what is no sum over rows; "" if they do not."""
        return ""

    def _is_sum(self) -> bool:
        """Whether there is `partial_fit`."""
        reason = self._why_no_sum()
        if reason:
            raise AttributeError(reason)
        return True

    def _streams(self, X: Any) -> bool:
        """Whether fit sums rows block by block, in place of rows in memory."""
        return self.batch_size is not None and (lies_on_disk(X) or count() > 1)

    def _edges(self, X: Tensor, edges: Tensor) -> Tensor:
        """Corners (2, d) of the box: the parameter's, or those of the rows of all processes."""
        return edges_of_all(edges) if self.bounds is None else edges_of_bounds(self.bounds, X)

    def _stream(self, X: Any, y: Any, sample_weight: Any) -> Stream:
        """Rows in blocks of `batch_size`.

        Raises
        ------
        ValueError
            If the parameters ask for what is no sum over rows, or rows do not go together.
        """
        with self._alike():
            if self._why_no_sum():
                raise ValueError(self._why_no_sum())
            return Stream(X, y, sample_weight, int(self.batch_size or 1))

    def _first_pass(
        self, stream: Stream, validated: Callable[..., Any], visit: Callable[..., None]
    ) -> Tensor:
        """Corners of the box of rows in blocks, the first of which sets the columns.

        What `validated` returns of each block, points first and weights third, goes to `visit`.
        """
        found: list[Tensor] = []
        with self._alike() as facts:
            for block in stream:
                rows = validated(*block, not found, facts)
                found.append(edges_of(rows[0], rows[2]))
                visit(*rows)
            if not found:
                raise ValueError(NO_WEIGHT)
        return self._edges(found[0], joined_edges(found))

    def _summed_columns(self, box: Scaling) -> tuple[Columns, int]:
        """What makes columns of points in the unit box, and how many; the constant is the first.

        Raises
        ------
        ValueError
            If the parameters ask for what is no sum over rows.
        """
        raise NotImplementedError

    def _earlier_sums(
        self, state: dict[str, Any] | None, X: Tensor, weight: Tensor, n_outputs: int
    ) -> tuple[Summary, Columns]:
        """Sums of earlier calls, of no rows at first, and what makes their columns."""
        if state is None:
            edges = self._edges(X, edges_of(X, weight))
            columns, n_columns = self._summed_columns(box_of_edges(edges))
            return Summary.empty(edges, n_columns, n_outputs), columns
        summary = Summary.from_arrays(state, X)
        columns, n_columns = self._summed_columns(summary.box)
        check_summary(summary, n_columns, n_outputs)
        return summary, columns

    def _forget_judgement(self) -> None:
        """Store that no rows were left out to tell of the model between the rows."""
        self._form_error, self._restraint = None, None

    def _keep_range(self, edges: Tensor, scaling: Scaling) -> None:
        """Store the range (2, m) of y over all rows, beside what left-out rows have told."""
        low, high = scaling.targets(edges).cpu().numpy()
        self._restraint = {"companion": None, **(self._restraint or {}), "low": low, "high": high}


class SummedRegressor(SummedEstimator, BaseRegressor):
    """Regressor with `partial_fit`.

    A subclass writes `_summed_columns` and `_fit_sums`.
    """

    def _forget_judgement(self) -> None:
        super()._forget_judgement()
        self._noise_law = None

    def _streamed_columns(self, box: Scaling, sample: Rows) -> tuple[Columns, int]:
        """The same for rows that are read twice: some of them are known before."""
        return self._summed_columns(box)

    def _fit_sums(self, summary: Summary, prepared: Prepared, columns: Any) -> TrainingResult:
        """Fit to sums over rows of these columns; the prepared rows are a sample of them."""
        raise NotImplementedError

    @available_if(SummedEstimator._is_sum)
    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BaseRegressor.fit)
    def partial_fit(self, X, y, sample_weight=None) -> Any:
        """Add rows to those of earlier calls, and fit to all of them.

        Only sums over the rows are kept, and a sample of at most 10000 of them. The result is that
        of one call with all rows, in whatever order they come, where `bounds` are given.
        Otherwise the box of the rows of the first call is that of the model; rows outside count
        with the functions' continuation, and a warning says how many there are. The first call
        after `fit` starts anew.
        """
        state = self.__dict__.get("_summary")
        with self._earlier_fit_kept():
            X, y, weight = self._own_rows(X, y, sample_weight, state is None)
            ndim, y = y.ndim, y.reshape(len(y), -1)
            summary, columns = self._earlier_sums(state, X, weight, y.shape[1])
            summary.add(X, y, weight, columns, self._torch_dtype())
            whole = summary.of_all_processes()
            result = self._store_sums(whole, ndim, columns)
        self._summary = summary.arrays()
        warn_of_rows_outside(whole.n_outside)
        self._warn_if_not_converged(result)
        return self

    def _fit_streamed(self, X: Any, y: Any, sample_weight: Any) -> TrainingResult:
        """Fit to rows in blocks of `batch_size`, read once for box and sample, once for sums."""
        stream = self._stream(X, y, sample_weight)
        samples: list[RowSample] = []

        def keep(X: Tensor, y: Tensor, weight: Tensor) -> None:
            y = y.reshape(len(y), -1)
            if not samples:
                samples.append(RowSample.empty(X.shape[1], y.shape[1], X))
            samples[0].add(X, y, weight)

        edges = self._first_pass(stream, self._validated_rows, keep)
        summary = Summary.of_sample(edges, sample_of_all_processes(samples[0]))
        sample = summary.rows(summary.scaled(), self._torch_dtype())
        columns, n_columns = self._streamed_columns(summary.box, sample)
        summary.sums = RowSums.empty(n_columns, sample.n_outputs, edges)
        dtype, ndim = self._torch_dtype(), 1
        with self._alike() as facts:
            for block in stream:
                points, targets, weight = self._validated_rows(*block, False, facts)
                ndim, targets = targets.ndim, targets.reshape(len(targets), -1)
                summary.add_sums(points, targets, weight, columns, dtype)
        summary = summary.of_all_processes(with_sample=False)
        result = self._store_sums(summary, ndim, columns)
        warn_of_rows_outside(summary.n_outside)
        return result

    def _store_sums(self, summary: Summary, ndim: int, columns: Columns) -> TrainingResult:
        """Fit to sums over all rows and store what comes out."""
        scaling = summary.scaled()
        prepared = Prepared(summary.rows(scaling, self._torch_dtype()), scaling, ndim)
        result = self._fit_sums(summary, prepared, columns)
        result = self._no_worse_than_the_mean(result, prepared)
        self._forget_judgement()
        self._keep_range(torch.stack([summary.sums.low, summary.sums.high]), scaling)
        self._store_result(result, prepared)
        return result


class SummedClassifier(SummedEstimator, BaseClassifier):
    """Classifier with `partial_fit`.

    A subclass writes `_summed_columns`, as that of a regressor, and `_fit_sums`.
    """

    def _fit_sums(self, summary: Summary, prepared: PreparedClasses) -> TrainingResult:
        """See `SummedRegressor`; targets are the classes' indicators."""
        raise NotImplementedError

    @available_if(SummedEstimator._is_sum)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None) -> Any:
        """Add rows to those of earlier calls, and fit to all of them.

        Only sums over the rows are kept, and a sample of at most 10000 of them. The result is that
        of one call with all rows, in whatever order they come, where `bounds` are given.
        Otherwise the box of the rows of the first call is that of the model; rows outside count
        with the values at its nearest point, and a warning says how many there are. The first
        call after `fit` starts anew.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,)
            Class labels: numbers or strings.
        classes : array-like of shape (n_classes,), default=None
            All labels, in the first call. None: those of its rows are all.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Frequency weights: weight 2 is the row twice, weight 0 the row removed.

        Returns
        -------
        self : estimator
        """
        state = self.__dict__.get("_summary")
        with self._earlier_fit_kept():
            X, codes, weight, own = self._own_classes(X, y, sample_weight, state is None)
            if state is None:
                known = own if classes is None else np.unique(np.asarray(classes))
            else:
                known = state["classes"]
            indicators = indicators_of(codes, own, known)
            summary, columns = self._earlier_sums(state, X, weight, len(known))
            summary.add(X, indicators, weight, columns, self._torch_dtype())
            whole = summary.of_all_processes()
            result = self._store_sums(whole, known)
        self._summary = {**summary.arrays(), "classes": known}
        warn_of_rows_outside(whole.n_outside)
        self._warn_if_not_converged(result)
        return self

    def _fit_streamed(self, X: Any, y: Any, sample_weight: Any) -> TrainingResult:
        """Fit to rows in blocks of `batch_size`, read once for box and classes, once for sums."""
        stream = self._stream(X, y, sample_weight)
        labels: list[np.ndarray] = []
        edges = self._first_pass(
            stream, self._validated_classes, lambda *rows: labels.append(rows[3])
        )
        known = np.unique(np.concatenate(gather_objects(np.unique(np.concatenate(labels)))))
        columns, n_columns = self._summed_columns(box_of_edges(edges))
        summary = Summary.empty(edges, n_columns, len(known))
        with self._alike() as facts:
            for block in stream:
                points, codes, weight, own = self._validated_classes(*block, False, facts)
                indicators = indicators_of(codes, own, known)
                summary.add(points, indicators, weight, columns, self._torch_dtype())
        whole = summary.of_all_processes()
        result = self._store_sums(whole, known)
        warn_of_rows_outside(whole.n_outside)
        return result

    def _store_sums(self, summary: Summary, classes: np.ndarray) -> TrainingResult:
        """Fit to sums over all rows and store what comes out."""
        box, sample = summary.box, summary.sample
        one = box.offset.new_ones(len(classes))
        scaling = Scaling(box.columns, box.offset, box.width, 0 * one, one)
        rows = summary.rows(scaling, self._torch_dtype())
        prepared = PreparedClasses(rows, scaling, classes)
        result = self._fit_sums(summary, prepared)
        if len(sample.key):
            result = self._no_worse_than_the_shares(result, prepared)
        self._store_result(result, prepared)
        return result


def indicators_of(codes: Tensor, own: np.ndarray, known: np.ndarray) -> Tensor:
    """Indicators (n, K) of the known classes from numbers (n,) of a block's own classes.

    Raises
    ------
    ValueError
        If a class is not known.
    """
    unknown = np.setdiff1d(own, known)
    if len(unknown):
        raise ValueError(
            f"y holds the classes {unknown.tolist()}, which are not among those of the first "
            f"partial_fit, {known.tolist()}. Give it all of them as classes."
        )
    place = torch.as_tensor(np.searchsorted(known, own), device=codes.device)
    return torch.eye(len(known), dtype=torch.float64, device=codes.device)[place[codes]]
