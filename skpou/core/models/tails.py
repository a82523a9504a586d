"""Tails of a density: Student's t as a mixture of Gaussians of one mean.

A variance that was estimated with k degrees of freedom is its estimate over a draw of chi-square
by k [1]_, Section 3.2. The mixture has a few of its quantiles for all of them. And noise itself is
seldom as light-tailed as a Gaussian: errors at left-out rows tell by how many degrees it is, under
a prior by which it may be either [1]_, Section 17.2.

References
----------
.. [1] A. Gelman et al., "Bayesian Data Analysis", 3rd ed., CRC Press (2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln
from scipy.stats import chi2
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import TINY
from skpou.core.models.components import Components
from skpou.core.models.cross_validation import LeftOut
from skpou.core.models.form_error import FormError
from skpou.core.models.independent import IndependentComponents

#: Shares of the Gaussians, that of the widest first: it is for errors of twenty deviations.
SHARES = (1e-4, 3e-3, 3.69e-2, 0.16, 0.4, 0.4)
#: Degrees of freedom from which on the tails are those of a Gaussian, and the fewest that are told
#: apart: with one the mean itself would have no error.
MOST_DEGREES, FEWEST_DEGREES = 30.0, 2.0
#: Standard deviation at left-out rows, in units of y, below which a fit is exact: it has no noise.
CLEAR_NOISE = 1e-3
#: Reciprocals of the degrees of the noise itself that are compared, as likely beforehand; and the
#: largest of all: a variance is to exist.
HEAVY, MOST_HEAVY = (0.0, 1 / 30, 1 / 15, 1 / 8, 1 / 5, 1 / 3), 0.4
#: Rows' worth of belief that the bulk is as wide as the standard deviation says; and steps of
#: expectation maximization for its width, which more would not move by what the rows know of it.
PRIOR_ROWS, N_STEPS = 30.0, 20


@dataclass(frozen=True)
class Tails:
    """How far the density of each of m targets is from a Gaussian.

    Attributes
    ----------
    known : ndarray of shape (m,)
        Reciprocals of the degrees of freedom by which the size of the noise is known; 0: many.
    own : ndarray of shape (m,)
        Those of the noise itself; 0: a Gaussian's.
    scale : ndarray of shape (m,)
        Factor of the standard deviation, where the noise has tails of its own.
    """

    known: np.ndarray
    own: np.ndarray
    scale: np.ndarray

    def factors(self, is_mixture: bool) -> np.ndarray | None:
        """See `variance_factors`; None where a Gaussian stays one.

        A mixture has the tails of the noise by its widths: what remains is how well these are
        known.
        """
        if is_mixture:
            return variance_factors(_reciprocal(self.known)) if self.known.any() else None
        joined = np.maximum(self.known, np.minimum(self.known + self.own, MOST_HEAVY))
        joined = np.where(joined < 1 / MOST_DEGREES, self.known, joined)
        if not joined.any():
            return None
        # As far as tails are added the bulk is narrower.
        added = (joined - self.known) / np.where(self.own > 0, self.own, 1.0)
        return variance_factors(_reciprocal(joined)) * self.scale ** (2 * added)

    def arrays(self) -> dict[str, Any]:
        """State as numpy arrays."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, restraint: dict[str, Any]) -> Tails | None:
        """Those in a restraint's state; an earlier version's has the known degrees alone."""
        state, known = restraint.get("tails"), restraint.get("degrees")
        if state is not None:
            return cls(**state)
        return None if known is None else cls(known, 0 * known, 1 + 0 * known)


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
        if not _is_noisy(one):
            continue
        known = _in_folds(one)
        variance = one.variance[known, 0]
        parts = one.noise[known, 0] / variance
        found = spare + (float(np.sum(parts)) if one.degrees is None else one.degrees)
        if found < MOST_DEGREES:
            degrees[target] = max(found, FEWEST_DEGREES)
    return None if np.isinf(degrees).all() else degrees


def fit_tails(
    rows: Rows,
    left_out: Sequence[LeftOut] | None,
    forms: Sequence[FormError] = (),
    own: Sequence[bool] | None = None,
) -> Tails | None:
    """The tails of every target's density, by errors at left-out rows; None: all are Gaussian.

    Parameters
    ----------
    forms : sequence of FormError, default=()
        Of what predicts. Of a few exact rows they are what errors are told by, as the noise is by
        others.
    own : sequence of bool, default=None
        Which targets' noise may have tails of its own: not where it was asked to be Gaussian, and
        one that varies by a law has them by that. None: all.
    """
    degrees = degrees_of_noise(rows, left_out)
    if left_out is None:
        return None
    known = np.zeros(len(left_out)) if degrees is None else 1 / degrees
    own = [True] * len(left_out) if own is None else own
    found = [
        _own_tails(_claimed(one)) if may else (0.0, 1.0)
        for one, may in zip(left_out, own, strict=True)
    ]
    for target, form in enumerate(forms):
        if _is_noisy(left_out[target]) or not 0 < len(form.ratio) < MOST_DEGREES:
            continue
        known[target] = 1 / max(len(form.ratio), FEWEST_DEGREES)
        # The form's variance is calibrated by these errors, and stays it under heavier tails; how
        # narrow the bulk is they do not tell: most rows say nothing of a kink between two.
        heavy, _ = _own_tails(np.sqrt(form.ratio))
        found[target] = heavy, math.sqrt(1 - 2 * heavy)
    tails = Tails(known, *np.array(found).T)
    return None if tails.factors(False) is None and tails.factors(True) is None else tails


def _in_folds(left_out: LeftOut) -> np.ndarray:
    """Which errors are those of single rows, and told."""
    known = np.isfinite(left_out.error[:, 0]) & np.isfinite(left_out.variance[:, 0])
    return (left_out.group < left_out.n_folds) & known


def _is_noisy(left_out: LeftOut) -> bool:
    """Whether what is claimed of errors is more than an exact fit has."""
    variance = left_out.variance[_in_folds(left_out), 0]
    return len(variance) > 0 and float(np.median(variance)) >= CLEAR_NOISE**2


def _claimed(left_out: LeftOut) -> np.ndarray:
    """Errors at rows of the folds in units of what is claimed; none where there is no noise.

    Nor where it is only that of unlikely kernels: no degree of freedom of it is left open then.
    """
    some = _in_folds(left_out)
    if not _is_noisy(left_out) or left_out.degrees == math.inf:
        return np.zeros(0)
    return left_out.error[some, 0] / np.sqrt(left_out.variance[some, 0])


def _own_tails(ratio: np.ndarray) -> tuple[float, float]:
    """Posterior mean of the reciprocal degrees of some errors, and the width of their bulk.

    The width is beside the root of their mean square, which the standard deviation is taken to be,
    or what that exceeds it by. It is no less than the variance allows: a few errors that are far
    larger would have it vanish.
    """
    size = float(np.sqrt(np.mean(ratio**2))) if len(ratio) else 0.0
    if not size > TINY:
        return 0.0, 1.0
    square = (ratio / size) ** 2
    inverse = np.array(HEAVY)
    scales = np.ones(len(inverse))
    likely = np.full(len(inverse), -0.5 * (len(square) * np.log(2 * np.pi) + square.sum()))
    for k, one in enumerate(inverse):
        if one > 0:
            scales[k], likely[k] = _of_student(square, 1 / one)
            scales[k] = max(scales[k], math.sqrt(1 - 2 * one))
    share = np.exp(likely - likely.max())
    share /= share.sum()
    told = len(square) / (len(square) + PRIOR_ROWS)
    heavy, scale = float(share @ inverse), float(np.exp(told * (share @ np.log(scales))))
    # Tails add variance, of which errors below what is claimed ask for none.
    return heavy, max(math.sqrt(1 - 2 * heavy), scale * min(1.0, size))


def _of_student(square: np.ndarray, degrees: float) -> tuple[float, float]:
    """Likeliest scale of squared errors under Student's t, and the log likelihood there."""
    scale = 1.0
    for _ in range(N_STEPS):
        scale = float(np.mean((degrees + 1) / (degrees + square / scale) * square))
    half = 0.5 * (degrees + 1)
    norm = gammaln(half) - gammaln(0.5 * degrees) - 0.5 * np.log(np.pi * degrees * scale)
    each = norm - half * np.log1p(square / (degrees * scale))
    return float(np.sqrt(scale)), float(each.sum())


def _reciprocal(values: np.ndarray) -> np.ndarray:
    """Reciprocals of values of at least zero: infinite of zero."""
    return np.divide(1.0, values, out=np.full(len(values), np.inf), where=values > 0)


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
