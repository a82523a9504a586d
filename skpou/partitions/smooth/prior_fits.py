"""Linear fits with a prior on their coefficients, judged by evidence and by left-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows, all_but, judging_generator
from skpou.core.linalg import TINY, triangular_factor
from skpou.core.models import (
    LEAST_TOLD,
    N_FOLDS,
    Makers,
    ResidualMaker,
    left_out_errors,
    sets_to_leave_out,
)

#: Standard deviations of the noise that are compared, in units of the largest singular value.
NOISES = tuple(10.0 ** (-13 + 0.5 * k) for k in range(27))
#: Largest error that is told from others, in units of y.
MOST_ERROR = 1e50
#: Rows up to which folds are drawn several times, and how often: few errors are luck.
FEW_ROWS, N_DRAWS = 60, 2
#: Levels of a target that are left out: all of them, since each has few rows, and a table of
#: isotherms was seen to have its error between two of 45.
TARGET_LEVELS = 50
#: Neighbours for each column among which a row is, or is at the rim; the distance from their convex
#: hull, in units of theirs, that is round-off; the least share of rows inside for it to tell them.
NEIGHBOURS_A_COLUMN, ON_RIM, LEAST_INSIDE = 4, 1e-6, 0.5
#: Seeds of levels of targets and of further folds: the same for every fit.
TARGETS_SEED, FOLDS_SEED = 11, 10


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


class LeftOutRows:
    """The rows of a fit in float64, and which of them are left out together.

    Parameters
    ----------
    rows : Rows
        Distinct samples.
    of_targets : bool, default=False
        Whether levels of the target, as isotherms of a table are, are left out, too.
    """

    def __init__(self, rows: Rows, of_targets: bool = False):
        self.rows = rows.to(torch.float64)
        self.root = self.rows.weight.sqrt()[:, None]
        self.y = self.rows.y * self.root
        self.within = self.rows.within.sum(0)
        self.count = self.rows.total_weight
        X, y = self.rows.X.cpu().numpy(), self.rows.y.cpu().numpy()
        self.sets = sets_to_leave_out(X, judging_generator(), neighbourhoods=False)
        self.n_folds = min(N_FOLDS, rows.n_rows)
        if of_targets:
            rng = np.random.default_rng(TARGETS_SEED)
            self.sets += sets_to_leave_out(y, rng, False, TARGET_LEVELS)[self.n_folds :]
        self.inside = are_inside(X)
        if rows.n_rows <= FEW_ROWS:
            rng = np.random.default_rng(FOLDS_SEED)
            for _ in range(N_DRAWS - 1):
                more = sets_to_leave_out(X, rng, neighbourhoods=False)[: self.n_folds]
                self.sets = more + self.sets
            self.n_folds *= N_DRAWS

    @property
    def on_levels(self) -> bool:
        """Whether some column, or the target, has levels."""
        return len(self.sets) > self.n_folds

    def left_out(self, makers: Makers) -> np.ndarray:
        """Errors (l, m) at left-out rows."""
        return left_out_errors(makers, self.rows, self.sets).error

    def pooled(self, error: np.ndarray) -> float:
        """Root mean square of the errors at left-out rows; levels count as much as folds.

        Of the folds, rows at the rim of several columns are not counted: they are extrapolated.
        """
        square = (np.clip(error, -MOST_ERROR, MOST_ERROR) ** 2).mean(1)
        square = np.nan_to_num(square, nan=MOST_ERROR**2, posinf=MOST_ERROR**2)
        group = np.repeat(np.arange(len(self.sets)), [len(part) for part in self.sets])
        in_folds = group < self.n_folds
        counted = in_folds & self.inside[np.concatenate(self.sets)]
        parts = [part for part in (square[counted], square[~in_folds]) if len(part)]
        return math.sqrt(sum(float(part.mean()) for part in parts))

    def gain_known(self, error: np.ndarray, other: np.ndarray) -> float:
        """Standard error of by how much less a model's mean square error is than another's.

        Parameters
        ----------
        error, other : ndarray of shape (l, m)
            Of the two at the same left-out rows. What they have in common is the noise e of the
            rows: of ``(e + d)^2 - e^2`` it moves ``2 e d``.
        """
        n = self.rows.n_rows
        moved = 2 * (error * (other - error)).mean(1)
        row = np.concatenate(self.sets)
        of_row = np.bincount(row, moved, n) / np.maximum(np.bincount(row, minlength=n), 1)
        return float(np.linalg.norm(of_row)) / n


def are_inside(X: np.ndarray) -> np.ndarray:
    """Whether each row (n,) is among its neighbours: in the convex hull of the nearest of them.

    All rows are where hardly any would be. So are those of one column: the rim is two rows, and
    what is steep at an end shows nowhere else.
    """
    n, d = X.shape
    if d == 1:
        return np.ones(n, dtype=bool)
    near = min(NEIGHBOURS_A_COLUMN * d, n - 1)
    nearest = cKDTree(X).query(X, near + 1)[1][:, 1:]
    offset = X[nearest] - X[:, None]
    offset /= np.abs(offset).max((1, 2), keepdims=True)
    ones = np.append(np.zeros(d), 1.0)
    left = [nnls(np.vstack([row.T, np.ones(near)]), ones)[1] for row in offset]
    inside = np.array(left) <= ON_RIM
    return inside if inside.mean() >= LEAST_INSIDE else np.ones(n, dtype=bool)
