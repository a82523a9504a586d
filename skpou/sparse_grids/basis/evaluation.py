"""Evaluation of sparse grid functions: one term a level vector, without a hash.

At a point each level vector has exactly one function that is not zero. Its number follows from
the cells that the point falls into, in closed form, so a value costs M products, M the number of
level vectors. Products are rows (M, rows of a block): a step multiplies neighbouring rows by one
row, and memory is read in its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skpou.sparse_grids.basis.plans import CONSTANT, HAT, LEFT, MODIFIED, Factors, Plan

#: Numbers held at a time, which should stay in a core's cache, and the least rows of a block.
BLOCK = {"cpu": (400_000, 256), "cuda": (50_000_000, 4096)}
#: Points, and factors of products at all of them, up to which the steps of a plan take longer than
#: what they multiply.
FEW_ROWS, FEW_FACTORS = 16, 200_000
#: Least rows of a block where a row needs columns beside: these are read as often anyway.
FEW_ROWS_OF_COLUMNS = 64
#: Outputs from which on a dense block of the basis matrix is worth it where no more than so many
#: functions are for one that is not zero at a point.
DENSE_OUTPUTS, DENSE_ZEROS = 3, 16


class FactorTable:
    """Values, cells and slopes of all one-dimensional factors at some points.

    Outside the box the pieces at the faces go on linearly.
    """

    def __init__(self, factors: Factors, like: Tensor):
        def column(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(values, device=like.device)[:, None].to(dtype)

        self.scale = column(2.0**factors.shift, like.dtype)
        self.last_cell = self.scale - 1
        self.modified = column(factors.kind == MODIFIED, torch.bool)
        self.any_modified = bool((factors.kind == MODIFIED).any())
        self.is_quadratic = factors.basis == "quadratic"
        # Level 2 has one point below it at each face: no parabola.
        self.straight = column(factors.level == 2, torch.bool)
        # The few factors that are no hats.
        self.others = [(i, int(k)) for i, k in enumerate(factors.kind) if k not in (HAT, MODIFIED)]

    def cells_and_fractions(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Cells and the points' places in them, each (d, S, n); places outside [0, 1] outside."""
        z = X.T[:, None, :] * self.scale
        # The cell is clamped, not the point: a point on a face belongs to the cell inside.
        cell = torch.minimum(z.floor().clamp_(min=0), self.last_cell)
        return cell, z.sub_(cell)

    def _parabolas(self, cell: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the quadratic functions, and slopes by the place f in the cell.

        Outside the box they go on along their tangents at the face.
        """
        inside = f.clamp(0.0, 1.0)
        value, slope = 4 * inside * (1 - inside), 4 - 8 * inside
        if self.any_modified:
            for face, g, sign in ((0, inside, 1), (self.scale - 1, 1 - inside, -1)):
                # One in the middle, zero at the cell's inner end and one cell further.
                at = self.modified & (cell == face)
                bent = torch.where(self.straight, 2 - 2 * g, 4 / 3 * (1 - g) * (2 - g))
                steep = torch.where(self.straight, -2.0, 4 / 3 * (2 * g - 3))
                value = torch.where(at, bent, value)
                slope = torch.where(at, sign * steep, slope)
        return value + (f - inside) * slope, slope

    def values(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Values (d S, n) and cells (d S, n), int64, of the factors at points X (n, d)."""
        cell, f = self.cells_and_fractions(X)
        rise = 2 * f
        if self.is_quadratic:
            value, _ = self._parabolas(cell, f)
        else:
            value = 1 - (rise - 1).abs_()  # Eq. 2.2 on the support
        if self.any_modified and not self.is_quadratic:
            left = self.modified & (cell == 0)
            right = self.modified & (cell == self.last_cell)
            value = torch.where(left, 2 - rise, torch.where(right, rise, value))
        for i, kind in self.others:
            value[:, i] = 1.0 if kind == CONSTANT else 1 - X.T if kind == LEFT else X.T
        return value.flatten(0, 1), cell.to(torch.int64).flatten(0, 1)

    def factors_at(self, X: Tensor, differentiated: int | None) -> tuple[Tensor, Tensor]:
        """See `values`; those of a coordinate may be replaced by their slopes."""
        values, cells = self.values(X)
        if differentiated is not None:
            values.unflatten(0, (X.shape[1], -1))[differentiated] = self.slopes(X)[differentiated]
        return values, cells

    def slopes(self, X: Tensor) -> Tensor:
        """Derivatives (d, S, n) of the factors; at a kink that to its right."""
        cell, f = self.cells_and_fractions(X)
        if self.is_quadratic:
            slope = self._parabolas(cell, f)[1] * self.scale
        else:
            slope = torch.where(f < 0.5, 2.0, -2.0).to(X.dtype) * self.scale
        if self.any_modified and not self.is_quadratic:
            left = self.modified & (cell == 0)
            right = self.modified & (cell == self.last_cell)
            sided = torch.where(left, -2 * self.scale, 2 * self.scale)
            slope = torch.where(left | right, sided, slope)
        for i, kind in self.others:
            slope[:, i] = 0.0 if kind == CONSTANT else -1.0 if kind == LEFT else 1.0
        return slope


class _Steps(NamedTuple):
    """Tensors of a plan that every block of points needs: of its table, rows and parents."""

    table: FactorTable
    rows: Tensor
    offsets: Tensor
    parents: list[tuple[Tensor, Tensor] | None]

    @classmethod
    def of(cls, plan: Plan, factors: Factors, like: Tensor) -> _Steps:
        """Those of a plan, which are made once."""
        key = ("steps", like.device, like.dtype, factors.basis)
        if key not in plan.tables:
            plan.tables[key] = cls._made(plan, FactorTable(factors, like), like.device)
        return plan.tables[key]

    @classmethod
    def _made(cls, plan: Plan, table: FactorTable, device: torch.device) -> _Steps:
        rows = [step.row for step in plan.steps]
        offsets = [0 if step.parents is not None else step.offset for step in plan.steps]
        parents = [
            None
            if step.parents is None
            else (
                torch.tensor(step.parents, device=device),
                torch.tensor(step.offset, device=device)[:, None],
            )
            for step in plan.steps
        ]
        numbers = (torch.tensor(n, dtype=torch.int64, device=device) for n in (rows, offsets))
        by_row, by_step = numbers
        return cls(table, by_row, by_step[:, None], parents)


class Products:
    """Memory for the products of one block of points, reused from block to block.

    Parameters
    ----------
    gradient : bool, default=False
        Also hold what the derivatives need.
    """

    def __init__(
        self, plan: Plan, factors: Factors, like: Tensor, n_rows: int, gradient: bool = False
    ):
        self.plan = plan
        self.n_factors = factors.n_factors
        device = like.device
        self.buffers = [like.new_ones((size, n_rows)) for size in plan.sizes]
        self.numbers = [
            torch.zeros((size, n_rows), dtype=torch.int64, device=device) for size in plan.sizes
        ]
        self.table, self.rows, self.offsets, self.parents = _Steps.of(plan, factors, like)
        self.views = self._views(self.buffers)
        self.number_views = self._views(self.numbers)
        self.values = self.buffers[-1]
        self.functions = self.numbers[-1]
        if gradient:
            self.gradients = [torch.empty_like(buffer) for buffer in self.buffers]
            self.gradient_views = self._views(self.gradients)
            self.step_gradient = like.new_empty((len(plan.steps), n_rows))

    def _views(self, buffers: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Source and target of every step: slicing costs more than a small step does."""
        views = []
        for step in self.plan.steps:
            target = buffers[step.target]
            n = step.stop - step.start if step.parents is None else len(step.parents)
            source = buffers[step.source]
            if step.parents is None:
                source = source[step.start : step.stop]
            views.append((source, target[step.first : step.first + n]))
        return views

    def form(self, X: Tensor, differentiated: int | None = None) -> None:
        """Fill `values` and `functions` (M, n): the non-zero functions' values and numbers.

        With `differentiated` the factors of that coordinate are replaced by their slopes.
        """
        values, cells = self.table.factors_at(X, differentiated)
        self.factor_rows = values.index_select(0, self.rows).unbind(0)
        cell_rows = cells.index_select(0, self.rows).add_(self.offsets).unbind(0)
        for i, step in enumerate(self.plan.steps):
            source, target = self.views[i]
            numbers, target_numbers = self.number_views[i]
            indirect = self.parents[i]
            if indirect is not None:
                source, numbers = (part.index_select(0, indirect[0]) for part in (source, numbers))
            torch.mul(source, self.factor_rows[i], out=target)
            torch.add(cell_rows[i], numbers, alpha=1 << step.shift, out=target_numbers)
            if indirect is not None:
                target_numbers.add_(indirect[1])

    def pull_back(self, X: Tensor, slopes: Tensor | None = None) -> Tensor:
        """Gradient (n, d) from that with respect to `values`, which lies in ``gradients[-1]``.

        The steps in reverse; call after `form` at the same points. `slopes` are the table's, where
        these are known.
        """
        for buffer in self.gradients[:-1]:
            buffer.zero_()
        for i in reversed(range(len(self.plan.steps))):
            source, _ = self.views[i]
            source_gradient, target_gradient = self.gradient_views[i]
            indirect = self.parents[i]
            if indirect is not None:
                source = source.index_select(0, indirect[0])
            torch.sum(target_gradient * source, 0, out=self.step_gradient[i])
            if indirect is None:
                source_gradient.addcmul_(target_gradient, self.factor_rows[i])
            else:
                source_gradient.index_add_(0, indirect[0], target_gradient * self.factor_rows[i])
        d, n = X.shape[1], len(X)
        by_factor = X.new_zeros((d * self.n_factors, n)).index_add_(
            0, self.rows, self.step_gradient
        )
        slopes = self.table.slopes(X) if slopes is None else slopes
        return (by_factor.view(d, self.n_factors, n) * slopes).sum(1).T


class FewProducts:
    """The same products at few points, dimension by dimension: no more steps than dimensions."""

    def __init__(self, plan: Plan, factors: Factors, like: Tensor):
        self.table = FactorTable(factors, like)
        self.n_factors = factors.n_factors
        vectors = plan.vectors.astype(np.int64)
        first = self.n_factors * np.arange(vectors.shape[1])

        def tensors(columns: np.ndarray) -> list[Tensor]:
            return [torch.tensor(column, device=like.device) for column in columns.T]

        self.rows = tensors(vectors + first)
        self.shifts = [shift[:, None] for shift in tensors(factors.shift[vectors])]
        self.first = torch.tensor(plan.first_function[:-1], device=like.device)[:, None]
        self.values, self.functions = self.first.to(like.dtype), self.first

    @classmethod
    def of(cls, plan: Plan, factors: Factors, like: Tensor) -> FewProducts:
        """Those of a plan, whose tables are made once."""
        key = (like.device, like.dtype, factors.basis)
        if key not in plan.tables:
            plan.tables[key] = cls(plan, factors, like)
        # A copy that shares the tables; copy.copy takes as long as five multiplications.
        few = cls.__new__(cls)
        few.__dict__.update(plan.tables[key].__dict__)
        return few

    def form(self, X: Tensor, differentiated: int | None = None) -> None:
        """Set `values` and `functions`; see `Products.form`."""
        values, cells = self.table.factors_at(X, differentiated)
        if not self.rows:
            self.values = values.new_ones((len(self.first), len(X)))
            self.functions = self.first.repeat(1, len(X))
            return
        product = values.index_select(0, self.rows[0])
        local = cells.index_select(0, self.rows[0])
        for rows, shift in zip(self.rows[1:], self.shifts[1:], strict=True):
            product = product * values.index_select(0, rows)
            local = (local << shift) + cells.index_select(0, rows)
        self.values, self.functions = product, self.first + local


def few_products(plan: Plan, factors: Factors, X: Tensor) -> FewProducts | None:
    """Products at points X (n, d), where these are few."""
    n, factors_of_one = len(X), plan.vectors.size
    if n == 0 or (n > FEW_ROWS and n * factors_of_one > FEW_FACTORS):
        return None
    few = FewProducts.of(plan, factors, X)
    few.form(X)
    return few


def blocks_of(
    plan: Plan, factors: Factors, X: Tensor, gradient: bool = False, columns: int = 0
) -> Iterator[tuple[slice, Any]]:
    """Slices of rows with the `Products` formed there; `columns` counts what else a row needs."""
    if not gradient and (few := few_products(plan, factors, X)) is not None:
        yield slice(0, len(X)), few
        return
    numbers, least = BLOCK["cuda" if X.device.type == "cuda" else "cpu"]
    size = max(numbers // (plan.sizes[-1] + columns), FEW_ROWS_OF_COLUMNS if columns else least)
    memory = None
    for start in range(0, len(X), size):
        rows = slice(start, min(start + size, len(X)))
        n = rows.stop - start
        if memory is None or memory.values.shape[1] != n:
            memory = Products(plan, factors, X, n, gradient)
        memory.form(X[rows])
        yield rows, memory


def _dense_columns(plan: Plan, n_outputs: int) -> int:
    """Columns of a dense block of the basis matrix where its zeros are worth it, else 0."""
    few_zeros = plan.n_functions <= DENSE_ZEROS * plan.sizes[-1]
    dense = n_outputs >= DENSE_OUTPUTS and few_zeros
    return plan.n_functions if dense else 0


def sums_of(
    X: Tensor, coef: Tensor, plan: Plan, factors: Factors, few: FewProducts | None = None
) -> Tensor:
    """Values (n, m) of functions at points X (n, d) for coefficients (G, m), without gradients.

    `few` are the products at X, where these were formed.
    """
    by_output = coef.T.contiguous()
    result = X.new_zeros((coef.shape[1], len(X)))
    dense = _dense_columns(plan, coef.shape[1])
    blocks: Iterable[tuple[slice, Any]] = blocks_of(plan, factors, X, columns=dense)
    for rows, products in blocks if few is None else [(slice(0, len(X)), few)]:
        functions = products.functions.view(-1)
        if dense:
            torch.mm(by_output, _dense_block(plan, products), out=result[:, rows])
            continue
        terms = torch.empty_like(products.values)
        for output, one in enumerate(by_output):
            torch.index_select(one, 0, functions, out=terms.view(-1))
            torch.sum(terms.mul_(products.values), 0, out=result[output, rows])
    return result.T


def slopes_of(X: Tensor, coef: Tensor, plan: Plan, factors: Factors) -> Tensor:
    """Gradients (n, m, d) of functions at points X (n, d) for coefficients (G, m)."""
    result = X.new_empty((len(X), coef.shape[1], X.shape[1]))
    by_output = coef.T.contiguous()
    for rows, products in blocks_of(plan, factors, X, gradient=True):
        functions, target = products.functions.view(-1), products.gradients[-1].view(-1)
        slopes = products.table.slopes(X[rows])
        for output, one in enumerate(by_output):
            torch.index_select(one, 0, functions, out=target)
            result[rows, output] = products.pull_back(X[rows], slopes)
    return result


class Evaluate(torch.autograd.Function):
    """Values of sparse grid functions, with gradients for points and coefficients."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, coef: Tensor, plan: Plan, factors: Factors) -> Tensor:
        """Values (n, m) at points X (n, d) for coefficients (G, m)."""
        ctx.save_for_backward(X, coef)
        ctx.plan, ctx.factors = plan, factors
        return sums_of(X, coef, plan, factors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        """Gradients (n, d) and (G, m), which cannot be differentiated again."""
        if torch.is_grad_enabled():
            # Taken as constants, the gradients would leave out terms without a word.
            raise RuntimeError(
                "Sparse grid functions have first derivatives only: their pieces meet in kinks. "
                "create_graph=True is not to be had through them."
            )
        X, coef = ctx.saved_tensors
        plan, factors = ctx.plan, ctx.factors
        for_points, for_coef = ctx.needs_input_grad[:2]
        by_output, g = coef.T.contiguous(), gradient.T.contiguous()
        coef_gradient = torch.zeros_like(by_output) if for_coef else None
        point_gradient = torch.zeros_like(X) if for_points else None
        dense = _dense_columns(plan, coef.shape[1])
        for rows, products in blocks_of(plan, factors, X, for_points, dense):
            weights = g[:, rows]
            if coef_gradient is not None:
                _add_coef_gradient(coef_gradient, weights, plan, products, dense)
            if point_gradient is not None:
                _set_value_gradient(by_output, weights, products, dense)
                point_gradient[rows] = products.pull_back(X[rows])
        return point_gradient, None if coef_gradient is None else coef_gradient.T, None, None


class DenseColumns(torch.autograd.Function):
    """Basis matrix (n, G) at points X (n, d), with its gradient for the points."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, plan: Plan, factors: Factors) -> Tensor:
        """All functions at all points."""
        ctx.save_for_backward(X)
        ctx.plan, ctx.factors = plan, factors
        result = X.new_zeros((len(X), plan.n_functions))
        for rows, products in blocks_of(plan, factors, X):
            result[rows] = result[rows].scatter_(1, products.functions.T, products.values.T)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        """Gradient (n, d), which cannot be differentiated again."""
        (X,) = ctx.saved_tensors
        result = torch.zeros_like(X)
        for rows, products in blocks_of(ctx.plan, ctx.factors, X, gradient=True):
            picked = torch.gather(gradient[rows], 1, products.functions.T)
            products.gradients[-1].copy_(picked.T)
            result[rows] = products.pull_back(X[rows])
        return result, None, None


def _dense_block(plan: Plan, products: Products | FewProducts) -> Tensor:
    """The block's part of the transposed basis matrix, (G, n)."""
    K = products.values.new_zeros((plan.n_functions, products.values.shape[1]))
    return K.scatter_(0, products.functions, products.values)


def _add_coef_gradient(
    total: Tensor, weights: Tensor, plan: Plan, products: Products, dense: int
) -> None:
    """Add ``weights K`` (m, G) of one block; the backward of embedding_bag is 20 times slower."""
    if dense:
        total += weights @ _dense_block(plan, products).T
        return
    functions = products.functions.view(-1)
    for one, weight in zip(total, weights, strict=True):
        one.scatter_add_(0, functions, (products.values * weight).view(-1))


def _set_value_gradient(by_output: Tensor, weights: Tensor, products: Products, dense: int) -> None:
    """Put the gradient with respect to the products into ``products.gradients[-1]``."""
    target = products.gradients[-1]
    if dense:
        torch.gather(by_output.T @ weights, 0, products.functions, out=target)
        return
    functions = products.functions.view(-1)
    terms = torch.empty_like(target)
    target.zero_()
    for one, weight in zip(by_output, weights, strict=True):
        torch.index_select(one, 0, functions, out=terms.view(-1))
        target.addcmul_(terms, weight)
