"""Networks of a given size whose parameters are held by ridges of largest evidence.

Steps that only lower the residual follow the noise of few rows, and on exact rows they end where
coefficients have exploded. A ridge on the coefficients and one on the parameters of the hidden
layers, each with the noise of the evidence (MacKay, "Bayesian interpolation", 1992), do neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core import Rows, TrainingResult
from skpou.core.linalg import free_rows
from skpou.core.optim import (
    ProjectedFit,
    ProjectedProblem,
    RidgeSchedule,
    levenberg_marquardt,
    spread_of,
)
from skpou.networks import Network, NetworkColumns

#: First variance of the noise in units of that of the targets: a network has yet to be found.
FIRST_NOISE = 1e-2
#: Steps between two choices of the ridges.
STEPS_A_ROUND = 10
#: Relative change of the noise that is none, and rounds in a row without one that end a climb: in
#: a curved valley one may be slow.
SETTLED, MOST_SETTLED = 0.02, 2
#: Decrease, relative to the value, below whose promise a round ends.
NEGLIGIBLE = 1e-6
#: Most multiplications of a step, some hundredths of a second on one core.
MOST_WORK = 1e8


def is_affordable(network: Network, rows: Rows) -> bool:
    """Whether the Jacobian of the hidden layers can be factored at every step."""
    k = network.n_parameters
    height = (rows.n_rows + network.n_columns) * rows.n_outputs + k
    return 0 < k and height * k**2 <= MOST_WORK


@dataclass
class Ridges:
    """What the evidence tells, at first guesses.

    Attributes
    ----------
    noise : float
        Variance of the noise.
    of_coef, of_theta : float
        Variance of the coefficients and of the parameters of the hidden layers.
    """

    noise: float
    of_coef: float
    of_theta: float

    def adapted(self, problem: ProjectedProblem, fit: ProjectedFit, within: float) -> Ridges:
        """Those of larger evidence at a fit, by the numbers of parameters that rows determine.

        `within` is the sum of squares of repeated rows about their means.
        """
        n_numbers = problem.total * fit.residual.shape[1]
        theta, coef = fit.theta, fit.coef
        squares = torch.linalg.svdvals(fit.A).square()
        of_coef = coef.shape[1] * float((squares / (squares + fit.strength**2)).sum())
        factor = fit.linearise(problem.jacobian(fit))[:-1, :-1]
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        spread = torch.linalg.solve_triangular(factor, eye, upper=True)
        of_theta = len(theta) - fit.prior**2 * float(spread.square().sum())
        left = float(fit.residual.square().sum()) + within
        tiny = torch.finfo(factor.dtype).tiny
        round_off = (torch.finfo(factor.dtype).eps * problem.rms) ** 2
        return Ridges(
            left / free_rows(n_numbers, of_coef + of_theta) + round_off,
            spread_of(coef, of_coef, tiny, math.inf),
            spread_of(theta, of_theta, tiny, math.inf),
        )


def climb(
    rows: Rows,
    network: Network,
    theta: Tensor,
    *,
    max_iter: int,
    tol: float,
    watch: Callable[[ProjectedFit, float], None],
) -> tuple[TrainingResult, float]:
    """Levenberg-Marquardt steps in rounds, all ridges by evidence after each.

    Parameters
    ----------
    theta : Tensor of shape (k,)
        Start.
    max_iter : int
        Most steps of all rounds.
    tol : float
        Relative rms residual at which to stop.
    watch : callable
        Called with the fit and its ridge at the start and after every step.

    Returns
    -------
    TrainingResult
        Its state is a `ProjectedFit`.
    float
        Variance of the noise.
    """
    columns = NetworkColumns(network, rows.X)
    problem = ProjectedProblem(columns, rows.y, rows.weight, relative=True)
    within = float(rows.within.sum())
    ridges = Ridges(FIRST_NOISE * problem.rms**2, 1.0, float(theta.square().mean()) or 1.0)
    problem.solve(theta, RidgeSchedule.least)  # This sets the unit of the ridge.
    curve: list[float] = []
    n_settled = 0
    while True:
        before, left = ridges.noise, max_iter - len(curve)
        ridge = max(ridges.noise / ridges.of_coef / float(problem.unit or 1.0), RidgeSchedule.least)
        problem.shrinkage = math.sqrt(ridges.of_coef / ridges.of_theta)
        result = levenberg_marquardt(
            problem,
            theta,
            max_iter=min(STEPS_A_ROUND, left),
            ridge=RidgeSchedule.fixed(ridge),
            tol=tol,
            judge=lambda fit: fit.value,
            watch=watch,
            negligible=NEGLIGIBLE,
        )
        curve += result.curve[1:]
        theta, result.chosen["ridge"] = result.state.theta, ridge
        if result.code == "non_finite" or len(curve) >= max_iter:
            break
        ridges = ridges.adapted(problem, result.state, within)
        exact = result.state.rms() <= tol * problem.rms
        settled = abs(math.log(ridges.noise / before)) < SETTLED
        n_settled = n_settled + 1 if settled else 0
        if exact or n_settled == MOST_SETTLED:
            result.code = "converged"
            break
    result.curve = curve
    return result, ridges.noise
