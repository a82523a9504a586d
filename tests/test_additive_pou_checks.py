"""scikit-learn's own checks for AdditivePOURegressor none excepted."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)

from skpou import AdditivePOURegressor

#: Other parameters change which terms are tried, which no check sees.
CONFIGURATIONS = [AdditivePOURegressor()]

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
