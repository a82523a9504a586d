"""Neural sparse grids that learn block by block."""

import pickle

import numpy as np
import pytest

from skpou import NeuralSparseGridClassifier, NeuralSparseGridRegressor
from skpou.datasets import make_two_moons_3d

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (600, 4))
Y = np.tanh(2 * (X[:, 0] + X[:, 1])) + 0.05 * rng.standard_normal(600)
BOUNDS = [[-1, 1]] * 4
BLOCKS = np.array_split(np.arange(400), 4)


def regressor(**params):
    return NeuralSparseGridRegressor(
        (8,), n_components=1, level=4, bounds=BOUNDS, batch_size=32, **params
    )


def taught(model, passes=4):
    for _ in range(passes):
        for block in BLOCKS:
            model.partial_fit(X[block], Y[block])
    return model


@pytest.mark.parametrize("params", [{}, {"optimizer": "sgd", "learning_rate": 0.05}])
def test_blocks_teach(params):
    model = taught(regressor(**params))
    first = regressor(**params).partial_fit(X[:100], Y[:100])
    assert model.score(X[400:], Y[400:]) > max(0.9, first.score(X[400:], Y[400:]))
    assert len(model.loss_curve_) == model.n_iter_ == 16
    mean, std = model.predict(X[400:], return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()


def test_the_same_seed_gives_the_same_bits_and_state_is_saved():
    first, other = (taught(regressor(random_state=3), 1) for _ in range(2))
    np.testing.assert_array_equal(first.predict(X), other.predict(X))
    again = pickle.loads(pickle.dumps(first))
    for model in (first, again):
        model.partial_fit(X[400:], Y[400:])
    np.testing.assert_array_equal(first.predict(X), again.predict(X))
    assert not np.array_equal(taught(regressor(random_state=4), 1).predict(X), other.predict(X))


def test_units_are_those_of_the_first_block():
    model = regressor().partial_fit(X[:100], Y[:100])
    before = {key: value.copy() for key, value in model.scaling_.items()}
    model.partial_fit(X[100:200], Y[100:200] + 1.0)
    for key, value in before.items():
        np.testing.assert_array_equal(model.scaling_[key], value)
    with pytest.raises(ValueError, match="y has 2 outputs, but 1"):
        model.partial_fit(X, np.stack([Y, Y], 1))


def test_a_rate_that_is_too_high_leaves_a_finite_model():
    model = regressor(learning_rate=1e200, optimizer="sgd")
    with pytest.warns(match="was not finite|lie within") as caught:
        model.partial_fit(X[:100], Y[:100]).partial_fit(X[100:200], Y[100:200])
    assert caught
    assert np.isfinite(model.predict(X)).all()


def test_classes():
    points, labels = make_two_moons_3d(800, noise=0.1, random_state=0)
    labels = np.array(["a", "b"])[labels]
    model = NeuralSparseGridClassifier((8,), level=4, bounds=[[-3, 3]] * 3, batch_size=32)
    for _ in range(10):
        for block in np.array_split(np.arange(600), 3):
            model.partial_fit(points[block], labels[block], classes=["b", "c", "a"])
    assert list(model.classes_) == ["a", "b", "c"]
    assert model.score(points[600:], labels[600:]) > 0.9
    assert model.predict_proba(points)[:, 2].max() < 0.1
    with pytest.raises(ValueError, match="other"):
        model.partial_fit(points[:2], ["a", "other"])
    assert not hasattr(NeuralSparseGridClassifier(method="density"), "partial_fit")
