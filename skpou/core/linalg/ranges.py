"""Orthonormal bases of columns that are dependent up to round-off."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Seed of the combinations of columns: any number, the same ones for the same sizes.
SEED = 11
#: Combinations that are looked at together. More of them waste columns beyond the range, fewer
#: are products of thin matrices.
BLOCK = 64
#: Norm of a combination outside of the basis, over what it was, that is the round-off of its sum:
#: 1 to 2e-15 of 600 to 1000 columns. Each of the last ones must be as small.
ROUND_OFF, LAST = 4e-15, 4
#: Columns from which on, and the share of the columns up to which, the basis is worth a try: with
#: more it takes as long as a factorization of all, and what was spent in vain is a sixth of that.
FEWEST_COLUMNS, LARGEST_SHARE = 350, 0.5


def range_to_round_off(A: Tensor) -> Tensor | None:
    """Orthonormal basis of all that columns can express beyond round-off, where that is little.

    Random combinations of the columns are taken, a block at a time, until the last ones lie in the
    span of those before: Algorithm 4.2 of Halko, Martinsson and Tropp (2011), "Finding
    structure with randomness", in blocks.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Columns, float64.

    Returns
    -------
    Tensor of shape (n, r) or None
        None where the columns are few, or not clearly more than the r that are independent.
    """
    n, p = A.shape
    most = int(LARGEST_SHARE * min(n, p))
    if p < FEWEST_COLUMNS or n < BLOCK:
        return None
    rng = np.random.default_rng(SEED)
    basis = A.new_zeros((n, 0))
    while basis.shape[1] + BLOCK <= most:
        draws = torch.as_tensor(rng.standard_normal((p, BLOCK)), device="cpu").to(A)
        block = A @ draws
        size = float(block.norm(dim=0).max())
        Q, R = torch.linalg.qr(block - basis @ (basis.T @ block))
        # The smaller what was left is, the more of the basis round-off has left in it.
        Q = torch.linalg.qr(Q - basis @ (basis.T @ Q)).Q
        basis = torch.cat([basis, Q], 1)
        if float(R.diagonal()[-LAST:].abs().max()) <= ROUND_OFF * size:
            return basis
    return None
