"""The family of polynomials of low degree, which every search begins with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from skpou.core import TotalDegreePolynomials, count_columns
from skpou.search.candidates import Candidate
from skpou.search.family import Seen, Task
from skpou.search.scores import MARGIN, RIDGES, RidgePath

#: Largest degree: beyond it sines do as well, and columns are many.
MOST_DEGREE = 3
#: Columns as a share of the rows at most, and of distinct rows with repetitions.
MOST_SHARE, MOST_OF_REPLICATED = 0.3, 1.5
#: Most columns of the largest degree: to decompose more of many rows takes longer than all that
#: other families do, which know sums of functions of three columns.
MOST_COLUMNS = 1000


@dataclass(frozen=True)
class _Fit:
    """The polynomial of one degree; `score` is minus twice the log evidence."""

    basis: TotalDegreePolynomials
    path: RidgePath
    alpha: float
    score: float

    @classmethod
    def of(cls, task: Task, degree: int) -> _Fit:
        basis = TotalDegreePolynomials(task.rows.n_features, degree)
        path = RidgePath(basis.matrix(task.rows.X), task.rows)
        alpha, score = path.evidence()
        if not degree:
            # The targets' mean has been taken off: the constant is 0, but not by its prior.
            alpha = min(RIDGES)
        return cls(basis, path, alpha if task.alpha is None else task.alpha, score)


class Polynomials:
    """Polynomial of low degree with the largest evidence; the constant without columns.

    Always tried: it costs nothing, and what is simplest is what others must be better than.
    """

    name: ClassVar[str] = "polynomials"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Always; see `Family.worth_trying`."""
        return True

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """Raise the degree while that is worth it; see `Family.fit`."""
        rows, d = task.rows, task.rows.n_features
        # Repetitions with other targets tell noise apart from a polynomial through all means.
        replicated = min(MOST_OF_REPLICATED * rows.n_rows, MOST_SHARE * rows.total_weight)
        most = max(MOST_SHARE * rows.n_rows, replicated if rows.within.any() else 0.0)
        best = _Fit.of(task, 0)
        for degree in range(1, MOST_DEGREE + 1 if d else 1):
            if degree == MOST_DEGREE:
                most = min(most, MOST_COLUMNS)
            if count_columns(d, degree) > most:
                break
            tried = _Fit.of(task, degree)
            if tried.score < best.score - MARGIN:
                best = tried
        yield seen.with_candidate(self._candidate(task, best))

    def _candidate(self, task: Task, best: _Fit) -> Candidate:
        basis, path, alpha = best.basis, best.path, best.alpha
        # No probes: between the rows a polynomial varies no more than at them.
        gap = path.spread(alpha) * path.dof(alpha) / task.rows.n_rows
        return Candidate.from_path(
            self.name, basis, path, alpha, gap, evidence=best.score, n_units=basis.n_columns
        )
