"""Judging linear models against direct formulas and refits."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from skpou.search import scores
from skpou.search.scores import (
    RidgePath,
    SquaredRidgePath,
    StreamedRidgePath,
    evident_path,
    neighbour_correlation,
    probe_points,
)
from skpou.sines.features import SineFeatures
from skpou.sines.spectrum import Spectrum
from tests.examples import rows_of, tensor


def problem(n=40, p=6, m=2, seed=0, repeated=True):
    """Columns and rows with weights; some points come twice with other targets."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 1))
    if repeated:
        X[: n // 4] = X[n // 2 : n // 2 + n // 4]
    y = np.sin(5 * X) + 0.1 * rng.standard_normal((n, m))
    weight = rng.integers(1, 4, n)
    powers = np.arange(p)
    return X, y, weight, powers


def path_of(alpha_columns=6, **options):
    X, y, weight, powers = problem(p=alpha_columns, **options)
    rows = rows_of(X, y, weight)
    return RidgePath(rows.X ** tensor(powers), rows), X**powers, y, weight


@pytest.mark.parametrize("alpha", [1e-1, 1e-4])
def test_coefficients_and_residual_against_normal_equations(alpha):
    path, A, y, weight = path_of()
    W = np.diag(weight)
    ridge = (alpha * float(path.S[0])) ** 2 * np.eye(A.shape[1])
    expected = np.linalg.solve(A.T @ W @ A + ridge, A.T @ W @ y)
    np.testing.assert_allclose(path.coef(alpha), expected, rtol=1e-6, atol=1e-8)
    hat = np.linalg.solve(A.T @ W @ A + ridge, A.T @ W @ A)
    assert path.dof(alpha) == pytest.approx(np.trace(hat), rel=1e-8)
    torch.testing.assert_close(path.residual(alpha), path.y - path.A @ path.coef(alpha))
    factor = path.factor(alpha).numpy()
    np.testing.assert_allclose(factor.T @ factor, A.T @ W @ A + ridge, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alpha", [1e-1, 1e-4])
def test_leave_one_out_against_refits_without_a_distinct_row(alpha):
    path, A, y, weight = path_of()
    ridge = (alpha * float(path.S[0])) ** 2 * np.eye(A.shape[1])
    total = 0.0
    for point in np.unique(A[:, 1]):
        out = A[:, 1] == point
        W = np.diag(weight * ~out)
        coef = np.linalg.solve(A.T @ W @ A + ridge, A.T @ W @ y)
        # The point's mean is left out; what is within the point stays what it is.
        mean = weight[out] @ y[out] / weight[out].sum()
        within = weight[out] @ (y[out] - mean) ** 2
        total += weight[out].sum() * (mean - A[out][0] @ coef) ** 2 + within
    expected = np.sqrt(np.mean(total) / weight.sum())
    assert path.leave_one_out(alpha) == pytest.approx(expected, rel=1e-6)


def test_evidence_against_the_density_of_a_gaussian():
    path, A, y, _ = path_of(m=1, repeated=False)
    A, y = path.A.numpy(), path.y[:, 0].numpy()
    n = float(path.total)
    best, score = path.evidence()

    def direct(alpha):
        """Twice the negative log density at the most probable noise, weights as repetitions."""
        prior = A @ A.T / (alpha * float(path.S[0])) ** 2
        C = np.eye(len(y)) + prior
        noise = y @ np.linalg.solve(C, y) / n
        log_det = np.linalg.slogdet(C)[1]
        return n * np.log(noise) + log_det

    assert score == pytest.approx(direct(best), abs=1e-6 * abs(score))
    for alpha in (best * math.sqrt(10), best / math.sqrt(10)):
        assert direct(alpha) >= score - 1e-6


def test_formula_of_the_evidence_is_that_of_scipy():
    """The same number as scipy's density, up to a constant that no ridge changes."""
    rng = np.random.default_rng(1)
    X = rng.random((15, 1))
    rows = rows_of(X, np.sin(5 * X))
    path = RidgePath(rows.X ** tensor(np.arange(4)), rows)
    best, score = path.evidence()
    y, A = path.y[:, 0].numpy(), path.A.numpy()
    C = np.eye(15) + A @ A.T / (best * float(path.S[0])) ** 2
    noise = y @ np.linalg.solve(C, y) / 15
    log_density = multivariate_normal(np.zeros(15), noise * C).logpdf(y)
    assert -2 * log_density == pytest.approx(score + 15 * (1 + np.log(2 * np.pi)), rel=1e-9)


@pytest.mark.parametrize("alpha", [1e-2, 1e-6])
def test_streamed_path_against_the_whole(alpha):
    rng = np.random.default_rng(0)
    X = rng.random((300, 2))
    rows = rows_of(X, np.sin(4 * X[:, 0]) + X[:, 1], rng.integers(1, 4, 300))
    basis = SineFeatures(tensor(rng.standard_normal((10, 2))), tensor(rng.random(10)))
    whole, streamed = RidgePath(basis.matrix(rows.X), rows), StreamedRidgePath(basis, rows, 64)
    assert streamed.evidence() == pytest.approx(whole.evidence(), rel=1e-6)
    for name in ("residual", "free"):
        torch.testing.assert_close(
            getattr(streamed, name)(alpha), getattr(whole, name)(alpha), rtol=1e-5, atol=1e-7
        )
    for name in ("leave_one_out", "spread", "dof"):
        expected = getattr(whole, name)(alpha)
        assert getattr(streamed, name)(alpha) == pytest.approx(expected, rel=1e-5)


def sines_of(noise, n=400, n_sines=110):
    """Columns of sines at rows of a smooth function with noise."""
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    y = np.sin(4 * X[:, 0]) + X[:, 1] + noise * rng.standard_normal(n)
    rows = rows_of(X, (y - y.mean()) / y.std(), rng.integers(1, 4, n))
    basis = Spectrum("flat", 4.0, (1.0, 1.0)).draw(n_sines, 0, rows.X)
    return basis.matrix(rows.X), rows


def test_path_by_inner_products_against_the_whole():
    A, rows = sines_of(0.1)
    whole, squared = RidgePath(A, rows), SquaredRidgePath(A, rows)
    alpha, score = whole.evidence()
    assert alpha > 1e-4
    assert squared.evidence() == (alpha, pytest.approx(score, abs=1e-3))
    for ridge in (alpha, 3e-6):
        for name in ("residual", "free"):
            torch.testing.assert_close(
                getattr(squared, name)(ridge), getattr(whole, name)(ridge), rtol=1e-4, atol=1e-5
            )
        for name in ("leave_one_out", "spread", "dof"):
            expected = getattr(whole, name)(ridge)
            assert getattr(squared, name)(ridge) == pytest.approx(expected, rel=1e-4)
        probed = whole.probed(ridge, A[:9])
        assert squared.probed(ridge, A[:9]) == pytest.approx(probed, rel=1e-4)
        expected = whole.factor(ridge)
        factor = squared.factor(ridge)
        torch.testing.assert_close(factor.T @ factor, expected.T @ expected)
        fitted = A @ whole.coef(ridge)
        torch.testing.assert_close(A @ squared.coef(ridge), fitted, rtol=1e-4, atol=1e-5)


def test_inner_products_are_for_noise_alone():
    noisy, alpha, score = evident_path(*sines_of(0.1), noisy=True)
    assert isinstance(noisy, SquaredRidgePath)
    assert (alpha, pytest.approx(score, abs=1e-3)) == RidgePath(*sines_of(0.1)).evidence()
    exact, alpha, score = evident_path(*sines_of(0.0), noisy=True)
    assert not isinstance(exact, SquaredRidgePath)
    assert (alpha, score) == RidgePath(*sines_of(0.0)).evidence()
    assert not isinstance(evident_path(*sines_of(0.1), noisy=False)[0], SquaredRidgePath)
    few = evident_path(*sines_of(0.1, n_sines=40), noisy=True)[0]
    assert not isinstance(few, SquaredRidgePath)


def test_probes_of_many_columns_are_no_more_than_of_few():
    X = tensor(np.random.default_rng(0).random((1000, 19)))
    probes = probe_points(X, np.random.default_rng(1))
    assert probes.shape == (200 * 20, 19)
    # Each is in the middle of two rows.
    mirrored = 2 * probes[::100, None] - X
    assert float(torch.cdist(mirrored, X[None]).amin((1, 2)).max()) < 1e-6


def test_variance_at_probes():
    path, A, _, weight = path_of()
    probes = np.array([0.1, 0.7])[:, None] ** np.arange(6)
    inverse = np.linalg.inv(A.T @ np.diag(weight) @ A + (1e-2 * float(path.S[0])) ** 2 * np.eye(6))
    expected = np.mean([row @ inverse @ row for row in probes])
    assert path.probed(1e-2, tensor(probes)) == pytest.approx(expected, rel=1e-6)


def test_probes_lie_between_the_rows():
    rng = np.random.default_rng(0)
    line = probe_points(tensor(rng.random((50, 1))), rng)
    assert (float(line.min()), float(line.max()), line.shape) == (0, 1, (200, 1))
    X = tensor(rng.random((50, 2)))
    probes = probe_points(X, rng)
    assert probes.shape == (150, 2)
    middle = (X[:, None] + X) / 2
    assert float((probes[:, None] - middle.reshape(-1, 2)).abs().amax(2).amin(1).max()) < 1e-12


def test_correlation_of_neighbours():
    rng = np.random.default_rng(0)
    X = tensor(np.sort(rng.random((400, 1)), 0))
    assert abs(neighbour_correlation(X, tensor(rng.standard_normal((400, 1))))) < 0.15
    assert neighbour_correlation(X, torch.sin(6 * X)) > 0.95
    assert neighbour_correlation(X[:5], X[:5]) == 0


@pytest.mark.parametrize("squared", [False, True])
def test_streamed_path_equals_the_whole(squared):
    rng = np.random.default_rng(0)
    X = rng.random((400, 2))
    rows = rows_of(X, np.sin(3 * X[:, 0]) + 0.1 * rng.standard_normal(400), rng.integers(1, 4, 400))
    basis = Spectrum("flat", 4.0, (1.0, 1.0)).draw(20, 0, rows.X)
    whole = RidgePath(basis.matrix(rows.X), rows)
    streamed = StreamedRidgePath(basis, rows, 64, squared)
    assert streamed.evidence()[1] == pytest.approx(whole.evidence()[1], abs=1e-3)
    for alpha in (1e-2, 1e-4):
        for name in ("residual", "free", "dof", "leave_one_out", "spread"):
            mine, theirs = (getattr(path, name)(alpha) for path in (streamed, whole))
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6, err_msg=name)
        columns = basis.matrix(rows.X[:50])
        np.testing.assert_allclose(
            columns @ streamed.coef(alpha), columns @ whole.coef(alpha), rtol=1e-5, atol=1e-6
        )


def test_ridges_below_round_off_take_many_more_rows_than_columns():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(400, 2))
    rows = rows_of(X, np.exp(X[:, 0] * X[:, 1]))
    basis = Spectrum("flat", 4.0, (1.0, 1.0)).draw(60, 0, rows.X)
    A = basis.matrix(rows.X)
    tall, square = RidgePath(A, rows), RidgePath(A[:200], rows_of(X[:200], X[:200, 0]))
    assert min(tall.ridges) < 1e-16 < 2e-16 < min(square.ridges)
    assert min(StreamedRidgePath(basis, rows, 64).ridges) > 9e-16
    fresh = tensor(rng.uniform(size=(500, 2)))
    expected = torch.exp(fresh[:, :1] * fresh[:, 1:])
    errors = [
        float((basis.matrix(fresh) @ tall.coef(alpha) - expected).square().mean().sqrt())
        for alpha in (1e-17, 1e-15, 1e-12)
    ]
    # The two smaller ridges may tie up to the round-off of the factorization.
    assert errors[0] <= errors[1] * (1 + 1e-3) < errors[2]


@pytest.mark.parametrize("seed", range(6))
def test_ridge_of_a_solution_that_round_off_does_not_spoil(seed):
    x = tensor(np.linspace(0, 1, 300))[:, None]
    y = torch.sin(4 * x - 1) + 0.2 * torch.exp(2.6 * x - 1.3)
    basis = Spectrum("gauss", 2.8, (1.0,)).draw(70, seed, x)
    path = RidgePath(basis.matrix(x), rows_of(x, y))
    chosen = path.beyond_round_off(1e-17)
    left = {alpha: float((y - path.A @ path.coef(alpha)).norm()) for alpha in path.ridges[:4]}
    assert left[chosen] <= left[1e-17]
    assert left[chosen] <= min(left.values()) / 0.7
    assert path.beyond_round_off(1e-12) == 1e-12


def test_streamed_errors_are_those_of_some_rows(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.random((3000, 2))
    rows = rows_of(
        X, np.sin(3 * X[:, 0]) + 0.1 * rng.standard_normal(3000), rng.integers(1, 4, 3000)
    )
    basis = Spectrum("flat", 4.0, (1.0, 1.0)).draw(20, 0, rows.X)
    whole = StreamedRidgePath(basis, rows, 256)
    monkeypatch.setattr(scores, "MOST_LOOKED", 1000)
    some = StreamedRidgePath(basis, rows, 256)
    assert len(some.residual(1e-3)) < 1100
    for name in ("leave_one_out", "spread"):
        expected = getattr(whole, name)(1e-3)
        assert getattr(some, name)(1e-3) == pytest.approx(expected, rel=0.1)
    np.testing.assert_array_equal(some.coef(1e-3), whole.coef(1e-3))
