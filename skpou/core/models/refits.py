"""Left-out errors of an exact fit with a prior, by fits without each set of rows.

By ``I - H`` such errors are lost to round-off, and a noise that is large enough for it to tell them
makes another fit: without one of nine lines it was seen to err a hundred times as much.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skpou.core import Rows, all_but
from skpou.core.linalg import triangular_factor
from skpou.core.models.cross_validation import N_FOLDS, LeftOut, levels_of_columns
from skpou.core.models.power_function import ROUND_OFF_VARIANCE

#: Most rows times squares of columns, so that some twenty fits take about a second.
MOST_WORK = 5e7


class Refits:
    """Fits without rows, of one ridge.

    Parameters
    ----------
    columns : Tensor of shape (n, q)
        Weighted columns, each times its coefficient's prior over the noise.
    """

    def __init__(self, columns: Tensor):
        self.columns = columns

    @classmethod
    def tell(cls, columns: Tensor, X: Tensor) -> bool:
        """Whether errors without rows of X (n, d) are those of the fit between them, and cheap.

        They are where rows lie on levels, and these as far from each other as any point between
        two of them is from both: parameters that were found with all rows remember other sets. On
        a full grid no row is between the levels of two columns.
        """
        if len(columns) * columns.shape[1] ** 2 > MOST_WORK:
            return False
        of_columns = levels_of_columns(X.cpu().numpy())
        return 0 < len(of_columns) < X.shape[1] and all(are_even(levels) for levels in of_columns)

    def of_target(self, target: int) -> Refits:
        """The same: it does not depend on the targets."""
        return self

    def left_out_errors(self, rows: Rows, sets: list[np.ndarray]) -> LeftOut:
        """Errors of one target or several at sets of rows."""
        n, q = self.columns.shape
        root = rows.weight.sqrt()[:, None]
        stacked = torch.cat([self.columns, rows.y * root], 1)
        ridge = torch.eye(q, stacked.shape[1], dtype=stacked.dtype, device=stacked.device)
        whole = triangular_factor(torch.cat([stacked, ridge]))
        degrees = max(n - float(_reduced(whole, self.columns).square().sum()), 1.0)
        left = whole[q:, q:].square().sum(0) + rows.within.sum(0)
        # Residual and prior together: what the evidence takes for noise, of all rows.
        noise = left / rows.total_weight + ROUND_OFF_VARIANCE
        errors, noises, variances, counts = [], [], [], []
        for part in sets:
            index = torch.as_tensor(part, device=stacked.device)
            factor = triangular_factor(torch.cat([stacked[all_but(n, index)], ridge]))
            own = _reduced(factor, self.columns[index])
            coef = torch.linalg.solve_triangular(factor[:q, :q], factor[:q, q:], upper=True)
            errors.append((stacked[index, q:] - self.columns[index] @ coef) / root[index])
            spread = 1 + own.square().sum(1, keepdim=True)
            noises.append(noise / root[index].square())
            variances.append(spread * noises[-1])
            scaled = own / spread.sqrt()
            correlation = scaled @ scaled.T
            correlation.diagonal().fill_(1)
            counts.append(len(part) ** 2 / float(correlation.square().sum()))
        error, variance, noise_left = (
            torch.cat(parts).cpu().numpy() for parts in (errors, variances, noises)
        )
        return LeftOut(
            sets,
            min(N_FOLDS, rows.n_rows),
            error,
            variance,
            noise_left,
            np.array(counts),
            told=np.ones(len(sets), dtype=bool),
            degrees=degrees,
            refitted=True,
        )


def are_even(levels: np.ndarray) -> bool:
    """Whether inner ones, left out, are as far from the others as the middle of any gap is."""
    gap = np.diff(levels)
    return len(gap) > 1 and gap.max() <= 2 * float(np.median(np.minimum(gap[1:], gap[:-1])))


def _reduced(factor: Tensor, columns: Tensor) -> Tensor:
    """Columns (l, q) times the inverse of the square part of a factor."""
    q = columns.shape[1]
    return torch.linalg.solve_triangular(factor[:q, :q], columns, upper=True, left=False)
