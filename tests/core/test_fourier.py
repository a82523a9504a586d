"""Products of sines and cosines of bounded total frequency."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.core import FourierProducts, count_waves
from tests.contracts import BasisContract

CASES = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 4), (2, 1), (2, 3), (3, 2), (5, 1)]


class TestFourierProducts(BasisContract):
    @pytest.fixture(params=CASES, ids=str)
    def basis(self, request):
        return FourierProducts(*request.param)

    def naive(self, basis, x):
        waves = [
            [mpmath.mpf(1)]
            + [
                wave(mpmath.pi * k * v)
                for k in range(1, basis.degree + 1)
                for wave in (mpmath.sin, mpmath.cos)
            ]
            for v in x
        ]
        return [
            mpmath.fprod(waves[j][f] for j, f in enumerate(row)) for row in basis.factors.tolist()
        ]


@pytest.mark.parametrize(("d", "degree"), CASES)
def test_columns_are_counted_and_a_lower_degree_is_a_prefix(d, degree):
    basis = FourierProducts(d, degree)
    assert basis.n_columns == count_waves(d, degree) == len(np.unique(basis.factors, axis=0))
    total = ((basis.factors + 1) // 2).sum(1)
    assert (np.diff(total) >= 0).all() and total.max(initial=0) <= degree
    lower = FourierProducts(d, max(degree - 1, 0))
    np.testing.assert_array_equal(basis.factors[: lower.n_columns], lower.factors)


def test_waves_are_orthogonal_over_their_period_of_two_boxes():
    axis = torch.arange(16, dtype=torch.float64) / 8
    basis = FourierProducts(2, 3)
    columns = basis.matrix(torch.cartesian_prod(axis, axis))
    gram = columns.T @ columns / 256
    expected = 0.5 ** (basis.factors > 0).sum(1)
    np.testing.assert_allclose(gram, np.diag(expected), atol=1e-14)


def test_function_that_is_not_periodic_in_the_box_is_met():
    """By Fourier extension the error falls as (3 + sqrt(8))^-m (Huybrechs 2010)."""
    x = torch.linspace(0, 1, 200, dtype=torch.float64)[:, None]
    middle = (x[1:] + x[:-1]) / 2
    errors = []
    for degree in (2, 4, 6, 8):
        basis = FourierProducts(1, degree)
        coef = torch.linalg.lstsq(basis.matrix(x), torch.exp(x), driver="gelsd").solution
        errors.append(float((basis.matrix(middle) @ coef - torch.exp(middle)).abs().max()))
    assert max(np.array(errors[1:]) / errors[:-1]) < 0.1
    assert errors[-1] < (3 + 8**0.5) ** -8
