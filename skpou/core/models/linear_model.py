"""The state that least-squares training returns: columns, coefficients, their posterior, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skpou.core import BASES, Basis, Rows, TensorState, to_tensor
from skpou.core.linalg import COPIES_EVALUATED, NO_VARIANCE, evenly
from skpou.core.models.components import Components
from skpou.core.models.covariance import outside_steps
from skpou.core.models.cross_validation import (
    MOST_TOGETHER,
    Makers,
    StagedMakers,
    is_exact,
    own_maker,
    residual_makers,
)
from skpou.core.models.model import Predictor
from skpou.core.models.row_weights import MOST_ROWS, RowWeights

#: Numbers held for each point and target: mean, both variances and their sum.
NUMBERS_A_TARGET = 4
#: Rows that tell the slope of a mean, to a few percent.
SLOPE_ROWS = 1000


@dataclass(frozen=True)
class Stage:
    """One linear combination of columns.

    Attributes
    ----------
    basis : Basis
        Columns; one of `BASES`.
    coef : Tensor of shape (p, m)
    factor : Tensor of shape (q, q), or (m, q, q) with one for each output
        Upper triangular factor R of the basis' weighted `posterior_columns`, ridge rows
        included: their coefficients' posterior covariance is ``sigma^2 (R' R)^-1``.
    """

    basis: Basis
    coef: Tensor
    factor: Tensor

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m)."""
        return self.basis.evaluate(X, self.coef)

    def solved(self, X: Tensor) -> Tensor:
        """Columns (q, n) or (m, q, n): their products are covariances for unit noise."""
        return self._solved(self.basis.posterior_columns(X))

    def _solved(self, columns: Tensor) -> Tensor:
        columns = columns.double()
        R = self.factor.to(columns)
        return torch.linalg.solve_triangular(R.mT, columns.mT, upper=False)

    def mean_and_solved(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """`mean` and `solved` at the same points."""
        mean, columns = self.basis.evaluate_beside(X, self.coef)
        return mean, self._solved(columns)

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays."""
        return {
            "kind": self.basis.kind,
            "basis": self.basis.arrays(),
            # In C order: saving makes it so, and another layout gives other last bits.
            "coef": np.array(self.coef.cpu().numpy(), order="C"),
            "factor": np.array(self.factor.cpu().numpy(), order="C"),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Stage:
        """Rebuild from `arrays`, on the device of `like`."""
        basis = BASES[arrays["kind"]].from_arrays(arrays["basis"], like)
        parts = (to_tensor(arrays[name], like) for name in ("coef", "factor"))
        return cls(basis, *parts)


@dataclass(frozen=True)
class LinearModel(TensorState):
    """Sum of linear combinations of columns, each fitted to what the ones before left over.

    Everything is in scaled units: points in the unit box, targets of unit rms.

    Attributes
    ----------
    stages : tuple of Stage
        At least one.
    noise : Tensor of shape (m,)
        Variance of the residual, degrees of freedom taken off.
    slope : Tensor of shape (m,)
        Root mean square over the data of the mean's gradient. Outside the box nothing says how
        the target goes on: there its standard deviation grows by this for each unit of distance.
    """

    parts: ClassVar[dict[str, Any]] = {"stages": Stage}

    stages: tuple[Stage, ...]
    noise: Tensor
    slope: Tensor

    def mean(self, X: Tensor) -> Tensor:
        """Mean (n, m) at the points X (n, d)."""
        return _total([stage.mean(X) for stage in self.stages])

    def gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the mean."""
        if not X.shape[1]:
            return X.new_zeros((len(X), 0, len(self.noise)))
        return _total([s.basis.evaluate_gradient(X, s.coef) for s in self.stages])

    def epistemic(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the mean under the coefficients' posterior, and outside the box.

        There the posterior is that of the nearest point of the box: bounded columns would have
        it shrink again further out. For each unit of distance the standard deviation grows by the
        slope, or by that of polynomials at the point where it is steeper: they run away there.
        """
        inside = X.clamp(0, 1)
        spread = X.new_zeros((len(X), 1))
        for stage in self.stages:
            solved = stage.solved(inside)
            spread = spread + solved.square().sum(-2).reshape(-1, len(X)).T.to(X)
        return spread * self.noise.to(X) + self.beyond(X) + self._unresolved(inside)

    def beyond(self, X: Tensor) -> Tensor:
        """The part (n, m) of `epistemic` that grows with the distance from the box."""
        square = (X - X.clamp(0, 1)).square().sum(1)
        return square[:, None] * self._steepness(X, square)

    def _unresolved(self, X: Tensor) -> Tensor:
        """Variance (n, m) inside the box by parameters that no row told, and by round-off."""
        found = _total([stage.basis.unresolved(X, stage.coef) for stage in self.stages])
        return found + self._rounded(X)

    def _rounded(self, X: Tensor) -> Tensor | float:
        """Variance (m,) by sums and points in a narrow dtype; of a wide one the rows tell."""
        if X.dtype == torch.float64:
            return 0.0
        squares = _total([stage.coef.square().sum(0) for stage in self.stages])
        return torch.finfo(X.dtype).eps ** 2 * (squares + self.slope.square()).to(X)

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m), in float64, of which `epistemic` is the diagonal."""
        inside = X.clamp(0, 1)
        shared = X.new_zeros((1, len(X), len(X)), dtype=torch.float64)
        for stage in self.stages:
            solved = stage.solved(inside)
            shared = shared + (solved.mT @ solved).reshape(-1, len(X), len(X))
        square = (X - inside).square().sum(1)
        steep = self._steepness(X, square).double().sqrt()
        steps = outside_steps(X).double()
        beyond = (steps @ steps.T)[..., None] * steep[:, None] * steep
        own = torch.diag_embed(self._unresolved(inside).double().T).permute(1, 2, 0)
        return shared.permute(1, 2, 0) * self.noise.double() + beyond + own

    def _steepness(self, X: Tensor, square: Tensor) -> Tensor:
        """Squares (n, m) of the slopes outside the box, by the squared distances (n,) from it."""
        steepness = self.slope.to(X).square().expand(len(X), -1).clone()
        outside = torch.nonzero(square > 0).squeeze(1)
        if len(outside) and any(stage.basis.n_running for stage in self.stages):
            own = self._running_gradient(X[outside]).square().sum(1)
            steepness[outside] = torch.maximum(steepness[outside], own.to(X))
        return steepness

    def _running_gradient(self, X: Tensor) -> Tensor:
        """Gradient (n, d, m) of the part of the mean that runs away outside the box."""
        parts = []
        for stage in self.stages:
            basis, k = stage.basis, stage.basis.n_running
            if k:
                rates = [basis.partial(X, j)[:, :k] for j in range(X.shape[1])]
                parts.append(torch.stack([rate @ stage.coef[:k].to(X) for rate in rates], 1))
        return torch.stack(parts).sum(0)

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at the points X: one Gaussian each."""
        if posterior and torch.equal(X, X.clamp(0, 1)):
            return self._components_inside(X)
        mean = self.mean(X)[:, None, :]
        noise = self.noise.to(X)[None]
        epistemic = self.epistemic(X)[:, None, :] if posterior else torch.zeros_like(mean)
        return Components(X.new_zeros((len(X), 1)), mean, noise, epistemic)

    def _components_inside(self, X: Tensor) -> Components:
        """The same in the box, where one matrix has mean and variance."""
        means, spread = [], X.new_zeros((len(X), 1))
        for stage in self.stages:
            mean, solved = stage.mean_and_solved(X)
            means.append(mean)
            spread = spread + solved.square().sum(-2).reshape(-1, len(X)).T.to(X)
        noise = self.noise.to(X)
        epistemic = (spread * noise + self._unresolved(X))[:, None, :]
        return Components(
            X.new_zeros((len(X), 1)), _total(means)[:, None, :], noise[None], epistemic
        )

    def residual_makers(self, rows: Rows) -> list[Makers]:
        """Of every stage for all ridges, or of the last as it is; of splines through few rows."""
        if any(stage.basis.follows_rows for stage in self.stages):
            return self._weights_of_rows(rows)
        root = rows.weight.sqrt()[:, None]
        columns = None
        if rows.n_rows <= MOST_TOGETHER:
            parts = [s.basis.posterior_columns(rows.X).double() for s in self.stages]
            if is_exact(self.noise):
                return [makers_of_stages([part * root for part in parts], self.stages, rows)]
            columns = torch.cat(parts, 1)
        solved = self.stages[-1].solved(rows.X)
        if solved.ndim == 2:
            return [[own_maker(self, solved.T, rows, columns)]]
        makers: list[Makers] = []
        for target, own in enumerate(solved):
            maker = own_maker(self, own.T, rows, columns)
            maker.residual = maker.residual[:, target : target + 1]
            makers.append([maker])
        return makers

    def _weights_of_rows(self, rows: Rows) -> list[Makers]:
        """What tells the errors of a single spline with a function for each of few rows."""
        (stage, *others) = self.stages
        if others or rows.n_rows > MOST_ROWS:
            return []
        residual = rows.y - self.mean(rows.X).to(rows.y)
        found = stage.basis.weights_of_rows(rows.weight, residual, stage.coef)
        return [] if found is None else [RowWeights(*found)]

    def flattened(self, targets: Tensor) -> LinearModel:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        stages = tuple(
            replace(stage, coef=stage.coef.masked_fill(targets, 0.0)) for stage in self.stages
        )
        noise = self.noise.masked_fill(targets, 1.0)
        return LinearModel(stages, noise, self.slope.masked_fill(targets, 0.0))

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point."""
        return sum(
            COPIES_EVALUATED * max(stage.factor[..., 0].numel(), stage.basis.n_columns)
            + NUMBERS_A_TARGET * len(self.noise)
            for stage in self.stages
        )


def makers_of_stages(columns: Sequence[Tensor], stages: Sequence[Stage], rows: Rows) -> Makers:
    """Residual makers, for all ridges, of stages with weighted columns (n, q) at the rows."""
    if len(columns) == 1:
        return residual_makers(columns[0])
    found, y = [], rows.y
    for part, stage in zip(columns, stages, strict=True):
        found.append((residual_makers(part), y))
        y = y - stage.mean(rows.X).to(y)
    return StagedMakers(found)


def _total(parts: list[Tensor]) -> Tensor:
    """Sum of tensors of one shape."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def slope_rows(X: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """At most `SLOPE_ROWS` of the rows, at which the slope of a mean is measured."""
    some = evenly(len(X), SLOPE_ROWS)
    return X[some], weight[some]


def mean_slope(model: Predictor, X: Tensor, weight: Tensor) -> Tensor:
    """Weighted root mean square (m,) of the mean's gradient, see `slope_rows`."""
    X, weight = slope_rows(X, weight)
    gradient, weight = model.gradient(X).double(), weight.double()
    squares = gradient.square().sum(1)
    return ((weight[:, None] * squares).sum(0) / weight.sum()).sqrt()


def model_of_stages(
    stages: tuple[Stage, ...], noise: Tensor, X: Tensor, weight: Tensor
) -> LinearModel:
    """Model of fitted stages, with its slope measured at the rows.

    The noise is at least round-off of the targets, so that a perfect fit has a width. One row
    says nothing about noise: the size of its target stands for it.
    """
    noise = noise + torch.finfo(noise.dtype).eps ** 2
    if len(X) == 1:
        noise = torch.where(noise > NO_VARIANCE, noise, 1.0)
    bare = LinearModel(stages, noise, torch.zeros_like(noise))
    return LinearModel(stages, noise, mean_slope(bare, X, weight).to(noise))
