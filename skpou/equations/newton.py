"""Gauss-Newton for equations that are not linear in the solution and in unknown constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skpou.core.linalg import ridge_coefficients
from skpou.equations.level import Iterate, Level, norm, stacked

#: Largest change of an unknown in one step, as a share of its bounds or of its size.
TRUST = 0.03
#: Steps that may gain little before the descent ends.
PATIENCE = 8


def solve_affine(level: Level, scales: Sequence[float], alpha: float) -> Iterate:
    """One least-squares pass: all there is to do for affine equations."""
    unknowns = level.phi.new_zeros(0)
    blocks = level.blocks(level.zero(), unknowns)
    residual, jacobian = stacked(blocks, scales)
    solution, R = ridge_coefficients(jacobian, -residual[:, None], alpha)
    coef = solution.reshape(level.n_outputs, level.n_columns).T.contiguous()
    left = residual + jacobian @ solution[:, 0]
    return Iterate(coef, unknowns, float(left.norm()), 1, R)


def gauss_newton(
    level: Level,
    start: Iterate,
    scales: Sequence[float],
    *,
    alpha: float,
    max_iter: int,
    free: bool = True,
    damping: float = 1e-9,
) -> Iterate:
    """Damped steps from a start, bounded in the unknowns.

    Parameters
    ----------
    level : Level
    start : Iterate
    scales : sequence of float
        Factors of the level's blocks.
    alpha : float
        Ridge of a step relative to the largest column norm.
    max_iter : int
        Most steps.
    free : bool, default=True
        Whether the unknowns move.
    damping : float, default=1e-9
        First damping; it falls with success and rises with failure.
    """
    limits = list(level.problem.unknowns.values())
    coef, unknowns = start.coef, start.unknowns
    value = norm(level.residuals(coef, unknowns), scales)
    m, p, done, slow = level.n_outputs, level.n_columns, 0, 0
    for _ in range(max_iter):
        residual, jacobian = stacked(level.blocks(coef, unknowns), scales)
        if not free:
            jacobian = jacobian[:, : m * p]
        if not bool(torch.isfinite(jacobian).all() and torch.isfinite(residual).all()):
            break
        size = jacobian.square().sum(0).sqrt()
        least = torch.zeros_like(size)  # Unknowns have units of their own.
        least[: m * p] = 1e-14 * size[: m * p].max()
        size = torch.where(size > least, size, 1.0)
        Q, R = torch.linalg.qr(jacobian / size)
        target = -(Q.T @ residual)
        moved = None
        for _ in range(8):
            ridge = max(damping, alpha)
            step = _bounded_step(R, target, ridge, size, unknowns, limits if free else [])
            change = step[m * p :] if free else unknowns.new_zeros(len(unknowns))
            # Unknowns are nearly free in a rich basis: no step may carry them far.
            share = _share(change, unknowns, limits)
            unknowns_new = inside(unknowns + share * change, limits)
            limited = free and not torch.equal(unknowns_new, unknowns + change)
            if limited:
                # What is best for the coefficients with unknowns that go no further.
                kept = R[:, m * p :] @ ((unknowns_new - unknowns) * size[m * p :])
                step = ridge_coefficients(R[:, : m * p], (target - kept)[:, None], ridge)[0][:, 0]
                step = step / size[: m * p]
            coef_new = coef + step[: m * p].reshape(m, p).T
            value_new = norm(level.residuals(coef_new, unknowns_new), scales)
            if value_new < value:
                moved = Iterate(coef_new, unknowns_new, value_new)
                break
            damping = max(damping * 10, 1e-15)
        done += 1
        if moved is None:
            break
        # Steps that were cut short are not slow because the end is near.
        slow = slow + 1 if moved.value > 0.5 * value and not limited else 0
        coef, unknowns, value = moved.coef, moved.unknowns, moved.value
        damping = max(damping / 10, 1e-17)
        if slow >= PATIENCE or not value:
            break
    return Iterate(coef, unknowns, value, done)


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
            most = 0.3 * max(abs(value), abs(unknown.init), 1e-3)
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
