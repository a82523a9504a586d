"""scikit-learn's own checks of the sparse grid estimators, none excepted."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    parametrize_with_checks,
)

from skpou import SparseGridClassifier, SparseGridRegressor

CONFIGURATIONS = [
    SparseGridRegressor(),
    SparseGridRegressor(level=3, alpha=1e-3, batch_size=7),
    SparseGridRegressor(n_refinements=3, max_points=300),
    SparseGridRegressor(level=3, solver="iterative"),
    SparseGridClassifier(),
    SparseGridClassifier(level=2, alpha=0.1, boundary="zero"),
    SparseGridClassifier(method="one_hot"),
    SparseGridClassifier(level=2, method="softmax"),
]

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
