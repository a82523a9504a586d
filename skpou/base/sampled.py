"""Estimators that find their form on some of the rows, where these are read block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.base.classifier import BaseClassifier, PreparedClasses
from skpou.base.outliers import Given
from skpou.base.regressor import BaseRegressor, Prepared
from skpou.base.streams import (
    LARGEST_TARGET,
    box_of_edges,
    edges_of,
    edges_of_all,
    joined_edges,
    sample_of_all_processes,
)
from skpou.base.summed import SummedEstimator, indicators_of
from skpou.core import (
    Blocks,
    Rows,
    RowSample,
    TrainingInterrupted,
    TrainingResult,
    keys_of,
    target_unit,
)
from skpou.core.linalg import gather_objects


class Sampled(NamedTuple):
    """Rows in blocks, and a sample of them.

    Attributes
    ----------
    prepared : Prepared
        The sample, in the box of all rows.
    edges : Tensor of shape (2, m)
        Smallest and largest target of all rows.
    blocks : callable
        Reads all rows of this process, in the units of the sample.
    others : callable
        Those of them that are not in the sample.
    """

    prepared: Prepared
    edges: Tensor
    blocks: Blocks
    others: Blocks


class SampledClasses(NamedTuple):
    """Rows of classes in blocks, and a sample of them.

    Attributes
    ----------
    prepared : PreparedClasses
        The sample, in the box of all rows.
    others : callable
        Reads the rows that are not in the sample, targets the indicators of their classes.
    """

    prepared: PreparedClasses
    others: Blocks


class SampledRegressor(SummedEstimator, BaseRegressor):
    """Regressor whose columns or pieces a sample finds, and whose coefficients all rows tell.

    A subclass calls `_sampled`, trains on the sample, and goes on over all rows, or the others.
    """

    bounds = None

    def _sampled(self, X: Any, y: Any, sample_weight: Any) -> Sampled:
        """Read rows in blocks of `batch_size` once, for their box and a sample.

        The sample depends neither on the blocks nor on the processes that bring them.
        """
        stream = self._stream(X, y, sample_weight)
        read: list[Any] = []
        ranges: list[Tensor] = []

        def keep(X: Tensor, y: Tensor, weight: Tensor) -> None:
            ndim, y = y.ndim, y.reshape(len(y), -1)
            if not read:
                read.extend([ndim, RowSample.empty(X.shape[1], y.shape[1], X)])
            read[1].add(X, y, weight)
            ranges.append(edges_of(y, weight))

        box = box_of_edges(self._first_pass(stream, self._validated_rows, keep))
        ndim, sample = read[0], sample_of_all_processes(read[1])
        edges, dtype = edges_of_all(joined_edges(ranges)), self._torch_dtype()
        target_unit(edges, edges.new_ones(2), LARGEST_TARGET[dtype])  # refuses what overflows
        box = self._in_order_of(sample, box)
        prepared = self._prepared(Given(sample.X, sample.y, sample.weight), ndim, box)
        # Merging may have divided the weights by their mean.
        unit = float(sample.weight.sum()) / prepared.rows.total_weight

        def blocks(after: int | None = None) -> Iterator[Rows]:
            for block in stream:
                points, targets, weight = self._validated_rows(*block, False, {})
                targets = targets.reshape(len(targets), -1)
                if after is not None:
                    other = keys_of(torch.cat([points, targets], 1)) > after
                    points, targets, weight = points[other], targets[other], weight[other]
                targets = prepared.scaling.targets(targets).to(dtype)
                weight = (weight / unit).to(dtype)
                yield Rows(box.points(points).to(dtype), targets, weight, torch.zeros_like(targets))

        last = int(sample.key[-1])
        return Sampled(prepared, edges, blocks, lambda: blocks(last))

    def _train_on_sample(
        self,
        sampled: Sampled,
        train: Callable[[np.random.Generator], TrainingResult],
        n_init: int,
        go_on: Callable[[TrainingResult], TrainingResult],
        judged: bool = True,
    ) -> TrainingResult:
        """Best of several starts on the sample, then on by the other rows; stored.

        Where it is `judged`, left-out rows of the sample tell of the model between the rows.
        """
        prepared = sampled.prepared
        self._set_outliers(None)

        def judge(result: TrainingResult) -> None:
            self._forget_judgement()
            if judged:
                self._judge_between_rows(result.state, prepared)
            self._keep_range(sampled.edges, prepared.scaling)

        try:
            with self._training_on(prepared):
                result = go_on(self._best_of(train, n_init))
        except TrainingInterrupted as stopped:
            if stopped.result is not None:
                judge(stopped.result)
            return self._keep_interrupted(stopped, prepared)
        result = self._no_worse_than_the_mean(result, prepared)
        judge(result)
        self._store_result(result, prepared)
        return result


class SampledClassifier(SummedEstimator, BaseClassifier):
    """Classifier that a sample starts, and that goes on with all rows in blocks."""

    bounds = None

    def _sampled_classes(self, X: Any, y: Any, sample_weight: Any) -> SampledClasses:
        """Read rows in blocks twice: for their box and classes, and for a sample."""
        stream = self._stream(X, y, sample_weight)
        labels: list[np.ndarray] = []
        edges = self._first_pass(
            stream, self._validated_classes, lambda *rows: labels.append(np.unique(rows[3]))
        )
        known = np.unique(np.concatenate(gather_objects(np.concatenate(labels))))
        box, dtype = box_of_edges(edges), self._torch_dtype()

        def parts() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for block in stream:
                points, codes, weight, own = self._validated_classes(*block, False, {})
                yield points, indicators_of(codes, own, known), weight

        found = RowSample.empty(edges.shape[1], len(known), edges)
        for part in parts():
            found.add(*part)
        sample = sample_of_all_processes(found)
        last, box = int(sample.key[-1]), self._in_order_of(sample, box)

        def others() -> Iterator[Rows]:
            for points, shares, weight in parts():
                other = (keys_of(torch.cat([points, shares], 1)) > last) & (weight > 0)
                rows = box.points(points[other]).to(dtype), shares[other].to(dtype)
                yield Rows(*rows, weight[other].to(dtype), torch.zeros_like(rows[1]))

        rows, scaling, _ = self._merged(sample.X, sample.y, sample.weight, box)
        return SampledClasses(PreparedClasses(rows, scaling, known), others)
