"""Multinomial logistic regression on sparse columns: optimality, and an independent minimum."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from skpou.core.optim.softmax import hessian
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.solvers.multinomial import GridMultinomialRidge
from skpou.sparse_grids.solvers.rows import GridRows


def make_problem(n_classes=3, n=80, n_exact=1000, level=3, certain=False):
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.random((n, 2)))
    if certain:
        labels = torch.tensor((X[:, 0] > 0.5).numpy().astype(int))
    else:
        labels = torch.tensor(rng.integers(n_classes, size=n))
    targets = torch.eye(n_classes, dtype=torch.float64)[labels]
    weight = torch.tensor(rng.integers(1, 4, n).astype(float))
    grid = SparseGrid(2, level)
    rows = GridRows(grid, X, weight)
    offset = torch.linspace(-1, 0, n_classes, dtype=torch.float64)
    costs = torch.as_tensor(grid.costs()).to(X.dtype)
    return GridMultinomialRidge(rows, targets, offset, costs, n_exact), grid, X, weight


def gradient(problem, theta, alpha, decay):
    pi = torch.softmax(problem.logits(theta), 1)
    penalty = (alpha * problem.scale) ** 2 * decay**problem.costs
    root = problem.rows.root
    return problem.rows.rmatmul(root * (pi - problem.targets)) + penalty[:, None] * theta


@pytest.mark.parametrize("n_classes", [1, 2, 3, 7])
@pytest.mark.parametrize("alpha", [1e-1, 1e-3])
@pytest.mark.parametrize("n_exact", [1000, 5])
def test_gradient_vanishes(n_classes, alpha, n_exact):
    problem, _, _, weight = make_problem(n_classes, n_exact=n_exact)
    theta, n_iter = problem.fit(alpha, 4.0, tol=1e-14)
    assert n_iter < 100
    assert gradient(problem, theta, alpha, 4.0).abs().max() < 1e-5 * weight.sum()
    # The ridge makes the classes' functions add up to zero.
    assert theta.sum(1).abs().max() < 1e-6


def test_separable_rows():
    problem, _, _, weight = make_problem(2, certain=True)
    theta, n_iter = problem.fit(1e-5, 4.0)
    assert n_iter < 100
    assert problem.negative_log_likelihood(problem.logits(theta)) < 1e-3 * weight.sum()


def test_minimum_found_otherwise():
    problem, grid, X, weight = make_problem(3, level=2)
    alpha, decay = 0.03, 4.0
    matrix, penalty = grid.matrix(X), (alpha * problem.scale) ** 2 * decay**problem.costs

    def objective(flat):
        theta = torch.tensor(flat.reshape(-1, 3), requires_grad=True)
        logs = torch.log_softmax(problem.offset + matrix @ theta, 1)
        loss = -(weight[:, None] * problem.targets * logs).sum()
        loss = loss + 0.5 * (penalty[:, None] * theta.square()).sum()
        loss.backward()
        return loss.item(), theta.grad.numpy().ravel()

    found = minimize(objective, np.zeros(3 * grid.n_columns), jac=True, options={"gtol": 1e-9})
    theta, _ = problem.fit(alpha, decay, tol=1e-14)
    np.testing.assert_allclose(theta.numpy().ravel(), found.x, atol=1e-5)


def test_a_start_does_not_change_the_minimum():
    problem, *_ = make_problem(3)
    cold, _ = problem.fit(1e-2, 4.0, tol=1e-14)
    start, _ = problem.fit(1e-1, 4.0)
    warm, _ = problem.fit(1e-2, 4.0, start, tol=1e-14)
    torch.testing.assert_close(warm, cold, rtol=1e-4, atol=1e-5)
    _, n_iter = problem.fit(1e-2, 4.0, cold)
    assert n_iter == 0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_hessian(n_classes):
    problem, grid, X, weight = make_problem(n_classes, n=12, level=2)
    rng = np.random.default_rng(1)
    theta = torch.tensor(rng.standard_normal((grid.n_columns, n_classes)))
    columns = grid.matrix(X)

    def loss(flat):
        logs = torch.log_softmax(problem.offset + columns @ flat.view(n_classes, -1).T, 1)
        return -(weight[:, None] * problem.targets * logs).sum()

    expected = torch.autograd.functional.hessian(loss, theta.T.reshape(-1))
    found = hessian(problem.rows, torch.softmax(problem.logits(theta), 1))
    torch.testing.assert_close(found.tril(), expected.tril())


def test_weights_of_very_different_size_need_few_steps(monkeypatch):
    """The trace of a row's Hessian is no stand-in for it there: it is factored itself."""
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.random((100, 2)))
    targets = torch.eye(5, dtype=torch.float64)[torch.tensor(rng.integers(5, size=100))]
    weight = torch.tensor(10 ** rng.uniform(0, 12, 100))
    grid = SparseGrid(2, 3)
    rows, costs = GridRows(grid, X, weight), torch.as_tensor(grid.costs()).double()
    problem = GridMultinomialRidge(rows, targets, torch.zeros(5).double(), costs, 1000)
    steps, direction = [], problem._direction

    def counted(*args):
        found = direction(*args)
        steps.append(found[1])
        return found

    monkeypatch.setattr(problem, "_direction", counted)
    theta, _ = problem.fit(1e-6, 4.0, tol=1e-7)
    assert sum(steps) < 10 * len(steps)
    size = problem.negative_log_likelihood(problem.logits(theta))
    assert size < 0.1 * problem.negative_log_likelihood(problem.logits(0 * theta))
