"""Networks in stages that solve equations: each corrects what the ones before leave over.

Source: Wang, Lai (2024), Algorithm 3 for equations; numbered as in W. Pan's lecture on it. Rows of
data and equations are divided by the sizes of their rows for the stage's own network. That is where
the magnitude of a stage comes from, which the papers estimate from the residual and its dominant
frequency, and it takes the place of the weight gamma by which they match rates.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows, TrainingResult, handing_over
from skpou.core.models import Stage
from skpou.core.optim import Iterate
from skpou.equations import CollocationSystem, Problem, criterion
from skpou.equations import Iterate as Solution
from skpou.lsgd import EquationNetworkTraining, NetworkOptions, with_doubts
from skpou.multi_stage.joint_descent import EquationDescent
from skpou.multi_stage.options import HAND_OVER, HAND_OVER_RIDGE, MultiStageOptions
from skpou.multi_stage.periodogram import dominant_frequency
from skpou.multi_stage.recipe import LEARNING_RATE, scaled_start, scattered, sees
from skpou.networks import Network
from skpou.physics import Unknown
from skpou.search import HALF


class EquationStages:
    """Stages of networks on data and equations.

    Parameters
    ----------
    rows : Rows
        Data in scaled units; there may be none.
    """

    def __init__(
        self,
        rows: Rows,
        problem: Problem,
        options: MultiStageOptions,
        rng: np.random.Generator,
        report: Report | None = None,
    ):
        self.rows, self.problem, self.options, self.rng, self.report = (
            rows, problem, options, rng, report,
        )  # fmt: skip
        self.result: TrainingResult | None = None
        self.training: EquationNetworkTraining | None = None
        self.solved: tuple[CollocationSystem, Solution, list[float]] | None = None
        self.scale_factors: list[float] = []
        self.curve: list[float] = []

    def run(self) -> TrainingResult:
        """Train; on Ctrl-C the stages so far are inside the exception."""
        with handing_over(self._interrupted):
            for index in range(self.options.most):
                if not self._add_stage(index):
                    break
        if self.result is None:
            raise ValueError(f"n_stages must be at least 1. Got {self.options.most}.")
        return self._finished(self.result)

    def _interrupted(self) -> TrainingResult | None:
        """The stages so far; before the first is done, its network as far as it has come."""
        result = self.result
        if result is None:
            if self.training is None or self.training.progress.best is None:
                return None
            self.training.progress.code = "interrupted"
            result, self.scale_factors = self.training.finished(), [1.0]
        message = "The best parameters so far are kept."
        return replace(self._finished(result), code="interrupted", message=message)

    def _finished(self, result: TrainingResult) -> TrainingResult:
        chosen = {
            **result.chosen,
            "scale_factors": tuple(self.scale_factors),
            "hidden_layer_sizes": self.options.given_network.hidden_layer_sizes,
        }
        curve = self.curve or result.curve
        found = replace(result, chosen=chosen, curve=curve, n_iter=max(len(curve), 1))
        return with_doubts(found, self.problem)

    def _add_stage(self, index: int) -> bool:
        """One more network; False where nothing is left, or less than half of it was gained."""
        network, factor = self._network()
        points = torch.cat([self.rows.X, *(term.points for term in self.problem.terms)])
        theta = scaled_start(network, factor, self.rng, points)
        training = self._training(network, theta)
        if not sees(*training.first_slopes()):
            theta = scattered(network, theta, self.rng)
            training = self._training(network, theta)
        if self.options.solver == "varpro":
            result = training.run()
        else:
            result = self._descend(training, theta, factor)
        self.curve += result.curve
        system, solution = training.solution(training.progress.reached)
        if self.solved is not None:
            before, last, scales = self.solved
            # The judge is the residual on fresh points, in the units of the stage before.
            if criterion(system, solution, scales) >= HALF * criterion(before, last, scales):
                return False
        self.solved = system, solution, training.scales
        self.result = result
        self.scale_factors.append(factor)
        return result.score > self.options.tol

    def _training(self, network: Network, theta: Tensor) -> EquationNetworkTraining:
        several = self.options.most > 1 and self.options.solver == "varpro"
        options = NetworkOptions(
            network,
            max_iter=self.options.max_iter,
            # Large coefficients leave round-off that no later stage can remove.
            alpha=HAND_OVER_RIDGE if several else None,
            tol=max(self.options.tol, HAND_OVER) if several else self.options.tol,
            quick=not several,
        )
        stages: tuple[Stage, ...] = ()
        problem = self.problem
        if self.solved is not None and self.result is not None:
            stages = self.result.state.stages
            found = self.solved[1].unknowns.tolist()
            unknowns = {
                name: Unknown(value, unknown.bounds)
                for (name, unknown), value in zip(problem.unknowns.items(), found, strict=True)
            }
            problem = replace(problem, unknowns=unknowns)
        self.training = EquationNetworkTraining(
            self.rows, problem, options, self.rng, self.report, stages, theta
        )
        return self.training

    def _descend(
        self, training: EquationNetworkTraining, theta: Tensor, factor: float
    ) -> TrainingResult:
        """Adam, then L-BFGS, on all parameters, the unknowns included."""
        descent = EquationDescent(training, theta, factor, self.report)
        progress = training.progress
        try:
            descent.adam(self.options.max_iter, LEARNING_RATE)
            descent.lbfgs(self.options.max_iter, self.options.tol)
            progress.code = "converged" if descent.best.finite else "non_finite"
        finally:
            progress.curve += descent.best.curve
            if math.isfinite(descent.least):
                inner = descent.inner(descent.best.coef)
                progress.best = Iterate(descent.best.theta, inner, descent.least)
        return training.finished()

    def _network(self) -> tuple[Network, float]:
        """Network of a stage and its scale factor: 2 pi times the residual's frequency."""
        network = self.options.given_network
        if self.solved is None:
            return network, 1.0
        factor = self.options.scale_factor
        if factor is None:
            system, solution, _ = self.solved
            found = system.residuals(solution.coef, solution.unknowns)[1:]
            factor = max(2 * math.pi * self._frequency(system, found), 1.0)
        return replace(network, first_activation="sin"), factor

    @staticmethod
    def _frequency(system: CollocationSystem, found: list[Tensor]) -> float:
        """Dominant frequency of the residual of the first equation that is no condition."""
        for term, residual in zip(system.terms, found, strict=True):
            if not term.is_condition:
                values = residual.reshape(term.n_points, -1)
                weight = values.new_ones(term.n_points)
                return float(dominant_frequency(term.points, values, weight).frequency.norm())
        return 0.0
