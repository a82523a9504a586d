"""What all regressors share: how they train and what a family writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skpou.base import validation
from skpou.base.between_rows import Prepared
from skpou.base.predictions import PredictiveRegressor
from skpou.core import Scaling, TrainingInterrupted, TrainingResult
from skpou.core.linalg import gather
from skpou.core.models import Predictor


class BaseRegressor(PredictiveRegressor):
    """Regressor with a predictive density at every point: one Gaussian, or a mixture of them.

    A subclass calls `_prepare`, trains and stores arrays by `_train_and_store`, and writes
    `_store_result` and `_model`; predictions of every kind follow.
    """

    # Written by a subclass

    def fit(self, X, y, sample_weight=None) -> Any:
        """Train on rows, alone or weighted.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Frequency weights: weight 2 is the row twice, weight 0 the row removed.

        Returns
        -------
        self : estimator
        """
        raise NotImplementedError

    def _model(self, like: Tensor) -> Predictor:
        """The fitted model in scaled units, on the device and in the dtype of `like`.

        It is unpacked from the stored arrays: once a prediction, not once a block of rows.
        """
        raise NotImplementedError

    def _evaluate(self, points: Tensor) -> None:
        model = self._restrained(self._model(points), points)
        m = len(self.scaling_["scale"])
        parts = model.components(points).log_density(points.new_zeros((1, m)))
        if model.mean(points).shape != (1, m) or parts.shape != (1,):
            raise ValueError(f"predictions of {m} outputs have another shape.")

    # Training

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        box: Scaling | None = None,
        beside: Callable[[Tensor], Tensor] | None = None,
    ) -> Prepared:
        """Validate, move, scale and merge the training data.

        Parameters
        ----------
        X, y, sample_weight : array-like or Tensor
            As given to fit.
        box : Scaling, default=None
            Keep the box and the columns of an earlier fit.
        beside : callable, default=None
            Maps X (n, d) to further points (k, d) for the box to hold; then n may be 0.
        """
        X, y, weight = self._given_rows(X, y, sample_weight, box is None, beside is not None)
        ndim = y.ndim
        if beside is not None:
            further = beside(X)
            ones = further.new_ones(len(further))
            box = Scaling.from_box(torch.cat([X, further]), torch.cat([weight, ones]))
        rows, scaling, unit = self._merged(X, y[:, None] if ndim == 1 else y, weight, box)
        share = scaling.scale / unit
        rows = rows.in_units(scaling.mean / unit, share, self._torch_dtype())
        return Prepared(rows, scaling, ndim)

    def _given_rows(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True, may_be_empty: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Validated points (n, d), targets (n,) or (n, m) and weights (n,), on the device.

        Those of all processes, where several call fit together.
        """
        X, y, weight = self._own_rows(X, y, sample_weight, reset, may_be_empty)
        X, y, weight = (torch.cat(gather(part)) for part in (X, y, weight))
        return X, y, weight

    def _own_rows(
        self, X: Any, y: Any, sample_weight: Any, reset: bool = True, may_be_empty: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same of this process alone, once all agree that they go together."""
        with self._alike() as facts:
            return self._validated_rows(X, y, sample_weight, reset, facts, may_be_empty)

    def _validated_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        reset: bool,
        facts: dict[str, Any],
        may_be_empty: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same without a word to other processes; `facts` takes what they must agree on."""
        facts["dtype of X"] = str(getattr(X, "dtype", None))
        device = validation.resolve_device(self.device, validation.origin_of(X))
        X, y, weight = validation.training_data(
            self, X, y, sample_weight, reset=reset, may_be_empty=may_be_empty
        )
        facts["number of columns"] = X.shape[1]
        facts["shape of a target"] = tuple(y.shape[1:])
        X, y, weight = (validation.owned(part, torch.float64, device) for part in (X, y, weight))
        return X, y, weight

    def _train_and_store(self, train: Any, n_init: int, prepared: Prepared) -> TrainingResult:
        """Best of several starts, stored; what an interrupt leaves is stored, too."""
        try:
            with self._training_on(prepared):
                result = self._best_of(train, n_init)
            result = self._no_worse_than_the_mean(result, prepared)
        except TrainingInterrupted as stopped:
            if stopped.result is not None:
                self._judge_between_rows(stopped.result.state, prepared)
            return self._keep_interrupted(stopped, prepared)
        self._judge_between_rows(result.state, prepared)
        self._store_result(result, prepared)
        return result
