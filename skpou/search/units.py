"""The family of grown units: placed one by one by matching pursuit, all polished after each.

A few units where they are needed, moved by variable projection, do better than hundreds at
random places. Growth starts from one unit: superfluous ones spoil the leverages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.models import Stage
from skpou.core.optim import (
    SMALL_RIDGE_SHARE,
    ProjectedFit,
    ProjectedProblem,
    RidgeSchedule,
    levenberg_marquardt,
)
from skpou.search.bases.units import KINDS, UnitBasis, UnitColumns, Units
from skpou.search.candidates import Candidate
from skpou.search.family import Seen, Task
from skpou.search.tangents import TangentScores

#: Rows that the dictionary is compared with, fewer where few units are looked for, and about the
#: number of its ridge units.
PURSUIT_ROWS, PURSUIT_ROWS_OF_FEW, DICTIONARY_SIZE = 1000, 500, 3000
#: Most units, and Levenberg-Marquardt steps after each addition.
MOST_UNITS, MOST_STEPS = 48, 250
#: Stream of the task's seed that dictionaries are drawn from.
UNIT_STREAM = 4
#: Errors relative to the rms of y below which nothing is left for units: their search ends in
#: round-off.
SMOOTH = 1e-12
#: Error in several dimensions from which on units are tried up to a number alone: a network that
#: small may have made the rows, and larger ones add but digits for most of a search's time.
DIGITS, FEW_UNITS = 1e-9, 4
#: Rows for each parameter of a unit beside a plane from which units are grown: with fewer they
#: could interpolate, noise or not.
ROWS_A_PARAMETER = 2
#: Factor by which units must be better, as the best of a search among many models.
HANDICAP = 1.1
#: Rows up to which the neighbours' correlation misses a step, the error from which units are tried
#: all the same, and the factor by which they must then be better.
FEW_ROWS, LARGE, DOUBT = 300, 0.1, 1.4
#: Degrees of freedom for each row from which units on a line, and pieces, are tried beside a model
#: that leaves nothing but noise: they may do with fewer.
LAVISH = 0.07
#: Sizes in a row without a fifth less error that end the growth.
PATIENCE = 4
#: Sizes from which growth has no hope, and the factors by which its error must then exceed that of
#: the best other family.
HOPELESS = ((10, 30.0),)
#: Rows from which on sizes take seconds, and what is asked of them then.
MANY_ROWS, HOPELESS_OF_MANY = 500, ((4, 1e4), (6, 10.0), (10, 3.0))
#: The same where all that is left has been called noise: the step that this may have missed shows
#: with few units.
HOPELESS_IN_NOISE = ((4, 0.9),)
#: Rows from which some are looked at first, and the factor by which the units' error there must
#: exceed that of the best other family to say that all rows need no units. On a line, and where few
#: units are looked for, it is the largest of hope. Steps after an addition to the units of some
#: rows: with 250 the same was found in twelve problems.
PILOTED_ROWS, PILOT_FAR, PILOT_STEPS = 1000, 2.0, 60
#: Rows from which on more of them are looked at first, how many, and the factor then: units that
#: are no better there would take minutes of all rows.
MANY_PILOTED_ROWS, PILOT_ROWS_OF_MANY, PILOT_FAR_OF_MANY = 8000, 2000, 1.1
#: Directions of ridge units beside the axes: with the axes and octaves there are cuts for each.
N_DIRECTIONS = DICTIONARY_SIZE // 15
#: Steepest units, in units of the distance between rows, on a line and beyond; at least so many
#: octaves. What is added to logarithms keeps powers of two from being rounded down.
STEEPEST_ON_LINE, STEEPEST, FEWEST_OCTAVES, ABOVE = 8, 4, 3.0, 0.01
#: Places of cuts on a line, and of the centres of bumps on one and beyond.
CUTS, CENTRES_ON_LINE, CENTRES = 300, 150, 250
#: Octaves of a direction's cuts: so many of them share the dictionary.
CUTTING_OCTAVES = 6
#: Norm, relative to the largest, below which a unit is straight at the rows.
STRAIGHT = 1e-6
#: Rows for each parameter of a unit, its weights, bias and coefficient, that are too few to tell.
LEAST_ROWS_A_PARAMETER = 2.5
#: Error relative to the last best from which a larger size counts as no better, and the error of
#: round-off, at which growth ends.
NO_BETTER, EXACT = 0.8, 1e-14
#: Relative residual at which the polish ends: it goes on to round-off.
POLISHED = 1e-16
#: Part of a column that others leave over, below which it is their sum.
INDEPENDENT = 1e-8


@dataclass
class Dictionary:
    """Units to choose from.

    Attributes
    ----------
    columns : Tensor of shape (n, N)
        Their values at the pursuit's rows, weighted, without their affine parts, of norm 1.
    """

    units: Units
    columns: Tensor

    def of_kind(self, kind: int) -> Dictionary:
        """The units of one kind."""
        index = torch.nonzero(self.units.kinds == kind).squeeze(1)
        return Dictionary(self.units.select(index), self.columns[:, index])


def ridge_units(t: Tensor, n_rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Weights and biases of steps: slopes in octaves, cut between the projected rows.

    Parameters
    ----------
    t : Tensor of shape (n, d)
        Pursuit's rows in the box from -1 to 1.
    rng : numpy.random.Generator
        Directions beside the axes, and cuts.
    """
    d = t.shape[1]
    directions = np.eye(d)
    if d > 1:
        random = rng.standard_normal((N_DIRECTIONS, d))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        directions = np.vstack([directions, random])
    weights, biases = [], []
    finest = STEEPEST_ON_LINE * len(t) if d == 1 else STEEPEST * n_rows ** (1 / d)
    octaves = np.arange(int(max(FEWEST_OCTAVES, math.log2(finest)) + ABOVE) + 1)
    for direction in directions:
        projected = np.unique(t.cpu().numpy() @ direction)
        if len(projected) < 2:
            continue
        middles = (projected[1:] + projected[:-1]) / 2
        slopes = 2.0**octaves * 2 / (projected[-1] - projected[0])
        if d == 1:
            even = np.linspace(0, len(middles) - 1, min(len(middles), CUTS)).round().astype(int)
            cuts = np.tile(middles[np.unique(even)], len(slopes))
        else:
            each = max(1, DICTIONARY_SIZE // len(directions) // CUTTING_OCTAVES)
            cuts = middles[rng.integers(0, len(middles), each * len(slopes))]
        slope = np.repeat(slopes, len(cuts) // len(slopes))
        weights.append(slope[:, None] * direction)
        biases.append(-slope * cuts)
    if not weights:
        return t.new_zeros((0, d)), t.new_zeros(0)
    w, b = np.concatenate(weights), np.concatenate(biases)
    if len(b) > 2 * DICTIONARY_SIZE:
        index = np.sort(rng.choice(len(b), 2 * DICTIONARY_SIZE, replace=False))
        w, b = w[index], b[index]
    return torch.as_tensor(w, device="cpu").to(t), torch.as_tensor(b, device="cpu").to(t)


def radial_units(t: Tensor, n_rows: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Centres at some rows and logarithms of inverse widths in octaves."""
    n, d = t.shape
    if d == 1:
        index = np.unique(np.linspace(0, n - 1, min(n, CENTRES_ON_LINE)).round().astype(int))
    else:
        index = np.sort(rng.choice(n, min(n, CENTRES), replace=False))
    centres = t[torch.as_tensor(index, device=t.device)]
    octaves = np.arange(int(math.log2(2 * n_rows ** (1 / d)) + ABOVE) + 1)
    logs = torch.as_tensor(octaves * math.log(2.0), device="cpu").to(t)
    return centres.repeat_interleave(len(logs), 0), logs.repeat(len(centres))


def make_dictionary(rows: Rows, n_rows: int, rng: np.random.Generator) -> Dictionary:
    """Units of all kinds for the pursuit's rows, `n_rows` of which there are in all."""
    t = 2 * rows.X - 1
    parts = []
    for kinds, (weights, biases) in (
        ((0, 1), ridge_units(t, n_rows, rng)),
        ((2, 3), radial_units(t, n_rows, rng)),
    ):
        for kind in kinds:
            label = torch.full((len(biases),), kind, dtype=torch.int64, device=t.device)
            parts.append(Units(label, weights, biases))
    units = parts[0]
    for part in parts[1:]:
        units = units.join(part)
    root = rows.weight.sqrt()[:, None]
    affine = torch.linalg.qr(torch.cat([torch.ones_like(root), t], 1) * root).Q
    columns = units.values(t).mul_(root)
    columns -= affine @ (affine.T @ columns)
    norms = columns.norm(dim=0)
    kept = torch.nonzero(norms > STRAIGHT * norms.max()).squeeze(1)
    if len(kept) < len(norms):
        units, columns, norms = units.select(kept), columns[:, kept], norms[kept]
    return Dictionary(units, columns.div_(norms))


def pursue(dictionary: Dictionary, A: Tensor, y: Tensor, count: int) -> Units:
    """Orthogonal matching pursuit: the units that explain most of what A leaves over.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Weighted columns so far.
    y : Tensor of shape (n, m)
        Weighted targets.
    """
    Q = torch.linalg.qr(A).Q
    residual = y - Q @ (Q.T @ y)
    chosen = []
    for _ in range(count):
        best = int((dictionary.columns.T @ residual).square().sum(1).argmax())
        chosen.append(best)
        column = dictionary.columns[:, best]
        for _ in range(2):
            column = column - Q @ (Q.T @ column)
        norm = column.norm()
        if float(norm) > INDEPENDENT:
            column = column / norm
            Q = torch.cat([Q, column[:, None]], 1)
            residual = residual - column[:, None] * (column @ residual)
    return dictionary.units.select(torch.as_tensor(chosen, device=y.device))


class UnitSearch:
    """Growth of a basis of units.

    Parameters
    ----------
    probes : Tensor of shape (k, d)
        Points between the rows.
    target : float
        Calibrated error of the best other family: growth ends when it is far out of reach.
    max_iter : int
        Most Levenberg-Marquardt steps after an addition.
    hopeless : tuple of (int, float), default=None
        Sizes and factors of the target that end the growth; None: by the number of rows.
    patient : bool, default=True
        Whether steps that stall go on for smaller ridges, which tell digits: not where noise, or
        a factor, is asked for.
    tell : callable
        Takes the score after every addition.
    """

    def __init__(
        self,
        rows: Rows,
        probes: Tensor,
        rng: np.random.Generator,
        *,
        target: float = 0.0,
        alpha: float | None = None,
        max_iter: int = MOST_STEPS,
        most: int = MOST_UNITS,
        hopeless: tuple[tuple[int, float], ...] | None = None,
        patient: bool = True,
        tell: Callable[[int, float], None] = lambda size, score: None,
    ):
        self.rows, self.probes, self.target, self.alpha = rows, probes, target, alpha
        self.fit: ProjectedFit
        self.ridge: float
        self.max_iter, self.tell, self.patient = min(max_iter, MOST_STEPS), tell, patient
        n, d = rows.n_rows, rows.n_features
        self.hopeless = hopeless or (HOPELESS_OF_MANY if n > MANY_ROWS else HOPELESS)
        index, looked = np.arange(n), PURSUIT_ROWS if most > FEW_UNITS else PURSUIT_ROWS_OF_FEW
        if n > looked:
            index = np.sort(rng.choice(n, looked, replace=False))
        where = torch.as_tensor(index, device=rows.X.device)
        self.some = rows.subset(where)
        self.dictionary = make_dictionary(self.some, n, rng)
        self.most = max(1, min(most, int(n / (LEAST_ROWS_A_PARAMETER * (d + 2)))))

    def run(self) -> Candidate:
        """Grow until the scores get no better."""
        empty = torch.zeros(0, dtype=torch.int64, device=self.rows.X.device)
        units = self.dictionary.units.select(empty)
        best, flat, add = None, 0, 1
        while True:
            units = self._grown(units, add)
            candidate = self._judge(units)
            score = self._worst(candidate)
            self.tell(len(units), score)
            flat = 0 if best is None or score < NO_BETTER * self._worst(best) else flat + 1
            if best is None or score < self._worst(best):
                best = candidate
            add = max(1, len(units) // 2)
            exact = candidate.leave_one_out < EXACT
            hopeless = self._is_hopeless(best, len(units))
            if exact or hopeless or flat >= PATIENCE or len(units) + add > self.most:
                return best

    def _is_hopeless(self, best: Candidate, size: int) -> bool:
        """Whether the best so far is too far behind the best other family for its size."""
        return any(
            size >= least and self._worst(best) > factor * self.target > 0
            for least, factor in self.hopeless
        )

    def _grown(self, units: Units, count: int) -> Units:
        """More units, all polished. The first is the best of its kinds after the polish.

        Before it, a bump may look more like a unit of another kind.
        """
        if len(units):
            return self._polish(units.join(self._additions(units, count, self.dictionary)))
        tried = []
        for kind in range(len(KINDS)):
            part = self.dictionary.of_kind(kind)
            if len(part.units):
                first = self._polish(self._additions(units, count, part))
                tried.append((self.fit.rms(), kind, first, self.fit, self.ridge))
                if tried[-1][0] <= EXACT:
                    break
        _, _, first, self.fit, self.ridge = min(tried, key=lambda found: found[:2])
        return first

    def _worst(self, candidate: Candidate) -> float:
        return max(candidate.leave_one_out, candidate.calibrated)

    def _additions(self, units: Units, count: int, dictionary: Dictionary) -> Units:
        some = self.some
        root = some.weight.sqrt()[:, None]
        columns = UnitColumns(units.kinds, some.X).matrix(units.theta()) * root
        return pursue(dictionary, columns, some.y * root, count)

    def _problem(self, units: Units) -> ProjectedProblem:
        columns = UnitColumns(units.kinds, self.rows.X)
        return ProjectedProblem(columns, self.rows.y, self.rows.weight, relative=True)

    def _polish(self, units: Units) -> Units:
        """Variable projection of all units; keeps the fit and its ridge."""
        ridge = RidgeSchedule.of(self.alpha, SMALL_RIDGE_SHARE)
        if not self.patient and self.alpha is None:
            ridge.least_share = SMALL_RIDGE_SHARE
        problem = self._problem(units)
        result = levenberg_marquardt(
            problem,
            units.theta(),
            max_iter=self.max_iter,
            ridge=ridge,
            tol=POLISHED,
            judge=ProjectedFit.rms,
        )
        self.fit, self.ridge = result.state, result.chosen.get("ridge", ridge.value)
        return problem.basis.units(result.state.theta)  # type: ignore[attr-defined]

    def _judge(self, units: Units) -> Candidate:
        """Candidate of polished units, scored by all columns of the linear model."""
        rows, fit = self.rows, self.fit
        problem = self._problem(units)
        # One correction by the residual: the triangular solve alone loses the last digits.
        inner = torch.linalg.solve_triangular(
            fit.R.T, -(fit.A.T @ fit.residual + fit.strength**2 * fit.coef), upper=False
        )
        coef = fit.coef + torch.linalg.solve_triangular(fit.R, inner, upper=True)
        residual = fit.A @ coef - problem.y
        if not float(residual.square().sum()) <= float(fit.residual.square().sum()):
            coef, residual = fit.coef, fit.residual
        reach = coef[len(coef) - len(units) :].norm(dim=1)
        gaps = units.gaps(2 * rows.X - 1, reach, float((residual / problem.root).abs().max()))
        basis = UnitBasis(units, rows.n_features, reach, gaps=gaps)
        scores = TangentScores(basis.posterior_columns(rows.X), residual / problem.root, rows)
        calibrated = scores.calibrated(basis.posterior_columns(self.probes))
        return Candidate(
            GrownUnits.name,
            (Stage(basis, coef, scores.factor),),
            scores.leave_one_out(),
            calibrated,
            scores.dof,
            math.sqrt(self.ridge),
            n_units=len(units),
            handicap=HANDICAP,
        )


def search_units(task: Task, rows: Rows, **options: Any) -> UnitSearch:
    """The search for units on rows of a task; options are those of `UnitSearch`."""
    return UnitSearch(
        rows,
        task.probes,
        task.generator(UNIT_STREAM),
        alpha=task.alpha,
        max_iter=task.max_iter,
        **options,
    )


def grow_units(task: Task, target: float, handicap: float, **options: Any) -> Candidate:
    """Units for all rows of a task, whose sizes are told as they grow.

    Parameters
    ----------
    target : float
        Calibrated error of the best other family.
    handicap : float
        Factor by which they must be better, at least.
    **options
        Of `UnitSearch`.
    """

    def tell(size: int, score: float) -> None:
        task.progress.tell(f"{size} units", score, score)

    found = search_units(task, task.rows, target=target, tell=tell, **options).run()
    # Left-out errors know the steps of a fit, but not that it is the best of a search: it is
    # optimistic once more by as much as parameters make it (Akaike, 1969).
    n, dof = task.rows.n_rows, found.dof
    return replace(found, handicap=max(handicap, (n + dof) / max(n - dof, 1.0)))


def are_hopeless(task: Task, target: float, **options: Any) -> bool:
    """Whether units for some of many rows err so much that those for all need not be tried.

    The parameters are those of `grow_units`.
    """
    n = task.rows.n_rows
    if n < PILOTED_ROWS:
        return False
    many = n >= MANY_PILOTED_ROWS
    looked = PILOT_ROWS_OF_MANY if many else PURSUIT_ROWS_OF_FEW
    chosen = task.generator(UNIT_STREAM).choice(n, looked, replace=False)
    some = task.rows.subset(torch.as_tensor(np.sort(chosen), device=task.rows.X.device))
    options |= {"hopeless": HOPELESS_OF_MANY, "patient": False}
    quick = replace(task, max_iter=min(task.max_iter, PILOT_STEPS))
    found = search_units(quick, some, target=target, **options).run()
    alone = task.rows.n_features > 1 and "most" not in options
    far = PILOT_FAR_OF_MANY if many else PILOT_FAR
    most = far if alone else HOPELESS_OF_MANY[0][1]
    return max(found.leave_one_out, found.calibrated) > most * target


@dataclass(frozen=True)
class GrownUnits:
    """Grown units, where something that is not noise is left for them.

    They take most of a search's time: with an error that is as good as none, on fewer rows than
    one unit could interpolate, or beside noise they are not tried; but beside noise on a line
    where its model lets in so much of it that units may let in less, and on few rows with a large
    error, which may hide a step.

    Attributes
    ----------
    enough_in_space : float
        In several dimensions also not where the error is below this: what is left there are
        digits, and splines have been tried.
    """

    enough_in_space: float = 0.0

    name: ClassVar[str] = "units"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Where something is left for them; see `Family.worth_trying`."""
        n, d = task.rows.n_rows, task.rows.n_features
        enough = max(SMOOTH, task.tol, self.enough_in_space if d > 1 else 0.0)
        few = n < ROWS_A_PARAMETER * (2 * d + 3)
        if self._least(seen) <= enough or few:
            return False
        doubtful = n <= FEW_ROWS and self._least(seen) > LARGE
        return not seen.noise or self._is_lavish(task, seen) or doubtful

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """Grow; see `Family.fit`."""
        least = self._least(seen)
        # In a table the error that a search leaves at left-out rows is that of the best of many.
        handicap = DOUBT if task.is_table and least > LARGE else HANDICAP
        options: dict[str, Any] = {"patient": handicap == HANDICAP}
        if seen.noise:
            handicap = HANDICAP if self._is_lavish(task, seen) else DOUBT
            options["patient"] = False
            if handicap == DOUBT:
                options["hopeless"] = HOPELESS_IN_NOISE
                seen = replace(seen, white=False)
                yield seen
        if task.rows.n_features > 1 and least <= DIGITS:
            options["most"] = FEW_UNITS
        if not are_hopeless(task, least, **options):
            yield seen.with_candidate(grow_units(task, least, handicap, **options))

    @staticmethod
    def _least(seen: Seen) -> float:
        return min(max(c.calibrated, c.leave_one_out) for c in seen.candidates)

    @staticmethod
    def _is_lavish(task: Task, seen: Seen) -> bool:
        """Whether what leaves but noise lets in so much of it that units may let in less."""
        return task.rows.n_features == 1 and seen.best.dof > LAVISH * task.rows.n_rows
