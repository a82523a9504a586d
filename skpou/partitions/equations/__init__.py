"""Differential equations on boxes with polynomials, cut and raised in degree where needed."""
