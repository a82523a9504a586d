"""Covariances of rows by their pairs, each pair once: what searches for a kernel evaluate often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize

#: A step of a search that gains less than this part of the logarithm of the evidence ends it: about
#: a thousandth, and no choice of a kernel turns on that.
TOLERANCE = 3e-6


class Solved(NamedTuple):
    """What a covariance matrix says of targets.

    Attributes
    ----------
    half_log_det : float
        Half the logarithm of the determinant.
    coef : ndarray of shape (n, m)
        The inverse times the targets.
    inverse, inverse_own : ndarray of shape (p,), (n,)
        Entries of the inverse at the pairs, and on the diagonal.
    """

    half_log_det: float
    coef: np.ndarray
    inverse: np.ndarray
    inverse_own: np.ndarray


class PairsOfRows:
    """The p = n (n - 1) / 2 pairs of rows.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.

    Attributes
    ----------
    first, second : ndarray of shape (p,)
        Numbers of the rows of each pair, first > second.
    squares : ndarray of shape (d, p)
        Squared distances in every column.
    line, line_own : ndarray of shape (p,), (n,)
        Inner products about the mean of the rows, of pairs and of each row with itself.
    """

    def __init__(self, X: np.ndarray):
        n = len(X)
        self.n = n
        # Below the diagonal, column after column, as LAPACK stores it.
        self.second, self.first = np.triu_indices(n, 1)
        self._places = self.second * n + self.first
        self.squares = np.ascontiguousarray(((X[self.first] - X[self.second]) ** 2).T)
        Z = X - X.mean(0)
        self.line = (Z[self.first] * Z[self.second]).sum(1)
        self.line_own = (Z**2).sum(1)

    def distances(self, log_rates: np.ndarray) -> np.ndarray:
        """Squared distances (p,) where the columns count by rates."""
        return np.exp(2 * log_rates) @ self.squares

    def factor(self, between: np.ndarray, own: np.ndarray) -> np.ndarray | None:
        """Lower Cholesky factor (n, n) of the covariances of pairs and of each row; None: none."""
        entries = np.empty(self.n * self.n)
        entries[self._places] = between
        entries[:: self.n + 1] = own
        matrix = entries.reshape(self.n, self.n).T
        factor, fault = dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        return None if fault else factor

    def solve(self, between: np.ndarray, own: np.ndarray, y: np.ndarray) -> Solved | None:
        """What the covariances say of targets y (n, m) or (n,); None: they are not positive."""
        factor = self.factor(between, own)
        if factor is None:
            return None
        half_log_det = float(np.log(factor.diagonal()).sum())
        coef = dpotrs(factor, y, lower=1)[0].reshape(y.shape)
        inverse = dpotri(factor, lower=1, overwrite_c=1)[0].T.reshape(-1)
        return Solved(half_log_det, coef, inverse[self._places], inverse[:: self.n + 1])

    def products(self, values: np.ndarray) -> np.ndarray:
        """Products (p,) of the values (n, m) of both rows of each pair, summed over columns."""
        return (values @ values.T).reshape(-1)[self._places]


def least(
    evidence: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    bounds: Sequence[tuple[float, float]],
    n_steps: int,
) -> tuple[float, np.ndarray]:
    """The least value that a few steps of L-BFGS reach within bounds, and where."""
    found = minimize(
        evidence,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": n_steps, "maxfun": 2 * n_steps, "ftol": TOLERANCE},
    )
    return float(found.fun), found.x
