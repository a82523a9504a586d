"""What a candidate errs by on levels that are left out, where columns take few values.

A left-out row of a grid has neighbours on its own line, so that its error says nothing of what is
between the lines: units with an error of 0.1 there were taken for exact by left-out rows.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from skpou.core import Rows, judging_generator
from skpou.core.linalg import NUMERICAL_FAILURES, free_rows
from skpou.core.models import (
    MOST_TOGETHER,
    N_FOLDS,
    LeftOut,
    LinearModel,
    fit_level_errors,
    left_out_errors,
    sets_of_levels,
    sets_to_leave_out,
)
from skpou.search.bases.polyharmonic import PolyharmonicSplines
from skpou.search.candidates import Candidate

#: Points at which the error between the levels is taken.
N_PROBES = 256
#: Kernels of SciPy's interpolants by the power of the distance.
KERNELS = {1: "linear", 3: "cubic"}
#: Parts of left-out errors with a column for each target.
OF_TARGETS = ("error", "variance", "noise")


def model_of(candidate: Candidate, rows: Rows) -> LinearModel:
    """A candidate with the noise (m,) that its residual says."""
    square = rows.weight @ (rows.y - candidate.mean(rows.X)).square() + rows.within.sum(0)
    noise = square / free_rows(rows.total_weight, candidate.dof)
    return LinearModel(candidate.stages, noise, torch.zeros_like(noise))


def left_out_of_columns(candidate: Candidate, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
    """Errors of a candidate's columns at sets of rows that are left out."""
    return left_out_errors(model_of(candidate, rows).residual_makers(rows)[0], rows, sets)


class ErrorBetweenLevels:
    """Errors at left-out levels of the rows' columns, if there are any."""

    def __init__(self, rows: Rows):
        self.rows, self.sets = rows, []
        if rows.n_features > 1 and rows.n_rows <= MOST_TOGETHER:
            X = rows.X.cpu().numpy()
            self.sets = sets_to_leave_out(X, judging_generator(), neighbourhoods=False)
        self.n_folds = min(N_FOLDS, rows.n_rows)
        probes = judging_generator().random((N_PROBES, rows.n_features))
        self.probes = torch.as_tensor(probes, device="cpu").to(rows.X)

    def of(self, candidate: Candidate) -> float:
        """Root mean square error that is likely between the levels; 0 where there are none.

        Not that at levels that are left out: without every other line a form that follows the rows
        loses more than one that is too stiff for them.
        """
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
        model = model_of(candidate, self.rows)
        found = left_out_errors(model.residual_makers(self.rows)[0], self.rows, self.sets)
        noise, own = model.components(self.probes).variances()
        return self._between(found, float((noise + own).mean()))

    def _of_spline(self, basis: PolyharmonicSplines) -> float:
        Z = (self.rows.X * basis.scales.to(self.rows.X)).cpu().numpy()
        y, errors = self.rows.y.cpu().numpy(), []
        for number, part in enumerate(self.sets):
            if number < self.n_folds:
                errors.append(np.zeros((len(part), y.shape[1])))
                continue
            others = np.setdiff1d(np.arange(len(Z)), part)
            if len(others) <= Z.shape[1]:
                return math.inf  # Too few rows for its affine part.
            spline = RBFInterpolator(Z[others], y[others], kernel=KERNELS[basis.power], degree=1)
            errors.append(y[part] - spline(Z[part]))
        error, ones = np.concatenate(errors), np.ones(len(self.sets))
        none = np.zeros_like(error)
        found = LeftOut(self.sets, self.n_folds, error, none, none, ones, ones > 0)
        return self._between(found, 0.0)

    def _between(self, found: LeftOut, known: float) -> float:
        """From errors at left-out levels, beside a variance that the candidate knows itself."""
        X, probes = self.rows.X.cpu().numpy(), self.probes.cpu().numpy()
        sets = sets_of_levels(found, X)
        variance = 0.0
        for target in range(found.error.shape[1]):
            parts = {name: getattr(found, name)[:, target : target + 1] for name in OF_TARGETS}
            one = replace(found, **parts)
            for level in fit_level_errors(one, X, sets):
                variance += float(level.variance(probes).mean()) / found.error.shape[1]
        return math.sqrt(variance + known)
