"""Linear fits with a prior on their coefficients, judged by evidence and by left-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skpou.core import all_but
from skpou.core.linalg import TINY, triangular_factor
from skpou.core.models import LEAST_TOLD, ResidualMaker
from skpou.partitions.mixtures.left_out import LeftOutRows

#: Standard deviations of the noise that are compared, in units of the largest singular value.
NOISES = tuple(10.0 ** (-13 + 0.5 * k) for k in range(27))


@dataclass(frozen=True)
class PriorFit:
    """What a prior makes of the rows.

    Attributes
    ----------
    evidence : float
        Twice the negative log evidence, up to a constant; lower is better.
    left_out : float
        Root mean square error at rows that were left out: folds, and levels of columns. Infinite
        where it was not asked for.
    noise : float
        Standard deviation of the noise in units of the prior's.
    least_noise : float
        That down to which left-out errors are not spoiled by round-off.
    """

    evidence: float
    left_out: float
    noise: float
    least_noise: float


class Columns:
    """Columns of a linear model at the rows, in a form in which priors are cheap.

    Parameters
    ----------
    matrix : Tensor of shape (n, q)
        The model's columns.
    """

    def __init__(self, rows: LeftOutRows, matrix: Tensor):
        self.rows, self.matrix = rows, matrix.double()
        weighted = self.matrix * rows.root
        n, q = weighted.shape
        self.Q: Tensor | None = None
        self.R: Tensor = weighted
        if n > q:
            self.Q, self.R = torch.linalg.qr(weighted)

    def fit(self, width: Tensor, judged: bool = True) -> PriorFit:
        """Noise of largest evidence for the coefficients' prior standard deviations (q,).

        Rows are left out if it is to be `judged` by them, which takes most of the time.
        """
        U, S, _ = torch.linalg.svd(self.R * width, full_matrices=False)
        U = U if self.Q is None else self.Q @ U
        rows = self.rows
        inner = (U.T @ rows.y).square()
        outside = (rows.y - U @ (U.T @ rows.y)).square().sum(0) + rows.within
        noise = S[0] * torch.tensor(NOISES, dtype=S.dtype, device=S.device)
        total = S.square() + noise[:, None].square()
        square = (inner.T[None] / total[:, None]).sum(2) + outside / noise[:, None].square()
        m, count = rows.y.shape[1], rows.count
        misfit = count * (square / count).clamp_min(TINY).log().sum(1)
        spread = total.log().sum(1) + (count - len(S)) * noise.square().log()
        values = misfit + m * spread
        best = int(values.argmin())
        left_out = math.inf
        if judged:
            told = torch.maximum(noise[best], LEAST_TOLD * S[0]).square()
            lost = told / (S.square() + told)
            left_out = rows.pooled(rows.left_out([ResidualMaker(U, 1 - lost, lost)]))
        least = LEAST_TOLD * float(S[0])
        return PriorFit(float(values[best]), left_out, float(noise[best]), least)

    def degrees(self, width: Tensor, noise: float) -> float:
        """Degrees of freedom of a fit: the trace of its influence on the rows."""
        square = torch.linalg.svdvals(self.R * width).square()
        return float((square / (square + noise**2)).sum())

    def left_out(self, width: Tensor, noise: float) -> np.ndarray:
        """Errors (l, m) at left-out rows by fits without them, which round-off does not spoil."""
        rows, q = self.rows, len(width)
        stacked = torch.cat([self.matrix * width * rows.root, rows.y], 1)
        ridge = torch.zeros_like(stacked[:1]).expand(q, -1).clone()
        ridge[:, :q].diagonal().fill_(noise)
        errors = []
        for part in rows.sets:
            index = torch.as_tensor(part, device=stacked.device)
            others = stacked[all_but(len(stacked), index)]
            R = triangular_factor(torch.cat([others, ridge]))
            coef = torch.linalg.solve_triangular(R[:q, :q], R[:q, q:], upper=True)
            error = (stacked[index, q:] - stacked[index, :q] @ coef) / rows.root[index]
            errors.append(error.cpu().numpy())
        return np.concatenate(errors)

    def solve(self, width: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (q, m), their factor (q, q), and the noise's variance (m,)."""
        q, rows = len(width), self.rows
        ridge = (noise / width).diag()
        stacked = torch.cat([self.matrix * rows.root, ridge])
        target = torch.cat([rows.y, rows.y.new_zeros((q, rows.y.shape[1]))])
        R = triangular_factor(torch.cat([stacked, target], 1))
        factor = R[:q, :q]
        coef = torch.linalg.solve_triangular(factor, R[:q, q:], upper=True)
        # Residual and prior together: what the evidence takes for noise.
        left = R[q:, q:].square().sum(0) + rows.within
        return coef, factor, left / rows.count
