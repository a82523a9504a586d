"""Tails of a density whose noise few rows tell: Student's t as a mixture of Gaussians of one mean.

A variance that was estimated with k degrees of freedom is its estimate over a draw of chi-square
by k [1]_, Section 3.2. The mixture has a few of its quantiles for all of them.

References
----------
.. [1] A. Gelman et al., "Bayesian Data Analysis", 3rd ed., CRC Press (2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from skpou.core import Rows
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.independent import IndependentComponents

#: Shares of the Gaussians, that of the widest first: it is for errors of twenty deviations.
SHARES = (1e-4, 3e-3, 3.69e-2, 0.16, 0.4, 0.4)
#: Degrees of freedom from which on the tails are those of a Gaussian, and the fewest that are told
#: apart: with one the mean itself would have no error.
MOST_DEGREES, FEWEST_DEGREES = 30.0, 2.0
#: Standard deviation at left-out rows, in units of y, below which a fit is exact: it has no noise.
CLEAR_NOISE = 1e-3


def degrees_of_noise(rows: Rows, left_out: Sequence[LeftOut] | None) -> np.ndarray | None:
    """Degrees of freedom (m,) by which the noise is known; infinite where they are many.

    They are those that the fit leaves. A row that is left out alone has the noise's variance over
    the part of it that is its own, and the parts of all rows add up to them; rows that are left out
    together have more variance, and would say too little.

    Returns
    -------
    ndarray or None
        None where no target has few.
    """
    if left_out is None:
        return None
    degrees = np.full(len(left_out), np.inf)
    spare = rows.total_weight - rows.n_rows
    for target, one in enumerate(left_out):
        known = (one.group < one.n_folds) & np.isfinite(one.variance[:, 0])
        variance = one.variance[known, 0]
        if not known.any() or float(np.median(variance)) < CLEAR_NOISE**2:
            continue
        parts = one.noise[known, 0] / variance
        found = spare + (float(np.sum(parts)) if one.degrees is None else one.degrees)
        if found < MOST_DEGREES:
            degrees[target] = max(found, FEWEST_DEGREES)
    return None if np.isinf(degrees).all() else degrees


def variance_factors(degrees: np.ndarray) -> np.ndarray:
    """Factors (k, m) of the variances of the Gaussians of each share; 1 where degrees are many."""
    edges = np.cumsum((0.0, *SHARES))
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    finite = np.where(np.isinf(degrees), 1.0, degrees)
    return np.where(np.isinf(degrees), 1.0, finite / chi2.ppf(middle, finite))


def with_tails(parts: Components, factors: Tensor) -> Components:
    """The density with every Gaussian in place of a t distribution of the same centre.

    Mixtures whose targets share their components stay as they are.

    Parameters
    ----------
    factors : Tensor of shape (k, m)
        See `variance_factors`.
    """
    widths = factors[None]
    return mixed_widths(parts, factors.new_tensor(SHARES), widths, widths)


def mixed_widths(parts: Components, shares: Tensor, noise: Tensor, epistemic: Tensor) -> Components:
    """The density with every Gaussian in place of several of one centre.

    Mixtures whose targets share their components stay as they are.

    Parameters
    ----------
    shares : Tensor of shape (k,)
        Shares of these.
    noise, epistemic : Tensor of shape (n or 1, k, m or 1)
        Factors of the two variances in each.
    """
    independent = isinstance(parts, IndependentComponents)
    if not independent and parts.log_pi.shape[1] > 1:
        return parts
    n, count, m = parts.mean.shape
    k = len(shares)
    log_pi = parts.log_pi if independent else parts.log_pi[..., None].expand(n, count, m)
    share = torch.log(shares).to(log_pi)[None, :, None, None]

    of_noise = noise.to(parts.mean)[:, :, None]
    of_mean = of_noise if epistemic is noise else epistemic.to(parts.mean)[:, :, None]

    def spread(part: Tensor, factor: Tensor) -> Tensor:
        return (factor * part.expand(n, count, m)[:, None]).reshape(n, k * count, m)

    return IndependentComponents(
        (share + log_pi[:, None]).reshape(n, k * count, m),
        parts.mean[:, None].expand(n, k, count, m).reshape(n, k * count, m),
        spread(parts.noise, of_noise),
        spread(parts.epistemic, of_mean),
        parts.expectation(),
    )
