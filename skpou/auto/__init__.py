"""One front door: members race on left-out rows, and the best are stacked."""

from skpou.auto.regressor import AutoRegressor

__all__ = ["AutoRegressor"]
