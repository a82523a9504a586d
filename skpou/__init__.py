"""Scikit-learn estimators for scattered scientific data, on a torch backend."""

from skpou._hierarchical_pou import HierarchicalPOURegressor
from skpou._lsgd import LSGDRegressor
from skpou._multi_stage import MultiStageRegressor
from skpou._pou import POURegressor
from skpou._sparse_grid import SparseGridRegressor
from skpou._sparse_grid_classifier import SparseGridClassifier

__version__ = "0.1.0"

__all__ = [
    "HierarchicalPOURegressor",
    "LSGDRegressor",
    "MultiStageRegressor",
    "POURegressor",
    "SparseGridClassifier",
    "SparseGridRegressor",
    "__version__",
]
