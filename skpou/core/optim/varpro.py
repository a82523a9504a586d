"""Variable projection: Levenberg-Marquardt on what least squares leaves over.

The coefficients are eliminated by a ridge solve inside (Golub and Pereyra 1973) and the rest is
descended with Kaufman's Jacobian (1975). Any `ParametricBasis` will do. The parts are small: an
evaluation of the projected problem, its linear model with the damped step, the control of the
damping, the ridge that follows progress, and the best iterate. `skpou.lsgd.dual` has the
linear model for more parameters than rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from skpou.core import ParametricBasis, TrainingResult
from skpou.core.linalg import (
    back_substitute,
    is_deficient,
    row_blocks,
    rows_within,
    split_factor,
    triangular_factor,
)
from skpou.core.optim.damping import DampingControl, damped_step, first_decrease
from skpou.core.optim.progress import Judged, Progress

#: Columns for each row from which on the coefficients are found in the span of the rows.
FEW_ROWS = 2
#: Rows for each column from which on these are factored before the ridge is added, not with it.
MORE_ROWS = 2
#: Steps after which the best fit and the ridge are looked at again.
LOOK = 10
#: Damping from which steps go on for another ridge, whose valley is another one.
DAMPING_OF_NEW_RIDGE = 1e-4
#: Diagonal of a triangular factor, relative to its columns and in units of round-off, below which
#: normal equations lose the digits of a projection.
LOST_DIGITS = 1e9
#: Numbers of a Jacobian that are formed at a time: 160 MB.
JACOBIAN_NUMBERS = 20_000_000
#: Smallest one minus leverage that residuals are divided by: where columns determine a row, both
#: are round-off.
LEAST_LEFT = 1e-6
#: Squares of the first and the least ridge, relative to the columns: coefficients stay below 1e5 of
#: the targets while nothing is known, and at last only round-off is left out.
FIRST_RIDGE, LEAST_RIDGE = 1e-10, 1e-30
#: Share of the relative residual that the ridge follows: a hundredth of what is left is not felt. A
#: tenth of that where the ridge would be the floor of the error, as of units that come close to
#: each other. What it is divided by where steps stall, and where that ends: after four times a
#: still smaller ridge has not helped.
RIDGE_SHARE, SMALL_RIDGE_SHARE, SHARE_STEP, LEAST_RIDGE_SHARE = 1e-2, 1e-3, 10, 1e-6


@dataclass
class ProjectedFit:
    """The least-squares solution for one theta.

    Attributes
    ----------
    theta : Tensor of shape (n_parameters,)
    coef : Tensor of shape (p, m)
        Ridge solution.
    value : float
        Sum of squares with the ridge's share.
    A : Tensor of shape (n, p)
        Weighted columns.
    factor : Tensor of shape (q, q)
        Triangular factor of ``[A S; s I]``.
    residual : Tensor of shape (n, m)
        Weighted residual ``A c - y``.
    strength : float
        Ridge s.
    prior : float
        Root of the weight of ``|theta|^2`` in the value.
    span : Tensor of shape (p, q) or None
        Orthonormal columns S that span the rows of A, where these are few: a ridge that is the
        same for all keeps the coefficients there. None: all columns, q = p.
    """

    theta: Tensor
    coef: Tensor
    value: float
    A: Tensor
    factor: Tensor
    residual: Tensor
    strength: float
    prior: float = 0.0
    span: Tensor | None = None

    @functools.cached_property
    def R(self) -> Tensor:
        """Triangular factor (p, p) of ``[A; s I]``."""
        if self.span is None:
            return self.factor
        eye = torch.eye(self.A.shape[1], dtype=self.A.dtype, device=self.A.device)
        return triangular_factor(torch.cat([self.A, self.strength * eye]))

    @functools.cached_property
    def _inner(self) -> tuple[Tensor, Tensor]:
        """Columns (n, q) and coefficients (q, m) in the span of the rows."""
        if self.span is None:
            return self.A, self.coef
        return self.A @ self.span, self.span.T @ self.coef

    def leave_one_out(self) -> float:
        """Root mean square over rows and targets of the left-out weighted residuals."""
        left_out = self.residual / (1 - self._leverage).clamp_min(LEAST_LEFT)[:, None]
        return float(left_out.square().mean().sqrt())

    def calibrated(self, columns: Tensor) -> float:
        """Expected error at other points, from leave-one-out errors in units of their variance.

        Leave-one-out is blind between the rows. Its errors, each in units of its own predicted
        variance, times the predicted variance at probes between the rows are not.

        Parameters
        ----------
        columns : Tensor of shape (k, p)
            Basis columns at the probes.
        """
        spread = self.residual.square().mean(1) / (1 - self._leverage).clamp_min(LEAST_LEFT)
        inner = columns if self.span is None else columns @ self.span
        probed = torch.linalg.solve_triangular(self.factor, inner, upper=True, left=False)
        variance = probed.square().sum(1)
        if self.span is not None:  # What no row tells of keeps its variance under the ridge.
            beyond = (columns - inner @ self.span.T).square().sum(1)
            variance = variance + beyond / max(self.strength**2, torch.finfo(inner.dtype).tiny)
        return float((spread.mean() * (1 + variance.mean())).sqrt())

    @functools.cached_property
    def _leverage(self) -> Tensor:
        """Diagonal (n,) of the hat matrix."""
        Q = torch.linalg.solve_triangular(self.factor, self._inner[0], upper=True, left=False)
        return Q.square().sum(1)

    def rms(self) -> float:
        """Root mean square of the weighted residual."""
        return float(self.residual.square().mean().sqrt())

    def linearise(self, raw: Tensor) -> Tensor:
        """Triangular factor of ``[J, r]`` with Kaufman's Jacobian ``J = P_perp (dA c)``.

        P_perp projects onto the complement of the columns of ``[A; s I]``: by the normal
        equations in their triangular factor and one correction, which costs least, or by the
        orthogonal factor where the condition asks for it.

        Parameters
        ----------
        raw : Tensor of shape (n, m, k)
            Weighted derivative ``dA c`` of the columns alone.
        """
        n, m, k = raw.shape
        A, coef = self._inner
        upper = raw.reshape(n, m * k)
        lower = upper.new_zeros((A.shape[1], m * k))
        if is_deficient(self.factor, LOST_DIGITS * torch.finfo(upper.dtype).eps):
            Q = self._orthogonal()
            stacked = torch.cat([upper, lower])
            stacked = stacked - Q @ (Q.T @ stacked)
            upper, lower = stacked[:n], stacked[n:]
        else:
            for _ in range(2):
                normal = A.T @ upper + self.strength * lower
                inner = torch.linalg.solve_triangular(self.factor.T, normal, upper=False)
                part = back_substitute(self.factor, inner)
                upper, lower = upper - A @ part, lower - self.strength * part
        eye = torch.eye(k, dtype=raw.dtype, device=raw.device)
        J = torch.cat([upper.reshape(n * m, k), lower.reshape(-1, k), self.prior * eye])
        shrunk = (self.strength * coef.reshape(-1), self.prior * self.theta)
        residual = torch.cat([self.residual.reshape(-1), *shrunk])
        return triangular_factor(torch.cat([J, residual[:, None]], 1))

    def _orthogonal(self) -> Tensor:
        """Orthogonal factor (n + q, q) of ``[A S; s I]``."""
        A = self._inner[0]
        eye = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
        return torch.linalg.qr(torch.cat([A, self.strength * eye])).Q


class LinearModel(Protocol):
    """The projected residual, linearised at a theta."""

    def is_finite(self) -> bool:
        """Whether a step can be computed."""

    def step(self, damping: float) -> tuple[Tensor, float]:
        """Damped step (k,) and the decrease of the sum of squares that the model promises."""


@dataclass
class TriangularModel:
    """Linear model by the triangular factor (k + 1, k + 1) of ``[J, r]``."""

    factor: Tensor

    def is_finite(self) -> bool:
        """Whether a step can be computed."""
        return bool(torch.isfinite(self.factor).all())

    def step(self, damping: float) -> tuple[Tensor, float]:
        """See `damped_step`."""
        return damped_step(self.factor, damping)


class ProjectedProblem:
    """Least squares in the coefficients for any theta.

    Parameters
    ----------
    y : Tensor of shape (n, m)
        Targets.
    weight : Tensor of shape (n,)
        Frequency weights.
    shrinkage : float, default=0.0
        Weight of ``|theta|`` beside the coefficients under the ridge.
    relative : bool, default=False
        Whether the ridge multiplies the largest squared column norm at the first theta instead of
        the sum of weights, which is that of a constant column.
    batch_size : int, default=None
        Rows a block of the derivatives, where the basis has `rows`. None: as many as fit into
        some 160 MB.
    """

    def __init__(
        self,
        basis: ParametricBasis,
        y: Tensor,
        weight: Tensor,
        shrinkage: float = 0.0,
        *,
        relative: bool = False,
        batch_size: int | None = None,
    ):
        self.basis = basis
        self.shrinkage = shrinkage
        self.root = weight.sqrt()[:, None]
        self.total = float(weight.sum())
        self.unit: float | None = None if relative else self.total
        self.y = y * self.root
        self.rms = float(self.y.square().mean().sqrt()) or 1.0
        numbers = y.shape[1] * basis.n_parameters
        self.batch_size = batch_size or rows_within(numbers, JACOBIAN_NUMBERS)

    def _strength(self, A: Tensor, ridge: float) -> float:
        """The ridge in the units of the columns."""
        if self.unit is None:
            # That of the start throughout: the derivatives do not follow a change.
            largest = float(A.square().sum(0).max())
            self.unit = largest if math.isfinite(largest) else self.total
        return math.sqrt(ridge * self.unit)

    def solve(self, theta: Tensor, ridge: float) -> ProjectedFit:
        """Eliminate the coefficients; `ridge` is in units of the sum of weights, or `relative`."""
        A = self.basis.matrix(theta) * self.root
        p, strength = A.shape[1], self._strength(A, ridge)
        span, reduced = torch.linalg.qr(A.T) if FEW_ROWS * len(A) < p else (None, A.T)
        R, projected, rss = self._ridged(reduced.T, strength)
        prior = self.shrinkage * strength
        value = float(rss.sum() + (prior * theta).square().sum())
        coef = back_substitute(R, projected)
        coef = coef if span is None else span @ coef
        if ridge < RidgeSchedule.least and not bool(torch.isfinite(coef).all()):
            # Without a ridge columns that the rows do not determine have no coefficients.
            return self.solve(theta, RidgeSchedule.least)
        if not math.isfinite(value):
            value = math.inf
        return ProjectedFit(theta, coef, value, A, R, A @ coef - self.y, strength, prior, span)

    def _ridged(self, A: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
        """Parts of the triangular factor of ``[A, y; s I, 0]``; see `split_factor`."""
        n, p = A.shape
        rows = torch.cat([A, self.y], 1)
        if n > MORE_ROWS * p:
            rows = triangular_factor(rows)
        below = A.new_zeros((p, p + self.y.shape[1]))
        below.diagonal().fill_(strength)
        return split_factor(triangular_factor(torch.cat([rows, below])), p)

    def jacobian(self, fit: ProjectedFit) -> Tensor:
        """Weighted derivative (n, m, k) of the columns times the coefficients."""
        return self.basis.jacobian(fit.theta, fit.coef) * self.root[:, :, None]

    def linearise(self, fit: ProjectedFit) -> LinearModel:
        """Linear model of the projected residual at a fit."""
        if len(self.y) <= self.batch_size or not hasattr(self.basis, "rows"):
            return TriangularModel(fit.linearise(self.jacobian(fit)))
        return TriangularModel(self._streamed(fit))

    def _streamed(self, fit: ProjectedFit) -> Tensor:
        """Triangular factor of ``[J, r]`` from blocks of rows, Jacobian of one block at a time.

        In the factor of ``[A, J, r]`` over ``[s I, 0, s c]``, the rows below those of A belong to
        what A cannot explain: they are the factor of the projected ``[J, r]``.
        """
        basis: Any = self.basis  # one that has `rows`
        p, m = fit.coef.shape
        k = basis.n_parameters
        eye = torch.eye(p, dtype=fit.A.dtype, device=fit.A.device)
        shrunk = fit.strength * fit.coef.T[:, :, None]
        zeros = eye.new_zeros((m, p, k))
        factor = torch.cat([(fit.strength * eye).expand(m, p, p), zeros, shrunk], 2)
        for block in row_blocks(len(self.y), self.batch_size):
            J = basis.rows(block).jacobian(fit.theta, fit.coef)
            J = (J * self.root[block, :, None]).transpose(0, 1)
            A = fit.A[block].expand(m, *fit.A[block].shape)
            r = fit.residual[block].T[:, :, None]
            factor = triangular_factor(torch.cat([factor, torch.cat([A, J, r], 2)], 1))
        rest = factor[:, p:, p:].reshape(-1, k + 1)
        ridge = rest.new_full((k,), fit.prior).diag()
        prior = torch.cat([ridge, fit.prior * fit.theta[:, None]], 1)
        return triangular_factor(torch.cat([rest, prior]))


@dataclass
class RidgeSchedule:
    """Ridge tied to progress: ``lam <- min(lam, (share * relative rms residual)^2)``.

    A fixed tiny ridge lets the coefficients explode on steep targets, a fixed large one is the
    floor of the error. When progress stalls, the share falls by ten.
    """

    value: float = FIRST_RIDGE
    share: float = RIDGE_SHARE
    least_share: float = LEAST_RIDGE_SHARE
    least: float = LEAST_RIDGE

    @classmethod
    def of(
        cls, alpha: float | None, share: float = RIDGE_SHARE, value: float = FIRST_RIDGE
    ) -> RidgeSchedule:
        """One that begins at `value` and follows progress; a given ridge stays."""
        return cls(value, share) if alpha is None else cls(alpha**2, share, least=alpha**2)

    @classmethod
    def fixed(cls, value: float) -> RidgeSchedule:
        """A ridge that stays, whose stall is the end."""
        return cls(value, share=0.0, least=value)

    def follow(self, relative_rms: float) -> bool:
        """Lower the ridge if progress allows; returns whether it changed."""
        target = max((self.share * relative_rms) ** 2, self.least)
        lower = target < self.value
        if lower:
            self.value = target
        return lower

    def stall(self) -> bool:
        """Lower the share; returns False when it has reached its end."""
        self.share /= SHARE_STEP
        return self.share >= self.least_share


def levenberg_marquardt(
    problem: Any,
    theta: Tensor,
    *,
    max_iter: int = 300,
    ridge: RidgeSchedule | None = None,
    tol: float = 1e-14,
    judge: Callable[[Any], float] = ProjectedFit.leave_one_out,
    watch: Callable[[Any, float], None] | None = None,
    negligible: float = 0.0,
    patient: bool = True,
) -> TrainingResult:
    """Minimise the projected residual from a start.

    Parameters
    ----------
    theta : Tensor of shape (n_parameters,)
        Start.
    max_iter : int, default=300
        Steps.
    ridge : RidgeSchedule, default=None
        None: the default schedule.
    tol : float, default=1e-14
        Relative rms residual at which to stop.
    judge : callable, default=ProjectedFit.leave_one_out
        Error of a fit on other points; the best fit by it is returned, looked at every tenth
        step and wherever progress stalls.
    watch : callable, default=None
        Called with the fit and its ridge at the start and after every step.
    negligible : float, default=0.0
        Decrease, relative to the value, below whose promise no step is tried.
    patient : bool, default=True
        Whether to go on where `CREEPING_STEPS` have lowered the residual by less than a factor of
        `CREEPING_GAIN`.

    Returns
    -------
    TrainingResult
        Its state is a `ProjectedFit`, its score the judge's.
    """
    ridge = ridge or RidgeSchedule()
    damping = DampingControl()
    fit = problem.solve(theta, ridge.value)
    curve, code = [fit.value], "max_iter"
    if not math.isfinite(fit.value):
        return TrainingResult(fit, math.inf, 1, curve, "non_finite", "The start is not finite.")
    judged = Judged(judge)
    judged.show(fit, ridge.value)
    progress = Progress(fit.rms())
    for step in range(max_iter):
        if watch is not None:
            watch(fit, ridge.value)
        moved = _try_steps(problem, fit, ridge.value, damping, negligible)
        gain = 0.0 if moved is None or not fit.value else (fit.value - moved.value) / fit.value
        if moved is not None:
            fit = moved
            curve.append(fit.value)
        if not patient and progress.creeps(step, fit):
            code = "converged"
            break
        stuck = progress.is_slow(gain) or moved is None
        looks = stuck or step % LOOK == LOOK - 1
        if looks:
            judged.show(fit, ridge.value)
        if fit.rms() <= tol * problem.rms:
            code = "converged"
            break
        if stuck:
            damping = DampingControl() if moved is None else damping
            if not ridge.stall() or progress.has_stalled_for_good():
                code = "converged"
                break
        if looks and ridge.follow(fit.rms() / problem.rms):
            fit = problem.solve(fit.theta, ridge.value)
            damping.value = max(damping.value, DAMPING_OF_NEW_RIDGE)
    judged.show(fit, ridge.value)
    message = "" if code == "converged" else f"Levenberg-Marquardt used all {max_iter} steps."
    return judged.result(curve, code, message)


def _try_steps(
    problem: ProjectedProblem,
    fit: ProjectedFit,
    ridge: float,
    damping: DampingControl,
    negligible: float = 0.0,
) -> ProjectedFit | None:
    """First of ever shorter steps that lowers the value, or None."""
    model = problem.linearise(fit)
    if not model.is_finite():
        return None

    def propose(damping: float) -> tuple[ProjectedFit | None, float]:
        step, predicted = model.step(damping)
        if predicted < negligible * fit.value:
            return None, predicted
        return problem.solve(fit.theta + step, ridge), predicted

    return first_decrease(propose, fit.value, damping)
