"""Partitions of unity: gates, pieces found in the data, mixtures of polynomial experts."""

from skpou.partitions.estimators.hierarchical import HierarchicalPOURegressor
from skpou.partitions.estimators.pou import POURegressor
from skpou.partitions.fit import PieceOptions, fit_sharp_pieces, have_sharp_pieces
from skpou.partitions.gates.tree import PartitionTree, gate_polynomials

# fmt: off
__all__ = ["HierarchicalPOURegressor", "POURegressor", "PartitionTree", "PieceOptions",
           "fit_sharp_pieces", "gate_polynomials", "have_sharp_pieces"]
# fmt: on
