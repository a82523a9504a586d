"""Sparse grids as bases: points, evaluation, nodal values."""
