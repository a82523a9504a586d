"""scikit-learn's own checks of the neural sparse grids, none excepted."""

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_get_feature_names_out_error,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    parametrize_with_checks,
)

from skpou import NeuralSparseGridClassifier, NeuralSparseGridRegressor

QUICK = {"hidden_layer_sizes": (5,), "level": 2, "max_iter": 40, "learning_rate": 0.1}
CONFIGURATIONS = [
    NeuralSparseGridRegressor(),
    NeuralSparseGridRegressor(**QUICK, coef_solver="gradient", n_components=1),
    NeuralSparseGridRegressor(**QUICK, coef_solver="direct", alpha=0.01, optimizer="sgd"),
    NeuralSparseGridRegressor(**QUICK, coef_solver="iterative", early_stopping=True),
    NeuralSparseGridClassifier(),
    NeuralSparseGridClassifier(**QUICK, method="density", coef_solver="gradient", alpha=0.1),
    NeuralSparseGridClassifier(**QUICK, coef_solver="direct", alpha=0.01),
    NeuralSparseGridClassifier(
        **QUICK, method="one_hot", coef_solver="iterative", boundary="zero", margin=0.1
    ),
]

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*of the embeddings lie within:UserWarning"),
    pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning"),
]


@parametrize_with_checks(CONFIGURATIONS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", CONFIGURATIONS[1::4], ids=repr)
@pytest.mark.parametrize(
    "check",
    [
        check_param_validation,
        check_dataframe_column_names_consistency,
        check_get_feature_names_out_error,
        check_transformer_get_feature_names_out,
        check_transformer_get_feature_names_out_pandas,
        check_set_output_transform,
        check_set_output_transform_pandas,
        check_set_output_transform_polars,
        check_global_output_transform_pandas,
        check_global_set_output_transform_polars,
    ],
)
def test_check_that_is_not_yielded(estimator, check):
    check(type(estimator).__name__, estimator)
