"""Quasi-Newton descent on the projected loss: least squares inside, L-BFGS outside.

At the least-squares coefficients the gradient of the projected loss is that of the loss itself
with the coefficients held fixed (the envelope theorem): one back-propagation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skpou.core.optim import Iterate, ProjectedProblem, RidgeSchedule

#: Iterations before the loss is scaled anew. torch compares it with absolute tolerances.
ROUND = 100
#: Steps that L-BFGS remembers: as many vectors as parameters, next to nothing beside the columns.
HISTORY = 50
#: Share of the loss that a round must gain: 100 iterations that gain less are at rest.
GAIN = 1e-4


class ProjectedLoss:
    """The loss as torch's optimiser wants it, with a record of the evaluations.

    Parameters
    ----------
    problem : ProjectedProblem
        Its basis must have `gradient`.
    theta : Tensor of shape (k,)
        Start.
    ridge : RidgeSchedule
        Followed between rounds.
    show : callable
        Called with an `Iterate` after every evaluation that is better than all before.
    """

    def __init__(
        self,
        problem: ProjectedProblem,
        theta: Tensor,
        ridge: RidgeSchedule,
        show: Callable[[Iterate], None],
    ):
        self.problem = problem
        self.basis: Any = problem.basis  # one that has `gradient`
        self.theta = theta.clone().requires_grad_()
        self.ridge = ridge
        self.show = show
        self.count = problem.total * problem.y.shape[1]
        self.unit = 1.0
        self.best: Iterate | None = None
        self.least = math.inf

    def evaluate(self) -> Tensor:
        """Value in units of the round's first one; the gradient goes to `theta.grad`."""
        with torch.no_grad():
            theta = self.theta.detach().clone()
            fit = self.problem.solve(theta, self.ridge.value)
            if not math.isfinite(fit.value):
                self.theta.grad = torch.zeros_like(theta)
                return theta.new_tensor(torch.finfo(theta.dtype).max ** 0.5)
            cotangent = 2 * fit.residual * self.problem.root / self.count
            gradient = self.basis.gradient(theta, fit.coef, cotangent)
            value = fit.value / self.count
            if value < self.least:
                self.least = value
                loss = float(fit.residual.square().sum()) / self.count
                self.best = Iterate(theta, fit.coef, loss, self.ridge.value)
                self.show(self.best)
            self.theta.grad = gradient / self.unit
            return theta.new_tensor(value / self.unit)

    def restart(self) -> None:
        """Begin a round at the best parameters, in units of their loss."""
        if self.best is not None:
            with torch.no_grad():
                self.theta.copy_(self.best.theta)
        self.least, self.unit = math.inf, 1.0
        self.unit = float(self.evaluate()) or 1.0


def minimise_projected(
    problem: ProjectedProblem,
    theta: Tensor,
    *,
    max_iter: int,
    tol: float,
    ridge: RidgeSchedule,
    show: Callable[[Iterate], None],
) -> str:
    """L-BFGS with strong Wolfe line searches, in rounds.

    Parameters
    ----------
    problem, theta, ridge, show
        See `ProjectedLoss`.
    tol : float
        Relative rms residual at which to stop. A round that hardly improves the loss ends the
        descent as well, once the ridge stays.

    Returns
    -------
    str
        Code of the outcome.
    """
    loss = ProjectedLoss(problem, theta, ridge, show)
    done = 0
    while done < max_iter:
        loss.restart()
        if loss.best is None:
            return "non_finite"
        before = loss.least
        steps = min(ROUND, max_iter - done)
        optimiser = torch.optim.LBFGS(
            [loss.theta],
            max_iter=steps,
            max_eval=2 * steps,
            history_size=HISTORY,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )
        optimiser.step(loss.evaluate)
        # A line search that fails ends a round early; the next one has another unit and ridge.
        done += max(optimiser.state[loss.theta]["n_iter"], 1)
        relative = (
            math.sqrt(loss.best.loss) / problem.rms * math.sqrt(loss.count / problem.y.numel())
        )
        if relative <= tol:
            return "converged"
        lower = ridge.follow(relative)
        final = ridge.value <= ridge.least
        if loss.least > (1 - GAIN) * before and not lower and (final or not ridge.stall()):
            return "converged"
    return "max_iter"
