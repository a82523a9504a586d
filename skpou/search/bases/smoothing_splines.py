"""Cubic smoothing splines for a whole range of penalties at once, in time linear in the knots.

Source: Green, Silverman (1994), "Nonparametric regression and generalized linear models",
chapter 2; central bands of the inverse by Hutchinson, de Hoog (1985).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SmoothingSplines:
    """Natural splines that minimise ``sum_i w_i |y_i - g(x_i)|^2 + penalty int |g''|^2``.

    The first axis runs over the penalties.

    Attributes
    ----------
    penalties : ndarray of shape (l,)
    values : ndarray of shape (l, n, m)
        At the knots.
    bends : ndarray of shape (l, n, m)
        Second derivatives there, 0 at both ends.
    precision : ndarray of shape (l, n)
        Diagonal of ``Q B^-1 Q'``: a row's error when it is left out is its entry of
        ``Q B^-1 Q' y`` over this.
    left_out : ndarray of shape (l, n, m)
        Errors at each knot when it is left out.
    leverage : ndarray of shape (l, n)
        Diagonal of the hat matrix.
    """

    penalties: np.ndarray
    values: np.ndarray
    bends: np.ndarray
    precision: np.ndarray
    left_out: np.ndarray
    leverage: np.ndarray


def smoothing_splines(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, penalties: np.ndarray
) -> SmoothingSplines:
    """Solve for every penalty; 0 interpolates.

    Parameters
    ----------
    x : ndarray of shape (n,)
        Rising knots, at least 3.
    y : ndarray of shape (n, m)
        Targets.
    weight : ndarray of shape (n,)
        Positive weights.
    penalties : ndarray of shape (l,)
        At least 0.
    """
    h = np.diff(x)
    # Columns of Q (2.1.2 there): three entries each.
    q = (1 / h[:-1], -1 / h[:-1] - 1 / h[1:], 1 / h[1:])
    v = 1 / weight
    diagonal, first, second = _bands(h, q, v, penalties)
    d, l1, l2 = _factor(diagonal, first, second)
    second_differences = q[0][:, None] * y[:-2] + q[1][:, None] * y[1:-1] + q[2][:, None] * y[2:]
    inner = _solve(d, l1, l2, second_differences)
    n, m = y.shape
    bends = np.zeros((len(penalties), n, m))
    bends[:, 1:-1] = inner.transpose(1, 0, 2)
    stretched = np.zeros_like(bends)  # Q gamma
    for offset, entries in enumerate(q):
        stretched[:, offset : n - 2 + offset] += entries[None, :, None] * bends[:, 1:-1]
    precision = _precision(q, *_inverse_bands(d, l1, l2))
    values = y - penalties[:, None, None] * v[None, :, None] * stretched  # Eq. 2.4
    leverage = np.clip(1 - penalties[:, None] * v * precision, 0, 1)
    # A row of hardly any weight is not told by the others: precision 0 by underflow.
    known = precision[:, :, None] > 0
    left_out = np.divide(
        stretched, precision[:, :, None], np.full_like(stretched, np.inf), where=known
    )
    return SmoothingSplines(penalties, values, bends, precision, left_out, leverage)


def _bands(h, q, v, penalties):
    """Diagonals of ``B = R + penalty Q' W^-1 Q``, (n - 2, l) each, the later ones padded by 0."""
    k = len(h) - 1
    diagonal = (h[:-1] + h[1:]) / 3
    first, second = np.zeros(k), np.zeros(k)
    first[:-1] = h[1:-1] / 6
    square = q[0] ** 2 * v[:-2] + q[1] ** 2 * v[1:-1] + q[2] ** 2 * v[2:]
    next_to, after = np.zeros(k), np.zeros(k)
    next_to[:-1] = q[1][:-1] * q[0][1:] * v[1:-2] + q[2][:-1] * q[1][1:] * v[2:-1]
    after[:-2] = q[2][:-2] * q[0][2:] * v[2:-2]
    parts = ((diagonal, square), (first, next_to), (second, after))
    return (a[:, None] + penalties * b[:, None] for a, b in parts)


def _factor(diagonal, first, second):
    """Unit lower triangular factor and diagonal of ``B = L D L'``, in bands."""
    d, l1, l2 = diagonal.copy(), first.copy(), second.copy()
    for j in range(len(d)):
        if j:
            d[j] -= l1[j - 1] ** 2 * d[j - 1]
            l1[j] -= l1[j - 1] * l2[j - 1] * d[j - 1]
        if j > 1:
            d[j] -= l2[j - 2] ** 2 * d[j - 2]
        l1[j] /= d[j]
        l2[j] /= d[j]
    return d, l1, l2


def _solve(d, l1, l2, right):
    """Solution (n - 2, l, m) of ``L D L' z = right`` for one right side (n - 2, m)."""
    z = np.repeat(right[:, None, :], d.shape[1], 1)
    for j in range(1, len(z)):
        z[j] -= l1[j - 1, :, None] * z[j - 1]
        if j > 1:
            z[j] -= l2[j - 2, :, None] * z[j - 2]
    z /= d[:, :, None]
    for j in range(len(z) - 2, -1, -1):
        z[j] -= l1[j, :, None] * z[j + 1]
        if j + 2 < len(z):
            z[j] -= l2[j, :, None] * z[j + 2]
    return z


def _inverse_bands(d, l1, l2):
    """Central bands of ``B^-1``: diagonal, first and second, padded by 0."""
    k = len(d)
    s0, s1, s2 = 1 / d, np.zeros_like(d), np.zeros_like(d)
    for j in range(k - 2, -1, -1):
        if j + 2 < k:
            s2[j] = -l1[j] * s1[j + 1] - l2[j] * s0[j + 2]
            s1[j] = -l1[j] * s0[j + 1] - l2[j] * s1[j + 1]
        else:
            s1[j] = -l1[j] * s0[j + 1]
        s0[j] += -l1[j] * s1[j] - l2[j] * s2[j]
    return s0, s1, s2


def _precision(q, s0, s1, s2):
    """Diagonal (l, n) of ``Q B^-1 Q'``."""
    k, n_penalties = s0.shape
    result = np.zeros((k + 2, n_penalties))
    for offset, entries in enumerate(q):
        result[offset : k + offset] += entries[:, None] ** 2 * s0
    # Knot i is the last entry of column i - 2, the middle one of i - 1, the first one of i.
    result[1:-2] += 2 * (q[1][:-1] * q[0][1:])[:, None] * s1[:-1]
    result[2:-1] += 2 * (q[2][:-1] * q[1][1:])[:, None] * s1[:-1]
    result[2:-2] += 2 * (q[2][:-2] * q[0][2:])[:, None] * s2[:-2]
    return result.T
