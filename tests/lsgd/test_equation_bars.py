"""Error bars of networks that solve equations: hidden layers are as free as the last one."""

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import LSGDRegressor
from skpou.core import Rows
from skpou.core.scaling import Scaling
from skpou.equations.problem import compile_problem
from skpou.lsgd.equations import EquationNetworkTraining
from skpou.lsgd.fit import NetworkOptions
from skpou.networks import Network
from skpou.physics import Equation
from tests.examples import tensor

LINE = np.linspace(0, 1, 40)[:, None]


def rotation(u, x):
    return torch.stack([u[0].d(0) - u[1](), u[1].d(0) + 9 * u[0]()], 1)


def carried(u, x):
    return u.d(1) + 0.5 * u.d(0)


def growth(u, x):
    return u.d(0) - u() * (1 - u())


def training_of(equation, y):
    """A few steps of a small network from values at 0."""
    y = tensor(y)
    m = y.shape[1]
    zero, one = torch.zeros(m).double(), torch.ones(m).double()
    scaling = Scaling(torch.arange(1), tensor([0.0]), tensor([1.0]), zero, one)
    problem = compile_problem([Equation(equation, LINE)], {}, scaling, 1, 0)
    rows = Rows(tensor([[0.0]]), y, tensor([1.0]), torch.zeros_like(y))
    options = NetworkOptions(Network(1, (4, 3)), max_iter=15, quick=False)
    training = EquationNetworkTraining(rows, problem, options, np.random.default_rng(0))
    return training, training.run().state


def rows_and_outputs(training, inner, X):
    """Weighted rows of data and equation, and values at X, for all parameters of a network."""
    best, k = training.progress.best, training.options.network.n_parameters
    theta, coef = inner[:k], inner[k:]
    system, solution = training.solution(replace(best, theta=theta, coef=coef[:, None]))
    found = system.residuals(solution.coef, solution.unknowns)
    rows = torch.cat([s * r for s, r in zip(training.scales, found, strict=True)])
    return torch.cat([rows, (system.basis.matrix(X) @ solution.coef).T.reshape(-1)])


@pytest.mark.parametrize(
    ("equation", "y"), [(rotation, [[0.0, 3.0]]), (growth, [[0.2]])], ids=["system", "logistic"]
)
def test_covariance_is_that_of_all_parameters(equation, y):
    """Beside the inverse of the Gauss-Newton matrix, by differences, and the parameters' prior."""
    training, model = training_of(equation, y)
    best, X = training.progress.best, tensor(LINE[::7])
    inner, h = torch.cat([best.theta, best.coef[:, 0]]), 1e-6
    slopes = []
    for i in range(len(inner)):
        step = torch.zeros_like(inner)
        step[i] = h
        ahead, behind = (rows_and_outputs(training, inner + s, X) for s in (step, -step))
        slopes.append((ahead - behind) / (2 * h))
    slopes, m = torch.stack(slopes, 1), len(model.noise)
    rows, outputs = slopes[: -m * len(X)], slopes[-m * len(X) :]
    theta = best.theta.abs()
    sizes = theta.clamp_min(float(theta.median()))
    precision = rows.T @ rows / training.scales[0] ** 2
    precision[: len(theta), : len(theta)] += (model.noise.mean() / sizes**2).diag()
    expected = torch.einsum("ij,ij->i", outputs, torch.linalg.solve(precision, outputs.T).T)
    found = (model.epistemic(X) / model.noise).T.reshape(-1)
    # The prior follows the noise, which settles in some rounds.
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.0)


@pytest.fixture(scope="module")
def advected():
    """A bump that is carried along a plane, by a network that has not learnt it to the end."""
    rng, t = np.random.default_rng(3), np.linspace(0, 1, 20)
    physics = Equation(carried, rng.random((150, 2)))
    X = np.r_[np.c_[t, 0 * t], np.c_[0 * t, t]]
    model = LSGDRegressor((10, 10), physics=physics, max_iter=40, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, bump(X)), rng.random((2000, 2))


def bump(X):
    return np.exp(-8 * (X[:, 0] - 0.5 * X[:, 1] - 0.3) ** 2)


def test_errors_are_within_the_bars(advected):
    model, X = advected
    mean, std = model.predict(X, return_std="epistemic")
    error = np.abs(mean - bump(X))
    assert np.mean(error < 3 * std) > 0.95
    assert np.median(std) < 10 * np.median(error)


def test_bars_are_those_of_a_copy(advected):
    model, X = advected
    copied = pickle.loads(pickle.dumps(model))
    for found, expected in zip(
        copied.predict(X, return_std=True), model.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
