"""A linear model of the same rows: where a fit knows less than it, the fit leans on it.

A ridge on standardized columns, its size by errors at left-out rows. Its variance at a point is
that of what it leaves at the rows, noise or not, and that of its coefficients. Where rows are few
for their columns it may be a line of a few of them: a sum of two columns is hidden among twenty
others from a ridge on all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, TensorState
from skpou.core.draws import sobol_points
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.model import Predictor

#: Ridges relative to the largest squared singular value.
RIDGES = tuple(10.0 ** (-14 + k / 2) for k in range(37))
#: Least part of a row's own that its left-out error is divided by: round-off.
LEAST_FREE = 1e-15
#: Columns from which rows are those of a table, too far from each other to tell what is between
#: them. Functions of fewer columns are seldom near a line where they are not known.
FEWEST_OF_TABLE = 4
#: Fewest columns, and error at left-out rows in units of y, from which on rows of fewer columns are
#: too few and too noisy for more than a line in places.
FEWEST_WITH_NOISE, NOISY = 3, 0.1
#: Fewest rows that say how large the errors of a linear model are, and most numbers of the
#: singular vectors: a saved default model stays below 1 MB.
FEWEST_ROWS, MOST_NUMBERS = 5, 50_000
#: Share of the rows that count as degrees of freedom, however many columns there are.
LEAST_SHARE = 0.1
#: Factors of the linear model's variance, in order of preference: with more the fit is left alone
#: up to so much more of its own; with less a form that misses a line gives way to it.
DOUBTS = (1.0, 3.0, 10.0, 30.0, 100.0, 0.1, 0.01, 1e-3)
#: The factor where no row can be left out to tell.
LARGEST_DOUBT = 100.0
#: Left-out errors of the joined model within this share of the least are as good.
AS_GOOD = 0.02
#: Points of the box at which a companion must move the mean to be kept: by so much in units of y,
#: and in units of the model's standard deviation. Less is not worth another model at every query.
N_PROBES, MOVED, MOVED_STD = 256, 1e-3, 0.1
#: Rows a column from which on a ridge knows itself which columns matter.
ROWS_A_COLUMN = 4
#: Most columns of a line of few, and rows for each.
MOST_CHOSEN, ROWS_A_CHOSEN = 4, 4
#: Error at left-out rows, in units of y, below which a ridge on all columns is good enough.
CLEAR_ERROR = 1e-3
#: Rows' worth of belief in what a line leaves by its degrees of freedom, and the least part of it.
PRIOR_ROWS, LEAST_LEFT = 8.0, 0.1
#: Logarithm of the odds, after all ways to choose as many columns, for a line of few of them.
LIKELIER = 3.0
#: Precision of slopes that are known to be zero.
NO_SLOPE = 1e150
#: Least variance of what is left at the rows, in units of y: round-off.
ROUND_OFF = float(np.finfo(float).eps) ** 2


@dataclass(frozen=True)
class LinearCompanion(TensorState):
    """Linear models of all targets (m of them), with variances.

    Attributes
    ----------
    centre, spread : Tensor of shape (d,)
        Mean and standard deviation of the columns.
    intercept : Tensor of shape (m,)
    slopes : Tensor of shape (d, m)
        Of the standardized columns.
    vectors : Tensor of shape (d, k)
        Right singular vectors of the standardized, weighted columns.
    squares : Tensor of shape (k, m)
        Squared singular values and the ridge.
    ridge : Tensor of shape (m,)
    total : float
        Number of observations.
    noise : Tensor of shape (m,)
        Variance of what is left at the rows.
    doubt : Tensor of shape (m,)
        Factor of the variance, one of `DOUBTS`.
    left : Tensor of shape (m,), default=None
        Variance of what is left at rows that were left out, beside that of the values. None: it is
        the noise.
    """

    centre: Tensor
    spread: Tensor
    intercept: Tensor
    slopes: Tensor
    vectors: Tensor
    squares: Tensor
    ridge: Tensor
    total: float
    noise: Tensor
    doubt: Tensor
    left: Tensor | None = None

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at scaled points X (n, d)."""
        return self.intercept + self._standard(X) @ self.slopes

    def gradient(self) -> Tensor:
        """Gradient (d, m) of the values."""
        return self.slopes / self.spread[:, None]

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the truth about the values, times the doubt."""
        return self.doubt * self.noise * (1 + self._leverage(X))

    def variance_of_form(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the truth about the values by a curvature that noise may hide.

        At the rows that is as large as the noise, and farther away it grows with the square of the
        standardized distance from their centre.
        """
        return self.doubt.clamp_min(1) * self.noise * (self.total * self._leverage(X)).square()

    def _leverage(self, X: Tensor) -> Tensor:
        """Variance (n, m) of the values for noise of unit variance."""
        Z = self._standard(X)
        along = (Z @ self.vectors).square()
        share = 1 / self.total + along @ self._inverse_squares
        if self.vectors.shape[0] > self.vectors.shape[1]:
            # Directions that no row has keep their prior.
            rest = (Z.square().sum(1) - along.sum(1)).clamp_min(0)
            share = share + rest[:, None] / self.ridge
        return share

    def understated(self, X: Tensor, noise: Tensor) -> Tensor:
        """Variance (n, m) of the values about the truth less what a doubt below one has of it.

        A fit that gives way by left-out errors to a line has the line's own error, however little
        the line was doubted. That is what it leaves at the rows without the noise (n, m).
        """
        doubted = self.variance(X)
        whole = doubted / self.doubt
        own = torch.maximum(whole - noise.to(whole), whole - self.noise)
        return (own - doubted).clamp_min(0)

    def part_of_noise(self, noise: Tensor, share: Tensor) -> Tensor:
        """Part (n, m) of a fit's noise that is left beside such a share of these values.

        A fit that takes for noise what the line tells gives way to it with this noise, too. The
        standard deviation of a weighted mean of two errors is at most that of theirs.
        """
        left = (self.noise if self.left is None else self.left).to(noise)
        less = (left / noise.clamp_min(ROUND_OFF)).sqrt().clamp_max(1)
        return (1 - share + share * less).square()

    def _standard(self, X: Tensor) -> Tensor:
        return (X.to(self.centre) - self.centre) / self.spread

    @cached_property
    def _inverse_squares(self) -> Tensor:
        return 1 / self.squares


@dataclass(frozen=True)
class _LeftOutLine:
    """A companion before it is judged, with errors (n, m) at left-out rows and their shares."""

    companion: LinearCompanion
    error: Tensor
    share: Tensor


def _fit_line(rows: Rows) -> _LeftOutLine:
    """A ridge on all columns, or on a few where rows are few and likelier so."""
    line = _fit_ridge(rows)
    n, d = rows.X.shape
    whole, clear = _log_square(line, rows), 2 * math.log(CLEAR_ERROR)
    if n > ROWS_A_COLUMN * d or whole <= clear:
        return line
    best, most = line, LIKELIER
    for chosen in _leading_columns(rows):
        found, k = _fit_ridge(replace(rows, X=rows.X[:, chosen])), len(chosen)
        gain = whole - max(_log_square(found, rows), clear)
        likelier = 0.5 * (n - 1 - k) * gain - math.log(math.comb(d, k))
        if likelier > most:
            best, most = _of_few(found, chosen, line), likelier
    return best


def _log_square(line: _LeftOutLine, rows: Rows) -> float:
    """Logarithm of the mean square of errors at left-out rows, averaged over the targets."""
    square = (rows.weight @ line.error.square()) / rows.total_weight
    return float(square.clamp_min(ROUND_OFF).log().mean())


def _leading_columns(rows: Rows) -> list[list[int]]:
    """The first one, two, ... columns that leave least of the targets, one after the other."""
    root = rows.weight.sqrt()[:, None]
    kept = [root]
    columns, left = rows.X * root, rows.y * root
    chosen: list[int] = []
    result = []
    for _ in range(min(MOST_CHOSEN, rows.n_rows // ROWS_A_CHOSEN, rows.n_features)):
        unit = kept[-1] / kept[-1].norm()
        columns, left = (part - unit @ (unit.T @ part) for part in (columns, left))
        size = columns.square().sum(0)
        known = size > ROUND_OFF * rows.total_weight
        known[chosen] = False
        if not bool(known.any()):
            break
        told = (columns.T @ left).square() / torch.where(known, size, 1.0)[:, None]
        rest = (left.square().sum(0) - told).clamp_min(ROUND_OFF).log().sum(1)
        first = int(torch.where(known, rest, math.inf).argmin())
        chosen = [*chosen, first]
        kept.append(columns[:, [first]])
        result.append(chosen)
    return result


def _of_few(line: _LeftOutLine, chosen: list[int], whole: _LeftOutLine) -> _LeftOutLine:
    """A line of some columns as one of all: the others have no slope."""
    few, all_of_them = line.companion, whole.companion

    def padded(part: Tensor) -> Tensor:
        result = part.new_zeros((len(all_of_them.centre), part.shape[1]))
        result[chosen] = part
        return result

    companion = replace(
        few,
        centre=all_of_them.centre,
        spread=all_of_them.spread,
        slopes=padded(few.slopes),
        vectors=padded(few.vectors),
        ridge=torch.full_like(few.ridge, NO_SLOPE),
    )
    return replace(line, companion=companion)


def _fit_ridge(rows: Rows) -> _LeftOutLine:
    """Ridge of each target by errors at left-out rows, from one singular value decomposition."""
    weight, total, (centre, spread) = rows.weight[:, None], rows.weight.sum(), rows.standard()
    intercept = (weight * rows.y).sum(0) / total
    root = weight.sqrt()
    y = (rows.y - intercept) * root
    U, S, Vh = torch.linalg.svd((rows.X - centre) / spread * root, full_matrices=False)
    rank = int((S > len(S) * torch.finfo(S.dtype).eps * S[:1]).sum())
    U, S, Vh = U[:, :rank], S[:rank], Vh[:rank]
    component, square = U.T @ y, S.square()
    # What no column and no constant reaches; where they reach all it is round-off.
    apart = 1.0 if rank + 1 < rows.n_rows else 0.0
    outside = apart * (y - U @ component)
    free_outside = apart * (1 - U.square().sum(1) - weight[:, 0] / total)
    largest = float(square[0]) if rank else 1.0
    best = [math.inf] * rows.n_outputs
    residuals, errors, frees = (torch.zeros_like(y) for _ in range(3))
    ridges = torch.ones_like(intercept)
    for relative in RIDGES:
        ridge = relative * largest
        lost = ridge / (square + ridge)
        residual = outside + U @ (lost[:, None] * component)
        free = (free_outside + U.square() @ lost).clamp_min(LEAST_FREE)
        left_out = residual / free[:, None]
        for target, score in enumerate(left_out.square().sum(0).tolist()):
            if score < best[target]:
                best[target], ridges[target], frees[:, target] = score, ridge, free
                residuals[:, target], errors[:, target] = residual[:, target], left_out[:, target]
    squares = square[:, None] + ridges
    degrees = rows.total_weight - (1 - frees).sum(0)
    degrees = degrees.clamp_min(LEAST_SHARE * rows.total_weight)
    noise = (residuals.square().sum(0) + rows.within.sum(0)) / degrees + ROUND_OFF
    slopes = Vh.T @ (S[:, None] / squares * component)
    companion = LinearCompanion(
        centre, spread, intercept, slopes, Vh.T, squares, ridges, rows.total_weight, noise,
        torch.ones_like(noise),
    )  # fmt: skip
    return _LeftOutLine(companion, errors / root, (1 - frees) / frees / weight)


def fit_companion(
    model: Predictor, rows: Rows, left_out: Sequence[LeftOut] | None
) -> LinearCompanion | None:
    """The linear model beside a fit, if it moves the mean somewhere in the box.

    How far it is trusted, its doubt, is the first of `DOUBTS` with which errors at left-out rows
    are about the least. What a line leaves is its form's: rows count alike, however precise.

    Parameters
    ----------
    model : Predictor
        Fitted to the rows.
    rows : Rows
        In float64.
    left_out : sequence of LeftOut or None
        Errors of the model at left-out rows, one a target; None where there are none.
    """
    n, d = rows.X.shape
    if n < FEWEST_ROWS or d * min(n, d) > MOST_NUMBERS:
        return None
    if d < FEWEST_OF_TABLE and not (d >= FEWEST_WITH_NOISE and _is_noisy(left_out)):
        return None
    try:
        line = _fit_line(rows.alike())
    except NUMERICAL_FAILURES:
        return None
    doubt = [
        _least_doubt(line, rows, None if left_out is None else left_out[k], k)
        for k in range(rows.n_outputs)
    ]
    doubts = line.companion.noise.new_tensor(doubt)
    companion = replace(line.companion, doubt=doubts, left=_left(line, rows.alike()))
    return companion if _moves(companion, model, sobol_points(d, N_PROBES, seed=0)) else None


def _left(line: _LeftOutLine, rows: Rows) -> Tensor:
    """Variance (m,) of what is left at left-out rows: most of the noise where these are few."""
    noise, weight = line.companion.noise, rows.weight[:, None]
    told = (weight * (line.error.square() - noise * line.share)).sum(0) + rows.within.sum(0)
    left = (told + PRIOR_ROWS * noise) / (rows.total_weight + PRIOR_ROWS)
    return torch.maximum(left, LEAST_LEFT * noise)


def _is_noisy(left_out: Sequence[LeftOut] | None) -> bool:
    """Whether errors at left-out rows are a large part of y for every target."""
    if left_out is None:
        return False
    errors = [one.error[one.group < one.n_folds, 0] for one in left_out]
    return all(float(np.sqrt(np.mean(error**2))) > NOISY for error in errors)


def _moves(companion: LinearCompanion, model: Predictor, probes: Tensor) -> bool:
    """Whether the joined mean differs from the model's somewhere by what matters."""
    if not all(bool(torch.isfinite(part).all()) for part in (companion.slopes, companion.squares)):
        return False
    probes = probes.to(companion.centre)
    noise, epistemic = (part.double() for part in model.components(probes).variances())
    share = epistemic / (epistemic + companion.variance(probes))
    moved = (share * (companion.mean(probes) - model.mean(probes).double())).abs()
    # What is not a number has run away.
    return not bool((moved <= MOVED + MOVED_STD * (noise + epistemic).sqrt()).all())


def share_of(
    companion: LinearCompanion, model: Predictor, X: Tensor, parts: Components | None = None
) -> Tensor:
    """Part (n, m) of the joined mean that is the companion's, by precisions at the box.

    Outside of it nothing is known of which of the two goes on better: the part is that at the
    nearest point of the box, where `parts` is the model's density if that is known.
    """
    inside = X.clamp(0, 1)
    parts = model.components(inside) if parts is None else parts
    own = parts.variances()[1].double()
    return own / (own + companion.variance(inside))


def joined_errors(
    companion: LinearCompanion, rows: Rows, left_out: Sequence[LeftOut]
) -> list[np.ndarray]:
    """Errors of the joined model at left-out rows, for each target; see `fit_companion`."""
    line = _fit_line(rows.alike())
    return [_joined(line, one, k, float(companion.doubt[k])) for k, one in enumerate(left_out)]


def _joined(line: _LeftOutLine, left_out: LeftOut, target: int, doubt: float) -> np.ndarray:
    """Errors (l,) of one target's joined model at left-out rows."""
    error = left_out.error[:, 0]
    share, other = (
        part[:, target].cpu().numpy()[left_out.row] for part in (line.share, line.error)
    )
    own = np.maximum(left_out.variance - left_out.noise, 0)[:, 0]
    linear = float(line.companion.noise[target]) * (1 + share)
    return error + own / (own + doubt * linear) * (other - error)


def _least_doubt(line: _LeftOutLine, rows: Rows, left_out: LeftOut | None, target: int) -> float:
    """Doubt of one target's companion."""
    if left_out is None:
        return LARGEST_DOUBT
    known = left_out.group < left_out.n_folds
    known &= np.isfinite(left_out.error[:, 0]) & np.isfinite(left_out.variance[:, 0])
    weight = rows.alike().weight.cpu().numpy()[left_out.row[known]]
    error = left_out.error[known, 0]
    joined = [
        float(np.mean(weight * _joined(line, left_out, target, doubt)[known] ** 2))
        for doubt in DOUBTS
    ]
    least = min(*joined, float(np.mean(weight * error**2)))
    good = (d for d, square in zip(DOUBTS, joined) if square <= (1 + AS_GOOD) ** 2 * least)
    return next(good, LARGEST_DOUBT)
