"""No model that is stored is worse at its own rows than the mean, or the shares of classes."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models.model import ClassPredictor, Predictor

#: Share of a target's sum of squares by which round-off, not the fit, may make the residual larger.
SLACK = 1e-6
#: Residual that counts as none, in units of round-off: a constant target leaves nothing else.
NONE = 1e3


class Flattening(Predictor, Protocol):
    """A predictor that can be replaced by the mean, target by target."""

    def flattened(self, targets: Tensor) -> Predictor:
        """The same but for some targets (m,), bool: their mean is 0, with unit noise."""


def worse_than_the_mean(model: Predictor, rows: Rows) -> Tensor:
    """Targets (m,), bool, whose residual at the rows is larger than that of their mean, 0.

    The rows are those that it was fitted to, in scaled units. Degrees of freedom do not count: what
    the mean of the rows leaves is the bound, not what it would leave on fresh ones. A residual that
    is not finite is larger than any.
    """
    total = (rows.weight[:, None] * rows.y.square()).sum(0).double()
    left = residual_squares(model, rows)
    round_off = NONE * torch.finfo(rows.y.dtype).eps
    return ~(left <= (1 + SLACK) * total + rows.total_weight * round_off**2)


def worse_than_the_shares(model: ClassPredictor, rows: Rows, share: Tensor) -> bool:
    """Whether classes are less likely at the rows, and fewer right, than by their shares alone.

    Parameters
    ----------
    rows : Rows
        Those it was fitted to; targets are the shares of the classes at each.
    share : Tensor of shape (K,)
        Those of the classes in all rows.
    """
    likelihood = right = 0.0
    for block in row_blocks(rows.n_rows, rows_within(model.numbers_per_row())):
        logs = model.log_proba(rows.X[block])
        # Of a class that never occurs at a row nothing is asked: 0 log 0 is 0.
        terms = torch.where(rows.y[block] > 0, rows.y[block] * logs, 0.0)
        likelihood += float((rows.weight[block, None] * terms).double().sum())
        chosen = rows.y[block].gather(1, logs.argmax(1, keepdim=True))
        right += float((rows.weight[block, None] * chosen).double().sum())
    least = rows.total_weight * float(torch.xlogy(share, share).sum())
    if math.isnan(likelihood):
        return True
    fewer = right < (1 - SLACK) * rows.total_weight * float(share.max())
    return fewer and likelihood < (1 + SLACK) * least


def residual_squares(model: Predictor, rows: Rows) -> Tensor:
    """Weighted sums (m,) of the squares of what a model leaves at the rows, in float64."""
    left = torch.zeros(rows.n_outputs, dtype=torch.float64, device=rows.y.device)
    for block in row_blocks(rows.n_rows, rows_within(model.numbers_per_row())):
        residual = (rows.y[block] - model.mean(rows.X[block])).double()
        left += (rows.weight[block, None].double() * residual.square()).sum(0)
    return left
