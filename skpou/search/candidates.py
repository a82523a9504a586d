"""What a family of bases offers to the automatic search."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from skpou.core import Basis
from skpou.core.models import Stage
from skpou.search.scores import RidgePath

#: Calibrated error, in units of y, that is round-off.
LEAST_ERROR = 1e-17
#: Most by which errors at left-out rows are taken to be too small for what they have chosen: forms
#: that are exact leave no degree of freedom, and others err by more than that.
MOST_SPENT = 2.0


@dataclass(frozen=True)
class Candidate:
    """Fitted stages with their scores, in scaled units.

    Attributes
    ----------
    calibrated : float
        Expected error between the rows.
    dof : float
        Effective number of parameters.
    alpha : float
        Ridge of the last stage.
    evidence : float
        Minus twice the log evidence; infinite where a family has none.
    gap_variance : float
        Part of the squared calibrated error that is predicted variance between the rows.
    n_units : int
        Number of nonlinear columns.
    handicap : float
        Factor of the score: large for families that search among many models.
    bandwidths : tuple of float
        Largest frequency of each stage in radians over half the side of the box; 0 where it has
        none.
    n_chosen : int
        Number of lengths of the columns that all rows have chosen, those left out, too.
    """

    family: str
    stages: tuple[Stage, ...]
    leave_one_out: float
    calibrated: float
    dof: float
    alpha: float
    evidence: float = math.inf
    gap_variance: float = 0.0
    n_units: int = 0
    handicap: float = 1.0
    bandwidths: tuple[float, ...] = (0.0,)
    n_chosen: int = 0

    @classmethod
    def from_path(
        cls, family: str, basis: Basis, path: RidgePath, alpha: float, gap: float, **known: Any
    ) -> Candidate:
        """Columns with one ridge, whose left-out errors are those of its path.

        Parameters
        ----------
        path : RidgePath
            Of the basis' columns at the rows.
        gap : float
            Variance of the mean between the rows.
        **known
            Further attributes.
        """
        stages = (Stage(basis, path.coef(alpha), path.factor(alpha)),)
        expected = math.sqrt(path.spread(alpha) + gap)
        left_out, dof = path.leave_one_out(alpha), path.dof(alpha)
        return cls(family, stages, left_out, expected, dof, alpha, gap_variance=gap, **known)

    def mean(self, X: Tensor) -> Tensor:
        """Prediction (n, m) in scaled units."""
        total = self.stages[0].mean(X)
        for stage in self.stages[1:]:
            total = total + stage.mean(X)
        return total

    def followed_by(self, stage: Candidate) -> Candidate:
        """Sum of this one and another that was fitted to what this one leaves over."""
        return replace(
            stage,
            family=self.family,
            stages=self.stages + stage.stages,
            bandwidths=self.bandwidths + stage.bandwidths,
            calibrated=math.sqrt(stage.calibrated**2 + self.gap_variance),
            dof=self.dof + stage.dof,
            n_units=self.n_units + stage.n_units,
            handicap=self.handicap,
        )

    def record(self, taken: bool) -> dict[str, Any]:
        """What is told of it when a fit is described."""
        return {
            "what": f"{self.family}, {self.n_units} columns, stages: {len(self.stages)}",
            "left_out": float(self.leave_one_out),
            "calibrated": float(self.calibrated),
            "taken": taken,
        }

    def spent(self, n_rows: int) -> float:
        """Factor by which errors at left-out rows are too small, since all rows chose lengths.

        It is that of the variance, by the degrees of freedom that are left with and without these.
        """
        left = n_rows - self.dof
        if left <= 0:
            return MOST_SPENT if self.n_chosen else 1.0
        return min(math.sqrt(left / max(left - self.n_chosen, left / MOST_SPENT**2)), MOST_SPENT)

    def score(self, white: bool) -> float:
        """Score between families; `white` when a smooth model has left nothing but noise.

        Interpolants of noise look well calibrated: there leave-one-out decides alone.
        """
        if white:
            return self.handicap * self.leave_one_out
        return self.handicap * math.sqrt(max(self.calibrated, LEAST_ERROR) * self.leave_one_out)
