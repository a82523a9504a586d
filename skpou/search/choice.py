"""The choice among candidates of all families."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.models import FEWEST_OF_TABLE
from skpou.search.candidates import Candidate
from skpou.search.levels import ErrorBetweenLevels
from skpou.search.units import GrownUnits
from skpou.search.verification import NOISY_ERROR, Verification

#: Part of y's range by which a candidate may leave it between the rows.
ROOM = 0.5


def choose(
    candidates: Sequence[Candidate],
    rows: Rows,
    probes: Tensor,
    plain: bool,
    verification: Verification,
) -> Candidate:
    """Candidate of least score that does not overshoot between the rows.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.
    probes : Tensor of shape (k, d)
        Points between the rows.
    plain : bool
        Whether errors at left-out rows decide alone; see `Candidate.score`.
    verification : Verification
        What units must stand where rows are few and noisy; else the best other candidate is taken.
    """
    least = min(candidate.leave_one_out for candidate in candidates)
    low, high = rows.y.amin(0), rows.y.amax(0)
    room = ROOM * (high - low)
    kept = []
    for candidate in candidates:
        values = candidate.mean(probes)
        excess = torch.maximum(values - high, low - values)
        if bool((excess <= room).all()):
            kept.append(candidate)
    # Levels of a table with noise are codes more often than lines: rows to come have the same ones.
    coded = rows.n_features >= FEWEST_OF_TABLE and least > NOISY_ERROR
    levels = None if coded else ErrorBetweenLevels(rows)

    def score(candidate: Candidate) -> float:
        own = candidate.spent(rows.n_rows) * candidate.score(plain)
        return own if levels is None else max(own, levels.of(candidate))

    ranked = sorted(kept or candidates, key=score)
    best, others = ranked[0], [c for c in ranked if c.family != GrownUnits.name]
    if others and verification.is_due(best) and not verification.confirms(best, others[0]):
        return others[0]
    return best
