"""A fitted mean as a short program: steps that each make a vector from earlier ones.

Families write programs, and each language that a model goes to has one translation of every
operation. So a new family is one file, and a new language another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skpou.core import FourierProducts, TotalDegreePolynomials

#: Functions of `Program.apply`: what they are of an entry z.
FUNCTIONS = {
    "tanh": "tanh(z)",
    "sin": "sin(z)",
    "cos": "cos(z)",
    "relu": "max(z, 0)",
    "log_cosh": "log(cosh(z))",
    "exp_minus": "exp(-z)",
    "inverse": "1 / (1 + z)",
    "stretch": "log(1 + max(z, 0)) + min(z, 0)",
}

#: Operations, and what entry i of their result is; v is the only or first input, w the second.
OPERATIONS = {
    "scale": "factor * (v[columns[i]] - offset[i]) / width[i] + shift",
    "affine": "sum_j matrix[i][j] * v[j] + bias[i]",
    "apply": "function(v[i])",
    "distances": "rate[i] * sum_j (v[j] - centres[i][j])^2",
    "legendre": "P_k(v[j]), the Legendre polynomial of degree k, at i = j * (degree + 1) + k",
    "products": "1 at i = 0, then result[parent[i]] * v[factor[i]], the parent before the product",
    "softmax": "exp(v[i]) over the sum of exp(v[j]) with group[j] == group[i]",
    "multiply": "v[left[i]] * w[right[i]]",
    "sum": "sum of v[j] with group[j] == i",
    "add": "the sum of entry i of all inputs",
    "sparse_grid": "sum of surpluses times hat functions, see skpou.export",
}

#: What the point itself is called among the inputs of steps.
POINT = "x"


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes
    ----------
    name : str
        Name of the result.
    operation : str
        Key of `OPERATIONS`.
    inputs : tuple of str
        Names of earlier results, or `POINT`.
    size : int
        Entries of the result.
    values : dict
        Arrays, numbers and strings that the operation needs.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    size: int
    values: dict[str, Any]


@dataclass
class Program:
    """Steps from a point in X's units to the mean in y's units, the last step's result.

    Attributes
    ----------
    columns : ndarray of shape (k,), int64
        Columns that the mean depends on.
    steps : list of Step
        In an order in which all inputs are ready.
    """

    n_features: int
    columns: np.ndarray
    steps: list[Step] = field(default_factory=list)
    _polynomials: dict[tuple[str, int], str] = field(default_factory=dict)

    def size(self, name: str) -> int:
        """Number of entries of a result."""
        if name == POINT:
            return self.n_features
        return next(step.size for step in self.steps if step.name == name)

    @property
    def n_outputs(self) -> int:
        """Number of targets."""
        return self.steps[-1].size

    def _add(self, operation: str, inputs: Sequence[str], size: int, **values: Any) -> str:
        name = f"v{len(self.steps)}"
        self.steps.append(Step(name, operation, tuple(inputs), int(size), values))
        return name

    # Operations

    def scale(self, box: dict[str, np.ndarray], factor: float = 1.0, shift: float = 0.0) -> str:
        """Coordinates in the box of the data, those in the unit box times a factor, shifted."""
        return self._add(
            "scale",
            [POINT],
            len(box["columns"]),
            columns=np.asarray(box["columns"]),
            offset=double(box["offset"]),
            width=double(box["width"]),
            factor=float(factor),
            shift=float(shift),
        )

    def affine(self, v: str, matrix: Any, bias: Any = None) -> str:
        """Products (q,) with a matrix (q, p), and a vector (q,) added to them."""
        matrix = double(matrix).reshape(-1, self.size(v))
        bias = np.zeros(len(matrix)) if bias is None else double(bias)
        return self._add("affine", [v], len(matrix), matrix=matrix, bias=bias)

    def apply(self, v: str, function: str) -> str:
        """One of `FUNCTIONS` of every entry."""
        return self._add("apply", [v], self.size(v), function=function)

    def distances(self, v: str, centres: Any, rate: Any) -> str:
        """Squared distances (q,) from centres (q, p), times the rates (q,)."""
        centres, rate = double(centres).reshape(-1, self.size(v)), double(rate)
        return self._add("distances", [v], len(centres), centres=centres, rate=rate)

    def softmax(self, v: str, group: Any, sharp: bool) -> str:
        """Shares within groups; across sharp ones the gradient is that of the largest entry."""
        group = np.asarray(group, dtype=np.int64)
        return self._add("softmax", [v], self.size(v), group=group, sharp=bool(sharp))

    def multiply(self, v: str, w: str, left: Any, right: Any) -> str:
        """Products of entries `left` (q,) of one vector with entries `right` (q,) of another."""
        left, right = (np.asarray(index, dtype=np.int64) for index in (left, right))
        return self._add("multiply", [v, w], len(left), left=left, right=right)

    def sum(self, v: str, group: Any, size: int) -> str:
        """Sums over groups of entries."""
        return self._add("sum", [v], size, group=np.asarray(group, dtype=np.int64))

    def add(self, parts: Sequence[str]) -> str:
        """Sum of vectors of one size."""
        parts = list(parts)
        return parts[0] if len(parts) == 1 else self._add("add", parts, self.size(parts[0]))

    def polynomials(self, t: str, degree: int) -> str:
        """All products of Legendre polynomials of the entries of t up to a total degree."""
        if (t, degree) not in self._polynomials:
            basis = TotalDegreePolynomials(self.size(t), degree)
            table = self._add("legendre", [t], basis.n_features * (degree + 1), degree=degree)
            parent, factor = products_plan(basis.exponents, degree)
            self._polynomials[t, degree] = self._add(
                "products", [table], len(parent), parent=parent, factor=factor
            )
        return self._polynomials[t, degree]

    def waves(self, u: str, degree: int) -> str:
        """All products of sines and cosines of entries of u up to a total frequency."""
        basis = FourierProducts(self.size(u), degree)
        k, d = np.arange(1, degree + 1), basis.n_features
        angles = self.affine(u, np.kron(np.eye(d), np.pi * k[:, None]))
        # The table holds 1, sin, cos, sin, cos, ... of every entry.
        sine, cosine = (np.zeros((2 * degree + 1, degree)) for _ in range(2))
        sine[2 * k - 1, k - 1] = cosine[2 * k, k - 1] = 1.0
        one = np.tile(np.eye(2 * degree + 1)[0], d)
        parts = [
            self.affine(self.apply(angles, "sin"), np.kron(np.eye(d), sine), one),
            self.affine(self.apply(angles, "cos"), np.kron(np.eye(d), cosine)),
        ]
        parent, factor = products_plan(basis.factors, 2 * degree)
        table = self.add(parts)
        return self._add("products", [table], len(parent), parent=parent, factor=factor)

    def sparse_grid(self, u: str, values: dict[str, np.ndarray]) -> str:
        """Functions on a sparse grid; `values` as `sparse_grids.py` gathers them."""
        return self._add("sparse_grid", [u], values["coef"].shape[1], **values)

    def in_units_of_y(self, mean: str, box: dict[str, np.ndarray]) -> Program:
        """Bring the scaled mean to the units of y; the program is complete then."""
        self.affine(mean, np.diag(double(box["scale"])), double(box["mean"]))
        return self


def double(values: Any) -> np.ndarray:
    """Contiguous array of float64."""
    return np.ascontiguousarray(values, dtype=np.float64)


def products_plan(exponents: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Parent and factor of every product; those of the constant, the first, are not used.

    Parameters
    ----------
    exponents : ndarray of shape (p, k)
        Of `TotalDegreePolynomials`: a product comes after that without its last variable.
    degree : int
        Largest degree of the table of factors.
    """
    position = {tuple(row): i for i, row in enumerate(exponents.tolist())}
    parent = np.zeros(len(exponents), dtype=np.int64)
    factor = np.zeros(len(exponents), dtype=np.int64)
    for i, row in enumerate(exponents.tolist()):
        if any(row):
            last = max(j for j, power in enumerate(row) if power)
            factor[i] = last * (degree + 1) + row[last]
            row[last] = 0
            parent[i] = position[tuple(row)]
    return parent, factor
