"""What all estimators owe to scikit-learn: validation, callbacks, predictions of every kind."""

from skpou.base.callbacks import StopRequested
from skpou.base.classifier import BaseClassifier
from skpou.base.compat import (
    Interval,
    StrOptions,
    check_matplotlib_support,
    fit_context,
    validate_params,
)
from skpou.base.density import ResidueDensityMixin
from skpou.base.estimator import TorchEstimator
from skpou.base.fitted_model import FittedModelRegressor
from skpou.base.linear_model import LinearModelRegressor
from skpou.base.parameters import (
    AUTO,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    random_generator,
    refuse_beyond_memory,
    seed_of,
    unless_auto,
)
from skpou.base.regressor import BaseRegressor, Prepared, check_n_samples
from skpou.base.validation import Origin, owned

# fmt: off
__all__ = ["AUTO", "COUNT", "NOT_NEGATIVE", "POSITIVE", "BaseClassifier", "BaseRegressor",
           "FittedModelRegressor", "Interval", "LinearModelRegressor", "Origin", "Prepared",
           "ResidueDensityMixin", "StopRequested", "StrOptions", "TorchEstimator",
           "check_matplotlib_support", "check_n_samples", "fit_context", "owned",
           "random_generator", "refuse_beyond_memory", "seed_of", "unless_auto", "validate_params"]
# fmt: on
