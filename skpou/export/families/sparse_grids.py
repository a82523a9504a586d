"""Programs of functions on sparse grids."""

from __future__ import annotations

from typing import Any

import numpy as np

from skpou.export.families.program import Program, double
from skpou.sparse_grids import SparseGrid

#: Names of the kinds of factors, in the order of their numbers.
KINDS = ("constant", "left", "right", "hat", "modified")


def sparse_grid_program(model: Any) -> Program:
    """Mean of a fitted `SparseGridRegressor`.

    Raises
    ------
    ValueError
        If its functions are no hats.
    """
    box, state = model.scaling_, model.model_
    program = Program(model.n_features_in_, np.asarray(box["columns"]))
    if state.get("basis", "linear") != "linear":
        raise ValueError(
            f"model has basis={state['basis']!r}: grids are exported with basis='linear' alone."
        )
    vectors = state.get("vectors")
    grid = SparseGrid.from_arrays(state)
    coef = np.zeros((grid.n_columns, state["coef"].shape[1]))
    coef[slice(None) if vectors is None else np.asarray(state["active"])] = state["coef"]
    values = grid_values(grid, coef)
    return program.in_units_of_y(program.sparse_grid(program.scale(box), values), box)


def grid_values(grid: SparseGrid, coef: np.ndarray) -> dict[str, np.ndarray]:
    """What `Program.sparse_grid` takes: the grid's functions and their coefficients (G, m)."""
    return {
        "kind": np.asarray(grid.factors.kind, dtype=np.int64),
        "shift": np.asarray(grid.factors.shift, dtype=np.int64),
        "vectors": np.asarray(grid.plan.vectors, dtype=np.int64),
        "first": np.asarray(grid.plan.first_function[:-1], dtype=np.int64),
        "coef": double(coef),
    }
