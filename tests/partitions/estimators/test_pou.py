"""POURegressor: exactly so many partitions, and gates that suit them."""

import numpy as np
import pytest

from skpou import POURegressor
from skpou.datasets import make_cross, make_triangle_wave
from tests.examples import slow


@pytest.mark.parametrize("gate", ["rbf", "residual", *slow("quadratic", "linear", "mlp")])
@pytest.mark.parametrize("solver", ["varpro", "lsgd"])
@pytest.mark.filterwarnings("ignore:solver='.*' used all")
def test_exactly_so_many_partitions(gate, solver):
    X, y = make_cross(200, random_state=0)
    model = POURegressor(5, 2, gate=gate, solver=solver, max_iter=60).fit(X, y)
    pi = model.partition_proba(X)
    assert pi.shape == (200, 5)
    np.testing.assert_allclose(pi.sum(1), 1, rtol=1e-12)
    assert model.coef_.shape == (5, 6)
    assert model.gate_ == gate
    assert len(model.tree_) == 1


def test_kinks_between_all_pieces_are_met_to_round_off():
    X = np.linspace(0, 1, 401)[:, None]
    y = make_triangle_wave(X=X, frequency=4)[1]
    model = POURegressor(8, 1).fit(X, y)
    middle = (X[1:] + X[:-1]) / 2
    assert (
        np.abs(model.predict(middle) - make_triangle_wave(X=middle, frequency=4)[1]).max() < 1e-12
    )


@pytest.mark.slow
def test_as_many_noisy_pieces_as_allowed():
    X = np.linspace(0, 1, 1001)[:, None]
    y = make_triangle_wave(X=X, frequency=32, squared=True)[1]
    noise = 1e-3 * np.random.default_rng(20_001).standard_normal(1001)
    model = POURegressor(32, 2).fit(X, y + noise)
    assert np.sqrt(np.mean((model.predict(X) - y) ** 2)) < 1e-3


@pytest.mark.parametrize("seed", [3, *slow(0)])
def test_soft_gates_where_sharp_ones_cannot_follow(seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (500, 2))
    mean = np.tanh(20 * (X[:, 0] + X[:, 1] ** 2 - 0.3))
    model = POURegressor(6, 2).fit(X, mean + 0.05 * rng.standard_normal(500))
    predicted, std = model.predict(X, return_std=True)
    assert np.sqrt(np.mean((predicted - mean) ** 2)) < 0.06
    assert np.median(std) < 0.1


def test_more_partitions_than_the_rows_can_fill():
    X = np.random.default_rng(0).random((15, 30))
    model = POURegressor().fit(X, np.arange(15.0))
    assert model.partition_proba(X).shape == (15, 8)
    assert np.isfinite(model.predict(X, return_std=True)[1]).all()
    again = model.refit(X, X[:, 0])
    assert again.coef_.shape == (8, 496)


def test_level_and_refit():
    X, y = make_cross(300, random_state=1)
    model = POURegressor(4, 1).fit(X, y)
    before = np.sqrt(np.mean((model.predict(X) - y) ** 2))
    model.refit(X, y, degree=4)
    assert model.degree_ == 4
    assert np.sqrt(np.mean((model.predict(X) - y) ** 2)) < before / 5
    with pytest.raises(ValueError, match="level must be None or an int between 0 and 0"):
        model.predict(X, level=1)
