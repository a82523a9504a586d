"""Left-out errors of partitions whose gates are fitted anew without the rows.

Gates that were found with all rows remember those that are left out: coefficients alone, solved for
anew, were seen to err by 1e-9 at left-out lines of a grid where the truth was missed by 1e-3. So
the gates' coefficients are solved for, too, to first order. Without a level they move too far for
that, and are descended to from where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, all_but
from skpou.core.linalg import NUMERICAL_FAILURES, TINY
from skpou.core.models import (
    LeftOut,
    Maker,
    are_even,
    left_out_errors,
    levels_of_columns,
    residual_makers,
    sets_of_levels,
)
from skpou.core.optim import ProjectedProblem, RidgeSchedule, levenberg_marquardt
from skpou.partitions.gates.products import PartitionPolynomials
from skpou.partitions.gates.tree import PartitionTree

#: Steps of a descent without a level: it begins close to its end.
STEPS = 10
#: Weight of the gates' coefficients in units of the ridge, as they were found with, and promised
#: decrease of the sum of squares, relative to it, below which no step is tried.
SHRINKAGE, NEGLIGIBLE = 1.0, 1e-7
#: Relative residual that is round-off in float64.
LEAST_TOL = 1e-13
#: Largest share of a partition at any row below which it is empty.
EMPTY = 1e-6


@dataclass(frozen=True)
class SoftGates:
    """Polynomials in partitions by soft gates, at the rows.

    Attributes
    ----------
    basis : PartitionPolynomials
        Their columns; `theta` (k,) are the coefficients of the gates' logits.
    theta : Tensor of shape (k,)
    coef : Tensor of shape (p, m)
        Coefficients of the polynomials.
    n_fixed : int
        Coefficients, the first ones, of sharp gates, which stay.
    residual : float
        Root mean square of what is left at the rows, in units of y.
    """

    basis: PartitionPolynomials
    theta: Tensor
    coef: Tensor
    n_fixed: int
    residual: float

    @classmethod
    def of(
        cls, tree: PartitionTree, polynomials: Tensor, coef: Tensor, X: Tensor, residual: float
    ) -> SoftGates | None:
        """Those of a tree at rows X (n, d); None without soft gates that are linear in theta.

        Parameters
        ----------
        polynomials : Tensor of shape (n, P)
            At the rows, in float64.
        coef : Tensor of shape (N, P, m)
        X : Tensor of shape (n, d)
            In float64.
        residual : float
            See `SoftGates`.
        """
        levels, first = tree.levels, tree.first_soft
        if first == len(levels) or any(level.network is not None for level in levels):
            return None
        thetas, parents = [level.theta.double() for level in levels], [g.parent for g in levels]
        if len(levels) == 1:
            used = tree.log_proba(X.to(levels[0].theta)).exp().amax(0) > EMPTY
            thetas, coef = [thetas[0][used]], coef[used]
            parents = [parents[0][used]]
        features = [level.basis(X.shape[1]).matrix(X) for level in levels]
        basis = PartitionPolynomials.of_features(polynomials, features, parents)
        theta = torch.cat([part.reshape(-1) for part in thetas])
        n_fixed = sum(part.numel() for part in thetas[:first])
        return cls(basis, theta, coef.double().reshape(-1, coef.shape[2]), n_fixed, residual)

    def makers(self, root: Tensor) -> list[list[Maker]]:
        """For each target those of the polynomials and, to first order, of soft gates.

        `root` (n, 1) are the roots of the weights.
        """
        columns = self.basis.matrix(self.theta)
        slopes = self.basis.jacobian(self.theta, self.coef)[:, :, self.n_fixed :]
        return [residual_makers(torch.cat([columns, own], 1) * root) for own in slopes.unbind(1)]

    def without(self, rows: Rows, part: np.ndarray) -> Tensor:
        """Errors (l, m) at rows that are left out, after a descent of the gates without them."""
        index = torch.as_tensor(part, device=rows.X.device)
        number = all_but(rows.n_rows, index)
        others = rows.subset(number)
        problem = ProjectedProblem(self.basis.rows(number), others.y, others.weight, SHRINKAGE)
        ridge = RidgeSchedule()
        ridge.follow(self.residual)
        found = levenberg_marquardt(
            problem,
            self.theta,
            max_iter=STEPS,
            ridge=ridge,
            tol=LEAST_TOL,
            negligible=NEGLIGIBLE,
            patient=False,
        ).state
        return rows.y[index] - self.basis.rows(index).matrix(found.theta) @ found.coef


class GateRefits:
    """Left-out errors without rows, of the gates as of the coefficients.

    Parameters
    ----------
    maker : Maker, default=None
        That of the fit as it is, where it leaves a noise.
    """

    def __init__(self, gates: SoftGates, rows: Rows, maker: Maker | None = None):
        self.gates, self.rows, self.maker = gates, rows, maker
        self.target: int | None = None
        self._descended: dict[bytes, Tensor | None] = {}

    @cached_property
    def _makers(self) -> list[list[Maker]]:
        return self.gates.makers(self.rows.weight.sqrt()[:, None])

    def of_target(self, target: int) -> GateRefits:
        """That of one of the targets; all share the descents."""
        one = GateRefits(self.gates, self.rows, self.maker and self.maker.of_target(target))
        one.target, one._descended = target, self._descended
        one.__dict__["_makers"] = self._makers
        return one

    def left_out_errors(self, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
        """Errors of the target at sets of rows."""
        target = self.target or 0
        found = left_out_errors(self._makers[target], rows, sets)
        error, variance, told = found.error.copy(), found.variance.copy(), found.told.copy()
        refitted = False
        for number in self._whole_levels(found):
            own, rows_of = self._without(sets[number]), found.group == number
            if own is None:
                continue
            error[rows_of] = _between(own[:, [target]].cpu().numpy(), error[rows_of])
            # That to first order is as far off as such errors are: noise alone is no excuse.
            variance[rows_of] = found.noise[rows_of]
            told[number] = refitted = True
        return replace(
            found, error=error, variance=variance, told=told, maker=self.maker, refitted=refitted
        )

    def _whole_levels(self, found: LeftOut) -> Sequence[int]:
        """Sets without which gates move far: even levels, see `Refits.tell`.

        Those of the parts of sharp gates are not descended to.
        """
        X = self.rows.X.cpu().numpy()
        if self.gates.n_fixed or not all(are_even(levels) for levels in levels_of_columns(X)):
            return ()
        return [number for numbers in sets_of_levels(found, X).values() for number in numbers]

    def _without(self, part: np.ndarray) -> Tensor | None:
        key = part.tobytes()
        if key not in self._descended:
            try:
                own = self.gates.without(self.rows, part)
            except NUMERICAL_FAILURES:
                own = None
            known = own is not None and bool(torch.isfinite(own).all())
            self._descended[key] = own if known else None
        return self._descended[key]


def _between(descended: np.ndarray, first_order: np.ndarray) -> np.ndarray:
    """Errors (l, m) in the middle between two orders of magnitude, those to first order at most.

    A descent begins with what it has seen of the level, and errs by less than the truth does;
    first order goes too far. A descent that errs by more is not at its end.
    """
    own, most = (float(np.square(part).sum()) for part in (descended, first_order))
    if not own < most:
        return first_order
    return descended * (most / max(own, TINY)) ** 0.25
