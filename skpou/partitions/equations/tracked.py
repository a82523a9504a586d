"""Slabs whose pieces end at characteristics, so that kinks are edges and all pieces smooth."""

from __future__ import annotations

import numpy as np

from skpou.partitions.equations.boxes import NO_WIDTH, Boxes
from skpou.partitions.equations.characteristics import (
    N_TERMS,
    Line,
    Speeds,
    curves,
    first_meeting,
    speeds_of,
)
from skpou.partitions.equations.columns import legendre_values
from skpou.partitions.equations.edges import Edges
from skpou.partitions.equations.kinks import kinks_at_bottom
from skpou.partitions.equations.march import FALLING, LEAST_SLAB, TIME_DEGREE, March, NotMarched
from skpou.partitions.equations.refinement import Child, prolonged, solution_size
from skpou.partitions.equations.system import Coefficients

#: Lines that are as near as this have met.
MET = 1e-9
#: Way that an edge moves in a slab, in widths of a piece beside it, for polynomials on the box
#: around the piece to stay well conditioned.
SLANT = 1.0
#: Factor by which slant and tail may exceed what is asked for before a slab is halved or given up:
#: the next slab often falls below again.
BEYOND = 2
#: Degree along the other column to begin with.
ACROSS = 12
#: Most lines at a time, and slabs.
MOST_LINES, MOST_SLABS = 24, 400


class TrackedMarch(March):
    """Slabs along a column, with pieces between lines along which kinks travel.

    Slabs end where lines meet each other or an end of the other column. Beyond that each speed of
    what came in goes on: lines cross, and come back from an end.

    Parameters
    ----------
    *args, **options
        As of `March`.
    """

    speeds: Speeds
    lines: list[Line]
    #: Tail along the column that is round-off.
    floor = 0.0

    def run(self) -> March:
        """March through the box.

        Raises
        ------
        NotMarched
            If slabs become too short, or too many: the solution is not smooth between the lines.
        """
        at, length = 0.0, 1.0
        while at < 1.0 - NO_WIDTH:
            slab, before = None, np.inf
            longest = length = min(length, 1.0 - at)
            while slab is None:
                if length < LEAST_SLAB or len(self.slabs) >= MOST_SLABS:
                    raise NotMarched(f"kinks are not all that is not smooth after {at:.3g}")
                end, series = self._shortened(at, length)
                length = end - at
                slab, easy, along = self._slab(self._pieces(series, at, end))
                if slab is None:
                    # What does not fall is the round-off of what was carried here.
                    vain = FALLING * along >= before and along <= self.first_tol
                    self.floor = 2 * along if vain else self.floor
                    length, before = (longest if vain else length / 2), along
            if slab.worst > BEYOND * self.first_tol:
                raise NotMarched(f"what lies between kinks is not smooth after {at:.3g}")
            self.slabs.append(slab)
            self.size = slab.size = np.maximum(self.size, solution_size(slab.boxes, slab.coef))
            at = 1.0 if end > 1.0 - NO_WIDTH else end
            self._tell(at, slab)
            self.lines = self._after(series, at)
            # The next one may be as long as this would have been without lines that meet.
            length = max(2 * length, longest) if easy else max(length, longest / 2)
        return self

    def _along(self) -> float:
        return max(super()._along(), self.floor)

    def _shortened(self, start: float, length: float) -> tuple[float, np.ndarray]:
        """End of a slab up to a length, before which no lines meet, and the lines' series."""
        while True:
            if length < LEAST_SLAB:
                raise NotMarched(f"lines are too near each other after {start:.3g}")
            series = curves(self.speeds, self.lines, start, start + length, self.column)
            if series is None:
                length /= 2
                continue
            series = np.concatenate([_upright(0.0), series, _upright(1.0)])
            met = first_meeting(series)
            if met is not None and met < 1.0 - MET:
                length *= (met + 1) / 2
                continue
            ends = series @ legendre_values(np.array([-1.0, 1.0]), N_TERMS - 1).T
            widths = np.diff(ends, axis=0).max(1)
            moves = np.abs(np.diff(ends, axis=1))[:, 0]
            slant = np.maximum(moves[:-1], moves[1:]) / np.maximum(widths, NO_WIDTH)
            if slant.max() > BEYOND * SLANT:
                # Widths are those of the whole slab: triangles keep their shape.
                length /= 2
                continue
            return start + length, self._snapped(series, ends[:, 1])

    @staticmethod
    def _snapped(series: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Series that end where others do if they nearly meet."""
        series, target = series.copy(), ends.copy()
        target[0], target[-1] = 0.0, 1.0
        for i in range(1, len(target) - 1):
            if target[i] - target[i - 1] <= MET:
                target[i] = target[i - 1]
        for i in range(len(target) - 2, 0, -1):
            if target[i + 1] - target[i] <= MET:
                target[i] = target[i + 1]
        # Half of (1 + t) is 0 at the start and 1 at the end.
        series[:, 0] += (target - ends) / 2
        series[:, 1] += (target - ends) / 2
        return series

    def _pieces(self, series: np.ndarray, start: float, end: float) -> Boxes:
        """Pieces between neighbouring lines."""
        E = len(series) - 1
        kinked = np.arange(E) < E - 1
        edges = Edges(self.column, np.stack([series[:-1], series[1:]], 1), kinked)
        lower, upper = edges.extent()
        low, high = np.empty((E, 2)), np.empty((E, 2))
        low[:, self.column], high[:, self.column] = start, end
        low[:, 1 - self.column], high[:, 1 - self.column] = lower, upper
        degree = np.full((E, 2), ACROSS if self.degree is None else self.degree)
        degree[:, self.column] = TIME_DEGREE if self.degree is None else self.degree
        return Boxes(low, high, degree, edges=edges)

    def _finer(self, boxes: Boxes, coef: Coefficients, children: list[Child]):
        edges = boxes.edges
        if edges is None:
            return super()._finer(boxes, coef, children)
        parents = np.array([child.parent for child in children])
        series, kinked = edges.series[parents].copy(), edges.kinked[parents].copy()
        for first in np.flatnonzero(parents[1:] == parents[:-1]):
            middle = edges.series[parents[first]].mean(0)
            series[first, 1] = series[first + 1, 0] = middle
            kinked[first] = False
        edges = Edges(self.column, series, kinked)
        lower, upper = edges.extent()
        for child, a, b in zip(children, lower, upper, strict=True):
            child.low[1 - self.column], child.high[1 - self.column] = a, b
        low = np.array([child.low for child in children])
        high = np.array([child.high for child in children])
        degree = np.array([child.degree for child in children])
        return prolonged(boxes, coef, children), Boxes(low, high, degree, edges=edges)

    def _after(self, series: np.ndarray, at: float) -> list[Line]:
        """Lines that leave the ends of others."""
        ends = series[1:-1].sum(1)
        places = [0.0 if p <= MET else 1.0 if p >= 1 - MET else float(p) for p in ends]
        came: dict[float, set[int]] = {}
        for place, line in zip(places, self.lines, strict=True):
            near = next((p for p in came if abs(p - place) <= MET), place)
            came.setdefault(near, set()).add(line.branch)
        ring = 1 - self.column in self.rings
        if ring and (0.0 in came or 1.0 in came):
            came[0.0] = came[1.0] = came.get(0.0, set()) | came.get(1.0, set())
        return emitted(self.speeds, came, at, self.column, ring)


def _upright(place: float) -> np.ndarray:
    found = np.zeros((1, N_TERMS))
    found[0, 0] = place
    return found


def emitted(
    speeds: Speeds, came: dict[float, set[int]], at: float, column: int, ring: bool
) -> list[Line]:
    """Lines that leave places at a time, in their order: all that come back from an end."""
    found = []
    for place, branches in sorted(came.items()):
        point = np.empty((1, 2))
        point[0, column], point[0, 1 - column] = at, place
        s = speeds(point)[0]
        at_end = place in (0.0, 1.0)
        chosen = sorted(branches) if ring or not at_end else range(len(s))
        for branch in chosen:
            if at_end and (s[branch] <= 0 if place == 0.0 else s[branch] >= 0):
                continue
            found.append(Line(place, branch))
    return found


def tracked(march: March, corners: bool = False) -> March | None:
    """The march along lines from kinks in the conditions at the lower end, before it runs.

    None where there are no kinks, or lines are not known.

    Parameters
    ----------
    march : March
        One that has not run.
    corners : bool, default=False
        Whether lines leave the ends of the other column, too, where conditions at the lower end
        and on the sides meet: they may not be compatible to all orders.
    """
    if march.d != 2 or any(not _on_side(t) for t in march.problem.terms if t.is_condition):
        return None
    speeds = speeds_of(march.problem, march.column, march.rows.n_outputs)
    if speeds is None:
        return None
    places = kinks_at_bottom(march)
    if places is None:
        return None
    places = sorted({*places, 0.0, 1.0}) if corners else places
    ring = 1 - march.column in march.rings
    start = np.zeros((1, 2))
    came = {place: set(range(speeds(start).shape[1])) for place in places}
    lines = emitted(speeds, came, 0.0, march.column, ring)
    if not lines or len(lines) > MOST_LINES:
        return None
    found = TrackedMarch(
        march.problem, march.rows, march.column, march.rings, march.tol, march.max_iter,
        march.most_pieces, march.report, march.unknowns, march.degree,
    )  # fmt: skip
    found.speeds, found.lines = speeds, lines
    found.trace = march.trace
    return found


def _on_side(term) -> bool:
    """Whether a condition is at points of its own, or fills a side of the box."""
    if term.region is None:
        return True
    low, high = term.region.cpu().numpy()
    return bool((high <= low).any())
