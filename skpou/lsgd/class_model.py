"""What a fitted classification network is: logits that are linear in its last hidden layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skpou.core import to_array, to_tensor
from skpou.networks import NetworkBasis

#: Numbers that are held for each point and unit of the network, its argument and value with what
#: they are made of, and for each class, logits and probabilities.
NUMBERS_A_UNIT, NUMBERS_A_CLASS = 4, 6


@dataclass(frozen=True)
class NetworkClasses:
    """Probabilities of classes by a softmax of a network's outputs.

    Attributes
    ----------
    basis : NetworkBasis
        Hidden layers: the constant, and the units of the last one.
    coef : Tensor of shape (p, K)
        Coefficients of one logit a class.
    offset : Tensor of shape (K,)
        What is added to the logits.
    """

    basis: NetworkBasis
    coef: Tensor
    offset: Tensor

    def log_proba(self, X: Tensor) -> Tensor:
        """Logarithms (n, K) of the probabilities; outside the unit box at its nearest point."""
        columns = self.basis.matrix(X.to(self.coef).clamp(0.0, 1.0))
        return torch.log_softmax(columns @ self.coef + self.offset, 1)

    def of_shares(self, share: Tensor) -> NetworkClasses:
        """The same network with the probabilities (K,) of the classes everywhere."""
        nothing = torch.zeros_like(self.coef)
        return replace(self, coef=nothing, offset=share.log().to(nothing))

    def numbers_per_row(self) -> int:
        """Numbers that `log_proba` allocates for each point, to size blocks of rows."""
        units = sum(self.basis.network.hidden_layer_sizes)
        return NUMBERS_A_UNIT * units + NUMBERS_A_CLASS * self.coef.shape[1]

    # State

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "network": self.basis.arrays(),
            "coef": to_array(self.coef),
            "offset": to_array(self.offset),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> NetworkClasses:
        """Rebuild from `arrays`, on the device and in the dtype of `like`."""
        basis = NetworkBasis.from_arrays(arrays["network"], like)
        coef, offset = (to_tensor(arrays[name], like, like.dtype) for name in ("coef", "offset"))
        return cls(basis, coef, offset)
