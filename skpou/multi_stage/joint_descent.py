"""Adam, then L-BFGS, on all parameters of a network, its last layer included."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Report, Rows
from skpou.core.linalg import TINY
from skpou.core.optim import Adam, Iterate
from skpou.equations import inside, norm
from skpou.lsgd import EquationNetworkTraining
from skpou.networks import Coordinates, Network, NetworkColumns, NetworkDerivatives

#: Memory of L-BFGS, in vectors of all parameters, and its iterations a round: a round ends where a
#: line search fails.
HISTORY, ROUND = 50, 500
#: Parts of Adam's steps between which rates are matched, and the largest factor of an equation.
MATCHINGS, HEAVIEST = 5, 100.0
#: Share of the loss that a round of L-BFGS must gain: one that gains less is at rest.
GAIN = 1e-3
#: What a loss that is not finite counts as: a line search turns back from it.
NO_LOSS = 1e150


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
    rows : Rows
        Targets of unit rms.
    theta, coef : Tensor
        Start.
    scale_factor : float
        The first layer's parameters are this times the variables of the descent: the factor
        inside of its activation, sec. 2.2.2 of the lecture on multi-stage networks.
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
        self.rows = rows
        self.columns = NetworkColumns(network, rows.X)
        self.share = (rows.weight / rows.total_weight)[:, None]
        self._begin(network, theta, coef, scale_factor, report)

    def _begin(
        self,
        network: Network,
        theta: Tensor,
        coef: Tensor,
        scale_factor: float,
        report: Report | None,
    ) -> None:
        """Variables of the descent; the parameters are those of the class."""
        self.report = report
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
        self._show(theta, loss)
        gradient = self.columns.gradient(theta, self.coef, weighted / n_outputs) * self.scale
        return loss / 2, gradient, A.T @ weighted

    def _show(self, theta: Tensor, loss: float) -> None:
        """Record an evaluation."""
        self.best.curve.append(loss)
        if loss < self.least:
            self.least = loss
            self.best.theta, self.best.coef = theta.clone(), self.coef.clone()
        # Last: it may be what interrupts.
        if self.report is not None:
            self.report(f"iteration {len(self.best.curve)}: mean square {loss:.3e}")

    def adam(self, n_steps: int, learning_rate: float) -> None:
        """Steps of Adam whose size falls to 0 along half a cosine."""
        adam = Adam([self.variables, self.coef], learning_rate)
        for step in range(n_steps):
            self._before_step(step, n_steps)
            loss, *gradients = self.evaluate()
            if not math.isfinite(loss):
                self.best.finite = False
                break
            adam.learning_rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            adam.step(gradients)
        self._return_to_best()

    def _before_step(self, step: int, n_steps: int) -> None:
        """Nothing; a descent may change its loss here."""

    def lbfgs(self, n_steps: int, tol: float) -> None:
        """L-BFGS in rounds, each in units of the loss that it starts from."""
        done = 0
        while done < n_steps and self.least > tol**2:
            before, unit = self.least, max(self.least, TINY)
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
                    value = loss / unit if math.isfinite(loss) else NO_LOSS
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


class EquationDescent(JointDescent):
    """`JointDescent` of a network on data and equations, with its unknown constants.

    The coefficients are those of the outputs, one after the other, and then the unknowns. They
    are in units of the residual of nothing, which is the magnitude of a later stage.

    Parameters
    ----------
    training : EquationNetworkTraining
        Of the network; its solvers are not called.
    theta : Tensor of shape (n_parameters,)
        Hidden layers to start from.
    scale_factor, report
        See `JointDescent`.
    """

    def __init__(
        self,
        training: EquationNetworkTraining,
        theta: Tensor,
        scale_factor: float,
        report: Report | None = None,
    ):
        self.training, self.scales = training, training.scales
        self.first_scales = list(self.scales)
        terms = training.base.terms
        self.balanced = {i + 1 for i, term in enumerate(terms) if term.rule == "balanced"}
        level, problem = training.base, training.equations
        self.limits = list(problem.unknowns.values())
        network = training.options.network
        self.derivatives = [NetworkDerivatives(network, level.rows.X, [()])]
        self.derivatives += [
            NetworkDerivatives(network, t.points, [problem.scaled(k) for k in t.pointwise.keys])
            for t in level.terms
        ]
        unknowns = theta.new_tensor([unknown.init for unknown in self.limits])
        self.unit = norm(level.residuals(level.zero(), unknowns), self.scales) or 1.0
        coef = torch.cat([theta.new_zeros(level.n_coefficients), unknowns])[:, None]
        self._begin(network, theta, coef, scale_factor, report)

    def inner(self, coef: Tensor) -> Tensor:
        """Coefficients and unknowns (N, 1) in the units of the training."""
        q = len(self.limits)
        head, last = coef[: len(coef) - q, 0], coef[len(coef) - q :, 0]
        return torch.cat([self.unit * head, inside(last, self.limits)])[:, None]

    def evaluate(self) -> tuple[float, Tensor, Tensor]:
        """See `JointDescent.evaluate`; the loss is in units of that of nothing."""
        loss, *gradients = self._loss_and_gradients(self.scales)
        self._show(self.variables * self.scale, loss)
        return loss / 2, gradients[0], gradients[1]

    def _before_step(self, step: int, n_steps: int) -> None:
        """Match the rates of "balanced" equations at some of the steps."""
        if self.balanced and step in {k * n_steps // MATCHINGS for k in range(1, MATCHINGS)}:
            self._match_rates()

    def _match_rates(self) -> None:
        """Weigh equations so that their loss falls at the rate of that of all else.

        Along the steepest descent of ``L_d + w L_e``, gamma = w / (1 + w), the logarithms of both
        losses change at rates that are linear in w: w makes them alike. There is no such weight
        where one of the losses falls faster by the descent of the other.
        """
        parts = []
        for of_equations in (False, True):
            scales = [s * ((i in self.balanced) == of_equations) for i, s in enumerate(self.scales)]
            loss, *gradients = self._loss_and_gradients(scales)
            parts.append((loss, torch.cat([gradient.reshape(-1) for gradient in gradients])))
        (data, by_data), (equation, by_equation) = parts
        if not (0 < data < math.inf and 0 < equation < math.inf):
            return
        both = float(by_data @ by_equation)
        of_data = float(by_data @ by_data) / data - both / equation
        of_equation = float(by_equation @ by_equation) / equation - both / data
        if of_data <= 0 or of_equation <= 0:
            return
        for i in self.balanced:
            factor = self.scales[i] / self.first_scales[i] * math.sqrt(of_data / of_equation)
            self.scales[i] = self.first_scales[i] * min(max(factor, 1 / HEAVIEST), HEAVIEST)
        self.least = math.inf  # Of another loss.

    def _loss_and_gradients(self, scales: list[float]) -> tuple[float, Tensor, Tensor]:
        """Mean square and gradients of its half, for some factors of data and equations."""
        theta = self.variables * self.scale
        level, solution = self.training.solution(Iterate(theta, self.inner(self.coef), math.nan))
        coef, unknowns, problem = solution.coef, solution.unknowns, level.problem
        by_coef, by_unknown = torch.zeros_like(coef), torch.zeros_like(unknowns)
        left = level.root[:, None] * (level.phi @ coef - level.y)
        weight = (scales[0] / self.unit) ** 2
        loss = weight * float(left.square().sum())
        pulled = weight * level.root[:, None] * left
        by_coef += level.phi.T @ pulled
        by_theta = self.derivatives[0].pull_back(theta, {(): pulled @ coef.T})
        for i, scale in enumerate(scales[1:]):
            weight = (scale / self.unit) ** 2
            residual, by_value, by_constant = level.linearised(i, coef, unknowns)
            loss += weight * float(residual.square().sum())
            slopes: dict[Coordinates, Tensor] = {}
            for key, slope in by_value.items():
                push = weight * (slope * residual).sum(1)
                by_coef[:, key[0]] += level.parts[i][key].T @ push
                order = tuple(sorted(problem.scaled(key)))
                part = problem.unit(key) * push[:, None] * coef[:, key[0]]
                slopes[order] = slopes[order] + part if order in slopes else part
            by_theta = by_theta + self.derivatives[i + 1].pull_back(theta, slopes)
            for j, slope in enumerate(by_constant.values()):
                by_unknown[j] += weight * (slope * residual).sum()
        gradient = torch.cat([self.unit * by_coef.T.reshape(-1), by_unknown])[:, None]
        return loss, by_theta * self.scale, gradient
