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

#: Standardized coordinates are cut here: no row may lie further out than this.
LARGEST_COORDINATE = 4.0
#: How far the straight ends go on outside the knots, in units of the knots' range.
EXTENSION = 0.5
#: Knots closer than this share of their range are one.
CLOSEST_KNOTS = 1e-3
#: Exponents of the Yeo-Johnson transform that are tried: a fixed grid is immune to round-off.
EXPONENTS = np.arange(-16, 33) / 8
DEGREE = 3


def yeo_johnson(z: Tensor, exponent: Tensor | float) -> Tensor:
    """Power transform of both signs: Yeo, Johnson (2000), Eq. 2.1, monotone, identity at 1."""
    exponent = torch.as_tensor(exponent, dtype=z.dtype, device=z.device)
    size = torch.log1p(z.abs())
    power = torch.where(z >= 0, exponent, 2 - exponent)
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
    best, score = 1.0, torch.inf
    for exponent in EXPONENTS:
        t = yeo_johnson(z, float(exponent))
        spread = (share * (t - (share * t).sum()).square()).sum()
        # The negative log likelihood a row; the log of the transform's slope is its jacobian.
        value = float(0.5 * torch.log(spread + 1e-300) - (exponent - 1) * jacobian)
        if value < score:
            best, score = float(exponent), value
    return best


def bspline_matrix(t: Tensor, knots: Tensor, derivative: int = 0) -> Tensor:
    """Cubic B-splines, or their derivatives, by the recurrence of Cox and de Boor.

    Parameters
    ----------
    t : Tensor of shape (n,)
        Points between the first and the last knot.
    knots : Tensor of shape (k + 6,)
        Ascending, the first and the last four times.
    derivative : int, default=0
        Order of the derivative, at most 2.

    Returns
    -------
    Tensor of shape (n, k + 2)
    """
    n_knots = len(knots)
    span = torch.searchsorted(knots, t, right=True) - 1
    span = span.clamp(DEGREE, n_knots - DEGREE - 2)
    values = t.new_zeros((len(t), n_knots - 1)).scatter_(1, span[:, None], 1.0)
    for degree in range(1, DEGREE + 1):
        width = knots[degree:-1] - knots[: -degree - 1]
        rise = torch.where(width > 0, 1 / torch.where(width > 0, width, 1.0), 0.0)
        width = knots[degree + 1 :] - knots[1:-degree]
        fall = torch.where(width > 0, 1 / torch.where(width > 0, width, 1.0), 0.0)
        if degree > DEGREE - derivative:
            values = degree * (values[:, :-1] * rise - values[:, 1:] * fall)
        else:
            left = (t[:, None] - knots[: -degree - 1]) * rise
            right = (knots[degree + 1 :] - t[:, None]) * fall
            values = values[:, :-1] * left + values[:, 1:] * right
    return values


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
    gram.diagonal().add_(1e-12 * gram.diagonal().mean())
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

    def coordinate(self, x: Tensor) -> Tensor:
        """Standardized and transformed values, cut at 4."""
        z = (x - self.centre) / self.width
        if self.exponent != 1 or self.n_functions > 1:
            z = yeo_johnson(z, self.exponent)
        t = (z - self.shift) / self.spread
        return t.clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)

    def _reach(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Points between the knots, and how far beyond these they were, cut."""
        low, high = self.knots[0], self.knots[-1]
        beyond = EXTENSION * (high - low)
        inside = t.clamp(low, high)
        return inside, t.clamp(low - beyond, high + beyond) - inside

    def functions(self, x: Tensor) -> Tensor:
        """Values (n, m): straight outside the knots, constant far outside."""
        inside, beyond = self._reach(self.coordinate(x))
        if self.n_functions == 1:
            return self._line(inside + beyond)[:, None]
        values = bspline_matrix(inside, self.knots)
        if bool(beyond.any()):
            values = values + beyond[:, None] * bspline_matrix(inside, self.knots, 1)
        return values @ self.transform

    def _line(self, t: Tensor) -> Tensor:
        """The first function at coordinates t (n,): no B-splines are needed for a straight line."""
        first, last = self.transform[0, 0], self.transform[-1, 0]
        low, high = self.knots[0], self.knots[-1]
        return first + (t - low) * ((last - first) / (high - low))

    def line(self) -> SplineColumn:
        """The same column with its straight line alone."""
        return replace(self, transform=self.transform[:, :1].contiguous())

    def coordinate_slope(self, x: Tensor) -> Tensor:
        """Derivative (n,) of `coordinate`."""
        z = (x - self.centre) / self.width
        t = (yeo_johnson(z, self.exponent) - self.shift) / self.spread
        slope = yeo_johnson_slope(z, self.exponent) / (self.width * self.spread)
        return torch.where(t.abs() <= LARGEST_COORDINATE, slope, 0.0)

    def slopes(self, x: Tensor) -> Tensor:
        """Derivatives (n, m) with respect to x."""
        t = self.coordinate(x)
        inside = self._reach(t)[0]
        low, high = self.knots[0], self.knots[-1]
        reach = EXTENSION * (high - low)
        moves = (t >= low - reach) & (t <= high + reach)
        slope = torch.where(moves, self.coordinate_slope(x), 0.0)
        return slope[:, None] * (bspline_matrix(inside, self.knots, 1) @ self.transform)

    def arrays(self) -> dict[str, Any]:
        """State as numbers and numpy arrays."""
        return {
            "place": np.array([self.centre, self.width, self.exponent, self.shift, self.spread]),
            "knots": self.knots.cpu().numpy(),
            "transform": self.transform.cpu().contiguous().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> SplineColumn:
        """Rebuild from `arrays`, on the device of `like`, in float64."""
        parts = (
            torch.tensor(np.asarray(arrays[name]), device="cpu") for name in ("knots", "transform")
        )
        return cls(*arrays["place"].tolist(), *(part.to(like.device) for part in parts))


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
