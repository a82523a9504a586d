"""Units: points to the unit box, targets to zero mean and unit rms, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from skpou.core.rows import Rows, lexicographic_order
from skpou.core.state import TensorState

#: Steps on each side of the unit box, and part of a step, that means of columns are told apart by:
#: round-off does not reach a step, and no fraction of a small number of rows lies at its edge.
STEPS, PART = 1e6, 0.381966


@dataclass(frozen=True)
class Scaling(TensorState):
    """Affine maps of points and targets; constant columns of X are left out.

    Attributes
    ----------
    columns : Tensor of shape (k,), int64
        Columns of X that vary, in the order that the fit has them in.
    offset, width : Tensor of shape (k,)
        Lower corner and side lengths of the data's box.
    mean, scale : Tensor of shape (m,)
        Mean and rms deviation of each target; a constant target has its own size as scale.
    """

    columns: Tensor
    offset: Tensor
    width: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def from_box(cls, X: Tensor, weight: Tensor) -> Scaling:
        """Measure the box of the rows of positive weight; targets stay as they are.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        weight : Tensor of shape (n,)
            Frequency weights.

        Raises
        ------
        ValueError
            If the range of a column overflows.
        """
        kept = weight > 0
        low, high = X[kept].amin(0), X[kept].amax(0)
        width = high - low
        if not bool(torch.isfinite(width).all()):
            column = int(torch.nonzero(~torch.isfinite(width))[0])
            raise ValueError(
                f"The range of column {column} of X, from {float(low[column]):.3g} to "
                f"{float(high[column]):.3g}, overflows. Please rescale X."
            )
        columns = torch.nonzero(width > 0).squeeze(1)
        one = torch.ones(1, dtype=X.dtype, device=X.device)
        return cls(columns, low[columns], width[columns], 0 * one, one)

    def with_targets(self, unit: Tensor, rows: Rows) -> Scaling:
        """Keep the box and measure targets from merged rows of ``y / unit``.

        Rows in their fixed order: the sums' last bits must not depend on how the rows came.

        Parameters
        ----------
        unit : Tensor of shape (m,)
            From `target_unit`.
        rows : Rows
            Distinct rows, targets in units of `unit`.
        """
        share = (rows.weight / rows.weight.sum())[:, None]
        reference = rows.y[:1]
        # Deviations from one target: the mean of equal targets is exactly that target.
        mean = reference + _sums(share * (rows.y - reference))
        within = _sums(rows.within) / rows.weight.sum()
        rms = (_sums(share * (rows.y - mean).square()) + within).sqrt()
        spread = torch.where(rms > 0, rms, 1.0)
        return Scaling(
            self.columns, self.offset, self.width, (mean * unit).squeeze(0), unit * spread
        )

    def reordered(self, order: Tensor) -> Scaling:
        """The same box with its columns in another order, a permutation (k,)."""
        columns, offset, width = (part[order] for part in (self.columns, self.offset, self.width))
        return replace(self, columns=columns, offset=offset, width=width)

    @cached_property
    def _ascends(self) -> bool:
        return bool((self.columns[1:] > self.columns[:-1]).all())

    def points(self, X: Tensor) -> Tensor:
        """Points (n, k) in the unit box."""
        # Columns that ascend and are as many as X has are those of X.
        whole = len(self.columns) == X.shape[1] and self._ascends
        return ((X if whole else X[:, self.columns]) - self.offset) / self.width

    def targets(self, y: Tensor) -> Tensor:
        """Targets (n, m) in units of their rms deviation."""
        # Quotients first: neither squares nor differences of huge targets overflow.
        size = torch.maximum(self.mean.abs(), self.scale)
        return (y / size - self.mean / size) / (self.scale / size)

    def original_targets(self, scaled: Tensor) -> Tensor:
        """Undo `targets` for values of shape (n, m)."""
        return self.mean + self.scale * scaled


def _sums(values: Tensor) -> Tensor:
    """Sums (m,) over the rows of values (n, m): those of a target have the bits they have alone."""
    return values.mT.contiguous().sum(1)


def target_unit(y: Tensor, weight: Tensor, largest: float) -> Tensor:
    """Largest absolute value of each target (m,), or 1: quotients by it cannot overflow.

    Raises
    ------
    ValueError
        If a target is larger than `largest`.
    """
    size = y[weight > 0].abs().amax(0)
    if not bool((size <= largest).all()):
        raise ValueError(f"Values of y as large as {float(size.max()):.3g} overflow. Rescale y.")
    return torch.where(size > 0, size, 1.0)


def order_of_columns(X: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Order (d,) of the columns by what is in them, whatever order they and the rows came in.

    By the mean of each, then by its mean square, then by the size of its covariance with a target.
    Columns that agree in all of these stay in the order that they have.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Points in the unit box.
    y : Tensor of shape (n,)
        A target, in units of its largest absolute value.
    weight : Tensor of shape (n,)
        Frequencies.
    """
    kept = weight > 0
    X, y, share = X[kept], y[kept], weight[kept] / weight[kept].sum()
    mean = share @ X
    along = (share * (y - share @ y)) @ (X - mean)
    keys = torch.stack([mean, share @ X.square(), along.abs()], 1)
    return lexicographic_order((keys * STEPS + PART).floor())
