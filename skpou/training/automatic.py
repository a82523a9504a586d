"""One search over families of bases, each judged by the same calibrated errors.

Cheap families first: polynomials of low degree, then random sine features; grown units where
these leave more than noise behind; sine features once more on what is left over.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from skpou.bases.polynomials import TotalDegreePolynomials, count_columns
from skpou.training.candidates import Candidate
from skpou.training.greedy import MOST_STEPS, UnitSearch
from skpou.training.linear_model import LinearModel, Stage, finish
from skpou.training.records import TrainingInterrupted, TrainingResult
from skpou.training.rows import Rows
from skpou.training.selection import RIDGES, RidgePath, neighbour_correlation, probe_points
from skpou.training.sine import MARGIN, SineSearch

#: Calibrated errors relative to the rms of y below which nothing is left to find.
EXACT, SMOOTH = 1e-13, 1e-12
#: Largest degree of the polynomials, and their columns as a share of the rows.
MOST_DEGREE, MOST_SHARE = 3, 0.3
#: Rows up to which the neighbours' correlation misses a step, the error from which units are tried
#: all the same, and the factor by which they must then be better: they are a search among many.
FEW_ROWS, LARGE, DOUBT = 300, 0.1, 1.4
FAMILIES = ("polynomials", "sine", "units")


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
    families : tuple of str
        Families to search, of `FAMILIES`.
    """

    alpha: float | None = None
    max_iter: int = MOST_STEPS
    tol: float = 1e-14
    families: tuple[str, ...] = FAMILIES


class AutomaticSearch:
    """The search on given rows.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units.
    options : AutomaticOptions
    rng : numpy.random.Generator
    report : callable, default=None
        Takes a line for every model that was tried.
    """

    def __init__(
        self,
        rows: Rows,
        options: AutomaticOptions,
        rng: np.random.Generator,
        report: Callable[[str], None] | None = None,
    ):
        self.rows = Rows(
            rows.X.double(), rows.y.double(), rows.weight.double(), rows.within.double()
        )
        self.options, self.report = options, report
        self.seed = int(rng.integers(2**31))
        self.candidates: list[Candidate] = []
        self.curve: list[float] = []
        self.exact = max(EXACT, options.tol)
        self.white = self.noise = False

    def run(self) -> TrainingResult:
        """Search; on Ctrl-C the best so far is inside the exception."""
        try:
            best = self._search()
        except KeyboardInterrupt:
            if not self.candidates:
                raise TrainingInterrupted(None) from None
            chosen = min(self.candidates, key=lambda c: c.score(self.white))
            raise TrainingInterrupted(self._result(chosen, "interrupted")) from None
        return self._result(best, "converged")

    def _search(self) -> Candidate:
        rows, options = self.rows, self.options
        simple = self._polynomials()
        if not rows.n_features or rows.n_rows < rows.n_features + 4:
            return simple
        self.probes = probe_points(rows.X, np.random.default_rng([self.seed, 3]))
        if simple.leave_one_out <= self.exact:
            return simple
        if "sine" in options.families:
            self._smooth(simple)
        least = min(max(c.calibrated, c.leave_one_out) for c in self.candidates)
        if "units" in options.families and least > max(SMOOTH, options.tol) and not self.noise:
            self._units(least)
        elif "units" in options.families and self._doubtful(least):
            self.white = False
            self._units(least, DOUBT)
        best = self._choice()
        if best.family == "units" and best.leave_one_out > self.exact and not self.noise:
            best = self._refined(best)
        return best

    # Families

    def _add(self, candidate: Candidate) -> Candidate:
        self.candidates.append(candidate)
        self._tell(f"{candidate.family}, {candidate.n_units} units", candidate.leave_one_out,
                   candidate.calibrated)  # fmt: skip
        return candidate

    def _tell(self, what: str, leave_one_out: float, calibrated: float) -> None:
        self.curve.append(leave_one_out)
        if self.report is not None:
            self.report(f"{what}: left out {leave_one_out:.2e}, calibrated {calibrated:.2e}")

    def _polynomials(self) -> Candidate:
        """Polynomial of low degree with the largest evidence; the constant without columns."""
        rows, d = self.rows, self.rows.n_features
        best: tuple[float, int, TotalDegreePolynomials, RidgePath, float] | None = None
        for degree in range(MOST_DEGREE + 1 if d else 1):
            if degree and count_columns(d, degree) > MOST_SHARE * rows.n_rows:
                break
            basis = TotalDegreePolynomials(d, degree)
            path = RidgePath(basis.matrix(rows.X), rows)
            alpha, score = path.evidence()
            if not degree:
                # The targets' mean has been taken off: the constant is 0, but not by its prior.
                alpha = min(RIDGES)
            alpha = alpha if self.options.alpha is None else self.options.alpha
            # A higher degree must be worth it.
            if best is None or score < best[0] - MARGIN:
                best = (score, degree, basis, path, alpha)
        assert best is not None
        score, degree, basis, path, alpha = best
        stage = Stage(basis, path.coef(alpha), path.factor(alpha))
        spread = path.spread(alpha)
        # No probes: between the rows a polynomial varies no more than at them.
        gap = spread * path.dof(alpha) / rows.n_rows
        return self._add(
            Candidate(
                "polynomials",
                (stage,),
                path.leave_one_out(alpha),
                math.sqrt(spread + gap),
                path.dof(alpha),
                alpha,
                evidence=score,
                gap_variance=gap,
                n_units=basis.n_columns,
            )
        )

    def _sine(self, rows: Rows, tag: int, **options) -> Candidate:
        seed = (self.seed + tag) % 2**31
        return SineSearch(rows, self.probes, seed, self.options.alpha, **options).run()

    def _smooth(self, simple: Candidate) -> None:
        """Sine features, on their own residual once more where it is smooth."""
        sine = self._sine(self.rows, 0, rival=simple.evidence)
        if simple.evidence < sine.evidence + MARGIN and self.options.alpha is None:
            # The polynomial is the likelier and the simpler model.
            self._judge_residual(simple)
            if self.noise or sine.calibrated > simple.calibrated:
                return
        self._add(sine)
        correlation = self._judge_residual(sine)
        if self.white or correlation < 0.3 or sine.dof > 0.5 * self.rows.n_rows:
            return
        both = self._stacked(sine, self._sine(self._residual(sine), 5, rescale=False))
        if (
            both.leave_one_out < 0.7 * sine.leave_one_out
            and both.calibrated < 0.7 * sine.calibrated
        ):
            self._add(both)
            self._judge_residual(both)

    def _doubtful(self, least: float) -> bool:
        """Whether few rows and a large error make it unsafe to call what is left over noise."""
        return self.noise and self.rows.n_rows <= FEW_ROWS and least > LARGE

    def _units(self, target: float, handicap: float = 1.1) -> None:
        search = UnitSearch(
            self.rows,
            self.probes,
            np.random.default_rng([self.seed, 4]),
            target=target,
            alpha=self.options.alpha,
            max_iter=self.options.max_iter,
            tell=lambda size, score: self._tell(f"{size} units", score, score),
        )
        self._add(dataclasses.replace(search.run(), handicap=handicap))

    def _refined(self, best: Candidate) -> Candidate:
        """Sine features on what the units left over, where they halve it."""
        rows, scale = self._residual(best), self._rms(best)
        if scale <= 1e-15:
            return best
        more = self._sine(rows, 7)
        if max(more.leave_one_out, more.calibrated) >= 0.5 * scale:
            return best
        return self._add(self._stacked(best, more))

    # Judgement

    def _residual(self, candidate: Candidate) -> Rows:
        """Rows whose targets are what a candidate leaves over."""
        rows = self.rows
        return dataclasses.replace(rows, y=rows.y - candidate.mean(rows.X))

    def _rms(self, candidate: Candidate) -> float:
        rows = self._residual(candidate)
        square = rows.weight @ rows.y.square() + rows.within.sum(0)
        return math.sqrt(float(square.mean()) / rows.total_weight)

    def _stacked(self, first: Candidate, second: Candidate) -> Candidate:
        """Sum of a candidate and another one on its residual."""
        return dataclasses.replace(
            second,
            family=first.family,
            stages=first.stages + second.stages,
            calibrated=math.sqrt(second.calibrated**2 + first.gap_variance),
            dof=first.dof + second.dof,
            n_units=first.n_units + second.n_units,
            handicap=first.handicap,
        )

    def _judge_residual(self, candidate: Candidate) -> float:
        """Whether a candidate leaves white noise; returns the neighbours' correlation."""
        rows = self._residual(candidate)
        n = rows.n_rows
        correlation = neighbour_correlation(rows.X, rows.y)
        share = candidate.dof / n
        plausible = candidate.leave_one_out < 1.15 * self._rms(candidate) / max(1 - share, 0.1)
        self.white = share < 0.5 and abs(correlation) < 3 / math.sqrt(n) and plausible
        self.noise = self.white and share < 0.25
        return correlation

    def _choice(self) -> Candidate:
        """Candidate of least score that does not overshoot between the rows."""
        y = self.rows.y
        low, high = y.amin(0), y.amax(0)
        room = 0.5 * (high - low)
        kept = []
        for candidate in self.candidates:
            values = candidate.mean(self.probes)
            excess = torch.maximum(values - high, low - values)
            if bool((excess <= room).all()):
                kept.append(candidate)
        return min(kept or self.candidates, key=lambda c: c.score(self.white))

    def _result(self, best: Candidate, code: str) -> TrainingResult:
        rows = self.rows
        residual = self._residual(best).y
        left = max(rows.total_weight - best.dof, 0.1 * rows.total_weight)
        noise = (rows.weight @ residual.square() + rows.within.sum(0)) / left
        model: LinearModel = finish(best.stages, noise, rows.X, rows.weight)
        chosen = {"alpha": best.alpha, "hidden_layer_sizes": (best.n_units,)}
        message = "The search was interrupted." if code == "interrupted" else ""
        return TrainingResult(
            model, best.leave_one_out, max(len(self.curve), 1), self.curve, code, message, chosen
        )


def fit_automatic(
    rows: Rows,
    options: AutomaticOptions,
    rng: np.random.Generator,
    report: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Choose and fit a basis.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units, at least one.
    options : AutomaticOptions
    rng : numpy.random.Generator
        Of all draws.
    report : callable, default=None
        Takes a line for every model that was tried.

    Returns
    -------
    TrainingResult
        Its state is a `LinearModel`, its score a leave-one-out error over distinct rows.

    Raises
    ------
    TrainingInterrupted
        On Ctrl-C, with the best result so far.
    """
    return AutomaticSearch(rows, options, rng, report).run()
