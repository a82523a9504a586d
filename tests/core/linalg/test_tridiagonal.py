"""Ridges of a Gram matrix against its eigenvectors."""

import numpy as np
import pytest

from skpou.core.linalg import gram_of, ridge_quadratics
from tests.examples import tensor


@pytest.mark.parametrize("p", [1, 2, 90])
def test_quadratics_are_those_of_the_inverse(p):
    rng = np.random.default_rng(p)
    A = rng.standard_normal((2 * p, p)) * np.logspace(0, -4, p)
    moment, ridges = rng.standard_normal((p, 2)), [1e-3, 1.0]
    values, found = ridge_quadratics(tensor(A.T @ A), tensor(moment), ridges)
    eigenvalues, vectors = np.linalg.eigh(A.T @ A)
    assert values.numpy() == pytest.approx(eigenvalues[::-1], rel=1e-6)
    for ridge, quadratic in zip(ridges, found.numpy(), strict=True):
        shifted = eigenvalues + ridge**2 * eigenvalues[-1]
        expected = ((vectors.T @ moment) ** 2 / shifted[:, None]).sum(0)
        assert quadratic == pytest.approx(expected, rel=1e-8)


def test_round_off_has_no_negative_eigenvalues():
    A = tensor(np.ones((5, 3)))
    values, found = ridge_quadratics(gram_of(A), A.T @ tensor(np.ones((5, 1))), [1e-3])
    assert values.min() > 0
    assert found.item() == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_gram_matrices_are_products(transposed):
    A = tensor(np.random.default_rng(0).standard_normal((7, 4)))
    A = A.T if transposed else A
    np.testing.assert_allclose(gram_of(A), A.T @ A, rtol=1e-14, atol=1e-14)
    A.requires_grad_()
    assert gram_of(A).requires_grad
