"""Rivals on a line beside those of `harness`, and the number of samples that each is given."""

import warnings

import numpy as np
import scipy.interpolate
from numpy.polynomial import chebyshev
from scipy.linalg import solve_triangular

from benchmarks.shared import harness

#: Largest degree of a polynomial; also at most half as many as points.
MOST_DEGREE = 150
#: Least share of a point in its residual at which the residual tells its leave-one-out error.
FREE = 1e-8
#: Relative tolerance of AAA: with scipy's own, 1.8e-12, it is less exact on most of the targets.
RTOL = 1e-14
#: Methods whose fits take seconds; those of the others take milliseconds, or tenths of a second.
SLOW = ("Gaussian process", "neural network, L-BFGS", "neural network, Adam")


class Rational:
    """scipy's AAA: a rational function in barycentric form, for values without noise."""

    def fit(self, X, y):
        self.rational = scipy.interpolate.AAA(X[:, 0], y, rtol=RTOL)
        return self

    def predict(self, X):
        return self.rational(X[:, 0])


def left_out_errors(V, y):
    """Sum of squares of the leave-one-out errors with the first 1, 2, ... columns of V."""
    Q = np.linalg.qr(V)[0]
    free = 1 - np.cumsum(Q**2, 1)
    residual = y[:, None] - np.cumsum(Q * (Q.T @ y), 1)
    # A point that determines its own value has a residual of round-off.
    left_out = np.where(free > FREE, residual / np.maximum(free, FREE), np.inf)
    return np.square(left_out).sum(0)


def held_out_errors(V, y):
    """The same at every tenth row, with the others fitted."""
    out = np.arange(len(y)) % 10 == 5
    Q, R = np.linalg.qr(V[~out])
    columns = solve_triangular(R, V[out].T, trans=1).T
    error = y[out][:, None] - np.cumsum(columns * (Q.T @ y[~out]), 1)
    return np.nan_to_num(np.square(error).sum(0), nan=np.inf)


class Polynomial:
    """Chebyshev polynomials by least squares, of the degree with the least error of some kind."""

    def __init__(self, errors):
        self.errors = errors

    def fit(self, X, y):
        order = np.argsort(X[:, 0])
        x, y = X[order, 0], y[order]
        # From -1 to 1, as Chebyshev.fit maps them.
        t = 2 * (x - x[0]) / (x[-1] - x[0]) - 1
        V = chebyshev.chebvander(t, min(MOST_DEGREE, len(x) // 2))
        self.degree = int(np.argmin(self.errors(V, y)))
        with warnings.catch_warnings():
            # Badly conditioned with a high degree: the error shows the outcome.
            warnings.simplefilter("ignore", np.exceptions.RankWarning)
            self.polynomial = chebyshev.Chebyshev.fit(x, y, self.degree)
        return self

    def predict(self, X):
        return self.polynomial(X[:, 0])


def on_line(n, fast):
    """Name and factory of every rival on a line, or of the fast ones that suit noise, too."""
    found = {
        "spline, degree 3": harness.Spline,
        "Chebyshev, leave-one-out": lambda: Polynomial(left_out_errors),
        "Chebyshev, hold-out": lambda: Polynomial(held_out_errors),
    }
    if fast:
        return found
    # From scipy 1.15 on.
    if hasattr(scipy.interpolate, "AAA"):
        found["AAA, rational"] = Rational
    return found | harness.rivals(n, 1)


def samples(method, n, seeds):
    """Number of random samples for a rival on n points."""
    if method not in SLOW:
        return seeds
    return min(seeds, 3 if n < 1000 else 1)
