"""scikit-learn's own checks, for the default and for other configurations, none excepted."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)

from skpou import HierarchicalPOURegressor

CONFIGURATIONS = [
    HierarchicalPOURegressor(),
    HierarchicalPOURegressor((2, 2), 1, gate="linear", alpha=1e-6, n_init=2, batch_size=7),
    HierarchicalPOURegressor((2, 2), gate="mlp", init="box", solver="em", noise="em", max_iter=30),
    HierarchicalPOURegressor(4, 1, gate="rbf", init="box", solver="varpro"),
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
