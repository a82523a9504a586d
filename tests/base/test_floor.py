"""No stored model is worse than the mean at its own rows."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score

from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from skpou.core.models.floor import worse_than_the_mean
from tests.estimators import CONFIGURATIONS, each_class, each_class_with_a_model, make, stepped
from tests.examples import rows_of, tensor

X, Y = stepped()


class Fixed:
    """A predictor of given values at the rows in their order."""

    def __init__(self, values):
        self.values = values

    def mean(self, X):
        return self.values[: len(X)]

    def numbers_per_row(self):
        return 1


@pytest.mark.parametrize(
    ("values", "worse"), [(0.0, False), (0.4, False), (-0.1, True), (np.nan, True), (np.inf, True)]
)
def test_what_is_worse(values, worse):
    y = np.array([1.0, -1.0, 1.0, -1.0])
    rows = rows_of(np.arange(4.0)[:, None] / 3, y)
    found = worse_than_the_mean(Fixed(tensor(values * y)[:, None]), rows)
    assert found.tolist() == [worse]


def test_targets_count_one_by_one():
    y = np.array([[1.0, 2.0], [-1.0, -2.0]])
    rows = rows_of([[0.0], [1.0]], y)
    assert worse_than_the_mean(Fixed(tensor(y * [0.5, -0.5])), rows).tolist() == [False, True]


def test_a_constant_target_is_met_up_to_round_off():
    rows = rows_of([[0.0], [1.0]], [0.0, 0.0])
    assert worse_than_the_mean(Fixed(tensor([[1e-14], [0.0]])), rows).tolist() == [False]
    assert worse_than_the_mean(Fixed(tensor([[1e-6], [0.0]])), rows).tolist() == [True]


@each_class_with_a_model
def test_flattened_models_predict_the_mean_of_some_targets(name):
    model, points = make(name).fit(X, np.column_stack([Y, 2 * Y, X[:, 0]])), tensor(X[:9])
    before = model._model(points)
    after = before.flattened(torch.tensor([True, False, True]))
    assert not after.mean(points)[:, [0, 2]].any()
    torch.testing.assert_close(after.mean(points)[:, 1], before.mean(points)[:, 1])
    noise, epistemic = after.components(points).variances()
    torch.testing.assert_close(noise[:, [0, 2]], torch.ones_like(noise[:, :2]))
    assert torch.isfinite(epistemic).all()


def spoiled(model, factor):
    """The estimator, whose training returns a model that is wrong by a factor."""
    train = model._best_of

    def best_of(*args):
        result = train(*args)
        if hasattr(result.state, "experts"):
            for part in result.state.experts:
                part.coef *= factor
        return result

    model._best_of = best_of
    return model


@pytest.mark.parametrize("cls", [HierarchicalPOURegressor, POURegressor])
def test_one_piece_stands_in_for_pieces_that_are_worse(cls):
    model = spoiled(cls(2, 1), -1.0)
    with pytest.warns(ConvergenceWarning, match="further from its own rows than the mean of y in"):
        model.fit(X, Y)
    assert len(model.coef_) == 1
    assert r2_score(Y, model.predict(X)) > 0.3


def test_three_outputs_on_a_table():
    """Pieces of a table whose gates misplace the rows: one polynomial instead."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((93, 7)) * [1, 1, 1, 4, 1e6, 5, 8]
    targets = np.column_stack([np.sign(table[:, 0]), 2 * np.sign(table[:, 0]), rng.random(93)])
    model = HierarchicalPOURegressor().fit(table, targets)
    scores = r2_score(targets, model.predict(table), multioutput="raw_values")
    assert scores.min() > -1e-6


@pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")
@each_class
def test_training_that_ends_at_once_is_no_worse(name):
    options = {"max_iter": 1} if "max_iter" in CONFIGURATIONS[name].get_params() else {}
    assert make(name, **options).fit(X, Y).score(X, Y) > -1e-6


def test_descent_that_went_wrong_leaves_the_mean():
    model = LSGDRegressor((8,), solver="gd", learning_rate=50.0, max_iter=3)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, Y)
    assert model.score(X, Y) > -1e-6
