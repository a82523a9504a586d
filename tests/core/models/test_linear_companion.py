"""The linear model beside a fit: its left-out errors, its variance, how far it is trusted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from skpou import LSGDRegressor
from skpou.core.models import fit_companion, kept_rows
from skpou.core.models.linear_companion import (
    LARGEST_DOUBT,
    LinearCompanion,
    _fit_line,
    _fit_ridge,
    share_of,
)
from tests.examples import rows_of, tensor


def table(n=30, d=4, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    y = X @ np.arange(1, d + 1) + noise * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


@pytest.mark.parametrize("shape", [(30, 4), (8, 12)], ids=["more rows", "more columns"])
def test_left_out_errors_are_those_of_fits_without_the_row(shape):
    X, y = table(*shape)
    line = _fit_line(rows_of(X, y))
    ridge = float(line.companion.ridge[0])
    Z = (X - X.mean(0)) / X.std(0)
    # The columns are standardized and the constant is fitted by all rows, as in one ridge for all.
    peer = Ridge(alpha=ridge)
    errors = y - cross_val_predict(peer, Z, y, cv=LeaveOneOut())
    ours = dict(zip(y.tolist(), range(len(y)), strict=True))
    order = [ours[v] for v in rows_of(X, y).y[:, 0].tolist()]
    np.testing.assert_allclose(line.error[:, 0].numpy(), errors[order], rtol=1e-6, atol=1e-9)


def test_variance_is_that_of_a_bayesian_linear_model():
    X, y = table(8, 12)
    line = _fit_line(rows_of(X, y)).companion
    Z, query = (tensor((A - X.mean(0)) / X.std(0)) for A in (X, X[:3] + 0.2))
    precision = Z.T @ Z + line.ridge[0] * torch.eye(12, dtype=torch.float64)
    share = 1 / 8 + torch.einsum("ij,jk,ik->i", query, torch.linalg.inv(precision), query)
    expected = line.noise[0] * (1 + share)
    torch.testing.assert_close(line.variance(tensor(X[:3] + 0.2))[:, 0], expected)


def test_a_hidden_curvature_is_as_large_as_the_noise_and_grows_with_the_squared_distance():
    X, y = table(200, 4)
    line = replace(_fit_line(rows_of(X, y)).companion, doubt=tensor([0.01]))
    far = line.centre + line.spread * tensor([[10.0, 0, 0, 0], [20.0, 0, 0, 0]])
    near, twice = line.variance_of_form(far)
    assert 10**4 / 2 < float(near / line.noise) < 2 * 10**4
    assert float(twice / near) == pytest.approx(16, rel=0.05)


def test_a_line_that_is_trusted_has_its_own_error():
    X, y = table(noise=1.0)
    line = _fit_line(rows_of(X, y)).companion
    Z, noise = tensor(X[:4]), tensor(np.full((4, 1), 0.1))
    doubted, trusted = (replace(line, doubt=tensor([doubt])) for doubt in (3.0, 0.01))
    assert (doubted.understated(Z, noise) == 0).all()
    # All that it leaves, less the noise, which is told apart, and what the doubt leaves of it.
    expected = 0.99 * line.variance(Z) - noise
    torch.testing.assert_close(trusted.understated(Z, noise), expected)
    # Noise is not more than what is left at the rows: the error of the coefficients stays.
    own = line.variance(Z) - line.noise - 0.01 * line.variance(Z)
    torch.testing.assert_close(trusted.understated(Z, 10 + noise), own.clamp_min(0))


def test_what_a_line_tells_of_a_fits_noise_is_none():
    line = replace(_fit_line(rows_of(*table())).companion, left=tensor([0.25]))
    noise, share = tensor([[4.0], [4.0], [4.0], [0.1]]), tensor([[0.0], [0.5], [1.0], [1.0]])
    part = line.part_of_noise(noise, share)
    expected = [[4.0], [(0.5 * 2 + 0.5 * 0.5) ** 2], [0.25], [0.1]]
    torch.testing.assert_close(part * noise, tensor(expected))


def test_rows_of_fewer_than_columns_are_missed_by_about_the_std():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((4, 150)).cumsum(1)
    weight = rng.standard_normal((260, 4))
    X = weight @ parts + 0.3 * rng.standard_normal((260, 150))
    y = weight[:, 0] + 0.1 * rng.standard_normal(260)
    mean, std = LSGDRegressor().fit(X[:60], y[:60]).predict(X[60:], return_std=True)
    error = np.sqrt(np.mean((mean - y[60:]) ** 2))
    assert error < 0.3
    assert 0.8 * error < np.sqrt(np.mean(std**2)) < 1.6 * error


def test_state_survives_as_arrays():
    X, y = table()
    line = _fit_line(rows_of(X, y)).companion
    again = LinearCompanion.from_arrays(line.arrays(), tensor(X))
    assert torch.equal(again.mean(tensor(X)), line.mean(tensor(X)))
    assert torch.equal(again.variance(tensor(X)), line.variance(tensor(X)))


class Known:
    """A model of given mean and epistemic variance, without noise."""

    def __init__(self, mean, variance):
        self._mean, self._variance = mean, variance

    def mean(self, X):
        return self._mean(X)[:, None]

    def components(self, X, posterior=True):
        from skpou.core.models import Components

        mean = self.mean(X)[:, None]
        variance = torch.full_like(mean, self._variance)
        return Components(mean[..., 0] * 0, mean, torch.zeros_like(mean), variance)


def test_what_knows_more_than_a_line_has_none_beside_it():
    X, y = table()
    rows = rows_of(X, y)
    line = _fit_line(rows).companion
    sure = Known(lambda X: line.mean(X)[:, 0] + 0.5, 1e-12)
    assert fit_companion(sure, rows, None) is None
    unsure = Known(lambda X: line.mean(X)[:, 0] + 50, 1e2)
    found = fit_companion(unsure, rows, None)
    assert found is not None and found.doubt.tolist() == [LARGEST_DOUBT]
    share = share_of(found, unsure, rows.X)[:, 0]
    own = LARGEST_DOUBT * line.variance(rows.X)[:, 0]
    torch.testing.assert_close(share, 1e2 / (1e2 + own))


def test_outside_the_box_the_share_is_that_of_its_nearest_point():
    X, y = table()
    rows = rows_of(X, y)
    model = Known(lambda X: 50 + X[:, 0], 0.1)
    found = fit_companion(model, rows, None)
    inside, outside = tensor([[1.0, 0.5, 0.5, 0.0]]), tensor([[3.0, 0.5, 0.5, -2.0]])
    assert torch.equal(share_of(found, model, inside), share_of(found, model, outside))


@pytest.mark.parametrize("shape", [(4, 5), (30, 3)], ids=["few rows", "few columns"])
def test_few_rows_and_functions_of_few_columns_have_none(shape):
    X, y = table(*shape)
    assert fit_companion(Known(lambda X: X[:, 0], 1.0), rows_of(X, y), None) is None


def test_a_line_that_many_columns_hide_is_found():
    # One column tells y; as many others as rows hide it from all but the linear model.
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 20))
    y = 24 - 3 * X[:, 7] + 0.01 * rng.standard_normal(40)
    fresh = rng.standard_normal((200, 20))
    model = LSGDRegressor().fit(X, y)
    error = model.predict(fresh) - (24 - 3 * fresh[:, 7])
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.std(y)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_sum_of_two_columns_among_many_is_found(noise):
    rng = np.random.default_rng(3)
    X = rng.random((18, 20))
    y = X[:, 4] - 2 * X[:, 11]
    y = (y - y.mean()) / y.std() + noise * rng.standard_normal(18)
    line, all_columns = _fit_line(rows_of(X, y)), _fit_ridge(rows_of(X, y))
    assert np.flatnonzero(line.companion.slopes[:, 0].numpy()).tolist() == [4, 11]
    few = _fit_ridge(rows_of(X[:, [4, 11]], y))
    # Errors and variances are those of the two columns, wherever the others are.
    assert line.error.square().mean() < 0.5 * all_columns.error.square().mean()
    np.testing.assert_allclose(np.sort(line.error[:, 0]), np.sort(few.error[:, 0]), atol=1e-12)
    query = rng.random((5, 20))
    few = few.companion.variance(tensor(query[:, [4, 11]]))
    torch.testing.assert_close(line.companion.variance(tensor(query)), few)


@pytest.mark.parametrize("seed", range(6))
def test_chance_chooses_no_columns(seed):
    """Targets that hang on all columns, or on none, of twice as many columns as rows."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((12, 24))
    y = X @ rng.standard_normal(24) if seed % 2 else rng.standard_normal(12)
    rows = rows_of(X, (y - y.mean()) / y.std())
    torch.testing.assert_close(_fit_line(rows).error, _fit_ridge(rows).error)


def test_a_hidden_line_is_what_is_predicted():
    rng = np.random.default_rng(5)
    X = rng.random((60, 20))
    y = 24 - X[:, 7]
    model = LSGDRegressor().fit(X[:14], y[:14])
    np.testing.assert_allclose(model.predict(X[14:]), y[14:], rtol=1e-6)
    step = 1e-4 * np.eye(20)[7]
    np.testing.assert_allclose(model.predict(X[:1] + step) - model.predict(X[:1]), -1e-4, rtol=1e-3)


def test_kept_rows_and_weights_count():
    X, y = table()
    weight = np.where(np.arange(30) < 10, 3.0, 1.0)
    repeated = np.repeat(np.arange(30), weight.astype(int))
    once = _fit_line(kept_rows(rows_of(X, y, weight))).companion
    twice = _fit_line(kept_rows(rows_of(X[repeated], y[repeated]))).companion
    torch.testing.assert_close(once.slopes, twice.slopes)
    torch.testing.assert_close(once.variance(tensor(X)), twice.variance(tensor(X)))
