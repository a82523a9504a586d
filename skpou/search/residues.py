"""What a candidate leaves over at the rows, and whether that is noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from skpou.core import Rows
from skpou.search.candidates import Candidate
from skpou.search.scores import neighbour_correlation, white_correlation

#: Degrees of freedom for each row from which a residue is small whatever the target is, so that
#: its whiteness says nothing; and from which it cannot be called all of the noise.
MOST_WHITE, MOST_OF_NOISE = 0.5, 0.25
#: Factor by which the left-out error may exceed what the residue and the degrees of freedom make
#: plausible: more tells of leverages that differ widely. The part of the rows that is taken for
#: left at least keeps the bound finite.
PLAUSIBLE, LEAST_LEFT = 1.15, 0.1


@dataclass(frozen=True)
class Residue:
    """Rows whose targets are what a candidate leaves over.

    Attributes
    ----------
    rows : Rows
        Distinct rows in scaled units, the candidate's mean taken off.
    """

    candidate: Candidate
    rows: Rows

    @classmethod
    def of(cls, candidate: Candidate, rows: Rows) -> Residue:
        """That of a candidate on the rows of the task."""
        return cls(candidate, replace(rows, y=rows.y - candidate.mean(rows.X)))

    @cached_property
    def rms(self) -> float:
        """Root mean square, that of repetitions included."""
        rows = self.rows
        square = rows.weight @ rows.y.square() + rows.within.sum(0)
        return math.sqrt(float(square.mean()) / rows.total_weight)

    @cached_property
    def correlation(self) -> float:
        """That of neighbours; 0 is white."""
        return neighbour_correlation(self.rows.X, self.rows.y)

    @cached_property
    def is_white(self) -> bool:
        """Whether neither neighbours nor left-out rows tell it from white noise."""
        share = self.candidate.dof / self.rows.n_rows
        expected = self.rms / max(1 - share, LEAST_LEFT)
        return (
            share < MOST_WHITE
            and abs(self.correlation) < white_correlation(self.rows.n_rows)
            and self.candidate.leave_one_out < PLAUSIBLE * expected
        )

    @property
    def is_noise(self) -> bool:
        """Whether it is white, and few degrees of freedom have left all of it."""
        return self.is_white and self.candidate.dof < MOST_OF_NOISE * self.rows.n_rows
