"""Least squares from triangular factors against closed forms, loops and 50 digits."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from skpou.core.linalg.least_squares import (
    back_substitute,
    coefficients,
    column_scale,
    effective_parameters,
    evidence_ridge,
    is_deficient,
    leave_one_out,
    ridge_factor,
    ridge_over_few_rows,
    split_factor,
)
from skpou.core.linalg.statistics import triangular_factor, triangular_factors
from tests.contracts import DTYPES, EPS, SolverContract, same_bits

ALPHA = 1e-3


def factor_of(A, y, weight):
    root = weight.sqrt()[:, None]
    rows = torch.cat([A * root, y * root], 1)
    return triangular_factors(rows, torch.zeros(len(A), dtype=torch.int64), 1)


def normal_equations(A, y, weight, strength=0):
    """Solution of (A'WA + strength^2 I) c = A'Wy in mpmath."""
    W = mpmath.diag(weight)
    return (A.T * W * A + strength**2 * mpmath.eye(A.cols)) ** -1 * (A.T * W * y)


def random_problem(n=15, p=4, m=2, seed=0):
    rng = np.random.default_rng(seed)
    A = torch.as_tensor(rng.standard_normal((n, p)))
    y = torch.as_tensor(rng.standard_normal((n, m)))
    return A, y, torch.as_tensor(rng.integers(1, 4, n).astype(float))


class TestCoefficients(SolverContract):
    def make_target(self, A, rng):
        # Consistent up to rounding: then the error grows with the condition, not its square.
        return A @ torch.as_tensor(rng.standard_normal((A.shape[1], 2))).to(A.dtype)

    def solve(self, A, y, weight):
        return coefficients(factor_of(A, y, weight), A.shape[1])[0]

    def reference(self, A, y, weight):
        return normal_equations(A, y, weight)


class TestInconsistentCoefficients(TestCoefficients):
    def make_target(self, A, rng):
        return torch.as_tensor(rng.standard_normal((len(A), 2))).to(A.dtype)

    def allowed(self, condition, dtype):
        return min(50 * EPS[dtype] * condition**2, 0.1)


class TestRidge(TestInconsistentCoefficients):
    conditions = {torch.float64: (1.0, 1e5, 1e15), torch.float32: (1.0, 1e3, 1e10)}

    def solve(self, A, y, weight):
        p = A.shape[1]
        R, projected, _ = split_factor(ridge_factor(factor_of(A, y, weight), p, ALPHA), p)
        return back_substitute(R, projected)[0]

    def reference(self, A, y, weight):
        rows = range(A.rows)
        squares = [sum(weight[i] * A[i, j] ** 2 for i in rows) for j in range(A.cols)]
        return normal_equations(A, y, weight, ALPHA * mpmath.sqrt(max(squares)))

    def allowed(self, condition, dtype):
        # The ridge leaves a condition of 1 / ALPHA; the order of sums moves the error by a factor.
        return 50 * EPS[dtype] / ALPHA


@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_residual_is_no_difference(size):
    # A difference y'y - c'A'y would be wrong by round-off of y'y, here 1e18 times the residual.
    A, y, weight = random_problem()
    y = A @ torch.ones((4, 2), dtype=A.dtype) + size * y
    _, _, rss = split_factor(factor_of(A, y, weight), 4)
    with mpmath.workdps(50):
        left, right = mpmath.matrix(A.tolist()), mpmath.matrix(y.tolist())
        residual = right - left * normal_equations(left, right, weight.tolist())
        expected = [
            float(sum(w * residual[i, k] ** 2 for i, w in enumerate(weight.tolist())))
            for k in range(2)
        ]
    np.testing.assert_allclose(rss[0], expected, rtol=1e-5 if size < 1 else 1e-13)


def test_segments_are_solved_on_their_own():
    A, y, weight = random_problem(60)
    labels = torch.as_tensor(np.random.default_rng(1).choice(4, 60, p=[0.3, 0.3, 0.35, 0.05]))
    labels[labels == 3] = 4
    root = weight.sqrt()[:, None]
    factors = triangular_factors(torch.cat([A, y], 1) * root, labels, 5)
    got = coefficients(factors, 4)
    for s in (0, 1, 2):
        own = labels == s
        expected = np.linalg.lstsq((A * root)[own].numpy(), (y * root)[own].numpy(), rcond=None)
        np.testing.assert_allclose(got[s], expected[0], rtol=1e-11, atol=1e-12)
    assert not got[3].any(), "a segment without rows gets the zero polynomial"
    assert torch.isfinite(got[4]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_deficient_problems_are_fitted_and_leave_the_others_alone(dtype):
    A, y, weight = (part.to(dtype) for part in random_problem())
    good = factor_of(A, y, weight)
    double = A.clone()
    double[:, 3] = double[:, 1]
    bad, empty = factor_of(double, double.sum(1, keepdim=True).expand(-1, 2), weight), good * 0
    got = coefficients(torch.cat([bad, good, empty]), 4)
    assert same_bits(got[1], coefficients(good, 4)[0])
    assert not got[2].any()
    # The ridge, relative 5e4 eps, explains the target to its own square and shares it evenly.
    values = double @ got[0]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-3}[dtype]
    target = double.sum(1, keepdim=True).expand(-1, 2)
    torch.testing.assert_close(values, target, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(got[0][1], got[0][3], rtol=1e-2, atol=1e-2)


def test_deficiency_and_scale():
    R = torch.diag_embed(torch.tensor([[1.0, 1e-3, 5.0], [0.0, 0.0, 0.0], [2.0, -0.5, 1.0]]))
    assert is_deficient(R, 1e-2).tolist() == [True, True, False]
    assert is_deficient(R, 1e-4).tolist() == [False, True, False]
    assert is_deficient(R * torch.nan, 1e-4).all()
    assert column_scale(R).tolist()[::2] == [5.0, 2.0]
    assert 0 < float(column_scale(R)[1]) < 1e-37


@pytest.mark.parametrize("m", [1, 3])
def test_ridge_over_few_rows_has_the_factor_of_both(m):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 2, 9 + m, dtype=torch.float64, generator=generator)
    strength = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    ridge = torch.zeros(2, 9, 9 + m, dtype=torch.float64)
    ridge[:, :, :9].diagonal(dim1=-2, dim2=-1).copy_(strength[:, None])
    whole = triangular_factor(torch.cat([rows, ridge], 1))
    found = ridge_over_few_rows(rows, 9, strength)
    # Up to the signs of its rows.
    torch.testing.assert_close(found.abs(), whole.abs(), rtol=1e-12, atol=1e-12)
    assert not bool(found.tril(-1).any())


def test_one_ridge_for_each_problem():
    A, y, weight = random_problem()
    factor = factor_of(A, y, weight)
    alphas = torch.tensor([0.0, 1e-2, 1.0], dtype=A.dtype)
    ridged = ridge_factor(factor.expand(3, -1, -1), 4, alphas)
    for s, alpha in enumerate(alphas.tolist()):
        alone = ridge_factor(factor, 4, alpha)[0]
        torch.testing.assert_close(ridged[s].abs(), alone.abs(), rtol=1e-12, atol=1e-13)
        gram = (ridged[s].T @ ridged[s])[:4, :4]
        expected = factor[0].T @ factor[0]
        strength = alpha * float((expected.diagonal()[:4]).max().sqrt())
        expected = expected[:4, :4] + strength**2 * torch.eye(4, dtype=A.dtype)
        torch.testing.assert_close(gram, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [1, 3, 4])
def test_leave_one_out_equals_leaving_out_every_row(p):
    A, y, weight = random_problem(14, p)
    coef, error = leave_one_out(A[None], y[None], weight[None])
    root = weight.sqrt()[:, None]
    full = np.linalg.lstsq((A * root).numpy(), (y * root).numpy(), rcond=None)[0]
    np.testing.assert_allclose(coef[0], full, rtol=1e-11, atol=1e-12)
    squares = []
    for i in range(14):
        rest = np.arange(14) != i
        c = np.linalg.lstsq((A * root)[rest].numpy(), (y * root)[rest].numpy(), rcond=None)[0]
        squares.append(float(weight[i]) * np.mean((y[i].numpy() - A[i].numpy() @ c) ** 2))
    expected = np.sqrt(sum(squares) / float(weight.sum()))
    np.testing.assert_allclose(error[0], expected, rtol=1e-11)


def test_leave_one_out_of_a_batch():
    problems = [random_problem(seed=s) for s in range(3)]
    A, y, weight = (torch.stack(parts) for parts in zip(*problems, strict=True))
    alone = leave_one_out(A, y, weight)
    A = torch.cat([A, A[:1]])
    A[3, :, 2] = A[3, :, 0]
    coef, error = leave_one_out(A, torch.cat([y, y[:1]]), torch.cat([weight, weight[:1]]))
    torch.testing.assert_close(coef[:3], alone[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(error[:3], alone[1], rtol=1e-12, atol=1e-13)
    assert torch.isinf(error[3])
    assert torch.isfinite(coef[3]).all()


def brute_force_score(A, y, alpha):
    """Twice the negative log evidence with the best noise, from the marginal distribution."""
    strength = alpha * np.linalg.norm(A, axis=0).max()
    shape = np.eye(len(A)) + A @ A.T / strength**2

    def surprise(log_variance):
        return -2 * multivariate_normal(cov=np.exp(log_variance) * shape).logpdf(y)

    return minimize_scalar(surprise, bounds=(-30, 5), options={"xatol": 1e-10}).fun


@pytest.mark.parametrize("noise", [0.03, 0.3, 3.0])
def test_evidence_against_brute_force(noise):
    rng = np.random.default_rng(7)
    n, p, m = 12, 4, 2
    problems = []
    for _ in range(2):
        A = rng.standard_normal((n, p))
        y = A @ rng.standard_normal((p, m)) + noise * rng.standard_normal((n, m))
        problems.append((A, y))
    rows = torch.as_tensor(np.stack([np.hstack(pair) for pair in problems]))
    counts = torch.full((2,), float(n), dtype=rows.dtype)
    alpha, score = evidence_ridge(triangular_factor(rows), p, counts, 0.0)
    grid = [10.0 ** (-k / 2) for k in range(8)]
    expected = [
        sum(brute_force_score(A, y[:, k], value) for A, y in problems for k in range(m))
        for value in grid
    ]
    assert alpha == grid[int(np.argmin(expected))]
    constant = 2 * m * n * (1 + np.log(2 * np.pi))
    np.testing.assert_allclose(score, min(expected) - constant, rtol=1e-6)


def test_evidence_of_exact_data_and_of_pure_noise():
    rng = np.random.default_rng(8)
    A = torch.as_tensor(rng.standard_normal((200, 5)))
    n = torch.tensor([200.0], dtype=A.dtype)
    exact = triangular_factor(torch.cat([A, A.sum(1, keepdim=True)], 1))[None]
    assert evidence_ridge(exact, 5, n, 1e-13)[0] < 1e-10
    noise = torch.as_tensor(rng.standard_normal((200, 1)))
    assert evidence_ridge(triangular_factor(torch.cat([A, noise], 1))[None], 5, n, 1e-13)[0] > 0.1


def test_evidence_takes_weights_for_repetitions():
    A, y, weight = random_problem(20)
    n = weight.sum()[None]
    times = weight.long()
    ones = torch.ones(int(times.sum()), dtype=A.dtype)
    repeated = factor_of(A.repeat_interleave(times, 0), y.repeat_interleave(times, 0), ones)
    alpha, score = evidence_ridge(factor_of(A, y, weight), 4, n, 0.0)
    other = evidence_ridge(repeated, 4, n, 0.0)
    assert alpha == other[0]
    assert abs(score - other[1]) < 1e-10 * abs(score)


@pytest.mark.parametrize("dtype", DTYPES)
def test_evidence_of_degenerate_problems_is_finite(dtype):
    A, y, weight = (part.to(dtype) for part in random_problem())
    A[:, 1] = A[:, 0]
    factors = torch.cat([factor_of(A, y, weight), torch.zeros((1, 6, 6), dtype=dtype)])
    alpha, score = evidence_ridge(factors, 4, torch.stack([weight.sum(), weight.sum() * 0]), 1e-6)
    assert 0 < alpha <= 1
    assert np.isfinite(score)


@pytest.mark.parametrize("alpha", [1e-6, 0.1, 1.0])
def test_effective_parameters_are_the_trace_of_the_hat_matrix(alpha):
    A, y, weight = random_problem()
    factor = factor_of(A, y, weight)
    R = factor[:, :4, :4]
    ridged = split_factor(ridge_factor(factor, 4, alpha), 4)[0]
    rows = (A * weight.sqrt()[:, None]).numpy()
    gram = rows.T @ rows
    penalty = (alpha * np.sqrt(gram.diagonal().max())) ** 2
    hat = rows @ np.linalg.solve(gram + penalty * np.eye(4), rows.T)
    np.testing.assert_allclose(effective_parameters(R, ridged)[0], np.trace(hat), rtol=1e-11)


def test_evidence_with_fewer_rows_than_columns():
    """Zero rows of the factor are left out; targets that no column meets still count."""
    rng = np.random.default_rng(3)
    A, y = rng.standard_normal((5, 30)), rng.standard_normal((5, 2))
    factor = triangular_factor(torch.as_tensor(np.hstack([A, y])))[None]
    assert factor.shape == (1, 32, 32)
    n = torch.tensor([5.0], dtype=factor.dtype)
    alpha, score = evidence_ridge(factor, 30, n, 1e-9)
    values, s2 = np.linalg.eigh(A @ A.T), (alpha * np.linalg.norm(A, axis=0).max()) ** 2
    unexplained = (s2 / (values[0][:, None] + s2) * (values[1].T @ y) ** 2).sum(0)
    expected = 5 * np.log(unexplained / 5 + 1e-18).sum() + 2 * np.log1p(values[0] / s2).sum()
    np.testing.assert_allclose(score, expected, rtol=1e-8)
