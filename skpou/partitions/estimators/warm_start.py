"""Training that goes on from the pieces of the last fit."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.base import Prepared
from skpou.core import Scaling
from skpou.partitions.estimators.shared import BasePartitionRegressor


class WarmStart(BasePartitionRegressor):
    """What `HierarchicalPOURegressor` does with ``warm_start=True``."""

    def _warm_start_is_on(self, sizes: tuple[int, ...] | None) -> bool:
        if not (self.warm_start and self.__sklearn_is_fitted__()) or self._is_on_boxes():
            return False
        if self._fitted_sizes != sizes:
            raise ValueError(
                f"warm_start=True needs the n_partitions of the last fit, {self._fitted_sizes}. "
                f"Got {self.n_partitions!r}."
            )
        return True

    def _has_pieces(self, warm: bool) -> bool:
        """Whether there are pieces to go on from: what has a prior is found anew."""
        return warm and "prior" not in self.mixture_[-1]

    def _warm_labels(self, prepared: Prepared) -> Tensor:
        """Partition of each new row under the last fit."""
        if prepared.rows.n_features != self._n_varying():
            raise ValueError(
                "warm_start=True needs the columns of the last fit: "
                f"{self._n_varying()} that vary. Got {prepared.rows.n_features}."
            )
        old = Scaling.from_arrays(self.scaling_, prepared.scaling.width)
        rows = prepared.rows
        original = prepared.scaling.offset + prepared.scaling.width * rows.X
        points = ((original - old.offset) / old.width).to(rows.X.dtype)
        labels = self._mixture(points).tree.log_proba(points).argmax(1)
        return torch.unique(labels, return_inverse=True)[1]
