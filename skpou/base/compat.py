"""Scikit-learn's non-public names and the differences between its versions, in one place."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_params
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    check_is_fitted,
)

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback._callback_support import callback_management_context
except ImportError:  # Before 1.9 there are no callbacks.
    callback_management_context = nullcontext

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for that of later versions."""


__all__ = [
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "StrOptions",
    "available_if",
    "callback_management",
    "check_columns",
    "check_is_fitted",
    "check_matplotlib_support",
    "check_weights",
    "fit_context",
    "validate_params",
]

#: Weights relative to the largest one that count as so much: a trillionth is round-off to a fit.
LEAST_WEIGHT = 1e-12
#: Largest weight: the sum of 10^8 such is a number still.
LARGEST_WEIGHT = 1e300

fit_context = _fit_context
callback_management = callback_management_context


def check_columns(estimator, X, *, reset):
    """Record or compare the number and names of columns, without looking at the values."""
    _check_feature_names(estimator, X, reset=reset)
    _check_n_features(estimator, X, reset=reset)


def check_weights(sample_weight, X, dtype):
    """Validate frequency weights; older scikit-learn lets all of them be zero."""
    try:
        weight = _check_sample_weight(sample_weight, X, dtype=dtype, ensure_non_negative=True)
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        raise ValueError(f"sample_weight must be numeric: {error}.") from error
    if weight.max(initial=0) > LARGEST_WEIGHT:
        raise ValueError(f"sample_weight as large as {weight.max():.3g} overflows. Rescale it.")
    if not (weight > 0).any():
        raise ValueError("sample_weight must have at least one non-zero weight. All are zero.")
    # A row of less weight has no influence beside the heaviest, but its root would spoil solves.
    least = LEAST_WEIGHT * weight.max()
    return np.where(weight > 0, np.maximum(weight, least), weight)
