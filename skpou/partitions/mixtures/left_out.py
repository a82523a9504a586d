"""Rows of a fit and which of them are left out together, and the errors of models there."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from skpou.core import Rows, judging_generator
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models import N_FOLDS, Makers, left_out_errors, sets_to_leave_out
from skpou.partitions.mixtures.mixture import Mixture

#: Largest error that is told from others, in units of y.
MOST_ERROR = 1e50
#: Rows up to which folds are drawn several times, and how often: few errors are luck.
FEW_ROWS, N_DRAWS = 60, 2
#: Levels of a target that are left out: all of them, since each has few rows, and a table of
#: isotherms was seen to have its error between two of 45.
TARGET_LEVELS = 50
#: Neighbours for each column among which a row is, or is at the rim; the distance from their convex
#: hull, in units of theirs, that is round-off; the least share of rows inside for it to tell them.
NEIGHBOURS_A_COLUMN, ON_RIM, LEAST_INSIDE = 4, 1e-6, 0.5
#: Levels of a column that are left out: a piece may end between any two of them, and one that was
#: not asked for had errors of all of y beside it. More are hardly ever on lines.
COLUMN_LEVELS = 20
#: Seeds of levels of targets and of further folds: the same for every fit.
TARGETS_SEED, FOLDS_SEED = 11, 10


class LeftOutRows:
    """The rows of a fit in float64, and which of them are left out together.

    Parameters
    ----------
    rows : Rows
        Distinct samples.
    of_targets : bool, default=False
        Whether levels of the target, as isotherms of a table are, are left out, too.
    """

    def __init__(self, rows: Rows, of_targets: bool = False):
        self.rows = rows.to(torch.float64)
        self.root = self.rows.weight.sqrt()[:, None]
        self.y = self.rows.y * self.root
        self.within = self.rows.within.sum(0)
        self.count = self.rows.total_weight
        X, y = self.rows.X.cpu().numpy(), self.rows.y.cpu().numpy()
        self.sets = sets_to_leave_out(X, judging_generator(), False, COLUMN_LEVELS)
        self.n_folds = min(N_FOLDS, rows.n_rows)
        if of_targets:
            rng = np.random.default_rng(TARGETS_SEED)
            self.sets += sets_to_leave_out(y, rng, False, TARGET_LEVELS)[self.n_folds :]
        self.inside = are_inside(X)
        if rows.n_rows <= FEW_ROWS:
            rng = np.random.default_rng(FOLDS_SEED)
            for _ in range(N_DRAWS - 1):
                more = sets_to_leave_out(X, rng, neighbourhoods=False)[: self.n_folds]
                self.sets = more + self.sets
            self.n_folds *= N_DRAWS

    @property
    def on_levels(self) -> bool:
        """Whether some column, or the target, has levels."""
        return len(self.sets) > self.n_folds

    def left_out(self, makers: Makers) -> np.ndarray:
        """Errors (l, m) at left-out rows."""
        return left_out_errors(makers, self.rows, self.sets).error

    def left_out_by(self, mixture: Mixture) -> np.ndarray:
        """Errors (l, m) of a fitted model, its gates as they are; infinite where it fails."""
        try:
            return self.left_out(mixture.residual_makers(self.rows, gates=False)[0])
        except NUMERICAL_FAILURES:
            n_errors = sum(len(part) for part in self.sets)
            return np.full((n_errors, self.rows.n_outputs), np.inf)

    def pooled(self, error: np.ndarray) -> float:
        """Root mean square of the errors at left-out rows; levels count as much as folds.

        Of the folds, rows at the rim of several columns are not counted: they are extrapolated.
        """
        square = (np.clip(error, -MOST_ERROR, MOST_ERROR) ** 2).mean(1)
        square = np.nan_to_num(square, nan=MOST_ERROR**2, posinf=MOST_ERROR**2)
        group = np.repeat(np.arange(len(self.sets)), [len(part) for part in self.sets])
        in_folds = group < self.n_folds
        counted = in_folds & self.inside[np.concatenate(self.sets)]
        parts = [part for part in (square[counted], square[~in_folds]) if len(part)]
        return math.sqrt(sum(float(part.mean()) for part in parts))

    def gain_known(self, error: np.ndarray, other: np.ndarray) -> float:
        """Standard error of by how much less a model's mean square error is than another's.

        Parameters
        ----------
        error, other : ndarray of shape (l, m)
            Of the two at the same left-out rows. What they have in common is the noise e of the
            rows: of ``(e + d)^2 - e^2`` it moves ``2 e d``.
        """
        n = self.rows.n_rows
        moved = 2 * (error * (other - error)).mean(1)
        row = np.concatenate(self.sets)
        of_row = np.bincount(row, moved, n) / np.maximum(np.bincount(row, minlength=n), 1)
        return float(np.linalg.norm(of_row)) / n


def are_inside(X: np.ndarray) -> np.ndarray:
    """Whether each row (n,) is among its neighbours: in the convex hull of the nearest of them.

    All rows are where hardly any would be. So are those of one column: the rim is two rows, and
    what is steep at an end shows nowhere else.
    """
    n, d = X.shape
    if d == 1:
        return np.ones(n, dtype=bool)
    near = min(NEIGHBOURS_A_COLUMN * d, n - 1)
    nearest = cKDTree(X).query(X, near + 1)[1][:, 1:]
    offset = X[nearest] - X[:, None]
    offset /= np.abs(offset).max((1, 2), keepdims=True)
    ones = np.append(np.zeros(d), 1.0)
    left = [nnls(np.vstack([row.T, np.ones(near)]), ones)[1] for row in offset]
    inside = np.array(left) <= ON_RIM
    return inside if inside.mean() >= LEAST_INSIDE else np.ones(n, dtype=bool)
