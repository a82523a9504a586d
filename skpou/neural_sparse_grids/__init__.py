"""Sparse grids of a trained encoder's output."""

from skpou.neural_sparse_grids.classifier import NeuralSparseGridClassifier
from skpou.neural_sparse_grids.regressor import NeuralSparseGridRegressor

__all__ = ["NeuralSparseGridClassifier", "NeuralSparseGridRegressor"]
