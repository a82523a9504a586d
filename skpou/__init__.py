"""Scikit-learn estimators for scattered scientific data, on a torch backend.

The files of an estimator are read when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skpou._version import __version__

if TYPE_CHECKING:
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

#: Room of each estimator.
_ROOMS = {
    "AdditivePOURegressor": "additive",
    "AutoRegressor": "auto",
    "HierarchicalPOURegressor": "partitions",
    "LSGDClassifier": "lsgd",
    "LSGDRegressor": "lsgd",
    "MultiStageRegressor": "multi_stage",
    "NeuralSparseGridClassifier": "neural_sparse_grids",
    "NeuralSparseGridRegressor": "neural_sparse_grids",
    "POURegressor": "partitions",
    "SparseGridClassifier": "sparse_grids",
    "SparseGridRegressor": "sparse_grids",
    "TransformedRegressor": "transformed",
}


def __getattr__(name: str) -> Any:
    """Import an estimator with its room."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
