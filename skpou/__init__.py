"""Scikit-learn estimators for scattered scientific data, on a torch backend."""

from skpou._version import __version__
from skpou.additive import AdditivePOURegressor
from skpou.auto import AutoRegressor
from skpou.lsgd import LSGDClassifier, LSGDRegressor
from skpou.multi_stage import MultiStageRegressor
from skpou.neural_sparse_grids import NeuralSparseGridClassifier, NeuralSparseGridRegressor
from skpou.partitions import HierarchicalPOURegressor, POURegressor
from skpou.sparse_grids import SparseGridClassifier, SparseGridRegressor
from skpou.transformed import TransformedRegressor

__all__ = [
    "AdditivePOURegressor",
    "AutoRegressor",
    "HierarchicalPOURegressor",
    "LSGDClassifier",
    "LSGDRegressor",
    "MultiStageRegressor",
    "NeuralSparseGridClassifier",
    "NeuralSparseGridRegressor",
    "POURegressor",
    "SparseGridClassifier",
    "SparseGridRegressor",
    "TransformedRegressor",
    "__version__",
]

# Saved models name their class by the place users import it from, which outlives every file.
for _estimator in (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDClassifier,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
    TransformedRegressor,
):
    _estimator.__module__ = __name__
del _estimator
