"""What a candidate errs by on levels that are left out, where columns take few values.

A left-out row of a grid has neighbours on its own line, so that its error says nothing of what is
between the lines: units with an error of 0.1 there were taken for exact by left-out rows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from skpou.core import Rows
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models import (
    MOST_TOGETHER,
    N_FOLDS,
    LeftOut,
    LinearModel,
    left_out_errors,
    sets_to_leave_out,
)
from skpou.search.bases.polyharmonic import PolyharmonicSplines
from skpou.search.candidates import Candidate

#: Kernels of SciPy's interpolants by the power of the distance.
KERNELS = {1: "linear", 3: "cubic"}


def left_out_of_columns(candidate: Candidate, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
    """Errors of a candidate's columns at sets of rows that are left out."""
    residual = rows.y - candidate.mean(rows.X)
    square = rows.weight @ residual.square() + rows.within.sum(0)
    noise = square / max(rows.total_weight - candidate.dof, 0.1 * rows.total_weight)
    model = LinearModel(candidate.stages, noise, torch.zeros_like(noise))
    return left_out_errors(model.residual_makers(rows)[0], rows, sets)


class LevelErrors:
    """Errors at left-out levels of the rows' columns, if there are any.

    Parameters
    ----------
    rows : Rows
        Distinct rows in scaled units.
    """

    def __init__(self, rows: Rows):
        self.rows, self.sets = rows, []
        if rows.n_features > 1 and rows.n_rows <= MOST_TOGETHER:
            X = rows.X.cpu().numpy()
            self.sets = sets_to_leave_out(X, np.random.default_rng(9), neighbourhoods=False)
        self.n_folds = min(N_FOLDS, rows.n_rows)

    def of(self, candidate: Candidate) -> float:
        """Root mean square error at the levels; 0 where there are none."""
        if len(self.sets) <= self.n_folds:
            return 0.0
        basis = candidate.stages[0].basis
        try:
            if isinstance(basis, PolyharmonicSplines):
                return self._of_spline(basis)
            if any(stage.basis.follows_rows for stage in candidate.stages):
                return 0.0
            return self._of_columns(candidate)
        except NUMERICAL_FAILURES:
            return math.inf

    def _of_columns(self, candidate: Candidate) -> float:
        found = left_out_of_columns(candidate, self.rows, self.sets)
        error = found.error[found.group >= found.n_folds]
        return float(np.sqrt(np.mean(error**2)))

    def _of_spline(self, basis: PolyharmonicSplines) -> float:
        Z = (self.rows.X * basis.scales.to(self.rows.X)).cpu().numpy()
        y, squares = self.rows.y.cpu().numpy(), []
        for part in self.sets[self.n_folds :]:
            kept = np.setdiff1d(np.arange(len(Z)), part)
            spline = RBFInterpolator(Z[kept], y[kept], kernel=KERNELS[basis.power], degree=1)
            squares.append((y[part] - spline(Z[part])) ** 2)
        return float(np.sqrt(np.mean(np.concatenate(squares))))
