"""Shrunken experts: one polynomial for all rows, units, gates, posteriors, what EM recovers."""

import math

import numpy as np
import pytest
import torch

from skpou.core.linalg.evidence import EvidenceProblem
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.core.rows import Rows
from skpou.partitions.tables.shrunk_experts import CommonPolynomial, fit_shrunk_experts
from tests.examples import rows_of, tensor


def table(n=120, d=4, noise=0.2, seed=0):
    """Two planes that a plane cuts apart."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    left = X[:, 0] + 0.5 * X[:, 1] < 0.75
    y = np.where(left, 2 * X[:, 1] - 1, 1.5 - 3 * X[:, 2]) + noise * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


def standard(common, X):
    return (X - common.centre) / common.width


# The common polynomial


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_columns_are_standardized(degree):
    X, y = table()
    weight = np.random.default_rng(1).integers(1, 4, len(X))
    common = CommonPolynomial(rows_of(X, y, weight), degree)
    share = common.share
    assert common.F[:, 0].eq(1).all()
    torch.testing.assert_close(share @ common.F[:, 1:], 0 * common.mean[1:], rtol=0, atol=1e-12)
    torch.testing.assert_close(share @ common.F.square(), torch.ones_like(common.mean))
    torch.testing.assert_close(common.Z[:, 1:], standard(common, common.rows.X))
    # Legendre polynomials of standardized columns: those of the box stretched.
    phi = TotalDegreePolynomials(4, degree).matrix((common.Z[:, 1:] + 1) / 2)
    torch.testing.assert_close(common.F, (phi - common.mean) / common.scale)
    exponents = TotalDegreePolynomials(4, degree).exponents
    assert common.groups.index.tolist() == exponents.sum(1).tolist()


def test_fit_against_dense_matrices():
    X, y = table()
    weight = np.random.default_rng(1).integers(1, 4, len(X))
    X[:20] = X[-20:]  # with targets of their own
    rows = rows_of(X, y, weight)
    common = CommonPolynomial(rows, 2)
    every = [np.repeat(part, weight, 0) for part in (X, y)]
    phi = TotalDegreePolynomials(4, 2).matrix((standard(common, tensor(every[0])) + 1) / 2)
    F = ((phi - common.mean) / common.scale).numpy()
    fit = common.fit
    precision = F.T @ F / fit.noise + np.diag(1 / fit.alpha[common.groups.index].numpy())
    coef = np.linalg.solve(precision, F.T @ every[1] / fit.noise)
    np.testing.assert_allclose(fit.coef, coef, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.root @ fit.root.T, np.linalg.inv(precision), atol=1e-12)
    ridge = math.sqrt(fit.noise / fit.alpha[-1])
    norm = np.linalg.norm(F[:, -1])
    assert common.ridge == pytest.approx(ridge / norm, rel=1e-9)


def test_every_target_of_a_point_is_seen():
    X, y = table(60)
    X[30:] = X[:30]
    rows = rows_of(X, y)
    assert rows.n_rows == 30
    common = CommonPolynomial(rows, 1)
    assert len(common.y) == 60
    assert sorted(common.y.tolist()) == pytest.approx(sorted(y))


@pytest.mark.parametrize("unit", [[1.0, 1e-6, -1.0, 1e6], [-3.0, 0.5, 1e3, 1.0]])
@pytest.mark.parametrize("n_experts", [1, 2])
def test_units_of_the_columns_do_not_matter(unit, n_experts):
    X, y = table()
    parts = []
    for Z in (X, X * unit + [1e-3, 2e-6, 5.0, -1e5]):
        # Unmerged: the order of the rows stays.
        rows = Rows(tensor(Z), tensor(y)[:, None], tensor(np.ones(len(y))), tensor(0 * y)[:, None])
        common = CommonPolynomial(rows, 2)
        parts.append(common.fit)
        if n_experts > 1:
            target = common.y - common.fit.fitted
            share = tensor(0.1 + 0.8 * (X[:, 0] < 0.5))
            alpha = common.fit.alpha
            problem = EvidenceProblem(common.F, target, share, 0.0, common.groups)
            parts[-1] = problem.fit(alpha, common.fit.noise, 1, 0.0)
    for name in ("fitted", "leverage", "spread"):
        one, other = (getattr(part, name) for part in parts)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert parts[0].noise == pytest.approx(parts[1].noise, rel=1e-6)


# In the box


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("far", [1.0, 30.0, 1e3])
def test_columns_in_the_box(degree, far):
    """Also where one row lies far from all others."""
    X, y = table(80, 3)
    X[1:] /= far
    common = CommonPolynomial(rows_of(X, y), degree)
    M = common._to_box()
    assert torch.equal(M, M.triu())
    fresh = tensor(np.random.default_rng(3).random((50, 3)))
    fresh[:25] /= far
    phi = TotalDegreePolynomials(3, degree).matrix((standard(common, fresh) + 1) / 2)
    expected = (phi - common.mean) / common.scale
    found = TotalDegreePolynomials(3, degree).matrix(fresh) @ M
    # Round-off is relative to the largest coefficient of a column.
    error = (found - expected).abs() / M.abs().amax(0)
    assert float(error.max()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mixture_is_what_the_fits_say(dtype):
    X, y = table()
    common = CommonPolynomial(rows_of(X, y, dtype=dtype), 2)
    rng = np.random.default_rng(2)
    target = common.y - common.fit.fitted
    fits = []
    for share, noise in zip(rng.random((3, len(y))), (0.2, 0.5, 1.0), strict=True):
        problem = EvidenceProblem(common.F, target, tensor(share), 0.0, common.groups)
        fits.append(problem.fit(common.fit.alpha, noise, 1, 0.0))
    gates = tensor(rng.standard_normal((5, 3)))
    fresh = tensor(rng.random((40, 4)), dtype)
    found = common.mixture(fits, common.fit.coef, gates).components(fresh)
    close = {"rtol": 1e-8, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    Z = standard(common, fresh.double())
    logits = gates[0] + Z @ gates[1:]
    torch.testing.assert_close(found.log_pi.double(), torch.log_softmax(logits, 1), **close)
    phi = TotalDegreePolynomials(4, 2).matrix((Z + 1) / 2)
    F = (phi - common.mean) / common.scale
    for k, fit in enumerate(fits):
        mean = F @ (common.fit.coef + fit.coef)
        torch.testing.assert_close(found.mean[:, k, 0].double(), mean, **close)
        variance = torch.einsum("np,pq,nq->n", F, fit.root @ fit.root.T, F)
        torch.testing.assert_close(found.epistemic[:, k, 0].double(), variance, **close)
    assert found.noise[:, 0].tolist() == pytest.approx([0.2, 0.5, 1.0])
    assert found.mean.dtype == dtype


# Expectation maximization


def test_one_expert_is_the_common_polynomial():
    X, y = table()
    common = CommonPolynomial(rows_of(X, y), 2)
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    mixture = fit_shrunk_experts(common, 1, rng)
    assert rng.bit_generator.state == state
    found = mixture.components(common.rows.X)
    torch.testing.assert_close(found.mean[:, 0, 0], common.fit.fitted, rtol=1e-9, atol=1e-9)
    assert not found.log_pi.any()
    assert float(mixture.experts[0].noise) == common.fit.noise


def test_two_planes_and_the_plane_between_them():
    X, y = table(600, noise=0.1)
    rows = rows_of(X, y)
    mixture = fit_shrunk_experts(CommonPolynomial(rows, 1), 2, np.random.default_rng(0))
    fresh, _ = table(2000, seed=1)
    clear = np.abs(fresh[:, 0] + 0.5 * fresh[:, 1] - 0.75) > 0.1
    left = fresh[:, 0] + 0.5 * fresh[:, 1] < 0.75
    log_pi = mixture.components(tensor(fresh)).log_pi.numpy()
    chosen = log_pi.argmax(1)
    assert max(np.mean((chosen == side)[clear] == left[clear]) for side in (0, 1)) > 0.98
    noise = np.sqrt(mixture.experts[0].noise.numpy().ravel())
    raw = np.where(X[:, 0] + 0.5 * X[:, 1] < 0.75, 2 * X[:, 1] - 1, 1.5 - 3 * X[:, 2])
    unit = np.polyfit(raw, y, 1)[0]
    np.testing.assert_allclose(noise, 0.1 * unit, rtol=0.2)


@pytest.mark.parametrize("n_experts", [2, 4])
def test_same_draws_give_the_same_bits(n_experts):
    X, y = table(80)
    common = CommonPolynomial(rows_of(X, y), 2)
    one, two = (fit_shrunk_experts(common, n_experts, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one.experts[0].coef, two.experts[0].coef)
    assert torch.equal(one.tree.levels[0].theta, two.tree.levels[0].theta)
    assert one.n_leaves == n_experts


@pytest.mark.parametrize("kind", ["constant", "copy", "two values", "exact"])
def test_columns_and_targets_that_say_little(kind):
    X, y = table(60)
    if kind == "constant":
        X[:, 1] = 0.5
    elif kind == "copy":
        X[:, 1] = X[:, 0]
    elif kind == "two values":
        X[:, 1] = np.round(X[:, 1])
    else:
        y = X[:, 0] - X[:, 1]
    rows = rows_of(X, y)
    common = CommonPolynomial(rows, 2)
    for n_experts in (1, 3):
        mixture = fit_shrunk_experts(common, n_experts, np.random.default_rng(0))
        found = mixture.components(rows.X)
        for name in ("log_pi", "mean", "noise", "epistemic"):
            assert torch.isfinite(getattr(found, name)).all(), name
        assert float(mixture.experts[0].noise.min()) > 0
        if kind == "exact":
            torch.testing.assert_close(found.expectation(), rows.y, rtol=0, atol=1e-6)


def test_no_expert_is_narrower_than_the_rounding_of_y():
    X, y = table(200, noise=0.0)
    common = CommonPolynomial(rows_of(X, np.round(y)), 1)
    assert common.floor == 0.25
    for n_experts in (2, 4):
        mixture = fit_shrunk_experts(common, n_experts, np.random.default_rng(0))
        assert float(mixture.experts[0].noise.min()) >= 0.25
