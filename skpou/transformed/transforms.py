"""Monotone transforms of targets, with their inverses and the slopes of both.

Arrays hold targets along the first axis, outputs along the second where y had one, and anything
after that. A transform is stored as what `arrays` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import boxcox1p, inv_boxcox1p

#: Exponents between which Yeo and Johnson's transform maps the whole line onto the whole line:
#: beyond, what is predicted may have no inverse.
EXPONENTS = (0.0, 2.0)
#: Digits of the exponent that are kept: far more than rows can tell, and fewer than round-off in
#: the order of their sum reaches, so that weights equal repeated rows.
DIGITS = 4
#: How closely the exponent is found: far below these digits.
EXPONENT_ACCURACY = 1e-7
#: Halvings of the step of a numerical slope, to 1e-8 of the first one, which may reach beyond the
#: end of a function's domain; and orders that are extrapolated: more amplify round-off.
HALVINGS, ORDERS = 26, 7
#: Factor by which the error of central differences falls with every halving: squares of steps.
FALL = 4
#: First step, in units of the transformed targets' spread.
FIRST_STEP = 0.5
#: How closely the inverse of a pair of functions must undo the function, in units of the largest
#: y: round-off of any sensible pair is far below.
UNDONE = 1e-6
#: Spread of transformed targets, in units of the largest, up to which they are one constant.
CONSTANT = 1e-12
#: Spread of a target of unit size that is round-off.
NO_SPREAD = 1e-15


class Transform(Protocol):
    """An increasing or decreasing function of y."""

    @property
    def increasing(self) -> bool:
        """Whether it increases."""

    def forward(self, y: np.ndarray) -> np.ndarray:
        """Transformed values of y; ValueError where one has none."""

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """Values of y."""

    def inverse_slope(self, t: np.ndarray) -> np.ndarray:
        """Derivative of the inverse."""

    def log_slope(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Logarithm of the function's derivative, without its sign, at y, which it takes to t."""

    def arrays(self) -> dict[str, Any]:
        """State as plain values and arrays, and functions where they were given."""


@dataclass(frozen=True)
class Logarithm:
    """The natural logarithm."""

    increasing = True

    def forward(self, y: np.ndarray) -> np.ndarray:
        """Logarithms."""
        _refuse(~(y > 0), y, "transform='log' needs positive y.")
        return np.log(y)

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """Exponentials; infinite beyond the largest number."""
        with np.errstate(over="ignore"):
            return np.exp(t)

    def inverse_slope(self, t: np.ndarray) -> np.ndarray:
        """Exponentials."""
        return self.inverse(t)

    def log_slope(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Of 1 / y."""
        return -t

    def arrays(self) -> dict[str, Any]:
        """Its name alone."""
        return {"kind": "log"}


@dataclass(frozen=True)
class YeoJohnson:
    """Powers on both sides of the mean of every output, I.-K. Yeo and R. A. Johnson (2000).

    Attributes
    ----------
    exponent : ndarray of shape (m,)
        Lambda.
    centre, scale : ndarray of shape (m,)
        Mean and standard deviation of y, in which units the powers are taken.
    """

    exponent: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    increasing = True

    def forward(self, y: np.ndarray) -> np.ndarray:
        """Transformed values."""
        exponent, centre, scale = self._along(y)
        return _powers((y - centre) / scale, exponent)

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """Values of y; infinite beyond the largest number."""
        exponent, centre, scale = self._along(t)
        return centre + scale * _roots(t, exponent)

    def inverse_slope(self, t: np.ndarray) -> np.ndarray:
        """Derivative of the inverse."""
        exponent, _, scale = self._along(t)
        with np.errstate(over="ignore"):
            return scale * np.exp(-_log_slope(_roots(t, exponent), exponent))

    def log_slope(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Logarithm of the derivative."""
        exponent, centre, scale = self._along(y)
        return _log_slope((y - centre) / scale, exponent) - np.log(scale)

    def _along(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Parameters shaped to go with values, whose second axis is that of several outputs."""
        shape = (-1,) + (1,) * max(values.ndim - 2, 0)
        parts = (self.exponent, self.centre, self.scale)
        return tuple(part.reshape(shape) if len(part) > 1 else part[0] for part in parts)

    def arrays(self) -> dict[str, Any]:
        """Exponents, means and standard deviations."""
        return {"kind": "yeo-johnson", **vars(self)}


@dataclass(frozen=True)
class Functions:
    """A function of y and its inverse, as they were given.

    Attributes
    ----------
    function, undo : callable
        Of arrays, element by element.
    spread : float
        Standard deviation of the transformed targets.
    """

    function: Callable[[np.ndarray], Any]
    undo: Callable[[np.ndarray], Any]
    increasing: bool
    spread: float

    def forward(self, y: np.ndarray) -> np.ndarray:
        """What the function returns, checked."""
        with np.errstate(all="ignore"):
            t = np.asarray(self.function(y.copy()), dtype=np.float64)
        if t.shape != y.shape:
            raise ValueError(
                f"transform[0] must work element by element. It made {t.shape} of {y.shape}."
            )
        _refuse(~np.isfinite(t), y, f"transform[0]={_name(self.function)} must be finite at y.")
        return t

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """What the inverse returns, checked; infinite beyond the largest number."""
        y = self._undone(t)
        bad = np.isnan(y) & ~np.isnan(t)
        _refuse(bad, t, f"transform[1]={_name(self.undo)} must undo all that may be predicted.")
        return y

    def _undone(self, t: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(self.undo(t.copy()), dtype=np.float64)

    def inverse_slope(self, t: np.ndarray) -> np.ndarray:
        """Derivative of the inverse, numerically; see `slope`."""
        found = slope(self._undone, t, FIRST_STEP * self.spread)
        _refuse(~np.isfinite(found), t, f"transform[1]={_name(self.undo)} must have a slope.")
        return found

    def log_slope(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Logarithm of the derivative: that of the inverse is defined on both sides of each t."""
        with np.errstate(divide="ignore"):
            return -np.log(np.abs(self.inverse_slope(t)))

    def arrays(self) -> dict[str, Any]:
        """The functions, their direction and the spread."""
        names = ("function", "undo", "increasing", "spread")
        return {"kind": "functions", **{name: getattr(self, name) for name in names}}


KINDS: dict[str, Any] = {"log": Logarithm, "yeo-johnson": YeoJohnson, "functions": Functions}


def from_arrays(arrays: dict[str, Any]) -> Transform:
    """Rebuild a transform from its `arrays`."""
    state = dict(arrays)
    return KINDS[state.pop("kind")](**state)


def fit_transform(given: Any, y: np.ndarray, weight: np.ndarray) -> Transform:
    """The transform that a parameter asks for.

    Parameters
    ----------
    y : ndarray of shape (n,) or (n, m)
        Targets of positive weight.
    weight : ndarray of shape (n,)
        Frequencies.

    Raises
    ------
    ValueError
        If a target has no transformed value, or a pair of functions is no increasing or decreasing
        function and its inverse there.
    """
    if isinstance(given, str) and given == "log":
        return Logarithm()
    if isinstance(given, str):
        return fit_yeo_johnson(y.reshape(len(y), -1), weight)
    forward, inverse = given
    return _checked(Functions(forward, inverse, True, 1.0), y, weight)


def fit_yeo_johnson(y: np.ndarray, weight: np.ndarray) -> YeoJohnson:
    """Exponents under which the outputs y (n, m) are likeliest to be normal, with weights (n,)."""
    share = (weight / weight.sum())[:, None]
    # In units of the largest value no square overflows.
    unit = np.abs(y).max(0)
    unit = np.where(unit > 0, unit, 1.0)
    centre = (share * (y / unit)).sum(0)
    spread = np.sqrt((share * (y / unit - centre) ** 2).sum(0))
    # A constant has no spread but round-off.
    varies = spread > NO_SPREAD
    scale = np.where(varies, spread, 1.0)
    z = (y / unit - centre) / scale
    exponents = [_exponent(z[:, k], share[:, 0]) if varies[k] else 1.0 for k in range(y.shape[1])]
    return YeoJohnson(np.array(exponents), centre * unit, scale * unit)


def _exponent(z: np.ndarray, share: np.ndarray) -> float:
    """The exponent of largest profile likelihood, section 3.1 of Yeo and Johnson."""
    log_slope = share @ (np.sign(z) * np.log1p(np.abs(z)))

    def loss(exponent: float) -> float:
        t = _powers(z, exponent)
        variance = share @ (t - share @ t) ** 2
        return 0.5 * np.log(variance) - (exponent - 1) * log_slope

    found = minimize_scalar(
        loss, bounds=EXPONENTS, method="bounded", options={"xatol": EXPONENT_ACCURACY}
    )
    return round(float(found.x), DIGITS)


def _powers(z: np.ndarray, exponent: Any) -> np.ndarray:
    """Eq. 2.1 of Yeo and Johnson."""
    right, left = np.maximum(z, 0), np.maximum(-z, 0)
    return boxcox1p(right, exponent) - boxcox1p(left, 2 - exponent)


def _roots(t: np.ndarray, exponent: Any) -> np.ndarray:
    """Undo `_powers`."""
    right, left = np.maximum(t, 0), np.maximum(-t, 0)
    return inv_boxcox1p(right, exponent) - inv_boxcox1p(left, 2 - exponent)


def _log_slope(z: np.ndarray, exponent: Any) -> np.ndarray:
    """Logarithm of the derivative of `_powers`."""
    return (exponent - 1) * np.sign(z) * np.log1p(np.abs(z))


def _checked(pair: Functions, y: np.ndarray, weight: np.ndarray) -> Functions:
    """The pair with its direction and spread; ValueError where it is no function and inverse."""
    t = pair.forward(y)
    order = np.argsort(y, axis=None, kind="stable")
    values, steps = y.reshape(-1)[order], np.diff(t.reshape(-1)[order])
    rises, falls = (steps[np.diff(values) > 0] * sign for sign in (1, -1))
    if (rises < 0).any() and (falls < 0).any():
        raise ValueError(
            f"transform[0]={_name(pair.function)} must increase or decrease throughout between "
            f"the least y, {values[0]:.6g}, and the largest, {values[-1]:.6g}."
        )
    back = pair.inverse(t)
    wrong = ~(np.abs(back - y) <= UNDONE * np.abs(values).max())
    if wrong.any():
        where = np.flatnonzero(wrong.reshape(-1))[0]
        raise ValueError(
            f"transform[1]={_name(pair.undo)} must undo transform[0]={_name(pair.function)}. "
            f"It makes {back.reshape(-1)[where]:.6g} of {y.reshape(-1)[where]:.6g}."
        )
    share = (weight / weight.sum()).reshape(-1, *(1,) * (t.ndim - 1))
    spread = float(np.sqrt((share * (t - (share * t).sum(0)) ** 2).sum(0).max()))
    increasing = not (rises < 0).any()
    varies = spread > CONSTANT * np.abs(t).max()
    return Functions(pair.function, pair.undo, increasing, spread if varies else 1.0)


def slope(function: Callable[[np.ndarray], np.ndarray], t: np.ndarray, step: float) -> np.ndarray:
    """Derivative of a function by central differences, extrapolated to steps of zero.

    Each element takes the entry of the tableau whose neighbours differ from it least, C. J. F.
    Ridders, "Accurate computation of F'(x)", Adv. Eng. Softw. 4 (1982): large steps where the
    function is smooth, small ones where it is not or ends. NaN where no difference is finite.
    """
    best, error = np.full(t.shape, np.nan), np.full(t.shape, np.inf)
    last: list[np.ndarray] = []
    for halving in range(HALVINGS):
        h = step / 2**halving
        ahead, behind = t + h, t - h
        with np.errstate(all="ignore"):
            above, below = function(ahead), function(behind)
            row = [(above - below) / (ahead - behind)]
            # Where steps are so small that rounded values agree by chance, or are the same.
            noise = np.finfo(float).eps * (np.abs(above) + np.abs(below)) / (ahead - behind)
            for k, coarse in enumerate(last[:ORDERS]):
                row.append(row[k] + (row[k] - coarse) / (FALL ** (k + 1) - 1))
                doubt = np.maximum(np.abs(row[-1] - row[k]), np.abs(row[-1] - coarse)) + noise
                better = doubt < error
                best, error = np.where(better, row[-1], best), np.where(better, doubt, error)
        last = row
    return best


def _refuse(bad: np.ndarray, values: np.ndarray, message: str) -> None:
    """Name the first of the bad values."""
    if not bad.any():
        return
    place = np.argwhere(bad)[0]
    output = f", output {place[1]}" if values.ndim > 1 and values.shape[1] > 1 else ""
    raise ValueError(f"{message} Got {values[tuple(place)]:.6g} in row {place[0]}{output}.")


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function))
