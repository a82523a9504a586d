"""Variable projection: Levenberg-Marquardt on what least squares leaves over.

The coefficients are eliminated by a ridge solve inside (Golub and Pereyra 1973) and the rest is
descended with Kaufman's Jacobian (1975). Any `ParametricBasis` will do. The parts are small: an
evaluation of the projected problem, the damped step, the control of the damping, the ridge that
follows progress, and the best iterate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.bases.base import ParametricBasis
from skpou.solvers.least_squares import back_substitute
from skpou.solvers.statistics import triangular_factor
from skpou.training.records import TrainingResult


@dataclass
class ProjectedFit:
    """The least-squares solution for one theta.

    Attributes
    ----------
    theta : Tensor of shape (n_parameters,)
    coef : Tensor of shape (p, m)
        Ridge solution.
    residual : Tensor of shape (n, m)
        Weighted residual ``sqrt(w) (A c - y)``.
    value : float
        Sum of squares with the ridge's share.
    Q, R : Tensor of shape (n, p) and (p, p)
        Factors of the weighted columns.
    top, bottom : Tensor of shape (p, p)
        Orthogonal factor of ``[R; s I]``.
    ridged : Tensor of shape (p, p)
        Triangular factor of ``[A; s I]``.
    """

    theta: Tensor
    coef: Tensor
    residual: Tensor
    value: float
    Q: Tensor
    R: Tensor
    top: Tensor
    bottom: Tensor
    ridged: Tensor

    def leave_one_out(self) -> float:
        """Root mean square over rows and targets of the left-out weighted residuals."""
        leverage = (self.Q @ self.top).square().sum(1)
        left_out = self.residual / (1 - leverage).clamp_min(1e-6)[:, None]
        return float(left_out.square().mean().sqrt())

    def rms(self) -> float:
        """Root mean square of the weighted residual."""
        return float(self.residual.square().mean().sqrt())


class ProjectedProblem:
    """Least squares in the coefficients for any theta.

    Parameters
    ----------
    basis : ParametricBasis
        Columns at the rows.
    y : Tensor of shape (n, m)
        Targets.
    weight : Tensor of shape (n,)
        Frequency weights.
    """

    def __init__(self, basis: ParametricBasis, y: Tensor, weight: Tensor):
        self.basis = basis
        self.root = weight.sqrt()[:, None]
        self.y = y * self.root
        self.rms = float(self.y.square().mean().sqrt()) or 1.0

    def solve(self, theta: Tensor, ridge: float) -> ProjectedFit:
        """Eliminate the coefficients; `ridge` multiplies the number of rows."""
        A = self.basis.matrix(theta) * self.root
        n, p = A.shape
        if n < p:
            A = torch.cat([A, A.new_zeros((p - n, p))])
        Q, R = torch.linalg.qr(A)
        strength = math.sqrt(ridge * n)
        eye = torch.eye(p, dtype=A.dtype, device=A.device)
        stacked, ridged = torch.linalg.qr(torch.cat([R, strength * eye]))
        top, bottom = stacked[:p], stacked[p:]
        coef = back_substitute(ridged, top.T @ (Q[:n].T @ self.y))
        residual = A[:n] @ coef - self.y
        value = float(residual.square().sum() + (strength * coef).square().sum())
        if not math.isfinite(value):
            value = math.inf
        return ProjectedFit(theta, coef, residual, value, Q[:n], R, top, bottom, ridged)

    def linearise(self, fit: ProjectedFit, ridge: float) -> Tensor:
        """Triangular factor of ``[J, r]`` with Kaufman's Jacobian ``J = P_perp (dA c)``.

        P_perp projects onto the complement of the columns of ``[A; s I]``.
        """
        raw = self.basis.jacobian(fit.theta, fit.coef) * self.root[:, :, None]
        n, m, k = raw.shape
        flat = raw.reshape(n, m * k)
        inner = fit.top.T @ (fit.Q.T @ flat)
        upper = (flat - fit.Q @ (fit.top @ inner)).reshape(n * m, k)
        lower = -(fit.bottom @ inner).reshape(-1, k)
        strength = math.sqrt(ridge * n)
        residual = torch.cat([fit.residual.reshape(-1), (strength * fit.coef).reshape(-1)])
        J = torch.cat([upper, lower])
        return triangular_factor(torch.cat([J, residual[:, None]], 1))


def damped_step(factor: Tensor, damping: float) -> Tensor:
    """Solve ``min |J s + r|^2 + damping |D s|^2`` as the stacked system ``[J; sqrt(mu) D]``.

    D holds the column norms of J (Marquardt), so that the step does not depend on the units
    of theta. The normal equations would square J's condition.

    Parameters
    ----------
    factor : Tensor of shape (k + 1, k + 1)
        Triangular factor of ``[J, r]``.
    damping : float
        Positive.

    Returns
    -------
    Tensor of shape (k,)
    """
    R, z = factor[:-1, :-1], factor[:-1, -1:]
    norms = R.square().sum(0)
    tiny = torch.finfo(R.dtype).tiny
    norms = norms.clamp_min(1e-14 * float(norms.max()) + tiny).sqrt()
    stacked = torch.cat([R, math.sqrt(damping) * torch.diag(norms)])
    target = torch.cat([-z, torch.zeros_like(z)])
    Q, small = torch.linalg.qr(stacked)
    return back_substitute(small, Q.T @ target).squeeze(1)


@dataclass
class DampingControl:
    """Marquardt's damping: down after success, up after failure."""

    value: float = 1e-3
    decrease: float = 5.0
    increase: float = 4.0
    least: float = 1e-12

    def succeed(self) -> None:
        """Trust the linear model more."""
        self.value = max(self.value / self.decrease, self.least)

    def fail(self) -> None:
        """Trust it less."""
        self.value *= self.increase


@dataclass
class RidgeSchedule:
    """Ridge tied to progress: ``lam <- min(lam, (share * relative rms residual)^2)``.

    A fixed tiny ridge lets the coefficients explode on steep targets, a fixed large one is the
    floor of the error. When progress stalls, the share falls by ten.
    """

    value: float = 1e-10
    share: float = 1e-2
    least_share: float = 1e-6
    least: float = 1e-30

    def follow(self, relative_rms: float) -> bool:
        """Lower the ridge if progress allows; returns whether it changed."""
        target = max((self.share * relative_rms) ** 2, self.least)
        lower = target < self.value
        if lower:
            self.value = target
        return lower

    def stall(self) -> bool:
        """Lower the share; returns False when it has reached its end."""
        self.share /= 10
        return self.share >= self.least_share


def levenberg_marquardt(
    problem: ProjectedProblem,
    theta: Tensor,
    *,
    max_iter: int = 300,
    ridge: RidgeSchedule | None = None,
    tol: float = 1e-14,
) -> TrainingResult:
    """Minimise the projected residual from a start.

    Parameters
    ----------
    problem : ProjectedProblem
        Basis, targets and weights.
    theta : Tensor of shape (n_parameters,)
        Start.
    max_iter : int, default=300
        Steps.
    ridge : RidgeSchedule, default=None
        None: the default schedule.
    tol : float, default=1e-14
        Relative rms residual at which to stop.

    Returns
    -------
    TrainingResult
        Its state is the `ProjectedFit` of the last step, which is the best of its ridge; its
        score the leave-one-out error.
    """
    ridge = ridge or RidgeSchedule()
    damping = DampingControl()
    fit = problem.solve(theta, ridge.value)
    curve, slow, stalls, code = [fit.value], 0, 0, "max_iter"
    if not math.isfinite(fit.value):
        return TrainingResult(fit, math.inf, 1, curve, "non_finite", "The start is not finite.")
    for step in range(max_iter):
        moved = _try_steps(problem, fit, ridge.value, damping)
        gain = 0.0
        if moved is not None:
            gain = (fit.value - moved.value) / fit.value if fit.value else 0.0
            fit = moved
            curve.append(fit.value)
        slow = slow + 1 if gain < 1e-3 else 0
        stuck = moved is None or slow > 3
        if fit.rms() <= tol * problem.rms:
            code = "converged"
            break
        if stuck:
            slow, stalls = 0, stalls + 1
            damping.value = 1e-3 if moved is None else damping.value
            if not ridge.stall() or stalls > 3:
                code = "converged"
                break
        if (stuck or step % 10 == 9) and ridge.follow(fit.rms() / problem.rms):
            fit = problem.solve(fit.theta, ridge.value)
            damping.value = max(damping.value, 1e-4)
    message = "" if code == "converged" else f"Levenberg-Marquardt used all {max_iter} steps."
    chosen = {"ridge": ridge.value}
    return TrainingResult(fit, fit.leave_one_out(), len(curve), curve, code, message, chosen)


def _try_steps(
    problem: ProjectedProblem, fit: ProjectedFit, ridge: float, damping: DampingControl
) -> ProjectedFit | None:
    """First of ten ever shorter steps that lowers the value, or None."""
    factor = problem.linearise(fit, ridge)
    if not bool(torch.isfinite(factor).all()):
        return None
    for _ in range(10):
        candidate = problem.solve(fit.theta + damped_step(factor, damping.value), ridge)
        if candidate.value < fit.value:
            damping.succeed()
            return candidate
        damping.fail()
    return None
