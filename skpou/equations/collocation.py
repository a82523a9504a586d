"""Data and equations for one basis, as one stacked residual of coefficients and unknowns."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skpou.core import Basis, Rows
from skpou.core.linalg import triangular_factor
from skpou.core.models import Stage
from skpou.equations.pointwise import Key
from skpou.equations.problem import Problem, Term
from skpou.physics import Constants

#: Fewest data that tell noise, and the misfit of them in units of their size that is noise.
LEAST_NOISY, NOISY = 20, 1e-3
#: Least share of a datum that the other rows leave to its own residual: digits tell little of less.
LEAST_FREE = 1e-2
#: Largest exponent of a unit: the next powers of two but 23 are no doubles any more.
LARGEST_EXPONENT = 1000
#: Ridge of the factor for leverages, in units of round-off of each column.
LEVERAGE_RIDGE = 1e-15


@dataclass(frozen=True)
class Block:
    """Linearised rows of the data or of one term, before they are weighted.

    Attributes
    ----------
    residual : Tensor of shape (N,)
    jacobian : Tensor of shape (N, p m + q)
        Derivatives with respect to the coefficients, output by output, then the unknowns.
    """

    residual: Tensor
    jacobian: Tensor


@dataclass
class Iterate:
    """Coefficients and unknowns of a system, with the norm of their weighted residual.

    `factor` is the triangular factor of the rows, where it is known.
    """

    coef: Tensor
    unknowns: Tensor
    value: float
    n_steps: int = 0
    factor: Tensor | None = None


class CollocationSystem:
    """Rows for one basis, at the points of some terms.

    Parameters
    ----------
    rows : Rows
        Data in scaled units; there may be none.
    before : sequence of Stage, default=()
        Earlier stages, which the basis adds to.
    """

    def __init__(
        self,
        basis: Basis,
        rows: Rows,
        terms: Sequence[Term],
        problem: Problem,
        before: Sequence[Stage] = (),
    ):
        self.basis, self.rows, self.terms, self.problem = basis, rows, tuple(terms), problem
        self.before = tuple(before)
        self.n_outputs, self.n_columns = rows.n_outputs, basis.n_columns
        self.root = rows.weight.sqrt()
        self.total = float(rows.weight.sum()) or 1.0
        self.phi = basis.matrix(rows.X)
        self.y = rows.y - sum((stage.mean(rows.X) for stage in self.before), rows.y.new_zeros(()))
        self.parts = [self._columns(term) for term in self.terms]
        self.offsets = [self._offsets(term) for term in self.terms]

    def _columns(self, term: Term) -> dict[Key, Tensor]:
        """Derivatives of the columns in units of y and X."""
        problem = self.problem
        orders = list(dict.fromkeys(problem.scaled(key) for key in term.pointwise.keys))
        columns = dict(zip(orders, self.basis.derivatives(term.points, orders), strict=True))
        units = {key: problem.unit(key) for key in term.pointwise.keys}
        return {key: unit * columns[problem.scaled(key)] for key, unit in units.items()}

    def _offsets(self, term: Term) -> dict[Key, Tensor]:
        """Derivatives of the mean of the targets and of the earlier stages."""
        problem, found = self.problem, {}
        for key in term.pointwise.keys:
            value = term.points.new_full((term.n_points,), problem.shift(key))
            for stage in self.before:
                columns = stage.basis.derivative(term.points, problem.scaled(key))
                value = value + problem.unit(key) * (columns @ stage.coef[:, key[0]])
            found[key] = value
        return found

    @property
    def n_coefficients(self) -> int:
        """Number p m of coefficients."""
        return self.n_columns * self.n_outputs

    def with_basis(self, basis: Basis) -> CollocationSystem:
        """Another basis at the same points, after the same stages."""
        system = copy.copy(self)
        system.basis, system.n_columns = basis, basis.n_columns
        system.__dict__.pop("fresh", None)
        system.phi = basis.matrix(self.rows.X)
        system.parts = [system._columns(term) for term in self.terms]
        return system

    def at(self, terms: Sequence[Term]) -> CollocationSystem:
        """The same basis with terms at other points."""
        return CollocationSystem(self.basis, self.rows, terms, self.problem, self.before)

    @cached_property
    def fresh(self) -> CollocationSystem:
        """The same basis at the fresh points."""
        return self.at(self.problem.fresh)

    def zero(self) -> Tensor:
        """Coefficients (p, m) of nothing."""
        return self.phi.new_zeros((self.n_columns, self.n_outputs))

    def blocks(self, coef: Tensor, unknowns: Tensor) -> list[Block]:
        """Rows of the data, then of each term, linearised at coefficients and unknowns."""
        return [self._data(coef), *(self._term(i, coef, unknowns) for i in range(len(self.terms)))]

    def _data(self, coef: Tensor) -> Block:
        q = len(self.problem.unknowns)
        residual = (self.root[:, None] * (self.phi @ coef - self.y)).T.reshape(-1)
        weighted = self.root[:, None] * self.phi
        jacobian = torch.block_diag(*[weighted] * self.n_outputs)
        return Block(residual, torch.cat([jacobian, jacobian.new_zeros((len(jacobian), q))], 1))

    def _values(self, i: int, coef: Tensor) -> dict[Key, Tensor]:
        return {
            key: columns @ coef[:, key[0]] + self.offsets[i][key]
            for key, columns in self.parts[i].items()
        }

    def _constants(self, unknowns: Tensor) -> Constants:
        return Constants(zip(self.problem.names, unknowns, strict=True))

    def _term(self, i: int, coef: Tensor, unknowns: Tensor) -> Block:
        p = self.n_columns
        residual, by_value, by_unknown = self.linearised(i, coef, unknowns)
        n, k = residual.shape
        jacobian = residual.new_zeros((n, k, self.n_coefficients + len(unknowns)))
        for key, slope in by_value.items():
            start = key[0] * p
            # The equation's matrix: a sum of derivative matrices with scaled rows.
            jacobian[:, :, start : start + p] += slope[:, :, None] * self.parts[i][key][:, None, :]
        for j, slope in enumerate(by_unknown.values()):
            jacobian[:, :, self.n_coefficients + j] = slope
        return Block(residual.reshape(-1), jacobian.reshape(n * k, -1))

    def linearised(self, i: int, coef: Tensor, unknowns: Tensor):
        """Residual (n, k) of a term less its target, and its slopes by values and unknowns."""
        term = self.terms[i]
        result, by_value, by_unknown = term.pointwise.linearise(
            self._values(i, coef), term.x, self._constants(unknowns)
        )
        return result - term.target, by_value, by_unknown

    def size_of_terms(self, i: int, coef: Tensor, unknowns: Tensor) -> float:
        """Mean square of a term's slopes times what they belong to, summed.

        What they belong to is at least what it is for a function that varies by the size of the
        targets over half of the box: solutions may have derivatives that vanish.
        """
        values = self._values(i, coef)
        _, slopes, _ = self.linearised(i, coef, unknowns)
        total = 0.0
        for key, slope in slopes.items():
            natural = self.problem.unit(key) * 2 ** len(key[1])
            total += float((slope * values[key].abs().clamp_min(natural)[:, None]).square().mean())
        return total

    def residuals(self, coef: Tensor, unknowns: Tensor) -> list[Tensor]:
        """Residuals of the blocks alone."""
        found = [(self.root[:, None] * (self.phi @ coef - self.y)).T.reshape(-1)]
        for i, term in enumerate(self.terms):
            values, constants = self._values(i, coef), self._constants(unknowns)
            result = term.pointwise.function(values, term.x, constants) - term.target
            found.append(result.detach().reshape(-1))
        return found

    def relative_residual(self, coef: Tensor, unknowns: Tensor) -> float:
        """Residual over the root mean square of the equations' terms; 0 where all is 0."""
        residual = size = 0.0
        for i, part in enumerate(self.residuals(coef, unknowns)[1:]):
            size += self.size_of_terms(i, coef, unknowns)
            residual += float(part.square().mean())
        return math.sqrt(residual / size) if size > 0 else 0.0

    def broken_conditions(self, coef: Tensor, unknowns: Tensor) -> float:
        """Largest root mean square of a condition at its points, over that of its terms."""
        given = self.at([term for term in self.problem.terms if term.is_condition])
        worst = 0.0
        for i, part in enumerate(given.residuals(coef, unknowns)[1:]):
            terms = given.size_of_terms(i, coef, unknowns)
            worst = max(worst, float(part.square().mean()) / terms if terms > 0 else 0.0)
        return math.sqrt(worst)

    def scales(self, blocks: Sequence[Block], boost: float = 1.0) -> list[float]:
        """Factors of the blocks: by their numbers of rows and their rms row norms.

        Parameters
        ----------
        boost : float
            Factor of all equations.
        """
        found: list[float] = []
        last = 1.0
        for i, block in enumerate(blocks):
            term = self.terms[i - 1] if i else None
            if term is not None and term.length:
                # A gradient follows its equation, the last one before it.
                found.append(last * term.weight * term.length)
                continue
            size = root_of_squares(block.jacobian[:, : self.n_coefficients])
            weight = boost * term.weight if term is not None else 1.0
            # The rms row norm is the size over the root of n, by which the rows are divided, too.
            last = weight / size if size > 0 and math.isfinite(size) else weight
            found.append(last)
        return found


def stacked(blocks: Sequence[Block], scales: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weighted residual (N,) and Jacobian (N, p m + q) of all blocks."""
    residual = torch.cat([s * block.residual for s, block in zip(scales, blocks, strict=True)])
    jacobian = torch.cat([s * block.jacobian for s, block in zip(scales, blocks, strict=True)])
    return residual, jacobian


def norm(residuals: Sequence[Tensor], scales: Sequence[float]) -> float:
    """Norm of the weighted residual."""
    squares = [float((s * r).square().sum()) for s, r in zip(scales, residuals, strict=True)]
    return math.sqrt(sum(squares)) if all(map(math.isfinite, squares)) else math.inf


def root_of_squares(values: Tensor) -> float:
    """Root of the sum of squares, which neither overflow nor underflow."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    if not 0 < largest < math.inf:
        return largest
    exponent = min(math.frexp(largest)[1], LARGEST_EXPONENT)
    unit = 2.0**exponent  # Exact: no bit depends on the units.
    return unit * math.sqrt(float((values / unit).square().sum()))


def leverages(system: CollocationSystem, iterate: Iterate, scales: Sequence[float]) -> Tensor:
    """Share (n m,) of each datum in its own prediction, all rows of the linearised system given."""
    blocks = system.blocks(iterate.coef, iterate.unknowns)
    R = iterate.factor
    if R is None:
        jacobian = stacked(blocks, scales)[1]
        size = jacobian.norm(dim=0)
        size = torch.where(size > 0, size, 1.0)  # An unknown may be in no row where it starts.
        R = triangular_factor(torch.cat([jacobian, torch.diag_embed(LEVERAGE_RIDGE * size)]))
    A = scales[0] * blocks[0].jacobian
    return torch.linalg.solve_triangular(R, A, upper=True, left=False).square().sum(1)


def criterion(
    system: CollocationSystem, iterate: Iterate, scales: Sequence[float], boost: float = 1.0
) -> float:
    """Root of the sum of squares of held-out equation residuals and data residuals.

    Each is in units of the rms row norm of the system's own rows. It ranks solutions, and is no
    error. Many noisy data are left out one by one: a rich basis follows their noise.
    """
    judged = system.fresh
    found = judged.residuals(iterate.coef, iterate.unknowns)
    data = found[0]
    if len(system.rows.X) >= LEAST_NOISY and float(data.square().sum()) > NOISY**2 * system.total:
        data = data / (1 - leverages(system, iterate, scales)).clamp_min(LEAST_FREE)
    square = float((scales[0] * data).square().sum())
    norms: dict[int, float] = {}
    for term, scale in zip(system.terms, scales[1:], strict=True):
        # The first term of a group is the equation itself; its gradient is not judged.
        norms.setdefault(term.group, scale / (boost * term.weight) * math.sqrt(term.n_points))
    for term, residual in zip(judged.terms, found[1:], strict=True):
        square += float((norms[term.group] * residual).square().sum()) / term.n_points
    return math.sqrt(square) if math.isfinite(square) else math.inf
