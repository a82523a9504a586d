"""Solutions of equations in random sine features: bandwidth by the held-out residual, stages.

Affine equations are solved in one least-squares pass for each bandwidth that is tried. Others
start with few features of small bandwidth, in which unknown constants are well determined, and
follow the solution to larger ones. Stages after the first solve for what is left over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from skpou.core import SEEDS, Basis, Report, Rows, TrainingResult, handing_over
from skpou.core.linalg import TINY
from skpou.core.models import Stage
from skpou.equations.collocation import CollocationSystem, Iterate, criterion
from skpou.equations.posterior import (
    doubted,
    fitted_model,
    judged,
    output_factors,
    rows_factor,
)
from skpou.equations.problem import Problem, Term
from skpou.equations.sentences import Sentence
from skpou.physics import Symmetry
from skpou.sines import Mirror, SineFeatures, Spectrum, SymmetricFeatures

#: Ridge relative to the largest column norm.
ALPHA = 1e-15
#: Most columns of a solve by dimension, and fewest.
MOST_COLUMNS, FEWEST_COLUMNS = (400, 1000, 1500), 8
#: Columns in one dimension: so many, and so many for each half wave that a bandwidth has room for.
#: A band-limited function needs one; the others are for the ends.
COLUMNS_AT_ENDS, COLUMNS_A_HALF_WAVE = 30, 1.5
#: Rows a column, at least.
ROWS_PER_COLUMN = 1.5
#: Largest weight, and inverse of the smallest, that balancing gives.
HEAVIEST = 1e3
#: Stages by default, and the factor by which a later one must lower the criterion.
MOST_STAGES, GAIN = 4, 0.5
#: Data residual relative to the data that may be noise, and factors of the equations tried then.
NOISE, BOOSTS = 1e-7, (10.0, 100.0, 1000.0, 1e4)
#: Heavier equations are kept where data and equations as a product fall by the first factor, or as
#: a root sum of squares by the second: less may be chance.
PRODUCT_GAIN, NEARER = 0.5, 0.9
#: Ridge beside noisy data, in units of their relative residual: coefficients that exceed the
#: solution by five digits are noise, and round-off of their columns shows in the error bars.
RIDGE_OF_NOISE = 1e-10


@dataclass(frozen=True)
class EquationOptions:
    """What the search is told.

    Attributes
    ----------
    alpha : float or None
        Ridge relative to the largest column norm; None: next to none.
    max_iter : int
        Most Gauss-Newton steps for a bandwidth.
    tol : float
        Criterion below which no further stage is tried.
    n_stages : int or None
        Most stages; None: as many as help, at most `MOST_STAGES`.
    """

    alpha: float | None = None
    max_iter: int = 60
    tol: float = 1e-14
    n_stages: int | None = 1


@dataclass
class Solution:
    """A stage with its criterion.

    Attributes
    ----------
    criterion : float
        Root of the sum of squares of held-out equation and data residuals, each in units of the
        rms row norm of its linearised rows. It ranks solutions; it is no error.
    n_columns: int
        Columns asked for.
    scales : tuple of float
        Factors of data and equations.
    rotation : Tensor of shape (d, d) or None
        Axes of the spectrum.
    """

    spectrum: Spectrum
    basis: Basis
    iterate: Iterate
    criterion: float
    n_columns: int = 0
    scales: tuple[float, ...] = ()
    rotation: Tensor | None = None


@dataclass
class Search:
    """The search on given data and equations.

    Attributes
    ----------
    report : callable, default=None
        Takes a line for every model that was tried.
    """

    rows: Rows
    problem: Problem
    options: EquationOptions
    rng: np.random.Generator
    symmetries: Sequence[Symmetry] = ()
    report: Report | None = None
    curve: list[float] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    found: Solution | None = None
    posed: tuple[Solution, CollocationSystem] | None = None
    boost: float = 1.0

    def __post_init__(self):
        self.seed = int(self.rng.integers(SEEDS))
        self.alpha = ALPHA if self.options.alpha is None else max(self.options.alpha, ALPHA)
        self.d = len(self.problem.scaling.columns)
        self.n_rows = self.rows.n_rows + sum(term.n_points for term in self.problem.terms)
        per_axis = max(term.n_points for term in self.problem.terms) ** (1 / max(self.d, 1))
        self.nyquist = math.pi * per_axis / 2
        most = MOST_COLUMNS[min(max(self.d, 1), len(MOST_COLUMNS)) - 1]
        self.most_columns = max(FEWEST_COLUMNS, min(most, int(self.n_rows / ROWS_PER_COLUMN)))
        self.unknowns = self.rows.X.new_tensor(
            [unknown.init for unknown in self.problem.unknowns.values()]
        )
        self.mirrors, self.periods = self._symmetries()

    @property
    def solution(self) -> Solution:
        """The solution so far.

        Raises
        ------
        LookupError
            If there is none yet.
        """
        if self.found is None:
            raise LookupError("No stage has been solved yet.")
        return self.found

    @solution.setter
    def solution(self, solution: Solution) -> None:
        self.found = solution

    def _symmetries(self) -> tuple[list[Mirror], dict[int, float]]:
        """Symmetries in units of the unit box."""
        scaling, mirrors, periods = self.problem.scaling, [], {}
        for symmetry in self.symmetries:
            column = self.problem.column(symmetry.coordinate)
            offset, width = float(scaling.offset[column]), float(scaling.width[column])
            if symmetry.period is not None:
                periods[column] = symmetry.period / width
            else:
                sign = -1 if symmetry.kind == "odd" else 1
                mirrors.append(Mirror(column, (symmetry.center - offset) / width, sign))
        return mirrors, periods

    # One stage

    def _basis(self, spectrum: Spectrum, n_columns: int, rotation: Tensor | None = None) -> Basis:
        both = 1 if self.mirrors and len(self.mirrors) == self.d else 2
        seed = self.seed + len(self.stages)
        base = spectrum.draw(max(n_columns // both, 1), seed, self.rows.X)
        if rotation is not None:
            base = SineFeatures(base.frequencies @ rotation.T, base.phases)
        if not (self.mirrors or self.periods):
            return base
        return SymmetricFeatures.draw(base, self.mirrors, self.periods)

    def _columns(self, bandwidth: float, most: int) -> int:
        """Columns that a bandwidth needs in one dimension; in several all there may be."""
        if self.d > 1:
            return most
        halved = 1 if self.mirrors else 2
        inner = COLUMNS_A_HALF_WAVE * bandwidth * 2 / math.pi
        return min(most, int(halved * (COLUMNS_AT_ENDS + inner)))

    def _system(self, basis: Basis, terms: Sequence[Term]) -> CollocationSystem:
        return CollocationSystem(basis, self.rows, terms, self.problem, self.stages)

    def _solve(
        self,
        spectrum: Spectrum,
        n_columns: int,
        terms: Sequence[Term],
        start: Solution | None = None,
        rotation: Tensor | None = None,
    ) -> Solution:
        """Solve for one spectrum; equations that are not affine from the values of a start."""
        basis = self._basis(spectrum, n_columns, rotation)
        system = self._system(basis, terms)
        iterate, scales = self._solved(system, start)
        return self._noted(spectrum, system, iterate, scales, n_columns, rotation)

    def _noted(
        self,
        spectrum: Spectrum,
        system: CollocationSystem,
        iterate: Iterate,
        scales: Sequence[float],
        n_columns: int,
        rotation: Tensor | None = None,
    ) -> Solution:
        """What was solved, with its criterion, which is told and noted."""
        judged = criterion(system, iterate, scales, self.boost)
        of_basis = (spectrum, system.basis, iterate, judged)
        solution = Solution(*of_basis, n_columns, tuple(scales), rotation)
        self._tell(solution)
        return solution

    def _solved(
        self, system: CollocationSystem, start: Solution | None
    ) -> tuple[Iterate, list[float]]:
        """Coefficients and unknowns, and the factors of the rows."""
        raise NotImplementedError

    def _tell(self, solution: Solution) -> None:
        self.curve.append(solution.criterion)
        if self.report is not None:
            spectrum = solution.spectrum
            scales = ", ".join(f"{s:.2g}" for s in spectrum.scales)
            self.report(
                f"stage {len(self.stages) + 1}: {solution.n_columns} columns, bandwidth "
                f"{spectrum.bandwidth:.1f} x ({scales}): criterion {solution.criterion:.2e}"
            )

    def _ladder(self) -> list[float]:
        largest = max(math.log2(self.nyquist / 2), 1.0)
        return [2.0 ** (k / 2) for k in range(1, math.floor(2 * largest) + 1)]

    def _refitted(self, best: Solution) -> Solution:
        return self._solve(best.spectrum, best.n_columns, self.problem.terms, best, best.rotation)

    def stage(self) -> Solution:
        """Solve for the first stage."""
        raise NotImplementedError

    def correction(self) -> Solution:
        """Solve for what the stages before leave over."""
        raise NotImplementedError

    def relative_residual(self, basis: Basis, iterate: Iterate) -> float:
        """See `CollocationSystem.relative_residual`, at fresh points."""
        system = self._system(basis, self.problem.fresh)
        return system.relative_residual(iterate.coef, iterate.unknowns)

    # Noise, the result

    def run(self) -> TrainingResult:
        """Search; on Ctrl-C the best so far is inside the exception."""

        def interrupted() -> TrainingResult | None:
            return None if self.found is None else self._result("interrupted")

        with handing_over(interrupted):
            self._run()
        return self._result("converged")

    def _run(self) -> None:
        self.solution = self.stage()
        self._raise_ridge()
        self._balance()
        self._raise_equations()
        n_stages = MOST_STAGES if self.options.n_stages is None else self.options.n_stages
        while len(self.stages) + 1 < n_stages and self.solution.criterion > self.options.tol:
            if not self._add_stage():
                break

    def _add_stage(self) -> bool:
        """Solve the linearised equations for what is left over; whether it was worth it.

        The judge is the residual of the equations themselves on fresh points, in the units of
        the stage before.
        """
        last, unknowns = self.solution, self.unknowns
        system, scales = self._final()
        before = criterion(system, last.iterate, scales, self.boost)
        R = rows_factor(system, last.iterate, scales, self.alpha)[0] / scales[0]
        stage = Stage(last.basis, last.iterate.coef, output_factors(R, system))
        n_stages = len(self.stages)
        try:
            self.stages.append(stage)
            self.unknowns = last.iterate.unknowns
            more = self.correction()
            after = criterion(self._system(more.basis, self.problem.terms), more.iterate, scales,
                              self.boost)  # fmt: skip
            if after < GAIN * before:
                self.solution = more
        finally:
            # Not worth it, or interrupted: the last stage is still the solution.
            if self.solution is last:
                del self.stages[n_stages:]
                self.unknowns = unknowns
        return self.solution is not last

    def _balance(self) -> None:
        """Weights by gamma = L_d / (L_e + L_d) of Wang and Lai (2024), and one more solve.

        The losses are mean squares in the equations' own units.
        """
        terms = self.problem.terms
        if all(term.rule != "balanced" for term in terms) or not len(self.rows.X):
            return
        system, _ = self._final()
        found = system.residuals(self.solution.iterate.coef, self.solution.iterate.unknowns)
        data, *others = (float(r.square().mean()) for r in found)
        weighted = []
        for term, loss in zip(terms, others, strict=True):
            if term.rule == "balanced" and not term.length and data > 0 and loss > 0:
                gamma = data / (loss + data)
                share = math.sqrt(gamma / max(1 - gamma, TINY))
                term = replace(term, weight=min(max(share, 1 / HEAVIEST), HEAVIEST))
            weighted.append(term)
        self.problem = replace(self.problem, terms=tuple(weighted))
        self.solution = self._refitted(self.solution)

    def _raise_ridge(self) -> None:
        """Another solve with the ridge that noise of the data asks for, unless one was given."""
        if self.options.alpha is not None or not len(self.rows.X):
            return
        noise = self._losses()[0]
        if noise > NOISE:
            self.alpha = max(self.alpha, RIDGE_OF_NOISE * noise)
            self.solution = self._refitted(self.solution)

    def _raise_equations(self) -> None:
        """Heavier equations where the data are noisy: they would share the noise otherwise.

        A weight is kept where the equations gain more than the data lose, or where both together
        are nearer to being true, each relative to its size.
        """
        if any(term.rule != "auto" for term in self.problem.terms) or not len(self.rows.X):
            return
        losses = self._losses()
        for boost in BOOSTS if max(losses[0], losses[2]) > NOISE else ():
            before = (self.solution, self.boost)
            self.boost = boost
            self.solution = self._refitted(self.solution)
            heavier = self._losses()
            gains = heavier[0] * heavier[1] < PRODUCT_GAIN * losses[0] * losses[1]
            distance = math.hypot(losses[0], losses[2])
            nearer = math.hypot(heavier[0], heavier[2]) < NEARER * distance
            if not (gains or nearer):
                self.solution, self.boost = before
                break
            losses = heavier

    def _losses(self) -> tuple[float, float, float]:
        """Root mean squares of data and equations, over the data's size and over row norms.

        The third is that of the equations on fresh points, over the size of their terms.
        """
        system, scales = self._final()
        found = system.residuals(self.solution.iterate.coef, self.solution.iterate.unknowns)
        # The data may be tiny beside the solution, as a boundary at 0 is.
        points = self.problem.terms[0].points
        solution = system.basis.matrix(points) @ self.solution.iterate.coef
        size = max(1.0, float(solution.square().mean()))
        data = float(found[0].square().sum()) / (system.total * system.n_outputs) / size
        equation = sum(
            float((s / self.boost * r).square().sum()) for s, r in zip(scales[1:], found[1:])
        )
        iterate = self.solution.iterate
        fresh = system.fresh.relative_residual(iterate.coef, iterate.unknowns)
        return math.sqrt(data), math.sqrt(equation), fresh

    def _final(self) -> tuple[CollocationSystem, list[float]]:
        """CollocationSystem and factors of the solution on all points."""
        if self.posed is None or self.posed[0] is not self.solution:
            self.posed = self.solution, self._system(self.solution.basis, self.problem.terms)
        return self.posed[1], list(self.solution.scales)

    def _result(self, code: str) -> TrainingResult:
        solution = self.solution
        system, scales = self._final()
        model, reported = fitted_model(system, solution.iterate, scales, self.alpha)
        chosen = {
            "alpha": self.alpha,
            "hidden_layer_sizes": (sum(s.basis.n_columns for s in model.stages),),
            "scale_factors": [largest_frequency(stage.basis) for stage in model.stages],
            **reported,
        }
        message = "The search was interrupted." if code == "interrupted" else ""
        if code == "converged":
            code, message, holds = judged(
                system, solution.iterate, code, message, reported, self.options.tol
            )
            if not holds:
                model = doubted(model, system.terms[0].points)
        n_open = int(reported["n_open"])
        if code == "converged" and n_open:
            code, message = "max_iter", Sentence.OPEN.format(n_open, "s" * (n_open > 1))
        return TrainingResult(
            model, solution.criterion, max(len(self.curve), 1), self.curve, code, message, chosen
        )


def largest_frequency(basis: Basis) -> float:
    """Largest angular frequency of sine features, for points from -1 to 1 in every column."""
    base = basis.base if isinstance(basis, SymmetricFeatures) else basis
    if not isinstance(base, SineFeatures):
        raise TypeError(f"{type(base).__name__} has no frequencies.")
    return float(base.frequencies.square().sum(1).max().sqrt())
