"""Networks of a given size that solve equations: rows of data and equations as columns.

Source: Cyr, Gulian, Patel, Perego, Trask (2020); the equations are numbered as in M. Gulian's talk.
The multi-term loss is Eq. 6, and its least-squares problem for the last layer Eq. 11: every
operator acts on the columns, whatever trains the hidden layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import ParametricBasis, Report, Rows, TrainingResult
from skpou.core.models import LinearModel, Stage
from skpou.core.optim import Descent, Iterate, ProjectedProblem
from skpou.equations import (
    UNSOLVED,
    CollocationSystem,
    Problem,
    Sentence,
    Tangent,
    criterion,
    doubted,
    fitted_model,
    hidden_jump,
    judged,
    residual_on_lines,
    stacked,
    told_by_smoothness,
)
from skpou.equations import Iterate as Solution
from skpou.lsgd.fit import NetworkOptions, NetworkTraining
from skpou.lsgd.joint import NonlinearDescent, NonlinearProblem
from skpou.networks import INITIALIZATIONS, Coordinates, Network, NetworkBasis, NetworkDerivatives

#: Steps after which a descent is looked at, and the factor of the residual at the points from which
#: on that between them tells of a false solution.
LOOK, FALSE = 10, 10.0
#: Ridge of the posterior where none is given: some units of round-off of the largest column.
ALPHA = 1e-15
#: Most coefficients and parameters whose posterior is kept, 16 MB of a saved model: beyond, hidden
#: layers are taken for given.
MOST_FREE = 1414


class _ObeyedAtThePointsAlone(Exception):
    """Too few points for so many parameters; leaves a descent."""


@dataclass(frozen=True)
class RowSet:
    """Rows at common points: sums of derivatives of the columns, each times a number a point.

    Attributes
    ----------
    factors : dict of (output, coordinates) to Tensor of shape (n,)
    target : Tensor of shape (n,)
    """

    derivatives: NetworkDerivatives
    factors: dict[tuple[int, Coordinates], Tensor]
    target: Tensor


class EquationColumns(ParametricBasis):
    """Rows of data and of affine equations as functions of a network's parameters.

    The columns are those of the network, once for every output.
    """

    def __init__(self, network: Network, sets: Sequence[RowSet], n_outputs: int):
        self.network, self.sets, self.n_outputs = network, list(sets), n_outputs
        self.n_columns = n_outputs * network.n_columns
        self.n_parameters = network.n_parameters

    def rows(self, index: slice | Tensor) -> ParametricBasis:
        """The same columns at some of the rows."""
        if isinstance(index, slice) and index == slice(None):
            return self
        return SomeRows(self, index)

    def matrix(self, theta: Tensor) -> Tensor:
        """Eq. 11: operators on the columns; see `ParametricBasis.matrix`."""
        p, blocks = self.network.n_columns, []
        for part in self.sets:
            columns = part.derivatives.columns(theta)
            block = theta.new_zeros((len(part.target), self.n_columns))
            for (output, order), factor in part.factors.items():
                block[:, output * p : (output + 1) * p] += factor[:, None] * columns[order]
            blocks.append(block)
        return torch.cat(blocks)

    def _slopes(self, part: RowSet, coef: Tensor, cotangent: Tensor | None = None):
        """Derivatives of the rows with respect to the columns' derivatives."""
        by_output = coef.reshape(self.n_outputs, self.network.n_columns)
        slopes: dict[Coordinates, Tensor] = {}
        for (output, order), factor in part.factors.items():
            factor = factor if cotangent is None else factor * cotangent
            slope = factor[:, None] * by_output[output]
            slopes[order] = slopes[order] + slope if order in slopes else slope
        return slopes

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivatives (N, 1, k) of the rows; see `ParametricBasis.jacobian`."""
        parts = [part.derivatives.chain(theta, self._slopes(part, coef)) for part in self.sets]
        return torch.cat(parts)[:, None, :]

    def gradient(self, theta: Tensor, coef: Tensor, cotangent: Tensor) -> Tensor:
        """Product of the transposed Jacobian with numbers (N, 1)."""
        total, start = theta.new_zeros(self.n_parameters), 0
        for part in self.sets:
            end = start + len(part.target)
            slopes = self._slopes(part, coef, cotangent[start:end, 0])
            total = total + part.derivatives.pull_back(theta, slopes)
            start = end
        return total


class SomeRows(ParametricBasis):
    """Some rows of other columns."""

    def __init__(self, whole: EquationColumns, index: slice | Tensor):
        self.whole, self.index = whole, index
        self.n_columns, self.n_parameters = whole.n_columns, whole.n_parameters

    def matrix(self, theta: Tensor) -> Tensor:
        """See `ParametricBasis.matrix`."""
        return self.whole.matrix(theta)[self.index]

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """See `ParametricBasis.jacobian`."""
        return self.whole.jacobian(theta, coef)[self.index]

    def gradient(self, theta: Tensor, coef: Tensor, cotangent: Tensor) -> Tensor:
        """See `EquationColumns.gradient`."""
        full = cotangent.new_zeros((sum(len(part.target) for part in self.whole.sets), 1))
        full[self.index] = cotangent
        return self.whole.gradient(theta, coef, full)


def row_sets(network: Network, system: CollocationSystem, scales: Sequence[float]) -> list[RowSet]:
    """Rows of a system, which belongs to affine equations, for any parameters of its network."""
    problem, rows = system.problem, system.rows
    n = sum(len(term.x) for term in system.terms) + len(rows.X) * system.n_outputs
    size = math.sqrt(n)  # The mean square over all rows is the sum of the terms' mean squares.
    sets = []
    if len(rows.X):
        derivatives = NetworkDerivatives(network, rows.X, [()])
        root = size * scales[0] * system.root
        for output in range(system.n_outputs):
            sets.append(RowSet(derivatives, {(output, ()): root}, root * system.y[:, output]))
    zero, unknowns = system.zero(), rows.X.new_zeros(0)
    for i, (term, scale) in enumerate(zip(system.terms, scales[1:], strict=True)):
        result, slopes, _ = system.linearised(i, zero, unknowns)
        derivatives = NetworkDerivatives(
            network, term.points, [problem.scaled(key) for key in slopes]
        )
        for k in range(result.shape[1]):
            factors: dict[tuple[int, Coordinates], Tensor] = {}
            for key, slope in slopes.items():
                where = (key[0], tuple(sorted(problem.scaled(key))))
                factor = size * scale * problem.unit(key) * slope[:, k]
                factors[where] = factors[where] + factor if where in factors else factor
            sets.append(RowSet(derivatives, factors, -size * scale * result[:, k]))
    return sets


class EquationNetworkTraining(NetworkTraining):
    """One start of one network on data and equations.

    The loss is the sum of the mean squares of the terms, each in units of its rms row norm at the
    start, times epsilon = W^-1/2 for the equations where the weight is automatic, with W the
    width of the network.

    Parameters
    ----------
    rows : Rows
        Data in scaled units; there may be none.
    before : sequence of Stage, default=()
        Earlier stages, which the network adds to.
    first : Tensor of shape (n_parameters,), default=None
        Hidden layers to start from instead of those of `init`.
    """

    shared = True

    def __init__(
        self,
        rows: Rows,
        equations: Problem,
        options: NetworkOptions,
        rng: np.random.Generator,
        report: Report | None = None,
        before: Sequence[Stage] = (),
        first: Tensor | None = None,
    ):
        self.equations = equations
        network = options.network
        n_inner = network.n_columns * rows.n_outputs + len(equations.unknowns)
        self.determining = equations.determining(network.n_parameters + n_inner)
        if first is None:
            points = torch.cat([rows.X, *(term.points for term in equations.terms)])
            first = INITIALIZATIONS[options.init](options.network, rng, points)
        self.first = first
        basis = NetworkBasis(options.network, first)
        self.base = CollocationSystem(basis, rows, equations.terms, equations, before)
        super().__init__(rows, options, rng, report)

    def start(self) -> Tensor:
        """First parameters of the hidden layers."""
        return self.first

    def _varpro(self, theta: Tensor) -> None:
        """Once more, with the steps that are left, where the points do not determine a solution."""
        try:
            super()._varpro(theta)
        except _ObeyedAtThePointsAlone:
            self.equations, before = self.determining, self.base
            self.base = CollocationSystem(
                before.basis, self.rows, self.equations.terms, self.equations, before.before
            )
            self.progress.best = None  # Its loss is that of other rows.
            self._pose()
            super()._varpro(theta)

    def _show(self, iterate: Iterate) -> None:
        super()._show(iterate)
        n_steps = len(self.progress.curve)
        if self.determining is self.equations or n_steps % LOOK or self.options.solver != "varpro":
            return
        if n_steps + LOOK <= self.options.max_iter and self._is_false(iterate):
            raise _ObeyedAtThePointsAlone

    def _is_false(self, iterate: Iterate) -> bool:
        """Whether the equations are obeyed at their points and not between them."""
        system, solution = self.solution(iterate)
        if system.fresh.relative_residual(solution.coef, solution.unknowns) <= UNSOLVED:
            return False
        own = system.residuals(solution.coef, solution.unknowns)[1:]
        judged = system.at(self.equations.fresh)
        fresh = judged.residuals(solution.coef, solution.unknowns)[1:]
        sizes = {
            term.group: float(part.square().mean())
            for term, part in zip(system.terms, own, strict=True)
            if not term.length
        }
        between = sum(float(part.square().mean()) for part in fresh)
        return between > FALSE**2 * sum(sizes.values())

    def _system(self, theta: Tensor) -> CollocationSystem:
        return self.base.with_basis(NetworkBasis(self.options.network, theta))

    def _problem(self) -> ProjectedProblem:
        network = self.options.network
        system = self._system(self.first)
        first = [unknown.init for unknown in self.equations.unknowns.values()]
        blocks = system.blocks(system.zero(), self.rows.X.new_tensor(first))
        width = max(network.hidden_layer_sizes)
        epsilon = [1.0]
        for term in self.equations.terms:
            epsilon.append(width**-0.25 if term.rule == "auto" else 1.0)  # Eq. 14, squared there
        self.scales = [s * e for s, e in zip(system.scales(blocks), epsilon, strict=True)]
        if not self.equations.is_affine:
            self.quick = False  # Large coefficients leave no way for the inner problem.
            follows = self.options.solver != "varpro"
            return NonlinearProblem(network, system, self.scales, follows)
        columns = EquationColumns(network, row_sets(network, system, self.scales), system.n_outputs)
        y = torch.cat([part.target for part in columns.sets])[:, None]
        return ProjectedProblem(
            columns, y, torch.ones_like(y[:, 0]), relative=True, batch_size=self.options.batch_size
        )

    def first_slopes(self) -> tuple[Tensor, Tensor]:
        """Rows (N, p m) of the coefficients at nothing, and what nothing leaves over (N, 1)."""
        first = [unknown.init for unknown in self.equations.unknowns.values()]
        blocks = self.base.blocks(self.base.zero(), self.rows.X.new_tensor(first))
        residual, jacobian = stacked(blocks, self.scales)
        return jacobian[:, : self.base.n_coefficients], residual[:, None]

    def _zero(self) -> Tensor:
        """Coefficients of all outputs, and the unknowns where they start, (N, 1)."""
        if isinstance(self.problem, NonlinearProblem):
            return self.problem.anchor[:, None].clone()
        return self.first.new_zeros((self.problem.basis.n_columns, 1))

    def _descent(self) -> Descent:
        if self.equations.is_affine:
            return super()._descent()
        options = self.options
        return NonlinearDescent(self.problem, options.learning_rate, options.batch_size, self.rng)

    def solution(self, best: Iterate) -> tuple[CollocationSystem, Solution]:
        """Rows at some hidden layers, with their coefficients and unknowns."""
        system = self._system(best.theta)
        inner, size = best.coef[:, 0], system.n_coefficients
        coef = inner[:size].reshape(system.n_outputs, system.n_columns).T.contiguous()
        return system, Solution(coef, inner[size:], best.loss)

    def _finish(self, best: Iterate) -> tuple[LinearModel, float, float]:
        """Linear model, its score and the ridge of its coefficients."""
        system, solution = self.solution(best)
        self.found = system, solution
        alpha = self.options.alpha
        alpha = math.sqrt(best.ridge) if alpha is None else alpha
        tangent, open_ones = self._tangent(best, solution), told_by_smoothness(system, solution)
        model, self.reported = fitted_model(
            system, solution, self.scales, max(alpha, ALPHA), tangent, open_ones
        )
        return model, criterion(system, solution, self.scales), alpha

    def _tangent(self, best: Iterate, solution: Solution) -> Tangent | None:
        """Derivatives by the hidden layers, which are as free as the coefficients."""
        network, theta = self.options.network, best.theta
        if not 0 < network.n_parameters + len(best.coef) <= MOST_FREE:
            return None
        linear = NonlinearProblem(network, self.base, self.scales)
        rows = linear.jacobian_at(theta, best.coef[:, 0])[:, 0] / math.sqrt(len(linear.y))
        basis = NetworkBasis(network, theta, solution.coef)
        size = theta.abs()
        # A steep unit has parameters of its own size, others at least those of their kind.
        sizes = size.clamp_min(float(size.median()) or 1.0)
        return Tangent(rows, basis, sizes)

    def finished(self) -> TrainingResult:
        """The result of the best iterate so far, whoever found it."""
        return self._result()

    def _result(self) -> TrainingResult:
        result = super()._result()
        result.chosen.update(self.reported)
        if result.code not in ("converged", "max_iter"):
            return result
        # At its own points, and at any few, a network may have next to no residual and be no
        # solution.
        system, solution = self.found
        code, message, holds = judged(system, solution, result.code, result.message, self.reported)
        said = []
        if self.reported["by_smoothness"]:
            said.append(Sentence.SMOOTH_ALONE.about(self.reported["by_smoothness"]))
        jump, left = hidden_jump(system, solution.coef), 0.0
        if jump > UNSOLVED:
            said.append(Sentence.JUMPS.format(jump))
        if code == "converged" or message == result.message:
            left = residual_on_lines(system, solution.coef, solution.unknowns)
        if left > UNSOLVED:
            said.append(Sentence.UNSOLVED.format(left))
        code, message = "max_iter" if said else code, " ".join([*said, message]).strip()
        solved = not (jump > UNSOLVED or left > UNSOLVED)
        chosen = {**result.chosen, "holds": holds and solved}
        return replace(result, code=code, message=message, chosen=chosen)


def with_doubts(result: TrainingResult, equations: Problem) -> TrainingResult:
    """The last result of a training, with wide bars where it solves nothing.

    Those of a stage are as narrow as they are for the stages after it, which may solve what it
    does not.
    """
    if result.chosen.get("holds", True):
        return result
    return replace(result, state=doubted(result.state, equations.terms[0].points))


def fit_equation_network(
    rows: Rows,
    equations: Problem,
    options: NetworkOptions,
    rng: np.random.Generator,
    report: Report | None = None,
) -> TrainingResult:
    """Train a network of a given size on data and equations, affine or not.

    Parameters
    ----------
    rows : Rows
        Data in scaled units; there may be none.

    Returns
    -------
    TrainingResult
        Its state is a `LinearModel`, its score the criterion on fresh points.
    """
    training = EquationNetworkTraining(rows, equations, options, rng, report)
    return with_doubts(training.run(), equations)
