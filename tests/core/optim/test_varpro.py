"""Variable projection against closed forms, explicit projectors and finite differences."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import torch

from skpou.core.basis import ParametricBasis
from skpou.core.linalg.least_squares import is_deficient
from skpou.core.optim.varpro import (
    DampingControl,
    ProjectedProblem,
    RidgeSchedule,
    levenberg_marquardt,
)
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.partitions.gates.products import PartitionPolynomials
from skpou.partitions.gates.tree import GateForm
from tests.contracts import ParametricBasisContract, same_bits
from tests.examples import tensor


class Exponentials(ParametricBasis):
    """A constant and the columns ``exp(-theta_j x)``: the classical use of variable projection."""

    def __init__(self, x, n_parameters):
        self.x = x
        self.n_parameters = n_parameters
        self.n_columns = n_parameters + 1

    def matrix(self, theta):
        return torch.cat([torch.ones_like(self.x)[:, None], torch.exp(-self.x[:, None] * theta)], 1)

    def jacobian(self, theta, coef):
        slopes = -self.x[:, None] * torch.exp(-self.x[:, None] * theta)
        return slopes[:, None, :] * coef[1:].T


class TestExponentials(ParametricBasisContract):
    growths = (1e2, 1e4, 1e8)

    def make_basis(self):
        return Exponentials(tensor([0.0, 0.1, 0.7, 2.0]), 3), tensor([0.3, 1.0, 2.5])

    def naive(self, basis, theta):
        return [[mpmath.mpf(1), *(mpmath.exp(-x * t) for t in theta)] for x in basis.x.tolist()]


class Fixed(ParametricBasis):
    """Given columns, which no parameter moves."""

    def __init__(self, A, n_parameters):
        self.A = tensor(A)
        self.n_columns = self.A.shape[1]
        self.n_parameters = n_parameters

    def matrix(self, theta):
        return self.A

    def jacobian(self, theta, coef):
        return self.A.new_zeros((len(self.A), coef.shape[1], self.n_parameters))


def fixed_fit(A, y, weight, ridge, k=1):
    problem = ProjectedProblem(Fixed(A, k), tensor(y), tensor(weight))
    return problem.solve(tensor(np.zeros(k)), ridge)


def numbers(n=20, p=4, m=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)), rng.standard_normal((n, m)), rng.integers(1, 4, n)


def decays(noise=0.0, n=60):
    """Problem of three exponentials, the theta of its target, and a start."""
    rng = np.random.default_rng(1)
    basis = Exponentials(tensor(np.linspace(0, 3, n)), 2)
    truth = tensor([0.5, 3.0])
    y = basis.matrix(truth) @ tensor([[1.0, 0.5], [2.0, -1.0], [-3.0, 1.0]])
    y = y + noise * tensor(rng.standard_normal(y.shape))
    return ProjectedProblem(basis, y, tensor(rng.integers(1, 4, n))), truth, tensor([0.8, 2.0])


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 10.0])
def test_solve_is_the_closed_form_of_ridge_regression(ridge):
    A, y, weight = numbers()
    fit = fixed_fit(A, y, weight, ridge)
    W, s2 = np.diag(weight), ridge * weight.sum()
    coef = np.linalg.solve(A.T @ W @ A + s2 * np.eye(4), A.T @ W @ y)
    residual = A @ coef - y
    np.testing.assert_allclose(fit.coef, coef, rtol=1e-12)
    np.testing.assert_allclose(fit.residual, np.sqrt(weight)[:, None] * residual, atol=1e-13)
    misfit = (weight[:, None] * residual**2).sum()
    np.testing.assert_allclose(fit.value, misfit + s2 * (coef**2).sum(), rtol=1e-13)
    np.testing.assert_allclose(fit.rms(), np.sqrt(misfit / y.size), rtol=1e-13)
    gram = A.T @ W @ A + s2 * np.eye(4)
    np.testing.assert_allclose(fit.R.T @ fit.R, gram, rtol=1e-12, atol=1e-12)


def test_weights_equal_repeated_rows():
    A, y, weight = numbers()
    fit = fixed_fit(A, y, weight, 1e-2)
    parts = [np.repeat(part, weight, 0) for part in (A, y)]
    repeated = fixed_fit(*parts, np.ones(weight.sum()), 1e-2)
    torch.testing.assert_close(fit.coef, repeated.coef, rtol=1e-12, atol=1e-13)
    assert abs(fit.value / repeated.value - 1) < 1e-13


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_leave_one_out_equals_leaving_rows_out(ridge):
    A, y, weight = numbers(12)
    left_out = []
    for i in range(12):
        rest = np.arange(12) != i
        # The same strength for one row less; the ridge multiplies the sum of weights.
        kept = weight.sum() / weight[rest].sum()
        other = fixed_fit(A[rest], y[rest], weight[rest], ridge * kept)
        left_out.append(np.sqrt(weight[i]) * (A[i] @ other.coef.numpy() - y[i]))
    expected = np.sqrt(np.square(left_out).mean())
    np.testing.assert_allclose(fixed_fit(A, y, weight, ridge).leave_one_out(), expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("condition", "ridge", "allowed"),
    [
        (1.0, 0.0, 1e-14),
        (1e3, 0.0, 1e-12),
        (1e6, 1e-14, 1e-8),
        (1e9, 0.0, 1e-5),
        (1e9, 1e-5, 1e-12),
    ],
)
def test_linearise_projects_off_the_columns(condition, ridge, allowed):
    rng, (n, p, m, k) = np.random.default_rng(2), (15, 4, 2, 3)
    U, V = (np.linalg.qr(rng.standard_normal((rows, p)))[0] for rows in (n, p))
    A, y = U * np.geomspace(1, 1 / condition, p) @ V.T, rng.standard_normal((n, m))
    raw, fit = rng.standard_normal((n, m, k)), fixed_fit(A, y, np.ones(n), ridge, k)
    # Which of the two ways is taken: by the normal equations, or by the orthogonal factor.
    deficient = bool(is_deficient(fit.R, 1e9 * torch.finfo(torch.float64).eps))
    assert deficient == (condition == 1e9 and ridge == 0)
    Q = np.linalg.qr(np.concatenate([A, fit.strength * np.eye(p)]))[0]
    projector = np.eye(n + p) - Q @ Q.T
    residual = np.concatenate([fit.residual, fit.strength * fit.coef])
    columns = []
    for i in range(k):
        padded = np.concatenate([raw[:, :, i], np.zeros((p, m))])
        columns.append((projector @ padded).reshape(-1))
    expected = np.column_stack([*columns, residual.reshape(-1)])
    factor = fit.linearise(tensor(raw)).numpy()
    assert factor.shape == (k + 1, k + 1)
    assert not np.tril(factor, -1).any()
    gram = expected.T @ expected
    assert np.abs(factor.T @ factor - gram).max() <= allowed * np.abs(gram).max()


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12])
def test_linearise_survives_columns_that_are_all_but_equal(gap):
    rng, (n, m, k) = np.random.default_rng(9), (15, 2, 3)
    A, y = rng.standard_normal((n, 4)), rng.standard_normal((n, m))
    A[:, 3] = A[:, 1] + gap * rng.standard_normal(n)
    fit = fixed_fit(A, y, np.ones(n), 1e-30, k)
    # What the columns can follow leaves nothing; nothing grows by a projection.
    inside = np.einsum("np,pmk->nmk", A[:, :3], rng.standard_normal((3, m, k)))
    left = fit.linearise(tensor(inside))[:, :-1]
    assert left.abs().max() < 1e-12 * np.abs(inside).max()
    raw = rng.standard_normal((n, m, k))
    norms = fit.linearise(tensor(raw))[:, :-1].norm(dim=0).numpy()
    assert (norms < np.linalg.norm(raw, axis=(0, 1))).all()


def soft_theta(parents, n_columns, d, rng):
    """Logits of siblings that take over from each other along a line, slightly disturbed."""
    parts = []
    for parent in parents:
        theta = 0.3 * rng.standard_normal((len(parent), n_columns))
        for family in set(parent):
            children = np.flatnonzero(np.asarray(parent) == family)
            cuts = np.linspace(-0.7, 0.7, len(children) + 1)[1:-1]
            theta[children, 1 : d + 1] += 8 * np.arange(len(children))[:, None]
            theta[children[1:], 0] -= 8 * np.cumsum(cuts)
        parts.append(theta.reshape(-1))
    return tensor(np.concatenate(parts))


def soft_problem(parents, form, degree, n=200, d=1, m=1, noise=0.0, X=None):
    """Target made by a soft tree with a known theta; the problem, theta and coefficients."""
    rng = np.random.default_rng(0)
    X = tensor(rng.random((n, d))) if X is None else X
    features = [form.basis(d).matrix(X)] * len(parents)
    phi = TotalDegreePolynomials(d, degree).matrix(X)
    basis = PartitionPolynomials.of_features(phi, features, [torch.tensor(p) for p in parents])
    rng = np.random.default_rng(100)
    theta = soft_theta(parents, features[0].shape[1], d, rng)
    coef = tensor(rng.standard_normal((basis.n_columns, m)))
    y = basis.matrix(theta) @ coef
    y = y + noise * tensor(rng.standard_normal(y.shape))
    return ProjectedProblem(basis, y, torch.ones_like(X[:, 0])), theta, coef


@pytest.mark.parametrize("ridge", [1e-10, 1e-2])
@pytest.mark.parametrize("kind", ["exponentials", "flat", "tree"])
def test_kaufmans_gradient_is_that_of_the_projected_objective(kind, ridge):
    if kind == "exponentials":
        problem, _, theta = decays(noise=0.1)
    else:
        parents = [[0, 0, 0]] if kind == "flat" else [[0, 0], [1, 0, 1]]
        problem, theta, _ = soft_problem(parents, GateForm(2), 1, 80, m=2, noise=0.3)
        theta = 0.5 * theta
    fit = problem.solve(theta, ridge)
    factor = fit.linearise(problem.jacobian(fit))
    gradient = 2 * (factor.T @ factor)[:-1, -1]
    assert abs(float(factor.square().sum(0)[-1]) / fit.value - 1) < 1e-12
    expected, h = torch.zeros_like(theta), 1e-5
    for i in range(len(theta)):
        step = h * torch.eye(len(theta), dtype=theta.dtype)[i]
        ahead, behind = (problem.solve(theta + s * step, ridge).value for s in (1, -1))
        expected[i] = (ahead - behind) / (2 * h)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7 * fit.value)


def test_damping_follows_the_ratio():
    damping = DampingControl(1.0)
    damping.succeed(1.0)
    assert damping.value == pytest.approx(1 / 5)  # at most five times less at once
    damping.succeed(0.5)
    assert damping.value == pytest.approx(1 / 5)  # 1 - (2 / 2 - 1)^3 = 1
    damping.succeed(0.0)
    assert damping.value == pytest.approx(2 / 5)  # a useless model: twice
    for growth in (2, 4, 8):
        before = damping.value
        damping.fail()
        assert damping.value == pytest.approx(growth * before)
    damping.succeed(1.0)
    before = damping.value
    damping.fail()
    assert damping.value == pytest.approx(2 * before)  # growth starts anew
    for _ in range(100):
        damping.succeed(1.0)
    assert damping.value == damping.least


def test_ridge_follows_progress_and_never_rises():
    ridge = RidgeSchedule()
    assert not ridge.follow(1.0)
    assert ridge.value == 1e-10
    assert ridge.follow(1e-5)
    assert ridge.value == pytest.approx(1e-14)
    assert not ridge.follow(1e-4)
    assert ridge.value == pytest.approx(1e-14)
    assert ridge.stall()
    assert ridge.follow(1e-5)
    assert ridge.value == pytest.approx(1e-16)
    assert ridge.follow(0.0)
    assert ridge.value == ridge.least
    assert not ridge.follow(0.0)
    while ridge.stall():
        pass
    assert ridge.share == pytest.approx(ridge.least_share / 10, rel=1e-9)


def soft_tree(noise=0.0):
    problem, theta, _ = soft_problem([[0, 0], [1, 0, 1]], GateForm(1), 1, 200, noise=noise)
    return problem, theta, theta * tensor(np.random.default_rng(8).uniform(0.8, 1.2, len(theta)))


def least_squares(fit):
    """Judge that follows the value that is minimised."""
    return fit.value


@pytest.mark.parametrize("make", [decays, soft_tree])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_value_never_increases(make, noise):
    problem, _, start = make(noise)
    result = levenberg_marquardt(problem, start, judge=least_squares)
    assert result.code == "converged"
    assert result.message == ""
    assert result.n_iter == len(result.curve) > 3
    assert (np.diff(result.curve) <= 0).all()
    assert result.curve[0] == problem.solve(start, 1e-10).value
    assert result.state.value <= result.curve[-1]
    assert result.score == result.state.value


@pytest.mark.parametrize("make", [decays, soft_tree])
def test_gradient_vanishes_where_noise_keeps_a_residual(make):
    problem, _, start = make(0.05)
    result = levenberg_marquardt(problem, start, judge=least_squares)
    assert result.code == "converged"

    def cosines(fit):
        """Between the columns of the Jacobian and the residual."""
        factor = fit.linearise(problem.jacobian(fit))
        norms = factor[:, :-1].norm(dim=0) * factor[:, -1].norm()
        # An only child's logits have no effect.
        return ((factor.T @ factor)[:-1, -1].abs() / norms)[norms > 0]

    assert cosines(problem.solve(start, 1e-10)).max() > 0.02
    assert cosines(result.state).max() < 1e-4


@pytest.mark.parametrize("make", [decays, soft_tree])
def test_best_by_the_judge_is_returned_with_its_ridge(make):
    problem, _, start = make(0.05)
    result = levenberg_marquardt(problem, start)
    again = problem.solve(result.state.theta, result.chosen["ridge"])
    assert again.value == result.state.value
    assert result.score == again.leave_one_out()
    seen = []

    def judge(fit):
        """Prefers what is shown second."""
        seen.append(fit)
        return abs(len(seen) - 2.0)

    result = levenberg_marquardt(problem, start, judge=judge)
    assert len(seen) > 2
    assert result.state is seen[1]
    assert result.score == 0


def test_a_score_that_is_not_a_number_never_is_the_best():
    problem, _, start = decays(0.05)
    scores = [math.nan, 2.0, math.nan, 1.0]
    result = levenberg_marquardt(
        problem, start, judge=lambda fit: scores.pop(0) if scores else math.nan
    )
    assert result.score in (1.0, 2.0)


def test_probes_between_the_rows_see_what_leave_one_out_does_not():
    A, y, weight = numbers()
    fit = fixed_fit(A, y, weight, 0.1)
    probes = np.random.default_rng(6).standard_normal((7, 4))
    inverse = np.linalg.inv(A.T @ np.diag(weight) @ A + 0.1 * weight.sum() * np.eye(4))
    leverage = weight * np.einsum("ij,jk,ik->i", A, inverse, A)
    variance = 1 + np.einsum("ij,jk,ik->i", probes, inverse, probes).mean()
    # A left-out error is the residual over 1 - h and has the variance 1 / (1 - h).
    left_out = fit.residual.numpy() / (1 - leverage)[:, None]
    unit = (np.square(left_out).mean(1) * (1 - leverage)).mean()
    np.testing.assert_allclose(fit.calibrated(tensor(probes)), np.sqrt(unit * variance), rtol=1e-12)
    assert fit.calibrated(tensor(1e3 * probes)) > 100 * fit.leave_one_out()


@pytest.mark.parametrize(
    ("K", "gate", "degree", "d", "n"),
    [(2, 1, 1, 1, 150), (2, 1, 2, 1, 150), (3, 1, 1, 1, 150), (2, 2, 1, 2, 300), (3, 1, 2, 2, 300)],
)
def test_known_blend_is_recovered_on_fresh_points(K, gate, degree, d, n):
    parents, form, rng = [[0] * K], GateForm(gate), np.random.default_rng(7)
    problem, theta, coef = soft_problem(parents, form, degree, n, d)
    start = theta * tensor(rng.uniform(0.7, 1.3, len(theta)))
    before = problem.solve(start, 0.0).rms() / problem.rms
    assert before > 1e-3
    result = levenberg_marquardt(problem, start)
    fresh, _, _ = soft_problem(parents, form, degree, d=d, X=tensor(rng.random((1000, d))))
    exact = fresh.basis.matrix(theta) @ coef
    got = fresh.basis.matrix(result.state.theta) @ result.state.coef
    error = float((got - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert error <= 1e-10, f"relative rms error {error:.1e} from {before:.1e}"


def test_known_decays_are_recovered():
    problem, truth, start = decays()
    result = levenberg_marquardt(problem, start)
    np.testing.assert_allclose(result.state.theta, truth, rtol=1e-9)
    expected = [[1.0, 0.5], [2.0, -1.0], [-3.0, 1.0]]
    np.testing.assert_allclose(result.state.coef, expected, rtol=1e-8)


def test_one_step_is_not_enough():
    problem, _, start = soft_tree()
    result = levenberg_marquardt(problem, start, max_iter=1)
    assert result.code == "max_iter"
    assert "1 step" in result.message
    assert len(result.curve) == result.n_iter == 2
    assert result.state.value == result.curve[-1] < result.curve[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_start_that_is_not_finite(value):
    problem, _, start = soft_tree()
    start[1] = value
    result = levenberg_marquardt(problem, start)
    assert result.code == "non_finite"
    assert result.message
    assert result.score == math.inf
    assert result.n_iter == 1


def test_given_ridge_stays():
    problem, _, start = decays(0.1)
    schedule = RidgeSchedule(value=1e-4, least=1e-4)
    result = levenberg_marquardt(problem, start, ridge=schedule)
    assert result.chosen["ridge"] == 1e-4
    assert result.state.strength == pytest.approx(math.sqrt(1e-4 * problem.total))


def test_stops_at_the_tolerance():
    problem, _, start = soft_tree()
    loose = levenberg_marquardt(problem, start, tol=1e-3)
    assert loose.code == "converged"
    assert loose.state.rms() <= 1e-3 * problem.rms
    assert loose.n_iter < levenberg_marquardt(problem, start).n_iter


def test_target_that_is_zero_or_within_the_columns():
    problem, _, start = soft_tree()
    phi = problem.basis.polynomials
    for y in (0 * phi[:, :1], phi[:, :1] - 2 * phi[:, 1:2]):
        exact = ProjectedProblem(problem.basis, y, torch.ones(len(y), dtype=y.dtype))
        result = levenberg_marquardt(exact, start)
        assert result.code == "converged"
        assert result.state.rms() <= 1e-8 * exact.rms
        assert math.isfinite(result.score)


def test_same_bits_twice():
    first, second = (levenberg_marquardt(*soft_tree(0.1)[::2]) for _ in range(2))
    assert same_bits(first.state.theta, second.state.theta)
    assert same_bits(first.state.coef, second.state.coef)
    assert first.curve == second.curve
    assert first.score == second.score


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_few_rows_are_solved_for_in_their_span(ridge):
    """More than twice as many columns as rows; without a ridge the shortest coefficients."""
    A, y, weight = numbers(n=6, p=40)
    fit = fixed_fit(A, y, weight, ridge)
    root, s2 = np.sqrt(weight)[:, None], ridge * weight.sum()
    B = root * A
    coef = B.T @ np.linalg.solve(B @ B.T + s2 * np.eye(6), root * y)
    np.testing.assert_allclose(fit.coef, coef, rtol=1e-9, atol=1e-12)
    misfit = ((B @ coef - root * y) ** 2).sum() + s2 * (coef**2).sum()
    np.testing.assert_allclose(fit.value, misfit, rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(fit.R.T @ fit.R, B.T @ B + s2 * np.eye(40), rtol=1e-9, atol=1e-9)


def test_columns_that_the_rows_do_not_determine_stay_finite_without_a_ridge():
    fit = fixed_fit(*numbers(n=6, p=8), 0.0)
    assert bool(torch.isfinite(fit.coef).all()) and fit.rms() < 1e-10


def test_few_rows_have_the_same_errors_and_derivatives_in_their_span():
    A, y, weight = numbers(n=6, p=40)
    rng = np.random.default_rng(1)
    fit = fixed_fit(A, y, weight, 1e-2, k=3)
    whole = dataclasses.replace(fit, factor=fit.R, span=None)
    probes, raw = (tensor(rng.standard_normal(shape)) for shape in ((5, 40), (6, 2, 3)))
    np.testing.assert_allclose(fit.leave_one_out(), whole.leave_one_out(), rtol=1e-9)
    np.testing.assert_allclose(fit.calibrated(probes), whole.calibrated(probes), rtol=1e-9)
    found, expected = (f.linearise(raw) for f in (fit, whole))
    np.testing.assert_allclose(found.T @ found, expected.T @ expected, rtol=1e-8, atol=1e-10)
