"""A sample of rows that depends on the rows alone, not on the order or the blocks they come in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core.state import TensorState

#: Most rows of a sample.
MOST_ROWS = 10_000
#: Odd multiplier that spreads bits over 64 (that of splitmix64; Steele, Lea, Flood 2014).
MULTIPLIER = 0xBF58476D1CE4E5B9 - (1 << 64)
#: Bits by which a product is folded onto itself, and what is left of it.
FOLD, LOW_BITS = 32, 0xFFFFFFFF


def keys_of(values: Tensor) -> Tensor:
    """A number of 64 bits (n,) of each of the rows (n, k), the same for equal rows alone."""
    bits = (values.to(torch.float64) + 0.0).contiguous().view(torch.int64)
    key = torch.zeros(len(bits), dtype=torch.int64, device=bits.device)
    for column in range(bits.shape[1]):
        # Twice: doubles of few digits differ in their upper bits alone.
        for _ in range(2):
            key = (key ^ bits[:, column]) * MULTIPLIER
            key = key ^ ((key >> FOLD) & LOW_BITS)
        key = key + column
    return key


@dataclass
class RowSample(TensorState):
    """The distinct rows of least keys, at most so many; weights of equal rows are added.

    Attributes
    ----------
    X : Tensor of shape (n, d)
        Points.
    y : Tensor of shape (n, m)
        Targets.
    weight : Tensor of shape (n,)
        Sums of the weights of equal rows.
    key : Tensor of shape (n,), int64
        Ascending.
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    key: Tensor

    @classmethod
    def empty(cls, n_features: int, n_outputs: int, like: Tensor) -> RowSample:
        """No rows, in float64, on the device of `like`."""
        nothing = like.new_zeros(0, dtype=torch.float64)
        X, y = nothing.new_zeros((0, n_features)), nothing.new_zeros((0, n_outputs))
        return cls(X, y, nothing, nothing.to(torch.int64))

    def add(self, X: Tensor, y: Tensor, weight: Tensor) -> None:
        """Add rows; those whose keys are larger than all others' are left out."""
        key = keys_of(torch.cat([X, y], 1))
        kept = weight > 0
        if len(self.key) == MOST_ROWS:
            kept &= key <= self.key[-1]
        self._join(X[kept], y[kept], weight[kept], key[kept])

    def _join(self, X: Tensor, y: Tensor, weight: Tensor, key: Tensor) -> None:
        key, order = torch.sort(torch.cat([self.key, key]), stable=True)
        weight = torch.cat([self.weight, weight])[order]
        changed = torch.ones(len(key), dtype=torch.bool, device=key.device)
        changed[1:] = key[1:] != key[:-1]
        total = weight.new_zeros(int(changed.sum())).index_add_(0, changed.cumsum(0) - 1, weight)
        first = order[changed][:MOST_ROWS]
        self.X, self.y = torch.cat([self.X, X])[first], torch.cat([self.y, y])[first]
        self.weight, self.key = total[:MOST_ROWS], key[changed][:MOST_ROWS]

    def merge(self, other: RowSample) -> None:
        """Add the rows of another sample."""
        self._join(other.X, other.y, other.weight, other.key)
