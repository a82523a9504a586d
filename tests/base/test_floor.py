"""No stored model is worse at its own rows than the mean, or the shares of classes."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score

from skpou import (
    HierarchicalPOURegressor,
    LSGDRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
)
from skpou.core.models.floor import worse_than_the_mean, worse_than_the_shares
from tests.estimators import (
    CONFIGURATIONS,
    each_class,
    each_class_with_a_model,
    fitted_to_two,
    make,
    stepped,
)
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
    model, points = fitted_to_two(name), tensor(X[:9])
    before = model._model(points)
    after = before.flattened(torch.tensor([True, False]))
    assert not after.mean(points)[:, 0].any()
    torch.testing.assert_close(after.mean(points)[:, 1], before.mean(points)[:, 1])
    noise, epistemic = after.components(points).variances()
    torch.testing.assert_close(noise[:, 0], torch.ones_like(noise[:, 0]))
    assert torch.isfinite(epistemic).all()
    # What claimed to be exact would give way to no line.
    assert (epistemic[:, 0] > 0).all()


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


# Classes


class Shares:
    """A predictor of given probabilities at the rows in their order."""

    def __init__(self, proba):
        self.proba = tensor(proba)

    def log_proba(self, X):
        return self.proba[: len(X)].log()

    def numbers_per_row(self):
        return 1


@pytest.mark.parametrize(
    ("second", "worse"),
    [
        ([0.2, 0.3, 0.1, 0.6], False),
        # What the shares say, 3 to 1, is not worse than they are.
        ([0.25, 0.25, 0.25, 0.25], False),
        # The last is right, but nothing else is.
        ([0.9, 0.9, 0.9, 0.6], True),
        # All of the largest class are right and hardly likelier than the last is unlikely.
        ([1e-3, 1e-3, 1e-3, 1e-9], False),
        ([np.nan] * 4, True),
    ],
)
def test_classes_that_are_worse_than_their_shares(second, worse):
    rows = rows_of(np.arange(4.0)[:, None] / 3, np.array([[1, 0], [1, 0], [1, 0], [0, 1]]))
    proba = np.column_stack([1 - np.array(second), second])
    assert worse_than_the_shares(Shares(proba), rows, tensor([0.75, 0.25])) is worse


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cls", [SparseGridClassifier, NeuralSparseGridClassifier])
def test_shares_stand_in_for_classes_that_are_worse(cls, dtype, monkeypatch):
    """A fit whose functions have the wrong sign predicts the shares of the classes."""
    labels = np.where(X[:, 0] > 0.3, "right", "left")
    weight = 1.0 + np.arange(len(X)) % 3
    model = cls(level=2, method="softmax", dtype=dtype)
    keep = model._no_worse_than_the_shares

    def spoiled(result, prepared):
        head = getattr(result.state, "head", result.state)
        head.coef = -head.coef
        return keep(result, prepared)

    monkeypatch.setattr(model, "_no_worse_than_the_shares", spoiled)
    with pytest.warns(ConvergenceWarning, match="shares of the classes are kept"):
        model.fit(X, labels, sample_weight=weight)
    share = weight[labels == "right"].sum() / weight.sum()
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], share, rtol=1e-5)
    assert model.score(X, labels, weight) == pytest.approx(max(share, 1 - share))


@pytest.mark.parametrize("seed", [0, 2])
def test_a_heavy_row_that_is_held_out(seed):
    """Training with the others gets its class wrong: the grid is fitted to all rows instead."""
    rng = np.random.default_rng(0)
    points = rng.random((30, 1))
    labels = (rng.random(30) < 0.2).astype(int)
    labels[7], heavy = 1, np.arange(30) == 7
    model = NeuralSparseGridClassifier(
        4, n_components=1, level=2, coef_solver="varpro", max_iter=10, early_stopping=True,
        validation_fraction=0.5, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(points, labels, sample_weight=np.where(heavy, 1e9, 1.0))
    assert not any("shares of the classes are kept" in str(w.message) for w in caught)
    assert model.predict(points[7:8]).tolist() == [1]


def test_single_precision_that_does_not_hold_the_coefficients():
    """Without a ridge they cancel: what is stored is judged, not what was solved for."""
    rng = np.random.default_rng(0)
    points = rng.random((60, 1))
    targets = (rng.random(60) < 0.3).astype(float)
    model = NeuralSparseGridRegressor(
        3, n_components=4, level=2, boundary="truncated", margin=0.4, alpha=0.0, max_iter=5,
        coef_solver="direct", init="isomap", dtype="float32",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the faces, too
        model.fit(points, targets)
    assert r2_score(targets, model.predict(points)) > -1e-5
