"""Cubic B-splines of one column, in an order of smoothness, after a power transform.

The B-splines are a partition of unity on the knots. Combinations of them with zero second
derivative at both ends (natural splines) are ordered as by Demmler and Reinsch (1975),
"Oscillation matrices with spline smoothing": a straight line first, then ever rougher functions,
all orthogonal and of unit variance over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import to_array, to_tensor
from skpou.core.linalg import TINY

#: Standardized coordinates are cut here: no row may lie further out than this.
LARGEST_COORDINATE = 4.0
#: How far the straight ends go on outside the knots, in units of the knots' range.
EXTENSION = 0.5
#: Knots closer than this share of their range are one.
CLOSEST_KNOTS = 1e-3
#: Exponents of the Yeo-Johnson transform that are tried: a fixed grid is immune to round-off.
EXPONENTS = np.arange(-16, 33) / 8
#: Transformed values that are held at once while exponents are tried.
EXPONENT_VALUES = 1_000_000
#: Degree of the splines: cubic ones have two continuous derivatives, and six knots bear each.
DEGREE = 3
#: Points up to which calls cost more than the work that they do.
FEW_POINTS = 16
#: Added to the norms of the rough functions, relative to their mean: their factor must exist where
#: knots lie close together.
NUGGET = 1e-12


def yeo_johnson(z: Tensor, exponent: Tensor | float, is_log: bool = True) -> Tensor:
    """Power transform of both signs: Yeo, Johnson (2000), Eq. 2.1, monotone, identity at 1.

    `is_log`: whether an exponent may be 0 or 2, which a logarithm belongs to.
    """
    exponent = torch.as_tensor(exponent, dtype=z.dtype, device=z.device)
    size = torch.log1p(z.abs())
    power = torch.where(z >= 0, exponent, 2 - exponent)
    if not is_log:
        return (torch.expm1(power * size) / power).copysign(z)
    safe = torch.where(power == 0, 1.0, power)
    return torch.where(power == 0, size, torch.expm1(power * size) / safe) * torch.sign(z)


def yeo_johnson_slope(z: Tensor, exponent: Tensor | float) -> Tensor:
    """Derivative of `yeo_johnson` with respect to z."""
    exponent = torch.as_tensor(exponent, dtype=z.dtype, device=z.device)
    power = torch.where(z >= 0, exponent, 2 - exponent)
    return torch.exp((power - 1) * torch.log1p(z.abs()))


def likeliest_exponent(z: Tensor, share: Tensor) -> float:
    """Exponent after which the column looks most Gaussian.

    Parameters
    ----------
    z : Tensor of shape (n,)
        Standardized column.
    share : Tensor of shape (n,)
        Weights that sum to 1.
    """
    jacobian = (share * torch.sign(z) * torch.log1p(z.abs())).sum()
    exponents = torch.tensor(EXPONENTS, dtype=z.dtype, device=z.device)
    values = []
    for some in exponents.split(max(EXPONENT_VALUES // len(z), 1)):
        t = yeo_johnson(z, some[:, None])
        spread = (t - (t @ share)[:, None]).square() @ share
        # The negative log likelihood a row; the log of the transform's slope is its jacobian.
        values.append(0.5 * torch.log(spread + TINY) - (some - 1) * jacobian)
    return float(exponents[torch.cat(values).argmin()])


def local_splines(t: Tensor, knots: Tensor, span: Tensor, derivative: int = 0) -> Tensor:
    """The B-splines that are not zero at each point, by the recurrence of Cox and de Boor.

    Parameters
    ----------
    t : Tensor of shape (..., n)
        Points between the first and the last knot.
    knots : Tensor of shape (..., k + 6)
        Ascending, the first and the last four times.
    span : Tensor of shape (..., n), int64
        ``knots[span] <= t <= knots[span + 1]``, an interval that is not empty.
    derivative : int, default=0
        Order of the derivative, at most 2.

    Returns
    -------
    Tensor of shape (..., n, 4)
        Those of the numbers ``span - 3 .. span``.
    """
    around = span[..., None] + torch.arange(1 - DEGREE, DEGREE + 1, device=t.device)
    near = knots.gather(-1, around.flatten(-2)).unflatten(-1, (t.shape[-1], 2 * DEGREE))
    if t.shape[-1] <= FEW_POINTS and not derivative:
        return _few_local_splines(t[..., None], near)
    values = [torch.ones_like(t)]
    for degree in range(1, DEGREE + 1):
        # B-spline r of degree - 1 begins at knot span + 1 - degree + r, the first one given here.
        parts = []
        for r in range(degree):
            start, end = near[..., DEGREE - degree + r], near[..., DEGREE + r]
            rise = values[r] / (end - start)
            if degree > DEGREE - derivative:
                parts.append((-degree * rise, degree * rise))
            else:
                parts.append(((end - t) * rise, (t - start) * rise))
        inner = [parts[r - 1][1] + parts[r][0] for r in range(1, degree)]
        values = [parts[0][0], *inner, parts[-1][1]]
    return torch.stack(values, -1)


def _few_local_splines(t: Tensor, near: Tensor) -> Tensor:
    """The same sums for points t (..., n, 1) and knots near them (..., n, 6), degree by degree."""
    values, zero = torch.ones_like(t), torch.zeros_like(t)
    for degree in range(1, DEGREE + 1):
        start, end = near[..., DEGREE - degree : DEGREE], near[..., DEGREE : DEGREE + degree]
        rise = values / (end - start)
        left, right = (end - t) * rise, (t - start) * rise
        values = torch.cat([left, zero], -1) + torch.cat([zero, right], -1)
    return values


def bspline_matrix(t: Tensor, knots: Tensor, derivative: int = 0) -> Tensor:
    """Cubic B-splines at t (n,), or derivatives of order 2 at most, as a matrix (n, k + 2).

    Points lie between the first and the last of the knots (k + 6,), which ascend; these two stand
    four times.
    """
    n_knots = len(knots)
    span = torch.searchsorted(knots, t, right=True) - 1
    span = span.clamp(DEGREE, n_knots - DEGREE - 2)
    values = t.new_zeros((len(t), n_knots - DEGREE - 1))
    places = span[:, None] + torch.arange(-DEGREE, 1, device=t.device)
    return values.scatter_(1, places, local_splines(t, knots, span, derivative))


def choose_knots(t: Tensor, most: int) -> Tensor:
    """Quantiles of the values: the distinct values where they are few."""
    distinct = torch.unique(t)
    count = min(most, len(distinct))
    levels = torch.linspace(0, 1, count, dtype=t.dtype, device=t.device)
    source = distinct if len(distinct) <= most else t
    knots = torch.unique(torch.quantile(source, levels))
    if len(knots) < count:  # values that repeat so often that quantiles fall together
        knots = torch.unique(torch.cat([knots, torch.quantile(distinct, levels)]))
    gap = CLOSEST_KNOTS * (knots[-1] - knots[0])
    kept = [0]
    for k in range(1, len(knots)):
        if float(knots[k] - knots[kept[-1]]) > gap:
            kept.append(k)
    return knots[kept]


def smooth_order(t: Tensor, share: Tensor, knots: Tensor) -> tuple[Tensor, Tensor]:
    """Centred natural splines from the smoothest to the roughest, of unit variance.

    Parameters
    ----------
    t : Tensor of shape (n,)
        Coordinates of the rows.
    share : Tensor of shape (n,)
        Weights that sum to 1.
    knots : Tensor of shape (k + 6,)
        See `bspline_matrix`.

    Returns
    -------
    transform : Tensor of shape (k + 2, m)
        Coefficients of the B-splines; the first function is the straight line.
    roughness : Tensor of shape (m,)
        Integral of the squared second derivative.
    """
    inner = knots[DEGREE:-DEGREE]
    B = bspline_matrix(t, knots)
    mean = share @ B
    S = B.T @ (share[:, None] * B)
    line = (knots[1:-3] + knots[2:-2] + knots[3:-1]) / 3  # Greville abscissae give t itself.
    line = line - mean @ line
    line = line / (line @ S @ line).sqrt()
    zero = t.new_zeros(1)
    if len(inner) < 3:
        return line[:, None], zero
    # The second derivative is linear between knots: two Gauss points integrate its square.
    step = 0.5 * inner.diff()
    middle = inner[:-1] + step
    points = torch.cat([middle - step / 3**0.5, middle + step / 3**0.5])
    D = bspline_matrix(points, knots, 2)
    penalty = D.T @ (torch.cat([step, step])[:, None] * D)
    ends = bspline_matrix(inner[[0, -1]], knots, 2)
    natural = torch.linalg.qr(ends.T, mode="complete").Q[:, 2:]
    gram = natural.T @ S @ natural
    gram.diagonal().add_(NUGGET * gram.diagonal().mean())
    inverse = torch.linalg.solve_triangular(
        torch.linalg.cholesky(gram),
        torch.eye(len(gram), dtype=t.dtype, device=t.device),
        upper=False,
    )
    roughness, vectors = torch.linalg.eigh(inverse @ (natural.T @ penalty @ natural) @ inverse.T)
    functions = natural @ (inverse.T @ vectors[:, 2:])  # Constant and line come first.
    functions = functions - (mean @ functions)
    return torch.cat([line[:, None], functions], 1), torch.cat([zero, roughness[2:]])


@dataclass(frozen=True)
class SplineColumn:
    """Functions ``psi_1 .. psi_m`` of one column; the first is its straight line.

    Attributes
    ----------
    centre, width, exponent, shift, spread : float
        The coordinate is ``t = (yeo_johnson((x - centre) / width, exponent) - shift) / spread``.
    knots : Tensor of shape (k + 6,)
        Knots of the cubic B-splines, the first and last four times.
    transform : Tensor of shape (k + 2, m)
        Coefficients of the functions in the B-splines.
    """

    centre: float
    width: float
    exponent: float
    shift: float
    spread: float
    knots: Tensor
    transform: Tensor

    @property
    def n_functions(self) -> int:
        """Number m of functions."""
        return self.transform.shape[1]

    def line(self) -> SplineColumn:
        """The same column with its straight line alone."""
        return replace(self, transform=self.transform[:, :1].contiguous())

    def arrays(self) -> dict[str, Any]:
        """State as numbers and numpy arrays."""
        return {
            "place": np.array([self.centre, self.width, self.exponent, self.shift, self.spread]),
            "knots": self.knots.cpu().numpy(),
            "transform": to_array(self.transform),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> SplineColumn:
        """Rebuild from `arrays`, on the device of `like`, in float64."""
        parts = (to_tensor(arrays[name], like) for name in ("knots", "transform"))
        return cls(*arrays["place"].tolist(), *parts)


def fit_column(x: Tensor, weight: Tensor, n_functions: int, transform: bool) -> SplineColumn:
    """Transform, knots and functions of one column that is not constant.

    Parameters
    ----------
    x : Tensor of shape (n,)
        Values at the rows.
    weight : Tensor of shape (n,)
        Positive weights.
    n_functions : int
        Most functions; columns of few distinct values have fewer.
    transform : bool
        Whether a power transform may be used.
    """
    share = weight / weight.sum()

    def standard(values: Tensor) -> tuple[float, float]:
        mean = float((share * values).sum())
        return mean, float((share * (values - mean).square()).sum().sqrt())

    centre, width = standard(x)
    z = (x - centre) / width
    exponent = likeliest_exponent(z, share) if transform else 1.0
    t = yeo_johnson(z, exponent)
    shift, spread = standard(t)
    t = ((t - shift) / spread).clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    inner = choose_knots(t, n_functions + 2)
    knots = torch.cat([inner[:1].expand(DEGREE), inner, inner[-1:].expand(DEGREE)])
    functions = smooth_order(t, share, knots)[0][:, :n_functions]
    return SplineColumn(centre, width, exponent, shift, spread, knots, functions.contiguous())
