"""No model that is stored is worse than the mean at its own rows."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import row_blocks, rows_within
from skpou.core.models.model import Predictor

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

    Degrees of freedom do not count: what the mean of the rows leaves is the bound, not what it
    would leave on fresh ones. A residual that is not finite is larger than any.

    Parameters
    ----------
    model : Predictor
        In scaled units.
    rows : Rows
        Those it was fitted to, targets of zero mean.
    """
    total = (rows.weight[:, None] * rows.y.square()).sum(0).double()
    left = residual_squares(model, rows)
    round_off = NONE * torch.finfo(rows.y.dtype).eps
    return ~(left <= (1 + SLACK) * total + rows.total_weight * round_off**2)


def residual_squares(model: Predictor, rows: Rows) -> Tensor:
    """Weighted sums (m,) of the squares of what a model leaves at the rows, in float64."""
    left = torch.zeros(rows.n_outputs, dtype=torch.float64, device=rows.y.device)
    for block in row_blocks(rows.n_rows, rows_within(model.numbers_per_row())):
        residual = (rows.y[block] - model.mean(rows.X[block])).double()
        left += (rows.weight[block, None].double() * residual.square()).sum(0)
    return left
