"""One search over families of bases, each judged by the same calibrated errors.

Polynomials of low degree first, then the families that were handed in, each where its own rule
finds it worth a try. Then further stages on what is left over, as long as each of them halves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from skpou.core import (
    SEEDS,
    Report,
    Rows,
    TrainingResult,
    drawn_and_others,
    drawn_points,
    handing_over,
    with_all_targets,
)
from skpou.core.linalg import NUMERICAL_FAILURES, alone
from skpou.core.models import model_of_stages
from skpou.search.candidates import Candidate
from skpou.search.choice import choose
from skpou.search.family import Family, Progress, Seen, Stages, Task
from skpou.search.many_rows import MANY_ROWS, SEARCHED, fit_to_blocks
from skpou.search.polynomials import Polynomials
from skpou.search.residues import LEAST_LEFT
from skpou.search.sine_family import Sines
from skpou.search.stages import further_stages
from skpou.search.units import MOST_STEPS, GrownUnits, search_units
from skpou.search.verification import Verification

#: Rows beyond one a column that anything but a polynomial needs.
SPARE_ROWS = 4


#: What a network of units is searched for with, and what is refined: its units alone.
FAMILIES: tuple[Family, ...] = (Sines(), GrownUnits())
UNITS_ALONE = Stages(behind=(GrownUnits.name,))


@dataclass(frozen=True)
class AutomaticOptions:
    """What the search is told.

    Attributes
    ----------
    alpha : float or None
        Ridge relative to the largest column norm; None: chosen.
    max_iter : int
        Most Levenberg-Marquardt steps after each addition of units.
    tol : float
        Error relative to the rms of y that counts as none.
    families : tuple of Family
        What is tried after polynomials, in this order. The default are those whose columns are
        units of a network.
    stages : Stages
        What may follow the best of them; the default refines units alone.
    """

    alpha: float | None = None
    max_iter: int = MOST_STEPS
    tol: float = 1e-14
    families: tuple[Family, ...] = FAMILIES
    stages: Stages = UNITS_ALONE


def are_few(rows: Rows) -> bool:
    """Whether rows are too few for anything but a polynomial."""
    return not rows.n_features or rows.n_rows < rows.n_features + SPARE_ROWS


class AutomaticSearch:
    """The search on given rows."""

    def __init__(
        self,
        rows: Rows,
        options: AutomaticOptions,
        rng: np.random.Generator,
        report: Report | None = None,
    ):
        rows = Rows(rows.X.double(), rows.y.double(), rows.weight.double(), rows.within.double())
        seed = int(rng.integers(SEEDS))
        self.task = Task(
            rows,
            seed,
            options.alpha,
            options.max_iter,
            options.tol,
            options.stages,
            Progress(report),
        )
        self.families = options.families
        self.seen = Seen()

    def run(self) -> TrainingResult:
        """Search; on Ctrl-C the best so far is inside the exception."""
        return self._ended(self._search, lambda: self.seen.best)

    def refine(self, start: Candidate) -> TrainingResult:
        """Further stages after a given one; on Ctrl-C the best so far is inside the exception."""
        self.seen = self.seen.with_candidate(start)

        def search() -> Candidate:
            self._tell(start)
            self.seen = self.seen.judged_by(self.seen.residue_of(start, self.task))
            return self._staged(start)

        return self._ended(search, lambda: self.seen.candidates[-1])

    def _ended(
        self, search: Callable[[], Candidate], so_far: Callable[[], Candidate]
    ) -> TrainingResult:
        def interrupted() -> TrainingResult | None:
            return self._result(so_far(), "interrupted") if self.seen.candidates else None

        with handing_over(interrupted):
            return self._result(search(), "converged")

    def _search(self) -> Candidate:
        task, rows = self.task, self.task.rows
        self._take(Polynomials().fit(task, self.seen))
        simple = self.seen.candidates[-1]
        if are_few(rows) or simple.leave_one_out <= task.exact:
            return simple
        for family in self.families:
            try:
                if family.worth_trying(task, self.seen):
                    self._take(family.fit(task, self.seen))
            except NUMERICAL_FAILURES as error:
                # It leaves the search; the others go on.
                task.progress.say(f"{family.name}: left out, {error}")
        return self._staged(self._choice())

    def _take(self, findings: Iterator[Seen]) -> None:
        """Keep what has been seen after every finding, and tell of new candidates."""
        for seen in findings:
            new = seen.candidates[len(self.seen.candidates) :]
            self.seen = seen
            for found in new:
                self._tell(found)

    def _tell(self, found: Candidate) -> None:
        what = f"{found.family}, {found.n_units} units"
        self.task.progress.tell(what, found.leave_one_out, found.calibrated)

    def _staged(self, best: Candidate) -> Candidate:
        before = len(self.seen.candidates)
        self._take(further_stages(self.task, self.seen, best))
        return [best, *self.seen.candidates[before:]][-1]

    def _choice(self) -> Candidate:
        task = self.task

        def units_of(rows: Rows, most: int) -> Candidate:
            """Units for other rows, searched for as for all."""
            return search_units(task, rows, most=most).run()

        verification = Verification(task.rows, units_of, np.random.default_rng(task.seed))
        # Rows of a table are draws like those to come: being left out is all the test there is.
        plain = self.seen.white or task.is_table
        return choose(self.seen.candidates, task.rows, task.probes, plain, verification)

    def _result(self, best: Candidate, code: str) -> TrainingResult:
        rows, curve = self.task.rows, self.task.progress.curve
        residual = self.seen.residue_of(best, self.task).rows.y
        left = max(rows.total_weight - best.dof, LEAST_LEFT * rows.total_weight)
        noise = (rows.weight @ residual.square() + rows.within.sum(0)) / left
        model = model_of_stages(best.stages, noise, rows.X, rows.weight)
        chosen = {
            "alpha": best.alpha,
            "hidden_layer_sizes": (best.n_units,),
            "scale_factors": best.bandwidths,
            "tried": [c.record(c is best) for c in self.seen.candidates],
        }
        message = "The best model so far is kept." if code == "interrupted" else ""
        return TrainingResult(
            model, best.leave_one_out, max(len(curve), 1), curve, code, message, chosen
        )


def fit_automatic(
    rows: Rows, options: AutomaticOptions, rng: np.random.Generator, report: Report | None = None
) -> TrainingResult:
    """Choose and fit a basis; of many rows some choose, and all fit.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units, at least one.

    Returns
    -------
    TrainingResult
        Its state is a `LinearModel`, its score a leave-one-out error over distinct rows.
    """
    if rows.n_rows <= MANY_ROWS:
        return AutomaticSearch(rows, options, rng, report).run()
    searched = drawn_points(rows, SEARCHED)
    found = AutomaticSearch(with_all_targets(rows, searched), options, rng, report).run()
    with alone():  # The rows are those of all processes.
        return fit_to_blocks(found, *drawn_and_others(rows.to(torch.float64), searched))
