"""Scores of a fit whose columns were fitted as well: by the tangents of what was fitted."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import TINY

#: Norm of a column, relative to the largest, and ridge of normed ones, that are round-off.
NO_NORM, LEAST_PRIOR = 1e-14, 1e-13
#: Least part of its own that a row has, and the largest growth of an error between the rows: beyond
#: both are round-off.
LEAST_LEFT, LARGEST_GROWTH = 1e-6, 1e12


def neighbour_difference(X: Tensor, y: Tensor) -> Tensor:
    """Largest differences (n, m) of each row's targets to those of its d + 1 nearest neighbours."""
    points = X.cpu().numpy()
    near = cKDTree(points).query(points, min(len(X), X.shape[1] + 2))[1].reshape(len(X), -1)
    neighbours = y[torch.as_tensor(near, device=X.device)]
    return (neighbours - y[:, None]).abs().amax(1)


class TangentScores:
    """Scores of a fit whose columns were fitted as well, by the columns of its linear model.

    Parameters
    ----------
    T : Tensor of shape (n, q)
        Columns and their derivatives with respect to the fitted parameters.
    residual : Tensor of shape (n, m)
        Targets minus fit.
    rows : Rows
        Weights and sums of squares within the points.
    """

    def __init__(self, T: Tensor, residual: Tensor, rows: Rows):
        root = rows.weight.sqrt()[:, None]
        self.rows, self.total = rows, rows.total_weight
        weighted, self.r = T * root, residual * root
        norms = weighted.norm(dim=0)
        self.norms = norms.clamp_min(NO_NORM * float(norms.max()) + TINY)
        # Directions that change the fit by less than its residual are not determined by it; a
        # column that hardly varies at the rows has a prior of the size of the box and the targets.
        level = math.sqrt(float(self.r.square().sum(0).mean()) / self.total)
        self.ridge = (level / self.norms).clamp_min(max(level / math.sqrt(len(T)), LEAST_PRIOR))
        Q, R = torch.linalg.qr(torch.cat([weighted / self.norms, torch.diag(self.ridge)]))
        self.R = R
        self.h = Q[: len(T)].square().sum(1).clamp_max(1 - LEAST_LEFT)

    @property
    def dof(self) -> float:
        """Trace of the hat matrix."""
        return float(self.h.sum())

    @property
    def factor(self) -> Tensor:
        """Triangular factor of the columns as they are, for the posterior."""
        return self.R * self.norms

    def _mean(self, square: Tensor) -> float:
        return float((square.sum(0) + self.rows.within.sum(0)).mean()) / self.total

    def leave_one_out(self) -> float:
        """Root mean square error at each distinct row when all its weight is left out."""
        left_out = (self.r / (1 - self.h)[:, None]).abs()
        # Beside a step the leverage is next to 1. Without the row the step would move, but not
        # beyond the neighbours.
        bound = self.r.abs() + self.difference
        return math.sqrt(self._mean(torch.minimum(left_out, bound).square()))

    @cached_property
    def difference(self) -> Tensor:
        """Weighted `neighbour_difference` of the targets."""
        rows = self.rows
        return neighbour_difference(rows.X, rows.y) * rows.weight.sqrt()[:, None]

    def calibrated(self, probes: Tensor) -> float:
        """Expected error between the rows; `probes` are the columns (k, q) there."""
        spread = self._mean(self.r.square() / (1 - self.h)[:, None])
        solved = torch.linalg.solve_triangular(self.R, probes / self.norms, upper=True, left=False)
        return math.sqrt(
            spread * (1 + float(solved.square().sum(1).clamp_max(LARGEST_GROWTH).mean()))
        )
