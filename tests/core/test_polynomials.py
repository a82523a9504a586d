"""Orthogonal polynomials of bounded total degree."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from skpou.core.polynomials import (
    TotalDegreePolynomials,
    count_columns,
    legendre_table,
    to_powers,
    total_degree_exponents,
)
from tests.contracts import BasisContract

CASES = [(0, 0), (0, 3), (1, 0), (1, 1), (1, 5), (2, 0), (2, 1), (2, 3), (2, 5), (3, 2)]
CASES += [(5, 1), (5, 3)]
ALL = list(itertools.product([0, 1, 2, 3, 5], range(6)))


def gauss_rule(d, degree):
    """Nodes and weights on the unit box, exact for degree 2 `degree` in each variable."""
    t, w = np.polynomial.legendre.leggauss(degree + 1)
    nodes = np.array(list(itertools.product((t + 1) / 2, repeat=d))).reshape(-1, d)
    weights = np.array([math.prod(c) for c in itertools.product(w / 2, repeat=d)])
    return torch.as_tensor(nodes), torch.as_tensor(weights)


class TestTotalDegreePolynomials(BasisContract):
    @pytest.fixture(params=CASES, ids=str)
    def basis(self, request):
        return TotalDegreePolynomials(*request.param)

    def naive(self, basis, x):
        table = [[mpmath.legendre(k, 2 * v - 1) for k in range(basis.degree + 1)] for v in x]
        return [
            mpmath.fprod(table[j][e] for j, e in enumerate(exponents))
            for exponents in basis.exponents.tolist()
        ]


@pytest.mark.parametrize(("d", "degree"), ALL)
def test_number_of_columns(d, degree):
    basis = TotalDegreePolynomials(d, degree)
    assert basis.n_columns == count_columns(d, degree) == math.comb(d + degree, degree)
    assert basis.matrix(torch.zeros((2, d))).shape == (2, basis.n_columns)


@pytest.mark.parametrize(("d", "degree"), ALL)
def test_exponents_are_all_of_bounded_degree_in_graded_order(d, degree):
    every = [e for e in itertools.product(range(degree + 1), repeat=d) if sum(e) <= degree]
    expected = sorted(every, key=lambda e: (sum(e), e))
    assert [tuple(row) for row in total_degree_exponents(d, degree)] == expected


@pytest.mark.parametrize(("d", "degree"), ALL)
def test_matrix_is_products_of_legendre_polynomials(d, degree):
    basis = TotalDegreePolynomials(d, degree)
    X = np.random.default_rng(0).random((5, d))
    expected = np.ones((5, basis.n_columns))
    for column, exponents in enumerate(basis.exponents):
        for j, k in enumerate(exponents):
            expected[:, column] *= eval_legendre(k, 2 * X[:, j] - 1)
    got = basis.matrix(torch.as_tensor(X)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-15 * max(d, 1) * (degree + 1))


@pytest.mark.parametrize(("d", "degree"), [(1, 5), (1, 12), (2, 5), (3, 4), (5, 2)])
def test_orthogonal_on_the_box(d, degree):
    basis = TotalDegreePolynomials(d, degree)
    nodes, weights = gauss_rule(d, degree)
    phi = basis.matrix(nodes)
    gram = phi.T @ (weights[:, None] * phi)
    # The squared norm of P_k(2 x - 1) on [0, 1] is 1 / (2 k + 1).
    norms = torch.as_tensor((1.0 / (2 * basis.exponents + 1)).prod(1))
    torch.testing.assert_close(gram, torch.diag(norms), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_lower_degree_is_a_prefix_of_a_higher_one(d):
    X = torch.as_tensor(np.random.default_rng(1).random((6, d)))
    high = TotalDegreePolynomials(d, 5)
    for degree in range(5):
        low = TotalDegreePolynomials(d, degree)
        assert torch.equal(low.matrix(X), high.matrix(X)[:, : low.n_columns])
        for j in range(d):
            assert torch.equal(low.partial(X, j), high.partial(X, j)[:, : low.n_columns])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_every_polynomial_of_the_degree_is_reproduced(d):
    rng = np.random.default_rng(2)
    degree = 4
    basis = TotalDegreePolynomials(d, degree)
    X = rng.random((3 * basis.n_columns, d))
    phi = basis.matrix(torch.as_tensor(X)).numpy()
    coef = rng.standard_normal(basis.n_columns)
    monomials = np.array([np.prod(X**e, axis=1) for e in basis.exponents]).T
    y = monomials @ coef
    solution, *_ = np.linalg.lstsq(phi, y, rcond=None)
    np.testing.assert_allclose(phi @ solution, y, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 7])
@pytest.mark.parametrize("shape", [(3,), (0,), (2, 4), ()])
def test_table_of_legendre_polynomials(degree, shape):
    t = torch.as_tensor(np.random.default_rng(3).uniform(-1.5, 1.5, shape))
    values, slopes = legendre_table(t, degree), legendre_table(t, degree, derivative=True)
    assert values.shape == slopes.shape == (degree + 1, *shape)
    for k in range(degree + 1):
        series = np.polynomial.Legendre.basis(k)
        np.testing.assert_allclose(values[k], series(t.numpy()), rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(slopes[k], series.deriv()(t.numpy()), rtol=1e-13, atol=1e-13)


def test_bases_do_not_share_state():
    X = torch.as_tensor(np.random.default_rng(4).random((4, 2)))
    first, second = TotalDegreePolynomials(2, 3), TotalDegreePolynomials(2, 3)
    expected = first.matrix(X)
    second.exponents[:] = 0
    assert torch.equal(first.matrix(X), expected)


@pytest.mark.parametrize(("d", "degree"), [(0, 2), (1, 0), (1, 5), (2, 3), (3, 2)])
def test_powers_of_x_are_the_same_polynomials(d, degree):
    rng = np.random.default_rng(d + 10 * degree)
    basis = TotalDegreePolynomials(d, degree)
    coef = rng.standard_normal((basis.n_columns, 2))
    offset, width = rng.uniform(-2, 2, d), rng.uniform(0.5, 3, d)
    raw = to_powers(basis.exponents, coef, offset, width)
    unit = rng.random((20, d))
    x = offset + width * unit
    columns = np.prod(x[:, None, :] ** basis.exponents, axis=2)
    expected = basis.matrix(torch.as_tensor(unit)).numpy() @ coef
    np.testing.assert_allclose(columns @ raw, expected, rtol=1e-10, atol=1e-10)


def test_powers_that_overflow_are_not_finite():
    basis = TotalDegreePolynomials(1, 3)
    raw = to_powers(basis.exponents, np.ones((4, 1)), np.zeros(1), np.array([1e-200]))
    assert not np.isfinite(raw).all()
