"""Orthogonal polynomials of bounded total degree on the unit box."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skpou.core.basis import Basis

if TYPE_CHECKING:
    from typing import Self

#: Bases whose exponents are remembered: searches make the same few hundreds of times.
MOST_REMEMBERED = 128


def count_columns(n_features: int, degree: int) -> int:
    """Dimension C(d + m, m) of the polynomials of total degree m in d variables."""
    return math.comb(n_features + degree, degree)


def total_degree_exponents(n_features: int, degree: int) -> np.ndarray:
    """Exponents of all products of total degree at most `degree`.

    Sorted by total degree, then lexicographically, so that a basis of lower degree is a prefix.

    Parameters
    ----------
    n_features : int
        Number d of variables, at least 0.
    degree : int
        Largest total degree m, at least 0.

    Returns
    -------
    ndarray of shape (C(d + m, m), d)
        Degrees of the Legendre factor of each variable.
    """
    return _exponents(n_features, degree).copy()


@lru_cache(maxsize=MOST_REMEMBERED)
def _exponents(n_features: int, degree: int) -> np.ndarray:
    levels = [np.zeros((1, n_features), dtype=np.int64)]
    for _ in range(degree if n_features else 0):
        raised = levels[-1][:, None, :] + np.eye(n_features, dtype=np.int64)
        levels.append(np.unique(raised.reshape(-1, n_features), axis=0))
    return np.concatenate(levels)


def legendre_table(t: Tensor, degree: int, derivative: bool = False) -> Tensor:
    """Legendre polynomials P_0 .. P_m, or their derivatives, by the three-term recurrence.

    Parameters
    ----------
    t : Tensor of shape (...)
        Arguments; the polynomials are orthogonal on [-1, 1].
    derivative : bool, default=False
        Return dP_k/dt instead of P_k.

    Returns
    -------
    Tensor of shape (m + 1, ...)
    """
    values = [torch.ones_like(t), t]
    for k in range(1, degree):
        values.append(((2 * k + 1) * t * values[k] - k * values[k - 1]) / (k + 1))
    if not derivative:
        return torch.stack(values[: degree + 1])
    slopes = [torch.zeros_like(t), torch.ones_like(t)]
    for k in range(1, degree):
        slopes.append(slopes[k - 1] + (2 * k + 1) * values[k])
    return torch.stack(slopes[: degree + 1])


def to_powers(
    exponents: np.ndarray, coef: np.ndarray, offset: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Coefficients of powers of x, of a sum of products of Legendre polynomials in a box.

    Parameters
    ----------
    exponents : ndarray of shape (p, d)
        Degrees of the factors, as `total_degree_exponents` has them; those of the powers of x,
        too.
    coef : ndarray of shape (p, ...)
        Coefficients of ``prod_j P_{e_j}(2 t_j - 1)`` with ``t_j = (x_j - offset_j) / width_j``.
    offset, width : ndarray of shape (d,)
        Lower corner and sides of the box.

    Returns
    -------
    ndarray of shape (p, ...)
        Coefficients of ``prod_j x_j^{e_j}``; not finite where they overflow.
    """
    position = {tuple(row): i for i, row in enumerate(exponents.tolist())}
    degree = int(exponents.max(initial=0))
    coef = np.asarray(coef, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for j in range(exponents.shape[1]):
            by_degree = _legendre_as_powers(degree, offset[j], width[j])
            result = np.zeros_like(coef)
            for i, row in enumerate(exponents.tolist()):
                for power in range(row[j] + 1):
                    lower = (*row[:j], power, *row[j + 1 :])
                    result[position[lower]] += by_degree[row[j], power] * coef[i]
            coef = result
    return coef


def largest_powers(exponents: np.ndarray, offset: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Largest absolute values (p,) in a box of ``prod_j x_j^{e_j}``; infinite on overflow."""
    furthest = np.maximum(np.abs(offset), np.abs(offset + width))
    with np.errstate(over="ignore"):
        return np.prod(furthest**exponents, axis=1)


def _legendre_as_powers(degree: int, offset: float, width: float) -> np.ndarray:
    """Coefficients (m + 1, m + 1) of x^q in ``P_k(2 (x - offset) / width - 1)``, row k."""
    table = np.zeros((degree + 1, degree + 1))
    table[0, 0] = 1.0
    line = np.array([-2 * offset / width - 1, 2 / width])
    for k in range(degree):
        times_line = line[0] * table[k]
        times_line[1:] += line[1] * table[k, :-1]
        before = table[k - 1] if k else 0.0
        table[k + 1] = ((2 * k + 1) * times_line - k * before) / (k + 1)
    return table


#: Columns, their parents and their rows of the table of factors, for 1, 2, ... active variables.
Generations = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _plan_of(all_factors: np.ndarray, n_factors: int) -> Generations:
    """Every product as that of another and one factor more."""
    position = {tuple(row): i for i, row in enumerate(all_factors)}
    n_active = (all_factors > 0).sum(1)
    generations = []
    for active in range(1, int(n_active.max(initial=0)) + 1):
        columns = np.flatnonzero(n_active == active)
        parents, factors = [], []
        for row in all_factors[columns]:
            last = int(np.flatnonzero(row)[-1])
            parent = row.copy()
            parent[last] = 0
            parents.append(position[tuple(parent)])
            factors.append(last * n_factors + row[last])
        generations.append((columns, np.array(parents), np.array(factors)))
    return generations


@lru_cache(maxsize=MOST_REMEMBERED)
def _polynomial_plan(n_features: int, degree: int) -> Generations:
    return _plan_of(_exponents(n_features, degree), degree + 1)


class TotalDegreeProducts(Basis):
    """Products of one factor for each variable, whose orders add up to a total degree at most.

    Each product is its parent (the product without its last variable) times one factor, so a
    column costs one multiplication whatever the dimension. A subclass has the table of factors.

    Parameters
    ----------
    n_features : int
        Number d of variables. With d = 0 the only function is the constant.
    degree : int
        Largest total degree, at least 0.
    factors : ndarray of shape (p, d)
        Number of each variable's factor in the table; 0 is the constant 1.
    n_factors : int
        Factors of a variable.
    """

    def __init__(self, n_features: int, degree: int, factors: np.ndarray, n_factors: int):
        self.n_features = n_features
        self.degree = degree
        self.factors = factors
        self.n_factors = n_factors
        self.n_columns = len(factors)
        self._generations = self._plan()
        self._indices: dict[torch.device, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def arrays(self) -> dict[str, int]:
        """State as plain values."""
        return {"n_features": self.n_features, "degree": self.degree}

    @classmethod
    def from_arrays(cls, arrays: dict[str, int], like: Tensor) -> Self:
        """Rebuild from `arrays`."""
        return cls(arrays["n_features"], arrays["degree"])  # type: ignore[call-arg]

    @abstractmethod
    def _values(self, t: Tensor, derivative: bool = False) -> Tensor:
        """Factors (n_factors, ...) at coordinates t of the unit box, or their derivatives."""

    def _plan(self) -> Generations:
        """Columns, their parents and their rows of the table, for 1, 2, ... active variables."""
        return _plan_of(self.factors, self.n_factors)

    def _plan_on(self, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        if device not in self._indices:
            self._indices[device] = [
                (
                    torch.as_tensor(index, device=device),
                    torch.as_tensor(parents, device=device),
                    torch.as_tensor(factors, device=device),
                )
                for index, parents, factors in self._generations
            ]
        return self._indices[device]

    def _products(self, table: Tensor, X: Tensor) -> Tensor:
        """Multiply the factors of `table` (d * n_factors, n) into columns (n, p)."""
        columns = torch.ones((self.n_columns, len(X)), dtype=X.dtype, device=X.device)
        for index, parents, factors in self._plan_on(X.device):
            product = columns.index_select(0, parents) * table.index_select(0, factors)
            columns.index_copy_(0, index, product)
        return columns.T.contiguous()

    def _table(self, X: Tensor, differentiated: int | None = None) -> Tensor:
        """Factors of shape (d * n_factors, n); variable `differentiated` by slopes."""
        table = self._values(X.T).transpose(0, 1).contiguous()
        if differentiated is not None:
            table[differentiated] = self._values(X[:, differentiated], True)
        return table.reshape(self.n_features * self.n_factors, len(X))

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate every product at every point; see `Basis.matrix`."""
        if self.degree == 0 or self.n_features == 0:
            return torch.ones((len(X), self.n_columns), dtype=X.dtype, device=X.device)
        return self._products(self._table(X), X)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives along coordinate `feature`; see `Basis.partial`."""
        if self.degree == 0:
            return torch.zeros((len(X), self.n_columns), dtype=X.dtype, device=X.device)
        involved = torch.as_tensor(self.factors[:, feature] > 0, dtype=X.dtype, device=X.device)
        return self._products(self._table(X, feature), X) * involved


class TotalDegreePolynomials(TotalDegreeProducts, kind="polynomials"):
    """Products of Legendre polynomials ``prod_j P_{e_j}(2 x_j - 1)`` with ``sum_j e_j <= degree``.

    Parameters
    ----------
    n_features : int
        Number d of variables. With d = 0 the only function is the constant.
    degree : int
        Largest total degree, at least 0.
    """

    def __init__(self, n_features: int, degree: int):
        self.exponents = total_degree_exponents(n_features, degree)
        super().__init__(n_features, degree, self.exponents, degree + 1)
        self.n_running = self.n_columns

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate every product at every point; see `Basis.matrix`."""
        if self.degree == 1 and self.n_features:
            # The last variable is the first column beside the constant.
            return torch.cat([torch.ones_like(X[:, :1]), (2 * X - 1).flip(1)], 1)
        return super().matrix(X)

    def _plan(self) -> Generations:
        """That of the exponents, made once."""
        return _polynomial_plan(self.n_features, self.degree)

    def _values(self, t: Tensor, derivative: bool = False) -> Tensor:
        values = legendre_table(2 * t - 1, self.degree, derivative)
        # The chain rule's factor.
        return 2 * values if derivative else values
