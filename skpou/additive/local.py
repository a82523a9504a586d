"""A local block beside the terms: what these leave, smoothed among the nearest rows.

Errors at left-out rows are those of terms and block together. Without one observation p at row i,
of weight w, the terms leave ``e = r / (1 - w g_ii)`` there and ``r_j + w g_ji e`` at row j, where
``w g`` is the matrix that takes targets to fitted values; the block smooths these with factors
a_ij, of which ``alpha = a_ii w / w_i`` is the observation's own. What is left of p is then

    (e (1 - w sum_j a_ij g_ji) - sum_j a_ij r_j) / (1 - alpha),

exactly, for given variances of the terms, scales and nugget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.additive.basis import AdditiveBasis
from skpou.core import Pairs
from skpou.core.linalg import (
    LARGEST_LEVERAGE,
    EvidenceFit,
    evenly,
    row_blocks,
    rows_within,
    times_upper,
)
from skpou.core.models import LeftOver, LocalBlock, LocalKernel, Residue, fit_local_kernel

#: Rows of a table from which the nearest may tell what sums of splines miss: the default tries a
#: block from here on. Where it is asked for, rows must be more than a point is smoothed from.
FEWEST_ROWS, FEWEST_ASKED = 500, 60
#: Most rows at which terms and block are judged together.
MOST_JUDGES = 5000
#: Most numbers of the terms' columns at a time.
MOST_NUMBERS = 20_000_000
#: Weights that are multiples of the least one up to this are counts.
COUNT_ERROR = 1e-9
#: Error left by the terms, in units of y, below which they are exact.
EXACT = 1e-9
#: Least part of a smoothed value that is not the row's own: round-off.
LEAST_FREE = 1e-9


@dataclass(frozen=True)
class FittedTerms:
    """A fit of terms to weighted rows, with its left-out errors.

    Attributes
    ----------
    residue : Residue
        Of every pair of point and target.
    factor : Tensor of shape (k,) or float
        What the weights of the pairs were multiplied by.
    count : int
        Components of the density of the residue.
    """

    basis: AdditiveBasis
    fit: EvidenceFit
    residue: Residue
    factor: Tensor | float
    count: int = 1


@dataclass(frozen=True)
class TargetPairs:
    """Rows of one target and their pairs.

    Attributes
    ----------
    X : Tensor of shape (n, d)
        Distinct points in the unit box.
    y, weight : Tensor of shape (n,)
        Mean target of each, and its weight.
    pairs : Pairs
        Targets at the points, one column.
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    pairs: Pairs

    def counts_alone(self, floor: float) -> bool:
        """Whether equal targets at equal points count one by one.

        Where y is rounded they are several measurements, else copies of one.
        """
        counts = self.pairs.weight / self.pairs.weight.min()
        apart = (counts - counts.round()).abs().max() / counts.max()
        return floor > 0 and bool(apart <= COUNT_ERROR)

    def units(self, weight: Tensor, floor: float) -> Tensor:
        """How much of each of some weights is left out at a time: one observation, or all."""
        return self.pairs.weight.min().expand_as(weight) if self.counts_alone(floor) else weight


def local_kernel(
    rows: TargetPairs, terms: FittedTerms, slopes: Tensor, floor: float, rng: np.random.Generator
) -> LocalKernel | None:
    """Kernel of what terms leave, if smoothing it tells rows that are left out.

    Parameters
    ----------
    terms : FittedTerms
        Of the likeliest terms, all rows of equal widths.
    slopes : Tensor of shape (d,)
        Root mean square of the gradient along each column.
    floor : float
        Least standard deviation of the noise.
    """
    value = rows.y - terms.fit.fitted
    if float((rows.weight @ value.square() / rows.weight.sum()).sqrt()) <= EXACT:
        return None
    left = rows.units(rows.weight, floor)
    # One of several equal observations that is left out has little leverage.
    leverage = (left * terms.fit.spread).clamp_max(LARGEST_LEVERAGE)
    kept = torch.zeros_like(slopes)
    kept[list(terms.basis.kept)] = 1.0
    over = LeftOver(rows.X, value, value / (1 - leverage), rows.weight, left, floor)
    return fit_local_kernel(over, (slopes * kept).cpu().numpy(), rng)


class JointResidue:
    """Errors of terms and block together at rows that are left out.

    Parameters
    ----------
    fits : sequence of FittedTerms
        One for each member.
    floor : float
        Least standard deviation of the noise.
    """

    def __init__(
        self, rows: TargetPairs, kernel: LocalKernel, fits: Sequence[FittedTerms], floor: float
    ):
        self.rows = rows
        n = len(rows.X)
        values = torch.stack([rows.y - terms.fit.fitted for terms in fits], 1)
        self.block = LocalBlock.of_rows(kernel, rows.X, rows.weight, values)
        self.judged = torch.arange(n, device=rows.X.device)[evenly(n, MOST_JUDGES)]
        self.near, self.share, self.variance = self.block.smoother(self.judged, rows.X)
        self.own = (self.share * (self.near == self.judged[:, None])).sum(1)
        place = torch.full((n,), -1, device=rows.X.device)
        place[self.judged] = torch.arange(len(self.judged), device=rows.X.device)
        #: Numbers of the pairs at these rows, and of their rows among them.
        self.index = torch.nonzero(place[rows.pairs.point] >= 0).squeeze(1)
        self.at = place[rows.pairs.point[self.index]]
        #: Basis of the last terms that were judged, and its columns; see `_columns`.
        self.smoothed: tuple[AdditiveBasis, Tensor, Tensor] | None = None
        self.unit = rows.units(rows.pairs.weight, floor)[self.index]

    def of(self, number: int, terms: FittedTerms) -> Residue:
        """Residue of the pairs at the judged rows, for one member."""
        rows, point = self.rows, self.judged[self.at]
        factor = torch.ones_like(rows.pairs.weight) * terms.factor
        unit = self.unit * factor[self.index]
        y, spread = rows.pairs.y[self.index, 0], terms.fit.spread[point]
        leverage = (unit * spread).clamp_max(LARGEST_LEVERAGE)
        error = (y - terms.fit.fitted[point]) / (1 - leverage)
        left = self.block.values[:, number].double()
        smoothed = (self.share * left[self.near]).sum(1)[self.at]
        pulled = unit * self._influence(terms)[self.at]
        own = self.own / rows.weight[self.judged]
        free = (1 - self.unit * own[self.at]).clamp_min(LEAST_FREE)
        joint = (error * (1 - pulled) - smoothed) / free
        around, added = spread / (1 - leverage), self.variance[self.at] / free
        points = terms.basis.coordinates(rows.X[point])
        weight = rows.pairs.weight[self.index]
        part = (self.unit / rows.pairs.weight.sum()).clamp_max(LARGEST_LEVERAGE)
        mean = y - joint + part * joint
        return Residue(torch.cat([points, mean[:, None]], 1), joint, around, weight, added)

    def _influence(self, terms: FittedTerms) -> Tensor:
        """``sum_j a_ij g_ji`` at the judged rows i."""
        if self.smoothed is None or self.smoothed[0] is not terms.basis:
            self.smoothed = (terms.basis, *self._columns(terms.basis))
        _, smoothed, own = self.smoothed
        root = terms.fit.root / terms.fit.noise**0.5
        return (times_upper(smoothed, root) * times_upper(own, root)).sum(1)

    def _columns(self, basis: AdditiveBasis) -> tuple[Tensor, Tensor]:
        """Columns (l, p) of the terms at the judged rows, smoothed by the block and as they are."""
        X, m = self.rows.X, self.near.shape[1]
        whole = len(X) * basis.n_columns <= MOST_NUMBERS
        at_once = len(self.near) if whole else rows_within(m * basis.n_columns, MOST_NUMBERS)
        parts, own = [], []
        for block in row_blocks(len(self.near), at_once):
            used, place = torch.unique(self.near[block], return_inverse=True)
            row = torch.arange(len(place), device=X.device).repeat_interleave(m)
            indices = torch.stack([row, place.flatten()])
            size = (len(place), len(used))
            shares = torch.sparse_coo_tensor(
                indices, self.share[block].flatten(), size, check_invariants=False
            )
            parts.append(torch.sparse.mm(shares, basis.matrix(X[used])))
            own.append(basis.matrix(X[self.judged[block]]))
        return torch.cat(parts), torch.cat(own)

    def degrees(self, terms: FittedTerms) -> float:
        """Effective degrees of freedom of the block behind the terms, over all rows."""
        free = 1 - self.rows.weight[self.judged] * terms.fit.spread[self.judged]
        return float((self.own * free.clamp_min(0)).mean()) * len(self.rows.X)

    def finished(self, terms: FittedTerms) -> LocalBlock:
        """The block with its degrees of freedom."""
        return replace(self.block, dof=self.degrees(terms))
