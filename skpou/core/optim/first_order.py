"""First-order steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Adam:
    """Steps of Adam (Kingma, Ba 2014, Algorithm 1) with its default decay rates.

    The same steps as those of ``torch.optim.Adam``, whose first use imports a compiler for
    seconds.

    Parameters
    ----------
    parameters : list of Tensor
        Changed in place by `step`.
    """

    #: Decay of the two averages, and what roots are divided with, all by Kingma and Ba (2015).
    decay = (0.9, 0.999)
    epsilon = 1e-8

    def __init__(self, parameters: list[Tensor], learning_rate: float):
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.n_steps = 0
        self._mean = [torch.zeros_like(p) for p in parameters]
        self._square = [torch.zeros_like(p) for p in parameters]

    def state(self) -> dict[str, Any]:
        """What further steps depend on, besides the parameters."""
        return {"n_steps": self.n_steps, "mean": self._mean, "square": self._square}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on after the steps of another."""
        self.n_steps = int(state["n_steps"])
        self._mean, self._square = list(state["mean"]), list(state["square"])

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> None:
        """Move against the gradients of a loss to be minimised."""
        self.n_steps += 1
        first, second = self.decay
        unbias, unbias_square = 1 - first**self.n_steps, 1 - second**self.n_steps
        for p, g, mean, square in zip(
            self.parameters, gradients, self._mean, self._square, strict=True
        ):
            mean.lerp_(g, 1 - first)
            square.mul_(second).addcmul_(g, g, value=1 - second)
            width = (square / unbias_square).sqrt_().add_(self.epsilon)
            p.addcdiv_(mean, width, value=-self.learning_rate / unbias)


class GradientDescent:
    """Steps against the gradient, with momentum (Eq. 2.23 of Zhang 2021).

    Parameters
    ----------
    parameters : list of Tensor
        Updated in place.
    """

    #: Share of the last step: the usual one, ten steps of memory.
    momentum = 0.9

    def __init__(self, parameters: list[Tensor], learning_rate: float):
        self.parameters = parameters
        self.learning_rate = learning_rate
        self._velocity = [torch.zeros_like(p) for p in parameters]

    def state(self) -> dict[str, Any]:
        """What further steps depend on, besides the parameters."""
        return {"velocity": self._velocity}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on after the steps of another."""
        self._velocity = list(state["velocity"])

    @torch.no_grad()
    def step(self, gradients: list[Tensor]) -> None:
        """Move against the gradients of a loss to be minimised."""
        for p, g, velocity in zip(self.parameters, gradients, self._velocity, strict=True):
            velocity.mul_(self.momentum).add_(g)
            p.sub_(velocity, alpha=self.learning_rate)
