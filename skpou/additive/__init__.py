"""Sums of functions of one, two and three columns, for tables."""

from skpou.additive.fit import AdditiveOptions, fit_terms
from skpou.additive.regressor import AdditivePOURegressor

__all__ = ["AdditiveOptions", "AdditivePOURegressor", "fit_terms"]
