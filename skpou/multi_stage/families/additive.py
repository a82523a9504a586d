"""The additive family: functions of one, two and three columns, for tables of several columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor

from skpou.additive import AdditiveOptions, fit_terms
from skpou.core import Rows
from skpou.core.linalg import lower_inverse, times_upper
from skpou.core.models import FEWEST_OF_TABLE, Stage
from skpou.search import Candidate, Seen, Task

#: Rows from which sums of functions of few columns of a table are worth a search: at least so many
#: a column, and at most.
FEWEST_ROWS, MOST_ROWS = 10, 10_000
#: Error relative to the rms of y below which a smooth basis is what the target needs, and terms
#: would only take longer.
ENOUGH = 1e-7
#: Stream of the task's seed: any number that no other family has.
STREAM = 8


class Additive:
    """Sums of functions of few columns.

    Tried in tables, for one target, where the others have left an error, and without a ridge that
    was given: the terms' strengths are found by evidence.
    """

    name: ClassVar[str] = "additive"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Where something is left for them; see `Family.worth_trying`."""
        return task.alpha is None and seen.least_left_out > ENOUGH

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """One fit of all terms; see `Family.fit`."""
        least = seen.least_left_out
        terms = fit_additive_family(task.rows, task.probes, task.generator(STREAM))
        if terms is not None:
            seen = seen.with_candidate(terms)
            yield seen
            if terms.leave_one_out < least:
                yield seen.judged_by(seen.residue_of(terms, task))


def fit_additive_family(rows: Rows, probes: Tensor, rng: np.random.Generator) -> Candidate | None:
    """Terms chosen by evidence, with their errors calibrated between the rows.

    Parameters
    ----------
    probes : Tensor of shape (k, d)
        Points between the rows.

    Returns
    -------
    Candidate or None
        None where there are few columns or several targets, or too few rows or too many.
    """
    n, d = rows.X.shape
    if d < FEWEST_OF_TABLE or rows.n_outputs > 1 or not FEWEST_ROWS * d <= n <= MOST_ROWS:
        return None
    basis, fit = fit_terms(rows, AdditiveOptions(remainder=False), rng)
    error = (rows.y[:, 0] - fit.fitted).square() * rows.weight
    free, within = 1 - fit.leverage, float(rows.within.sum())
    left_out = (float((error / free.square()).sum()) + within) / rows.total_weight
    spread = (float((error / free).sum()) + within) / rows.total_weight
    variance = times_upper(basis.matrix(probes), fit.root).square().sum(1)
    gap = spread * float(variance.mean()) / fit.noise
    # The root of the covariance is upper triangular, and so is its inverse.
    factor = math.sqrt(fit.noise) * lower_inverse(fit.root.T.contiguous()).T.contiguous()
    stage = Stage(basis, fit.coef[:, None], factor)
    return Candidate("additive", (stage,), math.sqrt(left_out), math.sqrt(spread + gap),
                     fit.total_dof, 0.0, gap_variance=gap, n_units=basis.n_columns)  # fmt: skip
