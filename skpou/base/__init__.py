"""What all estimators owe to scikit-learn: validation, callbacks, predictions of every kind."""

from skpou.base.classifier import BaseClassifier
from skpou.base.compat import (
    Interval,
    StrOptions,
    check_matplotlib_support,
    fit_context,
    validate_params,
)
from skpou.base.density import ResidueDensityMixin
from skpou.base.estimator import TorchEstimator, random_generator
from skpou.base.fitted_model import FittedModelRegressor
from skpou.base.linear_model import LinearModelRegressor
from skpou.base.regressor import BaseRegressor, Prepared
from skpou.base.validation import owned

__all__ = [
    "BaseClassifier",
    "BaseRegressor",
    "FittedModelRegressor",
    "Interval",
    "LinearModelRegressor",
    "Prepared",
    "ResidueDensityMixin",
    "StrOptions",
    "TorchEstimator",
    "check_matplotlib_support",
    "fit_context",
    "owned",
    "random_generator",
    "validate_params",
]
