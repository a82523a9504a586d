"""Scikit-learn estimators for scattered scientific data, on a torch backend."""

from skpou._additive_pou import AdditivePOURegressor
from skpou._hierarchical_pou import HierarchicalPOURegressor
from skpou._lsgd import LSGDRegressor
from skpou._multi_stage import MultiStageRegressor
from skpou._neural_sparse_grid import NeuralSparseGridRegressor
from skpou._neural_sparse_grid_classifier import NeuralSparseGridClassifier
from skpou._pou import POURegressor
from skpou._sparse_grid import SparseGridRegressor
from skpou._sparse_grid_classifier import SparseGridClassifier

__version__ = "0.1.0"

__all__ = [
    "AdditivePOURegressor",
    "HierarchicalPOURegressor",
    "LSGDRegressor",
    "MultiStageRegressor",
    "NeuralSparseGridClassifier",
    "NeuralSparseGridRegressor",
    "POURegressor",
    "SparseGridClassifier",
    "SparseGridRegressor",
    "__version__",
]

# Saved models name their class by the place users import it from, which outlives every file.
for _estimator in (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
):
    _estimator.__module__ = __name__
del _estimator
