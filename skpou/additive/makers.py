"""What errors of an additive fit at left-out rows are found by."""

from __future__ import annotations

import torch
from torch import Tensor

from skpou.core.models import Maker, prior_residual_makers, residual_makers

#: Prior variances below this part of the largest are of functions that are not needed: those of the
#: roughest ones of a term are some millionths of the smoothest one's.
UNUSED = 1e-8


def makers_of_prior(A: Tensor, prior: Tensor | None, noise: float) -> list[Maker]:
    """Those of the weighted columns A (n, p) of a fit with little noise or none.

    A level that is left out has functions of its own, which only the prior ties to its neighbours.
    That a function is not needed was found with all levels, as the slope of an even function on a
    symmetric grid: without one of them nothing says so, and it may be as large as any.
    """
    if prior is None:
        return residual_makers(A)
    largest = prior[1:].max() if len(prior) > 1 else prior[0]
    unused = prior < UNUSED * largest
    prior = torch.where(unused, largest, prior)
    return prior_residual_makers(A * (prior / noise).sqrt())
