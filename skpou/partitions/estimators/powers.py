"""Polynomials of the pieces in powers of X."""

from __future__ import annotations

from typing import Any

import numpy as np

from skpou.core import TotalDegreePolynomials, largest_powers, to_powers


def raw_polynomials(model: Any) -> dict[str, np.ndarray]:
    """Powers, coefficients and digits lost of a fitted estimator; see its `raw_polynomials_`."""
    box, columns = model.scaling_, model.scaling_["columns"]
    exponents = TotalDegreePolynomials(len(columns), model.degree_).exponents
    scaled = np.asarray(model.mixture_[-1]["coef"], dtype=np.float64) * box["scale"]
    scaled[:, 0] += box["mean"]
    offset, width = box["offset"], box["width"]
    coef = to_powers(exponents, scaled.swapaxes(0, 1), offset, width).swapaxes(0, 1)
    powers = np.zeros((len(exponents), model.n_features_in_), dtype=np.int64)
    powers[:, columns] = exponents
    lost = digits_lost(exponents, coef, offset, width, box["scale"])
    if model._target_ndim == 1:
        coef, lost = coef[:, :, 0], lost[:, 0]
    return {"powers": powers, "coef": coef, "digits_lost": lost}


def digits_lost(
    exponents: np.ndarray,
    coef: np.ndarray,
    offset: np.ndarray,
    width: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Logarithm of the largest sum of absolute terms in a box, in units of the result.

    Parameters
    ----------
    exponents : ndarray of shape (P, d)
        Powers of x.
    coef : ndarray of shape (N, P, m)
        Coefficients.
    offset, width : ndarray of shape (d,)
        Box.
    scale : ndarray of shape (m,)
        Units of the results.

    Returns
    -------
    ndarray of shape (N, m)
        At least 0; infinite where a coefficient overflows.
    """
    largest = largest_powers(exponents, offset, width)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        terms = np.abs(coef) * largest[:, None]
        lost = np.log10(np.maximum(terms.sum(1) / scale, 1.0))
    return np.where(np.isfinite(coef).all(1) & np.isfinite(lost), lost, np.inf)
