"""Training where the equations are not affine: the inner problem takes a few steps.

For given hidden layers the coefficients and the unknown constants solve a small nonlinear
least-squares problem, by Gauss-Newton from where the last ones were. At its solution everything
is as in the linear case: variable projection sees what is left in the complement of its Jacobian,
and a gradient is that of the loss with the coefficients held fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from skpou.core import ParametricBasis
from skpou.core.linalg import back_substitute, split_factor, triangular_factor
from skpou.core.optim import Descent, LinearModel, ProjectedFit, ProjectedProblem, TriangularModel
from skpou.equations import CollocationSystem, inside, norm, stacked
from skpou.networks import Coordinates, Network, NetworkBasis, NetworkDerivatives

#: Steps of the inner problem, and the gain below which it is done: each begins where the last one
#: ended, so that more accuracy than the outer step has would be lost.
INNER_STEPS, INNER_GAIN = 6, 1e-3
#: Most steps that are tried from one place, each a quarter of the one before: the last is 1/256.
TRIES, SHORTER = 5, 4


class NonlinearRows(ParametricBasis):
    """Rows of data and equations as functions of the hidden layers and of the inner problem.

    Parameters
    ----------
    index : slice or Tensor, default=slice(None)
        Which of the rows.
    """

    def __init__(self, problem: NonlinearProblem, index: slice | Tensor = slice(None)):
        self.problem, self.index = problem, index
        self.n_parameters = problem.network.n_parameters
        self.n_columns = len(problem.anchor)

    def rows(self, index: slice | Tensor) -> NonlinearRows:
        """Some of all rows."""
        return NonlinearRows(self.problem, index)

    def linearised(self, theta: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Residual (n,) and derivatives (n, p m + q) by the inner problem's vector."""
        problem = self.problem
        blocks = problem.system(theta).blocks(*problem.split(inner))
        residual, A = stacked(blocks, problem.scales)
        return residual[self.index], A[self.index]

    def matrix(self, theta: Tensor) -> Tensor:
        """Derivatives where the inner problem starts; see `ParametricBasis.matrix`."""
        return self.linearised(theta, self.problem.anchor)[1]

    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivatives (n, 1, k) of the rows by the hidden layers."""
        return self.problem.jacobian_at(theta, coef[:, 0])[self.index]

    def gradient(self, theta: Tensor, coef: Tensor, cotangent: Tensor) -> Tensor:
        """Product of the transposed Jacobian with numbers (n, 1)."""
        full = cotangent.new_zeros(len(self.problem.y))
        full[self.index] = cotangent[:, 0]
        return self.problem.pull_back(theta, coef[:, 0], full)


class NonlinearDescent(Descent):
    """`Descent` whose rows are not linear in the coefficients, unknown constants among these."""

    def linearised(
        self, basis: Any, theta: Tensor, coef: Tensor, y: Tensor, root: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """See `Descent.linearised`; y is none of the targets, these are within the rows."""
        residual, A = basis.linearised(theta, coef[:, 0])
        return A, residual[:, None], float(residual.square().sum())

    def confined(self, coef: Tensor) -> Tensor:
        """Unknown constants within their bounds."""
        return self.problem.confined(coef[:, 0])[:, None]


class NonlinearProblem(ProjectedProblem):
    """Coefficients and unknowns eliminated by Gauss-Newton, for any hidden layers.

    Its coefficients are those of the outputs, one after the other, and then the unknowns.

    Parameters
    ----------
    system : CollocationSystem
        Data and equations, after earlier stages if there are any, for any hidden layers.
    scales : sequence of float
        Factors of data and equations.
    follows : bool, default=False
        Whether each inner problem starts from the solution of the last; otherwise from where
        `linearise` was last called.
    """

    def __init__(
        self,
        network: Network,
        system: CollocationSystem,
        scales: Sequence[float],
        follows: bool = False,
    ):
        self.follows = follows
        self.network, self.rows, self.equations = network, system.rows, system.problem
        self.base = system
        rows, equations = self.rows, self.equations
        self.data = NetworkDerivatives(network, rows.X, [()])
        self.derivatives = [
            NetworkDerivatives(
                network, t.points, [equations.scaled(key) for key in t.pointwise.keys]
            )
            for t in equations.terms
        ]
        theta = rows.X.new_zeros(network.n_parameters)
        system = self.system(theta)
        first = [unknown.init for unknown in equations.unknowns.values()]
        unknowns = rows.X.new_tensor(first)
        found = system.residuals(system.zero(), unknowns)
        size = math.sqrt(sum(map(len, found)))
        self.scales = [size * s for s in scales]
        y = torch.cat([s * r for s, r in zip(self.scales, found, strict=True)])[:, None]
        self.anchor = torch.cat([rows.X.new_zeros(system.n_coefficients), unknowns])
        super().__init__(NonlinearRows(self), y, torch.ones_like(y[:, 0]), relative=True)

    def system(self, theta: Tensor) -> CollocationSystem:
        """Rows for the columns of some hidden layers."""
        return self.base.with_basis(NetworkBasis(self.network, theta))

    def split(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (p, m) and unknowns (q,) of the inner problem's vector."""
        q = len(self.equations.unknowns)
        coef = inner[: len(inner) - q].reshape(self.rows.n_outputs, -1).T
        return coef, inner[len(inner) - q :]

    def confined(self, inner: Tensor) -> Tensor:
        """The inner problem's vector with the unknowns moved into their bounds."""
        q = len(self.equations.unknowns)
        if not q:
            return inner
        limits = list(self.equations.unknowns.values())
        return torch.cat([inner[:-q], inside(inner[-q:], limits)])

    def solve(self, theta: Tensor, ridge: float) -> ProjectedFit:
        """Solve the inner problem from the anchor; see `ProjectedProblem.solve`."""
        system, inner = self.system(theta), self.anchor
        residual, A = stacked(system.blocks(*self.split(inner)), self.scales)
        strength = self._strength(A, ridge)

        def value_of(inner: Tensor) -> float:
            size = norm(system.residuals(*self.split(inner)), self.scales)
            return size**2 + float((strength * inner).square().sum())

        value = value_of(inner)
        for _ in range(INNER_STEPS):
            if not bool(torch.isfinite(A).all()):
                break
            step = -_ridge_step(A, residual, strength, inner)
            tried, moved = math.inf, inner
            for _ in range(TRIES):
                moved = self.confined(inner + step)
                tried = value_of(moved)
                if tried < value:
                    break
                step = step / SHORTER
            if not tried < value:
                break
            gained = tried < (1 - INNER_GAIN) * value
            inner, value = moved, tried
            residual, A = stacked(system.blocks(*self.split(inner)), self.scales)
            if not gained:
                break
        p = len(inner)
        R = triangular_factor(torch.cat([A, A.new_full((p,), strength).diag()]))
        value = value if math.isfinite(value) else math.inf
        if self.follows and math.isfinite(value):
            self.anchor = inner
        return ProjectedFit(theta, inner[:, None], value, A, R, residual[:, None], strength)

    def _slopes(self, system: CollocationSystem, i: int, coef: Tensor, unknowns: Tensor):
        """Derivatives (n, k) of a term's rows by the derivatives of the columns' sums."""
        _, by_value, _ = system.linearised(i, coef, unknowns)
        for key, slope in by_value.items():
            order = tuple(sorted(self.equations.scaled(key)))
            yield key[0], order, self.equations.unit(key) * slope

    def jacobian(self, fit: ProjectedFit) -> Tensor:
        """Derivatives (N, 1, k) of the weighted rows by the hidden layers."""
        return self.jacobian_at(fit.theta, fit.coef[:, 0])

    def jacobian_at(self, theta: Tensor, inner: Tensor) -> Tensor:
        """Derivatives (N, 1, k) of the weighted rows at some inner vector."""
        system = self.system(theta)
        coef, unknowns = self.split(inner)
        root = system.root[:, None]
        parts = [self.scales[0] * self.data.chain(theta, {(): root * column}) for column in coef.T]
        for i, scale in enumerate(self.scales[1:]):
            found = list(self._slopes(system, i, coef, unknowns))
            columns = []
            for k in range(found[0][2].shape[1]):
                slopes: dict[Coordinates, Tensor] = {}
                for output, order, slope in found:
                    part = slope[:, k, None] * coef[:, output]
                    slopes[order] = slopes[order] + part if order in slopes else part
                columns.append(scale * self.derivatives[i].chain(theta, slopes))
            parts.append(torch.stack(columns, 1).flatten(0, 1))
        return torch.cat(parts)[:, None, :]

    def pull_back(self, theta: Tensor, inner: Tensor, cotangent: Tensor) -> Tensor:
        """Product of the transposed Jacobian by the hidden layers with numbers (N,)."""
        system = self.system(theta)
        coef, unknowns = self.split(inner)
        n, m = len(self.rows.X), self.rows.n_outputs
        own = self.scales[0] * system.root[:, None] * cotangent[: n * m].reshape(m, n).T
        total, start = self.data.pull_back(theta, {(): own @ coef.T}), n * m
        for i, scale in enumerate(self.scales[1:]):
            found = list(self._slopes(system, i, coef, unknowns))
            shape = found[0][2].shape
            own = scale * cotangent[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
            slopes: dict[Coordinates, Tensor] = {}
            for output, order, slope in found:
                part = (slope * own).sum(1)[:, None] * coef[:, output]
                slopes[order] = slopes[order] + part if order in slopes else part
            total = total + self.derivatives[i].pull_back(theta, slopes)
        return total

    def linearise(self, fit: ProjectedFit) -> LinearModel:
        """Linear model of what the inner problem leaves over; the next one starts from here."""
        self.anchor = fit.coef[:, 0]
        return TriangularModel(fit.linearise(self.jacobian(fit)))


def _ridge_step(A: Tensor, residual: Tensor, strength: float, inner: Tensor) -> Tensor:
    """Minimiser of ``|A s - r|^2 + strength^2 |s - inner|^2``."""
    p = len(inner)
    above = torch.cat([A, residual[:, None]], 1)
    below = torch.cat([A.new_full((p,), strength).diag(), (strength * inner)[:, None]], 1)
    R, projected, _ = split_factor(triangular_factor(torch.cat([above, below])), p)
    step = back_substitute(R, projected)[:, 0]
    return torch.where(torch.isfinite(step), step, 0.0)
