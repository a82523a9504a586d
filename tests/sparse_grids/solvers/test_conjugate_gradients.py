"""Conjugate gradients: the ridge solution, and what round-off may do to it."""

import pytest
import torch

from skpou.sparse_grids.solvers.conjugate_gradients import conjugate_gradients


class Matrix:
    """Rows that are a dense matrix."""

    def __init__(self, A):
        self.A = A

    def matmul(self, coef):
        return self.A @ coef

    def rmatmul(self, residual):
        return self.A.T @ residual


def problem(seed, alpha, n=60, p=20):
    """Columns of very different size, two targets, and the factor of the normal equations."""
    g = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** -torch.linspace(0, 4, p, dtype=torch.float64)
    A = torch.randn(n, p, generator=g, dtype=torch.float64) * sizes
    A = A @ torch.linalg.qr(torch.randn(p, p, generator=g, dtype=torch.float64))[0]
    y = torch.randn(n, 2, generator=g, dtype=torch.float64)
    penalty = torch.full((p,), alpha, dtype=torch.float64)
    return A, y, penalty, torch.linalg.cholesky(A.T @ A + torch.diag(penalty))


def test_solution_from_zero():
    A, y, penalty, factor = problem(0, 1e-4)
    zero = torch.zeros(len(penalty), 2, dtype=torch.float64)
    coef, n_iter = conjugate_gradients(
        Matrix(A), y, penalty, lambda g: g / (1 + penalty[:, None]), zero, max_iter=500, tol=1e-9
    )
    assert n_iter < 500
    torch.testing.assert_close(coef, torch.cholesky_solve(A.T @ y, factor), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("seed", range(3))
def test_steps_along_round_off_do_not_lead_away(alpha, seed):
    A, y, penalty, factor = problem(seed, alpha)

    def precondition(g):
        return torch.cholesky_solve(g, factor)

    def size(coef):
        gradient = A.T @ (y - A @ coef) - penalty[:, None] * coef
        return (gradient * precondition(gradient)).sum(0)

    start = precondition(A.T @ y)
    coef, _ = conjugate_gradients(
        Matrix(A), y, penalty, precondition, start, max_iter=400, tol=1e-20
    )
    assert (size(coef) <= size(start)).all()
    torch.testing.assert_close(coef, start, rtol=1e-5, atol=1e-4)


def test_a_factor_of_nearly_the_same_rows_saves_steps():
    A, y, penalty, factor = problem(0, 1e-6)
    near = A * (1 + 0.01 * torch.linspace(-1, 1, len(A), dtype=A.dtype)[:, None])
    diagonal = (near.square().sum(0) + penalty)[:, None]
    zero = torch.zeros(A.shape[1], 2, dtype=A.dtype)
    options = {"max_iter": 50, "tol": 1e-10}

    def precondition(g):
        return torch.cholesky_solve(g, factor)

    coef, n_iter = conjugate_gradients(Matrix(near), y, penalty, precondition, zero, **options)
    _, without = conjugate_gradients(
        Matrix(near), y, penalty, lambda g: g / diagonal, zero, **options
    )
    assert n_iter < 10 < without
    exact = torch.linalg.solve(near.T @ near + torch.diag(penalty), near.T @ y)
    torch.testing.assert_close(coef, exact, rtol=1e-6, atol=1e-8)


def test_a_start_at_the_solution_takes_no_step_and_vanishing_columns_do_no_harm():
    A, y, penalty, factor = problem(0, 1e-2)
    options = {"precondition": lambda g: g, "max_iter": 5, "tol": 1e-8}
    exact = torch.cholesky_solve(A.T @ y, factor)
    coef, n_iter = conjugate_gradients(Matrix(A), y, penalty, coef=exact, **options)
    assert n_iter == 0
    assert torch.equal(coef, exact)
    zero = torch.zeros_like(exact)
    nothing, _ = conjugate_gradients(Matrix(0 * A), 0 * y, 0 * penalty, coef=zero, **options)
    assert (nothing == 0).all()
