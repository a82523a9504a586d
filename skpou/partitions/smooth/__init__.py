"""Smooth functions of few rows, or of rows on lines: polynomials with a prior that falls."""
