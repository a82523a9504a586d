"""Models for the tests of every language, with points that were not fitted."""

import functools
import warnings

import numpy as np
import pytest

from skpou import (
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    POURegressor,
    SparseGridRegressor,
)
from tests import estimators

#: Configurations of `tests.estimators`, each with another kind of step.
SHARED = (
    "tree",
    "networks",
    "residual",
    "varpro",
    "lsgd",
    "lbfgs",
    "networks and sines",
    "partitions",
    "radial gates",
    "residual-gates",
    "grid",
    "refined grid",
    "mixed grid",
)


def _plane(n=120, seed=1):
    return np.random.default_rng(seed).uniform((2.0, -1e-3), (5.0, 1e-3), (n, 2))


def _two_outputs(X):
    wave = np.sin(X[:, 0]) * np.exp(300 * X[:, 1])
    return np.column_stack([wave, 1e6 + X[:, 0] ** 2])


def _special():
    """Models beside those, by name: unfitted, X, y."""
    X, x = _plane(), np.linspace(-1, 1, 80)[:, None]
    constant = np.column_stack([X[:, 0], np.full(len(X), 3.0), X[:, 1]])
    smooth = np.sin(2 * x[:, 0] + 1)
    doses = 10.0 ** np.random.default_rng(0).uniform(-2, 2, (80, 2))
    effect = np.log(doses[:, 0]) + 0.1 * np.random.default_rng(1).standard_normal(80)
    relu = LSGDRegressor((6,), activation="relu", solver="lsgd", alpha=1e-3, tol=0.1)
    return {
        "two outputs": (HierarchicalPOURegressor((2, 2), 2), X, _two_outputs(X)),
        "two outputs on a grid": (SparseGridRegressor(level=3), X, _two_outputs(X)),
        "faces": (SparseGridRegressor(level=2, boundary="full"), X, _two_outputs(X)),
        "zero faces": (SparseGridRegressor(level=4, boundary="zero"), X, _two_outputs(X)),
        "a constant column": (POURegressor(2, 1), constant, _two_outputs(X)[:, 0]),
        "nothing varies": (HierarchicalPOURegressor(), np.ones((9, 2)), np.arange(9.0)),
        "waves": (HierarchicalPOURegressor(2, 3, experts="fourier"), X, _two_outputs(X)),
        "waves on a line": (POURegressor(2, 4, experts="fourier"), x, smooth),
        "sines": (MultiStageRegressor(), x, smooth),
        "pieces in a stage": (MultiStageRegressor(), x, np.abs(x[:, 0] - 0.23)),
        "stretched columns": (LSGDRegressor(), doses, effect),
        "units": (LSGDRegressor(), x, 1 / (1 + np.exp(-30 * x[:, 0])) + x[:, 0] ** 2),
        "relu": (relu, X, _two_outputs(X)),
        "recipe": (
            MultiStageRegressor(2, hidden_layer_sizes=(6,), solver="adam_lbfgs", max_iter=30),
            x,
            smooth,
        ),
    }


NAMES = (*SHARED, *_special())
#: Those whose steps others have, too, or whose fit takes longer.
SLOW = {"residual", "lbfgs", "lsgd", "networks and sines", "partitions", "mixed grid", "tree"}
SLOW |= {"zero faces", "recipe", "relu", "residual-gates"}


#: Those that are steep beside the box: `predict` keeps their means near the targets there.
INSIDE = {"stretched columns"}


def each_model(*slow):
    """Parametrization by all models, those of `SLOW` and some others marked slow."""
    marked = SLOW.union(slow)
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in marked)) for n in NAMES]
    )


@functools.cache
def fitted(name):
    """Fitted model, and points (n, d) in the box of its rows and around it, but for `INSIDE`."""
    if name in SHARED:
        model, X = estimators.fitted(name), estimators.stepped()[0]
    else:
        model, X, y = _special()[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # networks that are left after few steps
            model.fit(X, y)
    low, high = X.min(0), X.max(0)
    share = 0.0 if name in INSIDE else 0.1
    margin = share * np.where(high > low, high - low, 1.0)
    points = np.random.default_rng(5).uniform(low - margin, high + margin, (60, X.shape[1]))
    return model, points


def outputs(model, X):
    """Predictions (n, m)."""
    return model.predict(X).reshape(len(X), -1)


def spread(model):
    """Root mean square (m,) of the targets about their mean."""
    return np.asarray(model.scaling_["scale"])


#: Estimators that no language has, unfitted.
REFUSED = ("terms", "neural grid")
