"""Lengths and nugget of a local block: those under which errors at left-out rows are likeliest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from skpou.core.linalg import TINY
from skpou.core.models.local_block import LocalKernel, NearestRows, near_distances
from skpou.core.models.residue_density import is_gain

#: Rows that are left out, and nearest rows that tell them: a start on fewer than predict.
JUDGES, NEAREST = 500, 30
#: Columns along which the fit hardly changes count a twentieth of the steepest one at first.
LEAST_SCALE = 0.05
#: First lengths, such that the farthest of the nearest rows is so many lengths away, and nuggets.
FIRST_DISTANCES, FIRST_NUGGETS = (1.0, 4.0, 16.0), (0.03, 0.3, 2.0)
#: Rounds of a search, each with the nearest rows of the one before, and iterations of each.
ROUNDS, ITERATIONS = 2, 15
#: Iterations after which the gain of a search must be so many of its standard errors: of thirteen
#: tables it had more than twice as many then where it was a gain in the end, less where it was not.
TRIAL, HOPEFUL = 3, 1.5
#: Standard deviation of the logarithms of the scales about the first ones.
SCALE_SPREAD = 1.0
#: Bounds of the logarithms: of scales about the first ones, of nugget and noise.
SCALE_BOUNDS, NUGGET_BOUNDS, NOISE_BOUNDS = (-9, 9), (-9, 6), (-50, 5)
#: Share of the errors that noise makes up at first, whatever the least one explains.
LEAST_OF_NOISE = 0.1
#: Distance that counts as none, in units of the steepest column's spread.
LEAST_DISTANCE = 1e-9
#: Weight of a row that is left out: next to none.
NO_WEIGHT = 1e-9


@dataclass(frozen=True)
class LeftOver:
    """What a fit leaves at rows.

    Attributes
    ----------
    X : Tensor of shape (n, d)
        Points in the unit box.
    value : Tensor of shape (n,)
        What is left at each.
    error : Tensor of shape (n,)
        The same where the fit has not seen the row.
    weight : Tensor of shape (n,)
        Frequencies.
    left : Tensor of shape (n,)
        How much of the weight is left out at a time: all of it, unless equal rows count one by one.
    floor : float
        Least standard deviation of an error.
    """

    X: Tensor
    value: Tensor
    error: Tensor
    weight: Tensor
    left: Tensor
    floor: float


class _System(NamedTuple):
    """Covariances of judges and the m rows near each, in units of the kernel's variance.

    Attributes
    ----------
    offset : Tensor of shape (l, m, d)
        Scaled coordinates of the rows, from the judge.
    own : Tensor of shape (l, m)
        Noise of the rows.
    between, away : Tensor of shape (l, m, m) and (l, m)
        Distances among the rows, and from the judge.
    kernel, across : Tensor of shape (l, m, m) and (l, m)
        Covariances at these distances.
    share, whitened : Tensor of shape (l, m)
        Covariances with the judge, and values, over those of the rows with their noise.
    """

    offset: Tensor
    own: Tensor
    between: Tensor
    away: Tensor
    kernel: Tensor
    across: Tensor
    share: Tensor
    whitened: Tensor
    nugget: float


class _Judges:
    """Left-out errors of some rows, as the kernel's scales, nugget and noise have them."""

    def __init__(self, rows: LeftOver, judges: np.ndarray):
        self.rows, self.judges = rows, torch.as_tensor(judges, device=rows.X.device)
        self.error, self.weight = rows.error[self.judges], rows.weight[self.judges]

    def look(self, scales: np.ndarray) -> float:
        """Find the rows nearest to each in coordinates of these scales; the typical distance."""
        Z = self.rows.X.cpu().numpy() * scales
        own = self.judges.cpu().numpy()
        search = NearestRows(Z)
        near = torch.as_tensor(search.find(Z[own], NEAREST + 1), device=self.judges.device)
        weight = self.rows.weight[near]
        is_own = near == self.judges[:, None]
        rest = (weight - self.rows.left[near]).clamp_min(NO_WEIGHT)
        self.near_weight = torch.where(is_own, rest, weight)
        self.offset = self.rows.X[near] - self.rows.X[self.judges][:, None]
        self.value = self.rows.value[near]
        farthest = (self.offset[:, -1] * _like(scales, self.offset)).square().sum(1)
        return float(farthest.sqrt().median())

    def _system(self, theta: np.ndarray) -> _System:
        """Systems of the rows near each judge, solved."""
        d = self.offset.shape[2]
        nugget = math.exp(theta[d])
        offset = self.offset * _like(np.exp(theta[:d]), self.offset)
        own = nugget / self.near_weight
        between, away = near_distances(offset)
        kernel, across = torch.exp(-between), torch.exp(-away)
        factor = torch.linalg.cholesky_ex(kernel + torch.diag_embed(own))[0]
        right = torch.stack([across, self.value], 2)
        solved = torch.cholesky_solve(right, factor)
        share, whitened = solved.unbind(2)
        return _System(offset, own, between, away, kernel, across, share, whitened, nugget)

    def left_out(self, theta: np.ndarray) -> tuple[Tensor, Tensor]:
        """Errors (l,) for scales and nugget, and their variance over that of the noise, less 1."""
        return self._left_out(self._system(np.asarray(theta)))

    def _left_out(self, system: _System) -> tuple[Tensor, Tensor]:
        error = self.error - (system.share * self.value).sum(1)
        told = (system.share * system.across).sum(1)
        return error, (1 - told).clamp_min(0) / system.nugget

    def log_density(self, theta: np.ndarray) -> Tensor:
        """Of each error (l,), for scales, nugget and noise."""
        return self.normal(*self.left_out(theta), theta[-1])

    def normal(self, error: Tensor, spread: Tensor, log_noise: float) -> Tensor:
        """Log density of errors (l,) with what `left_out` says of their variance."""
        return _normal(error, math.exp(log_noise) * (1 + spread) + self.rows.floor**2)

    def without(self) -> Tensor:
        """Log density (l,) of the errors where there is no block."""
        variance = self.weight @ self.error.square() / self.weight.sum()
        return _normal(self.error, variance.clamp_min(self.rows.floor**2))

    def value_of(self, theta: np.ndarray, first: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log density of all, with the penalty on the scales, and its gradient.

        With ``s = A^-1 c`` and ``w = A^-1 v`` for the covariances c of a judge with the rows near
        it, those among these A, and their values v, the smoothed value ``s v`` changes by
        ``dc w - s dA w``, and what the rows tell of it, ``s c``, by ``2 dc s - s dA s``.
        """
        system = self._system(theta)
        error, spread = self._left_out(system)
        noise = math.exp(theta[-1])
        variance = noise * (1 + spread) + self.rows.floor**2
        value = -float(self.weight @ _normal(error, variance))
        of_variance = 0.5 * self.weight * (1 / variance - (error / variance).square())
        of_smoothed = -self.weight * error / variance
        of_told = torch.where(spread > 0, -of_variance * noise / system.nugget, 0.0)
        # - share' dA both is the change by A, dc' (both + of_told * share) that by c.
        both = of_smoothed[:, None] * system.whitened + of_told[:, None] * system.share
        of_across = both + of_told[:, None] * system.share
        by_noise = (system.share * both * system.own).sum() + noise * (of_variance @ spread)
        nugget = -float(by_noise)
        scales = self._slope_of_scales(system, both, of_across)
        rest = [nugget, float((of_variance * (variance - self.rows.floor**2)).sum())]
        apart = _apart(theta, first)
        value += float(apart @ apart) / (2 * SCALE_SPREAD**2)
        return value, np.r_[scales.cpu().numpy() + apart / SCALE_SPREAD**2, rest]

    @staticmethod
    def _slope_of_scales(system: _System, both: Tensor, of_across: Tensor) -> Tensor:
        """Derivatives (d,) by the logarithms of the scales.

        A covariance k falls by ``k / distance`` times the square of the offset along the column.
        """
        z, square = system.offset, system.offset.square()
        by_pair = system.share[:, :, None] * both[:, None] * (system.kernel / system.between)
        by_pair = by_pair + by_pair.mT
        by_pair.diagonal(dim1=1, dim2=2).zero_()
        among = by_pair.sum(2)[..., None] * square - z * (by_pair @ z)
        across = (of_across * system.across / system.away)[..., None] * square
        return (among - across).sum((0, 1))


def _apart(theta: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Logarithms of the scales about the first ones, less their mean."""
    apart = theta[: len(first)] - first
    return apart - apart.mean()


def _like(values: np.ndarray, like: Tensor) -> Tensor:
    """A tensor of the same kind as another one."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _normal(error: Tensor, variance: Tensor) -> Tensor:
    """Log density of errors of these variances."""
    return -0.5 * (torch.log(2 * math.pi * variance) + error.square() / variance)


def fit_local_kernel(
    rows: LeftOver, slopes: np.ndarray, rng: np.random.Generator
) -> LocalKernel | None:
    """Scales, nugget and noise by the density of rows that are left out.

    Parameters
    ----------
    rows : LeftOver
        What is to be smoothed.
    slopes : ndarray of shape (d,)
        Root mean square of the fit's gradient along each column; 0 leaves a column out.
    rng : Generator
        Chooses the rows that are left out where there are many.

    Returns
    -------
    LocalKernel or None
        None where smoothing does not make left-out rows likelier.
    """
    n = len(rows.X)
    judges = np.arange(n) if n <= JUDGES else np.sort(rng.permutation(n)[:JUDGES])
    X = rows.X.cpu().numpy()
    spread = X.std(0)
    used = np.flatnonzero((slopes > 0) & (spread > 0))
    if not len(used) or n <= NEAREST:
        return None
    steep = slopes[used] * spread[used]
    first = np.log(np.maximum(steep / steep.max(), LEAST_SCALE) / spread[used])
    columns = torch.as_tensor(used, device=rows.X.device)
    task = _Judges(LeftOver(rows.X[:, columns], *list(vars(rows).values())[1:]), judges)
    best = _likeliest(task, *_first(task, first))
    if best is None:
        return None
    scales = np.zeros(X.shape[1])
    scales[used] = np.exp(best[:-2])
    nugget, noise = np.exp(best[-2:]).tolist()
    return LocalKernel(_like(scales, rows.X), nugget, noise / nugget)


def _first(task: _Judges, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best of a few lengths and nuggets in given ratios of the scales; logarithms of the scales."""
    farthest = task.look(np.exp(scales))
    best, found = math.inf, scales
    for distance in FIRST_DISTANCES:
        start = scales + math.log(distance / max(farthest, LEAST_DISTANCE))
        for nugget in FIRST_NUGGETS:
            theta = np.r_[start, math.log(nugget), 0.0]
            error, spread = task.left_out(theta)
            square = error.square() / (1 + spread)
            noise = float(task.weight @ square / task.weight.sum())
            least = max(LEAST_OF_NOISE * noise, TINY)
            theta[-1] = np.clip(math.log(max(noise - task.rows.floor**2, least)), *NOISE_BOUNDS)
            value = -float(task.weight @ task.normal(error, spread, theta[-1]))
            if value < best:
                best, found = value, theta
    return found, found[:-2]


class _NoHopeError(Exception):
    """A search gains next to nothing."""


class _Trial:
    """Ends a search that is not about to be a gain after a few iterations."""

    def __init__(self, task: _Judges):
        self.task, self.n_done = task, 0

    def __call__(self, theta: np.ndarray) -> None:
        """Called after every iteration."""
        self.n_done += 1
        if self.n_done == TRIAL:
            gain = self.task.log_density(theta) - self.task.without()
            if not is_gain(gain, self.task.weight, HOPEFUL):
                raise _NoHopeError


def _likeliest(task: _Judges, theta: np.ndarray, first: np.ndarray) -> np.ndarray | None:
    """L-BFGS from a start, within bounds, in rounds; None where the first one is no gain.

    The start is the best of nine: one under which left-out rows are no likelier than without a
    block ends the search, too, and so does a first round that begins with hardly any gain.
    """
    if float(task.weight @ (task.log_density(theta) - task.without())) <= 0:
        return None
    about = [(value + SCALE_BOUNDS[0], value + SCALE_BOUNDS[1]) for value in first]
    bounds = [*about, NUGGET_BOUNDS, NOISE_BOUNDS]
    for number in range(ROUNDS):
        task.look(np.exp(theta[:-2]))
        trial = _Trial(task)
        try:
            found = minimize(
                task.value_of,
                theta,
                args=(first,),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                callback=None if number else trial,
                options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS},
            )
        except _NoHopeError:
            return None
        if np.isfinite(found.x).all():
            theta = found.x
        gain = task.log_density(theta) - task.without()
        if number == 0 and not is_gain(gain, task.weight):
            return None
    return theta
