"""Left-out errors of a spline through all rows, or near them, which has a function for each.

The weights of the rows are ``c = P y``: the errors at rows f that are left out together are
``(P_ff)^-1 c_f``, those of Rippa [1]_ of a single row. The row's own noise is ``penalty / weight``
of what the spline is bent by.

References
----------
.. [1] S. Rippa, "An algorithm for selecting a good value for the parameter c in radial basis
   function interpolation", Advances in Computational Mathematics 11 (1999), Eq. 17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows
from skpou.core.models.cross_validation import N_FOLDS, LeftOut, independent_count
from skpou.core.models.power_function import ROUND_OFF_VARIANCE

#: Most rows: their matrix is inverted.
MOST_ROWS = 1000


@dataclass(frozen=True)
class RowWeights:
    """What finds errors of a spline with weights of the rows.

    Attributes
    ----------
    precision : Tensor of shape (n, n)
        The matrix P.
    penalty : float
        That of the fit; 0 for a spline through all rows.
    n_free : int
        Functions that cost nothing.
    """

    precision: Tensor
    penalty: float
    n_free: int

    def of_target(self, target: int) -> RowWeights:
        """The same: it does not depend on the targets."""
        return self

    def left_out_errors(self, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
        """Errors at sets of rows."""
        coef = self.precision @ rows.y
        tension = (coef * rows.y).sum(0).clamp_min(0) / max(rows.n_rows - self.n_free, 1)
        noise = self.penalty * tension / rows.weight[:, None] + ROUND_OFF_VARIANCE
        errors, counts = [], []
        for part in sets:
            index = torch.as_tensor(part, device=coef.device)
            block = self.precision[index][:, index]
            solved = torch.linalg.solve(
                block, torch.cat([coef[index], torch.ones_like(block[0]).diag()], 1)
            )
            m = coef.shape[1]
            errors.append(solved[:, :m])
            counts.append(independent_count(solved[:, m:]))
        error = torch.cat(errors).cpu().numpy()
        noise_left = noise.cpu().numpy()[np.concatenate(sets)]
        own = self.penalty * self.precision.diagonal() / rows.weight
        return LeftOut(
            sets,
            min(N_FOLDS, rows.n_rows),
            error,
            # What the spline itself claims is no excuse for its errors.
            noise_left,
            noise_left,
            np.array(counts),
            told=np.ones(len(sets), dtype=bool),
            degrees=max(float(own.sum()), 1.0),
        )
