"""The family of random sine features: one stage, and another where its residue is smooth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from skpou.core import SEEDS, Rows
from skpou.search.candidates import Candidate
from skpou.search.family import Seen, Task
from skpou.search.scores import MARGIN
from skpou.search.sines import SineSearch

#: Neighbours' correlation from which a residue is smooth enough for further sines, degrees of
#: freedom for each row up to which it is one of theirs, and the part to which these must bring
#: both errors: a stage doubles the columns.
SMOOTH, MOST_FOLLOWED, FOLLOWED_WORTH = 0.3, 0.5, 0.7
#: Part of the rms below which errors of some rows must fall before all are tried.
SOME = 0.9
#: Number that the seed of the family's second stage is apart from that of its first.
SECOND_TAG = 5


def search_sines(
    task: Task, rows: Rows, tag: int, **options: Any
) -> tuple[Candidate, tuple[float, ...]]:
    """Sines for the task's points, and the factors of the coordinates that they have found.

    Parameters
    ----------
    rows : Rows
        The task's, or what a candidate leaves over at them.
    tag : int
        Tells the draws of several searches apart.
    **options
        Of `SineSearch`.
    """
    search = SineSearch(rows, task.probes, (task.seed + tag) % SEEDS, task.alpha, **options)
    return search.run(), search.scales


class Sines:
    """Sine features, on their own residue once more where it is smooth.

    Always tried: they are what smooth targets need, their evidence tells whether a polynomial is
    enough, and what they leave over whether there is anything but noise.
    """

    name: ClassVar[str] = "sine"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Always; see `Family.worth_trying`."""
        return True

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """Search over spectra; see `Family.fit`."""
        simple = seen.candidates[-1]
        sine, scales = search_sines(task, task.rows, 0, rival=simple.evidence)
        seen = dataclasses.replace(seen, scales=scales)
        yield seen
        if simple.evidence < sine.evidence + MARGIN and task.alpha is None:
            # The polynomial is the likelier and the simpler model.
            seen = seen.judged_by(seen.residue_of(simple, task))
            yield seen
            # Sines of fewer degrees of freedom than the constant have been shrunk away.
            if seen.noise or sine.calibrated > simple.calibrated or sine.dof < simple.dof:
                return
        seen = seen.with_candidate(sine)
        yield seen
        seen = seen.judged_by(seen.residue_of(sine, task))
        yield seen
        if self._may_follow_itself(task, seen, sine):
            yield from self._followed(task, seen, sine)

    def _may_follow_itself(self, task: Task, seen: Seen, sine: Candidate) -> bool:
        n, stages = task.rows.n_rows, task.stages
        smooth = not seen.white and seen.residue_of(sine, task).correlation >= SMOOTH
        return (
            smooth and sine.dof <= MOST_FOLLOWED * n and stages.most > 1 and n >= stages.fewest_rows
        )

    def _followed(self, task: Task, seen: Seen, sine: Candidate) -> Iterator[Seen]:
        residue = seen.residue_of(sine, task)
        worth = max(SOME * residue.rms, FOLLOWED_WORTH * sine.leave_one_out)
        more, scales = search_sines(task, residue.rows, SECOND_TAG, rescale=False, worth=worth)
        both = sine.followed_by(more)
        seen = dataclasses.replace(seen, scales=scales, exhausted=sine)
        yield seen
        if (
            both.leave_one_out < FOLLOWED_WORTH * sine.leave_one_out
            and both.calibrated < FOLLOWED_WORTH * sine.calibrated
        ):
            seen = seen.with_candidate(both)
            yield seen
            yield seen.judged_by(seen.residue_of(both, task))
