"""Curves along which a hyperbolic equation in the plane carries what is not smooth.

Across a characteristic x(t) slopes of a solution may jump (Courant, Hilbert, "Methods of
mathematical physics", vol. 2, Ch. V). Its speed x' = s is a root of the principal part: of
a s^2 - b s + c = 0 where a u_tt + b u_tx + c u_xx leads, an eigenvalue of A^-1 C where
A u_t + C u_x does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.equations import Problem
from skpou.partitions.equations.columns import gauss, legendre_values
from skpou.physics import Constants

#: Terms of the series of a curve in a slab.
N_TERMS = 12
#: Most sweeps of the integration of a curve, and change that ends them.
SWEEPS, SETTLED = 60, 1e-15
#: Change, in units of that round-off, of a curve that has settled.
SETTLES = 10
#: Halvings of an interval, one for each binary digit and some to spare.
BISECTIONS = 60
#: Difference of speeds, relative to the largest one, that round-off explains.
SAME_SPEED = 1e-9
#: Points at which speeds are looked at before all else.
LOOKED_AT = 64
#: Times of a slab at which curves are compared: twenty for each half wave of their last term.
N_TIMES = 257

Speeds = Callable[[np.ndarray], np.ndarray]


class Line(NamedTuple):
    """A characteristic: where it is now, and the number of its speed in ascending order."""

    place: float
    branch: int


@dataclass(frozen=True)
class PrincipalPart:
    """The derivatives of highest order in an equation in the plane.

    Attributes
    ----------
    pointwise : Pointwise
        The residual, as a function of u and its derivatives.
    at : Tensor of shape (D,)
        A point in units of X: where columns that do not vary are.
    column : int
        The marched one, t.
    """

    problem: Problem
    pointwise: Any
    at: Tensor
    column: int
    m: int

    @functools.cached_property
    def along(self) -> dict[Any, list[int]]:
        """Columns along which each derivative is taken."""
        return {key: sorted(self.problem.scaled(key)) for key in self.pointwise.keys}

    @property
    def order(self) -> int:
        """Order of the highest derivative."""
        return max(len(part) for part in self.along.values())

    def slopes(self, points: np.ndarray, seed: int) -> dict[tuple, np.ndarray]:
        """Slopes (n, k) in each of them at points (n, 2), where u is drawn."""
        scaling, unit = self.problem.scaling, self.problem.unit
        at = torch.as_tensor(points, dtype=self.at.dtype, device=self.at.device).clip(0, 1)
        where = self.at.expand(len(points), -1).clone()
        where[:, scaling.columns] = at * scaling.width + scaling.offset
        rng = np.random.default_rng(seed)
        values = {
            key: unit(key) * where.new_tensor(rng.standard_normal(len(points)))
            for key in self.pointwise.keys
        }
        _, found, _ = self.pointwise.linearise(values, where, Constants({}))
        return {
            (key[0], *self.along[key]): unit(key) * slope.cpu().numpy()
            for key, slope in found.items()
            if len(self.along[key]) == self.order
        }

    def speeds(self, points: np.ndarray, seed: int = 0) -> np.ndarray:
        """Speeds (n, R), ascending; NaN where one is not real."""
        found, t, x = self.slopes(points, seed), self.column, 1 - self.column
        none = np.zeros((len(points), self.m))
        if self.order == 2:
            return _of_second_order(
                *(found.get((0, *sorted(pair)), none)[:, 0] for pair in ((t, t), (t, x), (x, x)))
            )
        return _of_first_order(
            *(np.stack([found.get((i, j), none) for i in range(self.m)], 2) for j in (t, x))
        )


def _of_second_order(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Roots of a s^2 - b s + c."""
    with np.errstate(all="ignore"):
        root = np.sqrt(b**2 - 4 * a * c)
        return np.sort(np.stack([(b - root) / (2 * a), (b + root) / (2 * a)], 1), axis=1)


def _of_first_order(A: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Eigenvalues of A^-1 C; NaN where equations are not as many as unknowns, or A is singular."""
    n, k, m = A.shape
    try:
        roots = np.linalg.eigvals(np.linalg.solve(A, C)) if k == m else np.full((n, m), np.nan)
    except np.linalg.LinAlgError:
        roots = np.full((n, m), np.nan)
    real = np.abs(roots.imag) <= SAME_SPEED * (1 + np.abs(roots))
    return np.sort(np.where(real, roots.real, np.nan), axis=1)


def speeds_of(problem: Problem, column: int, m: int) -> Speeds | None:
    """Speeds (n, R) in the unit box at its points (n, 2); None for what is not hyperbolic.

    Speeds that depend on the solution or an unknown are none either: where lines go is not known
    before.

    Parameters
    ----------
    column : int
        The marched one, t.
    """
    terms = [t for t in problem.terms if not t.is_condition and not t.length]
    if len(terms) != 1 or len(problem.scaling.columns) != 2 or problem.unknowns:
        return None
    part = PrincipalPart(problem, terms[0].pointwise, terms[0].x[0], column, m)
    if part.order not in (1, 2) or (part.order == 2 and m > 1):
        return None
    points = np.random.default_rng(0).random((LOOKED_AT, 2))
    first, second = part.speeds(points, 0), part.speeds(points, 1)
    size = np.abs(first).max()
    if not np.isfinite(first).all() or not np.abs(first - second).max() <= SAME_SPEED * size:
        return None
    if part.order == 2 and not (np.diff(first, axis=1) > SAME_SPEED * size).all():
        return None
    return part.speeds


def curves(speeds: Speeds, lines: list[Line], start: float, end: float, column: int):
    """Legendre series (L, K) of lines between two times; None where they do not settle.

    Picard's iteration of x(t) = x_0 + the integral of s(x, t).
    """
    nodes, weights = gauss(N_TERMS)
    table = legendre_values(nodes, N_TERMS - 1)
    # Coefficients of the series of a function by its values at the nodes.
    transform = (2 * np.arange(N_TERMS) + 1)[:, None] * table.T * weights
    branch = np.array([line.branch for line in lines])
    first = np.array([line.place for line in lines])
    series = np.zeros((len(lines), N_TERMS))
    series[:, 0] = first
    half = (end - start) / 2
    time = start + half * (nodes + 1)
    for _ in range(SWEEPS):
        points = np.empty((len(lines), N_TERMS, 2))
        points[..., column], points[..., 1 - column] = time, series @ table.T
        found = speeds(points.reshape(-1, 2)).reshape(len(lines), N_TERMS, -1)
        s = np.take_along_axis(found, branch[:, None, None], 2)[..., 0]
        if not np.isfinite(s).all():
            return None
        new = _integral(half * (s @ transform.T))
        new[:, 0] += first
        moved = np.abs(new - series).max()
        # What is round-off is no curve.
        new[np.abs(new) < SETTLED] = 0.0
        series = new
        if moved <= SETTLES * SETTLED:
            return series
    return None


def _integral(series: np.ndarray) -> np.ndarray:
    """Series of integrals from -1 on, cut off: that of P_k is (P_(k+1) - P_(k-1)) / (2 k + 1)."""
    found = np.zeros_like(series)
    for k in range(series.shape[1]):
        part = series[:, k] / (2 * k + 1)
        if k + 1 < series.shape[1]:
            found[:, k + 1] += part
        found[:, max(k - 1, 0)] += -part if k else part
    return found


def first_meeting(series: np.ndarray) -> float | None:
    """First time on (-1, 1] at which neighbours (L, K) among ordered curves meet; None without."""
    time = np.linspace(-1, 1, N_TIMES)
    gaps = np.diff(series, axis=0)
    values = gaps @ legendre_values(time, series.shape[1] - 1).T
    found = None
    for gap, value in zip(gaps, values, strict=True):
        met = np.flatnonzero(value[1:] <= 0)
        if not len(met) or (gap == 0).all():
            continue
        low, high = time[met[0]], time[met[0] + 1]
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if (legendre_values(np.array([middle]), len(gap) - 1) @ gap)[0] <= 0:
                high = middle
            else:
                low = middle
        found = high if found is None else min(found, high)
    return found
