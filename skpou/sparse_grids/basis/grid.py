"""Sparse grids of hierarchical functions (Zhang 2021, section 2.1)."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import Basis
from skpou.sparse_grids.basis.evaluation import (
    Evaluate,
    blocks_of,
    few_products,
    slopes_of,
    sums_of,
)
from skpou.sparse_grids.basis.kernels import few_costs, kernel_of_few
from skpou.sparse_grids.basis.nodal import (
    MAX_NODES,
    NodalInterpolant,
    gauss_nodes,
    mesh,
    nodes_needed,
    one_dimensional_matrix,
)
from skpou.sparse_grids.basis.plans import (
    BASES,
    BOUNDARIES,
    RIGHT,
    Plan,
    count_points,
    make_factors,
    make_plan,
    vectors_within,
)

__all__ = ["BASES", "BOUNDARIES", "SparseGrid", "count_points"]

#: Plans that are kept at a time: those of a few models side by side, each with its levels.
PLANS = 16
#: Numbers for each level vector at a point: value, function and cell.
NUMBERS_A_SUBSPACE = 3

#: Highest level in one dimension: beyond it the points of float64 hardly differ.
HIGHEST_LEVEL = 30
#: Terms of an evaluation up to which nodal values do not pay, and terms whose time a node takes.
FEWEST_TERMS, TERMS_A_NODE = 20_000, 2


class SparseGrid(Basis):
    """Products of hierarchical hats, or parabolas, whose levels add up to a bounded sum.

    Functions are numbered subspace by subspace, those of a lower regular grid first, so that its
    coefficients are a prefix. Outside the unit box the pieces at its faces go on linearly.

    Parameters
    ----------
    level : int
        Level n of the regular grid; with `vectors` the highest level of the factors.
    boundary : {"modified", "zero", "full", "truncated"}, default="modified"
        ``"zero"``: no points on the faces, where the function vanishes. ``"full"``: level 0 on
        the faces (Eq. 2.15). ``"truncated"``: the faces' points belong to level 1 (Eq. 2.16).
        ``"modified"``: no points on the faces; level 1 is constant, and the outermost functions
        of the others grow linearly towards the face.
    vectors : ndarray of shape (M, d), default=None
        Vectors of factors instead of the regular ones; with the constant factor, each with its
        last other factor made constant must be among them.
    basis : {"linear", "quadratic"}, default="linear"
        The functions of one dimension, see `make_factors`.
    """

    def __init__(
        self,
        n_features: int,
        level: int,
        boundary: str = "modified",
        vectors: np.ndarray | None = None,
        basis: str = "linear",
    ):
        if not 1 <= level <= HIGHEST_LEVEL:
            raise ValueError(f"level must be an int from 1 to {HIGHEST_LEVEL}. Got {level!r}.")
        self.n_features = n_features
        self.level = level
        self.boundary = boundary
        self.basis = basis
        self.factors = make_factors(n_features, level, boundary, basis)
        chosen = None if vectors is None else np.ascontiguousarray(vectors, np.int16).tobytes()
        self.plan = _plan(n_features, level, boundary, chosen)  # that of every basis
        self.n_columns = self.plan.n_functions
        self._functions: np.ndarray | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor | None = None) -> SparseGrid:
        """Rebuild from `arrays`, beside which there may be chosen level vectors."""
        size = arrays["n_features"], arrays["level"], arrays["boundary"]
        basis = arrays.get("basis", "linear")  # Earlier releases had no other.
        return cls(*size, arrays.get("vectors"), basis)

    def arrays(self) -> dict[str, Any]:
        """State as plain values, but for level vectors that were chosen."""
        return {name: getattr(self, name) for name in ("n_features", "level", "boundary", "basis")}

    def of_level(self, level: int) -> SparseGrid:
        """The regular grid of another level, of the same dimension and functions."""
        return SparseGrid(self.n_features, level, self.boundary, basis=self.basis)

    @property
    def n_subspaces(self) -> int:
        """Number M of level vectors: functions that are not zero at a point."""
        return len(self.plan.vectors)

    # Points

    def _per_function(self, per_subspace: np.ndarray) -> np.ndarray:
        """Repeat a value of every subspace for all its functions."""
        return np.repeat(per_subspace, np.diff(self.plan.first_function), axis=0)

    def costs(self) -> np.ndarray:
        """What each function's levels cost, (G,): |l|_1 - d on grids without level 0."""
        return self._per_function(self.factors.cost[self.plan.vectors].sum(1).astype(np.int64))

    def costs_like(self, like: Tensor) -> Tensor:
        """The same in the precision of a tensor and where it is; not to be written to."""
        key = ("costs", like.device, like.dtype)
        tables = self.plan.tables
        if key not in tables:
            tables[key] = torch.as_tensor(self.costs(), device=like.device).to(like.dtype)
        return tables[key]

    def cells(self) -> np.ndarray:
        """Number of each function within its factor, (G, d)."""
        G, d = self.n_columns, self.n_features
        local = np.arange(G) - self._per_function(self.plan.first_function[:-1])
        shifts = self.factors.shift[self.plan.vectors]
        cells = np.zeros((G, d), dtype=np.int64)
        for feature in reversed(range(d)):
            shift = self._per_function(shifts[:, feature])
            cells[:, feature] = local & ((1 << shift) - 1)
            local >>= shift
        return cells

    def levels_and_indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Levels l and indices i of all functions (Eq. 2.8), each (G, d)."""
        vectors = self._per_function(self.plan.vectors)
        kind, level = self.factors.kind[vectors], self.factors.level[vectors]
        index = np.where(level > 0, 2 * self.cells() + 1, kind == RIGHT)
        return level, index

    def points(self) -> np.ndarray:
        """Grid points ``2^-l i``, (G, d)."""
        level, index = self.levels_and_indices()
        return index / 2.0**level

    def functions(self) -> np.ndarray:
        """Number of the one-dimensional function in every coordinate, (G, d)."""
        if self._functions is None:
            count = 2**self.factors.shift
            start = np.cumsum(count) - count
            self._functions = start[self._per_function(self.plan.vectors)] + self.cells()
        return self._functions

    def rows_of(self, vectors: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Numbers of the functions with these factors and cells, each (k, d)."""
        position = {v.tobytes(): i for i, v in enumerate(self.plan.vectors)}
        wanted = np.ascontiguousarray(vectors, dtype=np.int16)
        local = np.zeros(len(wanted), dtype=np.int64)
        for feature in range(self.n_features):
            local = (local << self.factors.shift[wanted[:, feature]]) + cells[:, feature]
        subspaces = np.array([position[v.tobytes()] for v in wanted], dtype=np.int64)
        return self.plan.first_function[subspaces] + local

    # Values

    def nonzeros(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Values and numbers of the functions that are not zero at points, each (n, M)."""
        X = X.detach()
        values = X.new_empty((len(X), self.n_subspaces))
        functions = torch.empty(values.shape, dtype=torch.int64, device=X.device)
        for rows, products in blocks_of(self.plan, self.factors, X):
            values[rows] = products.values.T
            functions[rows] = products.functions.T
        return values, functions

    def evaluate_with_nonzeros(self, X: Tensor, coef: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `evaluate` and `nonzeros` return, from one pass where points are few."""
        few = None
        if not self._nodal_pays(len(X), coef.shape[1]):
            few = few_products(self.plan, self.factors, X)
        if few is None:
            return self.evaluate(X, coef), *self.nonzeros(X)
        return sums_of(X, coef, self.plan, self.factors, few), few.values.T, few.functions.T

    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate every function at every point; see `Basis.matrix`."""
        values, functions = self.nonzeros(X)
        return X.new_zeros((len(X), self.n_columns)).scatter_(1, functions, values)

    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the derivatives along coordinate `feature`; see `Basis.partial`."""
        X = X.detach()
        result = X.new_zeros((len(X), self.n_columns))
        vectors = torch.as_tensor(self.plan.vectors[:, feature], device=X.device)
        # Products skip the constant factor, whose slope is zero.
        involved = (vectors > 0)[:, None] if self.factors.skips else None
        for rows, products in blocks_of(self.plan, self.factors, X):
            products.form(X[rows], feature)
            values = products.values if involved is None else products.values * involved
            result[rows] = result[rows].scatter_(1, products.functions.T, values.T)
        return result

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """Values of the functions with some coefficients; gradients reach both arguments.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points in the unit box, or outside, where the outermost pieces go on.
        coef : Tensor of shape (G, m)
            Coefficients (surpluses), of the points' dtype and device.

        Returns
        -------
        Tensor of shape (n, m)
        """
        if not self._nodal_pays(len(X), coef.shape[1]):
            if not (X.requires_grad or coef.requires_grad):
                return sums_of(X, coef, self.plan, self.factors)
            return Evaluate.apply(X, coef, self.plan, self.factors)
        nodal = NodalInterpolant(self.factors, self.functions(), coef)
        inside = nodal.holds(X.detach())
        if bool(inside.all()):
            return nodal.interpolate(X)
        result = X.new_zeros((len(X), coef.shape[1]))
        result[inside] = nodal.interpolate(X[inside])
        outside = Evaluate.apply(X[~inside], coef, self.plan, self.factors)
        return result.index_put((torch.nonzero(~inside).squeeze(1),), outside)

    def slopes(self, X: Tensor, coef: Tensor) -> Tensor:
        """Gradients (n, m, d) of the functions with some coefficients; see `evaluate`."""
        X = X.detach()
        if not self._nodal_pays(len(X), 1):
            return slopes_of(X, coef, self.plan, self.factors)
        parts = []
        with torch.enable_grad():
            points = X.clone().requires_grad_()
            for output in range(coef.shape[1]):
                value = self.evaluate(points, coef[:, output : output + 1]).sum()
                parts.append(torch.autograd.grad(value, points)[0])
        return torch.stack(parts, 1)

    def _nodal_pays(self, n_rows: int, n_outputs: int) -> bool:
        """Whether nodal values and an interpolation are faster than one term a level vector."""
        if not 1 <= self.n_features <= 3 or self.basis != "linear":
            return False
        if n_rows * self.n_subspaces <= FEWEST_TERMS:
            return False
        nodes = nodes_needed(self.factors, self.n_features)
        terms = n_rows * self.n_subspaces
        return nodes <= MAX_NODES and terms > FEWEST_TERMS + TERMS_A_NODE * nodes

    # Products of functions

    def mass_and_stiffness(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Integrals of ``f g`` and of ``grad f . grad g`` over the unit box, exact, each (G, G)."""
        if self.basis == "linear":
            one, steep = self._products_of_hats(like)
        else:
            one, steep = self._products_of_parabolas(like)
        functions = torch.as_tensor(self.functions(), device=like.device)
        mass = like.new_ones((self.n_columns, self.n_columns))
        stiffness = torch.zeros_like(mass)
        for feature in range(self.n_features):
            u = functions[:, feature]
            factor = one[u[:, None], u]
            stiffness = stiffness.mul_(factor).addcmul_(mass, steep[u[:, None], u])
            mass *= factor
        return mass, stiffness

    def _products_of_hats(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Integrals of products of the functions of one dimension, and of their slopes."""
        n = 2 * mesh(self.factors)  # nodes and the middles between them
        t = torch.arange(n + 1, dtype=torch.float64, device=like.device) / n
        weight = torch.full_like(t, 2.0)
        weight[1::2] = 4.0
        weight[0] = weight[-1] = 1.0
        E = one_dimensional_matrix(self.factors, t)
        # Simpson's rule is exact: products are quadratic between two nodes.
        one = (E.T @ (E * weight[:, None]) / (3 * n)).to(like.dtype)
        slopes = (E[1:] - E[:-1]) * n
        return one, (slopes.T @ slopes / n).to(like.dtype)

    def _products_of_parabolas(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """As `_products_of_hats`."""
        # Three nodes are exact: products are quartic between two nodes of the mesh.
        t, weight = gauss_nodes(mesh(self.factors), 3, like.device)
        E = one_dimensional_matrix(self.factors, t)
        slopes = one_dimensional_matrix(self.factors, t, differentiated=True)
        one, steep = (A.T @ (A * weight[:, None]) for A in (E, slopes))
        return one.to(like.dtype), steep.to(like.dtype)

    def kernel(self, X: Tensor, Z: Tensor, decay: float) -> Tensor:
        """Sum over all functions of ``phi(x) phi(z) decay^-cost``, (n, k), on regular grids.

        Level vectors are bounded by a sum, so the sum over them is a product of polynomials, one
        a dimension, cut off at the budget: no function is formed.
        """
        if few_costs(self.factors):
            return kernel_of_few(self.factors, X, Z, decay)
        budget = self.factors.budget
        sums: list[Tensor | None] = [X.new_ones((len(X), len(Z)))] + [None] * budget
        count = 2**self.factors.shift
        start = np.cumsum(count) - count
        for feature in range(self.n_features):
            left = one_dimensional_matrix(self.factors, X[:, feature])
            right = one_dimensional_matrix(self.factors, Z[:, feature])
            by_cost: dict[int, Tensor] = {}
            for factor, cost in enumerate(self.factors.cost.tolist()):
                if self.factors.skips and factor == 0:
                    continue
                part = slice(int(start[factor]), int(start[factor] + count[factor]))
                product = left[:, part] @ (right[:, part].T * decay**-cost)
                by_cost[cost] = by_cost[cost] + product if cost in by_cost else product
            for total in reversed(range(budget + 1)):
                terms = [
                    (before, product)
                    for cost, product in by_cost.items()
                    if cost <= total and (before := sums[total - cost]) is not None
                ]
                found = sums[total] if self.factors.skips else None
                for before, product in terms:
                    found = before * product if found is None else found.addcmul_(before, product)
                sums[total] = found
        return torch.stack([s for s in sums if s is not None]).sum(0)

    def numbers_per_row(self) -> int:
        """Numbers that an evaluation allocates for each point, to size blocks of rows."""
        return NUMBERS_A_SUBSPACE * self.n_subspaces

    def kernel_diagonal(self, X: Tensor, decay: float) -> Tensor:
        """``kernel(x, x)`` at every point, (n,)."""
        values, functions = self.nonzeros(X)
        weight = decay ** -torch.as_tensor(self.costs(), device=X.device).to(X.dtype)
        return (values.square_() * weight[functions]).sum(1)


@functools.lru_cache(maxsize=PLANS)
def _plan(n_features: int, level: int, boundary: str, vectors: bytes | None) -> Plan:
    """Plan of a grid; a model that is rebuilt for every block of points needs it again."""
    factors = make_factors(n_features, level, boundary)
    if vectors is None:
        return make_plan(vectors_within(n_features, factors), factors)
    return make_plan(np.frombuffer(vectors, np.int16).reshape(-1, n_features), factors)


def csr_tensor(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sparse CSR tensor without torch's remark that these are in beta state."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(
            starts, columns, values, shape, device=values.device, check_invariants=False
        )
