"""scikit-learn's own checks of every class, none excepted."""

import pytest
from sklearn.base import is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import BayesianRidge
from sklearn.utils import get_tags
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
    estimator_checks_generator,
)

import skpou
from skpou import (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDClassifier,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
    TransformedRegressor,
)
from tests.estimators import CONFIGURATIONS as OF_ALL_TESTS
from tests.estimators import ONE_OF_EACH_SOLVER

CLASSES = [getattr(skpou, name) for name in skpou.__all__ if not name.startswith("_")]
QUICK = {"hidden_layer_sizes": (5,), "level": 2, "max_iter": 40, "learning_rate": 0.1}

#: Other solvers, gates, encoders and methods than the defaults, which train by code of their own.
CONFIGURATIONS = {
    "linear gates": HierarchicalPOURegressor(
        (2, 2), 1, gate="linear", alpha=1e-6, n_init=2, batch_size=7
    ),
    "em": HierarchicalPOURegressor(
        (2, 2), gate="mlp", init="box", solver="em", noise="em", max_iter=30
    ),
    "radial gates": HierarchicalPOURegressor(4, 1, gate="rbf", init="box", solver="varpro"),
    "partitions": POURegressor(3, 1, gate="linear", init="box", alpha=1e-6, n_init=2),
    "two phases": POURegressor(2, 1, solver="lsgd", max_iter=50),
    "varpro": LSGDRegressor((8,), init="data_box", batch_size=16, max_iter=50),
    "lsgd": LSGDRegressor((6, 6), architecture="residual", solver="lsgd", max_iter=100),
    "gd": LSGDRegressor((8,), activation="relu", solver="gd", learning_rate=0.05, max_iter=100),
    "lbfgs": LSGDRegressor((6,), activation="sin", solver="lbfgs", max_iter=50, n_init=2),
    "lsgd classes": LSGDClassifier(
        (5, 5), architecture="residual", solver="lsgd", batch_size=16, max_iter=40
    ),
    "gd classes": LSGDClassifier(
        (8,), activation="relu", solver="gd", learning_rate=0.05, max_iter=80, n_init=2
    ),
    "stages": MultiStageRegressor(hidden_layer_sizes=(8, 8), max_iter=30),
    "recipe": MultiStageRegressor(2, hidden_layer_sizes=(6,), solver="adam_lbfgs", max_iter=20),
    "ridge": SparseGridRegressor(level=3, alpha=1e-3, batch_size=7),
    "refined": SparseGridRegressor(n_refinements=3, max_points=300),
    "iterative": SparseGridRegressor(level=3, solver="iterative"),
    "density": SparseGridClassifier(level=2, alpha=0.1, boundary="zero"),
    "one-hot": SparseGridClassifier(method="one_hot"),
    "softmax": SparseGridClassifier(level=2, method="softmax"),
    "powers": TransformedRegressor(transform="yeo-johnson"),
    "another regressor": TransformedRegressor(BayesianRidge(), "yeo-johnson"),
    "neural gradient": NeuralSparseGridRegressor(**QUICK, coef_solver="gradient", n_components=1),
    "neural direct": NeuralSparseGridRegressor(
        **QUICK, coef_solver="direct", alpha=0.01, optimizer="sgd"
    ),
    "neural iterative": NeuralSparseGridRegressor(
        **QUICK, coef_solver="iterative", early_stopping=True
    ),
    "neural density": NeuralSparseGridClassifier(
        **QUICK, method="density", coef_solver="gradient", alpha=0.1
    ),
    "neural softmax": NeuralSparseGridClassifier(**QUICK, coef_solver="direct", alpha=0.01),
    "neural one-hot": NeuralSparseGridClassifier(
        **QUICK, method="one_hot", coef_solver="iterative", boundary="zero", margin=0.1
    ),
}
#: Regressors whose solver, or what it is behind, is none of those of tests/estimators.py.
OF_NO_OTHER_TEST = ("neural gradient", "neural iterative", "powers", "another regressor")

#: What depends on the training: few rows and columns, several outputs, weights, other orders of
#: rows, a second fit, the fitted state. The other checks look at what the base classes read,
#: refuse and hand on, which one configuration of each class shows for all: the quickest. Those of
#: the defaults are slow.
OF_EVERY_SOLVER = {
    "check_classifiers_one_label",
    "check_classifiers_train",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_non_transformer_estimators_n_iter",
    "check_regressor_multioutput",
    "check_regressors_train",
    "check_sample_weight_equivalence_on_dense_data",
    "check_transformer_general",
}
#: These look at predictions, which the solvers of a class share: the quickest shows them.
#: test_regressor looks at those of every configuration, bit for bit.
OF_PREDICTIONS = {
    "check_dict_unchanged",
    "check_estimators_pickle",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
}
#: Some twenty fits each for what tests of the accuracy of every class, and of its equal bits, hold
#: more sharply: the quickest shows them, too.
OF_ACCURACY = {"check_classifiers_train", "check_regressors_train"}
#: Several fits each for how data are read, by one function for all; those of the quickest classes,
#: and of those that hand data on to others, show it.
OF_READING = {
    "check_array_api_input",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_regressor_data_not_an_array",
    "check_regressors_int",
    "check_supervised_y_2d",
}
READERS = (
    *("AutoRegressor", "TransformedRegressor", "SparseGridRegressor"),
    *("SparseGridClassifier", "NeuralSparseGridClassifier"),
)
#: What test_regressor asks of every solver of the regressors, bit for bit where it can.
OF_TEST_REGRESSOR = {
    "check_fit_idempotent",
    "check_non_transformer_estimators_n_iter",
    "check_sample_weight_equivalence_on_dense_data",
}

#: Its targets are negative also for estimators whose tags ask for positive ones; those of
#: test_regressor in tests/transformed take its place.
IGNORES_TAGS = "check_regressor_multioutput"

# The checks set max_iter=5, which may not suffice, as it should say.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*of the embeddings lie within:UserWarning"),
    pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning"),
]


def checks_of(estimators, is_quick=lambda kind: True, without=()):
    """All checks but some of the estimators by name; those that are not quick are slow.

    So are repetitions of some with read-only input, which is read before any training and which
    test_validation holds for itself.
    """
    for name, given in estimators.items():
        for estimator, check in estimator_checks_generator(given):
            kind, options = check.func.__name__, check.keywords
            if kind == IGNORES_TAGS and get_tags(estimator).target_tags.positive_only:
                continue
            if kind in without:
                continue
            extra = "readonly_memmap" in options or not is_quick(kind)
            identity = "-".join([name, kind, *(f"{k}={v}" for k, v in options.items())])
            marks = [pytest.mark.slow] if extra else []
            yield pytest.param(estimator, check, marks=marks, id=identity)


#: Members that are fitted in no time stand for those by default, some ninety fits of each of which
#: would take minutes.
MEMBERS = [SparseGridRegressor(level=2), SparseGridRegressor()]
DEFAULTS = {c.__name__: c() for c in CLASSES if c is not AutoRegressor}
DEFAULTS["AutoRegressor"] = AutoRegressor(MEMBERS)


#: Stand for a class whose default takes long to train.
QUICKEST = {
    "AdditivePOURegressor": AdditivePOURegressor(
        1, density="gaussian", transform_columns=False, n_splines=2, remainder=False
    ),
    "AutoRegressor": AutoRegressor(MEMBERS[:1]),
    "HierarchicalPOURegressor": HierarchicalPOURegressor(1, 1),
    "LSGDClassifier": LSGDClassifier((4,), max_iter=20),
    "LSGDRegressor": LSGDRegressor((4,), alpha=1e-3, max_iter=20),
    "MultiStageRegressor": MultiStageRegressor(1, hidden_layer_sizes=(4,), max_iter=20),
    "NeuralSparseGridClassifier": NeuralSparseGridClassifier(
        **QUICK | {"max_iter": 5}, coef_solver="gradient"
    ),
    "NeuralSparseGridRegressor": NeuralSparseGridRegressor(
        **QUICK | {"max_iter": 5}, coef_solver="gradient"
    ),
    "POURegressor": POURegressor(1, 1, gate="linear", alpha=1e-3),
    "SparseGridClassifier": SparseGridClassifier(level=1),
    "SparseGridRegressor": SparseGridRegressor(level=2),
    "TransformedRegressor": TransformedRegressor(SparseGridRegressor(level=2)),
}


#: Classes whose default is among what test_regressor asks.
DEFAULTS_OF_TEST_REGRESSOR = {
    type(model).__name__
    for model in (OF_ALL_TESTS[name] for name in ONE_OF_EACH_SOLVER)
    if model.get_params() == type(model)().get_params()
}


#: Their default predicts in other ways than the quickest: a stack by its members, and units that
#: were grown have no coefficients as large as those of a small network after few steps.
PREDICT_BY_DEFAULT = ("AutoRegressor", "MultiStageRegressor")
#: The few steps of their quickest teach them too little for what is asked `OF_ACCURACY`.
LEARN_BY_DEFAULT = ("NeuralSparseGridClassifier", "NeuralSparseGridRegressor")


def checks_of_defaults():
    """Those of the training, and of some the predictions."""
    for name, estimator in DEFAULTS.items():
        quick = OF_EVERY_SOLVER | (OF_PREDICTIONS if name in PREDICT_BY_DEFAULT else set())
        elsewhere = set() if name in LEARN_BY_DEFAULT else set(OF_ACCURACY)
        elsewhere |= OF_TEST_REGRESSOR if name in DEFAULTS_OF_TEST_REGRESSOR else set()
        yield from checks_of({name: estimator}, (quick - elsewhere).__contains__)


def checks_of_configurations():
    """Those of the training; of regressors those that test_regressor does not hold for itself."""
    for name, estimator in CONFIGURATIONS.items():
        elsewhere = is_regressor(estimator) and name not in OF_NO_OTHER_TEST
        quick = OF_EVERY_SOLVER - OF_ACCURACY - (OF_TEST_REGRESSOR if elsewhere else set())
        yield from checks_of({name: estimator}, quick.__contains__)


@pytest.mark.parametrize(("estimator", "check"), [*checks_of_defaults()])
def test_default(estimator, check):
    check(estimator)


def checks_of_quickest():
    """Those that no training is asked for, and the predictions of most."""
    for name, estimator in (DEFAULTS | QUICKEST).items():
        others = OF_EVERY_SOLVER - OF_ACCURACY
        others |= OF_PREDICTIONS if name in PREDICT_BY_DEFAULT else set()
        others |= set() if name in READERS else OF_READING
        without = OF_ACCURACY if name in LEARN_BY_DEFAULT else ()
        yield from checks_of(
            {name: estimator}, lambda kind, others=others: kind not in others, without
        )


@pytest.mark.parametrize(("estimator", "check"), [*checks_of_quickest()])
def test_quickest(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), [*checks_of({"AutoRegressor": AutoRegressor()})])
def test_all_members(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("estimator", "check"), [*checks_of_configurations()])
def test_configuration(estimator, check):
    check(estimator)


def test_checks_that_depend_on_the_training_are_known():
    known = {
        check.func.__name__ for cls in CLASSES for _, check in estimator_checks_generator(cls())
    }
    assert known >= OF_EVERY_SOLVER | OF_PREDICTIONS | OF_TEST_REGRESSOR
    assert known >= OF_READING
    assert OF_EVERY_SOLVER >= OF_ACCURACY
    assert {"AdditivePOURegressor", "LSGDRegressor"} <= DEFAULTS_OF_TEST_REGRESSOR


#: Checks that scikit-learn keeps for its own estimators, of every class and of transformers.
NOT_YIELDED = [check_param_validation, check_dataframe_column_names_consistency]
NOT_YIELDED_OF_TRANSFORMERS = [
    check_get_feature_names_out_error,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
]


def checks_that_are_not_yielded():
    """Each of them once a class, with a quick configuration where the default is slow."""
    for cls in CLASSES:
        transforms = hasattr(cls(), "transform")
        estimator = (DEFAULTS | QUICKEST)[cls.__name__]
        for check in NOT_YIELDED + NOT_YIELDED_OF_TRANSFORMERS * transforms:
            yield pytest.param(estimator, check, id=f"{cls.__name__}-{check.__name__}")


@pytest.mark.parametrize(("estimator", "check"), [*checks_that_are_not_yielded()])
def test_check_that_is_not_yielded(estimator, check):
    check(type(estimator).__name__, estimator)
