"""Rows that lie far from a fit to the others, each for itself: outliers.

They are told by errors of predictions that have not seen their row. A mixture of a Gaussian and a
wide one must explain these errors far better than a Gaussian alone, and better than a skewed
density; a row is an outlier where the wide one is likelier. Where noise varies, the scale is that
of the errors nearby; rows next to each other that err alike are something that the fit has missed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.stats import norm, poisson
from scipy.stats import t as student_t
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import LARGEST_LEVERAGE, TINY, evenly, row_blocks, rows_within
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import EXACT_NOISE, is_exact
from skpou.core.models.error_densities import (
    LEAST_RATIO,
    MEDIAN_OF_SIZE,
    MOST_SHARE,
    gaussian,
    skewed,
    two_widths,
)
from skpou.core.models.independent import IndependentComponents
from skpou.core.models.model import Predictor, SameMean

#: Rows below which nothing is set apart: so few do not tell a wide component.
FEWEST_OF_OUTLIERS = 20
#: Rows that are looked at first, to see whether there may be outliers at all.
MOST_TESTED = 2000
#: An error so many standard deviations of the others away is none of a Gaussian's.
LEAST_FAR = 6.0
#: Nats by which the mixture must be likelier than one Gaussian, beside half the logarithm of the
#: number of rows for each of its two further parameters, and than the skewed density.
LEAST_GAIN = 5.0
#: Errors of which the median is the local scale, by what factor it varies by chance, and columns
#: from which on neighbours tell nothing.
NEARBY, BY_CHANCE, MOST_COLUMNS = 15, 1.5, 6
#: Most of the nearest rows of which one may err alike: two along each column.
MOST_NEAREST = 6
#: Rows that tell how often an error agrees with a neighbour by chance.
MOST_COMPARED = 200
#: Nearest rows through which a plane is laid, for each of its coefficients.
ROWS_PER_COEFFICIENT = 3
#: Distance of rows from such planes, over that which a share of them does not exceed, from which on
#: a place is rough: where rows are few, half of them may be beside a jump.
LEAST_ROUGH, SMOOTH_SHARE = 2.0, 0.25
#: Standard deviations from which on a neighbour errs alike.
ALIKE = 3.0
#: How often chance may place so many outliers side by side, or one where its neighbours are.
SIDE_BY_SIDE = 0.05
#: Usual errors over the spread of y below which they are those of a form, not of noise: a row at an
#: end is then an extrapolation that failed, as that of a root towards zero does.
OF_A_FORM = 1e-2
#: Correlation of nearest rows' errors from which on they are a form's: noise has hardly a tenth.
SHARED = 0.5
#: Leverage from which on a row is fitted by a part of the fit that is there for it alone.
LEAST_OWN = 0.8


class LeftOutErrors(NamedTuple):
    """Errors of one target at rows that the prediction has not seen.

    Attributes
    ----------
    X : ndarray of shape (n, d)
        Points in the unit box.
    y, mean : ndarray of shape (n,)
        Targets, and predictions of all.
    error : ndarray of shape (n,)
        Errors.
    factor : ndarray of shape (n,)
        Their standard deviation over that of the noise.
    weight : ndarray of shape (n,)
        Frequencies.
    leverage : ndarray of shape (n,)
        Part that each target has in its own fitted value.
    """

    X: np.ndarray
    y: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    factor: np.ndarray
    weight: np.ndarray
    leverage: np.ndarray

    def centred(self) -> np.ndarray:
        """Errors (n,) of unit factor about their median: outliers may have drawn the mean."""
        scaled = self.error / self.factor
        return scaled - np.median(scaled)


@dataclass(frozen=True)
class OutlierSplit:
    """A mixture of two Gaussians about zero, fitted to scaled errors.

    Attributes
    ----------
    share : float
        That of the wide one.
    narrow, wide : float
        Standard deviations.
    far : ndarray of shape (n,), bool
        Where the wide one is likelier.
    scaled : ndarray of shape (n,)
        Errors over their scale, in standard deviations of the narrow one.
    log_density : ndarray of shape (n,)
        Of the errors.
    """

    share: float
    narrow: float
    wide: float
    far: np.ndarray
    scaled: np.ndarray
    log_density: np.ndarray


def left_out_by_leverage(
    model: Predictor, X: Tensor, y: Tensor, fitted: Tensor, weight: Tensor
) -> list[LeftOutErrors] | None:
    """Errors of every target, each of its row alone left out; None where a fit is exact.

    Parameters
    ----------
    model : Predictor
        In scaled units.
    X, y : Tensor of shape (n, d) and (n, m)
        Points and targets.
    fitted : Tensor of shape (n,)
        Weights of the rows in the fit: 0 where it has not seen them.
    weight : Tensor of shape (n,)
        Frequencies.
    """
    means, spreads = [], []
    for block in row_blocks(len(X), rows_within(model.numbers_per_row())):
        parts = model.components(X[block])
        noise, epistemic = (part.double() for part in parts.variances())
        if is_exact(noise.amin(0)):
            return None
        means.append(parts.expectation().double())
        spreads.append(epistemic / noise)
    mean, spread = torch.cat(means), torch.cat(spreads)
    leverage = (fitted.double()[:, None] * spread).clamp_max(LARGEST_LEVERAGE)
    error = (y.double() - mean) / (1 - leverage)
    factor = (1 + spread / (1 - leverage)).sqrt()
    return _errors(X, y, weight, mean, error, factor, leverage)


def beside_an_exact_fit(
    model: Predictor, X: Tensor, y: Tensor, fitted: Tensor, weight: Tensor
) -> list[LeftOutErrors] | None:
    """Errors of every target for a fit that is exact at the rows it has seen.

    Rows beyond its parameters confirm it, and what it errs by at others is theirs. None where they
    are fewer than tell a wide component: it would pass through any rows. Arguments as above.
    """
    means, spent = [], y.new_zeros(y.shape[1], dtype=torch.float64)
    for block in row_blocks(len(X), rows_within(model.numbers_per_row())):
        parts = model.components(X[block])
        noise, epistemic = (part.double() for part in parts.variances())
        seen = (fitted[block].double()[:, None] * epistemic / noise).clamp_max(1.0)
        spent = spent + seen.sum(0)
        means.append(parts.expectation().double())
    if bool(((fitted > 0).sum() - spent < FEWEST_OF_OUTLIERS).any()):
        return None
    mean = torch.cat(means)
    zero = torch.zeros_like(mean)
    return _errors(X, y, weight, mean, y.double() - mean, zero + 1, zero)


def _errors(X: Tensor, y: Tensor, weight: Tensor, *columns: Tensor) -> list[LeftOutErrors] | None:
    """Those of every target; None where they are not finite."""
    if not all(bool(torch.isfinite(part).all()) for part in columns):
        return None
    points, frequency = X.double().cpu().numpy(), weight.double().cpu().numpy()
    frequency = frequency * len(frequency) / frequency.sum()
    arrays = [part.cpu().numpy().T for part in (y.double(), *columns)]
    return [
        LeftOutErrors(points, y, mean, error, factor, frequency, own)
        for y, mean, error, factor, own in zip(*arrays, strict=True)
    ]


def fitted_alone(errors: LeftOutErrors) -> np.ndarray:
    """Rows (n,), bool, that a part of the fit is there for alone; none where these are many.

    What it would be without them is not known: what this part is of was found for them, too.
    """
    own = errors.leverage > LEAST_OWN
    return own & (own.mean() < MOST_SHARE)


def stands_out(errors: LeftOutErrors, own: np.ndarray) -> np.ndarray:
    """Those of some rows (n,), bool, that are far from what the other rows nearby tell.

    A part of a fit for one row may be there for an outlier, or for a bend or an edge where rows are
    few. There the row is no farther from a plane through those nearby than these are themselves.
    Where no planes can be laid those stand out that the other coefficients do not foretell.
    """
    place, others = np.flatnonzero(own), np.flatnonzero(~own)
    d = errors.X.shape[1]
    k = ROWS_PER_COEFFICIENT * (d + 1)
    if not 0 < d <= MOST_COLUMNS or k > len(others) or not len(place):
        return own & _is_unforeseen(errors)
    X, y = errors.X[others], errors.y[others]
    near = cKDTree(X).query(errors.X[place], k=k)[1]
    value, rough, factor = _planes(errors.X[place], X, y, near)
    result = np.zeros_like(own)
    result[place] = np.abs(errors.y[place] - value) > _usual_step(k - d - 1) * rough * factor
    return result


def _is_unforeseen(errors: LeftOutErrors) -> np.ndarray:
    """Rows (n,), bool, of which the coefficients without them miss the targets by far, or may.

    What the other rows do not tell of these coefficients is no excuse: where a part of the fit is
    there for an outlier, the error is the outlier's. With the largest leverage it is not known.
    """
    usual = np.median(np.abs(errors.centred())) / MEDIAN_OF_SIZE
    far = np.abs(errors.error) > LEAST_FAR * usual
    return far | (errors.leverage >= LARGEST_LEVERAGE)


def _usual_step(n_free: int) -> float:
    """Standard deviations, known from so few rows, as improbable as `ALIKE` is for a Gaussian."""
    return float(student_t.isf(norm.sf(ALIKE), n_free))


def may_hold_outliers(model: Predictor, rows: Rows) -> bool:
    """Whether there may be outliers: a quick look at some of the rows of a fit."""
    rows = rows.pairs()
    some = evenly(rows.n_rows, MOST_TESTED)
    weight = rows.weight[some]
    errors = left_out_by_leverage(model, rows.X[some], rows.y[some], weight, weight) or []
    return any(_any_far(one) or fitted_alone(one).any() for one in errors)


def _any_far(errors: LeftOutErrors) -> bool:
    """Whether an error is far beyond the usual ones."""
    size = np.abs(errors.centred())
    far = (size > LEAST_FAR / MEDIAN_OF_SIZE * np.median(size)) & (errors.leverage <= LEAST_OWN)
    return bool(far.any() and far.mean() < MOST_SHARE)


def split_outliers(errors: LeftOutErrors) -> OutlierSplit | None:
    """Share and width of a wide component; None where nothing says for certain there is one."""
    if len(errors.error) < FEWEST_OF_OUTLIERS or not _any_far(errors):
        return None
    scale = _local_scales(errors)
    # Errors of rows that are fitted for themselves tell nothing.
    known = errors.leverage <= LEAST_OWN
    u, weight = errors.centred() / scale, errors.weight * known
    found = two_widths(u, weight) if known.sum() >= FEWEST_OF_OUTLIERS else None
    if found is None:
        return None
    share, narrow, wide, responsibility, log_density = found
    others = max(gaussian(u, weight) + math.log(len(u)), skewed(u, weight)) + LEAST_GAIN
    if float(weight @ log_density) < others:
        return None
    far = known & (responsibility > 0.5) & (np.abs(u) > LEAST_RATIO * narrow)
    log_density = log_density - np.log(scale * errors.factor)
    return OutlierSplit(share, narrow, wide, far, u / narrow, log_density) if far.any() else None


def split_exact(errors: LeftOutErrors) -> OutlierSplit | None:
    """Rows that a fit which is exact at all others misses by more than a form may."""
    size, narrow = np.abs(errors.error), OF_A_FORM / LEAST_FAR
    far = size > OF_A_FORM
    share = float(errors.weight @ far) / len(far)
    if not 0 < share < MOST_SHARE:
        return None
    wide = math.sqrt(float((errors.weight * far) @ size**2) / (share * len(far)))
    logs = norm.logpdf(size, scale=wide) + math.log(share)
    log_density = np.where(far, logs, norm.logpdf(size, scale=math.sqrt(EXACT_NOISE)))
    return OutlierSplit(share, narrow, wide, far, errors.error / narrow, log_density)


def without_clusters(found: OutlierSplit, errors: LeftOutErrors) -> OutlierSplit:
    """The split whose far rows have no neighbours that err alike, to the same side.

    A peak that a fit has missed is such a cluster. Neighbours of an outlier err to the other side:
    it has drawn the fit. Nor is a row far that is as predicted for a neighbour: between the two
    there may be a jump, in a place that the fit has missed by a row; nor one among rows that differ
    from each other as much, unlike those elsewhere: they are on both sides of a jump. Nor is the
    last row of a column, where there is hardly noise: nothing tells how a function ends. Where all
    neighbours err alike there is none, and small errors are the form's.
    """
    far = found.far & ~_is_across(found, errors) & ~_is_at_a_jump(found, errors)
    of_a_form = OF_A_FORM * float(np.std(errors.y))
    if found.narrow < of_a_form:
        far = far & ~_is_at_an_end(errors.X)
        if far.any() and _shared_by_neighbours(found, errors) > SHARED:
            far = far & (np.abs(errors.error) > of_a_form)
    found = replace(found, far=far)
    alike, chance = _side_by_side(found, errors, signed=True)
    if chance < SIDE_BY_SIDE:
        far = far & ~alike
    return replace(found, far=far)


def are_clustered(found: OutlierSplit, errors: LeftOutErrors) -> bool:
    """Whether far rows lie side by side more than chance has it, for a fit without them."""
    return _side_by_side(found, errors, signed=False)[1] < SIDE_BY_SIDE


def _side_by_side(
    found: OutlierSplit, errors: LeftOutErrors, signed: bool
) -> tuple[np.ndarray, float]:
    """Far rows (n,), bool, with a neighbour that errs alike, and how probable so many are."""
    X, z, far = errors.X, found.scaled, found.far
    n, d = X.shape
    alike = np.zeros(n, dtype=bool)
    if not 0 < d <= MOST_COLUMNS or n <= MOST_NEAREST or not far.any():
        return alike, 1.0
    k, place = min(2 * d, MOST_NEAREST), np.flatnonzero(far)
    near = _nearest(X, place, k)
    side = np.sign(z) if signed else np.ones(n)
    large = np.abs(z) > ALIKE
    same = large[near] & (side[near] == side[place][:, None])
    others = np.array([np.sum(large & (side == own)) - 1 for own in side[place]])
    # Two far rows are neighbours of each other: their pair is found twice.
    expected = float(np.maximum(others, 1).sum()) * k / n / 2
    alike[place] = same.any(1)
    return alike, float(poisson.sf((same.sum() + 1) // 2 - 1, expected))


def _shared_by_neighbours(found: OutlierSplit, errors: LeftOutErrors) -> float:
    """Correlation of errors with those of the nearest rows, large ones cut off; noise has none."""
    z = np.clip(found.scaled, -ALIKE, ALIKE)
    nearest = _nearest(errors.X, np.arange(len(z)), 1)[:, 0]
    return float(z @ z[nearest]) / max(float(z @ z), TINY)


def _is_at_an_end(X: np.ndarray) -> np.ndarray:
    """Rows (n,), bool, that alone have the least or the largest value of some column."""
    if not len(X) or not 0 < X.shape[1] <= MOST_COLUMNS:
        return np.zeros(len(X), dtype=bool)
    ends = (X == X.min(0)), (X == X.max(0))
    return np.any([end & (end.sum(0) == 1) for end in ends], axis=(0, 2))


def _is_across(found: OutlierSplit, errors: LeftOutErrors) -> np.ndarray:
    """Far rows (n,), bool, whose target is what is predicted for a neighbour, as chance hardly has.

    How often chance has it, where predictions change much from row to row, errors of their size
    would tell at other rows.
    """
    across = np.zeros(len(found.far), dtype=bool)
    n, d = errors.X.shape
    if not 0 < d <= MOST_COLUMNS or n <= MOST_NEAREST or not found.far.any():
        return across
    place, others = np.flatnonzero(found.far), np.flatnonzero(~found.far)
    others = others[evenly(len(others), MOST_COMPARED)]
    left = (errors.y - errors.mean)[place]
    most = ALIKE * found.narrow * errors.factor[place]
    steps, usual = (
        errors.mean[_nearest(errors.X, some, MOST_NEAREST)] - errors.mean[some, None]
        for some in (place, others)
    )
    agrees = (np.abs(left[:, None] - steps) < most[:, None]).any(1)
    by_chance = (np.abs(left[:, None, None] - usual) < most[:, None, None]).any(2).mean(1)
    across[place] = agrees & (by_chance < SIDE_BY_SIDE)
    return across


def _is_at_a_jump(found: OutlierSplit, errors: LeftOutErrors) -> np.ndarray:
    """Far rows (n,), bool, no farther from a plane than rows nearby, where these are unusually so.

    Where targets change as much everywhere, and the fit follows, this is no reason for an error.
    """
    jump = np.zeros(len(found.far), dtype=bool)
    place, others = np.flatnonzero(found.far), np.flatnonzero(~found.far)
    d = errors.X.shape[1]
    k = min(ROWS_PER_COEFFICIENT * (d + 1), len(others) - 1)
    if not 0 < d <= MOST_COLUMNS or k <= d + 1 or not len(place):
        return jump
    some = np.arange(len(others))[evenly(len(others), MOST_COMPARED)]
    X, y = errors.X[others], errors.y[others]
    near = cKDTree(X).query(errors.X[place], k=k)[1]
    _, usual, _ = _planes(X[some], X, y, _nearest(X, some, k))
    value, rough, factor = _planes(errors.X[place], X, y, near)
    unusual = rough > LEAST_ROUGH * np.quantile(usual, SMOOTH_SHARE)
    most = _usual_step(k - d - 1) * rough * factor
    jump[place] = unusual & (np.abs(errors.y[place] - value) < most)
    return jump


def _planes(
    at: np.ndarray, X: np.ndarray, y: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes of least squares through rows `near` (l, k) of X, y, at points (l, d).

    Returns values (l,), standard deviations (l,) of the rows from each, and their factors (l,) for
    another row at the point.
    """
    step = X[near] - at[:, None]
    # Pseudo-inverses take singular values as zero relative to the largest.
    step = step / np.maximum(np.abs(step).max(1, keepdims=True), TINY)
    design = np.concatenate([np.ones_like(step[..., :1]), step], 2)
    inverse = np.linalg.pinv(design)
    coef = (inverse @ y[near][..., None])[..., 0]
    left = y[near] - (design @ coef[..., None])[..., 0]
    free = near.shape[1] - design.shape[2]
    factor = np.sqrt(1 + np.sum(inverse[:, 0] ** 2, 1))
    return coef[:, 0], np.sqrt(np.sum(left**2, 1) / free), factor


def _nearest(X: np.ndarray, place: np.ndarray, k: int) -> np.ndarray:
    """Numbers (l, k) of the rows nearest to some, without these themselves."""
    near = cKDTree(X).query(X[place], k=k + 1)[1]
    own = near == place[:, None]
    own[~own.any(1), -1] = True  # Others at the same point came before it.
    return near[~own].reshape(len(place), k)


def _local_scales(errors: LeftOutErrors) -> np.ndarray:
    """Factors (n,), at least 1, by which errors nearby, or of like means, exceed the usual ones."""
    size = np.abs(errors.centred())
    usual = max(float(np.median(size)), TINY)
    count = min(NEARBY, len(size))
    order = np.argsort(errors.mean, kind="stable")
    half = count // 2
    padded = np.pad(size[order], (half, count - 1 - half), mode="reflect")
    local = np.empty_like(size)
    local[order] = np.median(np.lib.stride_tricks.sliding_window_view(padded, count), 1)
    if 0 < errors.X.shape[1] <= MOST_COLUMNS:
        near = cKDTree(errors.X).query(errors.X, k=count)[1]
        local = np.maximum(local, np.median(size[near.reshape(len(size), count)], 1))
    return np.maximum(local / (BY_CHANCE * usual), 1.0)


@dataclass(frozen=True)
class WithOutliers(SameMean):
    """A predictor whose density knows the outliers: with its share each Gaussian is a wide one.

    Attributes
    ----------
    model : Predictor
        Of the other rows.
    share : ndarray of shape (m,)
        Of the outliers, for each target.
    variance : ndarray of shape (m,)
        Theirs about the mean, in scaled units.
    """

    model: Predictor
    share: np.ndarray
    variance: np.ndarray

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m) of the model's mean."""
        return self.model.covariance(X)  # type: ignore[attr-defined]

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density of y at points X (n, d)."""
        parts = self.model.components(X, posterior)
        n, count, m = parts.mean.shape
        independent = isinstance(parts, IndependentComponents)
        log_pi, share = parts.log_pi, parts.mean.new_tensor(self.share)
        if not independent and count > 1 and m > 1:
            # Targets that share their components share the outliers.
            shares: Tensor = share.max()
        else:
            shares = share
            log_pi = log_pi if independent else log_pi[..., None].expand(n, count, m)
        # Single precision holds no square of an outlier of 1e30: half of what it holds is as wide.
        variance = self.variance.clip(max=torch.finfo(parts.mean.dtype).max / 2)
        wide = parts.noise.expand(n, count, m) + parts.mean.new_tensor(variance)
        log_pi = torch.cat([log_pi + torch.log1p(-shares), log_pi + torch.log(shares)], 1)
        mean = torch.cat([parts.mean, parts.mean], 1)
        noise = torch.cat([parts.noise.expand(n, count, m), wide], 1)
        epistemic = torch.cat([parts.epistemic.expand(n, count, m)] * 2, 1)
        if log_pi.ndim == 2:
            return Components(log_pi, mean, noise, epistemic)
        return IndependentComponents(log_pi, mean, noise, epistemic, parts.expectation())


def log_density_of(errors: LeftOutErrors, found: OutlierSplit | None) -> np.ndarray:
    """Log density of the errors (n,); by one Gaussian where there is no wide component."""
    if found is not None:
        return found.log_density
    scale = _local_scales(errors)
    u, weight = errors.centred() / scale, errors.weight
    variance = max(float(weight @ u**2) / float(weight.sum()), TINY)
    density = -0.5 * (np.log(2 * math.pi * variance) + u**2 / variance)
    return density - np.log(scale * errors.factor)
