"""Linear models whose groups of columns are shrunk by evidence.

Columns of a group share one prior variance. The variances and that of the noise are those of
largest evidence, by the fixed point of MacKay (1992), "Bayesian interpolation". Variances of
groups of one kind lean on each other: few columns tell little about their own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dtpqrt, dtrtri
from torch import Tensor

from skpou.core.linalg.cholesky import gram_of
from skpou.core.linalg.statistics import row_blocks, triangular_factor

#: Prior variance below which a group is as good as absent.
LEAST_VARIANCE = 1e-14
#: Diagonal of a Cholesky factor beyond which an orthogonal one takes its place.
ILL_CONDITIONED = 1e6
#: Rows with more than this leverage on themselves count as if they had no more, in every room: what
#: they leave is then a hundredth of what they would without themselves, and says little.
LARGEST_LEVERAGE = 0.99
#: Share of the rows that is free to tell the noise, below which it stays as it is: with as many
#: columns as rows the evidence no longer depends on it, and left-out errors keep digits so.
LEAST_FREE = 1e-6
#: Least number of columns that data determine of a kind: it is divided by.
NONE_DETERMINED = 1e-9
#: Rows a block of the Gram matrix.
BLOCK = 20_000
#: Iterations after which a fit that is behind is given up, and how many times its last change the
#: evidence may still rise: each change is about half of the one before, the slowest take longer.
EARLY, MORE = 3, 5.0
#: Noise variance at which round-off alone moves the evidence, for targets of unit rms.
ROUND_OFF = 1e-26
#: Noise variance below which the Gram matrix has lost the last digits of what is left over.
LOST_DIGITS = 1e-5
#: Columns that an orthogonal factorization eliminates together.
PANEL = 32
#: Rows from which a product with a triangular matrix leaves its zeros out: fewer take no time.
MANY_ROWS = 1000
#: Columns for each row from which on the iterations are in the span of the rows.
FEW_ROWS = 2
#: Kinds of groups: the constant is never shrunk further.
CONSTANT = 0
#: First step that may be the last: the variances of before come from nowhere.
FIRST_LAST = 4


@dataclass(frozen=True)
class Groups:
    """Which columns share a prior variance.

    Attributes
    ----------
    index : Tensor of shape (p,), int64
        Group of each column; the constant is group 0.
    shape : Tensor of shape (p,)
        Prior variance of each column relative to its group's.
    kind : Tensor of shape (G,), int64
        Kind of each group; 0 is the constant.
    """

    index: Tensor
    shape: Tensor
    kind: Tensor


@dataclass(frozen=True)
class EvidenceFit:
    """Posterior of the coefficients at the variances found.

    Attributes
    ----------
    coef : Tensor of shape (p,)
    alpha : Tensor of shape (G,)
        Prior variance of each group.
    dof : Tensor of shape (G,)
        Effective degrees of freedom of each group.
    log_evidence : float
        Up to a constant.
    fitted : Tensor of shape (n,)
        Values at the rows.
    weight : Tensor of shape (n,)
        Of the rows.
    converged : bool
        Whether the evidence had stopped to rise.
    make_root, make_spread : callable
        Compute `root` and `spread`, which not every fit is asked for.
    """

    coef: Tensor
    alpha: Tensor
    noise: float
    dof: Tensor
    log_evidence: float
    fitted: Tensor
    weight: Tensor
    n_iter: int
    converged: bool
    make_root: Callable[[], Tensor]
    make_spread: Callable[[], Tensor]

    @functools.cached_property
    def root(self) -> Tensor:
        """The coefficients' posterior covariance is ``root @ root.T``, (p, p)."""
        return self.make_root()

    @functools.cached_property
    def spread(self) -> Tensor:
        """Posterior variance (n,) of the values over that of the noise."""
        return self.make_spread()

    @functools.cached_property
    def leverage(self) -> Tensor:
        """Derivative (n,) of each row's value with respect to its own target."""
        return (self.weight * self.spread).clamp_max(LARGEST_LEVERAGE)

    def with_spread(self) -> EvidenceFit:
        """The same, which no longer needs the columns at the rows."""
        return replace(self, make_spread=functools.partial(_same, self.spread))

    @property
    def total_dof(self) -> float:
        """Effective degrees of freedom of all columns."""
        return float(self.dof.sum())

    def left_out(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Errors (n,) of predictions without the row, and their variance over the noise's."""
        free = 1 - self.leverage
        return (y - self.fitted) / free, self.spread / free

    def left_out_density(self, y: Tensor, weight: Tensor) -> float:
        """Sum of the Gaussian log densities of rows that were left out."""
        error, spread = self.left_out(y)
        variance = self.noise * (1 + spread)
        terms = torch.log(2 * math.pi * variance) + error.square() / variance
        return -0.5 * float((weight * terms).sum())


class _Posterior(NamedTuple):
    """Of whitened coefficients, at given variances.

    Attributes
    ----------
    mean : Tensor of shape (p,)
    log_det : float
        Half the log determinant of the inverse covariance.
    told : Tensor of shape (p,)
        Share of each coefficient's prior variance that the rows take away.
    inverse : Tensor of shape (p, p) or (0, 0)
        ``inverse.T @ inverse`` is the covariance; empty where it was not needed.
    lower : Tensor of shape (n, n) or (0, 0)
        Factor of the whitened targets' covariance, where `inverse` is empty.
    """

    mean: Tensor
    log_det: float
    told: Tensor
    inverse: Tensor
    lower: Tensor


#: What `EvidenceProblem` keeps of its rows, whatever the groups.
_SUMS = ("gram", "moment", "square")


class EvidenceProblem:
    """Weighted rows ``y = F c + noise`` with shrunken groups of columns.

    Parameters
    ----------
    F : Tensor of shape (n, p)
        Columns, float64.
    y : Tensor of shape (n,)
        Targets of about unit rms.
    weight : Tensor of shape (n,)
        Positive weights.
    within : float
        Weighted sum of squares of repeated targets about their means `y`.
    groups : Groups
        Which columns share a prior variance.
    total : float, default=None
        Number of observations; None: the sum of the weights.
    """

    def __init__(
        self,
        F: Tensor,
        y: Tensor,
        weight: Tensor,
        within: float,
        groups: Groups,
        total: float | None = None,
    ):
        self.F, self.y, self.weight, self.within, self.groups = F, y, weight, within, groups
        self.total = float(weight.sum()) if total is None else total
        self.n_groups, self._n_kinds = len(groups.kind), int(groups.kind.max()) + 1

    @functools.cached_property
    def gram(self) -> Tensor:
        """Weighted products (p, p) of the columns."""
        total = self.F.new_zeros((self.F.shape[1],) * 2)
        for block in row_blocks(len(self.F), BLOCK):
            total += gram_of(self.weight[block, None].sqrt() * self.F[block])
        return total

    @functools.cached_property
    def moment(self) -> Tensor:
        """Weighted products (p,) with the targets."""
        return self.F.T @ (self.weight * self.y)

    def fit(
        self,
        alpha: Tensor,
        noise: float,
        max_iter: int,
        enough: float,
        pseudo: float = 0.2,
        rival: float = -math.inf,
    ) -> EvidenceFit:
        """Iterate from given variances.

        Parameters
        ----------
        alpha : Tensor of shape (G,)
            Prior variances to start from.
        noise : float
            Variance of the noise to start from.
        max_iter : int
            Most iterations, at least 1.
        enough : float
            Change of the log evidence at which to stop.
        pseudo : float, default=0.2
            Columns' worth of the mean over groups of a kind in each group's variance.
        rival : float, default=-inf
            Log evidence that ends the iterations where it is out of reach.
        """
        last, converged = -math.inf, False
        for step in range(1, max_iter + 1):
            prior = alpha[self.groups.index] * self.groups.shape
            width = prior.sqrt()
            posterior = self._posterior(width, noise)
            z = posterior.mean
            coef = width * z
            rss = self.within + self._square_of_rest(coef, noise)
            rss = max(rss, self.total * torch.finfo(self.F.dtype).eps ** 2)
            evidence = -0.5 * (self.total * math.log(noise) + rss / noise + float(z @ z))
            evidence -= posterior.log_det
            dof = self._by_group(posterior.told)
            free = self.total - float(dof.sum())
            told = free > LEAST_FREE * self.total
            still = abs(evidence - last) < enough or noise < ROUND_OFF or not told
            converged = step >= FIRST_LAST and still
            behind = step > EARLY and evidence + MORE * abs(evidence - last) < rival
            if converged or behind or step == max_iter:
                break
            last = evidence
            alpha = self._prior_variances(alpha, self._by_group(z.square()) * alpha, dof, pseudo)
            noise = rss / free if told else noise
        fitted = self.F @ coef
        if posterior.lower.numel():
            make_spread = functools.partial(_spread_of_rows, posterior.lower, self.weight)
            make_root: Callable[[], Tensor] = functools.partial(self._root, width, noise)
        else:
            root = (posterior.inverse * width).T.contiguous()
            make_spread = functools.partial(_spread, self.F, root, noise)
            make_root = root.contiguous
        return EvidenceFit(
            coef, alpha, noise, dof, evidence, fitted, self.weight, step, converged, make_root,
            make_spread,
        )  # fmt: skip

    def with_groups(self, groups: Groups) -> EvidenceProblem:
        """The same rows and columns, these in other groups."""
        other = EvidenceProblem(self.F, self.y, self.weight, self.within, groups, self.total)
        known = {name: self.__dict__[name] for name in _SUMS if name in self.__dict__}
        other.__dict__.update(known)
        return other

    @functools.cached_property
    def square(self) -> Tensor:
        """Weighted square sum of the targets."""
        return self.weight @ self.y.square()

    def _square_of_rest(self, coef: Tensor, noise: float) -> float:
        """Weighted square sum of what coefficients leave over, by sums where these have digits."""
        if noise > LOST_DIGITS and "gram" in self.__dict__ and len(self.F) > len(coef):
            return float(self.square + coef @ (self.gram @ coef - 2 * self.moment))
        return float(self.weight @ (self.y - self.F @ coef).square())

    def _root(self, width: Tensor, noise: float) -> Tensor:
        """Root (p, p) of the coefficients' covariance."""
        return (self._of_columns(width, noise).inverse * width).T.contiguous()

    def _by_group(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.n_groups).index_add_(0, self.groups.index, values)

    def _prior_variances(self, alpha: Tensor, square: Tensor, dof: Tensor, pseudo: float) -> Tensor:
        """MacKay's step ``sum c^2 / dof``, shrunk to the mean over groups of the same kind."""
        kind = self.groups.kind
        of_kinds = square.new_zeros((self._n_kinds, 2))
        of_kinds.index_add_(0, kind, torch.stack([square, dof], 1))
        pooled = of_kinds[:, 0] / of_kinds[:, 1].clamp_min(NONE_DETERMINED)
        new = (square + pseudo * pooled[kind]) / (dof + pseudo)
        return torch.where(kind == CONSTANT, alpha, new).clamp_min(LEAST_VARIANCE)

    def _posterior(self, width: Tensor, noise: float) -> _Posterior:
        n, p = self.F.shape
        return self._of_rows(width, noise) if FEW_ROWS * n <= p else self._of_columns(width, noise)

    def _of_columns(self, width: Tensor, noise: float) -> _Posterior:
        """By a Cholesky factor of the coefficients' inverse covariance."""
        A = width[:, None] * self.gram * (width / noise)
        A.diagonal().add_(1.0)
        L, failed = torch.linalg.cholesky_ex(A)
        largest = float(L.diagonal().max())
        if int(failed) or not largest < ILL_CONDITIONED:
            return self._orthogonal(width, noise)
        inverse = lower_inverse(L)
        z = inverse.T @ (inverse @ (width * self.moment)) / noise
        if noise < LOST_DIGITS:
            # One step of refinement from the data: the Gram matrix has lost their last digits.
            residual = self.weight * (self.y - self.F @ (width * z))
            z = z + inverse.T @ (inverse @ (width * (self.F.T @ residual) / noise - z))
        log_det = float(L.diagonal().log().sum())
        return _Posterior(z, log_det, 1 - inverse.square().sum(0), inverse, _none(z))

    def _of_rows(self, width: Tensor, noise: float) -> _Posterior:
        """The same by the covariance of the targets, of which there are few.

        With ``G = (W / noise)^1/2 F D`` the whitened coefficients' covariance is
        ``I - G' K^-1 G``, ``K = I + G G'``.
        """
        root = (self.weight / noise).sqrt()
        G, target = root[:, None] * self.F * width, root * self.y
        K = gram_of(G.T)
        K.diagonal().add_(1.0)
        L, failed = torch.linalg.cholesky_ex(K)
        if int(failed) or not float(L.diagonal().max()) < ILL_CONDITIONED:
            return self._orthogonal(width, noise)
        solved = torch.linalg.solve_triangular(L, torch.cat([G, target[:, None]], 1), upper=False)
        V = solved[:, :-1]
        z = V.T @ solved[:, -1]
        if noise < LOST_DIGITS:
            # One step of refinement, as with the columns
            missing = G.T @ (target - G @ z) - z
            z = z + missing - V.T @ (V @ missing)
        log_det = float(L.diagonal().log().sum())
        return _Posterior(z, log_det, V.square().sum(0), _none(z), L)

    def _orthogonal(self, width: Tensor, noise: float) -> _Posterior:
        """The same from a QR factorization of the rows: half the digits are not lost."""
        p = len(width)
        root = (self.weight / noise).sqrt()
        G, target = root[:, None] * self.F * width, root * self.y
        R = _factor_below_identity(torch.cat([G, target[:, None]], 1))[:p]
        signs = torch.where(R.diagonal() < 0, -1.0, 1.0)
        R, projected = signs[:, None] * R[:, :p], signs * R[:, p]
        inverse = lower_inverse(R.T)
        z = inverse.T @ projected
        z = z + inverse.T @ (inverse @ (G.T @ (target - G @ z) - z))
        log_det = float(R.diagonal().abs().log().sum())
        return _Posterior(z, log_det, 1 - inverse.square().sum(0), inverse, _none(z))


def _factor_below_identity(J: Tensor) -> Tensor:
    """Triangular factor (p, p) of ``[I; J]`` for J (n, p), the last column of I being zero.

    LAPACK leaves the zeros of I out where it has J in memory: half of the time.
    """
    eye = torch.eye(J.shape[1], dtype=J.dtype, device=J.device)
    eye[-1, -1] = 0.0
    if J.device.type == "cpu" and J.dtype == torch.float64:
        return torch.from_numpy(dtpqrt(0, min(PANEL, len(eye)), eye.numpy(), J.numpy())[0])
    return triangular_factor(torch.cat([eye, J]))


def _spread(F: Tensor, root: Tensor, noise: float) -> Tensor:
    parts = [times_upper(F[block], root).square_().sum(1) for block in row_blocks(len(F), BLOCK)]
    return torch.cat(parts).div_(noise)


def _spread_of_rows(lower: Tensor, weight: Tensor) -> Tensor:
    return (1 - lower_inverse(lower).square().sum(0)).clamp_min(0) / weight


def _same(values: Tensor) -> Tensor:
    return values


def _none(like: Tensor) -> Tensor:
    return like.new_zeros((0, 0))


def times_upper(F: Tensor, R: Tensor) -> Tensor:
    """Product (n, p) of columns F (n, p) and an upper triangular matrix.

    BLAS leaves its zeros out where it has both in memory: half the time of many rows. Their last
    digits may differ from those of few.
    """
    in_memory = all(
        part.device.type == "cpu" and part.dtype == torch.float64 and not part.requires_grad
        for part in (F, R)
    )
    if len(F) < MANY_ROWS or not in_memory:
        return F @ R
    return torch.from_numpy(dtrmm(1.0, R.numpy().T, F.numpy().T, lower=1)).T


def lower_inverse(L: Tensor) -> Tensor:
    """Inverse of a lower triangular matrix, by LAPACK where that has it in memory."""
    if L.device.type == "cpu" and L.dtype == torch.float64:
        return torch.from_numpy(dtrtri(L.numpy(), lower=1)[0]).tril_()
    eye = torch.eye(len(L), dtype=L.dtype, device=L.device)
    return torch.linalg.solve_triangular(L, eye, upper=False)
