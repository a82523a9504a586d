"""Multinomial logistic regression on many sparse columns."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from skpou.core.optim import MultinomialRidge
from skpou.sparse_grids.solvers.ridge import IterativeProblem
from skpou.sparse_grids.solvers.rows import GridRows

#: Least curvature of a row that a preconditioner knows.
LEAST_CURVATURE = 1e-12


class GridMultinomialRidge(MultinomialRidge):
    """`MultinomialRidge` whose Newton directions are preconditioned by `IterativeProblem`.

    Parameters
    ----------
    rows : GridRows
        Weighted rows ``sqrt(w_n) phi_n``.
    targets, offset, costs : Tensor
        See `MultinomialRidge`.
    n_exact : int
        Columns on which the preconditioner is exact.
    """

    rows: GridRows
    #: Sparse columns are many: their preconditioner serves all steps.
    cheap_work = 0.0

    def __init__(
        self, rows: GridRows, targets: Tensor, offset: Tensor, costs: Tensor, n_exact: int
    ):
        super().__init__(rows, targets, offset, costs)
        self.n_exact = n_exact

    def preconditioner(self, pi: Tensor, alpha: float, decay: float) -> Callable[[Tensor], Tensor]:
        """Approximate inverse of the Hessian, the same for all classes.

        The Hessian at a row, ``diag(pi) - pi pi'``, is replaced by its trace over K - 1 times the
        identity; for two classes they agree on all directions that add up to zero.
        """
        curvature = (pi * (1 - pi)).sum(1) / max(pi.shape[1] - 1, 1)
        rows = self.rows.weighted(curvature.clamp_min(LEAST_CURVATURE)).made_dense()
        block = IterativeProblem(rows, self.targets, self.costs, self.n_exact)
        return block.preconditioner(alpha * self.scale / block.scale, decay)
