"""Regressors behind a transform of the target: a logarithm, a power, a pair of functions."""

from skpou.transformed.regressor import TransformedRegressor

__all__ = ["TransformedRegressor"]
