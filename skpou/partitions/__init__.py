"""Partitions of unity: gates, pieces found in the data, mixtures of polynomial experts."""

from skpou.partitions.estimators.hierarchical import HierarchicalPOURegressor
from skpou.partitions.estimators.pou import POURegressor
from skpou.partitions.gates.tree import gate_polynomials

__all__ = ["HierarchicalPOURegressor", "POURegressor", "gate_polynomials"]
