"""The family of grown units beside slow sines, on a line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from skpou.search.candidates import Candidate
from skpou.search.family import Seen, Task
from skpou.search.units import SMOOTH, GrownUnits, grow_units
from skpou.sines import Spectrum

#: Rows for each column of the sines at least, and most columns: so few leave the units something.
ROWS_A_COLUMN, MOST_COLUMNS = 3, 200
#: Units at most beside them, and how much better they must be, as the best of a search among many
#: models.
MOST_UNITS, HANDICAP = 13, 5.0
#: Bandwidths that are tried, in radians over half the side of the box.
BANDWIDTHS = tuple(2.0**k for k in range(2, 9))
#: Sines beyond those that a band has independent ones, and the part of the error below which a
#: wider band must bring it to be the one to be bettered.
SPARE_SINES, WORTH = 4, 0.8
#: Units so many times worse than the best family lack more than a curve beside them: no band has
#: made up for it where sines alone were that much better.
FAR = 1e3
#: Number that the seed of the sines is apart from the task's.
TAG = 11


class UnitsOnBackground:
    """Units beside sines up to a frequency, which is doubled while there is room.

    Tried on a line, where grown units alone have left more than noise: steps on a smooth curve
    take units for the curve that are missing at the steps.
    """

    name: ClassVar[str] = "background"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Beside grown units that were not enough; see `Family.worth_trying`."""
        units = self._units(seen)
        # Noise that is not white is what few rows made doubtful: units were the last resort.
        doubted = seen.noise and not seen.white
        if task.rows.n_features > 1 or units is None or doubted:
            return False
        far = units.score(seen.white) > FAR * seen.best.score(seen.white)
        may_gain = units.leave_one_out > SMOOTH and not far
        return may_gain and not seen.residue_of(units, task).is_white

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """Widen the band; see `Family.fit`."""
        n = task.rows.n_rows
        best, nyquist = seen.candidates[-1].calibrated, math.pi * n / 2
        for bandwidth in BANDWIDTHS:
            n_sines = int(2 * bandwidth / math.pi) + SPARE_SINES
            if 2 * n_sines > min(n / ROWS_A_COLUMN, MOST_COLUMNS) or bandwidth > nyquist:
                return
            sines = Spectrum("flat", bandwidth, (1.0,)).draw(n_sines, task.seed + TAG, task.rows.X)
            found = grow_units(
                task, seen.least_calibrated, HANDICAP, background=sines, most=MOST_UNITS
            )
            seen = seen.with_candidate(found)
            yield seen
            if found.calibrated < WORTH * best:
                best = found.calibrated
            if best < SMOOTH:
                return

    @staticmethod
    def _units(seen: Seen) -> Candidate | None:
        last = seen.candidates[-1]
        return last if last.family == GrownUnits.name else None
