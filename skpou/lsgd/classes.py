"""Classification networks of a given size: descent of the hidden layers, a convex last layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import BestSoFar, Report, Rows, TrainingResult
from skpou.core.classes import LeftOutClasses, best_factors, left_out_logits
from skpou.core.optim import Iterate, RidgeSchedule, descend_hidden, levenberg_marquardt
from skpou.lsgd.class_model import NetworkClasses
from skpou.lsgd.class_problem import ClassDescent, ClassFit, ClassProblem, EvidentRidge
from skpou.lsgd.fit import NetworkOptions, NetworkTraining
from skpou.networks import NetworkBasis, NetworkColumns

CLASS_SOLVERS = ("varpro", "lsgd", "gd")
#: Steps between two choices of the ridges: evidence takes about the matrices of a step.
ROUND = 5
#: Decrease, relative to the value, that no step is tried for: Newton's method may leave as much.
NEGLIGIBLE = 1e-5
#: Decrease of twice the negative log evidence in a round that counts as progress: a smaller change
#: ends training, as do so many rounds that are worse, after which it may yet grow.
PROGRESS, PATIENCE = 1.0, 2
#: Rows that are left out to calibrate probabilities, and most parameters of first-order solvers
#: that take part: of more the matrices would cost more than the training.
LEFT_OUT_ROWS, MOST_PARAMETERS = 1000, 600


class ClassTraining(NetworkTraining):
    """One start of one classification network; the parameters are those of `NetworkTraining`."""

    loss_name = "cross entropy"
    problem: ClassProblem

    def __init__(
        self,
        rows: Rows,
        options: NetworkOptions,
        rng: np.random.Generator,
        report: Report | None = None,
    ):
        super().__init__(rows, options, rng, report)
        self.count, self.size = 2 * self.problem.total, 1.0
        self.left_out: LeftOutClasses | None = None

    def _problem(self) -> ClassProblem:
        columns = NetworkColumns(self.options.network, self.rows.X)
        return ClassProblem(columns, self.rows, self.options.alpha)

    # Solvers

    def _iterate(self, fit: Any, ridge: float) -> Iterate:
        return Iterate(fit.theta, fit.coef, fit.nll, ridge)

    def _descent(self) -> ClassDescent:
        options = self.options
        return ClassDescent(self.problem, options.learning_rate, options.batch_size, self.rng)

    def _first_ridge(self) -> float:
        return self.problem.alpha**2

    def _lsgd(self, theta: Tensor) -> None:
        nothing = theta.new_zeros((self.options.network.n_columns, self.rows.n_outputs))
        start = Iterate(theta, nothing, math.nan)
        ridge = EvidentRidge(self.problem)
        self._follow(descend_hidden(self._descent(), start, ridge, self.size))

    def _varpro(self, theta: Tensor) -> None:
        """Levenberg-Marquardt in rounds, both ridges by evidence after each; the best is kept."""
        options, problem, progress = self.options, self.problem, self.progress
        rounds: BestSoFar[tuple[ClassFit, tuple[float, float]]] = BestSoFar()
        worse, left = 0, options.max_iter
        while left > 0 and worse < PATIENCE:
            result = levenberg_marquardt(
                problem,
                theta,
                max_iter=min(ROUND, left),
                ridge=RidgeSchedule.fixed(1.0),
                tol=0.0,
                judge=lambda fit: fit.value,
                negligible=NEGLIGIBLE,
                watch=lambda fit, _: self._show(self._iterate(fit, problem.alpha**2)),
            )
            if result.code == "non_finite":
                progress.code = "non_finite"
                break
            used = problem.alpha, problem.spread
            fit = problem.adapt(result.state)
            theta, left = fit.theta, left - max(len(result.curve) - 1, 1)
            gain = math.inf if rounds.is_empty else rounds.score - fit.score
            if abs(gain) < PROGRESS:
                worse = PATIENCE
            else:
                worse = 0 if gain > 0 else worse + 1
            rounds.show((result.state, used), fit.score)
            if fit.nll <= options.tol:
                break
        if not rounds.is_empty:
            best, (problem.alpha, problem.spread) = rounds.best
            progress.best = self._iterate(best, problem.alpha**2)
            progress.code = "converged" if left > 0 else progress.code

    # The result

    def _reached(self, loss: float) -> str:
        return f"the mean cross entropy is {loss:.2e}"

    def _finish(self, best: Iterate) -> tuple[NetworkClasses, float, float]:
        """Calibrated probabilities, their cross entropy at left-out rows, and the ridge."""
        problem, pairs = self.problem, self.rows.pairs()
        basis = NetworkBasis(self.options.network, best.theta)
        logits = problem.offset + basis.matrix(pairs.X) @ best.coef
        some = torch.as_tensor(
            np.sort(self.rng.permutation(pairs.n_rows)[:LEFT_OUT_ROWS]), device=pairs.X.device
        )
        jacobian, ridge = self._parameters(best, NetworkColumns(self.options.network, pairs.X))
        left_out = left_out_logits(logits, pairs.y, pairs.weight, jacobian, ridge, some)
        known = problem.offset, pairs.y[some], pairs.weight[some]
        (factor,), score = best_factors([left_out], *known)
        calibrated = problem.offset + factor * torch.nan_to_num(left_out - problem.offset)
        self.left_out = LeftOutClasses(some, calibrated)
        return NetworkClasses(basis, factor * best.coef, problem.offset), score, problem.alpha

    def _result(self) -> TrainingResult:
        result = super()._result()
        return replace(result, left_out=self.left_out)

    def _parameters(self, best: Iterate, columns: NetworkColumns):
        """Jacobian of the logits by what was fitted, and the ridges of these parameters."""
        problem, (p, K) = self.problem, best.coef.shape
        k = columns.n_parameters
        deep = self.options.solver == "varpro" or K * p + k <= MOST_PARAMETERS
        least = torch.finfo(best.coef.dtype).eps * problem.total

        def jacobian(block: slice) -> Tensor:
            part = columns.rows(block)
            Phi = part.matrix(best.theta)
            J = Phi.new_zeros((len(Phi), K, K, p))
            J.diagonal(dim1=1, dim2=2).copy_(Phi[:, :, None])
            J = J.view(len(Phi), K, K * p)
            if not deep:
                return J
            return torch.cat([J, part.chain(best.theta, best.coef.T[None])], 2)

        strength = max(problem.strength**2, least)
        ridge = best.coef.new_full((K * p + k * deep,), strength)
        ridge[K * p :] = 1 / problem.spread
        return jacobian, ridge


def fit_network_classes(
    rows: Rows, options: NetworkOptions, rng: np.random.Generator, report: Report | None = None
) -> TrainingResult:
    """Train a classification network of a given size.

    Parameters
    ----------
    rows : Rows
        Distinct rows in the unit box, at least one; targets (n, K) are the shares of the classes.
    options : NetworkOptions
        Its solver is one of `CLASS_SOLVERS`; alpha is relative to the norm of the constant column.
    rng : numpy.random.Generator
        Source of the start, of the minibatches and of the rows that calibrate.

    Returns
    -------
    TrainingResult
        Its state is a `NetworkClasses`, its score the mean cross entropy of rows that were left
        out, its curve that of the rows themselves.
    """
    return ClassTraining(rows.to(torch.float64), options, rng, report).run()
