"""Scikit-learn estimators for scattered scientific data, on a torch backend."""

from skpou._hierarchical_pou import HierarchicalPOURegressor
from skpou._lsgd import LSGDRegressor
from skpou._pou import POURegressor
from skpou._sparse_grid import SparseGridRegressor

__version__ = "0.1.0"

__all__ = [
    "HierarchicalPOURegressor",
    "LSGDRegressor",
    "POURegressor",
    "SparseGridRegressor",
    "__version__",
]
