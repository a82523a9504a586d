"""Ridges of one Gram matrix by its tridiagonal form: a fifth of the work of all eigenvectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg.lapack import dormqr, dpttrf, dpttrs, dsterf, dsytrd
from torch import Tensor

#: Columns of a block of reflections: LAPACK's own choice for matrices of some hundred rows.
REFLECTIONS = 64


def ridge_quadratics(
    gram: Tensor, moment: Tensor, ridges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Eigenvalues of a Gram matrix G, and ``b' (G + r^2 s I)^-1 b`` for its largest one s.

    Parameters
    ----------
    gram : Tensor of shape (p, p)
        Symmetric and positive up to round-off, float64.
    moment : Tensor of shape (p, m)
        Columns b.
    ridges : sequence of float
        Ridges r, whose squares are above the round-off of G.

    Returns
    -------
    eigenvalues : Tensor of shape (p,)
        Falling; those below round-off as large as that.
    quadratics : Tensor of shape (len(ridges), m)
    """
    if gram.device.type != "cpu" or len(gram) < 2:
        values, vectors = torch.linalg.eigh(gram)
        values = _above_round_off(values.flip(0))
        square = (vectors.flip(1).T @ moment).square()
        shifted = values + gram.new_tensor(ridges).square()[:, None] * values[0]
        return values, (1 / shifted) @ square
    diagonal, beside, rotated = _tridiagonal(gram.numpy(), moment.numpy())
    ascending, fault = dsterf(diagonal, beside)
    if fault:
        raise np.linalg.LinAlgError(f"{fault} eigenvalues were not found.")
    values = _above_round_off(torch.from_numpy(ascending).flip(0))
    quadratics = [
        _quadratic(diagonal + ridge**2 * float(values[0]), beside, rotated) for ridge in ridges
    ]
    return values, torch.from_numpy(np.stack(quadratics))


def _above_round_off(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).eps * float(values[0]))


def _tridiagonal(gram: np.ndarray, moment: np.ndarray) -> tuple[np.ndarray, ...]:
    """Diagonal and subdiagonal of ``Q' G Q``, and ``Q' b``."""
    p = len(gram)
    reflections, diagonal, beside, scales, _ = dsytrd(gram.T, lower=1, lwork=p * REFLECTIONS)
    # The first row stays; the others are turned by what is stored below the subdiagonal.
    turns, size = np.asfortranarray(reflections[1:, :-1]), moment.shape[1] * REFLECTIONS
    turned = dormqr("L", "T", turns, scales, moment[1:], lwork=size)[0]
    return diagonal, beside, np.concatenate([moment[:1], turned])


def _quadratic(diagonal: np.ndarray, beside: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """``b' T^-1 b`` (m,) for a positive tridiagonal T; infinite where it is not positive."""
    pivots, factors, fault = dpttrf(diagonal, beside)
    if fault:
        return np.full(moment.shape[1], np.inf)
    return np.einsum("pm,pm->m", moment, dpttrs(pivots, factors, moment)[0])
