"""Left-out errors of networks: those of networks that are trained without the rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou import LSGDRegressor
from skpou.core import Rows
from skpou.core.models import leave_out
from skpou.core.optim import ProjectedProblem, levenberg_marquardt
from skpou.lsgd import NetworkOptions, fit_network
from skpou.lsgd.left_out import makers_of_networks
from skpou.networks import Network, NetworkBasis, NetworkColumns

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def wave(X):
    return np.sin(3 * X[:, 0] + 1) * np.cos(2 * X[:, 1])


@pytest.fixture(scope="module")
def noisy():
    """Some rows of a wave with noise of a tenth, and the network that is fitted to them."""
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    y = (wave(4 * X) + 0.1 * rng.standard_normal(60))[:, None]
    y = torch.tensor(y / y.std())
    rows = Rows(torch.tensor(X), y, torch.ones(60).double(), torch.zeros(60, 1).double())
    return rows, NetworkOptions(Network(2, (6,)))


def trained(rows, options):
    return fit_network(rows, options, np.random.default_rng(0)).state


def descended(model, rows, options, X):
    """Values at X of the network that other rows make of one, the steps beginning there."""
    columns = NetworkColumns(options.network, rows.X)
    problem = ProjectedProblem(columns, rows.y, rows.weight, relative=True)
    theta, ridge = model.stages[0].basis.theta, options.schedule()
    state = levenberg_marquardt(problem, theta, max_iter=300, ridge=ridge, tol=1e-14).state
    return NetworkBasis(options.network, state.theta).evaluate(X, state.coef)


def test_errors_are_those_of_networks_without_the_rows(noisy):
    rows, options = noisy
    model = trained(rows, options)
    found = leave_out(makers_of_networks(model, rows), rows)[0]
    errors = np.empty(rows.n_rows)
    for part in found.sets[: found.n_folds]:
        others = torch.as_tensor(np.setdiff1d(np.arange(rows.n_rows), part))
        errors[part] = (rows.y - descended(model, rows.subset(others), options, rows.X))[part, 0]
    left_out = found.error[found.group < found.n_folds]
    size, first_order = (np.sqrt(np.median(np.square(e))) for e in (errors, left_out))
    assert size / 1.5 < first_order < 1.5 * size


def test_each_output_has_the_errors_of_its_own(noisy):
    rows, options = noisy
    model = trained(rows, options)
    factors = torch.tensor([[1.0, 2.0]]).double()
    (stage,) = model.stages
    both = replace(model, stages=(replace(stage, coef=stage.coef * factors),))
    twice = Rows(rows.X, rows.y * factors, rows.weight, rows.within.repeat(1, 2))
    makers = makers_of_networks(both, twice)
    assert len(makers) == 2
    one, two = leave_out(makers, twice)
    np.testing.assert_allclose(two.error, 2 * one.error, rtol=1e-12, atol=0)
    assert len(makers_of_networks(model, rows)) == 1


@pytest.mark.slow
def test_networks_of_as_many_parameters_as_rows_are_not_sure():
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, points = rng.uniform(-1, 1, (90, 3)), rng.uniform(-0.9, 0.9, (500, 3))
        y = wave(2 * X) + 0.05 * rng.standard_normal(90)
        mean, std = LSGDRegressor((8, 8)).fit(X, y).predict(points, return_std=True)
        shares.append(np.mean(np.abs(mean - wave(2 * points)) <= 3 * std))
    assert np.mean(shares) >= 0.9
