"""Adam, then L-BFGS, on all parameters of a network, its last layer included."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Report, Rows
from skpou.core.optim import Adam
from skpou.networks import Network, NetworkColumns

#: Memory of L-BFGS, and its iterations a round: a round ends where a line search fails.
HISTORY, ROUND = 50, 500
#: Share of the loss that a round of L-BFGS must gain.
GAIN = 1e-3


class _Reached(Exception):
    """The loss is as small as was asked for; leaves torch's optimiser."""


@dataclass
class Descended:
    """Best parameters of a descent and the mean squares of the residual on the way.

    Attributes
    ----------
    theta : Tensor of shape (n_parameters,)
        Hidden layers.
    coef : Tensor of shape (p, m)
        Last layer.
    curve : list of float
        Mean square of the residual at each evaluation.
    finite : bool
        Whether all of them were finite.
    """

    theta: Tensor
    coef: Tensor
    curve: list[float]
    finite: bool = True


class JointDescent:
    """Mean square of a network's residual with its gradient in preconditioned parameters.

    Parameters
    ----------
    network : Network
    rows : Rows
        Targets of unit rms.
    theta, coef : Tensor
        Start.
    scale_factor : float
        The first layer's parameters are this times the variables of the descent: the factor
        inside of its activation, sec. 2.2.2 of the lecture on multi-stage networks.
    report : callable, default=None
        Takes a line for every iteration.
    """

    def __init__(
        self,
        network: Network,
        rows: Rows,
        theta: Tensor,
        coef: Tensor,
        scale_factor: float,
        report: Report | None = None,
    ):
        self.rows, self.report = rows, report
        self.columns = NetworkColumns(network, rows.X)
        self.share = (rows.weight / rows.total_weight)[:, None]
        n_out, n_in = network.shapes[0]
        self.scale = torch.ones_like(theta)
        self.scale[: n_out * (n_in + 1)] = scale_factor
        self.variables = theta / self.scale
        self.coef = coef.clone()
        self.best = Descended(theta.clone(), coef.clone(), [])
        self.least = math.inf

    def evaluate(self) -> tuple[float, Tensor, Tensor]:
        """Half the mean square (Eq. 1) and its gradients; keeps the best parameters.

        The gradient of the last layer is that of each output's own mean square: several outputs
        are no reason to move it less.
        """
        theta = self.variables * self.scale
        A = self.columns.matrix(theta)
        residual = A @ self.coef - self.rows.y
        weighted = residual * self.share
        n_outputs = residual.shape[1]
        loss = float((weighted * residual).sum()) / n_outputs
        self.best.curve.append(loss)
        if loss < self.least:
            self.least = loss
            self.best.theta, self.best.coef = theta.clone(), self.coef.clone()
        # Last: it may be what interrupts.
        if self.report is not None:
            self.report(f"iteration {len(self.best.curve)}: mean square {loss:.3e}")
        gradient = self.columns.gradient(theta, self.coef, weighted / n_outputs) * self.scale
        return loss / 2, gradient, A.T @ weighted

    def adam(self, n_steps: int, learning_rate: float) -> None:
        """Steps of Adam whose size falls to 0 along half a cosine."""
        adam = Adam([self.variables, self.coef], learning_rate)
        for step in range(n_steps):
            loss, *gradients = self.evaluate()
            if not math.isfinite(loss):
                self.best.finite = False
                break
            adam.learning_rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            adam.step(gradients)
        self._return_to_best()

    def lbfgs(self, n_steps: int, tol: float) -> None:
        """L-BFGS in rounds, each in units of the loss that it starts from."""
        done = 0
        while done < n_steps and self.least > tol**2:
            before, unit = self.least, max(self.least, 1e-300)
            size = len(self.variables)
            # Copies of one output take the steps of that output alone.
            copies = math.sqrt(self.coef.shape[1])
            flat = torch.cat([self.variables, self.coef.reshape(-1) / copies]).requires_grad_()

            def closure(flat=flat, unit=unit, size=size, copies=copies):
                with torch.no_grad():
                    self.variables = flat[:size].clone()
                    self.coef = copies * flat[size:].reshape(self.coef.shape)
                    loss, *gradients = self.evaluate()
                    gradients[1] = gradients[1] / copies
                    if self.least <= tol**2:
                        raise _Reached
                    flat.grad = torch.cat([g.reshape(-1) for g in gradients]) / unit
                    value = loss / unit if math.isfinite(loss) else 1e150
                    return flat.new_tensor(value)

            optimiser = torch.optim.LBFGS(
                [flat],
                max_iter=min(ROUND, n_steps - done),
                history_size=HISTORY,
                tolerance_grad=0,
                tolerance_change=0,
                line_search_fn="strong_wolfe",
            )
            with contextlib.suppress(_Reached):
                optimiser.step(closure)
            done += max(optimiser.state[flat].get("n_iter", 1), 1)
            self._return_to_best()
            if self.least > (1 - GAIN) * before:
                return

    def _return_to_best(self) -> None:
        self.variables = self.best.theta / self.scale
        self.coef = self.best.coef.clone()
