"""Multinomial logistic regression: optimality conditions rather than numbers."""

import itertools

import mpmath
import numpy as np
import pytest
import torch

from skpou.partitions.gates import logistic
from skpou.partitions.gates.logistic import MultinomialLogistic, fit_logistic
from tests.contracts import DTYPES, SolverContract, from_mp

K = 3
RIDGE = 1e-2


def make_problem(n=40, q=3, seed=0, dtype=torch.float64, n_classes=K):
    rng = np.random.default_rng(seed)
    F = torch.as_tensor(rng.standard_normal((n, q))).to(dtype)
    F[:, 0] = 1.0
    labels = torch.as_tensor(rng.integers(0, n_classes, n))
    weight = torch.as_tensor(rng.uniform(0.5, 2, n)).to(dtype)
    return F, labels, weight


def absolute_ridge(ridge, weight, n_classes=K):
    return ridge * float(weight.sum()) / n_classes


def naive_gradient(theta, F, labels, weight, ridge):
    """Gradient of the penalised negative log-likelihood, one row at a time."""
    gradient = ridge * theta.double()
    for f, label, w in zip(F.double(), labels, weight.double(), strict=True):
        pi = torch.softmax(theta.double() @ f, 0)
        pi[label] -= 1
        gradient = gradient + w * torch.outer(pi, f)
    return gradient


class TestFitLogistic(SolverContract):
    """The solution for a fixed ridge, in classes drawn at random."""

    n_columns = 3

    def make_target(self, A, rng):
        return torch.as_tensor(rng.integers(0, K, len(A)))

    def allowed(self, condition, dtype):
        # Newton's method stops at a relative decrease of 1e-8.
        return {torch.float64: 1e-6, torch.float32: 1e-2}[dtype]

    def solve(self, A, y, weight):
        return fit_logistic(A, y, K, weight, ridges=(RIDGE,))

    def reference(self, A, y, weight):
        start = fit_logistic(*self.tensors(A, y), K, torch.tensor(weight).double(), (RIDGE,))
        theta = mpmath.matrix(start.reshape(-1).tolist())
        ridge = RIDGE * mpmath.fsum(weight) / K
        q = A.cols
        for _ in range(8):
            gradient, hessian = ridge * theta, ridge * mpmath.eye(K * q)
            for i in range(A.rows):
                logits = [mpmath.fdot(theta[k * q : (k + 1) * q], A[i, :]) for k in range(K)]
                pi = [mpmath.exp(v) for v in logits]
                pi = [p / mpmath.fsum(pi) for p in pi]
                for k in range(K):
                    for a in range(q):
                        residual = pi[k] - (k == int(y[i, 0]))
                        gradient[k * q + a] += weight[i] * residual * A[i, a]
                        for l in range(K):
                            for b in range(q):
                                curve = pi[k] * ((k == l) - pi[l])
                                curve *= weight[i] * A[i, a] * A[i, b]
                                hessian[k * q + a, l * q + b] += curve
            theta = theta - mpmath.lu_solve(hessian, gradient)
        assert mpmath.norm(gradient) < mpmath.mpf("1e-30")
        return mpmath.matrix([list(theta[k * q : (k + 1) * q]) for k in range(K)])

    @staticmethod
    def tensors(A, y):
        F = torch.as_tensor(from_mp(A))
        return F, torch.as_tensor(from_mp(y))[:, 0].long()


def test_objective_against_a_loop():
    F, labels, weight = make_problem()
    theta = torch.as_tensor(np.random.default_rng(1).standard_normal((K, 3)))
    expected = 0.5 * 0.3 * float(theta.square().sum())
    for f, label, w in zip(F.numpy(), labels.tolist(), weight.tolist(), strict=True):
        logits = theta.numpy() @ f
        expected -= w * np.log(np.exp(logits[label]) / np.exp(logits).sum())
    problem = MultinomialLogistic(F, labels, K, weight)
    assert abs(problem.objective(theta, 0.3) - expected) < 1e-12 * expected


@pytest.mark.parametrize(("q", "n_classes"), [(1, 2), (3, 3), (6, 4), (12, 3)])
def test_derivatives_against_central_differences(q, n_classes):
    F, labels, weight = make_problem(30, q, n_classes=n_classes)
    problem = MultinomialLogistic(F, labels, n_classes, weight)
    theta = torch.as_tensor(np.random.default_rng(2).standard_normal((n_classes, q)))
    gradient, hessian = problem.derivatives(theta, 0.2)
    h, size = 1e-5, n_classes * q
    slopes, curves = torch.empty(size), torch.empty((size, size))
    slopes, curves = slopes.double(), curves.double()
    for i in range(size):
        step = torch.zeros(size, dtype=theta.dtype)
        step[i] = h
        step = step.reshape(theta.shape)
        ahead, behind = theta + step, theta - step
        slopes[i] = (problem.objective(ahead, 0.2) - problem.objective(behind, 0.2)) / (2 * h)
        difference = problem.derivatives(ahead, 0.2)[0] - problem.derivatives(behind, 0.2)[0]
        curves[i] = difference.reshape(-1) / (2 * h)
    torch.testing.assert_close(gradient.reshape(-1), slopes, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(hessian, curves, rtol=1e-7, atol=1e-7)
    expected = naive_gradient(theta, F, labels, weight, 0.2)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(hessian, hessian.T)
    assert float(torch.linalg.eigvalsh(hessian)[0]) >= 0.2 * (1 - 1e-9)


@pytest.mark.parametrize("block", [1, 7, 40])
@pytest.mark.parametrize("q", [3, 12])
def test_hessian_does_not_depend_on_blocks_of_rows(block, q, monkeypatch):
    F, labels, weight = make_problem(q=q)
    problem = MultinomialLogistic(F, labels, K, weight)
    theta = torch.as_tensor(np.random.default_rng(3).standard_normal((K, q)))
    expected = problem.derivatives(theta, 0.1)[1]
    monkeypatch.setattr(logistic, "rows_within", lambda *_: block)
    torch.testing.assert_close(problem.derivatives(theta, 0.1)[1], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("ridge", [1.0, 1e-3, 1e-7])
def test_gradient_vanishes_at_the_solution(ridge):
    F, labels, weight = make_problem(80)
    theta = fit_logistic(F, labels, K, weight, ridges=(1e-1, ridge))
    gradient = naive_gradient(theta, F, labels, weight, absolute_ridge(ridge, weight))
    assert gradient.abs().max() < 1e-6 * float(weight.sum())


def test_no_other_point_is_better():
    F, labels, weight = make_problem(80)
    problem = MultinomialLogistic(F, labels, K, weight)
    theta = fit_logistic(F, labels, K, weight, ridges=(RIDGE,))
    ridge = absolute_ridge(RIDGE, weight)
    best = problem.objective(theta, ridge)
    rng = np.random.default_rng(4)
    for size in (1e-3, 1e-1, 10):
        for _ in range(20):
            other = theta + size * torch.as_tensor(rng.standard_normal(theta.shape))
            assert problem.objective(other, ridge) > best


def test_every_start_leads_to_the_same_solution():
    F, labels, weight = make_problem(80)
    expected = fit_logistic(F, labels, K, weight, ridges=(RIDGE,))
    rng = np.random.default_rng(5)
    for size in (0.1, 3.0, 30.0):
        start = size * torch.as_tensor(rng.standard_normal((K, 3)))
        kept = start.clone()
        got = fit_logistic(F, labels, K, weight, (RIDGE,), start, max_iter=100)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(start, kept)


@pytest.mark.parametrize("start", [0.0, 5.0, 100.0])
def test_every_step_descends(start):
    F, labels, weight = make_problem(60, seed=6)
    problem = MultinomialLogistic(F, labels, K, weight)
    ridge = absolute_ridge(1e-4, weight)
    theta = start * torch.as_tensor(np.random.default_rng(6).standard_normal((K, 3)))
    values = [problem.objective(problem.fit(theta, 1e-4, k), ridge) for k in range(12)]
    assert all(b <= a for a, b in itertools.pairwise(values))
    assert values[0] == problem.objective(theta, ridge)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ridge", [1e-7, 1e-15])
def test_separable_classes_stay_finite(ridge, dtype):
    F, _, weight = make_problem(60, dtype=dtype)
    labels = (F[:, 1] > 0.2).long() + (F[:, 1] > 0.9).long()
    theta = fit_logistic(F, labels, K, weight, ridges=(1e-1, 1e-3, 1e-5, ridge), max_iter=30)
    assert torch.isfinite(theta).all()
    assert torch.equal((F @ theta.T).argmax(1), labels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_class_and_classes_without_rows(dtype):
    F, labels, weight = make_problem(dtype=dtype)
    assert torch.isfinite(fit_logistic(F, labels * 0, 1, weight)).all()
    theta = fit_logistic(F, labels, 5, weight)
    assert torch.isfinite(theta).all()
    pi = torch.softmax(F @ theta.T, 1)
    assert pi[:, 3:].max() < 1e-2
    # By symmetry the two empty classes get the same logits.
    torch.testing.assert_close(theta[3], theta[4], rtol=1e-3, atol=1e-3)


# Probabilities for labels, and several problems at once


def one_hot(labels):
    return torch.nn.functional.one_hot(labels, K).double()


def test_labels_are_probabilities_of_zero_and_one():
    F, labels, weight = make_problem()
    hard = fit_logistic(F, labels, K, weight, (RIDGE,))
    soft = fit_logistic(F, one_hot(labels), K, weight, (RIDGE,))
    torch.testing.assert_close(hard, soft, rtol=1e-9, atol=1e-10)


def test_probabilities_are_split_rows():
    """A row with the probabilities t is K rows with the labels k and the weights t_k."""
    F, _, weight = make_problem(30)
    t = torch.as_tensor(np.random.default_rng(1).dirichlet(np.ones(K), 30))
    soft = fit_logistic(F, t, K, weight, (RIDGE,))
    labels = torch.arange(K).repeat(30)
    split = (weight[:, None] * t).reshape(-1)
    rows = fit_logistic(F.repeat_interleave(K, 0), labels, K, split, (RIDGE,))
    torch.testing.assert_close(soft, rows, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("own", [False, True], ids=["common features", "own features"])
def test_batch_equals_one_problem_at_a_time(own):
    rng, B, n, q = np.random.default_rng(2), 4, 50, 3
    F = torch.as_tensor(rng.standard_normal((B, n, q) if own else (n, q)))
    t = torch.as_tensor(rng.dirichlet(np.ones(K), (B, n)))
    # Easy, hard and empty problems side by side.
    t[1] = one_hot((F[1] if own else F)[:, 0].gt(0).long())
    weight = torch.as_tensor(rng.uniform(0, 2, (B, n)))
    weight[2] = 0.0
    batch = fit_logistic(F, t, K, weight, (1e-1, 1e-4))
    assert batch.shape == (B, K, q)
    for b in range(B):
        alone = fit_logistic(F[b] if own else F, t[b], K, weight[b], (1e-1, 1e-4))
        torch.testing.assert_close(batch[b], alone, rtol=1e-5, atol=1e-6)
    assert not batch[2].any()


def test_batch_descends_in_every_problem():
    rng, B, n, q = np.random.default_rng(3), 3, 40, 3
    F = torch.as_tensor(rng.standard_normal((n, q)))
    t = torch.as_tensor(rng.dirichlet(np.full(K, 0.1), (B, n)))
    weight = torch.ones((B, n)).double()
    problem = MultinomialLogistic(F, t, K, weight)
    theta = 10 * torch.as_tensor(rng.standard_normal((B, K, q)))
    values = torch.stack(
        [problem.objective(problem.fit(theta, 1e-4, k), 1e-4 * n / K) for k in range(10)]
    )
    assert (values.diff(dim=0) <= 0).all()
    assert (values[-1] < values[0]).all()


@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_hessian_of_many_rows_is_that_of_few(batch, monkeypatch):
    """Other sums of the same products: what differs is their round-off."""
    draws = torch.Generator().manual_seed(0)
    n, K, q = 300, 4, 6
    features = torch.randn((n, q), generator=draws, dtype=torch.float64)
    targets = torch.softmax(torch.randn((*batch, n, K), generator=draws, dtype=torch.float64), -1)
    weight = torch.rand((*batch, n), generator=draws, dtype=torch.float64)
    theta = torch.randn((*batch, K, q), generator=draws, dtype=torch.float64)
    problem = MultinomialLogistic(features, targets, K, weight)
    few = problem.derivatives(theta, 1e-3)
    monkeypatch.setattr("skpou.partitions.gates.logistic.MANY_ROWS", 100)
    for one, other in zip(few, problem.derivatives(theta, 1e-3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


def test_large_systems_of_a_batch_with_two_threads():
    """Factors of several large matrices at once fail with threads on some processors."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn((3, 240, 240), generator=generator, dtype=torch.float64)
    hessian = A @ A.mT + torch.eye(240, dtype=torch.float64)
    gradient = torch.randn((3, 6, 40), generator=generator, dtype=torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        direction = logistic.damped_direction(
            gradient, hessian, gradient.new_tensor([0.0, 1.0, 0.1])
        )
    finally:
        torch.set_num_threads(threads)
    for k, damping in enumerate((0.0, 1.0, 0.1)):
        damped = hessian[k] + damping * hessian[k].diagonal().diag()
        residual = damped @ direction[k].flatten() - gradient[k].flatten()
        assert residual.abs().max() <= 1e-10 * gradient[k].abs().max()
