"""Further stages: sines on what the best candidate leaves over."""

from __future__ import annotations

from collections.abc import Iterator

from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.search.candidates import Candidate
from skpou.search.family import Seen, Task
from skpou.search.sine_family import SMOOTH, SOME, search_sines

#: Part of the residue's rms below which the errors of a further stage must fall.
HALF = 0.5
#: Residue relative to the rms of y that is round-off of the targets: a few units in the last digit.
ROUND_OFF = 1e-15
#: Variance between the rows, over the mean square of what is left at them, from which on a stage,
#: which leaves that variance as it is, would take less than a hundredth off the squared error.
MOST_BETWEEN = 100.0
#: Distance between the streams of two stages: those in between are of the families before.
FIRST_TAG, TAGS_A_STAGE = 2, 5


def further_stages(task: Task, seen: Seen, best: Candidate) -> Iterator[Seen]:
    """Stages on what is left over, as long as each of them halves it.

    Parameters
    ----------
    best : Candidate
        The first stage, or the first ones.

    Yields
    ------
    Seen
        After every stage, the sum with it as its last candidate.
    """
    stages, few = task.stages, task.rows.n_rows < task.stages.fewest_rows
    for stage in range(1, stages.most):
        if few or seen.noise or best is seen.exhausted or not stages.may_follow(best):
            return
        residue = seen.residue_of(best, task)
        if best.leave_one_out <= task.exact or residue.rms <= ROUND_OFF:
            return
        # What is white, or changes its sign from row to row, is not known at any by the others.
        if residue.is_white or residue.correlation < SMOOTH:
            return
        if best.gap_variance > MOST_BETWEEN * residue.rms**2:
            return
        tag = FIRST_TAG + TAGS_A_STAGE * stage
        try:
            more, _ = search_sines(task, residue.rows, tag, worth=SOME * residue.rms)
        except NUMERICAL_FAILURES:
            return
        if max(more.leave_one_out, more.calibrated) >= HALF * residue.rms:
            return
        best = best.followed_by(more)
        seen = seen.with_candidate(best)
        yield seen
        seen = seen.judged_by(seen.residue_of(best, task))
        yield seen
