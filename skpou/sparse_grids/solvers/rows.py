"""The rows of a least-squares problem on a sparse grid: products with them, in blocks.

Every row has one entry for each level vector. Rows are kept as a sparse matrix where memory
allows, and evaluated anew for every product where it does not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from skpou.core.linalg import row_blocks, rows_within
from skpou.sparse_grids.basis.grid import SparseGrid, csr_tensor

#: Most entries that are kept: with the transposed matrix some 32 bytes each.
MAX_KEPT = 30_000_000
#: Most numbers of a matrix whose dense products take less time than to find its entries.
DENSE_NUMBERS = 200_000
#: Columns for each entry of a row from which on sparse products with many columns take less time
#: than dense ones.
SPARSE = 4
#: Rows of a Gram matrix that are summed together.
PANEL = 256
#: Entries of a block of the Gram matrix, which stay in a core's cache, and its fewest rows.
BLOCK_ENTRIES, FEWEST_BLOCK_ROWS = 400_000, 16


class GridRows:
    """Weighted rows ``sqrt(w_i) phi(x_i)'`` of some columns of a sparse grid.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Points in the unit box.
    weight : Tensor of shape (n,)
        Positive weights.
    active : Tensor of shape (p,), int64, default=None
        Functions that are columns, in their order; None: all.
    batch_size : int, default=None
        Rows a block that are evaluated together; given, nothing is kept.
    sparse : bool, default=False
        Keep the rows as sparse matrices, whose making costs some thirty products.
    """

    def __init__(
        self,
        grid: SparseGrid,
        X: Tensor,
        weight: Tensor,
        active: Tensor | None = None,
        batch_size: int | None = None,
        sparse: bool = False,
    ):
        self.grid = grid
        self.X = X
        self.root = weight.sqrt()[:, None]
        self.n_columns = grid.n_columns if active is None else len(active)
        self.active = active
        self.column_of: Tensor | None = None
        if active is not None:
            # Functions that are no column go to one more, which is dropped.
            self.column_of = torch.full((grid.n_columns,), self.n_columns, device=X.device)
            self.column_of[active] = torch.arange(self.n_columns, device=X.device)
        self.batch_size = batch_size or rows_within(grid.numbers_per_row() + 1)
        self._kept: tuple[Tensor, Tensor] | None = None
        if batch_size is None and len(X) * grid.n_subspaces <= MAX_KEPT:
            self._kept = self._entries(slice(0, len(X)))
        self._matrices: tuple[Tensor, Tensor] | None = None
        if sparse and self._kept is not None:
            self._matrices = self._sparse(*self._kept)

    def made_dense(self) -> GridRows:
        """The same rows, multiplied as a dense matrix where it is small."""
        result = copy.copy(self)
        if len(self.X) * self.n_columns <= DENSE_NUMBERS:
            matrix = self.dense(slice(0, len(self.X)))
            result._matrices = matrix, matrix.T
        return result

    @property
    def n_rows(self) -> int:
        """Number n of rows."""
        return len(self.X)

    def weighted(self, weight: Tensor) -> GridRows:
        """The same rows with their weights multiplied by others (n,), without sparse matrices."""
        result = copy.copy(self)
        root = weight.sqrt()[:, None]
        result.root = self.root * root
        result._matrices = None
        if self._kept is not None:
            values, columns = self._kept
            result._kept = values * root, columns
        return result

    def _entries(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Values and columns of some rows, each (n, M)."""
        values, columns = self.grid.nonzeros(self.X[rows])
        if self.column_of is not None:
            columns = self.column_of[columns]
        return values.mul_(self.root[rows]), columns

    def costs(self) -> Tensor:
        """What the levels of every column cost, (p,)."""
        costs = self.grid.costs_like(self.root)
        return costs if self.active is None else costs[self.active]

    def entries(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Weighted values and columns of the entries of some rows, each (n, M)."""
        if self._kept is None:
            return self._entries(rows)
        return self._kept[0][rows], self._kept[1][rows]

    def dense(self, rows: slice) -> Tensor:
        """Weighted columns (k, p) at some rows."""
        values, columns = self.entries(rows)
        width = self.n_columns + (self.active is not None)
        result = values.new_zeros((len(values), width)).scatter_(1, columns, values)
        return result[:, : self.n_columns]

    def products(self, rows: slice, J: Tensor) -> Tensor:
        """Products (p, k) of the transposed columns at some rows with a matrix (n, k)."""
        values, columns = self.entries(rows)
        n, M = values.shape
        if values.device.type != "cpu" or M * SPARSE > self.n_columns:
            return self.dense(rows).T @ J
        starts = np.arange(0, n * M + 1, M)
        entries = (values.flatten().numpy(), columns.flatten().numpy(), starts)
        matrix = csr_array(entries, shape=(n, self.n_columns + 1))
        return torch.from_numpy((matrix.T @ J.numpy())[: self.n_columns])

    def blocks(self, budget: int | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows with the values and columns of their entries."""
        size = self.batch_size if budget is None else min(self.batch_size, budget)
        if self._kept is not None:
            size = budget or len(self.X)
        for rows in row_blocks(len(self.X), max(size, 1)):
            yield (rows, *self.entries(rows))

    def _sparse(self, values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and their transpose as CSR matrices."""
        n, M = values.shape
        values, columns = values.flatten(), columns.flatten()
        shape = (n, self.n_columns + 1)
        # 32-bit indices halve what a product reads.
        starts = torch.arange(0, n * M + 1, M, device=values.device, dtype=torch.int32)
        matrix = csr_tensor(starts, columns.to(torch.int32), values, shape)
        order = torch.argsort(columns, stable=True)
        counts = torch.bincount(columns, minlength=shape[1])
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
        rows = order.div(M, rounding_mode="floor").to(torch.int32)
        return matrix, csr_tensor(starts, rows, values[order], shape[::-1])

    def matmul(self, coef: Tensor) -> Tensor:
        """Products (n, m) with coefficients (p, m)."""
        padded = torch.cat([coef, coef.new_zeros((1, coef.shape[1]))])
        if self._matrices is not None:
            matrix = self._matrices[0]
            return matrix @ padded[: matrix.shape[1]]
        result = coef.new_empty((len(self.X), coef.shape[1]))
        for rows, values, columns in self.blocks():
            for output in range(coef.shape[1]):
                terms = padded[:, output].index_select(0, columns.view(-1)).view(values.shape)
                result[rows, output] = terms.mul_(values).sum(1)
        return result

    def rmatmul(self, residual: Tensor) -> Tensor:
        """Products (p, m) of the transposed rows with residuals (n, m)."""
        if self._matrices is not None:
            return (self._matrices[1] @ residual)[: self.n_columns]
        result = residual.new_zeros((residual.shape[1], self.n_columns + 1))
        for rows, values, columns in self.blocks():
            for output, total in enumerate(result):
                terms = values * residual[rows, output : output + 1]
                total.scatter_add_(0, columns.reshape(-1), terms.reshape(-1))
        return result[:, : self.n_columns].T

    def kernel(self, decay: float) -> Tensor:
        """Gram matrix ``A D^-1 A'`` (n, n) of the weighted rows, D the ridge's growth."""
        n = len(self.X)
        kernel = self.root.new_empty((n, n))
        if self.active is None:
            # What is above the blocks is the same by symmetry.
            for rows in row_blocks(n, max(FEWEST_BLOCK_ROWS, BLOCK_ENTRIES // max(n, 1))):
                before = self.X[: rows.stop]
                kernel[rows, : rows.stop] = self.grid.kernel(self.X[rows], before, decay)
                kernel[: rows.start, rows] = kernel[rows, : rows.start].T
            return kernel * self.root * self.root.T
        growth = decay ** -self.costs()
        blocks = row_blocks(n, rows_within(self.n_columns))
        for number, rows in enumerate(blocks):
            left = self.dense(rows) * growth
            for other in blocks[: number + 1]:
                part = left @ self.dense(other).T
                kernel[rows, other], kernel[other, rows] = part, part.T
        return kernel

    def column_squares(self) -> Tensor:
        """Squared norm of every column, (p,)."""
        total = self.root.new_zeros(self.n_columns + 1)
        for _, values, columns in self.blocks():
            total.scatter_add_(0, columns.reshape(-1), values.square().reshape(-1))
        return total[: self.n_columns]

    def gram(self, first: int = 0, last: int | None = None) -> Tensor:
        """Rows `first` to `last` of the Gram matrix, up to column `last`, (last - first, last)."""
        last = self.n_columns if last is None else last
        total = self.root.new_zeros((last - first, last))
        panels = [slice(p.start + first, p.stop + first) for p in row_blocks(last - first, PANEL)]
        for _, values, columns in self.blocks(rows_within(self.n_columns + 1)):
            block = values.new_zeros((len(values), self.n_columns + 1))
            block = block.scatter_(1, columns, values)[:, :last]
            for panel in panels:
                # Up to the diagonal; the rest is the same by symmetry.
                part = total[panel.start - first : panel.stop - first, : panel.stop]
                part.addmm_(block[:, panel].T, block[:, : panel.stop])
        for panel in panels:
            below = total[panel.stop - first :, panel]
            total[panel.start - first : panel.stop - first, panel.stop :] = below.T
        return total
