"""Gauss-Newton for equations that are not linear in the solution and in unknown constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skpou.core.linalg import ridge_coefficients
from skpou.core.optim import TenfoldDamping, first_decrease
from skpou.equations.collocation import CollocationSystem, Iterate, norm, stacked

#: Largest change of an unknown in one step, as a share of its bounds; without bounds as a share of
#: its size, and what counts as the size of one that starts at zero.
TRUST, TRUST_OF_SIZE, LEAST_SIZE = 0.03, 0.3, 1e-3
#: First damping near a solution: steps are Gauss and Newton's but for round-off.
DAMPING = 1e-9
#: Part of the residual that a step leaves where it gains little, and such steps in a row that end
#: the descent: near a solution it converges far faster.
SLOW, PATIENCE = 0.5, 8
#: Norm of a column, relative to the largest, that is round-off of zero.
NO_COLUMN = 1e-14


def solve_affine(system: CollocationSystem, scales: Sequence[float], alpha: float) -> Iterate:
    """One least-squares pass: all there is to do for affine equations."""
    unknowns = system.phi.new_zeros(0)
    blocks = system.blocks(system.zero(), unknowns)
    residual, jacobian = stacked(blocks, scales)
    solution, R = ridge_coefficients(jacobian, -residual[:, None], alpha)
    coef = solution.reshape(system.n_outputs, system.n_columns).T.contiguous()
    left = residual + jacobian @ solution[:, 0]
    return Iterate(coef, unknowns, float(left.norm()), 1, R)


def gauss_newton(
    system: CollocationSystem,
    start: Iterate,
    scales: Sequence[float],
    *,
    alpha: float,
    max_iter: int,
    free: bool = True,
    damping: float = DAMPING,
) -> Iterate:
    """Damped steps from a start, bounded in the unknowns.

    Parameters
    ----------
    scales : sequence of float
        Factors of the system's blocks.
    alpha : float
        Ridge of a step relative to the largest column norm.
    free : bool, default=True
        Whether the unknowns move.
    damping : float, default=1e-9
        First damping; it falls with success and rises with failure.
    """
    limits = list(system.problem.unknowns.values())
    coef, unknowns = start.coef, start.unknowns
    value = norm(system.residuals(coef, unknowns), scales)
    m, p, done, slow = system.n_outputs, system.n_columns, 0, 0
    control = TenfoldDamping(damping)
    for _ in range(max_iter):
        residual, jacobian = stacked(system.blocks(coef, unknowns), scales)
        if not free:
            jacobian = jacobian[:, : m * p]
        if not bool(torch.isfinite(jacobian).all() and torch.isfinite(residual).all()):
            break
        step = _StepModel(residual, jacobian, coef, unknowns, limits, free)

        def propose(damping: float, step: _StepModel = step) -> tuple[_Moved, float]:
            moved = step.moved(max(damping, alpha))
            moved.value = norm(system.residuals(moved.coef, moved.unknowns), scales)
            return moved, 0.0

        moved = first_decrease(propose, value, control)
        done += 1
        if moved is None:
            break
        # Steps that were cut short are not slow because the end is near.
        slow = slow + 1 if moved.value > SLOW * value and not moved.limited else 0
        coef, unknowns, value = moved.coef, moved.unknowns, moved.value
        if slow >= PATIENCE or not value:
            break
    return Iterate(coef, unknowns, value, done)


@dataclass
class _Moved(Iterate):
    """Where a step leads, and whether bounds or the trust in it have cut it short."""

    limited: bool = False


class _StepModel:
    """Linear model of the residual at an iterate, and its damped, bounded steps."""

    def __init__(
        self,
        residual: Tensor,
        jacobian: Tensor,
        coef: Tensor,
        unknowns: Tensor,
        limits: Sequence,
        free: bool,
    ):
        self.coef, self.unknowns, self.limits, self.free = coef, unknowns, limits, free
        n = self.n_coefficients = coef.numel()
        size = jacobian.square().sum(0).sqrt()
        least = torch.zeros_like(size)  # Unknowns have units of their own.
        least[:n] = NO_COLUMN * size[:n].max()
        self.size = torch.where(size > least, size, 1.0)
        Q, self.R = torch.linalg.qr(jacobian / self.size)
        self.target = -(Q.T @ residual)

    def moved(self, ridge: float) -> _Moved:
        """Where the step of a ridge leads; its value is not known yet."""
        n, R, size, unknowns = self.n_coefficients, self.R, self.size, self.unknowns
        limits = self.limits if self.free else []
        step = _bounded_step(R, self.target, ridge, size, unknowns, limits)
        change = step[n:] if self.free else unknowns.new_zeros(len(unknowns))
        # Unknowns are nearly free in a rich basis: no step may carry them far.
        share = _share(change, unknowns, self.limits)
        to = inside(unknowns + share * change, self.limits)
        limited = self.free and not torch.equal(to, unknowns + change)
        if limited:
            # What is best for the coefficients with unknowns that go no further.
            known = R[:, n:] @ ((to - unknowns) * size[n:])
            step = ridge_coefficients(R[:, :n], (self.target - known)[:, None], ridge)[0][:, 0]
            step = step / size[:n]
        p, m = self.coef.shape
        return _Moved(self.coef + step[:n].reshape(m, p).T, to, math.inf, limited=limited)


def _bounded_step(
    R: Tensor, target: Tensor, ridge: float, size: Tensor, unknowns: Tensor, limits: Sequence
) -> Tensor:
    """Step without the unknowns that lie on a bound and would leave it."""
    keep = torch.ones(len(size), dtype=torch.bool, device=size.device)
    while True:
        step = torch.zeros_like(size)
        step[keep] = ridge_coefficients(R[:, keep], target[:, None], ridge)[0][:, 0]
        step = step / size
        start, stuck = len(size) - len(limits), []
        for j, (value, unknown) in enumerate(zip(unknowns.tolist(), limits, strict=False)):
            low, high = unknown.bounds or (-math.inf, math.inf)
            delta = float(step[start + j])
            if (value <= low and delta < 0) or (value >= high and delta > 0):
                stuck.append(start + j)
        if not stuck:
            return step
        keep[stuck] = False


def _share(change: Tensor, unknowns: Tensor, limits: Sequence) -> float:
    """Share of a step that leaves the unknowns' trust region, at most 1."""
    share = 1.0
    for delta, value, unknown in zip(change.tolist(), unknowns.tolist(), limits, strict=True):
        if unknown.bounds is not None:
            most = TRUST * (unknown.bounds[1] - unknown.bounds[0])
        else:
            most = TRUST_OF_SIZE * max(abs(value), abs(unknown.init), LEAST_SIZE)
        if abs(delta) > most:
            share = min(share, most / abs(delta))
    return share


def inside(unknowns: Tensor, limits: Sequence) -> Tensor:
    """Unknowns moved into their bounds."""
    values = []
    for value, unknown in zip(unknowns.tolist(), limits, strict=True):
        low, high = unknown.bounds or (-math.inf, math.inf)
        values.append(min(max(value, low), high))
    return unknowns.new_tensor(values)
