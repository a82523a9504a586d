"""Left-out errors of a chosen form: the columns stay, the coefficients are solved for anew.

Rows are left out in random folds, by whole levels of columns with few values (a left-out row of a
grid has neighbours on its own line, and its error says nothing of what is between the lines), and
by neighbourhoods. With the residual maker ``I - H`` of the whole fit the errors at the rows f that
are left out are ``((I - H)_ff)^-1 ((I - H) y)_f``: no fit is done again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows, at_once
from skpou.core.linalg import TINY
from skpou.core.models.model import Predictor
from skpou.core.models.power_function import ROUND_OFF_VARIANCE

#: Random folds: an eighth of the rows is as much as a fit can miss and still be about the same.
N_FOLDS = 8
#: A column has levels where it takes so few values, each at so many rows on average.
MOST_LEVELS, ROWS_A_LEVEL = 50, 3
#: Levels of a column, and neighbourhoods, that are left out: more would say the same.
LEVELS_A_COLUMN, N_NEIGHBOURHOODS = 8, 8
#: Share of the rows that a neighbourhood holds.
NEIGHBOURHOOD = 1 / 12
#: Most rows that are left out together: their matrix is factored.
MOST_TOGETHER = 600
#: Ridges relative to the largest singular value, from round-off on.
RIDGES = tuple(10.0**k for k in range(-14, -2))
#: Standard deviation of the noise in units of the largest singular value of a prior's columns with
#: which left-out errors are told: below it they are round-off.
LEAST_TOLD = 1e-7
#: Such noises of which the one is taken that leaves the most.
TOLD = (LEAST_TOLD, 1e-6, 1e-5, 1e-4, 1e-3)
#: Variance of the noise, in units of y, up to which a fit is exact.
EXACT_NOISE = 1e-14
#: Ridges whose errors in random folds differ by less than this factor are as good.
ABOUT = 3.0
#: Error that counts as none, in units of y: round-off.
LEAST_ERROR = 1e-15
#: Part of its own that a row left out has at least, in units of round-off: its error is divided by
#: it, and two digits of that are to be known.
LEAST_FREE = 1e2
#: Levels that a column must have for one to be left out between two others.
FEWEST_LEVELS = 3
#: What an infinite error counts as: its logarithm is finite.
INFINITE_ERROR = 1e150


@dataclass(frozen=True)
class LeftOut:
    """Errors at rows that were left out, a row once for each set that it was in.

    Attributes
    ----------
    n_folds : int
        How many of the sets, the first ones, are random folds.
    error : ndarray of shape (l, m)
        Target less what the fit without the set predicts.
    variance : ndarray of shape (l, m)
        Variance of that error, if the form were the truth's.
    noise : ndarray of shape (l, m)
        The part of it that is the noise of the row itself.
    count : ndarray of shape (s,)
        How many independent errors those of each set are worth: the mean of their squares, each
        over its variance, has the variance 2 / count.
    told : ndarray of shape (s,)
        Whether the errors of each set are more than round-off of the whole fit.
    maker : Maker, default=None
        The residual maker of the fit as it is, where it is one.
    degrees : float, default=None
        Degrees of freedom that the fit to all rows leaves. None: nobody has counted them.
    refitted : bool, default=False
        Whether the errors are those of the fit's own prior and noise, so that their variances are
        what it claims.
    """

    sets: list[np.ndarray]
    n_folds: int
    error: np.ndarray
    variance: np.ndarray
    noise: np.ndarray
    count: np.ndarray
    told: np.ndarray
    maker: Maker | None = None
    degrees: float | None = None
    refitted: bool = False

    @property
    def row(self) -> np.ndarray:
        """Number (l,) of the row of each error."""
        return np.concatenate(self.sets)

    @property
    def group(self) -> np.ndarray:
        """Number (l,) of the set that was left out."""
        return np.repeat(np.arange(len(self.sets)), [len(part) for part in self.sets])

    def beyond(self, X: np.ndarray) -> np.ndarray:
        """Whether errors (l,) are of neighbourhoods at the end of a line X (n, 1), beyond the rest.

        What runs away without them says nothing of what is between rows.
        """
        result = np.zeros(len(self.row), dtype=bool)
        for number in range(self.n_folds, len(self.sets) if X.shape[1] == 1 else 0):
            rest, here = np.delete(X[:, 0], self.sets[number]), self.group == number
            own = X[self.sets[number], 0]
            result[here] = (own < rest.min()) | (own > rest.max())
        return result


def sets_to_leave_out(
    X: np.ndarray,
    rng: np.random.Generator,
    neighbourhoods: bool = True,
    most_levels: int = LEVELS_A_COLUMN,
) -> list[np.ndarray]:
    """Rows of each set: folds, inner levels of columns, neighbourhoods if wanted."""
    n, d = X.shape
    fold = rng.permutation(n) % min(N_FOLDS, n)
    sets = [np.flatnonzero(fold == k) for k in range(fold.max() + 1)]
    for column in X.T:
        levels, of_row = np.unique(column, return_inverse=True)
        if _has_levels(levels, n):
            # The first and the last level would be extrapolated.
            inner = rng.permutation(np.arange(1, len(levels) - 1))[:most_levels]
            sets += [np.flatnonzero(of_row == level) for level in np.sort(inner)]
    size = int(NEIGHBOURHOOD * n)
    if neighbourhoods and d and size >= 2:
        centres = X[np.sort(rng.choice(n, min(N_NEIGHBOURHOODS, n), replace=False))]
        near = cKDTree(X).query(centres, k=size)[1]
        sets += [np.sort(rows) for rows in near]
    return [rows for rows in sets if 0 < len(rows) <= min(MOST_TOGETHER, n - 1)]


def levels_of_columns(X: np.ndarray) -> list[np.ndarray]:
    """Values of the columns of X (n, d) that have levels."""
    found = (np.unique(column) for column in X.T)
    return [levels for levels in found if _has_levels(levels, len(X))]


def is_scattered(X: Tensor) -> bool:
    """Whether points (n, d) of several columns are on no lines or grid."""
    return X.shape[1] > 1 and not levels_of_columns(X.cpu().numpy())


def _has_levels(values: np.ndarray, n: int) -> bool:
    """Whether n rows take so few values in a column that all rows of one can be left out."""
    return FEWEST_LEVELS <= len(values) <= MOST_LEVELS and ROWS_A_LEVEL * len(values) <= n


class ResidualMaker:
    """The matrix ``I - H`` of a least-squares fit, applied without its cancellation.

    Parameters
    ----------
    U : Tensor of shape (n, n) or (n, k)
        Left singular vectors of the weighted columns.
    kept : Tensor of shape (k,)
        Share of each component that the fit keeps.
    lost : Tensor of shape (k,)
        What it loses, ``1 - kept``, in digits of its own.
    """

    def __init__(self, U: Tensor, kept: Tensor, lost: Tensor):
        self.U, self.kept, self.lost = U, kept, lost
        self.complete = U.shape[0] == U.shape[1]

    def apply(self, y: Tensor) -> Tensor:
        """``(I - H) y``."""
        inner = self.U.T @ y
        if self.complete:
            return self.U @ (self.lost[:, None] * inner)
        return y - self.U @ (self.kept[:, None] * inner)

    def influence(self) -> Tensor:
        """``G`` (n, k) of ``H = G G'``."""
        return self.U[:, : len(self.kept)] * self.kept.sqrt()

    def block(self, index: Tensor) -> Tensor:
        """Rows and columns of ``I - H`` at some rows."""
        part = self.U[index]
        if self.complete:
            return (part * self.lost) @ part.T
        eye = torch.eye(len(index), dtype=part.dtype, device=part.device)
        return eye - (part * self.kept) @ part.T

    def round_off(self, block: Tensor) -> float:
        """Absolute error of a `block`: without cancellation that of its largest number."""
        size = float(block.diagonal().abs().max()) if self.complete else 1.0
        return size * torch.finfo(block.dtype).eps

    def degrees_left(self) -> float:
        """Trace of ``I - H``."""
        return float(len(self.U) - self.kept.sum())

    def of_target(self, target: int) -> ResidualMaker:
        """The same: it does not depend on the targets."""
        return self


class OwnResidualMaker:
    """The matrix ``I - H`` of a fit as it is, with its own ridges: ``H = G G'``.

    Parameters
    ----------
    G : Tensor of shape (n, q)
        Weighted columns in which the posterior covariance is that of the noise times the identity.
    residual : Tensor of shape (n, m)
        ``(I - H) y``, the weighted residual of the fit.
    degrees : float
        Trace of ``I - H``.
    columns : Tensor of shape (n, p), default=None
        Weighted columns of the fit, for sets of rows whose block of ``I - H`` is round-off.
    """

    def __init__(self, G: Tensor, residual: Tensor, degrees: float, columns: Tensor | None = None):
        self.G, self.residual, self.degrees, self.columns = G, residual, degrees, columns
        self._excess: float | None = None

    def apply(self, y: Tensor) -> Tensor:
        """The residual, whose targets are known."""
        return self.residual

    def influence(self) -> Tensor:
        """``G`` (n, q) of ``H = G G'``."""
        return self.G

    def block(self, index: Tensor) -> Tensor:
        """Rows and columns of ``I - H`` at some rows."""
        part = self.G[index]
        return torch.eye(len(index), dtype=part.dtype, device=part.device) - part @ part.T

    def round_off(self, block: Tensor) -> float:
        """Absolute error of a `block`, a difference from the unit matrix.

        No leverage exceeds one: what it seems to exceed it by is round-off of ``G``.
        """
        if self.columns is not None and self._excess is None:
            largest = torch.linalg.matrix_norm(self.G, 2)
            self._excess = max(float(largest.square()) - 1, 0.0)
        return max(torch.finfo(block.dtype).eps, self._excess or 0.0)

    def degrees_left(self) -> float:
        """Trace of ``I - H``."""
        return self.degrees

    def of_target(self, target: int) -> OwnResidualMaker:
        """With the residual of one of the targets; that of a single one stays."""
        only = slice(target, target + 1) if self.residual.shape[1] > 1 else slice(None)
        return OwnResidualMaker(self.G, self.residual[:, only], self.degrees, self.columns)


Maker = ResidualMaker | OwnResidualMaker


class LeavesOut(Protocol):
    """What finds errors at left-out rows in a way of its own."""

    def of_target(self, target: int) -> LeavesOut:
        """That of one of the targets."""
        ...

    def left_out_errors(self, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
        """Errors at sets of rows."""
        ...


class StagedMakers:
    """Those of stages, each fitted to what the ones before left over.

    Parameters
    ----------
    stages : list of tuple
        For every stage its residual makers, one for each ridge, and its targets (n, m).
    """

    def __init__(self, stages: list[tuple[list[Maker], Tensor]]):
        self.stages = stages

    def of_target(self, target: int) -> StagedMakers:
        """Those of one of the targets."""
        only = slice(target, target + 1)
        return StagedMakers(
            [([m.of_target(target) for m in makers], y[:, only]) for makers, y in self.stages]
        )

    def left_out_errors(self, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
        """Those of the last stage, and by how much more than its residual the others leave.

        A stage that follows another's residual errs by its size, however few rows tell it.
        """
        found: list[LeftOut] = []
        error: Any = 0.0
        for makers, y in self.stages:
            if found:
                error = error + found[-1].error - y.cpu().numpy()[found[-1].row]
            of_stage = Rows(rows.X, y, rows.weight, rows.within)
            found.append(left_out_errors(makers, of_stage, sets))
        last = found[-1]
        variance = np.sum([one.variance for one in found], axis=0)
        # Each stage takes some of them.
        taken = sum(rows.n_rows - float(one.degrees or 0.0) for one in found)
        degrees = max(rows.n_rows - taken, 1.0)
        return replace(last, error=last.error + error, variance=variance, degrees=degrees)


Makers = list[Maker] | LeavesOut


def makers_of_target(makers: Makers, target: int) -> Makers:
    """Those of one of the targets."""
    if not isinstance(makers, list):
        return makers.of_target(target)
    return [maker.of_target(target) for maker in makers]


def residual_maker(A: Tensor, ridge: float) -> ResidualMaker:
    """That of the weighted columns A (n, q) with one ridge on all coefficients."""
    U, S = _left_vectors(A)
    return ResidualMaker(U, S.square() / (S.square() + ridge), ridge / (S.square() + ridge))


def prior_residual_makers(A: Tensor) -> list[Maker]:
    """Those of weighted columns A (n, q), each times its coefficient's prior over the noise.

    For the noise that was found, and for larger ones.
    """
    U, S = _left_vectors(A)
    ridges = {max(1.0, (least * float(S[0])) ** 2) for least in TOLD}
    return [
        ResidualMaker(U, S.square() / (S.square() + ridge), ridge / (S.square() + ridge))
        for ridge in sorted(ridges)
    ]


def residual_makers(A: Tensor) -> list[Maker]:
    """Those of the weighted columns A (n, q) for all ridges, from one decomposition."""
    norms = A.square().sum(0).sqrt()
    U, S = _left_vectors(A[:, norms > 0] / norms[norms > 0])
    # Vectors of round-off are any: the smallest ridges would let a share of them through.
    S = torch.where(S > math.sqrt(max(A.shape)) * torch.finfo(S.dtype).eps * S[:1], S, 0.0)
    makers: list[Maker] = []
    for ridge in RIDGES:
        shift = (ridge * S[0]) ** 2 if len(S) else 1.0
        makers.append(
            ResidualMaker(U, S.square() / (S.square() + shift), shift / (S.square() + shift))
        )
    return makers


def _left_vectors(A: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors (n, k) and singular values (k,), k = n where columns are as many."""
    U, S, _ = torch.linalg.svd(A, full_matrices=False)
    return U, S


def left_out_errors(makers: Makers, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
    """Errors by one of the makers, that is for one ridge.

    Of those that leave about the least in the random folds it is the one that leaves the most
    otherwise: parameters that were found with all rows remember levels that are left out.

    Parameters
    ----------
    makers : list of Maker or LeavesOut
        Of the weighted rows.
    rows : Rows
        In float64.
    sets : list of ndarray
        Rows that are left out together.
    """
    if not isinstance(makers, list):
        return makers.left_out_errors(rows, sets)
    found = at_once(lambda maker: _errors(maker, rows, sets), makers)
    columns = getattr(makers[0], "columns", None)
    if len(found) == 1 and columns is not None and not found[0].told.all():
        others = left_out_errors(residual_makers(columns), rows, sets)
        return _told_by([found[0], others])
    in_folds = [_log_size(one, one.group < one.n_folds) for one in found]
    otherwise = [_log_size(one, one.group >= one.n_folds) for one in found]
    least = min(in_folds)
    good = [i for i, size in enumerate(in_folds) if size <= least + math.log(ABOUT)]
    best = max(good, key=lambda i: (otherwise[i], -in_folds[i]))
    return _told_by(found[best:])


def _told_by(found: Sequence[LeftOut]) -> LeftOut:
    """The first one, where its errors of a set are round-off those of the next that are not.

    A ridge so small that rows along a line are met to the last digit says nothing of what it
    errs by without the line; a larger one does.
    """
    error, variance = found[0].error.copy(), found[0].variance.copy()
    noise = found[0].noise.copy()
    count, told, group = found[0].count.copy(), found[0].told.copy(), found[0].group
    for one in found[1:]:
        if told.all():
            break
        new = one.told & ~told
        of_new = new[group]
        error[of_new], variance[of_new] = one.error[of_new], one.variance[of_new]
        noise[of_new] = one.noise[of_new]
        count[new], told = one.count[new], told | new
    return replace(found[0], error=error, variance=variance, noise=noise, count=count, told=told)


def _log_size(found: LeftOut, which: np.ndarray) -> float:
    """Mean logarithm of some of the errors; 0 of none."""
    size = np.abs(found.error[which]) + LEAST_ERROR
    return (
        float(np.log(np.where(np.isfinite(size), size, INFINITE_ERROR)).mean())
        if size.size
        else 0.0
    )


def independent_count(covariance: Tensor) -> float:
    """How many independent errors those of a covariance (l, l) are worth: l at most.

    As many have the same variance of their mean square, ``l^2 / sum of the squared correlations``.
    """
    spread = covariance.diagonal().abs().clamp_min(TINY)
    correlation = (covariance / (spread * spread[:, None]).sqrt()).clamp(-1, 1)
    count = len(covariance)
    return count**2 / max(float(correlation.square().sum()), count)


def _errors(maker: Maker, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
    root = rows.weight.sqrt()[:, None]
    residual = maker.apply(rows.y * root)
    degrees = max(maker.degrees_left(), 1.0)
    within = rows.within.sum(0)
    noise = (residual.square().sum(0) + within) / degrees + ROUND_OFF_VARIANCE

    def left_out(part: np.ndarray) -> tuple[Tensor, Tensor, Tensor, float, bool]:
        """Errors without some rows, their variances and noises, what they count, whether told."""
        index = torch.as_tensor(part, device=root.device)
        block = maker.block(index)
        # Rows that hardly have a part of their own: an error is not known better than that.
        round_off = maker.round_off(block)
        block.diagonal().add_(round_off + TINY)
        right = torch.cat([residual[index], torch.ones_like(block[0]).diag()], 1)
        solved = torch.linalg.solve(block, right)
        m = residual.shape[1]
        covariance = solved[:, m:]
        spread = covariance.diagonal().abs()[:, None]
        own = noise / root[index].square()
        is_told = float(spread.max()) * round_off * LEAST_FREE < 1
        errors = solved[:, :m] / root[index]
        return errors, spread * own, own, independent_count(covariance), is_told

    errors, variances, noises, counts, told = zip(*at_once(left_out, sets), strict=True)
    error, variance, noise_left = (
        torch.cat(parts).cpu().numpy() for parts in (errors, variances, noises)
    )
    n_folds = min(N_FOLDS, rows.n_rows)
    count = np.array(counts)
    return LeftOut(
        sets, n_folds, error, variance, noise_left, count, np.array(told), degrees=degrees
    )


def is_exact(noise: Tensor) -> bool:
    """Whether a fit leaves so little that its own ``I - H`` is lost to cancellation."""
    return float(noise.max()) <= EXACT_NOISE


def own_maker(
    model: Predictor, influence: Tensor, rows: Rows, columns: Tensor | None = None
) -> OwnResidualMaker:
    """That of a fitted model with ``G`` (n, q) at the rows, in float64.

    Its columns (n, p) there, not weighted, tell where ``G`` has not the digits.
    """
    root = rows.weight.sqrt()[:, None]
    G = influence.to(root) * root
    residual = (rows.y - model.mean(rows.X).to(rows.y)) * root
    weighted = None if columns is None else columns.to(root) * root
    return OwnResidualMaker(G, residual, rows.n_rows - float(G.square().sum()), weighted)
