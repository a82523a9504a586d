"""Jumps of a fitted mean between neighbouring rows, whose places no row tells.

Where a mean changes by more than its slopes at two neighbouring rows account for, it is the form
that says where: a gate is half way between the rows, a steep unit anywhere. The truth may change at
any other place between them. The simplices of a Delaunay triangulation of the rows are what is
between neighbours: in one that a jump passes through the truth is that of either side, and the
barycentric coordinates say how likely each is. Rows next to a line or a plane, as those of columns
that say nearly the same are, have neighbours along it alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy.spatial import Delaunay, QhullError

from skpou.core import ArrayState, Rows
from skpou.core.models.model import Predictor

#: Most columns: in more, few rows have neighbours on all sides.
MOST_COLUMNS = 3
#: Most rows: between more of them little is unknown.
MOST_ROWS = 20_000
#: What slopes leave of a step beside what they change by between neighbours, from which on it is a
#: jump: that of a cubic is a sixth, that of a kink at most a half.
SHARP = 1.0
#: Least jump in units of y: one of round-off is none.
LEAST_JUMP = 1e-9
#: Most simplices that are kept, the ones of the largest jumps.
MOST_SIMPLICES = 500
#: Coordinates that are compared with the simplices at once.
MOST_NUMBERS = 2_000_000
#: Volume of a simplex without an inside, in units of its largest step to the power of the columns.
FLAT = 1e-9
#: Height over a face of the hull, in units of the largest step, below which a simplex is a sliver:
#: rows along a side of the box are joined by such, however far they are.
SLIVER = 0.05
#: Barycentric coordinate from which on a point is inside: those on faces are round-off.
INSIDE = -1e-9


@dataclass(frozen=True)
class Jumps(ArrayState):
    """Where the mean of a target jumps.

    Attributes
    ----------
    corners : ndarray of shape (k, q + 1, q)
        Rows in the scaled box (q = d), or along `directions`: corners of the simplices that jumps
        pass through.
    sides : ndarray of shape (k, q + 1)
        Numbers from 0 on, equal for corners on the same side.
    open : ndarray of shape (k, q + 1), bool
        Whether there is no simplex beyond the face opposite to a corner: what is there, in the
        box, is as on the face.
    sizes : ndarray of shape (k,)
        The largest jump between two of the corners.
    centre : ndarray of shape (d,), default=None
        Mean of the rows, where these are next to a line or a plane.
    directions : ndarray of shape (d, q), default=None
        Of that; corners are in its coordinates. None: the rows need all columns.
    """

    corners: np.ndarray
    sides: np.ndarray
    open: np.ndarray
    sizes: np.ndarray
    centre: np.ndarray | None = None
    directions: np.ndarray | None = None

    def variance(self, X: np.ndarray) -> np.ndarray:
        """Variance (n,) of the mean at scaled points X (n, d).

        The mean is that of the likeliest side, and wrong by the jump if it is another.
        """
        result = np.zeros(len(X))
        some = np.flatnonzero(((X >= 0) & (X <= 1)).all(1))
        if self.directions is not None:
            X = (X - self.centre) @ self.directions
        n_blocks = max(1, len(some) * self.sides.size // MOST_NUMBERS)
        for part in np.array_split(some, n_blocks):
            step = X[part, None] - self.corners[:, -1]
            inner = (step[:, :, None] @ self._inverses)[:, :, 0]
            share = np.concatenate([inner, 1 - inner.sum(2, keepdims=True)], 2)
            is_inside = ((share > INSIDE) | self.open).all(2)
            share = share.clip(0) / share.clip(0).sum(2, keepdims=True)
            of_sides = (share[..., None] * self._indicators).sum(2)
            wrong = np.where(is_inside, 1 - of_sides.max(2), 0.0)
            result[part] = (wrong.clip(0) * self.sizes**2).max(1)
        return result

    @cached_property
    def _inverses(self) -> np.ndarray:
        """Matrices (k, q, q) that take steps from the last corners to barycentric coordinates."""
        return np.linalg.inv(self.corners[:, :-1] - self.corners[:, -1:])

    @cached_property
    def _indicators(self) -> np.ndarray:
        """Which side (k, q + 1, q + 1) each corner is on."""
        return np.eye(self.sides.shape[1])[self.sides]


def find_jumps(model: Predictor, rows: Rows) -> list[Jumps | None]:
    """The jumps of each target's mean between the rows; None where there are none.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows.
    rows : Rows
        All of those of the fit.
    """
    X = rows.X.double().cpu().numpy()
    shape = _shape_of(X) if rows.n_rows <= MOST_ROWS else None
    if shape is None:
        return [None] * rows.n_outputs
    mean, gradient = (
        part.double().cpu().numpy() for part in (model.mean(rows.X), model.gradient(rows.X))
    )
    return [
        shape.jumps(y, slopes)
        for y, slopes in zip(mean.T, gradient.transpose(2, 0, 1), strict=True)
    ]


@dataclass(frozen=True)
class _Shape:
    """Rows (n, d), simplices between them, open faces, and in what coordinates these are."""

    rows: np.ndarray
    simplices: np.ndarray
    is_open: np.ndarray
    centre: np.ndarray | None
    directions: np.ndarray | None

    def jumps(self, y: np.ndarray, slopes: np.ndarray) -> Jumps | None:
        """Those of values (n,) with slopes (n, d)."""
        X = self.rows
        ends, of_simplex = _edges(self.simplices)
        step = X[ends[:, 1]] - X[ends[:, 0]]
        rise = (slopes[ends] * step[:, None]).sum(2)
        jump = np.abs(y[ends[:, 1]] - y[ends[:, 0]] - rise.mean(1))
        bend = np.zeros(len(X))
        for end in ends.T:
            np.maximum.at(bend, end, np.abs(rise[:, 1] - rise[:, 0]))
        smooth = np.maximum(SHARP * bend[ends].max(1), LEAST_JUMP)
        found = _where(self.simplices, of_simplex, jump * (jump > smooth))
        if found is None:
            return None
        kept, sides, sizes = found
        points = X if self.directions is None else (X - self.centre) @ self.directions
        state = (points[self.simplices[kept]], sides, self.is_open[kept], sizes)
        return Jumps(*state, self.centre, self.directions)


def _shape_of(X: np.ndarray) -> _Shape | None:
    """What is between points X (n, d); None of many columns, or where they have nothing between."""
    n, d = X.shape
    if not 1 <= d <= MOST_COLUMNS or n < d + 2:
        return None
    centre = X.mean(0)
    _, size, directions = np.linalg.svd(X - centre, full_matrices=False)
    needed = size > SLIVER * size[0]
    if not needed.any():
        return None
    if needed.all():
        found = _between(X)
        return None if found is None else _Shape(X, *found, None, None)
    directions = directions[needed].T
    found = _between((X - centre) @ directions)
    return None if found is None else _Shape(X, *found, centre, directions)


def _between(X: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows (k, d + 1) of the simplices between points X (n, d), and which faces are open."""
    if X.shape[1] == 1:
        order = np.argsort(X[:, 0], kind="stable")
        ends = np.stack([order[:-1], order[1:]], 1)
        return ends, np.zeros(ends.shape, dtype=bool)
    try:
        found = Delaunay(X)
    except QhullError:  # All rows on a line or a plane.
        return None
    return _without_slivers(X, found.simplices, found.neighbors)


def _without_slivers(
    X: np.ndarray, simplices: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Simplices without those at the hull that are flat: their corners are no neighbours."""
    corners = X[simplices]
    step = corners[:, 1:] - corners[:, :1]
    volume = np.abs(np.linalg.det(step))
    length = np.linalg.norm(corners[:, :, None] - corners[:, None], axis=3).max((1, 2))
    kept = volume > FLAT * length ** X.shape[1]
    height = np.zeros(simplices.shape)
    height[kept] = 1 / np.linalg.norm(_barycentric_slopes(step[kept]), axis=2)
    while True:
        is_open = (neighbours < 0) | ~kept[neighbours]
        flat = kept & (is_open & (height < SLIVER * length[:, None])).any(1)
        if not flat.any() or flat.sum() == kept.sum():
            return simplices[kept], is_open[kept]
        kept &= ~flat


def _barycentric_slopes(step: np.ndarray) -> np.ndarray:
    """Gradients (k, d + 1, d) of barycentric coordinates by steps (k, d, d) from the first."""
    others = np.linalg.inv(step).transpose(0, 2, 1)
    return np.concatenate([-others.sum(1, keepdims=True), others], 1)


def _edges(simplices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (e, 2) of the edges, and numbers (k, p) of those of each simplex."""
    pairs = np.array(list(combinations(range(simplices.shape[1]), 2)))
    all_ends = np.sort(simplices[:, pairs].reshape(-1, 2), axis=1)
    ends, number = np.unique(all_ends, axis=0, return_inverse=True)
    return ends, number.reshape(len(simplices), len(pairs))


def _where(
    simplices: np.ndarray, of_simplex: np.ndarray, jump: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Which simplices have jumps (e,) at some of their edges, sides of the corners, and sizes."""
    sizes = jump[of_simplex].max(1)
    kept = np.argsort(-sizes, kind="stable")[:MOST_SIMPLICES]
    kept = np.sort(kept[sizes[kept] > 0])
    if not len(kept):
        return None
    n_corners = simplices.shape[1]
    sides = np.tile(np.arange(n_corners), (len(kept), 1))
    pairs = list(combinations(range(n_corners), 2))
    for _ in range(n_corners - 1):  # As long as a path from corner to corner may be.
        for (first, second), edge in zip(pairs, of_simplex[kept].T, strict=True):
            joined = jump[edge] == 0
            least = np.minimum(sides[:, first], sides[:, second])
            sides[joined, first] = sides[joined, second] = least[joined]
    apart = (sides != sides[:, :1]).any(1)
    if not apart.any():
        return None
    kept = kept[apart]
    return kept, sides[apart], sizes[kept]
