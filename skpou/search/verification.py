"""Units that were searched for once more without some of the rows.

The errors that grown units leave at left-out rows by their linear model know the steps of a fit,
but not its search: with few noisy rows the units remember those that are left out. One unit in
31 rows of five columns left 0.35 of y's spread by them, and 1.4 at fresh rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from skpou.core import Rows
from skpou.core.linalg import NUMERICAL_FAILURES
from skpou.search.bases.units import UnitBasis
from skpou.search.candidates import Candidate
from skpou.search.levels import left_out_of_columns

#: Most rows for which a search is repeated: with more there is less to remember, and more to do.
MOST_ROWS = 600
#: Parts of the rows, each of which is left out once.
N_PARTS = 4
#: Error at left-out rows, in units of y, from which on it may be that of noise.
NOISY_ERROR = 1e-2
#: Rows after which a ratio of the squared errors is clear, and the ratio.
ENOUGH, CLEAR = 30, 1.5


class Verification:
    """Errors at rows that were left out of the search for the units, too.

    Parameters
    ----------
    search : callable
        Takes the rows to search with and the most units; returns the candidate.
    """

    def __init__(
        self, rows: Rows, search: Callable[[Rows, int], Candidate], rng: np.random.Generator
    ):
        self.rows, self.search = rows, search
        part = rng.permutation(rows.n_rows) % N_PARTS
        self.parts = [np.flatnonzero(part == k) for k in range(N_PARTS)]

    def is_due(self, candidate: Candidate) -> bool:
        """Whether rows are few and errors are large enough for units to remember them."""
        few = N_PARTS <= self.rows.n_rows <= MOST_ROWS
        grown = isinstance(candidate.stages[0].basis, UnitBasis)
        return few and grown and candidate.leave_one_out > NOISY_ERROR

    def confirms(self, units: Candidate, rival: Candidate) -> bool:
        """Whether as many units, found anew without each of the parts, err by less there.

        It ends before all parts are left out where the errors at enough rows are clear.
        """
        rows, total = self.rows, {"units": 0.0, "rival": 0.0}
        others = self._of_columns(rival)
        n_seen = 0
        for part in self.parts:
            rest = np.setdiff1d(np.arange(rows.n_rows), part)
            there, here = (torch.as_tensor(k, device=rows.X.device) for k in (rest, part))
            try:
                found = self.search(rows.subset(there), units.n_units)
            except NUMERICAL_FAILURES:
                return False
            test = rows.subset(here)
            square = (test.y - found.mean(test.X)).square().mean(1)
            total["units"] += float(test.weight @ square)
            total["rival"] += float(others[part].sum())
            n_seen += len(part)
            apart = (
                total["units"] > CLEAR * total["rival"] or total["rival"] > CLEAR * total["units"]
            )
            if n_seen >= ENOUGH and apart:
                break
        return total["units"] < total["rival"]

    def _of_columns(self, candidate: Candidate) -> np.ndarray:
        """Weighted squared errors (n,) without the same parts of coefficients of given columns.

        Splines with a knot at every row have none: their error without single rows stands for it.
        """
        weight = self.rows.weight.cpu().numpy()
        if any(stage.basis.follows_rows for stage in candidate.stages):
            return weight * candidate.leave_one_out**2
        try:
            found = left_out_of_columns(candidate, self.rows, self.parts)
        except NUMERICAL_FAILURES:
            return np.full(self.rows.n_rows, np.inf)
        square = np.empty(self.rows.n_rows)
        square[found.row] = (found.error**2).mean(1)
        return weight * square
