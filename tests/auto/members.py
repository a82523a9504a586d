"""Members for tests: regressors whose predictions are known, and ones with a fault."""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Constant(RegressorMixin, BaseEstimator):
    """Mean and standard deviation that are given; several outputs alike."""

    def __init__(self, mean=0.0, std=1.0):
        self.mean = mean
        self.std = std

    def fit(self, X, y, sample_weight=None):
        self.shape_ = np.shape(y)[1:]
        self.n_rows_ = len(X)
        self.weight_ = sample_weight
        return self

    def predict(self, X, return_std=False):
        mean = np.full((len(X), *self.shape_), self.mean)
        return (mean, np.full_like(mean, self.std)) if return_std else mean


class Line(Constant):
    """A mean that is the first column."""

    def predict(self, X, return_std=False):
        mean = np.broadcast_to(X[:, 0].reshape(-1, *[1] * len(self.shape_)), (len(X), *self.shape_))
        return (mean, np.full(mean.shape, self.std)) if return_std else mean


class Unweighted(Constant):
    """Takes no weights."""

    def fit(self, X, y):
        return super().fit(X, y)


class Failing(Constant):
    """Cannot be fitted to so many rows or more."""

    def __init__(self, mean=0.0, std=1.0, most=0):
        super().__init__(mean, std)
        self.most = most

    def fit(self, X, y, sample_weight=None):
        if len(X) >= self.most:
            raise ValueError("too many rows for me")
        return super().fit(X, y)


class Wild(Line):
    """Far from all targets between the rows, where it is looked at in many points."""

    def predict(self, X, return_std=False):
        mean, std = super().predict(X, True)
        mean = np.where(X[:, 1] > 0.9, 1e6, mean) if len(X) > 500 else mean
        return (mean, std) if return_std else mean
