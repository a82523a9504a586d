"""Configured estimators that share tests, and what these tests need.

A later estimator joins them by an entry in `CONFIGURATIONS`.
"""

import contextlib
import copy
import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import skpou
from skpou import (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridRegressor,
)

#: Quick configurations of every estimator; more than one of a class where its paths differ.
CONFIGURATIONS = {
    "pieces": HierarchicalPOURegressor(n_partitions=2, degree=1),
    "tree": HierarchicalPOURegressor((2, 2), 1, gate="linear", alpha=1e-6),
    "float32": HierarchicalPOURegressor(n_partitions=2, degree=2, dtype="float32"),
    "auto": HierarchicalPOURegressor(),
    "units": LSGDRegressor(),
    "varpro": LSGDRegressor((6,), alpha=1e-3),
    "lsgd": LSGDRegressor((4, 4), architecture="residual", solver="lsgd", alpha=1e-3, tol=0.1),
    "lbfgs": LSGDRegressor((4,), activation="sin", solver="lbfgs", alpha=0.05),
    "gd": LSGDRegressor((8,), solver="gd", learning_rate=0.02, tol=0.1),
    "network-float32": LSGDRegressor(
        (4, 4), architecture="residual", solver="lsgd", alpha=1e-3, tol=0.1, dtype="float32"
    ),
    "em": HierarchicalPOURegressor(2, 1, gate="linear", init="box", solver="em", tol=1e-2),
    "networks": HierarchicalPOURegressor(
        (2, 2), 1, gate="mlp", init="box", solver="em", learning_rate=0.02, tol=1e-2
    ),
    "residual": HierarchicalPOURegressor(
        gate="residual", solver="em", smoothing=(1, 1, 1), learning_rate=0.02, tol=1e-2
    ),
    "stages": MultiStageRegressor(),
    "networks and sines": MultiStageRegressor(hidden_layer_sizes=(6,), tol=0.14),
    "recipe": MultiStageRegressor(
        1, hidden_layer_sizes=(6,), solver="adam_lbfgs", max_iter=50, tol=0.1
    ),
    "partitions": POURegressor(3, 1, gate="linear", alpha=1e-6),
    "radial gates": POURegressor(2, 2),
    "two-phases": POURegressor(2, 1, solver="lsgd", alpha=0.01, tol=0.25),
    "residual-gates": POURegressor(2, 1, gate="residual", hidden_layer_sizes=(3,), tol=1e-2),
    # With its level given no process takes the place of a grid of few rows.
    "grid": SparseGridRegressor(level=4),
    "grid in float32": SparseGridRegressor(level=3, boundary="truncated", dtype="float32"),
    "refined grid": SparseGridRegressor(n_refinements=3, max_points=100),
    "dual grid": SparseGridRegressor(level=8),
    "mixed grid": SparseGridRegressor(density="mixture"),
    "terms": AdditivePOURegressor(),
    "main effects": AdditivePOURegressor(
        1, density="gaussian", transform_columns=False, n_splines=6, dtype="float32"
    ),
    "iterated grid": SparseGridRegressor(level=3, solver="iterative"),
    "neural grid": NeuralSparseGridRegressor((8,), level=3),
    "neural grid in steps": NeuralSparseGridRegressor(
        (8,), level=3, coef_solver="direct", max_iter=200, learning_rate=0.03
    ),
    # The quickest alone: tests/auto has the races and stacks.
    "front door": AutoRegressor(["SparseGridRegressor"]),
}
#: Configurations whose fitted state is other estimators, and no model of their own.
OF_MEMBERS = ("front door",)


def _first_by(key):
    """Names of the first configuration of each value of `key`."""
    first = {key(estimator): name for name, estimator in reversed(CONFIGURATIONS.items())}
    return [name for name in CONFIGURATIONS if name in first.values()]


def _solver(estimator):
    return type(estimator), *(getattr(estimator, k, None) for k in ("solver", "coef_solver"))


def slow_beyond(names, configurations=CONFIGURATIONS):
    """Parametrization by these configurations, those beyond `names` marked slow."""
    slow = [pytest.mark.slow]
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[] if n in names else slow) for n in configurations]
    )


#: The first configuration of each class.
ONE_OF_EACH = sorted(_first_by(type))
#: The first of each solver of a class.
ONE_OF_EACH_SOLVER = _first_by(_solver)
#: The class that each of these is a configuration of.
CLASSES = [type(CONFIGURATIONS[name]) for name in ONE_OF_EACH]

each_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)
each_class = pytest.mark.parametrize("name", ONE_OF_EACH)
#: For what is asked of the model inside.
each_class_with_a_model = pytest.mark.parametrize(
    "name", [name for name in ONE_OF_EACH if name not in OF_MEMBERS]
)
#: The quickest two of these, which no network takes part in.
QUICK = ("grid", "pieces")
#: For what the base classes do before and after every training alike.
each_quick_class = slow_beyond(QUICK, ONE_OF_EACH)
each_quick_class_with_a_model = slow_beyond(
    QUICK, [name for name in ONE_OF_EACH if name not in OF_MEMBERS]
)
#: For several fits of a property of the base classes, or many.
quickest_class = slow_beyond(QUICK[:1], ONE_OF_EACH)
#: For what the base class does alike for every configuration of a class.
each_configuration_slowly = slow_beyond(ONE_OF_EACH)
#: For extremes and other sides of such properties, which some tests show for every class.
quick_configurations = slow_beyond(QUICK)
#: For what each solver's own code does, where all configurations would take long.
each_solver = slow_beyond(ONE_OF_EACH_SOLVER)


def make(name, **params):
    """New estimator of that configuration."""
    return copy.deepcopy(CONFIGURATIONS[name]).set_params(**params)


def members_of(model):
    """Fitted members of a stack; none of any other model."""
    return getattr(model, "estimators_", [])


def kinked(n_samples=60, n_features=2, noise=0.05, seed=0):
    """Rows of ``|x_0| + x_1 + ... + noise`` in the box from -1 to 1."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n_samples, n_features))
    return X, kinked_mean(X) + noise * rng.standard_normal(n_samples)


def kinked_mean(X):
    """What `kinked` draws, without the noise."""
    return np.abs(X[:, 0]) + X[:, 1:].sum(1)


def stepped(n_samples=60):
    """`kinked` with a step of 2 at its kink: which row is in which piece is beyond doubt.

    Without the step, round-off alone may decide where the pieces meet.
    """
    X, y = kinked(n_samples)
    return X, y + 2.0 * (X[:, 0] > 0)


def stepped_mean(X):
    """What `stepped` draws, without the noise."""
    return kinked_mean(X) + 2.0 * (X[:, 0] > 0)


#: Points at which predictions are compared, off the step; the last is a corner of the box.
QUERY = np.random.default_rng(7).uniform(-0.95, 0.95, (15, 2))
QUERY = np.vstack([QUERY[np.abs(QUERY[:, 0]) > 0.25], [[1.0, -1.0]]])


@functools.cache
def _fitted(name):
    return make(name).fit(*stepped())


def fitted(name):
    """Copy of the configuration after a fit to `stepped()`."""
    return copy.deepcopy(_fitted(name))


@functools.cache
def fitted_to_two(name):
    """The configuration after a fit to two outputs, the second twice the first: no copy."""
    X, y = stepped()
    return make(name).fit(X, np.column_stack([y, 2 * y]))


@functools.cache
def _fitted_predictions(name):
    return predictions(_fitted(name))


def fitted_predictions(name):
    """`predictions` of the configuration after a fit to `stepped()`."""
    return dict(_fitted_predictions(name))


_PACKAGE = Path(skpou.__file__).parent
_BASE = _PACKAGE / "base"


@contextlib.contextmanager
def watched_training():
    """List that fills with the functions which train, `fit_...`, as the block enters them.

    Those of skpou.base, which only start the training or tell of it, do not count.
    """
    entered = []

    def watch(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_name.startswith("fit_"):
            folders = Path(code.co_filename).parents
            if _PACKAGE in folders and _BASE not in folders:
                entered.append(code.co_name)
        if earlier is not None:
            earlier(frame, event, argument)

    earlier = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield entered
    finally:
        sys.setprofile(earlier)


@contextlib.contextmanager
def no_training():
    """The block, which may catch an error of its own, must not enter any training."""
    with watched_training() as entered:
        yield
    assert not entered, f"training began: {entered}"


def blurred(name):
    """Whether partitions overlap by far more than the distance between points."""
    return getattr(CONFIGURATIONS[name], "solver", None) == "em"


def entwined(name):
    """Whether outputs that are fitted together take other steps than each alone."""
    return getattr(CONFIGURATIONS[name], "solver", None) in ("em", "adam_lbfgs")


def tolerance(name):
    """Relative error that float64 or float32 computations leave, with a margin."""
    if name.startswith("neural grid"):
        return 1e-5  # Steps through kinks of the grid's functions amplify round-off.
    if getattr(CONFIGURATIONS[name], "solver", None) in ("lbfgs", "adam_lbfgs"):
        return 1e-4  # Its line search compares losses: the root of round-off, times the condition.
    if name == "networks and sines":
        return 1e-6  # Its ridge is 1e-7, and round-off grows by the inverse.
    if name == "radial gates":
        return 1e-5  # They blend across the step, where the slope of a gate matters little.
    return 1e-9 if CONFIGURATIONS[name].dtype == "float64" else 2e-3


def predictions(model, X=QUERY):
    """Predictions of every kind that the model knows, as numpy arrays by name."""
    mean, std = model.predict(X, return_std=True)
    results = {
        "mean": mean,
        "std": std,
        "epistemic": model.predict(X, return_std="epistemic")[1],
        "noise": model.predict(X, return_std="noise")[1],
        "gradient": model.predict_gradient(X),
        "quantiles": model.predict_quantile(X),
        "samples": model.sample_y(X, n_samples=2),
        "log_density": model.log_density(X, 0.5 * mean),
    }
    for method in ("partition_proba", "predict_partition"):
        if hasattr(model, method):
            results[method] = getattr(model, method)(X)
    return {
        key: value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        for key, value in results.items()
    }


def same_bits(a, b):
    """Whether two arrays have equal shapes, dtypes and bits."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def assert_same_bits(first, second):
    """Compare two results of `predictions` bit for bit."""
    assert first.keys() == second.keys()
    different = [key for key in first if not same_bits(first[key], second[key])]
    errors = {key: np.abs(first[key] - second[key]).max() for key in different}
    assert not different, f"other bits, with largest differences {errors}"


def errors(model, exact, low, high, d, n=1000):
    """Relative root mean square, and the share of errors within three deviations."""
    X = np.random.default_rng(5).uniform(low, high, (n, d))
    y = exact(X)
    mean, std = model.predict(X, return_std="epistemic")
    inside = np.mean(np.abs(mean - y) <= 3 * std)
    return np.sqrt(np.mean((mean - y) ** 2) / np.mean(y**2)), inside
