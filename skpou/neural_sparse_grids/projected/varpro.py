"""Levenberg-Marquardt through an encoder into a sparse grid, from coarse grids to fine ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Report, Rows
from skpou.core.optim import RidgeSchedule, levenberg_marquardt
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderDerivatives
from skpou.neural_sparse_grids.encoders.trained import Trained
from skpou.neural_sparse_grids.projected.classes import EncodedClasses, first_class_ridges
from skpou.neural_sparse_grids.projected.squares import EncodedProblem, first_ridges
from skpou.sparse_grids import SparseGrid

#: Levels of the first grid, for a random start and for one along the data's manifold.
FIRST_LEVEL, FIRST_LEVEL_OF_MANIFOLD = 2, 3
#: Steps between two choices of the ridges: evidence takes about the matrices of a step.
ROUND = 5
#: Decrease of the score for each row in a round that counts as progress: of many rows, and the
#: number of rows of which it is half.
PROGRESS, FEW_ROWS = 0.2, 200
#: Rows to which coarse grids are fitted: at least, and for each parameter of the encoder.
COARSE_ROWS, COARSE_ROWS_A_PARAMETER = 1500, 2
#: Ratio of all rows to these from which on the detour is tried: below, it saves less than it costs.
DETOUR = 1.5
#: Ratio of what two levels leave unexplained from which on the finer one sees no more, and of what
#: the first grid may leave to what the best leaves, where the coarse ones see nothing.
PLATEAU, ENOUGH = 0.8, 2.0
#: Rows up to which training begins with cautious ridges, and every level is trained until its
#: evidence no longer grows.
CAUTIOUS_ROWS = 1000
#: Steps after which a climb must be ahead of a rival, in units of those that it took.
SLOWER = 2
#: Share of the rows that the parameters of an encoder may use up before a climb yields to a
#: cautious one.
MEMORISED = 0.5
#: Rounds without a better score after which training ends: one may only have changed the ridges.
PATIENCE = 2


@dataclass(frozen=True)
class VarproOptions:
    """How to climb from coarse grids to fine ones.

    Attributes
    ----------
    first_level, level : int
        First grid and last one.
    boundary : str
        See `SparseGrid`.
    tol : float
        Residual, relative to the targets' rms, that counts as none.
    cautious : bool
        Whether every level is trained until its evidence no longer grows.
    rival : Trained or None
        Another climb with the same rows: after twice as many steps as that took, one goes on only
        while its score is better. Cautious steps find noise soon, and are slow where there is none.
    yields : bool
        Whether to stop, "memorised", once the parameters use up half of the rows.
    """

    first_level: int
    level: int
    boundary: str
    max_iter: int
    tol: float
    cautious: bool = False
    rival: Trained | None = None
    yields: bool = False


class VarproTraining:
    """Second-order steps on grids of growing level, ridges chosen anew after every few.

    Coarse grids are fitted to some of the rows where there are many: they are only a way.

    Parameters
    ----------
    encoder : Encoder
        With a `NetworkBody`; changed in place.
    rows, held_out : Rows
        Those to fit to, and those that judge instead of the evidence; None: there are none.
    make : callable
        Makes the problem of an encoder, a grid and rows, with `adapt`, `loss`, `error`, `head_of`
        and `on_grid` besides what `levenberg_marquardt` needs.
    trained : Trained
        Filled on the way, so that an interrupt leaves it usable.
    """

    def __init__(
        self,
        encoder: Encoder,
        rows: Rows,
        held_out: Rows | None,
        make: Callable[[EncoderDerivatives, SparseGrid, Rows], Any],
        options: VarproOptions,
        trained: Trained,
        report: Report | None = None,
    ):
        self.encoder, self.rows, self.held_out, self.make = encoder, rows, held_out, make
        self.options, self.trained, self.report = options, trained, report
        self.problem: Any = None

    def run(self, rng: np.random.Generator) -> None:
        """Climb; `rng` picks the rows of coarse grids."""
        options, trained = self.options, self.trained
        first, last = self._first_level(rng), options.level
        enough = max(COARSE_ROWS, COARSE_ROWS_A_PARAMETER * self._theta().numel())
        if self.rows.n_rows > DETOUR * enough and first < last:
            order = rng.permutation(self.rows.n_rows)[:enough]
            some = self.rows.subset(torch.as_tensor(np.sort(order), device=self.rows.X.device))
            stopped = self._climb(some, range(first, last))
            if trained.code in ("non_finite", "exhausted"):
                return
            # Scores of some rows and of all are not to be compared.
            first = last = trained.level if stopped else last
            trained.score, trained.code = math.inf, "max_iter"
        self._climb(self.rows, range(first, last + 1), rest=True)

    def _first_level(self, rng: np.random.Generator) -> int:
        """Level of the first grid: the given one, unless it does not see what finer ones see.

        A target with many periods along the first embedding is noise to a coarse grid, which would
        not get the encoder anywhere.
        """
        options, rows = self.options, self.rows
        first = min(options.first_level, options.level)
        n = min(rows.n_rows, COARSE_ROWS)
        order = np.sort(rng.permutation(rows.n_rows)[:n])
        some = rows.subset(torch.as_tensor(order, device=rows.X.device))
        derivatives, unexplained = EncoderDerivatives(self.encoder, some.X), []
        for level in range(first, options.level + 1):
            grid = self._grid(level)
            if grid.n_columns > n:
                break
            problem = self.make(derivatives, grid, some)
            unexplained.append(problem.unexplained(self._theta()))
            if len(unexplained) == 2 and unexplained[1] <= PLATEAU * unexplained[0]:
                return first
        least = min(unexplained, default=0.0)
        if not unexplained or least > PLATEAU * unexplained[0]:
            return first
        return next(first + i for i, u in enumerate(unexplained) if u <= ENOUGH * least)

    def _theta(self) -> Tensor:
        return self.encoder.network_body.theta.detach()

    def _climb(self, rows: Rows, levels: range, rest: bool = False) -> bool:
        """A round on every level, then, with `rest`, until rest; whether it stopped early."""
        options, trained = self.options, self.trained
        derivatives = EncoderDerivatives(self.encoder, rows.X)
        now, worse, before = levels[0], 0, math.inf
        if options.yields and self._memorises(derivatives, self._grid(now), rows):
            trained.code = "memorised"
            return True
        while trained.n_iter < options.max_iter:
            fit = self._round(derivatives, self._grid(now), rows)
            if fit is None:
                return True
            score = fit.score
            if self.held_out is not None:
                score = self.problem.error(self.encoder, fit, self.held_out)
            if self.held_out is None:
                gain = (before - score) / rows.n_rows
            else:
                gain = 1 - score / before if before > 0 else 0.0
            least = PROGRESS * rows.n_rows / (rows.n_rows + FEW_ROWS)
            worse = 0 if score < trained.score and gain > least else worse + 1
            if score < trained.score:
                trained.keep(self.encoder, now, score, **self.problem.head_of(fit))
            before = min(score, before)
            if self.report is not None:
                size = f"loss {trained.curve[-1]:.3e}, score {score:.6g}"
                self.report(f"level {now}, step {trained.n_iter}: {size}, {fit}")
            if rows is self.rows and self._is_behind():
                trained.code = "converged"
                return True
            if options.yields and fit.determined > MEMORISED * rows.n_rows:
                trained.code = "memorised"
                return True
            at_last = now == levels[-1]
            exact = fit.rms() <= options.tol * self.problem.rms
            if (at_last and (exact or worse >= 1)) or worse >= PATIENCE:
                trained.code = "converged"
                return worse >= PATIENCE
            if at_last and not rest:
                return False
            settled = worse or not options.cautious
            now = min(now + 1, levels[-1]) if settled else now
        return True

    def _memorises(self, derivatives: EncoderDerivatives, grid: SparseGrid, rows: Rows) -> bool:
        """Whether the parameters use up half of the rows at the start: steps only use up more."""
        problem = self.make(derivatives, grid, rows)
        model = problem.linearise(problem.solve(self._theta().clone()))
        return model.is_finite() and model.determined()[0] > MEMORISED * rows.n_rows

    def _is_behind(self) -> bool:
        rival, trained = self.options.rival, self.trained
        if rival is None or trained.n_iter < SLOWER * rival.n_iter:
            return False
        return not trained.score < rival.score

    def _grid(self, level: int) -> SparseGrid:
        return SparseGrid(self.encoder.form.n_components, level, self.options.boundary)

    def _round(self, derivatives: EncoderDerivatives, grid: SparseGrid, rows: Rows) -> Any:
        """Some steps on one grid, then new ridges; None where nothing is finite."""
        trained = self.trained
        if self.problem is None:
            self.problem = self.make(derivatives, grid, rows)
        else:
            self.problem = self.problem.on_grid(derivatives, grid, rows)
        result = levenberg_marquardt(
            self.problem,
            self._theta().clone(),
            max_iter=min(ROUND, self.options.max_iter - trained.n_iter),
            ridge=RidgeSchedule.fixed(1.0),
            tol=0.0,
            judge=lambda fit: fit.value,
        )
        if result.code == "non_finite":
            trained.code = "non_finite"
            return None
        fit = self.problem.adapt(result.state)
        trained.n_iter += max(len(result.curve) - 1, 1)
        with torch.no_grad():
            self.encoder.network_body.theta.copy_(fit.theta)
        trained.curve.append(self.problem.loss(fit))
        return fit


def least_squares_problem(alpha: float | None, cautious: bool) -> Callable[..., EncodedProblem]:
    """What `VarproTraining` calls for a regression."""
    ridges = first_ridges(alpha, cautious)

    def make(encoded: EncoderDerivatives, grid: SparseGrid, rows: Rows) -> EncodedProblem:
        return EncodedProblem(encoded, grid, rows, ridges, alpha is not None)

    return make


def softmax_problem(alpha: float | None, cautious: bool) -> Callable[..., EncodedClasses]:
    """What `VarproTraining` calls for logistic regression."""

    def make(encoded: EncoderDerivatives, grid: SparseGrid, rows: Rows) -> EncodedClasses:
        return EncodedClasses(encoded, grid, rows, first_class_ridges(alpha), alpha is not None)

    return make
