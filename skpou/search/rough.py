"""The rough family: splines with a knot at every row, for targets that no smooth basis follows.

On a line a cubic spline, in several dimensions a polyharmonic one; interpolating, or smoothing
with the penalty that leaves the least error at left-out rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import TINY, evenly, free_rows
from skpou.core.models import Stage
from skpou.search.bases.cubic_splines import CubicSplines
from skpou.search.bases.polyharmonic import PolyharmonicSplines
from skpou.search.bases.smoothing_splines import SmoothingSplines, smoothing_splines
from skpou.search.candidates import Candidate
from skpou.search.family import Seen, Task

#: On fewer rows splines cannot tell a smooth curve from noise.
ENOUGH_ROWS = 20
#: Handicap beside a model that leaves noise alone, for each row's part: among such models the
#: smoother one is as good.
WHITE_HANDICAP = 3
#: Most rows; the pilot's rows that choose power and penalty; left-out rows and probes looked at.
MOST_ROWS, PILOT_ROWS, LOOKED_AT = 4000, 600, 400
#: Rows that are looked at before the pilot's, in a thirtieth of the time, and how far behind the
#: best other family they must be to say that there is no hope.
SCOUTING_ROWS, SCOUTED = 150, 30.0
#: How far behind it the pilot's may be, whose error is known better.
PILOTED = 2.0
#: A larger penalty is taken unless a smaller one has so much less error.
WORTH = 0.98
#: Repeated points may differ by this share of the targets' mean square and still be one value.
AGREE = 1e-28
#: Rows that a spline needs, for each column and in all.
ROWS_BEYOND_COLUMNS, FEWEST_ROWS = 4, 6
#: Powers of ten of penalties on a line, in units of the mean gap's cube: step, least, which is felt
#: by no row, and largest beyond the fourth power of the rows, which leaves a straight line.
PENALTY_STEP, LEAST_PENALTY, LARGEST_PENALTY = 0.5, -3, 3
#: Penalties elsewhere in units of the largest eigenvalue, from all but a plane to round-off.
PENALTIES_IN_SPACE = tuple(10.0**e for e in np.arange(2, -14.1, -0.5))
#: Least width of a row's surroundings, in units of the median gap.
LEAST_AROUND = 0.5
#: Stream of the task's seed that rows are drawn from, and powers of the distance that are tried.
ROWS_STREAM, POWERS = 6, (1, 3)


class RoughSplines:
    """Splines through all rows or near them, in coordinates scaled as the sines' are.

    Tried where smooth bases have left an error, on rows enough to tell a curve from noise, and
    without a ridge that was given: it would be one of columns that splines have not got.
    """

    name: ClassVar[str] = "rough"

    def worth_trying(self, task: Task, seen: Seen) -> bool:
        """Where something is left for them; see `Family.worth_trying`."""
        free = task.alpha is None and task.rows.n_rows >= ENOUGH_ROWS
        return free and seen.least_left_out > task.exact

    def fit(self, task: Task, seen: Seen) -> Iterator[Seen]:
        """One spline; see `Family.fit`."""
        rows = task.rows
        scales = rows.X.new_tensor(seen.scales or (1.0,) * rows.n_features)
        rough = fit_rough(rows, task.probes, scales, seen.least_calibrated, task.seed)
        if rough is not None:
            handicap = 1 + WHITE_HANDICAP / rows.n_rows if seen.white else 1.0
            yield seen.with_candidate(dataclasses.replace(rough, handicap=handicap))


def fit_rough(
    rows: Rows, probes: Tensor, scales: Tensor, target: float, seed: int
) -> Candidate | None:
    """Spline through all rows, or near them.

    Parameters
    ----------
    probes : Tensor of shape (k, d)
        Points between the rows.
    scales : Tensor of shape (d,)
        Factors of the coordinates.
    target : float
        Calibrated error of the best other family: far behind it all rows are not tried.
    seed : int
        Of the rows that are looked at.

    Returns
    -------
    Candidate or None
        None where there are too few rows or too many, or no hope.
    """
    n, d = rows.X.shape
    if not d or n < max(d + ROWS_BEYOND_COLUMNS, FEWEST_ROWS) or n > MOST_ROWS:
        return None
    if d == 1:
        return _on_line(rows, probes)
    return _Polyharmonic(rows, probes, scales, target, seed).run()


def _interpolates(rows: Rows) -> bool:
    """Whether repeated points agree, so that a curve can pass through all targets."""
    scale = float((rows.weight @ rows.y.square()).sum())
    return float(rows.within.sum()) <= AGREE * scale


def _posterior_factor(
    rows: Rows, residual: Tensor, dof: float, growth: float, like: Tensor
) -> Tensor:
    """Factor (2, 2) of the columns leverage and growth.

    The noise times the leverage, and `growth` times the square of the second column.
    """
    eps = torch.finfo(like.dtype).eps
    left = free_rows(rows.total_weight, dof)
    square = (rows.weight @ residual.square() + rows.within.sum(0)) / left + eps**2
    ratio = float(square.mean()) / max(growth, TINY)
    return torch.diag(like.new_tensor([1.0, math.sqrt(max(ratio, TINY))]))


# On a line


def _on_line(rows: Rows, probes: Tensor) -> Candidate:
    x, y = rows.X[:, 0].cpu().numpy(), rows.y.cpu().numpy()
    weight, within = rows.weight.cpu().numpy(), rows.within.cpu().numpy()
    n, mean_gap = len(x), 1 / (len(x) - 1)
    # From interpolation to a straight line.
    largest = LARGEST_PENALTY + 4 * math.log10(n)
    ladder = mean_gap**3 * 10.0 ** np.arange(LEAST_PENALTY, largest, PENALTY_STEP)
    penalties = np.append(ladder[::-1] * weight.mean(), 0.0 if _interpolates(rows) else [])
    splines = smoothing_splines(x, y, weight, penalties)
    squares = (weight[:, None] * splines.left_out**2).sum(1) + within.sum(0)
    errors = np.sqrt(squares.mean(1) / weight.sum())
    best = 0
    for index in range(1, len(penalties)):
        if errors[index] < WORTH * errors[best]:
            best = index
    return _line_candidate(rows, probes, splines, best, float(errors[best]))


def _line_candidate(
    rows: Rows, probes: Tensor, splines: SmoothingSplines, index: int, error: float
) -> Candidate:
    """Candidate for one of the penalties, with its errors calibrated between the rows."""
    x, y = rows.X[:, 0].cpu().numpy(), rows.y.cpu().numpy()
    weight, penalty = rows.weight.cpu().numpy(), float(splines.penalties[index])
    values, bends = splines.values[index], splines.bends[index]
    left_out, precision = splines.left_out[index], splines.precision[index]
    gaps = np.diff(x)
    around = np.maximum(gaps[1:] + gaps[:-1], LEAST_AROUND * np.median(gaps)) ** 3
    # Ends are extrapolated, which no point of the box will be.
    inner = slice(1, -1)
    within = float(rows.within.sum(0).mean()) / max(penalty * len(x), TINY) if penalty else 0.0
    tension = float((left_out[inner] ** 2 * precision[inner, None]).mean(1).mean()) + within
    if penalty:
        bridge = smoothing_splines(x, y, weight, np.zeros(1)).precision[0, inner]
        growth = tension * float((1 / (bridge * around)).mean())
    else:
        values, bends = y, CubicSpline(x, y)(x, 2)  # not-a-knot ends
        growth = float((left_out[inner] ** 2 / around[:, None]).mean())
    like = rows.X
    leverage = torch.as_tensor(splines.leverage[index], device="cpu").to(like)
    basis = CubicSplines(like[:, 0].clone(), leverage)
    share, bulge = basis.posterior_columns(probes).square().mean(0).tolist()
    noise = penalty * tension / float(weight.mean())
    gap = noise * share * bool(penalty) + growth * bulge
    dof = float(leverage.sum())
    residual = rows.y - torch.as_tensor(values, device="cpu").to(like)
    coef = torch.as_tensor(np.concatenate([values, bends]), device="cpu").to(like)
    factor = _posterior_factor(rows, residual, dof, growth, like)
    gap = float(gap)
    return Candidate("rough", (Stage(basis, coef, factor),), error, math.sqrt(noise + gap), dof,
                     penalty, gap_variance=gap, n_units=len(x))  # fmt: skip


# In several dimensions


@dataclass(frozen=True)
class _Shape:
    """Power of the distance and penalty, with the error at left-out rows of some number."""

    power: int
    penalty: float
    error: float
    n_rows: int


class _Polyharmonic:
    """Choice of a shape on pilot rows, then one solve with all."""

    def __init__(self, rows: Rows, probes: Tensor, scales: Tensor, target: float, seed: int):
        self.rows, self.probes, self.scales = rows, probes, scales.to(rows.X)
        self.target, self.rng = target, np.random.default_rng([seed, ROWS_STREAM])

    def run(self) -> Candidate | None:
        if self.rows.n_rows > PILOT_ROWS:
            every = torch.arange(self.rows.n_rows, device=self.rows.X.device)
            scouts = self._shapes(self.rows.subset(every[evenly(len(every), SCOUTING_ROWS)]))
            if min(self._expected(shape) for shape in scouts) > SCOUTED * self.target:
                return None
        shapes = self._shapes(self._some(self.rows, PILOT_ROWS))
        best = min(shapes, key=lambda shape: shape.error)
        if self.rows.n_rows > PILOT_ROWS and self._expected(best) > PILOTED * self.target:
            return None
        return self._solve(best)

    def _shapes(self, rows: Rows) -> list[_Shape]:
        return [self._shape(rows, power) for power in POWERS]

    def _expected(self, shape: _Shape) -> float:
        """Error with all rows: it falls with the distance between them."""
        n, d = self.rows.X.shape
        return shape.error * (shape.n_rows / n) ** (2 * shape.power / d)

    def _some(self, rows: Rows, most: int) -> Rows:
        index = self._indices(rows.n_rows, most).to(rows.X.device)
        return rows.subset(index)

    def _indices(self, n: int, most: int) -> Tensor:
        if n <= most:
            return torch.arange(n, device="cpu")
        return torch.as_tensor(np.sort(self.rng.choice(n, most, replace=False)), device="cpu")

    def _kernel(self, basis: PolyharmonicSplines, X: Tensor) -> Tensor:
        """Conditionally positive definite kernel (n, k): -r or r^3."""
        return basis.distances(X) ** basis.power * (-1.0 if basis.power == 1 else 1.0)

    def _shape(self, rows: Rows, power: int) -> _Shape:
        """Penalty of least left-out error, all of them from one decomposition."""
        basis = PolyharmonicSplines(rows.X, self.scales, power)
        root = rows.weight.sqrt()[:, None]
        affine = torch.linalg.qr(basis.affine(rows.X) * root, mode="complete").Q
        free = affine[:, 1 + rows.n_features :]
        inner = free.T @ ((self._kernel(basis, rows.X) * root * root.T) @ free)
        size, vectors = torch.linalg.eigh((inner + inner.T) / 2)
        size = size.clamp_min(torch.finfo(size.dtype).eps * float(size[-1]))
        directions = free @ vectors
        component = directions.T @ (rows.y * root)
        penalties = [float(size[-1]) * penalty for penalty in PENALTIES_IN_SPACE]
        if _interpolates(rows):
            penalties.append(0.0)
        filtered = 1 / (size[:, None] + size.new_tensor(penalties))
        # Rippa (1999): residual over the diagonal of the inverse.
        own = directions.square() @ filtered
        squares = rows.within.sum() + sum(
            ((directions @ (filtered * part[:, None])) / own).square().sum(0)
            for part in component.T
        )
        errors = (squares / (rows.n_outputs * rows.total_weight)).sqrt().tolist()
        best = 0
        for index, error in enumerate(errors):
            if error < WORTH * errors[best]:
                best = index
        return _Shape(power, penalties[best], errors[best], rows.n_rows)

    def _solve(self, shape: _Shape) -> Candidate | None:
        """Coefficients by one factorisation of the bordered matrix, refined once."""
        rows, (n, d) = self.rows, self.rows.X.shape
        basis = PolyharmonicSplines(rows.X, self.scales, shape.power)
        kernel = self._kernel(basis, rows.X)
        kernel.diagonal().add_(shape.penalty / rows.weight)
        affine = basis.affine(rows.X)
        corner = affine.new_zeros((d + 1, d + 1))
        bordered = torch.cat([torch.cat([kernel, affine], 1), torch.cat([affine.T, corner], 1)])
        *factors, singular = torch.linalg.lu_factor_ex(bordered)
        if bool(singular):
            return None
        right = torch.cat([rows.y, corner[:, :1].expand(-1, rows.n_outputs)])
        solution = torch.linalg.lu_solve(*factors, right)
        solution = solution + torch.linalg.lu_solve(*factors, right - bordered @ solution)
        if not bool(torch.isfinite(solution).all()):
            return None
        looked = self._indices(n, LOOKED_AT).to(rows.X.device)
        precision, variance = self._variances(basis, factors, looked)
        left_out = solution[looked] / precision[:, None]
        share = rows.weight[looked] / rows.weight[looked].sum()
        within = rows.within.sum(0) / rows.total_weight
        error = math.sqrt(float((share @ left_out.square() + within).mean()))
        if not math.isfinite(error):  # A row so far off that the inverse has lost its sign there.
            return None
        return self._candidate(shape, solution, looked, left_out, precision, variance, error)

    def _variances(
        self, basis: PolyharmonicSplines, factors: tuple, looked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Diagonal of the inverse at some rows, prediction variance at some probes."""
        device = self.rows.X.device
        probes = self.probes[self._indices(len(self.probes), LOOKED_AT).to(device)]
        columns = torch.cat([self._kernel(basis, probes), basis.affine(probes)], 1)
        units = columns.new_zeros((columns.shape[1], len(looked)))
        units[looked, torch.arange(len(looked), device=device)] = 1
        inverse = torch.linalg.lu_solve(*factors, torch.cat([units, columns.T], 1))
        precision = inverse[looked, torch.arange(len(looked), device=device)].clamp_min(TINY)
        solved = inverse[:, len(looked) :]
        return precision, -(columns * solved.T).sum(1).clamp_max(0)

    def _candidate(
        self,
        shape: _Shape,
        solution: Tensor,
        looked: Tensor,
        left_out: Tensor,
        precision: Tensor,
        variance: Tensor,
        error: float,
    ) -> Candidate:
        rows, n = self.rows, self.rows.n_rows
        mean_weight = rows.total_weight / n
        tension = float((left_out.square() * precision[:, None]).mean())
        if shape.penalty:
            tension += float(rows.within.mean()) / shape.penalty
        gap, noise = tension * float(variance.mean()), tension * shape.penalty / mean_weight
        leverage = 1 - shape.penalty / rows.weight[looked] * precision
        dof = float(leverage.clamp(0, 1).mean()) * n
        basis = PolyharmonicSplines(rows.X, self.scales, shape.power, max(dof / n, 0.0))
        sign = -1.0 if shape.power == 1 else 1.0
        coef = torch.cat([solution[n:], sign * solution[:n]])
        bulge = basis.posterior_columns(self.probes)[:, 1].square().mean()
        growth = max(gap - noise * dof / n, 0.0) / max(float(bulge), TINY)
        residual = shape.penalty / rows.weight[:, None] * solution[:n]
        factor = _posterior_factor(rows, residual, dof, growth, rows.X)
        return Candidate("rough", (Stage(basis, coef, factor),), error, math.sqrt(noise + gap),
                         dof, shape.penalty, gap_variance=gap, n_units=n)  # fmt: skip
