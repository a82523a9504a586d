"""How large errors are near a point beside what a stationary process expects.

A process has one variance everywhere. A function that grows over decades, or a root at its end, has
errors that do not. The logarithm of their squares' expectation is a smooth function of the place, a
line and a process beside it, whose own size is that under which the errors are likeliest: few rows
tell of none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from skpou.core import ArrayState
from skpou.core.linalg import TINY

#: Length of the process along each column over the root of their number, rows evenly apart.
LENGTH = 0.3
#: Standard deviations of the logarithm that are compared: of no change, up to errors over decades.
SPREADS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Part of the largest eigenvalue below which a function of the place is left out.
LEAST = 1e-3
#: Steps of Fisher's scoring, and the longest: of the logarithm.
N_STEPS, LONGEST = 30, 2.0
#: Longest step that is not halved, and least gain of the evidence, with which they end.
SHORTEST, LEAST_GAIN = 1e-6, 1e-9
#: Part of the box beyond it within which such a factor goes back to one: no row has told it there.
FADES = 0.05
#: Precision of the level, that has no prior, for factors that exist.
FREE = 1e-9
#: Change of the logarithm between the rows from which on it is worth its evaluation.
WORTH = 0.2


@dataclass(frozen=True)
class LocalSize(ArrayState):
    """Factors of the variance.

    Attributes
    ----------
    places : ndarray of shape (n, d)
        Rows, where the columns count rows.
    coef : ndarray of shape (n,)
        Weights of their kernels.
    level : float
        Logarithm without the kernels.
    power : float
        Power of factors below one: a variance that is too large is believed for some errors.
    knots : list of ndarray
        Values of each column, ascending.
    """

    places: np.ndarray
    coef: np.ndarray
    level: float
    power: float
    knots: list[np.ndarray]

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Factors (n,) at scaled points X (n, d), those outside the box at its sides.

        None outside is below one.
        """
        logs = _kernel(_counted(X, self.knots), self.places) @ self.coef + self.level
        beyond = np.abs(X - X.clip(0, 1)).max(1)
        power = self.power * (1 - beyond / FADES).clip(0)
        return np.exp(np.where(logs < 0, power * logs, logs))


def _counted(X: np.ndarray, knots: list[np.ndarray]) -> np.ndarray:
    """Places (n, d) between -1/2 and 1/2 where the values of each column are evenly apart."""
    return np.stack(
        [
            np.interp(x, values, np.linspace(-0.5, 0.5, len(values)))
            for x, values in zip(X.T, knots, strict=True)
        ],
        1,
    )


def _kernel(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Covariances (n, k) of a line and a smooth process."""
    square = ((A[:, None] - B) ** 2).sum(2) / A.shape[1]
    return A @ B.T + np.exp(-0.5 * square / LENGTH**2)


def fit_local_size(
    X: np.ndarray, square: np.ndarray, worth: np.ndarray, prior_errors: float, no_less: bool = False
) -> LocalSize | None:
    """The local size of errors; None where that is about the same everywhere.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows in the unit box.
    square : ndarray of shape (n,)
        Squared errors over what is expected of them.
    worth : ndarray of shape (n,)
        How many errors each is worth.
    prior_errors : float
        Errors' worth of belief in what is expected, where errors are smaller.
    no_less : bool, default=False
        Whether it is no less on average.
    """
    knots = [np.unique(x) for x in X.T]
    places = _counted(X, knots)
    values, vectors = np.linalg.eigh(_kernel(places, places))
    kept = values > LEAST * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    functions = vectors * np.sqrt(values)
    found = [_likeliest(functions, square, worth, spread) for spread in SPREADS]
    scores = np.array([score for score, _ in found])
    share = np.exp(scores - scores.max())
    level, *joined = (share / share.sum()) @ np.stack([part for _, part in found])
    logs = functions @ joined
    if np.ptp(logs) < WORTH:
        return None
    coef = vectors @ (joined / np.sqrt(values))
    if no_less:
        level = max(float(level), -math.log(float(np.exp(logs).mean())))
    n = float(worth.sum())
    return LocalSize(places, coef, float(level), n / (n + prior_errors), knots)


def _likeliest(
    functions: np.ndarray, square: np.ndarray, worth: np.ndarray, spread: float
) -> tuple[float, np.ndarray]:
    """Log evidence of a spread, and level and coefficients (k + 1,) of functions (n, k)."""
    k = functions.shape[1]
    F = np.c_[np.ones(len(functions)), spread * functions]
    precision = 0.5 * F.T @ (worth[:, None] * F) + np.diag(np.r_[FREE, np.ones(k)])
    coef = np.zeros(k + 1)
    coef[0] = np.log(max(float(worth @ square / worth.sum()), TINY))

    def value(coef: np.ndarray) -> float:
        logs = F @ coef
        return float(0.5 * worth @ (logs + square * np.exp(-logs)) + 0.5 * coef[1:] @ coef[1:])

    best = value(coef)
    for _ in range(N_STEPS if spread else 0):
        pull = 0.5 * worth * (1 - square * np.exp(-F @ coef))
        step = np.linalg.solve(precision, F.T @ pull + np.r_[0.0, coef[1:]])
        step *= min(1.0, LONGEST / max(float(np.abs(F @ step).max()), TINY))
        new = value(coef - step)
        while new > best and np.abs(step).max() > SHORTEST:
            step *= 0.5
            new = value(coef - step)
        if not new < best - LEAST_GAIN:
            break
        coef, best = coef - step, new
    half_log_det = 0.5 * float(np.linalg.slogdet(precision)[1])
    return -best - half_log_det, coef * np.r_[1.0, np.full(k, spread)]
