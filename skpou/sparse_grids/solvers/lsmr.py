"""LSMR for ridge regression: the gradient shrinks in every step, so that it may end early."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.sparse_grids.solvers.conjugate_gradients import LinearRows


class _ScaledRows:
    """``[A; diag(penalty)^1/2] L^-T``: the ridge as rows, columns that are nearly orthonormal."""

    def __init__(self, rows: LinearRows, penalty: Tensor, factor: Tensor):
        self.rows = rows
        self.root = penalty.sqrt()[:, None]
        self.factor = factor

    def scaled(self, v: Tensor) -> Tensor:
        """Coefficients ``L^-T v``."""
        if self.factor.ndim == 1:
            return _share(v, self.factor[:, None])
        return torch.linalg.solve_triangular(self.factor.T, v, upper=True)

    def times(self, v: Tensor) -> tuple[Tensor, Tensor]:
        c = self.scaled(v)
        return self.rows.matmul(c), self.root * c

    def transposed_times(self, u: tuple[Tensor, Tensor]) -> Tensor:
        g = self.rows.rmatmul(u[0]) + self.root * u[1]
        if self.factor.ndim == 1:
            return _share(g, self.factor[:, None])
        return torch.linalg.solve_triangular(self.factor, g, upper=False)


def lsmr(
    rows: LinearRows,
    y: Tensor,
    penalty: Tensor,
    factor: Tensor,
    coef: Tensor,
    *,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, int]:
    """Minimise ``|y - A c|^2 + c' diag(penalty) c``, each target by itself.

    Fong and Saunders (2011), "LSMR: an iterative algorithm for sparse least-squares problems",
    for the correction of a start, preconditioned from the right.

    Parameters
    ----------
    rows : LinearRows
        The matrix A (n, p).
    y : Tensor of shape (n, m)
        Targets.
    penalty : Tensor of shape (p,)
        Non-negative.
    factor : Tensor of shape (p, p) or (p,)
        Lower triangular L with ``L L'`` near ``A'A + diag(penalty)``; or the norms of these
        columns.
    coef : Tensor of shape (p, m)
        Start.
    tol : float
        Stop when the gradient, of scaled columns, is this share of that of zero coefficients.

    Returns
    -------
    coef : Tensor of shape (p, m)
    n_iter : int
        Steps done.
    """
    scaled = _ScaledRows(rows, penalty, factor)
    pull = scaled.root * coef
    target = tol * _norm(scaled.transposed_times((y, torch.zeros_like(pull))))
    beta, u = _unit(y - rows.matmul(coef), -pull)
    alpha, (v,) = _unit(scaled.transposed_times((u[0], u[1])))
    x, h, bar_h = torch.zeros_like(v), v.clone(), torch.zeros_like(v)
    bar_alpha, bar_zeta = alpha, alpha * beta
    rho = bar_rho = bar_c = torch.ones_like(alpha)
    bar_s = torch.zeros_like(alpha)
    for step in range(max_iter):
        # What is left of the gradient is bar_zeta.
        if bool((bar_zeta.abs() <= target).all()):
            return coef + scaled.scaled(x), step
        ahead = scaled.times(v)
        beta, u = _unit(ahead[0] - alpha * u[0], ahead[1] - alpha * u[1])
        alpha, (v,) = _unit(scaled.transposed_times((u[0], u[1])) - beta * v)
        last_rho, rho = rho, torch.hypot(bar_alpha, beta)
        c, s = _share(bar_alpha, rho), _share(beta, rho)
        theta, bar_alpha = s * alpha, c * alpha
        last_bar_rho, bar_theta = bar_rho, bar_s * rho
        bar_rho = torch.hypot(bar_c * rho, theta)
        bar_c, bar_s = _share(bar_c * rho, bar_rho), _share(theta, bar_rho)
        zeta, bar_zeta = bar_c * bar_zeta, -bar_s * bar_zeta
        bar_h = h - _share(bar_theta * rho, last_rho * last_bar_rho) * bar_h
        x += _share(zeta, rho * bar_rho) * bar_h
        h = v - _share(theta, rho) * h
    return coef + scaled.scaled(x), max_iter


def _norm(*parts: Tensor) -> Tensor:
    """Norms (m,) of columns that consist of parts (n, m), (p, m)."""
    return torch.stack([part.square().sum(0) for part in parts]).sum(0).sqrt()


def _unit(*parts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Norms (m,) of such columns, and these columns over them; zeros where they vanish."""
    size = _norm(*parts)
    return size, tuple(_share(part, size) for part in parts)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Quotient; 0 where there is nothing of the whole."""
    return torch.where(whole != 0, part / torch.where(whole != 0, whole, 1.0), 0.0)
