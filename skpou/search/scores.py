"""Judging linear models: log evidence, leave-one-out over distinct rows, calibration at probes.

Inside a family of bases the log evidence chooses; between families the calibrated score does.
Leave-one-out alone is blind in gaps between the rows, where it was fooled by two decades.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Basis, Rows
from skpou.core.linalg import (
    TINY,
    evenly,
    factored,
    gram_of,
    range_to_round_off,
    ridge_quadratics,
    row_blocks,
    triangular_factor,
)

#: Ridges relative to the largest singular value. Below round-off the singular values that it leaves
#: are what bounds the coefficients, which takes many more rows than columns.
RIDGES = tuple(10.0 ** (-17 + k / 2) for k in range(37))
#: Least ones where rows are fewer than so many times the columns, and of columns in blocks.
LEAST_RIDGE, LEAST_STREAMED_RIDGE, MANY_ROWS = 3e-16, 9e-16, 1.9
#: Ridge that inner products of the columns must exceed: squared it is then four decades above their
#: round-off. From so many columns on they are worth a try: a third of the time of a decomposition
#: of the columns themselves.
LEAST_SQUARED_RIDGE, SQUARED_COLUMNS = 1e-6, 200
#: Twice the log evidence by which a rougher or larger model must be better: "strong" evidence on
#: the scale of Kass and Raftery (1995).
MARGIN = 6.0
#: Ridge up to which errors of round-off in the solution are to be expected, and the part of the
#: residual that another ridge must leave.
LARGEST_DOUBTED, CLEARLY_LESS = 4e-16, 0.7
#: Probes between two rows of a line, and in all at least.
PROBES_A_ROW, FEWEST_PROBES = 4, 200
#: Standard deviations of white noise's correlation that it hardly exceeds.
DEVIATIONS = 3
#: Rows for each column from which on their triangular factor is decomposed in their place: from
#: about there on it takes less time.
LONG = 1.3
#: Corrections of the coefficients by what they leave over, for ridges below these.
CORRECTIONS = ((1e-14, 4), (1e-11, 1))
#: Largest leverage that leave-one-out divides by, and least part of a row that is its own where
#: that is known to its last digit: ridges below round-off, squared.
LARGEST_LEVERAGE, LEAST_FREE = 1 - 1e-10, 1e-40
#: Probes and neighbours are looked at for so many rows at most, and so many probes in all.
MOST_PROBED, MOST_PROBES = 1000, 4000
#: Neighbours' correlations are those of so many rows at most, and errors at left-out rows where the
#: columns are not kept.
MOST_CORRELATED = MOST_LOOKED = 10_000
#: Rows from which on neighbours tell of a correlation.
FEWEST_CORRELATED = 8


def probe_points(X: Tensor, rng: np.random.Generator) -> Tensor:
    """Points between the rows: where a model must be right without having been told.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Distinct rows in the unit box.
    rng : numpy.random.Generator
        Picks the rows if there are many.

    Returns
    -------
    Tensor of shape (k, d)
        An even grid in one dimension, midpoints to the d + 1 nearest neighbours otherwise.
    """
    n, d = X.shape
    if d == 1:
        count = min(max(PROBES_A_ROW * n, FEWEST_PROBES), MOST_PROBES)
        return torch.linspace(0, 1, count, dtype=X.dtype, device=X.device)[:, None]
    points = X.cpu().numpy()
    chosen, most = np.arange(n), min(MOST_PROBED, -(-MOST_PROBES // (d + 1)))
    if n > most:
        chosen = np.sort(rng.choice(n, most, replace=False))
    _, near = cKDTree(points).query(points[chosen], min(n, d + 2))
    near = near.reshape(len(chosen), -1)[:, 1:]
    middle = (points[chosen, None] + points[near]) / 2
    return torch.as_tensor(middle.reshape(-1, d), device="cpu").to(X)


def neighbour_correlation(X: Tensor, residual: Tensor) -> float:
    """Mean product of the residuals at nearest neighbours over their mean square; 0 is white."""
    if len(X) < FEWEST_CORRELATED or not X.shape[1]:
        return 0.0
    points, looked = X.cpu().numpy(), evenly(len(X), MOST_CORRELATED)
    near = cKDTree(points).query(points[looked], 2)[1][:, 1]
    some = residual[looked]
    square = some.square().mean()
    product = (some * residual[torch.as_tensor(near, device=X.device)]).mean()
    return float(product / square) if float(square) > 0 else 0.0


def white_correlation(n_rows: int) -> float:
    """Size of `neighbour_correlation` that white noise hardly exceeds."""
    return DEVIATIONS / math.sqrt(min(n_rows, MOST_CORRELATED))


def _corrections(alpha: float) -> int:
    return next((count for most, count in CORRECTIONS if alpha <= most), 0)


def _ridges_from(least: float) -> tuple[float, ...]:
    return tuple(ridge for ridge in RIDGES if ridge >= least)


def _of_squares(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values (p,), falling, and right singular vectors (p, p) by inner products (p, p)."""
    square, vectors = torch.linalg.eigh(gram)
    square = square.flip(0).clamp_min(torch.finfo(square.dtype).eps * float(square[-1]))
    return square.sqrt(), vectors.flip(1).T


class RidgePath:
    """All ridges of one weighted least-squares problem, from one singular value decomposition.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Columns.
    rows : Rows
        Targets, weights and sums of squares within the points.
    """

    #: Ridge that was asked for last, with what it leaves of every row.
    _last: tuple[float, Tensor, Tensor] | None = None

    def __init__(self, A: Tensor, rows: Rows):
        self.rows = rows
        self.root = rows.weight.sqrt()[:, None]
        self.A, self.y = A * self.root, rows.y * self.root
        self.total = rows.total_weight
        n, p = A.shape
        self.ridges = _ridges_from(0.0 if n > MANY_ROWS * p else LEAST_RIDGE)
        self._Q, inner = range_to_round_off(self.A), self.A
        if self._Q is not None:
            inner = self._Q.T @ self.A
        elif n > LONG * p:
            self._Q, inner = torch.linalg.qr(self.A)
        self._left, self.S, self.Vh = torch.linalg.svd(inner, full_matrices=False)
        self.S = self.S.clamp_min(torch.finfo(A.dtype).tiny)
        self.component, rest = self._split(self.y)
        # A second pass removes what round-off left of the columns in the rest.
        again, rest = self._split(rest)
        self.component = self.component + again
        self.rest = rest.square().sum(0) + rows.within.sum(0)

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Components along the left singular vectors, and what is orthogonal to all columns."""
        if self._Q is None:
            component = self._left.T @ y
            return component, y - self._left @ component
        inner = self._Q.T @ y
        return self._left.T @ inner, y - self._Q @ inner

    @cached_property
    def U(self) -> Tensor:
        """Left singular vectors (n, p)."""
        return self._left if self._Q is None else self._Q @ self._left

    def evidence(self) -> tuple[float, float]:
        """Ridge of largest log evidence, and twice its negative log evidence up to a constant.

        The noise is at its most probable value; several targets give the mean of theirs.
        """
        return self._likeliest(self._taken() @ self.component.square() + self.rest)

    def _taken(self) -> Tensor:
        """Share (k, p) of each component that the ridges take."""
        ridge2 = (self.S.new_tensor(self.ridges) * self.S[0]).square()[:, None]
        return ridge2 / (self.S.square() + ridge2)

    def _likeliest(self, misfit: Tensor) -> tuple[float, float]:
        """`evidence` by what the ridges leave of the targets (k, m), with their own size."""
        floor = torch.finfo(self.y.dtype).eps ** 2 * self.y.square().sum(0)
        score = self.total * ((misfit + floor) / self.total).clamp_min(TINY).log().mean(1)
        score = score - self._taken().log().sum(1)
        best = int(score.argmin())
        return self.ridges[best], float(score[best])

    def beyond_round_off(self, alpha: float) -> float:
        """The ridge, or a larger one below round-off with which the solution leaves clearly less.

        In exact arithmetic a larger ridge leaves more. The evidence does not see the errors of the
        solution itself, and leave-one-out errors of rows that are all but interpolated say nothing.
        """
        larger = [ridge for ridge in self.ridges if alpha < ridge <= LARGEST_DOUBTED]
        if not larger:
            return alpha
        left = [(float((self.y - self.A @ self.coef(r)).norm()), r) for r in (alpha, *larger)]
        least, ridge = min(left)
        return ridge if least < CLEARLY_LESS * left[0][0] else alpha

    def _filter(self, alpha: float) -> Tensor:
        """Share of each component that a ridge keeps."""
        square = self.S.square()
        return square / (square + (alpha * self.S[0]).square())

    def dof(self, alpha: float) -> float:
        """Trace of the hat matrix."""
        return float(self._filter(alpha).sum())

    def coef(self, alpha: float) -> Tensor:
        """Coefficients (p, m)."""
        inverse = self.S / (self.S.square() + (alpha * self.S[0]).square())
        coef = self.Vh.T @ (inverse[:, None] * self.component)
        for _ in range(_corrections(alpha)):
            correction = self.U.T @ (self.y - self.A @ coef)
            coef = coef + self.Vh.T @ (inverse[:, None] * correction)
        return coef

    def _lost(self, alpha: float) -> Tensor | None:
        """Share of each component that a ridge takes, where the columns reach every target.

        Residual and leverage are then known in digits of their own: differences would be round-off.
        """
        if self._Q is not None or self._left.shape[1] < len(self._left):
            return None
        ridge2 = (alpha * self.S[0]).square()
        return ridge2 / (self.S.square() + ridge2)

    def residual(self, alpha: float) -> Tensor:
        """Weighted residual (n, m)."""
        lost = self._lost(alpha)
        if lost is not None:
            return self.U @ (lost[:, None] * self.component)
        return self.y - self.U @ (self._filter(alpha)[:, None] * self.component)

    def free(self, alpha: float) -> Tensor:
        """Part (n,) of each row that is its own: 1 less the diagonal of the hat matrix."""
        lost = self._lost(alpha)
        if lost is not None:
            return (self.U.square() @ lost).clamp_min(LEAST_FREE)
        leverage = self.U.square() @ self._filter(alpha)
        return 1 - leverage.clamp_max(LARGEST_LEVERAGE)

    def leave_one_out(self, alpha: float) -> float:
        """Root mean square error at each distinct row when all its weight is left out."""
        residual, free = self._left_at(alpha)
        return math.sqrt(self._mean((residual / free[:, None]).square()))

    def spread(self, alpha: float) -> float:
        """Mean square of leave-one-out errors in units of their predicted variances."""
        residual, free = self._left_at(alpha)
        return self._mean(residual.square() / free[:, None])

    def _left_at(self, alpha: float) -> tuple[Tensor, Tensor]:
        """`residual` and `free`, kept for the ridge that was asked for last."""
        known = self._last  # Other threads may put theirs here.
        if known is None or known[0] != alpha:
            known = self._last = alpha, self.residual(alpha), self.free(alpha)
        return known[1:]

    def _mean(self, square: Tensor) -> float:
        """Mean of weighted squares at the rows, with what repeated rows differ by."""
        return float((square.sum(0) + self.rows.within.sum(0)).mean()) / self.total

    def probed(self, alpha: float, columns: Tensor) -> float:
        """Mean variance of the prediction at probes, in units of the noise."""
        along, ridge2 = columns @ self.Vh.T, (alpha * self.S[0]).square()
        variance = (along.square() / (self.S.square() + ridge2)).sum(1)
        if len(self.S) < columns.shape[1]:
            # Directions that no row has keep their prior.
            rest = (columns - along @ self.Vh).square().sum(1)
            variance = variance + rest / ridge2.clamp_min(torch.finfo(rest.dtype).tiny)
        return float(variance.mean())

    def factor(self, alpha: float) -> Tensor:
        """Triangular factor (p, p) of the columns with the ridge below: for the posterior."""
        eps = torch.finfo(self.S.dtype).eps
        # The singular values that round-off leaves are no information.
        size = (self.S.square() + (max(alpha, eps) * self.S[0]).square()).sqrt()
        p = self.Vh.shape[1]
        if len(self.S) == p:
            return triangular_factor(size[:, None] * self.Vh)
        eye = torch.eye(p, dtype=self.Vh.dtype, device=self.Vh.device)
        ridge = max(alpha, eps) * self.S[0] * eye
        return triangular_factor(torch.cat([self.S[:, None] * self.Vh, ridge]))


class SquaredRidgePath(RidgePath):
    """`RidgePath` by the inner products of the columns, with half of the digits.

    Enough for ridges above `LEAST_SQUARED_RIDGE`, which are the only ones that it offers. What
    tells the evidence of all takes no eigenvectors, and that of one is a Cholesky factor.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Columns, no more than rows.
    rows : Rows
        Targets, weights and sums of squares within the points.
    """

    #: Ridge that was asked for last, with its factor.
    _factored: tuple[float, Tensor] | None = None

    def __init__(self, A: Tensor, rows: Rows):
        self.rows = rows
        self.root = rows.weight.sqrt()[:, None]
        self.A, self.y = A * self.root, rows.y * self.root
        self.total = rows.total_weight
        self.ridges = _ridges_from(LEAST_SQUARED_RIDGE)
        self.gram, self.moment = gram_of(self.A), self.A.T @ self.y
        values, self.explained = ridge_quadratics(self.gram, self.moment, self.ridges)
        self.S = values.sqrt()

    def evidence(self) -> tuple[float, float]:
        """See `RidgePath.evidence`."""
        square = self.y.square().sum(0)
        misfit = (square - self.explained).clamp_min(0) + self.rows.within.sum(0)
        return self._likeliest(misfit)

    def factor(self, alpha: float) -> Tensor:
        """See `RidgePath.factor`."""
        known = self._factored  # Other threads may put theirs here.
        if known is None or known[0] != alpha:
            lower, _ = factored(self.gram, (alpha * float(self.S[0])) ** 2)
            known = self._factored = alpha, lower.mT.contiguous()
        return known[1]

    def _solved(self, alpha: float, columns: Tensor) -> Tensor:
        """Columns (k, p), times the inverse of the factor."""
        return torch.linalg.solve_triangular(self.factor(alpha), columns, upper=True, left=False)

    def coef(self, alpha: float) -> Tensor:
        """Coefficients (p, m)."""
        return torch.cholesky_solve(self.moment, self.factor(alpha), upper=True)

    def residual(self, alpha: float) -> Tensor:
        """Weighted residual (n, m)."""
        return self.y - self.A @ self.coef(alpha)

    def free(self, alpha: float) -> Tensor:
        """Part (n,) of each row that is its own."""
        leverage = self._solved(alpha, self.A).square().sum(1)
        return 1 - leverage.clamp_max(LARGEST_LEVERAGE)

    def probed(self, alpha: float, columns: Tensor) -> float:
        """Mean variance of the prediction at probes, in units of the noise."""
        return float(self._solved(alpha, columns).square().sum(1).mean())


def evident_path(A: Tensor, rows: Rows, noisy: bool) -> tuple[RidgePath, float, float]:
    """All ridges of a problem, with the one of largest evidence and its score.

    Parameters
    ----------
    A : Tensor of shape (n, p)
        Columns.
    noisy : bool
        Whether a ridge far above round-off is to be expected: then inner products are tried first.
    """
    n, p = A.shape
    if noisy and SQUARED_COLUMNS <= p <= n:
        path: RidgePath = SquaredRidgePath(A, rows)
        alpha, score = path.evidence()
        if alpha > min(path.ridges):
            return path, alpha, score
    path = RidgePath(A, rows)
    return path, *path.evidence()


class StreamedRidgePath(RidgePath):
    """`RidgePath` of many rows, whose columns are evaluated block by block and never kept.

    Parameters
    ----------
    squared : bool, default=False
        Decompose the matrix of inner products, which takes a fraction of the time, and has half of
        the digits: enough where noise asks for a ridge far above its round-off.
    """

    def __init__(self, basis: Basis, rows: Rows, batch_size: int, squared: bool = False):
        self.rows, self.basis, self.squared = rows, basis, squared
        self.total = rows.total_weight
        self.root = rows.weight.sqrt()[:, None]
        self.y = rows.y * self.root
        # Corrections by inner products need a ridge above round-off.
        self.ridges = _ridges_from(LEAST_STREAMED_RIDGE)
        self.blocks = row_blocks(rows.n_rows, batch_size)
        self.step = -(-rows.n_rows // MOST_LOOKED)
        (self._decompose_squares if squared else self._decompose)(basis.n_columns)

    def _decompose(self, p: int) -> None:
        """Singular values by a triangular factor that is updated block by block."""
        factor = self.y.new_zeros((0, p + self.y.shape[1]))
        for block in self.blocks:
            part = torch.cat([self._columns(block), self.y[block]], 1)
            factor = triangular_factor(torch.cat([factor, part]))
        left, self.S, self.Vh = torch.linalg.svd(factor[:p, :p], full_matrices=False)
        self.S = self.S.clamp_min(torch.finfo(left.dtype).tiny)
        self.component = left.T @ factor[:p, p:]
        self.rest = factor[p:, p:].square().sum(0) + self.rows.within.sum(0)

    def _decompose_squares(self, p: int) -> None:
        """Singular values as roots of eigenvalues."""
        gram, product = self.y.new_zeros((p, p)), self.y.new_zeros((p, self.y.shape[1]))
        for block in self.blocks:
            A = self._columns(block)
            gram += A.T @ A
            product += A.T @ self.y[block]
        self.S, self.Vh = _of_squares(gram)
        self.component = (self.Vh @ product) / self.S[:, None]
        rest = self.y.square().sum(0) - self.component.square().sum(0)
        self.rest = rest.clamp_min(0) + self.rows.within.sum(0)

    def _columns(self, block: slice) -> Tensor:
        return self.basis.matrix(self.rows.X[block]) * self.root[block]

    def coef(self, alpha: float) -> Tensor:
        """Coefficients, unless squared corrected by the residual of all rows."""
        square = self.S.square() + (alpha * self.S[0]).square()
        coef = self.Vh.T @ ((self.S / square)[:, None] * self.component)
        if self.squared:
            return coef
        for _ in range(max(_corrections(alpha), 1)):
            gradient = -((alpha * self.S[0]).square()) * coef
            for block in self.blocks:
                A = self._columns(block)
                gradient = gradient + A.T @ (self.y[block] - A @ coef)
            coef = coef + self.Vh.T @ ((self.Vh @ gradient) / square[:, None])
        return coef

    def _left_at(self, alpha: float) -> tuple[Tensor, Tensor]:
        """Weighted residual and `free` of the rows that are looked at."""
        known = self._last
        if known is None or known[0] != alpha:
            size = (self.S.square() + (alpha * self.S[0]).square()).sqrt()
            inverse, coef = self.Vh.T / size, self.coef(alpha)
            residuals, leverages = [], []
            for whole in self.blocks:
                A = self._columns(block := slice(whole.start, whole.stop, self.step))
                residuals.append(self.y[block] - A @ coef)
                leverages.append((A @ inverse).square().sum(1))
            own = torch.cat(leverages).clamp_max(LARGEST_LEVERAGE)
            known = self._last = alpha, torch.cat(residuals), 1 - own
        return known[1:]

    def residual(self, alpha: float) -> Tensor:
        """Weighted residual of the rows that are looked at."""
        return self._left_at(alpha)[0]

    def free(self, alpha: float) -> Tensor:
        """The same part of the rows that are looked at."""
        return self._left_at(alpha)[1]

    def _mean(self, square: Tensor) -> float:
        looked = torch.cat([self.root[b.start : b.stop : self.step] for b in self.blocks])
        share = self.total / float(looked.square().sum())
        return float((share * square.sum(0) + self.rows.within.sum(0)).mean()) / self.total
