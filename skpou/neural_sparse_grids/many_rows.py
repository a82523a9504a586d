"""Functions on a grid behind an encoder that some of many rows have found, told by all of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from skpou.core import Blocks, Rows, TrainingResult, handing_over
from skpou.core.linalg import COPIES_SUMMED, RowSums, row_blocks, rows_within
from skpou.neural_sparse_grids.model import embedded
from skpou.sparse_grids import GridColumns, GridOptions, SparseGridModel, check_size, fit_sums


def fit_head_to_blocks(
    found: TrainingResult, seen: Rows, others: Blocks, alpha: float | None
) -> TrainingResult:
    """Coefficients and noise of a regression by the sums over all rows, the encoder as it is.

    Parameters
    ----------
    found : TrainingResult
        Of a fit to some rows; its state is a `NeuralGrid`.
    others : callable
        Reads the others, in the same units.
    alpha : float or None
        Ridge; None: by the evidence.

    Returns
    -------
    TrainingResult
        That of the fit where there are no others: it knows what its encoder has used up.

    Raises
    ------
    ValueError
        If the grid has more points than sums are kept for.
    """
    model = found.state
    grid = model.head.grid
    check_size(grid)
    columns = GridColumns(grid)

    def sums_over(parts: Blocks) -> RowSums:
        sums = RowSums.empty(columns.n_columns, seen.n_outputs, seen.X)
        for part in parts():
            latent = embedded(model.encoder, part)
            size = rows_within(COPIES_SUMMED * columns.n_columns)
            for block in row_blocks(latent.n_rows, size):
                sums.add(columns(latent.X[block]), latent.y[block], latent.weight[block])
        return sums

    message = "The coefficients are those of the rows that the encoder was found with."
    with handing_over(lambda: replace(found, code="interrupted", message=message)):
        sums = sums_over(others).of_all_processes()
        if not sums.count:
            return found
        sums.merge(sums_over(lambda: iter((seen.pairs(),))))
        nothing = torch.zeros_like(sums.low)
        options = GridOptions(grid.level, grid.boundary, alpha)
        head = fit_sums(sums, sums.targets(nothing, nothing + 1), grid, options)
        state: SparseGridModel = head.state
        chosen = {**found.chosen, "alpha": head.chosen["alpha"]}
        return replace(found, state=replace(model, head=state), score=head.score, chosen=chosen)
