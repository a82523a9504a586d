"""How many soft pieces: numbers are compared by pilots, and the best descend to their end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skpou.core import TrainingResult
from skpou.core.optim import ProjectedProblem, RidgeSchedule
from skpou.partitions.blends.blends import (
    FIRST_LOOK,
    LEAST_TOL,
    STARTS,
    Blend,
    BlendOptions,
    BlendTrainer,
)
from skpou.partitions.pieces.merging import merge_order
from skpou.partitions.pieces.plan import cut_merges, group_numbers
from skpou.partitions.pieces.problem import PieceProblem

#: Relative error of a finished blend that counts as exact; that of a pilot which more steps, and
#: not more pieces, lower: it has the ridge of the start; and the factor that more pieces must gain.
EXACT, NEAR_EXACT, WORTH_MORE = 1e-12, 1e-7, 10**0.5
#: Starts that are tried where the descent has ended far above round-off, and how many of the best
#: are followed to the end.
RESTARTS, FOLLOWED = ((1.0,), *STARTS), 2
#: So many steps that a descent which the budget allows them ends by itself.
MANY_STEPS = 100
#: Numbers of pieces that are looked at before the most: none is more than twice the one before.
COUNTS = (1, 2, 4, 6, 8, 12)
#: Factor of the best error up to which fewer pieces are as good, and standard deviations of white
#: noise's correlation that it hardly exceeds.
ABOUT, DEVIATIONS = 3, 3


def fit_ladder(
    problem: PieceProblem,
    index: Tensor,
    labels: Tensor,
    options: BlendOptions,
    numbers: tuple[int, ...] | None = None,
) -> Blend:
    """Blend of the number of pieces that leave-one-out asks for.

    Pieces of the part are merged as the dendrogram says. On noise-free data the best
    leave-one-out error decides; where the residual is white, the smallest number within three
    times of it. Descents have many ends: one that is far from exact is repeated from other starts.

    Parameters
    ----------
    index : Tensor of shape (n_g,), int64
        Samples of the part.
    labels : Tensor of shape (n_g,), int64
        Their pieces, 0 .. K-1.
    numbers : tuple of int, default=None
        Numbers to compare; None: those that the rows can carry.
    """
    return _Ladder(problem, index, labels, options).climb(numbers)


Rung = tuple[TrainingResult, ProjectedProblem, list[Tensor]]


class _Ladder:
    """Numbers of pieces of one part, from one upwards; see `fit_ladder`."""

    def __init__(self, problem: PieceProblem, index: Tensor, labels: Tensor, options: BlendOptions):
        rows = problem.rows
        self.part = PieceProblem(rows.subset(index), problem.degree, space=problem.space)
        pieces = self.part.fit(labels)
        self.labels = labels
        self.options = options
        self.n_pieces = pieces.n_pieces
        self.merges = merge_order(self.part, pieces)
        self.trainer = BlendTrainer(problem, index, options)
        #: Whether pilots keep few rows: without noise to be averaged they are enough.
        self.few = not self.part.residuals_are_white(pieces)
        self.unknowns = problem.n_columns + options.form.basis(problem.d).n_columns

    def numbers(self) -> tuple[int, ...]:
        """Numbers of pieces that the rows can carry."""
        most = min(self.n_pieces, self.options.most_leaves)
        carried = max(self.part.n // (2 * self.unknowns), 1)
        return tuple(k for k in sorted({*COUNTS, most}) if k <= min(most, carried))

    def climb(self, numbers: tuple[int, ...] | None) -> Blend:
        """The best of the most promising numbers, from several starts if it is far from exact."""
        rungs: list[Rung] = []
        for k in numbers or self.numbers():
            if numbers is None and len(rungs) > 1 and not self._is_affordable(k):
                break
            rungs.append(self.rung(k))
            if numbers is None and _is_settled(rungs, self.part):
                break
        ended: list[tuple[Blend, ProjectedProblem]] = []
        for rung in _promising(rungs, self.part):
            ended.append((self.trainer.descend_to_end(*rung), rung[1]))
            if ended[-1][0].result.score <= EXACT * rung[1].rms:
                break
        best = self._followed(*min(ended, key=lambda one: one[0].result.score))
        finished = [best]
        far = best.result.score > self.options.restart_above * rungs[0][1].rms
        if far and best.n_leaves > 1 and not _is_white(best.result.state.residual, self.part):
            for k in self._restarted(rungs):
                others = sorted((self.rung(k, (start,)) for start in RESTARTS), key=_pilot_score)
                finished += [self.trainer.descend_to_end(*rung) for rung in others[:FOLLOWED]]
        return min(finished, key=lambda blend: blend.result.score)

    def _followed(self, blend: Blend, problem: ProjectedProblem) -> Blend:
        """The better of a descent that has used all its steps, and of one that goes on from it."""
        ended = blend.result.code != "max_iter" or blend.n_leaves == 1
        if not self.options.further or ended or _is_white(blend.result.state.residual, self.part):
            return blend
        further = self.trainer.go_on(blend, problem)
        return min(blend, further, key=lambda one: one.result.score)

    def _is_affordable(self, k: int) -> bool:
        """Whether the budget lets a pilot of k pieces descend for half of the steps of others.

        With fewer it was never seen to come near them.
        """
        rows = len(self.trainer.thinned(k * self.unknowns))
        cost = rows * (k * self.part.n_columns) ** 2
        return self.trainer.pilot_budget >= 0.5 * self.options.pilot_iter * cost

    def _restarted(self, rungs: list[Rung]) -> list[int]:
        """Most pieces that the budget lets descend for at least a hundred steps, if any."""
        budget = self.options.budget
        return [
            len(parents[-1])
            for _, projected, parents in rungs
            if self.trainer.steps(projected, budget, MANY_STEPS) == MANY_STEPS
        ][-1:]

    def rung(self, k: int, starts: tuple[tuple[float, ...], ...] = STARTS) -> Rung:
        """Pilot of k pieces, merged as the dendrogram says."""
        groups = cut_merges(self.merges, self.n_pieces, list(range(self.n_pieces)), k)
        table = torch.as_tensor(group_numbers(groups, self.n_pieces), device=self.labels.device)
        parents = [torch.zeros(len(groups), dtype=torch.int64, device=self.labels.device)]
        steps = FIRST_LOOK if k == 1 else self.options.pilot_iter
        pilot, projected = self.trainer.pilot(
            [table[self.labels]], parents, steps, starts, self.few
        )
        return pilot, projected, parents


def _is_settled(rungs: list[Rung], part: PieceProblem) -> bool:
    """Whether more pieces are not worth a trial: the last ones are exact, or have gained little.

    Little is enough where neighbouring residuals are uncorrelated, or are so small that descending
    further is what lowers them.
    """
    pilot, projected, _ = rungs[-1]
    if pilot.score < LEAST_TOL * projected.rms:
        return True
    before = min((rung[0].score for rung in rungs[:-1]), default=math.inf)
    if pilot.score < before / WORTH_MORE:
        return False
    near = min(before, pilot.score) < NEAR_EXACT * projected.rms
    return near or _pilot_is_white(rungs[-1], part)


def _pilot_score(rung: Rung) -> float:
    return rung[0].score


def _promising(rungs: list[Rung], part: PieceProblem) -> list[Rung]:
    """The first rung that white noise allows, or the best two by their pilots if they are close."""
    best = min(rung[0].score for rung in rungs)
    for rung in rungs:
        if rung[0].score <= ABOUT * best and _pilot_is_white(rung, part):
            return [rung]
    ranked = sorted(rungs, key=_pilot_score)
    return [rung for rung in ranked[:2] if rung[0].score <= ABOUT * best]


def _pilot_is_white(rung: Rung, part: PieceProblem) -> bool:
    """Whether a pilot leaves noise, its experts by all rows where it has kept few."""
    pilot, projected, _ = rung
    residual = pilot.state.residual
    if len(residual) < len(projected.y):
        ridge = pilot.chosen.get("ridge", RidgeSchedule.value)
        residual = projected.solve(pilot.state.theta, ridge).residual
    return _is_white(residual, part)


def _is_white(residual: Tensor, part: PieceProblem) -> bool:
    """Whether neighbouring residuals are uncorrelated, as noise is and model error is not."""
    if len(residual) != part.n or part.neighbours.shape[1] == 0:
        return False
    nearest = residual[part.neighbours[:, 0]]
    total = residual.square().sum()
    correlation = float((residual * nearest).sum() / total.clamp_min(torch.finfo(total.dtype).tiny))
    return abs(correlation) < DEVIATIONS / part.n**0.5
