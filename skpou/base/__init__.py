"""What all estimators owe to scikit-learn: validation, callbacks, predictions of every kind."""

from skpou.base.callbacks import StopRequested
from skpou.base.classifier import BaseClassifier, PreparedClasses
from skpou.base.compat import (
    HasMethods,
    Interval,
    StrOptions,
    available_if,
    check_is_fitted,
    check_matplotlib_support,
    check_weights,
    fit_context,
    validate_params,
)
from skpou.base.density import DENSITY, ResidueDensityMixin
from skpou.base.docstrings import sections_of
from skpou.base.estimator import TorchEstimator
from skpou.base.fitted_model import FittedModelRegressor, LinearModelRegressor
from skpou.base.parameters import (
    AUTO,
    COUNT,
    COUNT_OR_NONE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    check_coverage,
    check_joint,
    check_n_samples,
    check_quantiles,
    check_return_std,
    drawing_generator,
    gigabytes,
    is_by_default,
    random_generator,
    refuse_beyond_memory,
    seed_of,
    unless_auto,
)
from skpou.base.regressor import BaseRegressor, Prepared
from skpou.base.sampled import SampledClassifier, SampledRegressor
from skpou.base.streams import Stream, Summary, lies_on_disk, of_all_processes, warn_of_rows_outside
from skpou.base.summary import column_names, noise_lines, number, polynomial_text
from skpou.base.summed import SummedClassifier, SummedRegressor, indicators_of
from skpou.base.training import DocumentedEstimator
from skpou.base.validation import Origin, origin_of, owned, target_values

# fmt: off
__all__ = ["AUTO", "COUNT", "COUNT_OR_NONE", "DENSITY", "NOT_NEGATIVE", "POSITIVE", "SHARE",
           "BaseClassifier", "BaseRegressor", "DocumentedEstimator", "FittedModelRegressor",
           "HasMethods", "Interval", "LinearModelRegressor", "Origin", "Prepared",
           "PreparedClasses", "ResidueDensityMixin", "SampledClassifier", "SampledRegressor",
           "StopRequested", "StrOptions", "Stream", "Summary", "SummedClassifier",
           "SummedRegressor", "TorchEstimator", "available_if", "check_coverage", "check_is_fitted",
           "check_joint", "check_matplotlib_support", "check_n_samples", "check_quantiles",
           "check_return_std", "check_weights", "column_names", "drawing_generator", "fit_context",
           "gigabytes", "indicators_of", "is_by_default", "lies_on_disk", "noise_lines", "number",
           "of_all_processes", "origin_of", "owned", "polynomial_text", "random_generator",
           "refuse_beyond_memory", "sections_of", "seed_of", "target_values", "unless_auto",
           "validate_params", "warn_of_rows_outside"]
# fmt: on
