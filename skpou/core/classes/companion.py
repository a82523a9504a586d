"""A logistic regression of the same rows, column by column: a companion of other classifiers.

Logits are linear in the columns and, with a ridge of their own, in ramps between neighbouring
quantiles of each column: sums of functions of one column each, in units of its ranks. So few
parameters are honest with few rows, and know nothing of long tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from skpou.core import BestSoFar, Rows, TensorState
from skpou.core.classes.left_out import left_out_of_columns
from skpou.core.optim import DenseRows, MultinomialRidge, logits_of_shares

#: Ridges of the slopes that are tried, relative to the norm of a column: from no slope to any.
SLOPE_ALPHAS = tuple(10.0 ** (0.5 - k / 2) for k in range(9))
#: Those of the ramps, whose squares are a sixth of a column's at most.
RAMP_ALPHAS = tuple(10.0 ** (0.25 - k / 2) for k in range(6))
#: Ridges in a row without a better score after which no weaker one is tried.
PATIENCE = 2
#: Most ramps of a column: more than the depth of a small tree can tell apart.
MOST_RAMPS = 8
#: Most columns, and most coefficients of all classes, which bound the time of a Newton step. Of
#: more features their leading principal components are taken.
MOST_COLUMNS, MOST_COEFFICIENTS = 160, 1000
#: Most rows: with so many the companion's errors are no longer those of too few rows.
MOST_ROWS = 5000
#: Decrease, relative to the objective, that ends Newton's method: left-out rows see no less.
NEWTON_TOL, NEWTON_STEPS = 1e-4, 30


@dataclass(frozen=True)
class LogisticCompanion(TensorState):
    """Logits that are sums of functions of the columns, one class each.

    Attributes
    ----------
    centre, spread : Tensor of shape (d,)
        Mean and standard deviation of the columns.
    axes : Tensor of shape (d, r) or None
        Principal components of the standardized columns that stand for them; None: all.
    feature : Tensor of shape (q,), int64
        Column of every ramp.
    low, width, middle : Tensor of shape (q,)
        Where it begins, how long it is, and its mean over the rows.
    coef : Tensor of shape (1 + r + q, K)
        Of a constant, of slopes and of ramps.
    offset : Tensor of shape (K,)
        Logits of the classes' shares.
    """

    centre: Tensor
    spread: Tensor
    axes: Tensor | None
    feature: Tensor
    low: Tensor
    width: Tensor
    middle: Tensor
    coef: Tensor
    offset: Tensor

    def columns(self, X: Tensor) -> Tensor:
        """Columns (n, 1 + r + q) at points; outside the unit box those at its nearest point."""
        X = X.to(self.centre).clamp(0.0, 1.0)
        slopes = (X - self.centre) / self.spread
        if self.axes is not None:
            slopes = slopes @ self.axes
        ramps = ((X[:, self.feature] - self.low) / self.width).clamp(0.0, 1.0) - self.middle
        return torch.cat([X.new_ones((len(X), 1)), slopes, ramps], 1)

    def logits(self, X: Tensor) -> Tensor:
        """Logits (n, K) at points X (n, d)."""
        return self.offset + self.columns(X) @ self.coef

    def numbers_per_row(self) -> int:
        """Numbers that `logits` allocates for each point."""
        return 3 * (len(self.coef) + len(self.centre)) + 2 * self.coef.shape[1]


class FittedCompanion(NamedTuple):
    """A companion, and its logits (n, K) at the rows, each by all other observations."""

    companion: LogisticCompanion
    left_out: Tensor


def _ramps(rows: Rows, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Column, beginning and length of ramps between quantiles; none of columns of two values."""
    like = rows.X
    feature: list[int] = []
    low, width = [like.new_zeros(0)], [like.new_zeros(0)]
    for column in range(rows.n_features if most > 1 else 0):
        values, order = like[:, column].sort()
        share = rows.weight[order].cumsum(0)
        levels = torch.linspace(0, 1, most + 1, dtype=share.dtype, device=share.device)
        place = torch.searchsorted(share, levels * share[-1]).clamp_max(len(values) - 1)
        knots = torch.unique(torch.cat([values[:1], values[place]]))
        if len(knots) > 2:
            feature += [column] * (len(knots) - 1)
            low.append(knots[:-1])
            width.append(knots.diff())
    index = torch.tensor(feature, dtype=torch.int64, device=like.device)
    return index, torch.cat(low), torch.cat(width)


def _empty_companion(rows: Rows) -> LogisticCompanion:
    """Columns for the rows, without coefficients."""
    weight, d, K = rows.weight[:, None], rows.n_features, rows.n_outputs
    centre, spread = rows.standard()
    most = min(MOST_COLUMNS, MOST_COEFFICIENTS // K) - 1
    axes = None
    if d > most:
        scaled = (rows.X - centre) / spread * weight.sqrt()
        axes = torch.linalg.svd(scaled, full_matrices=False).Vh[: max(most, 1)].T.contiguous()
    feature, low, width = _ramps(rows, min(MOST_RAMPS, most // d - 1))
    ramps = ((rows.X[:, feature] - low) / width).clamp(0.0, 1.0)
    middle = (weight * ramps).sum(0) / weight.sum()
    nothing = rows.X.new_zeros((0, K))
    offset = logits_of_shares(rows)
    return LogisticCompanion(centre, spread, axes, feature, low, width, middle, nothing, offset)


class _Attempt(NamedTuple):
    """Coefficients for one pair of ridges, and what left-out rows say of them."""

    loss: float
    alpha: float
    coef: Tensor
    left_out: Tensor


class _Search:
    """Ridges of slopes and ramps by the likelihood of left-out observations."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self.companion = _empty_companion(rows)
        self.columns = self.companion.columns(rows.X)
        self.n_ramps = len(self.companion.feature)
        self.root = rows.weight.sqrt()[:, None]

    def run(self) -> FittedCompanion:
        """Slopes alone first, then ramps beside them."""
        n_slopes = self.columns.shape[1] - self.n_ramps
        nothing = self.columns.new_zeros((n_slopes, self.rows.n_outputs))
        best = self._best(SLOPE_ALPHAS, nothing, lambda alpha: (alpha, alpha))
        form = self.companion
        if self.n_ramps:
            rest = nothing.new_zeros((self.n_ramps, nothing.shape[1]))
            start, slope = torch.cat([best.coef, rest]), best.alpha
            other = self._best(RAMP_ALPHAS, start, lambda alpha: (slope, alpha))
            best = other if other.loss < best.loss else best
        kept = len(best.coef) - n_slopes
        parts = {k: getattr(form, k)[:kept] for k in ("feature", "low", "width", "middle")}
        whole = {**vars(form), **parts, "coef": best.coef}
        return FittedCompanion(LogisticCompanion(**whole), best.left_out)

    def _best(
        self, alphas: Sequence[float], start: Tensor, ridges: Callable[[float], tuple[float, float]]
    ) -> _Attempt:
        """From strong ridges to weak ones, as long as left-out rows are better for it."""
        tried: BestSoFar[_Attempt] = BestSoFar()
        worse = 0
        for alpha in alphas:
            found = self._attempt(start, *ridges(alpha))._replace(alpha=alpha)
            start = found.coef
            worse = 0 if tried.show(found, found.loss) else worse + 1
            if worse == PATIENCE:
                break
        return tried.best

    def _attempt(self, start: Tensor, slope: float, ramp: float) -> _Attempt:
        rows, offset = self.rows, self.companion.offset
        A = self.columns[:, : len(start)]
        n_slopes = self.columns.shape[1] - self.n_ramps
        costs = (torch.arange(A.shape[1], device=A.device) >= n_slopes).to(A.dtype)
        problem = MultinomialRidge(DenseRows(A, self.root), rows.y, offset, costs)
        strength = slope * math.sqrt(rows.total_weight)
        growth = (ramp / slope) ** 2
        alpha = strength / problem.scale
        coef, _ = problem.fit(alpha, growth, start, tol=NEWTON_TOL, max_iter=NEWTON_STEPS)
        logits, ridge = problem.logits(coef), strength**2 * growth**costs
        left_out = left_out_of_columns(logits, rows.y, rows.weight, A, ridge)
        terms = rows.weight[:, None] * rows.y * torch.log_softmax(left_out, 1)
        loss = -float(terms.sum())
        return _Attempt(loss if math.isfinite(loss) else math.inf, slope, coef, left_out)


def fit_companion_of_classes(rows: Rows) -> FittedCompanion:
    """Logistic regression of rows, its ridges by observations that are left out one at a time.

    Parameters
    ----------
    rows : Rows
        Distinct pairs of a point in the unit box and a class, in float64: targets (n, K) are
        indicators. At least one column, at most `MOST_ROWS` rows.
    """
    return _Search(rows).run()
