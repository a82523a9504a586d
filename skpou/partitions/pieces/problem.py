"""Pieces of the data, and the least-squares problem of a polynomial on each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows, count_columns
from skpou.core.linalg import (
    coefficients,
    row_blocks,
    rows_within,
    split_factor,
    triangular_factors,
)
from skpou.partitions.pieces.spaces import POLYNOMIAL, space_basis

#: Share of the samples up to which fits of changed pieces alone take less than those of all.
MOST_AGAIN = 0.75
#: Relative residual that counts as round-off, in units of the machine epsilon.
ROUND_OFF = 450.0
#: In units of the floor: the least error that scores tell apart, and the largest that may still be
#: that of an exact fit, since round-off of a piece grows where it is continued to other samples.
TOLD_APART, STILL_EXACT = 3, 10
#: The floor over the least noise: no fit leaves less than a tenth of it.
FLOOR_TO_NOISE = 10
#: Samples over the number of columns of a piece that is kept: they tell its error.
SPARE_OF_KEPT = 3
#: Quantiles of a coordinate between which samples count as even: a sixteenth of them each.
N_KNOTS = 17
#: Neighbours of a sample, for each column and beside: both sides of an interface are among them.
NEAR_A_COLUMN, NEAR_BESIDE = 2, 7
#: Numbers that are held for each sample and candidate: errors, residuals and logarithms of them.
NUMBERS_A_CANDIDATE = 8
#: Models for each candidate up to which the residuals of all are computed by one product.
DENSE = 4
#: Standard deviations of white noise's correlation that it does not exceed.
WHITE = 4
#: Share of the plain coordinate in the ranks of a column.
PLAIN_SHARE = 0.1


def price_of_parameter(n: float) -> float:
    """Price of a parameter of a fit to n rows in twice the log likelihood (Schwarz): log n.

    A single row is as two: no parameter is free.
    """
    return math.log(max(n, 2.0))


@dataclass(frozen=True)
class Pieces:
    """Labels of the samples and the polynomial of each label.

    Attributes
    ----------
    labels : Tensor of shape (n,), int64
        Piece of each sample, 0 .. K-1.
    factors : Tensor of shape (K, P + m, P + m)
        Triangular factor of each piece's weighted polynomials and targets.
    coef : Tensor of shape (K, P, m)
        Polynomial coefficients.
    rss : Tensor of shape (K,)
        Residual sum of squares with what repeated points add, averaged over the m targets.
    error : Tensor of shape (K,)
        Root of rss over the degrees of freedom.
    count : Tensor of shape (K,), int64
        Number of distinct samples.
    weight : Tensor of shape (K,)
        Sum of weights.
    """

    labels: Tensor
    factors: Tensor
    coef: Tensor
    rss: Tensor
    error: Tensor
    count: Tensor
    weight: Tensor

    @property
    def n_pieces(self) -> int:
        """Number K of pieces."""
        return len(self.coef)


class PieceProblem:
    """The samples, their polynomials and their neighbours: what every step of discovery reads.

    Parameters
    ----------
    n_gate_columns : int, default=None
        Number of coefficients of a gate, which prices a piece; None: those of a quadratic.
    tol : float, default=0
        Relative residual below which a fit counts as exact; not below round-off.
    space : str, default="polynomial"
        Space of the functions, see `spaces`; `degree` is the total frequency of waves.
    """

    def __init__(
        self,
        rows: Rows,
        degree: int,
        n_gate_columns: int | None = None,
        tol: float = 0.0,
        space: str = POLYNOMIAL,
    ):
        self.rows = rows
        self.degree = degree
        self.space = space
        self.n, self.d = rows.X.shape
        self.basis = space_basis(space, self.d, degree)
        self.n_columns = self.basis.n_columns
        self.n_gate_columns = n_gate_columns or count_columns(self.d, 2)
        self.polynomials = self.basis.matrix(rows.X)
        root = rows.weight.sqrt()[:, None]
        self.weighted = torch.cat([self.polynomials * root, rows.y * root], 1)
        rms = float(rows.y.square().mean().sqrt())
        self.floor = (rms or 1.0) * max(tol, ROUND_OFF * torch.finfo(rows.X.dtype).eps)
        self.total_weight = rows.total_weight
        self._knots = _quantile_knots(rows.X.cpu().numpy().astype(float))
        self.host_points = self.equalise(rows.X.cpu().numpy())

    @property
    def least_error(self) -> float:
        """The least error that scores tell apart."""
        return TOLD_APART * self.floor

    @property
    def exact_error(self) -> float:
        """The largest error that may be that of an exact fit."""
        return STILL_EXACT * self.floor

    @property
    def exact_rss(self) -> float:
        """The largest sum of squared residuals that may be that of an exact fit."""
        return self.n * self.exact_error**2

    @property
    def least_noise(self) -> float:
        """What noise is not taken to be below."""
        return self.floor / FLOOR_TO_NOISE

    def equalise(self, points: np.ndarray) -> np.ndarray:
        """Coordinates in which the samples' density is even, for distances between points.

        A table that is fine along one axis and coarse along another would otherwise have all
        neighbours of a sample on one line.
        """
        shares = np.linspace(0, 1, len(self._knots))
        columns = [
            np.interp(x, knots, shares) for x, knots in zip(points.T, self._knots.T, strict=True)
        ]
        return np.stack(columns, 1) if columns else np.zeros((len(points), 0))

    @property
    def has_room(self) -> bool:
        """Whether the samples can carry two pieces."""
        return self.n >= 2 * (self.n_columns + SPARE_OF_KEPT)

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree of the samples, in equalised coordinates."""
        return cKDTree(self.host_points)

    @cached_property
    def neighbours(self) -> Tensor:
        """The 2 d + 6 nearest samples of every sample, (n, k) int64.

        On a line both samples beside it are among them, however far they are: pieces meet there.
        """
        if self.n == 1 or self.d == 0:
            return self._tensor(np.zeros((self.n, 0), dtype=np.int64))
        n_near = min(self.n, NEAR_A_COLUMN * self.d + NEAR_BESIDE)
        nearest = self.tree.query(self.host_points, n_near)[1].reshape(self.n, -1)[:, 1:]
        if self.d == 1 and n_near > 2:
            order = np.argsort(self.host_points[:, 0], kind="stable")
            pairs = ((order[:-1], order[1:]), (order[1:], order[:-1]))
            for farthest, (own, beside) in zip((-1, -2), pairs, strict=True):
                missed = (nearest[own] != beside[:, None]).all(1)
                nearest[own[missed], farthest] = beside[missed]
        return self._tensor(nearest)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, device=self.rows.X.device)

    def fit(self, labels: Tensor, n_pieces: int | None = None) -> Pieces:
        """Fit the polynomial of every label 0 .. K-1; K is `n_pieces` or one more than the last.

        A label without samples gets the zero polynomial.
        """
        K = int(labels.max()) + 1 if n_pieces is None else n_pieces
        return self._fit(labels, K, slice(None))

    def _fit(self, labels: Tensor, K: int, index: slice | Tensor) -> Pieces:
        """Pieces 0 .. K-1 of some of the samples, whose labels these are."""
        factors = triangular_factors(self.weighted[index], labels, K)
        count = torch.bincount(labels, minlength=K)
        weight = torch.zeros_like(self.rows.weight[:1]).expand(K).clone()
        within = weight.clone()
        weight.index_add_(0, labels, self.rows.weight[index])
        within.index_add_(0, labels, self.rows.within[index].mean(1))
        rss = split_factor(factors, self.n_columns)[2].mean(1) + within
        error = (rss / (weight - self.n_columns).clamp_min(1)).sqrt()
        coef = coefficients(factors, self.n_columns)
        return Pieces(labels, factors, coef, rss, error, count, weight)

    def refit(self, pieces: Pieces, labels: Tensor) -> Pieces:
        """Fit of other labels, renumbered to those in use; pieces that keep their samples stay.

        Parameters
        ----------
        pieces : Pieces
            A fit of these samples.
        labels : Tensor of shape (n,), int64
            New labels, among those of `pieces`.
        """
        K = pieces.n_pieces
        moved = labels != pieces.labels
        changed = torch.zeros(K, dtype=torch.bool, device=labels.device)
        changed[labels[moved]] = True
        changed[pieces.labels[moved]] = True
        used = torch.bincount(labels, minlength=K) > 0
        number = used.cumsum(0) - 1
        again = changed & used
        if not bool(again.any()) and bool(used.all()):
            return pieces
        of_again = again.cumsum(0) - 1
        index = torch.nonzero(again[labels]).squeeze(1)
        if len(index) > MOST_AGAIN * len(labels):
            return self.fit(number[labels])
        fresh = self._fit(of_again[labels[index]], int(again.sum()), index)
        parts = []
        for name in ("factors", "coef", "rss", "error", "count", "weight"):
            value = getattr(pieces, name)[used].clone()
            value[number[again]] = getattr(fresh, name)
            parts.append(value)
        return Pieces(number[labels], *parts)

    def squared_residuals(self, coef: Tensor, index: Tensor, candidates: Tensor) -> Tensor:
        """Mean square over targets of the residual of some samples under candidate pieces.

        Parameters
        ----------
        coef : Tensor of shape (K, P, m)
            Coefficients of all pieces.
        index : Tensor of shape (a,), int64
            Samples.
        candidates : Tensor of shape (a, c), int64
            Pieces to try at each sample.

        Returns
        -------
        Tensor of shape (a, c)
        """
        K, P, m = coef.shape
        result = torch.empty(candidates.shape, dtype=coef.dtype, device=coef.device)
        dense = K <= DENSE * candidates.shape[1]
        per_row = K * m if dense else candidates.shape[1] * P * m
        flat = coef.permute(1, 0, 2).reshape(P, K * m)
        for block in row_blocks(len(index), rows_within(per_row)):
            phi, y, pick = (
                self.polynomials[index[block]],
                self.rows.y[index[block]],
                candidates[block],
            )
            if dense:
                values = (phi @ flat).reshape(len(phi), K, m)
                square = (y[:, None] - values).square().mean(2)
                result[block] = square.gather(1, pick)
            else:
                values = torch.einsum("ap,acpm->acm", phi, coef[pick])
                result[block] = (y[:, None] - values).square().mean(2)
        return result

    def residuals_are_white(self, pieces: Pieces) -> bool:
        """Whether neighbours' residuals within a piece are uncorrelated, as noise is."""
        values = torch.einsum("np,npm->nm", self.polynomials, pieces.coef[pieces.labels])
        residual = self.rows.y - values
        if not self.neighbours.shape[1]:
            return False
        nearest = self.neighbours[:, 0]
        same = pieces.labels == pieces.labels[nearest]
        products = (residual * residual[nearest]).mean(1)[same]
        total = residual.square().mean().clamp_min(torch.finfo(residual.dtype).tiny)
        return abs(float(products.mean() / total)) < WHITE / max(len(products), 1) ** 0.5

    def surprise(self, experts: Pieces | Cells, index: Tensor, candidates: Tensor) -> Tensor:
        """Negative log-likelihood (a, c) of samples under candidate pieces or cells.

        The Cauchy surprise is ``log(s) + log(1 + r^2 / s^2)``, with ``s^2 = E^2 + floor^2``. Its
        tail keeps samples that nothing explains from settling in a nearly exact piece, where
        one of them would spoil the fit.
        """
        result = torch.empty(candidates.shape, dtype=experts.coef.dtype, device=index.device)
        for block in row_blocks(len(index), rows_within(NUMBERS_A_CANDIDATE * candidates.shape[1])):
            near = candidates[block]
            variance = experts.error[near].square() + self.floor**2
            square = self.squared_residuals(experts.coef, index[block], near)
            result[block] = 0.5 * variance.log() + torch.log1p(square / variance)
        return result


def _quantile_knots(points: np.ndarray) -> np.ndarray:
    """Quantiles (N_KNOTS, d) of each coordinate, made strictly increasing."""
    knots = np.quantile(points, np.linspace(0, 1, N_KNOTS), axis=0)
    # Ties keep a little of the plain coordinate, which is what is left of an order there.
    even = np.linspace(0, 1, N_KNOTS)[:, None] * (knots[-1] - knots[0]) + knots[0]
    return (1 - PLAIN_SHARE) * knots + PLAIN_SHARE * even


def compact(labels: Tensor) -> Tensor:
    """Renumber labels to 0 .. K-1, keeping their order."""
    return torch.unique(labels, return_inverse=True)[1]


@dataclass(frozen=True)
class Cells:
    """Fine cells before they own samples: expert, its error and its centre; width squared."""

    coef: Tensor
    error: Tensor
    centres: np.ndarray
    width2: float
