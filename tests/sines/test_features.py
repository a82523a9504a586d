"""Sine features against naive loops in mpmath."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.sines.features import SineFeatures
from tests.contracts import EPS, BasisContract, same_bits


def features(n_features, n_sines, degree=1, size=5.0, seed=0):
    rng = np.random.default_rng(seed)
    frequencies = rng.uniform(-size, size, (n_sines, n_features)).astype(np.float32)
    phases = rng.uniform(0, np.pi, n_sines).astype(np.float32)
    return SineFeatures(torch.tensor(frequencies).double(), torch.tensor(phases).double(), degree)


#: Other numbers of rows round the product of points and frequencies, the arguments of the sines,
#: otherwise. They reach 35, and a partial derivative has a frequency, up to 10, as a factor.
ROW_ATOL = 35 * 10 * EPS[torch.float64]


class TestSineFeatures(BasisContract):
    row_atol = ROW_ATOL

    @pytest.fixture(params=[(1, 3), (2, 4), (3, 1), (2, 0), (1, 2, 3), (2, 3, 3)], ids=str)
    def basis(self, request):
        return features(*request.param)

    def naive(self, basis, x):
        t, unit = [2 * v - 1 for v in x], mpmath.sqrt(max(2 * len(basis.phases), 1))
        angles = [
            sum((mpmath.mpf(a) * b for a, b in zip(w, t)), mpmath.mpf(p))
            for w, p in zip(basis.frequencies.tolist(), basis.phases.tolist())
        ]
        affine = [unit, *(unit * v for v in t)]
        for exponents in basis.polynomials.exponents[1 + len(t) :]:
            factors = [mpmath.legendre(int(e), v) for e, v in zip(exponents, t)]
            affine.append(unit * mpmath.fprod(factors))
        return affine + [mpmath.sin(a) for a in angles] + [mpmath.cos(a) for a in angles]

    def test_state_survives_as_arrays(self, basis):
        X = self.points(basis)
        again = SineFeatures.from_arrays(basis.arrays(), X)
        assert same_bits(again.matrix(X), basis.matrix(X))


def test_precise_features_are_right_to_the_last_digit_at_large_angles():
    """Angles of 300 lose two digits to rounding; their sines do not need to."""
    rough = features(2, 12, size=300.0)
    X = torch.tensor(np.random.default_rng(1).random((9, 2)))
    with mpmath.workdps(30):
        exact = np.array([TestSineFeatures.naive(None, rough, x) for x in X.tolist()], dtype=float)
    assert np.abs(rough.matrix(X).numpy() - exact)[:, 3:].max() > 1e-14
    precise = rough.precise()
    np.testing.assert_allclose(precise.matrix(X).numpy(), exact, rtol=0, atol=3e-15)
    np.testing.assert_allclose(precise.matrix(X).numpy()[:, 3:], exact[:, 3:], rtol=0, atol=3e-16)
    assert same_bits(rough.derivative(X, (0,)), rough.partial(X, 0))


def test_several_derivatives_at_once_are_those_one_by_one():
    basis = features(2, 5)
    X = torch.tensor(np.random.default_rng(2).random((7, 2)))
    orders = [(), (1,), (0, 1), (1, 1, 1)]
    for found, coordinates in zip(basis.derivatives(X, orders), orders, strict=True):
        assert same_bits(found, basis.derivative(X, coordinates))
    assert same_bits(basis.derivatives(X, orders)[0], basis.matrix(X))
