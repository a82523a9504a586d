"""The fitted sparse grid function that training returns, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skpou.core import Rows, to_array, to_tensor
from skpou.core.models import (
    MOST_TOGETHER,
    Components,
    Maker,
    is_exact,
    residual_maker,
    residual_makers,
)
from skpou.sparse_grids.basis.grid import SparseGrid

#: Most columns that are decomposed; of more, the kernel of the rows.
MOST_COLUMNS = 3000
#: Numbers that a prediction allocates for each point and column, or row whose kernel is kept, and
#: without either.
NUMBERS_A_COLUMN, NUMBERS_A_ROW, NUMBERS_ELSE = 3, 4, 100
#: Most that are counted: a thousand rows a block at least, since a block reads the whole factor.
MOST_NUMBERS = 2000
#: How the variance of the coefficients is kept.
COLUMNS, ROWS = "columns", "rows"


@dataclass
class Posterior:
    """Covariance of the coefficients for unit noise, in one of two forms.

    Attributes
    ----------
    kind : {"columns", "rows"}
        What `factor` belongs to.
    factor : Tensor
        ``"columns"``: lower Cholesky factor (k, k) of the whitened Gram matrix of the first k
        columns. ``"rows"``: that (n, n) of the rows' kernel.
    rest : Tensor of shape (p - k,)
        Diagonal of the Gram matrix of the other columns, taken for independent.
    decay : float
        Growth of the ridge from one level to the next.
    ridge : float
        Ridge lambda of level 1.
    points : Tensor of shape (n, d)
        Training points of ``"rows"``; empty otherwise.
    root : Tensor of shape (n, 1)
        Roots of their weights.
    """

    kind: str
    factor: Tensor
    rest: Tensor
    decay: float
    ridge: float
    points: Tensor
    root: Tensor


class SparseGridModel:
    """Function on a sparse grid with Gaussian noise, in scaled units.

    Parameters
    ----------
    active : Tensor of shape (p,), int64, or None
        Functions of the grid that have coefficients; None: all, in their order.
    coef : Tensor of shape (p, m)
        Coefficients (surpluses).
    noise : Tensor of shape (m,)
        Noise variance of every target.
    posterior : Posterior
        Covariance of the coefficients for unit noise.
    """

    def __init__(
        self,
        grid: SparseGrid,
        active: Tensor | None,
        coef: Tensor,
        noise: Tensor,
        posterior: Posterior,
    ):
        self.grid = grid
        self.active = active
        self.coef = coef
        self.noise = noise
        self.posterior = posterior

    @property
    def n_columns(self) -> int:
        """Number p of grid points."""
        return len(self.coef)

    def of_all_functions(self) -> Tensor:
        """Coefficients (G, m) with zeros for functions that have none."""
        coef = self.coef
        if self.active is None:
            return coef
        full = coef.new_zeros((self.grid.n_columns, coef.shape[1]))
        return full.index_copy_(0, self.active, coef)

    def columns(self, X: Tensor) -> Tensor:
        """Active columns (n, p) of the basis matrix."""
        return self._columns(X, *self.grid.nonzeros(X))

    def _columns(self, X: Tensor, values: Tensor, functions: Tensor) -> Tensor:
        """The same from the functions that are not zero at the points."""
        p = self.n_columns
        if self._column_of is not None:
            functions = self._column_of[functions]
        return X.new_zeros((len(X), p + 1)).scatter_(1, functions, values)[:, :p]

    def mean(self, X: Tensor) -> Tensor:
        """Values (n, m) at points X (n, d), in the precision of the model."""
        return self.grid.evaluate(X.to(self.coef), self.of_all_functions())

    def gradient(self, X: Tensor) -> Tensor:
        """Gradients (n, d, m) at points; at a kink of a hat function that to its right."""
        X, coef = X.to(self.coef), self.of_all_functions()
        if X.shape[1] == 0:
            return X.new_zeros((len(X), 0, coef.shape[1]))
        return self.grid.slopes(X, coef).transpose(1, 2).contiguous()

    def variance(self, X: Tensor) -> Tensor:
        """Variance (n,) of the function at points X (n, d) for unit noise."""
        X, state = X.to(self.coef), self.posterior
        if state.kind == COLUMNS:
            return self._variance_of(self.columns(X))
        return self._variance_by_rows(X)

    def _variance_of(self, columns: Tensor) -> Tensor:
        """The same from the active columns."""
        state = self.posterior
        reduced, columns = self._reduced_columns(columns)
        others = columns.square() @ (1 / state.rest) if len(state.rest) else 0.0
        return reduced.square().sum(0) + others

    def _variance_by_rows(self, X: Tensor) -> Tensor:
        state, reduced = self.posterior, self._reduced_rows(X)
        own = self._kernel_diagonal(X)
        # The difference is exact to round-off of the prior's variance; what the rows' noise
        # leaves is a sum of squares, below which it cannot fall.
        dual = torch.linalg.solve_triangular(state.factor.T, reduced, upper=True)
        least = dual.square().sum(0)
        return torch.maximum((own - reduced.square().sum(0)) / state.ridge, least)

    def _reduced_columns(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The first columns, solved for by the factor, (k, n), and the others (n, p - k)."""
        state = self.posterior
        k = len(state.factor)
        whitened = columns[:, :k] * self._roots
        reduced = torch.linalg.solve_triangular(state.factor, whitened.T, upper=False)
        return reduced, columns[:, k:]

    def _reduced_rows(self, X: Tensor) -> Tensor:
        """Kernel (n_rows, n) of the rows and points X (n, d), solved for by the factor."""
        state = self.posterior
        cross = self._kernel(state.points, X) * state.root
        return torch.linalg.solve_triangular(state.factor, cross, upper=False)

    def covariance(self, X: Tensor) -> Tensor:
        """Covariances (n, n, m), in float64, of which the epistemic variance is the diagonal."""
        X, state = X.to(self.coef), self.posterior
        if state.kind == COLUMNS:
            reduced, columns = self._reduced_columns(self.columns(X))
            shared = reduced.T @ reduced
            if len(state.rest):
                shared = shared + (columns / state.rest) @ columns.T
        else:
            reduced = self._reduced_rows(X)
            shared = (self._kernel(X, X) - reduced.T @ reduced) / state.ridge
            # `variance` knows its least value; the difference alone may fall below it.
            shared.diagonal().copy_(self.variance(X))
        return shared.double()[..., None] * self.noise.double()

    def _kernel(self, A: Tensor, B: Tensor) -> Tensor:
        """Covariance (k, l) of the function at two sets of points for the ridge 1, a priori."""
        decay = self.posterior.decay
        if self.active is None:
            return self.grid.kernel(A, B, decay)
        return (self.columns(A) * decay ** -self.costs(A)) @ self.columns(B).T

    def _kernel_diagonal(self, X: Tensor) -> Tensor:
        """Its variance (n,)."""
        decay = self.posterior.decay
        if self.active is None:
            return self.grid.kernel_diagonal(X, decay)
        return self.columns(X).square() @ decay ** -self.costs(X)

    @cached_property
    def _column_of(self) -> Tensor | None:
        """Column of every function, p where it has none; None where each has its own."""
        if self.active is None:
            return None
        p, device = self.n_columns, self.active.device
        column_of = torch.full((self.grid.n_columns,), p, device=device)
        column_of[self.active] = torch.arange(p, device=device)
        return column_of

    @cached_property
    def _roots(self) -> Tensor:
        """Prior standard deviations of the first columns, in units of level 1."""
        k = len(self.posterior.factor)
        return self.posterior.decay ** (-0.5 * self.costs(self.coef)[:k])

    def costs(self, like: Tensor) -> Tensor:
        """What the levels of every column cost, (p,)."""
        costs = torch.as_tensor(self.grid.costs(), device=like.device).to(like.dtype)
        return costs if self.active is None else costs[self.active]

    def components(self, X: Tensor, posterior: bool = True) -> Components:
        """The density ``p(y | x)``: one Gaussian at every point.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        posterior : bool, default=True
            Also evaluate the variance of the function; zero otherwise.
        """
        log_pi, noise = self.coef.new_zeros((len(X), 1)), self.noise[None]
        if not posterior:
            mean = self.mean(X)[:, None]
            return Components(log_pi, mean, noise, torch.zeros_like(mean[:1]))
        mean, variance = self.mean_and_variance(X)
        return Components(log_pi, mean[:, None], noise, variance[:, None, None] * noise)

    def mean_and_variance(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """`mean` and `variance` at the same points."""
        if self.posterior.kind != COLUMNS:
            return self.mean(X), self.variance(X)
        X = X.to(self.coef)
        mean, *nonzeros = self.grid.evaluate_with_nonzeros(X, self.of_all_functions())
        return mean, self._variance_of(self._columns(X, *nonzeros))

    def residual_makers(self, rows: Rows, beside: Tensor | None = None) -> list[list[Maker]]:
        """Of the columns with the fit's own ridge, or every one where the fit is exact.

        Further columns (n, q) are those of what else the rows have told, `beside` the
        coefficients, in units in which it is as large as these.
        """
        if rows.n_rows > MOST_TOGETHER:
            return []
        X = rows.X.to(self.coef)
        if self.n_columns > MOST_COLUMNS:
            values, vectors = torch.linalg.eigh(self._kernel(X, X))
            columns = vectors * values.clamp_min(0).sqrt()
        else:
            columns = self.columns(X) * self.posterior.decay ** (-0.5 * self.costs(X))
        if beside is not None:
            columns = torch.cat([columns, beside.to(columns)], 1)
        columns = columns.double() * rows.weight.sqrt()[:, None]
        if is_exact(self.noise):
            return [residual_makers(columns)]
        return [[residual_maker(columns, self.posterior.ridge)]]

    def flattened(self, targets: Tensor) -> SparseGridModel:
        """The same with some targets (m,), bool, replaced by their mean; see `Flattening`."""
        coef, noise = self.coef.masked_fill(targets, 0.0), self.noise.masked_fill(targets, 1.0)
        return SparseGridModel(self.grid, self.active, coef, noise, self.posterior)

    def numbers_per_row(self) -> int:
        """Numbers that `components` allocates for each point, to size blocks of rows."""
        columns = {
            COLUMNS: NUMBERS_A_COLUMN * self.n_columns,
            ROWS: NUMBERS_A_ROW * len(self.posterior.points),
        }
        own = columns.get(self.posterior.kind, NUMBERS_ELSE)
        return min(self.grid.numbers_per_row() + own, MOST_NUMBERS)

    # State

    def arrays(self) -> dict:
        """State as numpy arrays, numbers and strings."""
        state, regular = self.posterior, self.active is None
        parts = {
            "vectors": None if regular else self.grid.plan.vectors,
            "active": None if self.active is None else self.active.cpu().numpy(),
        }
        tensors = {
            "coef": self.coef,
            "noise": self.noise,
            "factor": state.factor,
            "rest": state.rest,
            "points": state.points,
            "root": state.root,
        }
        return {
            **self.grid.arrays(),
            "kind": state.kind,
            "decay": state.decay,
            "ridge": state.ridge,
            **{name: part for name, part in parts.items() if part is not None},
            # Contiguous: saving makes it so, and another layout gives other last bits.
            **{name: to_array(value) for name, value in tensors.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: dict, like: Tensor) -> SparseGridModel:
        """Rebuild a model from `arrays`, on the device and in the dtype of `like`."""

        def tensor(name: str) -> Tensor:
            return to_tensor(arrays[name], like, like.dtype)

        grid, active = SparseGrid.from_arrays(arrays), None
        if arrays.get("vectors") is not None:
            active = to_tensor(arrays["active"], like)
        posterior = Posterior(
            arrays["kind"],
            tensor("factor"),
            tensor("rest"),
            arrays["decay"],
            arrays["ridge"],
            tensor("points"),
            tensor("root"),
        )
        return cls(grid, active, tensor("coef"), tensor("noise"), posterior)
