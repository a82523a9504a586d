"""Experts that take the place of pieces in tables with noise."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor
from skpou.core.rows import merge_rows
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.tables import fit as table_pieces
from skpou.partitions.tables.fit import experts_where_better
from skpou.partitions.tables.shrunk_experts import CommonPolynomial, fit_shrunk_experts


def table(n=400, d=5, seed=0):
    """Two pieces of degree 2 in a few of the columns, with noise of their own."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, d))
    left = X[:, 0] + 0.5 * X[:, 1] < 0
    mean = np.where(left, X[:, 1] * X[:, 2], 2 * X[:, 0] + X[:, 3] ** 2)
    return X, mean, mean + np.where(left, 0.05, 0.3) * rng.standard_normal(n)


def rows_of(X, y, weight=None):
    X, y = (torch.as_tensor(part, dtype=torch.float64) for part in (X, y))
    weight = torch.ones(len(X)).double() if weight is None else torch.as_tensor(weight).double()
    return merge_rows(0.5 + 0.5 * X, y[:, None], weight)


@pytest.fixture(scope="module")
def fitted():
    X, _, y = table()
    return HierarchicalPOURegressor().fit(X, y)


@pytest.mark.slow
def test_experts_predict_a_noisy_table_better_than_pieces(fitted):
    X, _, y = table()
    fresh, mean, noisy = table(2000, seed=1)
    assert fitted.gate_ == "linear"
    assert fitted.alpha_ > 0
    rows = rows_of(X, y)
    pieces = fit_pieces(rows, PieceOptions(), np.random.default_rng(0)).state
    new = rows_of(fresh, noisy)
    found = pieces.components(new.X)
    assert fitted.log_density(fresh, noisy).mean() > 0.2 + float(found.log_density(new.y).mean())
    error = np.sqrt(np.mean((fitted.predict(fresh) - mean) ** 2))
    assert error < float((found.expectation() - new.y).square().mean().sqrt())


def test_intervals_of_fresh_rows_hold(fitted):
    X, _, y = table(4000, seed=2)
    quantiles = fitted.predict_quantile(X, [0.025, 0.16, 0.84, 0.975])
    for k, level in [(0, 0.95), (1, 0.68)]:
        inside = (quantiles[:, k] <= y) & (y <= quantiles[:, -1 - k])
        assert abs(inside.mean() - level) < 0.05


def test_noise_differs_between_the_pieces(fitted):
    X, _, _ = table(1000, seed=3)
    _, std = fitted.predict(X, return_std=True)
    left = X[:, 0] + 0.5 * X[:, 1] < 0
    assert np.median(std[~left]) > 2 * np.median(std[left])


@pytest.mark.parametrize("d, noise", [(3, 0.1), (4, 0.0)], ids=["three columns", "no noise"])
def test_other_data_keep_their_pieces(d, noise):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (300, d))
    rows = rows_of(X, np.abs(X[:, 0]) + noise * rng.standard_normal(300))
    pieces = fit_pieces(rows, PieceOptions(), rng)
    state = rng.bit_generator.state
    assert experts_where_better(pieces, rows, PieceOptions(), rng) is pieces
    assert rng.bit_generator.state == state


@pytest.mark.slow
def test_what_is_asked_for_is_kept():
    X, _, y = table()
    assert len(HierarchicalPOURegressor(2, 1).fit(X, y).coef_) <= 2
    assert HierarchicalPOURegressor(degree=1).fit(X, y).degree_ == 1
    assert HierarchicalPOURegressor(2, 1, gate="rbf").fit(X, y).gate_ in ("rbf", "linear")


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_common_polynomial_is_the_same_in_the_box(degree):
    X, _, y = table(120, 4)
    # Columns of very different spread in the box, and one of two values.
    X[:, 1] = X[:, 1] ** 5
    X[:, 2] = np.sign(X[:, 2])
    rows = rows_of(X, y)
    common = CommonPolynomial(rows, degree)
    mixture = fit_shrunk_experts(common, 1, np.random.default_rng(0))
    found = mixture.components(rows.X)
    torch.testing.assert_close(found.mean[:, 0, 0], common.fit.fitted, rtol=1e-8, atol=1e-8)
    spread = found.epistemic[:, 0, 0] / found.noise[0, 0]
    torch.testing.assert_close(spread, common.fit.spread, rtol=1e-6, atol=1e-9)


def test_weights_are_repetitions():
    X, _, y = table(200)
    weight = np.random.default_rng(1).integers(0, 3, 200)
    # One point with two targets: without it the scale of weights would say nothing.
    X[1], weight[:2] = X[0], 2
    model = HierarchicalPOURegressor(degree=1)
    once = model.fit(X, y, weight).predict(X)
    again = model.fit(np.repeat(X, weight, 0), np.repeat(y, weight)).predict(X)
    assert model.gate_ == "linear"
    np.testing.assert_array_equal(once, again)


def test_noise_is_not_narrower_than_the_rounding_of_y():
    X, _, y = table()
    model = HierarchicalPOURegressor(degree=2).fit(X, np.round(2 * y))
    assert model.gate_ == "linear"
    assert model.noise_.min() > 0.5 - 1e-9


def test_interrupt_keeps_the_pieces(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(table_pieces, "fit_shrunk_experts", interrupted)
    X, _, y = table(200)
    model = HierarchicalPOURegressor(degree=1)
    with pytest.warns(UserWarning, match="pieces are kept"), pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert np.isfinite(model.predict(X)).all()
