"""Pieces of rows that lie on disk, or in many processes."""

from __future__ import annotations

from typing import Any

from skpou.base import SampledRegressor, lies_on_disk
from skpou.core import TrainingResult
from skpou.core.linalg import count
from skpou.partitions.estimators.discovery import discovery
from skpou.partitions.estimators.options import NETWORK_GATES, check_memory, total_partitions
from skpou.partitions.estimators.trainers import em_options, em_training
from skpou.partitions.many_rows import fit_to_blocks
from skpou.partitions.mixtures.streamed import fit_streamed_em
from skpou.partitions.pieces.problem import PieceProblem


class StreamedPartitions(SampledRegressor):
    """What `HierarchicalPOURegressor` does with rows in blocks, where its training is a sum."""

    def _streams(self, X: Any) -> bool:
        """Whether fit reads rows in blocks: not networks, nor gates that need all rows."""
        summed = self.solver == "em" or (self.solver == "auto" and self.init == "data")
        plain = summed and self.gate not in NETWORK_GATES and not self.warm_start
        wanted = plain and self.physics is None and self.batch_size is not None
        return wanted and (lies_on_disk(X) or count() > 1)

    def _fit_streamed(
        self, X: Any, y: Any, sample_weight: Any, sizes: tuple[int, ...] | None
    ) -> TrainingResult:
        """Pieces of a sample, then experts of all rows in blocks of `batch_size`."""
        sampled = self._sampled(X, y, sample_weight)
        rows, pieces = sampled.prepared.rows, self._piece_options(sizes, False)
        shape, on_sums = (rows.n_rows, rows.n_features), self.solver == "em"
        check_memory(shape, total_partitions(sizes), self.degree, on_sums, self.experts)
        if not on_sums:
            train = discovery(rows, pieces, None, self._reporter(), of_more=True)

            def go_on(found: TrainingResult) -> TrainingResult:
                return fit_to_blocks(found, rows, sampled.others)

            return self._train_on_sample(sampled, train, self.n_init, go_on)
        params, report = self.get_params(), self._reporter()

        def cycles(found: TrainingResult) -> TrainingResult:
            problem = PieceProblem(rows, found.chosen["degree"], space=pieces.space)
            options = em_options(rows, params, pieces)
            return fit_streamed_em(sampled.blocks, problem, found, options, report)

        train = em_training(rows, params, pieces, None, report)
        return self._train_on_sample(sampled, train, self.n_init, cycles, judged=False)
