"""Least squares from triangular factors: coefficients, ridge, leave-one-out, evidence.

Everything works on batches. QR and triangular solves only: they give the same bits on every
call, where drivers that pivot on uninitialised memory do not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from skpou.core.linalg.statistics import triangular_factor

#: What factorisations raise for matrices that are singular or not finite.
NUMERICAL_FAILURES = (torch.linalg.LinAlgError, np.linalg.LinAlgError)
#: Share of the rows that counts as free whatever was fitted: what as many columns as rows leave
#: over is round-off, and would pass for exact data.
LEAST_FREE = 0.1
#: Diagonal of a triangular factor, in units of round-off of its columns' largest norm, below which
#: it is rank deficient: where errors are left out a little earlier, for there it is divided by.
DEFICIENT, DEFICIENT_LEFT_OUT = 5e4, 4.5e5
#: Ridge, in units of round-off, that makes a deficient factor a regular one.
REGULAR = 4.5e7
#: Smallest one minus leverage of a row that its left-out residual is divided by.
LEAST_LEFT = 1e-3
#: Columns from which on, and columns for each row from which on, a ridge is brought in column by
#: column: the factor of a square matrix of so many takes seconds.
MANY_COLUMNS, COLUMNS_A_ROW = 1000, 20
#: Scores of which this share differs are equal.
SAME_SCORE = 1e-9


def split_factor(factor: Tensor, n_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Parts of factors (S, p + m, p + m) of ``[A, y]``: R (S, p, p), Q'y (S, p, m) and rss (S, m).

    The squared norm of what the p columns cannot explain of each target is a sum of squares, never
    a difference, so that it is right down to round-off.
    """
    R = factor[..., :n_columns, :n_columns]
    projected = factor[..., :n_columns, n_columns:]
    rss = (factor[..., n_columns:, n_columns:] ** 2).sum(-2)
    return R, projected, rss


def column_scale(R: Tensor) -> Tensor:
    """Largest column norm of each factor (S,), at least tiny: the unit of ridges."""
    norms = R.square().sum(-2).amax(-1).sqrt()
    return norms.clamp_min(torch.finfo(R.dtype).tiny)


def ridge_factor(factor: Tensor, n_columns: int, alpha: Tensor | float) -> Tensor:
    """Triangular factor of ``[A, y]`` with the rows ``alpha * scale * [I, 0]`` below.

    Parameters
    ----------
    factor : Tensor of shape (S, p + m, p + m)
        Triangular factors of ``[A, y]``.
    n_columns : int
        Number p of columns of A.
    alpha : float or Tensor of shape (S,)
        Ridge relative to the largest column norm, at least 0.

    Returns
    -------
    Tensor of shape (S, p + m, p + m)
    """
    S, size, _ = factor.shape
    R = factor[:, :n_columns, :n_columns]
    # A problem without rows gets the ridge 1: coefficients 0 with a finite covariance.
    empty = ~(R != 0).any(-1).any(-1)
    strength = torch.where(empty, 1.0, column_scale(R) * alpha)
    few = factor[:, not_zero(factor)]
    if n_columns >= max(MANY_COLUMNS, COLUMNS_A_ROW * few.shape[1]):
        return ridge_over_few_rows(few, n_columns, strength)
    rows = torch.zeros((S, n_columns, size), dtype=factor.dtype, device=factor.device)
    rows[:, :, :n_columns].diagonal(dim1=-2, dim2=-1).copy_(strength[:, None])
    return triangular_factor(torch.cat([few, rows], dim=1))


def ridge_over_few_rows(rows: Tensor, n_columns: int, strength: Tensor) -> Tensor:
    """Triangular factor of rows (S, q, p + m) of ``[A, y]`` over ``strength * [I, 0]``.

    Householder reflections that leave the zeros alone: ``p^2 q`` operations instead of ``p^3``.
    """
    S, _, size = rows.shape
    result, rows = rows.new_zeros((S, size, size)), rows.clone()
    for j in range(n_columns):
        column = rows[:, :, j].clone()
        norm = (strength.square() + column.square().sum(1)).sqrt()
        rest = (column[:, None] @ rows[:, :, j + 1 :])[:, 0]
        unit = norm.clamp_min(torch.finfo(norm.dtype).tiny)
        result[:, j, j], result[:, j, j + 1 :] = -norm, -rest / unit[:, None]
        step = rest / (unit * (unit + strength))[:, None]
        rows[:, :, j + 1 :] -= column[:, :, None] * step[:, None]
    result[:, n_columns:, n_columns:] = triangular_factor(rows[:, :, n_columns:])[
        :, : size - n_columns
    ]
    return result


def not_zero(factor: Tensor) -> Tensor:
    """Rows (q,), bool, of factors (S, q, p) that are not zero in all, and the first one.

    Of fewer rows than columns a triangular factor has few.
    """
    kept = (factor != 0).any(-1).any(0)
    kept[:1] = True
    return kept


def is_deficient(R: Tensor, tolerance: float) -> Tensor:
    """Whether the smallest diagonal entry is below `tolerance` times the largest, (S,) bool."""
    diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
    return ~(diagonal.amin(-1) > tolerance * diagonal.amax(-1))


def back_substitute(R: Tensor, b: Tensor) -> Tensor:
    """Solve ``R c = b`` for upper triangular R (S, p, p) and b (S, p, m)."""
    return torch.linalg.solve_triangular(R, b, upper=True)


def coefficients(factor: Tensor, n_columns: int) -> Tensor:
    """Least-squares coefficients; a small ridge where the factor is rank deficient.

    Parameters
    ----------
    factor : Tensor of shape (S, p + m, p + m)
        Triangular factors of ``[A, y]``.
    n_columns : int
        Number p of columns of A.

    Returns
    -------
    Tensor of shape (S, p, m)
    """
    tolerance = DEFICIENT * torch.finfo(factor.dtype).eps
    R, projected, _ = split_factor(factor, n_columns)
    deficient = is_deficient(R, tolerance)
    if not bool(deficient.any()):
        return back_substitute(R, projected)
    result = torch.empty_like(projected)
    result[~deficient] = back_substitute(R[~deficient], projected[~deficient])
    ridged = ridge_factor(factor[deficient], n_columns, tolerance)
    R, projected, _ = split_factor(ridged, n_columns)
    result[deficient] = back_substitute(R, projected)
    return result


def leave_one_out(A: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients and leave-one-out errors of a batch of weighted least-squares fits.

    Leaves out each row with its whole weight.

    Parameters
    ----------
    A : Tensor of shape (S, n, p)
        Design matrices, n >= p.
    y : Tensor of shape (S, n, m)
        Targets.
    weight : Tensor of shape (S, n)
        Frequency weights, positive.

    Returns
    -------
    coef : Tensor of shape (S, p, m)
    error : Tensor of shape (S,)
        Root of the weighted mean square of the left-out residuals over rows and targets;
        infinite where the matrix is rank deficient.
    """
    root = weight.sqrt()[..., None]
    Q, R = torch.linalg.qr(A * root)
    eps = torch.finfo(A.dtype).eps
    deficient = is_deficient(R, DEFICIENT_LEFT_OUT * eps)
    R = R + torch.eye(R.shape[-1], dtype=R.dtype, device=R.device) * (
        deficient[:, None, None].to(R) * REGULAR * eps
    )
    projected = Q.mT @ (y * root)
    coef = back_substitute(R, projected)
    leverage = Q.square().sum(-1)
    residual = y * root - Q @ projected
    left_out = residual / (1 - leverage).clamp_min(LEAST_LEFT)[..., None]
    error = (left_out.square().mean(-1).sum(-1) / weight.sum(-1)).sqrt()
    return coef, torch.where(deficient, torch.inf, error)


def evidence_ridge(
    factor: Tensor, n_columns: int, n_rows: Tensor, floor: float
) -> tuple[float, float]:
    """Ridge of largest log evidence, one for a batch of least-squares problems.

    Under the prior ``c ~ N(0, sigma^2 / (alpha s)^2)``, with s the largest column norm and the
    noise sigma of each problem and target set to its most probable value, twice the negative
    log evidence is ``n log(sigma^2) + sum_j log(1 + lambda_j^2 / (alpha s)^2)``, where lambda_j
    are the singular values.

    Parameters
    ----------
    factor : Tensor of shape (S, p + m, p + m)
        Triangular factors of ``[A, y]``.
    n_columns : int
        Number p of columns of A.
    n_rows : Tensor of shape (S,)
        Sum of weights of each problem.
    floor : float
        Residual that counts as none, in units of y.

    Returns
    -------
    alpha : float
        One of half-decade steps from round-off to 1.
    score : float
        Twice its negative log evidence, up to a constant.
    """
    R, projected, rss = split_factor(factor, n_columns)
    # With fewer rows than columns most of the factor is zero, and what it meets unexplained.
    kept = not_zero(R)
    rss = rss + projected[:, ~kept].square().sum(-2)
    scaled = R[:, kept] / column_scale(R)[:, None, None]
    U, singular, _ = torch.linalg.svd(scaled, full_matrices=False)
    component = (U.mT @ projected[:, kept]).square()
    n = n_rows[:, None].clamp_min(1)
    eps = torch.finfo(R.dtype).eps
    grid = [10.0 ** (-k / 2) for k in range(int(-2 * math.log10(eps)) + 1)]
    scores = []
    for alpha in grid:
        shrink = alpha**2 / (singular.square() + alpha**2)
        unexplained = rss + (shrink[..., None] * component).sum(-2)
        noise = unexplained / n + floor**2
        occam = torch.log1p(singular.square() / alpha**2).sum(-1)
        misfit = (n * noise.log()).sum(-1)
        scores.append(float((misfit + rss.shape[-1] * occam).sum()))
    # Of equal scores the smallest ridge: a single sample leaves the evidence flat.
    least = min(scores)
    best = max(k for k, score in enumerate(scores) if score <= least + SAME_SCORE * abs(least))
    return grid[best], scores[best]


def effective_parameters(R: Tensor, ridged: Tensor) -> Tensor:
    """Trace of the hat matrix of a ridge fit, ``||R R_ridge^-1||_F^2``, per problem (S,)."""
    return torch.linalg.solve_triangular(ridged, R, upper=True, left=False).square().sum((-2, -1))


def ridge_coefficients(A: Tensor, y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Ridge solution by an orthogonal factor, refined once: right down to the last digits.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Design matrix of any rank.
    y : Tensor of shape (n, m)
        Targets.
    alpha : float
        Ridge relative to the largest column norm, positive if the rank is not full.

    Returns
    -------
    coef : Tensor of shape (p, m)
    R : Tensor of shape (p, p)
        Triangular factor of A over the ridge's rows.
    """
    n, p = A.shape
    largest = float(A.square().sum(0).max().sqrt()) if n else 0.0
    strength = alpha * largest or 1.0
    below = strength * torch.eye(p, dtype=A.dtype, device=A.device)
    # Reflections are applied, not multiplied out: that would take as long as finding them.
    packed, tau = torch.geqrf(torch.cat([A, below]))
    R = packed[:p].triu()

    def solve(b: Tensor) -> Tensor:
        return back_substitute(R, torch.ormqr(packed, tau, b, transpose=True)[:p])

    coef = solve(torch.cat([y, y.new_zeros((p, y.shape[1]))]))
    # The second pass works on what the first one's round-off left.
    return coef + solve(torch.cat([y - A @ coef, -strength * coef])), R


def free_rows(n: float, used: float) -> float:
    """Rows that a fit leaves free of n, by its degrees of freedom: at least `LEAST_FREE` of all.

    They are what a sum of squared residuals is divided by, for the noise.
    """
    return max(n - used, LEAST_FREE * n)
