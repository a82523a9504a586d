"""LSMR: the solution, the steps of the published algorithm, what a start saves."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import lsmr as published

from skpou.sparse_grids.solvers.lsmr import lsmr
from tests.sparse_grids.solvers.test_conjugate_gradients import Matrix, problem


def solved(A, y, penalty, start=None, **options):
    start = torch.zeros(A.shape[1], y.shape[1], dtype=A.dtype) if start is None else start
    norms = (A.square().sum(0) + penalty).sqrt()
    return lsmr(Matrix(A), y, penalty, norms, start, **options)


@pytest.mark.parametrize("alpha", [1e-1, 1e-4])
def test_solution(alpha):
    A, y, penalty, factor = problem(0, alpha)
    coef, n_iter = solved(A, y, penalty, max_iter=400, tol=1e-12)
    assert n_iter < 400
    torch.testing.assert_close(coef, torch.cholesky_solve(A.T @ y, factor), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_steps_are_those_of_the_published_algorithm(steps):
    A, y, penalty, _ = problem(1, 1e-3)
    coef, n_iter = solved(A, y, penalty, max_iter=steps, tol=0.0)
    assert n_iter == steps
    whole = np.vstack([A, np.diag(penalty.sqrt())])
    scale = 1 / np.linalg.norm(whole, axis=0)
    for output in range(2):
        right = np.concatenate([y[:, output], np.zeros(len(penalty))])
        exact = {"atol": 0, "btol": 0, "conlim": 0}
        expected = published(whole * scale, right, maxiter=steps, **exact)[0]
        np.testing.assert_allclose(coef[:, output], scale * expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_shrinks_in_every_step():
    A, y, penalty, _ = problem(2, 1e-4)
    scale = 1 / (A.square().sum(0) + penalty).sqrt()[:, None]
    sizes = []
    for steps in range(1, 15):
        coef, _ = solved(A, y, penalty, max_iter=steps, tol=0.0)
        gradient = scale * (A.T @ (y - A @ coef) - penalty[:, None] * coef)
        sizes.append(gradient.norm(dim=0))
    sizes = torch.stack(sizes)
    assert (sizes[1:] <= sizes[:-1] * (1 + 1e-10)).all()


def test_a_factor_of_nearly_the_same_rows_saves_steps():
    A, y, penalty, factor = problem(0, 1e-6)
    near = A * (1 + 0.01 * torch.linspace(-1, 1, len(A), dtype=A.dtype)[:, None])
    zero = torch.zeros(A.shape[1], 2, dtype=A.dtype)
    coef, n_iter = lsmr(Matrix(near), y, penalty, factor, zero, max_iter=50, tol=1e-10)
    _, without = solved(near, y, penalty, max_iter=50, tol=1e-10)
    assert n_iter < 10 < without
    exact = torch.linalg.solve(near.T @ near + torch.diag(penalty), near.T @ y)
    torch.testing.assert_close(coef, exact, rtol=1e-6, atol=1e-8)


def test_a_start_at_the_solution_takes_no_step_and_vanishing_columns_do_no_harm():
    A, y, penalty, factor = problem(0, 1e-2)
    exact = torch.cholesky_solve(A.T @ y, factor)
    coef, n_iter = solved(A, y, penalty, exact, max_iter=50, tol=1e-8)
    assert n_iter == 0
    torch.testing.assert_close(coef, exact)
    nothing, _ = solved(0 * A, 0 * y, 0 * penalty, max_iter=5, tol=1e-8)
    assert (nothing == 0).all()
