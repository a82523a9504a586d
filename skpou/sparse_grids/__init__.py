"""Sparse grids of hierarchical hat functions."""

from skpou.sparse_grids.basis.evaluation import DenseColumns
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.basis.plans import BOUNDARIES, count_points
from skpou.sparse_grids.basis.traced import evaluate_traced, factor_kinds, tracing_arrays
from skpou.sparse_grids.class_model import GridClasses, log_shares
from skpou.sparse_grids.classes import METHODS, N_STEPS, fit_classes, indicators, one_hot_model
from skpou.sparse_grids.classifier import SparseGridClassifier
from skpou.sparse_grids.fit import fit_sparse_grid
from skpou.sparse_grids.model import SparseGridModel
from skpou.sparse_grids.regressor import LEVEL, SparseGridRegressor
from skpou.sparse_grids.solution import (
    GIVEN_DECAY,
    N_EXACT,
    ROUND_OFF,
    GridOptions,
    direct_problem,
    fit_on_grid,
)
from skpou.sparse_grids.solvers.conjugate_gradients import conjugate_gradients
from skpou.sparse_grids.solvers.multinomial import GridMultinomialRidge
from skpou.sparse_grids.solvers.ridge import GramProblem, KernelProblem, RidgeSolution, best_ridge
from skpou.sparse_grids.solvers.rows import GridRows
from skpou.sparse_grids.sums import GridColumns, check_size, fit_sums

# fmt: off
__all__ = ["BOUNDARIES", "GIVEN_DECAY", "LEVEL", "METHODS", "N_EXACT", "N_STEPS", "ROUND_OFF",
           "DenseColumns", "GramProblem", "GridClasses", "GridColumns", "GridMultinomialRidge",
           "GridOptions", "GridRows", "KernelProblem", "RidgeSolution", "SparseGrid",
           "SparseGridClassifier", "SparseGridModel", "SparseGridRegressor", "best_ridge",
           "check_size", "conjugate_gradients", "count_points", "direct_problem", "evaluate_traced",
           "factor_kinds", "fit_classes", "fit_on_grid", "fit_sparse_grid", "fit_sums",
           "indicators", "log_shares", "one_hot_model", "tracing_arrays"]
# fmt: on
