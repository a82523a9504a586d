"""The Gaussian process beside a fit: its numbers, its weight, and predictions that lean on it."""

import pickle

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor, LSGDRegressor
from skpou.core import Rows
from skpou.core.models import LeftOut, sets_to_leave_out
from skpou.core.models.process_companion import ProcessCompanion
from skpou.core.models.process_fit import _fit_process, fit_process
from skpou.core.models.relevance import CONSTANT
from tests.examples import tensor


def rows_of(X, y, weight=None):
    y = tensor(y)[:, None] if np.ndim(y) == 1 else tensor(y)
    weight = np.ones(len(X)) if weight is None else weight
    return Rows(tensor(X), y, tensor(weight), torch.zeros_like(y))


def codes(n, rng):
    """Levels of a code beside a smooth function, with noise."""
    code, x = rng.integers(0, 8, n), rng.random(n)
    level = np.random.default_rng(0).standard_normal(8)
    return np.column_stack([code / 7, x]), level[code] + np.sin(4 * x)


@pytest.fixture(scope="module")
def process():
    rng = np.random.default_rng(1)
    X, y = codes(50, rng)
    y = np.c_[y + 0.1 * rng.standard_normal(50), -2 * y]
    return rows_of(X, y, rng.integers(1, 4, 50).astype(float)), _fit_process


def dense(found, rows, X):
    """Posterior means and variances (n, m) by the textbook (Rasmussen, Williams 2006, 2.25)."""
    parts = [dense_of(found, rows, X, k) for k in range(rows.n_outputs)]
    return (np.stack(part, 1) for part in zip(*parts, strict=True))


def dense_of(found, rows, X, target):
    line, bent, noise = found.variances[target].tolist()

    def kernel(A, B):
        distance = ((A[:, None] - B) * found.rates[target].numpy()) ** 2
        own = line * (A - found.centre.numpy()) @ (B - found.centre.numpy()).T
        return CONSTANT + own + bent * np.exp(-0.5 * distance.sum(2))

    intercept = found.intercept[target].item()
    Z, y = rows.X.numpy(), rows.y[:, target].numpy() - intercept
    K = kernel(Z, Z) + np.diag(noise / rows.weight.numpy())
    columns = kernel(X, Z)
    mean = intercept + columns @ np.linalg.solve(K, y)
    spread = np.diag(kernel(X, X) - columns @ np.linalg.solve(K, columns.T))
    return mean, spread


def test_mean_and_variance_are_those_of_the_process(process):
    rows, fit = process
    found, X = fit(rows), np.random.default_rng(2).random((9, 2)) * 1.4 - 0.2
    mean, spread = dense(found, rows, X)
    np.testing.assert_allclose(found.mean(tensor(X)).numpy(), mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.variance(tensor(X)).numpy(), spread, rtol=1e-4, atol=1e-7)


def test_left_out_errors_are_those_of_fits_without_the_rows(process):
    rows, fit = process
    found, part = fit(rows), np.array([3, 17, 30])
    error, variance = found.left_out([part])
    kept = torch.as_tensor(np.setdiff1d(np.arange(50), part))
    mean, spread = dense(found, rows.subset(kept), rows.X[part].numpy())
    # Both about the mean of all rows, which the variance of the constant hardly bounds.
    np.testing.assert_allclose(error.numpy(), rows.y[part].numpy() - mean, atol=1e-6)
    own = found.noise.numpy() / rows.weight[part].numpy()[:, None]
    np.testing.assert_allclose(variance.numpy(), spread + own, rtol=1e-4)


@pytest.fixture(scope="module")
def of_doses():
    """The process of doses in two groups, which sees them stretched."""
    rng = np.random.default_rng(4)
    X = np.column_stack([np.tile(np.r_[0.0, 2.0 ** np.arange(8)] / 128, 4), np.repeat([0, 1], 18)])
    y = np.log(X[:, 0] + 0.02) + X[:, 1] + 0.1 * rng.standard_normal(36)
    return _fit_process(rows_of(X, y))


def test_doses_are_seen_stretched(of_doses):
    found = of_doses
    assert float(found.stretches[0]) > 1
    assert float(found.stretches[1]) == 0
    at = np.column_stack([np.geomspace(0.01, 1, 20), np.tile([0.0, 1.0], 10)])
    error = found.mean(tensor(at))[:, 0].numpy() - np.log(at[:, 0] + 0.02) - at[:, 1]
    assert np.sqrt(np.mean(error**2)) < 0.1


def test_gradient_of_stretched_columns_is_the_derivative(of_doses):
    found, step = of_doses, 1e-6
    X = tensor(np.random.default_rng(6).random((7, 2)) * 1.2 - 0.1)
    at = found._at(X)
    for feature in range(2):
        e = torch.zeros(2, dtype=X.dtype)
        e[feature] = step
        slope = (found.mean(X + e) - found.mean(X - e)) / (2 * step)
        np.testing.assert_allclose(found.gradient(X)[:, feature], slope, rtol=1e-4, atol=1e-5)
        bend = (found.variance(X + e) - found.variance(X - e)) / (2 * step)
        own = found._variance_gradient(at)[:, feature]
        np.testing.assert_allclose(own, bend, rtol=1e-3, atol=1e-4)


def test_gradient_is_the_derivative(process):
    rows, fit = process
    found, X = fit(rows), tensor(np.random.default_rng(3).random((5, 2)))
    for feature in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[feature]
        slope = (found.mean(X + step) - found.mean(X - step)) / 2e-6
        np.testing.assert_allclose(found.gradient(X)[:, feature], slope, rtol=1e-5, atol=1e-5)


def test_state_round_trip(process):
    rows, fit = process
    found, X = fit(rows), rows.X[:4] + 0.01
    again = ProcessCompanion.from_arrays(found.arrays(), X)
    assert torch.equal(again.mean(X), found.mean(X))
    assert torch.equal(again.variance(X), found.variance(X))
    assert found.numbers_per_row() > 0


def left_out_with(rows, error):
    """Errors (n,) as those at rows that were left out in folds."""
    sets = sets_to_leave_out(rows.X.numpy(), np.random.default_rng(9), neighbourhoods=False)[:8]
    order = np.concatenate(sets)
    column = error[order][:, None]
    square = np.full_like(column, (error**2).mean())
    ones = np.ones(len(sets))
    return [LeftOut(sets, len(sets), column, square, 0.9 * square, ones, ones > 0)]


def test_weight_is_large_beside_a_poor_fit_and_none_beside_a_good_one():
    rng = np.random.default_rng(4)
    X, truth = codes(80, rng)
    noise = 0.1 * rng.standard_normal(80)
    rows = rows_of(X, truth + noise)
    poor = fit_process(rows, left_out_with(rows, truth - truth.mean()))
    assert poor.share.item() > 0.8
    # What a fit that knows the truth errs by is the noise.
    assert fit_process(rows, left_out_with(rows, noise)) is None
    # A fit with other errors of the same size: the mean of both is better than either.
    even = fit_process(rows, left_out_with(rows, 0.15 * rng.standard_normal(80)))
    assert even is None or 0 < even.share.item() < 1


def test_exact_fits_and_no_left_out_errors_lean_on_nothing():
    rng = np.random.default_rng(5)
    X, truth = codes(40, rng)
    rows = rows_of(X, truth)
    assert fit_process(rows, None) is None
    assert fit_process(rows, left_out_with(rows, 1e-6 * rng.standard_normal(40))) is None


@pytest.fixture(scope="module")
def leaning():
    rng = np.random.default_rng(6)
    X, y = codes(60, rng)
    model = HierarchicalPOURegressor().fit(X, y + 0.1 * rng.standard_normal(60))
    model._restraint["process"] = None
    rows = model._prepare(X, y, None).rows
    found = _fit_process(rows)
    half = torch.full_like(found.share, 0.5)
    # Known everywhere as well as where the weight was told.
    known = {"share": half, "part": half, "usual": 1e-12 * half, "factor": 1.5 * torch.ones(1)}
    process = ProcessCompanion(**{**vars(found), **known})
    alone = pickle.loads(pickle.dumps(model))
    model._restraint["process"] = process.arrays()
    model = pickle.loads(pickle.dumps(model))
    return alone, model, process, X


def test_predictions_of_all_kinds_know_the_process(leaning):
    alone, model, process, X = leaning
    points = X[:20] * 0.98 + 0.01
    mean, std = model.predict(points, return_std=True)
    np.testing.assert_allclose(mean, model.predict(points), rtol=1e-12)
    box = model.scaling_
    scaled = (points - box["offset"]) / box["width"]
    other = box["mean"][0] + box["scale"][0] * process.mean(tensor(scaled)).numpy()[:, 0]
    np.testing.assert_allclose(mean, 0.5 * (alone.predict(points) + other), rtol=1e-9)
    covariance = model.predict(points, return_cov=True)[1]
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), std, rtol=1e-6)
    quantiles = model.predict_quantile(points, [0.1, 0.5, 0.9])
    assert (np.diff(quantiles, axis=1) > 0).all()
    step = 1e-4  # Curvature errs by its square, round-off by its reciprocal.
    slope = (
        model.predict(points + np.array([0, step])) - model.predict(points - np.array([0, step]))
    ) / (2 * step)
    np.testing.assert_allclose(model.predict_gradient(points)[:, 1], slope, rtol=1e-4, atol=1e-5)


def test_a_network_that_was_asked_for_stands_alone():
    rng = np.random.default_rng(7)
    X, y = codes(40, rng)
    assert LSGDRegressor((2,)).fit(X, y)._restraint["process"] is None
