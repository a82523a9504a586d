"""What the search and a family of bases know of each other.

A new family is one file: a class with a name, its rule and its fit. It is handed to the search by
whoever wants it tried; see `AutomaticOptions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from skpou.core import Report, Rows
from skpou.core.models import FEWEST_OF_TABLE
from skpou.search.candidates import Candidate
from skpou.search.residues import Residue
from skpou.search.scores import probe_points

#: Errors relative to the rms of y below which nothing is left to find.
EXACT = 1e-13
#: Stream of the task's seed that the probes are drawn from.
PROBE_STREAM = 3


@dataclass
class Progress:
    """The lines that were told, and their left-out errors.

    Attributes
    ----------
    report : callable or None
        Takes a line for every model that was tried.
    """

    report: Report | None = None
    curve: list[float] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Pass a line on, if anybody listens."""
        if self.report is not None:
            self.report(line)

    def tell(self, what: str, leave_one_out: float, calibrated: float) -> None:
        """Keep and pass on the scores of a model that was tried."""
        self.curve.append(leave_one_out)
        self.say(f"{what}: left out {leave_one_out:.2e}, calibrated {calibrated:.2e}")


@dataclass(frozen=True)
class Stages:
    """How many stages there may be, and behind what.

    Attributes
    ----------
    most : int
        Most stages: the first model counts as one.
    fewest_rows : int
        On fewer rows a further stage cannot tell a smooth curve from noise.
    behind : tuple of str or None
        Families behind which a stage may follow; None: all.
    """

    most: int = 2
    fewest_rows: int = 0
    behind: tuple[str, ...] | None = None

    def may_follow(self, best: Candidate) -> bool:
        """Whether a candidate of this family may have further stages."""
        return self.behind is None or best.family in self.behind


@dataclass(frozen=True)
class Task:
    """What is to be fitted, and how far to go.

    Attributes
    ----------
    rows : Rows
        Distinct rows in scaled units, in float64.
    alpha : float or None
        Ridge relative to the largest column norm; None: chosen.
    max_iter : int
        Most Levenberg-Marquardt steps after each addition of units.
    tol : float
        Error relative to the rms of y that counts as none.
    """

    rows: Rows
    seed: int
    alpha: float | None
    max_iter: int
    tol: float
    stages: Stages
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def probes(self) -> Tensor:
        """Points (k, d) between the rows."""
        return probe_points(self.rows.X, self.generator(PROBE_STREAM))

    @property
    def exact(self) -> float:
        """Error below which nothing is left to find."""
        return max(EXACT, self.tol)

    @property
    def is_table(self) -> bool:
        """Whether the rows are too far apart to tell what is between them."""
        return self.rows.n_features >= FEWEST_OF_TABLE

    def generator(self, stream: int) -> np.random.Generator:
        """Draws of one of the task's purposes."""
        return np.random.default_rng([self.seed, stream])


@dataclass(frozen=True)
class Seen:
    """What the families before have found: a value, of which every finding makes another one.

    Attributes
    ----------
    candidates : tuple of Candidate
        All, in the order in which they were found.
    white : bool
        Whether the candidate that was judged last leaves white noise.
    noise : bool
        Whether it does so with few degrees of freedom: then there is nothing left to find.
    residue : Residue or None
        What the candidate that was judged last leaves over.
    scales : tuple of float
        Factors of the coordinates in which the target is about isotropic; empty: all are 1.
    exhausted : Candidate or None
        What further sines were tried on in vain.
    """

    candidates: tuple[Candidate, ...] = ()
    white: bool = False
    noise: bool = False
    residue: Residue | None = None
    scales: tuple[float, ...] = ()
    exhausted: Candidate | None = None

    @property
    def least_left_out(self) -> float:
        """Least error at left-out rows."""
        return min(c.leave_one_out for c in self.candidates)

    @property
    def least_calibrated(self) -> float:
        """Least expected error between the rows."""
        return min(c.calibrated for c in self.candidates)

    @property
    def best(self) -> Candidate:
        """Candidate of least score."""
        return min(self.candidates, key=lambda c: c.score(self.white))

    def with_candidate(self, candidate: Candidate) -> Seen:
        """The same and one more."""
        return replace(self, candidates=(*self.candidates, candidate))

    def judged_by(self, residue: Residue) -> Seen:
        """The same with the verdict on what a candidate leaves over."""
        return replace(self, white=residue.is_white, noise=residue.is_noise, residue=residue)

    def residue_of(self, candidate: Candidate, task: Task) -> Residue:
        """What a candidate leaves over, evaluated unless it was judged last."""
        if self.residue is not None and self.residue.candidate is candidate:
            return self.residue
        return Residue.of(candidate, task.rows)


class Family(Protocol):
    """Bases of one kind.

    Attributes
    ----------
    name : str
        Under which its candidates are told.
    """

    name: ClassVar[str]

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Whether the family may find more than has been seen, for what it costs.

        Parameters
        ----------
        seen : Seen
            At least one candidate.
        """

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """Search, and yield what has been seen after every finding; perhaps nothing.

        What was yielded stays where the search is interrupted or fails numerically afterwards.
        """
