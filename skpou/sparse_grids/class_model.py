"""What a fitted classifier on a sparse grid is: functions, and the probabilities that they mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import to_array, to_tensor
from skpou.sparse_grids.basis.grid import SparseGrid

#: Numbers a point and a class: function, logit, its exponential, and what torch makes of each.
NUMBERS_A_CLASS = 6


@dataclass
class GridClasses:
    """Probabilities of classes from functions on a sparse grid.

    Attributes
    ----------
    coef : Tensor of shape (G, K)
        Coefficients (surpluses) of one function a class.
    offset : Tensor of shape (K,)
        What is added to the functions.
    method : {"density", "one_hot", "softmax"}
        What they are: joint densities of point and class, probabilities, or logits.
    floor : float
        Size below which a density or a probability is not told from zero.
    """

    grid: SparseGrid
    coef: Tensor
    offset: Tensor
    method: str
    floor: float

    def functions(self, X: Tensor) -> Tensor:
        """Values (n, K) at points X (n, d); outside the unit box those at its nearest point."""
        X = X.to(self.coef)
        return self.grid.evaluate(X.clamp(0.0, 1.0), self.coef) + self.offset

    def log_proba(self, X: Tensor) -> Tensor:
        """Logarithms (n, K) of the classes' probabilities."""
        values = self.functions(X)
        if self.method == "softmax":
            return torch.log_softmax(values, 1)
        return log_shares(values, self.floor)

    def of_shares(self, share: Tensor) -> GridClasses:
        """The same grid with the probabilities (K,) of the classes everywhere."""
        nothing = torch.zeros_like(self.coef)
        return GridClasses(self.grid, nothing, share.log().to(nothing), "softmax", self.floor)

    def numbers_per_row(self) -> int:
        """Numbers that `log_proba` allocates for each point, to size blocks of rows."""
        return self.grid.numbers_per_row() + NUMBERS_A_CLASS * self.coef.shape[1]

    # State

    def arrays(self) -> dict:
        """State as numpy arrays, numbers and strings."""
        return {
            **self.grid.arrays(),
            "method": self.method,
            "floor": self.floor,
            "coef": to_array(self.coef),
            "offset": to_array(self.offset),
        }

    @classmethod
    def from_arrays(cls, arrays: dict, like: Tensor) -> GridClasses:
        """Rebuild from `arrays`, on the device and in the dtype of `like`."""
        grid = SparseGrid.from_arrays(arrays)
        coef, offset = (to_tensor(arrays[name], like, like.dtype) for name in ("coef", "offset"))
        return cls(grid, coef, offset, arrays["method"], arrays["floor"])


def log_shares(values: Tensor, floor: float) -> Tensor:
    """Logarithms of the shares of ``(v + sqrt(v^2 + floor^2)) / 2``, which is positive.

    Its order is that of the values, and it is v where v is far above the floor.
    """
    size = (values.square() + floor**2).sqrt() + values.abs()
    # Below zero the sum cancels; the product of sum and difference is floor^2. Neither form may
    # divide by zero where it is not chosen: its gradient would be NaN.
    positive = torch.where(values > 0, size, floor**2 / size)
    logs = positive.log()
    return logs - torch.logsumexp(logs, 1, keepdim=True)
