"""Levenberg-Marquardt through an encoder into a sparse grid, from coarse grids to fine ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from skpou.bases.encoders import Encoder, EncoderDerivatives
from skpou.bases.sparse_grids import SparseGrid
from skpou.training.encoded_classes import EncodedClasses, first_class_ridges
from skpou.training.encoded_grids import EncodedProblem, first_ridges
from skpou.training.rows import Rows
from skpou.training.varpro import RidgeSchedule, levenberg_marquardt

#: Levels of the first grid, for a random start and for one along the data's manifold.
FIRST_LEVEL, FIRST_LEVEL_OF_MANIFOLD = 2, 3
#: Steps between two choices of the ridges.
ROUND = 5
#: Decrease of the score for each row in a round that counts as progress.
PROGRESS = 0.02
#: Rounds without a better score after which training ends.
PATIENCE = 2

Report = Callable[[str], None]


@dataclass
class Trained:
    """What a training has reached.

    Attributes
    ----------
    state : dict of Tensor
        Best parameters of the encoder, as its `state_dict`.
    level : int
        Level of the grid that goes with them.
    score : float
        What ranks states; lower is better.
    coef : Tensor or None
        Coefficients that were trained along, (G, m); None: they are to be solved for.
    determined : float
        Number of the encoder's parameters that the data determine.
    curve : list of float
        Loss after each iteration.
    n_iter : int
        Iterations.
    code : str
        As in `TrainingResult`.
    chosen : dict
        Ridges found on the way.
    """

    state: dict[str, Tensor] | None = None
    level: int = 1
    score: float = math.inf
    coef: Tensor | None = None
    determined: float = 0.0
    curve: list[float] = field(default_factory=list)
    n_iter: int = 0
    code: str = "max_iter"
    chosen: dict[str, Any] = field(default_factory=dict)

    def keep(self, encoder: Encoder, level: int, score: float, **others: Any) -> None:
        """Keep the encoder's parameters as the best so far."""
        self.state = {k: v.detach().clone() for k, v in encoder.state_dict().items()}
        self.level, self.score = level, score
        for name, value in others.items():
            setattr(self, name, value)


def train_by_varpro(
    encoder: Encoder,
    rows: Rows,
    held_out: Rows | None,
    problem_on: Callable[[EncoderDerivatives, SparseGrid], Any],
    *,
    level: int,
    boundary: str,
    first_level: int,
    max_iter: int,
    tol: float,
    trained: Trained,
    report: Report | None = None,
) -> None:
    """Second-order steps on grids of growing level, ridges chosen anew after every few.

    Parameters
    ----------
    encoder : Encoder
        With a `NetworkBody`; changed in place.
    rows, held_out : Rows
        Those to fit to, and those that judge instead of the evidence; None: there are none.
    problem_on : callable
        Makes the problem of a grid, with `adapt`, `score` and `on_grid` besides what
        `levenberg_marquardt` needs.
    level, boundary, first_level
        Last grid and first one.
    max_iter : int
        Most steps.
    tol : float
        Residual, relative to the targets' rms, that counts as none.
    trained : Trained
        Filled on the way, so that an interrupt leaves it usable.
    report : callable, default=None
        Takes a line for every round.
    """
    derivatives = EncoderDerivatives(encoder, rows.X)
    theta = encoder.body.theta.detach().clone()  # type: ignore[union-attr, operator]
    now = min(first_level, level)
    problem = problem_on(derivatives, SparseGrid(encoder.form.n_components, now, boundary))
    worse, last = 0, math.inf
    while trained.n_iter < max_iter:
        fixed = RidgeSchedule(1.0, share=1.0, least_share=1.0, least=1.0)
        steps = min(ROUND, max_iter - trained.n_iter)
        result = levenberg_marquardt(
            problem, theta, max_iter=steps, ridge=fixed, tol=0.0, judge=lambda fit: fit.value
        )
        if result.code == "non_finite":
            trained.code = "non_finite"
            return
        fit = problem.adapt(result.state)
        theta = fit.theta
        trained.n_iter += max(len(result.curve) - 1, 1)
        with torch.no_grad():
            encoder.body.theta.copy_(theta)  # type: ignore[union-attr, operator]
        loss = problem.loss(fit)
        trained.curve.append(loss)
        score = fit.score if held_out is None else problem.error(encoder, fit, held_out)
        if report is not None:
            report(f"level {now}, step {trained.n_iter}: loss {loss:.3e}, score {score:.6g}, {fit}")
        gain = (last - score) / rows.n_rows if held_out is None else 1 - score / last
        # The first round on a grid is not yet at rest; those before the last are only a way.
        worse = 0 if score < trained.score and gain > PROGRESS else worse + 1
        if score < trained.score:
            trained.keep(encoder, now, score, **problem.kept(fit))
        last = min(score, last)
        exact = fit.rms() <= tol * problem.rms
        if (now == level and (exact or worse >= 1)) or worse >= PATIENCE:
            trained.code = "converged"
            return
        if now < level:
            now += 1
            grid = SparseGrid(encoder.form.n_components, now, boundary)
            problem = problem.on_grid(grid)


def least_squares_problem(
    rows: Rows, alpha: float | None
) -> Callable[[EncoderDerivatives, SparseGrid], EncodedProblem]:
    """What `train_by_varpro` calls for a regression."""

    def problem_on(derivatives: EncoderDerivatives, grid: SparseGrid) -> EncodedProblem:
        return EncodedProblem(derivatives, grid, rows, first_ridges(alpha), alpha is not None)

    return problem_on


def softmax_problem(
    rows: Rows, alpha: float | None
) -> Callable[[EncoderDerivatives, SparseGrid], EncodedClasses]:
    """What `train_by_varpro` calls for logistic regression."""

    def problem_on(derivatives: EncoderDerivatives, grid: SparseGrid) -> EncodedClasses:
        ridges = first_class_ridges(alpha)
        return EncodedClasses(derivatives, grid, rows, ridges, alpha is not None)

    return problem_on
