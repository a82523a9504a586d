"""What the rows' noise hides of the difference between a form and the truth.

Rows with noise are met as well by a form that is a little too stiff: the variance of its
coefficients does not know what it lacks. Let y be the form, a Gaussian process g and the noise
(Kennedy and O'Hagan, "Bayesian calibration of computer models", J. R. Stat. Soc. B 2001, without
its correction of the mean). With the fit's ``I - H`` the evidence of each size of g beside the
noise is that of what the fit leaves over; all sizes and lengths count by theirs, so that g is as
large as the rows allow it, not only as they ask for. Beforehand all standard deviations of g are as
likely (Gelman, "Prior distributions for variance parameters in hierarchical models", Bayesian
Analysis 1, 2006, Section 7.1): were their logarithms so, g would be next to nothing whatever rows
without a sign of it can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.core import ArrayState, Rows
from skpou.core.models.cross_validation import EXACT_NOISE, LeftOut
from skpou.core.models.power_function import KERNELS, double

#: Functions that g is made of, one a row far from the others: a fit with noise is smooth.
MOST_FUNCTIONS = 60
#: The kernel and its lengths, in units of the box along the steepest column.
CHOICES = tuple(("matern52", float(v)) for v in (0.1, 0.2, 0.4, 0.8, 1.6))
#: Mean part of g's variance at the rows that its functions may miss: shorter lengths are left out.
MOST_MISSED = 0.1
#: Variances of g over that of the noise, and the largest one in units of y's mean square.
RATIOS, LARGEST = np.geomspace(1e-2, 1e4, 19), 1.0
#: Kernels that are kept, and the share below which none is.
MOST_KEPT, LEAST_SHARE = 5, 0.05
#: Nugget of the kernel between the functions' rows, and ridge of what the form takes of them.
NUGGET, RIDGE = 1e-8, 1e-8
#: Distance of a residual from what the influence leaves, in units of it, that is round-off.
LEAST_LIKE = 0.01
#: Least degrees of freedom of the noise.
LEAST_DEGREES = 1.0
#: Part of the residual that no functions explain: the rest is round-off.
LEAST_UNEXPLAINED = 1e-12


class _Stacked(NamedTuple):
    """All K parts of a discrepancy together, for its variance.

    Rows (k, d) of the functions, lengths (K, 1, 1), maps (K, k, 2 k + 1) of kernels to functions,
    what the form leaves of these and its mean, weights (K, 2 k + 1, 2) of their squares in what is
    known and in the variance, shares and sizes (K, 1).
    """

    points: Tensor
    lengths: Tensor
    maps: Tensor
    weights: Tensor
    share: Tensor
    size: Tensor


@dataclass(frozen=True)
class Discrepancy(ArrayState):
    """The variance of g after the rows, less what the form takes for its own.

    Attributes
    ----------
    scales : ndarray of shape (d,)
        Factors of the scaled coordinates.
    points : ndarray of shape (k, d)
        Rows of the functions, in coordinates times `scales`.
    parts : list of dict
        For each kernel its `kernel`, `length` and `share`, `columns` (k, k) that make independent
        functions of it, variances `square` (k,) and means `mean` (k,) of their coefficients, the
        map `free` (k, k) of what the form leaves of them, and `size`, the variance of g.
    noise : float
        Variance of the noise without g.
    """

    scales: np.ndarray
    points: np.ndarray
    parts: list[dict[str, Any]]
    noise: float

    def variance(self, X: np.ndarray) -> np.ndarray:
        """Mean square (n,) of g at scaled points X (n, d), those outside the box at its sides."""
        stacked = self._stacked
        distance = _distances(double(np.clip(X, 0, 1) * self.scales), stacked.points)
        # All lengths at once: one row is asked for often, and each call costs more than its sums.
        kernel = KERNELS[self.parts[0]["kernel"]](distance / stacked.lengths)
        squares = (kernel @ stacked.maps).square_() @ stacked.weights
        known, own = squares.unbind(2)
        own = own + stacked.size * (1 - known).clamp_min(0)
        return (stacked.share * own).sum(0).numpy()

    @cached_property
    def _stacked(self) -> _Stacked:
        def together(name: str, *shape: int) -> Tensor:
            values = double(np.stack([np.asarray(part[name]) for part in self.parts]))
            return values.reshape(*values.shape, *shape)

        columns, mean = together("columns"), together("mean", 1)
        left = columns @ together("free")
        weights = columns.new_zeros((len(columns), 2 * columns.shape[2] + 1, 2))
        weights[:, : columns.shape[2], 0] = 1.0
        weights[:, columns.shape[2] : -1, 1] = together("square")
        weights[:, -1, 1] = 1.0
        maps = torch.cat([columns, left, left @ mean], 2)
        share, size = together("share", 1), together("size", 1)
        return _Stacked(double(self.points), together("length", 1, 1), maps, weights, share, size)

    def correlation(self, X: Tensor) -> Tensor:
        """The mean kernel (n, n) between scaled points X (n, d), before any row was seen."""
        distance = _distances(X * double(self.scales), X * double(self.scales))
        weight = np.array([part["share"] * part["size"] for part in self.parts])
        kernels = [KERNELS[part["kernel"]](distance / part["length"]) for part in self.parts]
        return (torch.stack(kernels) * double(weight / weight.sum())[:, None, None]).sum(0)


def hidden_by_noise(
    X: np.ndarray, scales: np.ndarray, left_out: LeftOut, rows: Rows, target: int
) -> dict[str, Any] | None:
    """State of the `Discrepancy` of a target with noise; None of a fit without."""
    if left_out.maker is None or not left_out.variance.min() > EXACT_NOISE:
        return None
    root = rows.weight.sqrt()
    y = rows.y[:, target] * root
    residual = left_out.maker.apply(y[:, None])[:, 0]
    influence = left_out.maker.influence()
    found = fit_discrepancy(X * scales, scales, residual, influence, y, root)
    return None if found is None else found.arrays()


def _influence_of(G: Tensor, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (n, q) of an influence that leaves what it says of y (n,), and what it leaves (n,).

    A fit that gave its rows other weights has its posterior's influence, which does not make its
    residual. What such a fit takes more of than not counts as taken whole, and so does the next
    until no more is left than the fit leaves: that much less than it explains is nothing it lacks.
    """
    left = y - G @ (G.T @ y)
    if float((left - residual).norm()) <= LEAST_LIKE * float(residual.norm()):
        return G, residual
    values, vectors = torch.linalg.eigh(G.T @ G)
    columns = (G @ vectors) / values.clamp_min(NUGGET).sqrt()
    share, own = torch.where(values > 0.5, 1.0, values.clamp_min(0)), columns.T @ y
    left = y - columns @ (share * own)
    for k in reversed(torch.nonzero((values <= 0.5) & (values > NUGGET)).flatten().tolist()):
        if float(left.norm()) <= float(residual.norm()):
            break
        left = left - columns[:, k] * ((1 - share[k]) * own[k])
        share[k] = 1.0
    G = columns * share.sqrt()
    return G, y - G @ (G.T @ y)


def fit_discrepancy(
    Z: np.ndarray, scales: np.ndarray, residual: Tensor, G: Tensor, y: Tensor, root: Tensor
) -> Discrepancy | None:
    """All sizes and lengths by their evidence; None where the rows leave no noise.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
        Rows in scaled coordinates times `scales`.
    scales : ndarray of shape (d,)
        How much the mean changes along each column of the box.
    residual : Tensor of shape (n,)
        What the fit leaves, times the roots of the weights.
    G : Tensor of shape (n, q)
        ``H = G G'`` is the fit's influence at the weighted rows.
    y : Tensor of shape (n,)
        Targets times the roots of the weights.
    root : Tensor of shape (n,)
        Roots of the weights.
    """
    G, residual = _influence_of(G, y, residual)
    degrees = max(len(Z) - float(G.square().sum()), LEAST_DEGREES)
    total = float(residual @ y)
    if not total > 0:
        return None
    points = Z[_far_apart(Z)]
    parts: list[dict[str, Any]] = []
    scores = []
    among, across = (_distances(double(rows), double(points)) for rows in (points, Z))
    for kernel, length in reversed(CHOICES):
        factor = KERNELS[kernel](among / length)
        factor.diagonal().add_(NUGGET)
        values, vectors = torch.linalg.eigh(factor)
        columns = vectors / values.clamp_min(NUGGET).sqrt()
        functions = KERNELS[kernel](across / length) @ columns
        missed = float((1 - functions.square().sum(1)).clamp_min(0).mean())
        if parts and missed > MOST_MISSED:
            continue
        weighted = functions * root.cpu()[:, None]
        score, part = _with_evidence(weighted, residual.cpu(), G.cpu(), total, degrees)
        scores.append(score)
        parts.append({"kernel": kernel, "length": length, "columns": columns.numpy(), **part})
    share = np.exp(np.array(scores) - max(scores))
    kept = np.argsort(-share, kind="stable")[:MOST_KEPT]
    kept = kept[share[kept] >= LEAST_SHARE]
    shares = share[kept] / share[kept].sum()
    chosen = [{**parts[k], "share": float(s)} for k, s in zip(kept, shares, strict=True)]
    usual = float(residual @ residual) / degrees
    return Discrepancy(scales, points, chosen, usual)


def _with_evidence(
    functions: Tensor, residual: Tensor, G: Tensor, total: float, degrees: float
) -> tuple[float, dict[str, Any]]:
    """Log evidence of functions (n, k) of all sizes, and what is known of their coefficients."""
    taken = G @ (G.T @ functions)
    left = functions - taken
    values, vectors = torch.linalg.eigh(functions.T @ left)
    values = values.clamp_min(0)
    right = vectors.T @ (functions.T @ residual)
    ratios = double(RATIOS)
    ratios = ratios[(ratios * total / degrees <= LARGEST) | (ratios == ratios[0])][:, None]
    gains = ratios / (1 + ratios * values)
    square = (total - (gains * right.square()).sum(1)).clamp_min(LEAST_UNEXPLAINED * total)
    # Each counts by the part of the standard deviations, from none on, that it is nearest to.
    deviation = ratios[:, 0].sqrt()
    middle = 0.5 * (deviation[1:] + deviation[:-1])
    edges = torch.cat([deviation.new_zeros(1), middle, deviation[-1:]])
    prior = edges.diff().log()
    score = prior - 0.5 * torch.log1p(ratios * values).sum(1) - 0.5 * degrees * square.log()
    share = torch.softmax(score, 0)[:, None]
    noise = square[:, None] / degrees
    mean = (share * gains * right).sum(0)
    spread = (share * (gains * right - mean).square()).sum(0)
    # What the form takes of a function is smooth, too, and made of the functions between the rows.
    gram = functions.T @ functions
    gram.diagonal().add_(RIDGE * float(gram.diagonal().max()))
    free = vectors - torch.linalg.solve(gram, functions.T @ (taken @ vectors))
    known = {
        "free": free.numpy(),
        "square": ((share * noise * gains).sum(0) + spread).numpy(),
        "mean": mean.numpy(),
        "size": float((share * noise * ratios).sum()),
    }
    return float(torch.logsumexp(score, 0)) - float(np.log(len(ratios))), known


def _far_apart(Z: np.ndarray) -> np.ndarray:
    """Numbers of at most `MOST_FUNCTIONS` rows, each the farthest from those before."""
    chosen = [int(((Z - Z.mean(0)) ** 2).sum(1).argmin())]
    distance = ((Z - Z[chosen[0]]) ** 2).sum(1)
    while len(chosen) < MOST_FUNCTIONS and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((Z - Z[chosen[-1]]) ** 2).sum(1))
    return np.array(chosen)


def _distances(left: Tensor, right: Tensor) -> Tensor:
    """Distances (n, k) between points, without the cancellation of a product."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
