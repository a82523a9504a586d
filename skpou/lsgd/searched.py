"""Fits of regressors whose bases are searched for: to rows, blocks of rows, equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skpou.base import SampledRegressor
from skpou.core import Rows, TrainingResult
from skpou.core.models import Makers
from skpou.equations import Physics, PhysicsMixin, Problem
from skpou.lsgd.left_out import makers_of_networks
from skpou.search import fit_to_blocks


class SearchedRegressor(SampledRegressor, PhysicsMixin):
    """Regressor with a `LinearModel` whose columns are searched for, or those of a network."""

    hidden_layer_sizes: Any

    def _training(self, sizes: tuple[int, ...] | None, rows: Rows) -> Callable[..., Any]:
        """What `_best_of` calls for every start."""
        raise NotImplementedError

    def _training_on_equations(
        self, sizes: tuple[int, ...] | None, rows: Rows, problem: Problem, physics: Physics
    ) -> Callable[..., Any]:
        """The same where there are equations."""
        raise NotImplementedError

    def _sorts_columns(self) -> bool:
        # The first units are drawn column by column.
        return not isinstance(self.hidden_layer_sizes, str) and self.physics is None

    def _streams(self, X: Any) -> bool:
        """Whether fit reads rows in blocks: networks of a given size take steps on all rows."""
        searched = isinstance(self.hidden_layer_sizes, str) and self.physics is None
        return searched and super()._streams(X)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, sizes: tuple[int, ...] | None, n_init: int = 1
    ) -> Any:
        """Fit, and return the estimator."""
        physics = self._physics()
        with self._fitting(X, y, sample_weight):
            if self._streams(X):
                result = self._fit_streamed(X, y, sample_weight, sizes, n_init)
            else:
                again = None
                if physics is None:
                    prepared = self._prepare(X, y, sample_weight)
                    again = lambda others: self._training(sizes, others.rows)  # noqa: E731
                    train = again(prepared)
                else:
                    prepared, problem = self._prepare_physics(X, y, sample_weight, physics)
                    train = self._training_on_equations(sizes, prepared.rows, problem, physics)
                result = self._train_and_store(train, n_init, prepared, again)
        self._warn_if_not_converged(result)
        return self

    def _fit_streamed(
        self, X: Any, y: Any, sample_weight: Any, sizes: tuple[int, ...] | None, n_init: int
    ) -> TrainingResult:
        """Columns of a sample, then coefficients of all rows in blocks of `batch_size`."""
        sampled = self._sampled(X, y, sample_weight)
        rows = sampled.prepared.rows.to(sampled.edges.dtype)

        def go_on(found: TrainingResult) -> TrainingResult:
            return fit_to_blocks(found, rows, sampled.others)

        return self._train_on_sample(sampled, self._training(sizes, rows), n_init, go_on)

    def _residual_makers(self, model: Any, rows: Rows) -> list[Makers]:
        # Equations tell of hidden layers what the rows do not.
        if self.physics is not None or isinstance(self.hidden_layer_sizes, str):
            return super()._residual_makers(model, rows)
        return makers_of_networks(model, rows)

    def _may_lean(self) -> bool:
        # A network of a given size is what was asked for.
        return isinstance(self.hidden_layer_sizes, str)
