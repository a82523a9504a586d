"""Expectation maximization of rows that lie on disk, or in many processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skpou.base import Prepared, Summary, SummedEstimator, box_of_edges, lies_on_disk
from skpou.core import Rows, RowSample, TrainingInterrupted, TrainingResult
from skpou.core.linalg import RowSums, count
from skpou.partitions.estimators.options import NETWORK_GATES, check_memory, total_partitions
from skpou.partitions.estimators.trainers import em_options, em_training
from skpou.partitions.mixtures.streamed import fit_streamed_em
from skpou.partitions.pieces.problem import PieceProblem


class StreamedPartitions(SummedEstimator):
    """What `HierarchicalPOURegressor` does with rows in blocks, where its training is a sum."""

    bounds = None

    def _streams(self, X: Any) -> bool:
        """Whether fit reads rows in blocks: not networks, nor what other trainings find."""
        summed = self.solver == "em" and self.gate not in NETWORK_GATES and not self.warm_start
        plain = summed and self.physics is None and self.batch_size is not None
        return plain and (lies_on_disk(X) or count() > 1)

    def _fit_streamed(
        self, X: Any, y: Any, sample_weight: Any, sizes: tuple[int, ...] | None
    ) -> TrainingResult:
        """Pieces of a sample, then cycles over all rows in blocks of `batch_size`."""
        stream = self._stream(X, y, sample_weight)
        kept: list[Any] = []

        def keep(X: Tensor, y: Tensor, weight: Tensor) -> None:
            if not kept:
                kept.append(y.ndim)
            y = y.reshape(len(y), -1)
            if len(kept) == 1:
                kept.append(RowSample.empty(X.shape[1], y.shape[1], X))
                kept.append(RowSums.empty(1, y.shape[1], X))
            kept[1].add(X, y, weight)
            kept[2].add(X.new_ones((len(X), 1)), y, weight)

        edges = self._first_pass(stream, self._validated_rows, keep)
        ndim, sample, sums = kept
        summary = Summary(edges, box_of_edges(edges), sums, sample).of_all_processes()
        scaling, dtype = summary.scaled(), self._torch_dtype()
        rows = summary.rows(scaling, dtype)
        shape = (rows.n_rows, rows.n_features)
        check_memory(shape, total_partitions(sizes), self.degree, True, self.experts)
        prepared = Prepared(rows, scaling, ndim)
        pieces = self._piece_options(sizes, False)
        params, report = self.get_params(), self._reporter()
        self._keep_range(summary, scaling)

        def blocks() -> Iterator[Rows]:
            for block in stream:
                points, targets, weight = self._validated_rows(*block, False, {})
                targets = scaling.targets(targets.reshape(len(targets), -1)).to(dtype)
                points = summary.points(points, dtype).to(dtype)
                yield Rows(points, targets, weight.to(dtype), torch.zeros_like(targets))

        try:
            found = self._best_of(em_training(rows, params, pieces, None, report), self.n_init)
            problem = PieceProblem(rows, found.chosen["degree"], space=pieces.space)
            options = em_options(rows, params, pieces)
            result = fit_streamed_em(blocks, problem, found, options, report)
        except TrainingInterrupted as stopped:
            return self._keep_interrupted(stopped, prepared)
        result = self._no_worse_than_the_mean(result, prepared)
        self._store_result(result, prepared)
        return result
