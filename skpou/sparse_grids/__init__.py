"""Sparse grids of hierarchical hat functions."""

from skpou.sparse_grids.basis.evaluation import DenseColumns
from skpou.sparse_grids.basis.grid import HIGHEST_LEVEL, SparseGrid
from skpou.sparse_grids.basis.plans import BOUNDARIES, count_points
from skpou.sparse_grids.basis.traced import evaluate_traced, factor_kinds, tracing_arrays
from skpou.sparse_grids.classes import (
    METHODS,
    N_STEPS,
    GridClasses,
    fit_classes,
    indicators,
    log_shares,
    one_hot_model,
    shares_of_classes,
)
from skpou.sparse_grids.classifier import SparseGridClassifier
from skpou.sparse_grids.model import SparseGridModel
from skpou.sparse_grids.regressor import SparseGridRegressor
from skpou.sparse_grids.solution import (
    GIVEN_DECAY,
    N_EXACT,
    ROUND_OFF,
    GridOptions,
    direct_problem,
    fit_on_grid,
)
from skpou.sparse_grids.solvers.multinomial import MultinomialRidge, hessian, whitened_factor
from skpou.sparse_grids.solvers.ridge import (
    LEAST_ALPHA,
    GramProblem,
    KernelProblem,
    RidgeSolution,
    best_ridge,
    factored,
)
from skpou.sparse_grids.solvers.rows import GridRows

# fmt: off
__all__ = ["BOUNDARIES", "GIVEN_DECAY", "HIGHEST_LEVEL", "LEAST_ALPHA", "METHODS", "N_EXACT",
           "N_STEPS", "ROUND_OFF", "DenseColumns", "GramProblem", "GridClasses", "GridOptions",
           "GridRows", "KernelProblem", "MultinomialRidge", "RidgeSolution", "SparseGrid",
           "SparseGridClassifier", "SparseGridModel", "SparseGridRegressor", "best_ridge",
           "count_points", "direct_problem", "evaluate_traced", "factor_kinds", "factored",
           "fit_classes", "fit_on_grid", "hessian", "indicators", "log_shares", "one_hot_model",
           "shares_of_classes", "tracing_arrays", "whitened_factor"]
# fmt: on
