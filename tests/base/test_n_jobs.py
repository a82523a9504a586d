"""n_jobs on every estimator: the same bits, no more threads than asked for, clear refusals."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

import skpou
from skpou import (
    AdditivePOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
)
from skpou.base import estimator as base_estimator
from skpou.core import parallel
from tests.estimators import QUERY, assert_same_bits, kinked, predictions, stepped

X, Y = stepped()
ESTIMATORS = [
    getattr(skpou, name) for name in skpou.__all__ if name.endswith(("Regressor", "Classifier"))
]
#: It has that of the regressor inside.
OWN = [cls for cls in ESTIMATORS if cls.__name__ != "TransformedRegressor"]


@pytest.fixture
def used(monkeypatch):
    """Numbers of threads of all that ran in parallel."""
    found, original = [], parallel.joblib.Parallel

    def recorded(n_jobs, **options):
        found.append(n_jobs)
        return original(n_jobs=n_jobs, **options)

    monkeypatch.setattr(parallel.joblib, "Parallel", recorded)
    return found


@pytest.mark.parametrize("cls", OWN)
def test_every_estimator_has_it(cls):
    assert cls().get_params()["n_jobs"] is None
    for bad in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="n_jobs"):
            cls(n_jobs=bad).fit(X, Y > 0)


def test_a_transformed_regressor_has_that_of_the_regressor_inside():
    model = skpou.TransformedRegressor(SparseGridRegressor())
    assert model.set_params(regressor__n_jobs=2).get_params()["regressor__n_jobs"] == 2


@pytest.mark.parametrize(
    ("model", "n_outputs"),
    [
        (AdditivePOURegressor(density="gaussian"), 2),
        (AdditivePOURegressor(), 1),
        (LSGDRegressor((6,), alpha=1e-3, n_init=3, tol=0.2), 1),
        (POURegressor(2, 1, gate="linear", init="box", n_init=3, tol=0.1), 1),
        (MultiStageRegressor(2), 1),
    ],
)
def test_results_do_not_depend_on_it(model, n_outputs, used):
    X, y = kinked(50)
    y = np.column_stack([y, -(y**2)])[:, :n_outputs]
    results = []
    for n_jobs in (None, 2):
        used.clear()
        model.set_params(n_jobs=n_jobs).fit(X, y)
        assert bool(used) == (n_jobs == 2)
        assert all(n <= 2 for n in used)
        results.append(predictions(model))
    assert_same_bits(*results)


@pytest.mark.slow
def test_a_grid_search_does_not_take_more_threads():
    scoring = {"threads": lambda model, X, y: float(torch.get_num_threads())}
    search = GridSearchCV(
        SparseGridRegressor(), {"level": [2, 3]}, scoring=scoring, refit=False, n_jobs=2
    )
    search.fit(X, Y)
    assert (
        search.cv_results_["mean_test_threads"] <= max(parallel.joblib.cpu_count() // 2, 1)
    ).all()


def test_models_of_earlier_versions_have_none():
    model = SparseGridRegressor(level=2).fit(X, Y)
    del model.__dict__["n_jobs"]
    assert model.get_params()["n_jobs"] is None
    assert np.isfinite(model.predict(QUERY)).all()


@pytest.mark.parametrize(
    "model",
    [
        POURegressor(2, 1, tol=0.1, batch_size=4),
        AdditivePOURegressor(density="mixture", terms=[(0,)], batch_size=4),
        SparseGridRegressor(level=2, batch_size=4),
        SparseGridClassifier(level=2, method="one_hot"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_predictions_in_blocks_do_not_depend_on_it(model, used, monkeypatch):
    monkeypatch.setattr(base_estimator, "FEWEST_TOGETHER", 1)
    monkeypatch.setattr(base_estimator, "rows_within", lambda *numbers: 4)
    X, y = kinked(60)
    model.fit(X, y > np.median(y) if hasattr(model, "predict_proba") else y)

    def all_kinds():
        return (
            {"shares": model.predict_proba(QUERY)}
            if hasattr(model, "predict_proba")
            else predictions(model)
        )

    one = all_kinds()
    used.clear()
    model.set_params(n_jobs=2)
    two = all_kinds()
    assert used and set(used) == {2}
    assert_same_bits(one, two)
