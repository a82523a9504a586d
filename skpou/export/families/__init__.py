"""Programs of fitted models, one file a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skpou.base import check_is_fitted
from skpou.export.families.linear_models import linear_program
from skpou.export.families.partitions import partition_program
from skpou.export.families.program import FUNCTIONS, OPERATIONS, POINT, Program, Step
from skpou.export.families.sparse_grids import KINDS, sparse_grid_program
from skpou.lsgd import LSGDRegressor
from skpou.multi_stage import MultiStageRegressor
from skpou.partitions import HierarchicalPOURegressor, POURegressor
from skpou.sparse_grids import SparseGridRegressor

__all__ = ["FUNCTIONS", "KINDS", "OPERATIONS", "POINT", "Program", "Step", "program_of"]

#: Regressors that can be exported, and what writes their programs.
FAMILIES: dict[type, Callable[[Any], Program]] = {
    HierarchicalPOURegressor: partition_program,
    POURegressor: partition_program,
    LSGDRegressor: linear_program,
    MultiStageRegressor: linear_program,
    SparseGridRegressor: sparse_grid_program,
}


def program_of(model: Any, fit_alone: bool = False) -> Program:
    """Program of a fitted regressor's mean.

    Parameters
    ----------
    fit_alone : bool, default=False
        Take the mean of the fit also where the regressor's gives way to a linear model.

    Raises
    ------
    TypeError
        If the model is none of those that can be exported.
    ValueError
        If it has a part that cannot.
    NotFittedError
        If it is not fitted.
    """
    for family, write in FAMILIES.items():
        if isinstance(model, family):
            check_is_fitted(model)
            restraint = model.__dict__.get("_restraint")
            beside = restraint and any(
                restraint.get(name) for name in ("companion", "process", "interpolant")
            )
            if beside and not fit_alone:
                raise ValueError(
                    "The mean of this model gives way to a linear model where it knows less, or "
                    "leans on a Gaussian process, which take a posterior and rows. fit_alone=True "
                    "writes the mean of the fit, which differs from predict there; to_table "
                    "writes what predict returns."
                )
            return write(model)
    names = ", ".join(family.__name__ for family in FAMILIES)
    raise TypeError(f"model must be one of {names}. Got {type(model).__name__}.")
