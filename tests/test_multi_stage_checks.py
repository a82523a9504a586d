"""scikit-learn's own checks for MultiStageRegressor in several configurations, none excepted."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)

from skpou import MultiStageRegressor

CONFIGURATIONS = [
    MultiStageRegressor(),
    MultiStageRegressor(hidden_layer_sizes=(8, 8), max_iter=30),
    MultiStageRegressor(2, hidden_layer_sizes=(6,), solver="adam_lbfgs", max_iter=20),
]

# The checks set max_iter=5, which may not suffice, as it should say.
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"
)


@parametrize_with_checks(CONFIGURATIONS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", CONFIGURATIONS, ids=repr)
@pytest.mark.parametrize(
    "check", [check_param_validation, check_dataframe_column_names_consistency]
)
def test_check_that_is_not_yielded(estimator, check):
    check(type(estimator).__name__, estimator)
