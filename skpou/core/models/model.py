"""What a fitted model is: predictions in scaled units, and a state of plain arrays."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from skpou.core.models.components import Components


def shared_tensor(array: Any, like: Tensor) -> Tensor:
    """The values of an array on the device of `like`: its own memory there, not to be written."""
    values = np.asarray(array)
    return torch.as_tensor(values if values.flags.writeable else values.copy(), device=like.device)


class Predictor(Protocol):
    """What predictions of every kind are read from; targets are the last axis of all results."""

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) of y at points X (n, d)."""

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean."""

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y; without `posterior` the variance of the mean may be left out."""

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point, to size blocks of rows."""


class SameMean:
    """Part of predictors that change what is known of a model's errors, and not its mean."""

    model: Predictor

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) of the model."""
        return self.model.mean(X)

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the model's mean."""
        return self.model.gradient(X)

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        return self.model.numbers_per_row()


class Model(Predictor, Protocol):
    """A predictor that can be stored."""

    def arrays(self) -> Any:
        """State as plain values and numpy arrays."""

    @classmethod
    def from_arrays(cls, arrays: Any, like: Tensor) -> Model:
        """Rebuild from `arrays`, on the device of `like`."""


class ClassPredictor(Protocol):
    """What predictions of classes are read from."""

    def log_proba(self, X: Tensor) -> Tensor:
        """Logarithms (n, K) of the classes' probabilities at points X (n, d)."""

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point, to size blocks of rows."""
