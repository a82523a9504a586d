"""Variable projection where the equations are not affine: the inner problem takes a few steps.

For given hidden layers the coefficients and the unknown constants solve a small nonlinear
least-squares problem, by Gauss-Newton from where the last ones were. At its solution everything
is as in the linear case: the hidden layers see what is left in the complement of its Jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skpou.core.linalg import back_substitute, split_factor, triangular_factor
from skpou.core.optim import LinearModel, ProjectedFit, ProjectedProblem, TriangularModel
from skpou.equations import CollocationSystem, inside, norm, stacked
from skpou.networks import Coordinates, Network, NetworkBasis, NetworkColumns, NetworkDerivatives

#: Steps of the inner problem, and the gain below which it is done: each begins where the last one
#: ended, so that more accuracy than the outer step has would be lost.
INNER_STEPS, INNER_GAIN = 6, 1e-3
#: Most steps that are tried from one place, each a quarter of the one before: the last is 1/256.
TRIES, SHORTER = 5, 4


class NonlinearProblem(ProjectedProblem):
    """Coefficients and unknowns eliminated by Gauss-Newton, for any hidden layers.

    Its coefficients are those of the outputs, one after the other, and then the unknowns.

    Parameters
    ----------
    network : Network
    system : CollocationSystem
        Data and equations, after earlier stages if there are any, for any hidden layers.
    scales : sequence of float
        Factors of data and equations.
    """

    def __init__(self, network: Network, system: CollocationSystem, scales: Sequence[float]):
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
        super().__init__(
            NetworkColumns(network, rows.X), y, torch.ones_like(y[:, 0]), relative=True
        )
        self.anchor = torch.cat([rows.X.new_zeros(system.n_coefficients), unknowns])

    def system(self, theta: Tensor) -> CollocationSystem:
        """Rows for the columns of some hidden layers."""
        return self.base.with_basis(NetworkBasis(self.network, theta))

    def split(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (p, m) and unknowns (q,) of the inner problem's vector."""
        q = len(self.equations.unknowns)
        coef = inner[: len(inner) - q].reshape(self.rows.n_outputs, -1).T
        return coef, inner[len(inner) - q :]

    def _moved(self, inner: Tensor, step: Tensor) -> Tensor:
        q = len(self.equations.unknowns)
        moved = inner + step
        if q:
            limits = list(self.equations.unknowns.values())
            moved = torch.cat([moved[:-q], inside(moved[-q:], limits)])
        return moved

    def solve(self, theta: Tensor, ridge: float) -> ProjectedFit:
        """Solve the inner problem from the anchor; see `ProjectedProblem.solve`."""
        system, inner = self.system(theta), self.anchor
        residual, A = stacked(system.blocks(*self.split(inner)), self.scales)
        if self.unit is None:
            largest = float(A.square().sum(0).max())
            self.unit = largest if math.isfinite(largest) else self.total
        strength = math.sqrt(ridge * self.unit)

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
                moved = self._moved(inner, step)
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
        return ProjectedFit(theta, inner[:, None], value, A, R, residual[:, None], strength)

    def jacobian(self, fit: ProjectedFit) -> Tensor:
        """Derivatives (N, 1, k) of the weighted rows by the hidden layers."""
        system = self.system(fit.theta)
        coef, unknowns = self.split(fit.coef[:, 0])
        root = system.root[:, None]
        parts = [
            self.scales[0] * self.data.chain(fit.theta, {(): root * column}) for column in coef.T
        ]
        for i, scale in enumerate(self.scales[1:]):
            _, by_value, _ = system.linearised(i, coef, unknowns)
            columns = []
            for k in range(next(iter(by_value.values())).shape[1]):
                slopes: dict[Coordinates, Tensor] = {}
                for key, slope in by_value.items():
                    order = tuple(sorted(self.equations.scaled(key)))
                    part = self.equations.unit(key) * slope[:, k, None] * coef[:, key[0]]
                    slopes[order] = slopes[order] + part if order in slopes else part
                columns.append(scale * self.derivatives[i].chain(fit.theta, slopes))
            parts.append(torch.stack(columns, 1).flatten(0, 1))
        return torch.cat(parts)[:, None, :]

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
