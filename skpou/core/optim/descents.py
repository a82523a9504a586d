"""First-order training of separable models: gradient descent, least squares between its steps.

Source: Cyr, Gulian, Patel, Perego, Trask (2020), Algorithm 1 (LSGD).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report
from skpou.core.optim.first_order import Adam

#: Passes over the rows after which the loss must have improved by the tolerance.
PATIENCE = 100


class GradientBasis(Protocol):
    """A `ParametricBasis` that can be descended with, in blocks of rows."""

    def matrix(self, theta: Tensor) -> Tensor:
        """Columns (n, p)."""

    def rows(self, index: slice | Tensor) -> GradientBasis:
        """The same columns at some of the points."""

    def gradient(self, theta: Tensor, coef: Tensor, cotangent: Tensor) -> Tensor:
        """Product of the transposed Jacobian of ``matrix(theta) @ coef`` and (n, m) numbers."""


class Ridge(Protocol):
    """Ridge of the coefficients that changes during a descent."""

    value: float

    def follow(self, relative_rms: float) -> bool:
        """Adapt to the residual, relative to the rms of the targets; whether it changed."""


@dataclass
class Iterate:
    """What a descent has reached.

    Attributes
    ----------
    theta : Tensor of shape (k,)
    coef : Tensor of shape (p, m)
    loss : float
        Weighted mean square of the residual over rows and targets.
    ridge : float
        Ridge of the coefficients relative to the largest squared column norm.
    """

    theta: Tensor
    coef: Tensor
    loss: float
    ridge: float = 0.0


def minibatches(
    n_rows: int, batch_size: int | None, rng: np.random.Generator
) -> Iterator[slice | Tensor]:
    """All rows once: in one piece, or in shuffled pieces of `batch_size` rows."""
    if batch_size is None or batch_size >= n_rows:
        yield slice(None)
        return
    order = torch.as_tensor(rng.permutation(n_rows), device="cpu")
    yield from order.split(batch_size)


class Descent:
    """One separable model, its rows, and the size and the order of its steps.

    The loss is the mean of squares; a subclass may have another one.

    Parameters
    ----------
    problem : ProjectedProblem
        Columns at the rows, with `rows` and `gradient`; targets, weights.
    batch_size : int or None
        Rows a gradient step; None takes all.
    """

    #: `ProjectedProblem`, or another that a subclass knows the fits of.
    problem: Any

    def __init__(
        self, problem: Any, learning_rate: float, batch_size: int | None, rng: np.random.Generator
    ):
        self.problem = problem
        self.basis = cast(GradientBasis, problem.basis)
        self.batch_size = batch_size
        self.rng = rng
        self.learning_rate = learning_rate
        self.n_losses = self.losses_per_row()
        self.count = problem.total * self.n_losses

    def losses_per_row(self) -> int:
        """Number of losses of each row that the loss is the mean of."""
        return self.problem.y.shape[1]

    def residual(
        self, columns: Tensor, coef: Tensor, y: Tensor, root: Tensor
    ) -> tuple[Tensor, float]:
        """Weighted residual (n, m), half the slope of the losses' sum, and this sum.

        Parameters
        ----------
        columns : Tensor of shape (n, p)
            Weighted columns.
        coef : Tensor of shape (p, m)
        y : Tensor of shape (n, m)
            Weighted targets.
        root : Tensor of shape (n, 1)
            Roots of the weights.
        """
        left = columns @ coef - y
        return left, float(left.square().sum())

    def linearised(
        self, basis: GradientBasis, theta: Tensor, coef: Tensor, y: Tensor, root: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """Weighted derivatives (n, p) of the rows by the coefficients, and what `residual` gives.

        A subclass may have rows that are not linear in the coefficients.
        """
        A = basis.matrix(theta) * root
        return A, *self.residual(A, coef, y, root)

    def confined(self, coef: Tensor) -> Tensor:
        """Coefficients after a step, moved to where they may be."""
        return coef

    def loss(self, fit: Any) -> float:
        """Mean loss of a solution for the coefficients."""
        return float(fit.residual.square().sum()) / self.count

    def batches(self) -> Iterator[tuple[GradientBasis, Tensor, Tensor]]:
        """Columns, square roots of weights and weighted targets of each minibatch."""
        problem = self.problem
        for index in minibatches(len(problem.y), self.batch_size, self.rng):
            where = index if isinstance(index, slice) else index.to(problem.y.device)
            yield self.basis.rows(where), problem.root[where], problem.y[where]


def descend(state: Descent, start: Iterate) -> Iterator[Iterate]:
    """Adam on all parameters; yields what each pass over the rows started from."""
    theta, coef = start.theta.clone(), start.coef.clone()
    adam = Adam([theta, coef], state.learning_rate)
    while True:
        before, total = Iterate(theta.clone(), coef.clone(), math.nan, start.ridge), 0.0
        for basis, root, y in state.batches():
            A, residual, part = state.linearised(basis, theta, coef, y, root)
            total += part
            scale = 2 / (state.problem.total * len(y) / len(state.problem.y))
            gradient = basis.gradient(theta, coef, scale / state.n_losses * residual * root)
            # An output's coefficients matter to its own loss alone.
            slope = scale * (A.T @ residual)
            if start.ridge:
                slope = slope + 2 * start.ridge * coef
            adam.step([gradient, slope])
            coef.copy_(state.confined(coef))
        # With minibatches the loss of each batch is the one before its step.
        before.loss = total / state.count
        yield before


def descend_hidden(
    state: Descent, start: Iterate, ridge: Ridge, relative: float
) -> Iterator[Iterate]:
    """Algorithm 1 of Cyr et al. (2020): least squares, then gradient steps of the hidden layers.

    Yields the parameters with their least-squares coefficients, which all rows determine.
    """
    theta = start.theta.clone()
    adam = Adam([theta], state.learning_rate)
    while True:
        fit = state.problem.solve(theta, ridge.value)  # Line 3 or 6
        loss = state.loss(fit)
        yield Iterate(theta.clone(), fit.coef, loss, ridge.value)
        if not math.isfinite(loss):
            return
        ridge.follow(math.sqrt(loss) / relative)
        for basis, root, y in state.batches():  # Line 5
            residual = fit.residual
            if len(y) < len(fit.A):
                _, residual, _ = state.linearised(basis, theta, fit.coef, y, root)
            scale = 2 / (state.count * len(y) / len(fit.A))
            gradient = basis.gradient(theta, fit.coef, scale * residual * root)
            adam.step([gradient])


@dataclass
class Progress:
    """Outcome of following a descent; `best` is the iterate of least loss."""

    best: Iterate | None = None
    curve: list[float] = field(default_factory=list)
    code: str = "max_iter"

    @property
    def reached(self) -> Iterate:
        """The iterate of least loss.

        Raises
        ------
        FloatingPointError
            If there is none: not even the first loss was finite.
        """
        if self.best is None:
            raise FloatingPointError("The first evaluation is not finite.")
        return self.best


def follow(
    iterates: Iterator[Iterate],
    *,
    max_iter: int,
    tol: float,
    size: float,
    progress: Progress,
    report: Report | None = None,
    loss_name: str = "mean square",
) -> None:
    """Run a descent until it is done, and keep the best in `progress`.

    Parameters
    ----------
    tol : float
        Root mean square residual, in units of `size`, that ends the descent; so does an
        improvement of the loss by a share less than `tol` over 100 passes.
    size : float
        Root mean square of the targets.
    progress : Progress
        Filled while the descent runs, so that an interrupt leaves it usable.
    loss_name : str, default="mean square"
        What these lines call the loss.
    """
    least = []
    for iterate in iterates:
        if not math.isfinite(iterate.loss):
            progress.code = "non_finite"
            return
        progress.curve.append(iterate.loss)
        if progress.best is None or iterate.loss < progress.best.loss:
            progress.best = iterate
        least.append(progress.best.loss)
        if report is not None:
            report(f"pass {len(least)}: {loss_name} {iterate.loss:.3e}")
        exact = math.sqrt(iterate.loss) <= tol * size
        flat = len(least) > PATIENCE and least[-1] >= (1 - tol) * least[-1 - PATIENCE]
        if exact or flat:
            progress.code = "converged"
            return
        if len(least) >= max_iter:
            return
