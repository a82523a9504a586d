"""Encoders trained with the coefficients eliminated."""
