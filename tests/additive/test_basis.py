"""Products of splines against naive recursions in mpmath; landmarks; columns that are copies."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.additive.basis import AdditiveBasis, Block, Landmarks, distinct_columns, spline_basis
from tests.contracts import BasisContract, same_bits


def naive_bspline(t, knots, i, degree):
    """De Boor's definition; the last interval is closed."""
    if degree == 0:
        last = knots[i + 1] == knots[-1] and knots[i] < knots[i + 1]
        return mpmath.mpf(knots[i] <= t < knots[i + 1] or (last and t == knots[i + 1]))
    value = mpmath.mpf(0)
    if knots[i + degree] > knots[i]:
        share = (t - knots[i]) / (knots[i + degree] - knots[i])
        value += share * naive_bspline(t, knots, i, degree - 1)
    if knots[i + degree + 1] > knots[i + 1]:
        share = (knots[i + degree + 1] - t) / (knots[i + degree + 1] - knots[i + 1])
        value += share * naive_bspline(t, knots, i + 1, degree - 1)
    return value


def naive_slope(t, knots, i):
    value = mpmath.mpf(0)
    if knots[i + 3] > knots[i]:
        value += 3 * naive_bspline(t, knots, i, 2) / (knots[i + 3] - knots[i])
    if knots[i + 4] > knots[i + 1]:
        value -= 3 * naive_bspline(t, knots, i + 1, 2) / (knots[i + 4] - knots[i + 1])
    return value


def naive_power(z, exponent):
    if z < 0:
        return -naive_power(-z, 2 - exponent)
    return mpmath.log(1 + z) if exponent == 0 else ((1 + z) ** exponent - 1) / exponent


def naive_coordinate(column, x):
    z = (x - mpmath.mpf(column.centre)) / mpmath.mpf(column.width)
    t = (naive_power(z, mpmath.mpf(column.exponent)) - column.shift) / mpmath.mpf(column.spread)
    return min(max(t, mpmath.mpf(-4)), mpmath.mpf(4))


def naive_functions(column, x):
    knots = [mpmath.mpf(k) for k in column.knots.tolist()]
    low, high = knots[0], knots[-1]
    t = naive_coordinate(column, x)
    t = min(max(t, low - (high - low) / 2), high + (high - low) / 2)
    inside = min(max(t, low), high)
    n = len(knots) - 4
    values = [
        naive_bspline(inside, knots, i, 3) + (t - inside) * naive_slope(inside, knots, i)
        for i in range(n)
    ]
    return [mpmath.fdot(values, row) for row in column.transform.T.tolist()]


def rows(n=40, d=3, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).random((n, d)))


def small_basis(transform, landmarks=False):
    X = rows() ** 2
    X[:, 2] = X[:, 2].round(decimals=1)
    basis = spline_basis(X, torch.ones(len(X), dtype=torch.float64), 4, transform)
    blocks = [
        Block((0,), (0,), (1,)),
        Block((0,), (1,), (4,)),
        Block((2,), (0,), (2,)),
        Block((0, 1), (0, 0), (2, 3)),
        Block((0, 1, 2), (0, 0, 0), (2, 1, 2)),
    ]
    if not landmarks:
        return basis.with_blocks(blocks)
    scales = torch.linalg.qr(rows(3, 3, 1)).Q * torch.tensor([1.0, 0.5, 0.2]).double()
    block = Landmarks.from_rows(scales, basis.coordinates(X)[:12], 5)
    return basis.with_blocks([*blocks[:2], Block((-1,), (0,), (block.n_columns,))], block)


class TestAdditiveBasis(BasisContract):
    round_offs = 1e5  # B-splines cancel in rough functions.

    @pytest.fixture(params=["plain", "transformed", "landmarks"])
    def basis(self, request):
        return small_basis(request.param == "transformed", request.param == "landmarks")

    def naive(self, basis, x):
        values = [naive_functions(c, x[j]) for j, c in zip(basis.kept, basis.columns, strict=True)]
        result = [mpmath.mpf(1)]
        for block in basis.blocks:
            if block.order == 0:
                result += self.naive_landmarks(basis, x)
                continue
            products = [mpmath.mpf(1)]
            for j, first, last in zip(block.columns, block.first, block.last, strict=True):
                products = [p * values[j][k] for p in products for k in range(first, last)]
            result += products
        return result

    def naive_landmarks(self, basis, x):
        part = basis.landmarks
        t = [naive_coordinate(c, x[j]) for j, c in zip(basis.kept, basis.columns, strict=True)]
        t = [mpmath.fdot(t, column) for column in part.scales.T.tolist()]
        kernel = [
            mpmath.exp(-sum((a - b) ** 2 for a, b in zip(t, point, strict=True)) / 2)
            for point in part.points.tolist()
        ]
        return [mpmath.fdot(kernel, column) for column in part.weights.T.tolist()]

    def test_state_survives_as_arrays(self, basis):
        X = self.points(basis)
        again = AdditiveBasis.from_arrays(basis.arrays(), X)
        assert again.blocks == basis.blocks
        assert same_bits(again.matrix(X), basis.matrix(X))
        assert same_bits(again.partial(X, 1), basis.partial(X, 1))

    def test_points_that_change_are_evaluated_anew(self, basis):
        X = torch.as_tensor(np.random.default_rng(3).random((20, 3)))
        before = basis.matrix(X)
        assert basis.matrix(X) is before
        X *= 0.5
        assert same_bits(basis.matrix(X), basis.matrix(X.clone()))
        assert not same_bits(basis.matrix(X), before)

    def test_gradient_is_made_of_the_derivatives(self, basis):
        X, coef = self.points(basis), torch.linspace(-1, 2, basis.n_columns, dtype=torch.float64)
        expected = torch.stack([basis.partial(X, j) @ coef for j in range(X.shape[1])], 1)
        torch.testing.assert_close(basis.gradient(X, coef), expected, rtol=1e-9, atol=1e-9)


def test_copies_and_constants_have_no_functions():
    X = rows(50, 2)
    ones = torch.ones(50, dtype=torch.float64)
    wide = torch.cat([0 * X[:, :1] + 3, X[:, :1], 5 - 2 * X[:, :1], X[:, 1:], X[:, :1] ** 2], 1)
    assert distinct_columns(wide, ones) == [1, 3, 4]
    basis = spline_basis(wide, ones, 5, True)
    assert basis.kept == (1, 3, 4)
    full = basis.with_blocks([Block((0,), (0,), (1,))])
    assert not full.partial(wide, 2).any()
    assert spline_basis(wide[:, :1], ones, 5, True).matrix(wide[:, :1]).shape == (50, 1)


def test_landmark_columns_reproduce_the_kernel():
    T = rows(30, 2)
    scales = torch.eye(2, dtype=torch.float64) * 2
    block = Landmarks.from_rows(scales, T, 30)
    K = torch.exp(-0.5 * torch.cdist(T @ scales, T @ scales) ** 2)
    F = block.matrix(T)
    np.testing.assert_allclose(F @ F.T, K, atol=1e-8)
    assert Landmarks.from_rows(scales, T, 4).n_columns == 4


def test_a_block_over_all_columns_needs_landmarks():
    basis = AdditiveBasis(2, (0, 1), (), [Block((-1,), (0,), (3,))])
    with pytest.raises(ValueError, match="landmarks"):
        basis.matrix(torch.zeros((4, 2), dtype=torch.float64))
