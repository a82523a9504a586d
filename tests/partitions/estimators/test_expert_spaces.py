"""Experts of waves in place of polynomials: the same solves, bars, gradients and words."""

import io

import joblib
import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, POURegressor
from skpou.physics import Equation
from tests.examples import slow

X = np.random.default_rng(0).uniform(-3, 5, (300, 1))
BETWEEN = np.linspace(-2.9, 4.9, 501)[:, None]


def wave(X):
    """Four periods of one wave to the left of 0.6, two of another one to the right."""
    t = (X[:, 0] + 3) / 8
    return np.where(X[:, 0] < 0.6, np.sin(8 * np.pi * t), 2 + np.cos(4 * np.pi * t))


@pytest.fixture(scope="module")
def pieces():
    return HierarchicalPOURegressor(2, 8, experts="fourier").fit(X, wave(X))


def away_from_the_jump(points):
    below, above = X[X < 0.6].max(), X[X >= 0.6].min()
    return (points[:, 0] < below) | (points[:, 0] > above)


def test_pieces_of_waves_are_found_to_round_off(pieces):
    use = away_from_the_jump(BETWEEN)
    mean, std = pieces.predict(BETWEEN, return_std=True)
    error = np.abs(mean - wave(BETWEEN))[use]
    assert len(pieces.coef_) == 2 and error.max() < 1e-7
    assert (error <= 5 * std[use]).all() and std[use].max() < 1e-4
    polynomials = HierarchicalPOURegressor(2, 8).fit(X, wave(X)).predict(BETWEEN)
    assert np.abs(polynomials - wave(BETWEEN))[use].max() > 1e3 * error.max()


def test_coefficients_are_those_of_the_documented_waves(pieces):
    box = pieces.scaling_
    t = (BETWEEN - box["offset"]) / box["width"]
    angle = np.pi * np.arange(1, 9) * t
    columns = np.stack([np.sin(angle), np.cos(angle)], 2).reshape(len(t), -1)
    values = np.hstack([np.ones_like(t), columns]) @ pieces.coef_.T
    own = values[np.arange(len(t)), pieces.predict_partition(BETWEEN)]
    np.testing.assert_allclose(pieces.predict(BETWEEN), own, atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        POURegressor(3, 3, experts="fourier"),
        POURegressor(3, 3, gate="mlp", init="box", experts="fourier", max_iter=20),
        HierarchicalPOURegressor((2, 2), 2, solver="em", experts="fourier", max_iter=30),
        *slow(
            POURegressor(3, 3, solver="lsgd", experts="fourier", max_iter=30),
            HierarchicalPOURegressor((2, 2), 2, solver="varpro", experts="fourier"),
        ),
    ],
    ids=["varpro", "mlp", "em", "lsgd", "hierarchical varpro"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_training_fits_waves_with_their_gradient(model):
    rng = np.random.default_rng(1)
    points, fresh = rng.uniform(0, 2, (250, 2)), rng.uniform(0.1, 1.9, (50, 2))

    def y(X):
        return np.sin(np.pi * X[:, 0] / 2) * np.cos(np.pi * X[:, 1] / 2) + X[:, 0]

    model.fit(points, y(points))
    assert np.sqrt(np.mean((model.predict(fresh) - y(fresh)) ** 2)) < 0.03
    step = 1e-6
    for j, direction in enumerate(step * np.eye(2)):
        slope = (model.predict(fresh + direction) - model.predict(fresh - direction)) / (2 * step)
        np.testing.assert_allclose(model.predict_gradient(fresh)[:, j], slope, atol=1e-6)


def test_bars_hold_under_noise():
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 1, (250, 1))
    y = np.sin(12 * points[:, 0])
    model = HierarchicalPOURegressor(experts="fourier")
    model.fit(points, y + 0.1 * rng.standard_normal(250))
    fresh = rng.uniform(0, 1, (400, 1))
    mean, std = model.predict(fresh, return_std=True)
    covered = np.abs(np.sin(12 * fresh[:, 0]) + 0.1 * rng.standard_normal(400) - mean) < 2 * std
    assert 0.9 < covered.mean() <= 1
    assert np.sqrt(np.mean((mean - np.sin(12 * fresh[:, 0])) ** 2)) < 0.04


def test_levels_refit_and_saving_keep_the_space(pieces):
    buffer = io.BytesIO()
    joblib.dump(pieces, buffer)
    buffer.seek(0)
    loaded = joblib.load(buffer)
    np.testing.assert_array_equal(loaded.predict(BETWEEN), pieces.predict(BETWEEN))
    # The space is that of the fit, not of the parameter.
    loaded.set_params(experts="polynomial").refit(X, 3 * wave(X), degree=9)
    use = away_from_the_jump(BETWEEN)
    np.testing.assert_allclose(loaded.predict(BETWEEN)[use], 3 * wave(BETWEEN)[use], atol=1e-6)
    tree = HierarchicalPOURegressor((2, 2), 3, solver="em", experts="fourier", max_iter=5)
    with pytest.warns(match="max_iter=5"):
        tree.fit(X, wave(X))
    assert np.isfinite(tree.predict(BETWEEN, level=0)).all()


def test_summary_writes_waves():
    t = np.linspace(0, 1, 50)[:, None]
    y = 3 * np.sin(np.pi * t[:, 0]) - 0.5 * np.cos(2 * np.pi * t[:, 0])
    text = POURegressor(1, 2, experts="fourier").fit(2 + 5 * t, y).summary()
    assert "waves of degree 2" in text
    assert "+ 3 sin(pi t_x0)" in text and "- 0.5 cos(2 pi t_x0)" in text


def test_what_is_for_polynomials_is_refused_by_name(pieces):
    with pytest.raises(AttributeError, match="experts='fourier'"):
        pieces.raw_polynomials_  # noqa: B018
    equation = Equation(lambda u, x: u.d(0), "sobol")
    for model in (
        HierarchicalPOURegressor(experts="fourier", physics=equation),
        POURegressor(2, experts="fourier", physics=equation),
    ):
        with pytest.raises(ValueError, match="experts='fourier': equations"):
            model.fit([[0.0], [1.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"'experts' parameter of .* Got 'splines'"):
        POURegressor(experts="splines").fit(X, wave(X))
    with pytest.raises(ValueError, match=r"degree=40 in 6 dimensions has .* waves"):
        POURegressor(2, 40, experts="fourier").fit(np.random.default_rng(0).random((50, 6)), X[:50])
