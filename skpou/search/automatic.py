"""One search over families of bases, each judged by the same calibrated errors.

Cheap families first: polynomials of low degree, then random sine features, splines with a knot at
every row, in tables sums of functions of few columns; grown units where these leave more than
noise behind, on a line also beside slow sines. Then further stages on what is left over, as long
as each of them halves it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skpou.core import (
    Report,
    Rows,
    TotalDegreePolynomials,
    TrainingInterrupted,
    TrainingResult,
    count_columns,
)
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models import FEWEST_OF_TABLE, LinearModel, Stage, finish
from skpou.search.additive import fit_additive_family
from skpou.search.candidates import Candidate
from skpou.search.choice import choose
from skpou.search.rough import fit_rough
from skpou.search.scores import (
    RIDGES,
    RidgePath,
    neighbour_correlation,
    probe_points,
    white_correlation,
)
from skpou.search.sines import MARGIN, MOST_DEGREE, SineSearch
from skpou.search.units import MOST_STEPS, UnitSearch
from skpou.search.verification import Verification
from skpou.sines import Spectrum

#: Calibrated errors relative to the rms of y below which nothing is left to find.
EXACT, SMOOTH = 1e-13, 1e-12
#: Columns of the polynomials as a share of the rows at most, and of distinct rows with repetitions.
MOST_SHARE, MOST_OF_REPLICATED = 0.3, 1.5
#: Rows up to which the neighbours' correlation misses a step, the error from which units are tried
#: all the same, and the factor by which they must then be better: they are a search among many.
FEW_ROWS, LARGE, DOUBT = 300, 0.1, 1.4
#: Degrees of freedom for each row from which units are tried on a line beside a model that leaves
#: nothing but noise: they may do with fewer.
LAVISH = 0.07
#: Families of LSGDRegressor, whose columns are units, and all of them.
FAMILIES = ("polynomials", "sine", "units")
ALL_FAMILIES = ("polynomials", "sine", "rough", "additive", "units", "background")
#: On fewer rows splines and further stages cannot tell a smooth curve from noise.
ENOUGH_ROWS = 20
#: Rows for each parameter of a unit beside a plane from which units are grown.
ROWS_A_PARAMETER = 2
#: Part of the residue's rms below which the errors of a further stage must fall.
HALF = 0.5
#: Part below which those of some rows must fall before all are tried.
SOME = 0.9
#: In several dimensions units are not grown where the calibrated error is below this.
SMALL = 1e-7
#: Units beside a background of slow sines: columns at most, units at most, and how much better
#: they must be, as the best of a search among many models.
BACKGROUND_COLUMNS, BACKGROUND_UNITS, BACKGROUND_HANDICAP = 200, 13, 5.0


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
        Families to search, of `ALL_FAMILIES`.
    most_stages : int
        Most stages: the first model counts as one.
    """

    alpha: float | None = None
    max_iter: int = MOST_STEPS
    tol: float = 1e-14
    families: tuple[str, ...] = FAMILIES
    most_stages: int = 2


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
        report: Report | None = None,
    ):
        self.rows = Rows(
            rows.X.double(), rows.y.double(), rows.weight.double(), rows.within.double()
        )
        self.options, self.report = options, report
        self.seed = int(rng.integers(2**31))
        self.candidates: list[Candidate] = []
        self.curve: list[float] = []
        self.looked_at: tuple[Candidate, Rows] | None = None
        # What further sines were tried on in vain, or have been taken for.
        self.last: Candidate | None = None
        self.exact = max(EXACT, options.tol)
        self.white = self.noise = False
        self.scales = (1.0,) * rows.n_features

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

    def refine(self, start: Candidate) -> TrainingResult:
        """Further stages after a given one; on Ctrl-C the best so far is inside the exception."""
        try:
            self.probes = probe_points(self.rows.X, np.random.default_rng([self.seed, 3]))
            self._add(start)
            self._judge_residual(start)
            best = self._staged(start)
        except KeyboardInterrupt:
            best = self.candidates[-1] if self.candidates else start
            raise TrainingInterrupted(self._result(best, "interrupted")) from None
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
            with self._trial("sine"):
                self._smooth(simple)
        rough = "rough" in options.families and rows.n_rows >= ENOUGH_ROWS
        if rough and self._least() > self.exact and options.alpha is None:
            with self._trial("rough"):
                self._rough()
        if "additive" in options.families and self._least() > SMALL and options.alpha is None:
            with self._trial("additive"):
                self._additive()
        with self._trial("units"):
            self._nonlinear()
        return self._staged(self._choice())

    @contextlib.contextmanager
    def _trial(self, family: str) -> Iterator[None]:
        """A family that fails numerically leaves the search; the others go on."""
        try:
            yield
        except NUMERICAL_FAILURES as error:
            if self.report is not None:
                self.report(f"{family}: left out, {error}")

    def _nonlinear(self) -> None:
        """Grown units, where something that is not noise is left for them."""
        rows, families = self.rows, self.options.families
        least = min(max(c.calibrated, c.leave_one_out) for c in self.candidates)
        small = max(SMOOTH, self.options.tol)
        if "rough" in families and rows.n_features > 1:
            small = max(SMALL, small)
        # Fewer rows than that one unit beside a plane could interpolate, noise or not.
        few = rows.n_rows < ROWS_A_PARAMETER * (2 * rows.n_features + 3)
        if "units" not in families or least <= small or few:
            return
        lavish = self.noise and self._is_lavish()
        if self.noise and not (lavish or self._doubtful(least)):
            return
        if self.noise and not lavish:
            self.white = False
            self._units(least, DOUBT)
            return
        # In a table the error that a search leaves at left-out rows is that of the best of many.
        units = self._units(least, DOUBT if self._is_table() and least > LARGE else 1.1)
        wanted = "background" in families and rows.n_features == 1
        if wanted and units.leave_one_out > SMOOTH and not self._whiteness(units)[0]:
            self._backgrounds(units)

    def _is_table(self) -> bool:
        """Whether the rows are too far apart to tell what is between them."""
        return self.rows.n_features >= FEWEST_OF_TABLE

    def _least(self) -> float:
        return min(c.leave_one_out for c in self.candidates)

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
        # Repetitions with other targets tell noise apart from a polynomial through all means.
        replicated = min(MOST_OF_REPLICATED * rows.n_rows, MOST_SHARE * rows.total_weight)
        most = max(MOST_SHARE * rows.n_rows, replicated if rows.within.any() else 0.0)
        best: tuple[float, int, TotalDegreePolynomials, RidgePath, float] | None = None
        for degree in range(MOST_DEGREE + 1 if d else 1):
            if degree and count_columns(d, degree) > most:
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
        search = SineSearch(rows, self.probes, seed, self.options.alpha, **options)
        candidate = search.run()
        self.scales = search.scales
        return candidate

    def _smooth(self, simple: Candidate) -> None:
        """Sine features, on their own residual once more where it is smooth."""
        sine = self._sine(self.rows, 0, rival=simple.evidence)
        if simple.evidence < sine.evidence + MARGIN and self.options.alpha is None:
            # The polynomial is the likelier and the simpler model.
            self._judge_residual(simple)
            # Sines of fewer degrees of freedom than the constant have been shrunk away.
            if self.noise or sine.calibrated > simple.calibrated or sine.dof < simple.dof:
                return
        self._add(sine)
        correlation = self._judge_residual(sine)
        few = sine.dof <= 0.5 * self.rows.n_rows
        enough = self.rows.n_rows >= ENOUGH_ROWS or "rough" not in self.options.families
        if self.white or correlation < 0.3 or not few or self.options.most_stages < 2 or not enough:
            return
        worth = SOME * self._rms(sine)
        more = self._sine(self._residual(sine), 5, rescale=False, worth=worth)
        both = self._stacked(sine, more)
        self.last = sine
        if (
            both.leave_one_out < 0.7 * sine.leave_one_out
            and both.calibrated < 0.7 * sine.calibrated
        ):
            self._add(both)
            self._judge_residual(both)

    def _rough(self) -> None:
        """Splines with a knot at every row, in coordinates scaled as the sines' are."""
        scales = self.rows.X.new_tensor(self.scales)
        target = min(c.calibrated for c in self.candidates)
        rough = fit_rough(self.rows, self.probes, scales, target, self.seed)
        if rough is not None:
            # Among models that leave noise alone the smoother one is as good.
            handicap = 1 + 3 / self.rows.n_rows if self.white else 1.0
            self._add(dataclasses.replace(rough, handicap=handicap))

    def _additive(self) -> None:
        """Sums of functions of few columns."""
        least = self._least()
        terms = fit_additive_family(self.rows, self.probes, np.random.default_rng([self.seed, 8]))
        if terms is not None and self._add(terms).leave_one_out < least:
            self._judge_residual(terms)

    def _is_lavish(self) -> bool:
        """Whether what leaves but noise lets in so much of it that units may let in less."""
        if self.rows.n_features > 1:
            return False
        best = min(self.candidates, key=lambda c: c.score(self.white))
        return best.dof > LAVISH * self.rows.n_rows

    def _doubtful(self, least: float) -> bool:
        """Whether few rows and a large error make it unsafe to call what is left over noise."""
        return self.noise and self.rows.n_rows <= FEW_ROWS and least > LARGE

    def _units(
        self, target: float, handicap: float = 1.1, *, rows: Rows | None = None, **options
    ) -> Candidate:
        search = UnitSearch(
            self.rows if rows is None else rows,
            self.probes,
            np.random.default_rng([self.seed, 4]),
            target=target,
            alpha=self.options.alpha,
            max_iter=self.options.max_iter,
            tell=lambda size, score: self._tell(f"{size} units", score, score),
            **options,
        )
        found = search.run()
        # Left-out errors know the steps of a fit, but not that it is the best of a search: it is
        # optimistic once more by as much as parameters make it (Akaike, 1969).
        n, dof = self.rows.n_rows, found.dof
        units = dataclasses.replace(found, handicap=max(handicap, (n + dof) / max(n - dof, 1.0)))
        return self._add(units) if rows is None else units

    def _backgrounds(self, units: Candidate) -> None:
        """Units beside sines up to a frequency, which is doubled while there is room."""
        n, best = self.rows.n_rows, units
        nyquist = math.pi * n / 2
        for bandwidth in (2.0**k for k in range(2, 9)):
            n_sines = int(2 * bandwidth / math.pi) + 4
            if 2 * n_sines > min(n / 3, BACKGROUND_COLUMNS) or bandwidth > nyquist:
                return
            spectrum = Spectrum("flat", bandwidth, (1.0,))
            candidate = self._units(
                min(c.calibrated for c in self.candidates),
                BACKGROUND_HANDICAP,
                background=spectrum.draw(n_sines, self.seed + 11, self.rows.X),
                most=BACKGROUND_UNITS,
            )
            if candidate.calibrated < 0.8 * best.calibrated:
                best = candidate
            if best.calibrated < SMOOTH:
                return

    def _staged(self, best: Candidate) -> Candidate:
        """Further stages on what is left over, as long as each of them halves it."""
        plain = "rough" not in self.options.families
        for stage in range(1, self.options.most_stages):
            scale = self._rms(best)
            exact = best.leave_one_out <= self.exact or scale <= 1e-15
            few = not plain and self.rows.n_rows < ENOUGH_ROWS
            # LSGDRegressor refines its units alone.
            other = plain and best.family != "units"
            if exact or few or best is self.last or self.noise or other:
                break
            try:
                more = self._sine(self._residual(best), 2 + 5 * stage, worth=SOME * scale)
            except NUMERICAL_FAILURES:
                break
            if max(more.leave_one_out, more.calibrated) >= HALF * scale:
                break
            best = self._add(self._stacked(best, more))
            self._judge_residual(best)
        return best

    # Judgement

    def _residual(self, candidate: Candidate) -> Rows:
        """Rows whose targets are what a candidate leaves over."""
        if self.looked_at is None or self.looked_at[0] is not candidate:
            rows = self.rows
            left_over = dataclasses.replace(rows, y=rows.y - candidate.mean(rows.X))
            self.looked_at = (candidate, left_over)
        return self.looked_at[1]

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
            bandwidths=first.bandwidths + second.bandwidths,
            calibrated=math.sqrt(second.calibrated**2 + first.gap_variance),
            dof=first.dof + second.dof,
            n_units=first.n_units + second.n_units,
            handicap=first.handicap,
        )

    def _whiteness(self, candidate: Candidate) -> tuple[bool, float]:
        """Whether a candidate leaves white noise, and the neighbours' correlation."""
        rows = self._residual(candidate)
        n = rows.n_rows
        correlation = neighbour_correlation(rows.X, rows.y)
        share = candidate.dof / n
        plausible = candidate.leave_one_out < 1.15 * self._rms(candidate) / max(1 - share, 0.1)
        white = share < 0.5 and abs(correlation) < white_correlation(n) and plausible
        return white, correlation

    def _judge_residual(self, candidate: Candidate) -> float:
        """Keep whether a candidate leaves white noise; returns the neighbours' correlation."""
        self.white, correlation = self._whiteness(candidate)
        self.noise = self.white and candidate.dof < 0.25 * self.rows.n_rows
        return correlation

    def _choice(self) -> Candidate:
        verification = Verification(self.rows, self._units_of, np.random.default_rng(self.seed))
        # Rows of a table are draws like those to come: being left out is all the test there is.
        plain = self.white or self._is_table()
        return choose(self.candidates, self.rows, self.probes, plain, verification)

    def _units_of(self, rows: Rows, most: int) -> Candidate:
        """Units for other rows, searched for as for all."""
        return UnitSearch(
            rows,
            self.probes,
            np.random.default_rng([self.seed, 4]),
            alpha=self.options.alpha,
            max_iter=self.options.max_iter,
            most=most,
        ).run()

    def _result(self, best: Candidate, code: str) -> TrainingResult:
        rows = self.rows
        residual = self._residual(best).y
        left = max(rows.total_weight - best.dof, 0.1 * rows.total_weight)
        noise = (rows.weight @ residual.square() + rows.within.sum(0)) / left
        model: LinearModel = finish(best.stages, noise, rows.X, rows.weight)
        chosen = {
            "alpha": best.alpha,
            "hidden_layer_sizes": (best.n_units,),
            "scale_factors": best.bandwidths,
            "tried": [c.record(c is best) for c in self.candidates],
        }
        message = "The best model so far is kept." if code == "interrupted" else ""
        return TrainingResult(
            model, best.leave_one_out, max(len(self.curve), 1), self.curve, code, message, chosen
        )


def fit_automatic(
    rows: Rows,
    options: AutomaticOptions,
    rng: np.random.Generator,
    report: Report | None = None,
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
