"""Units of mixed kinds against naive loops in mpmath and finite differences."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.search.bases.units import KINDS, UnitBasis, UnitColumns, Units
from tests.contracts import BasisContract, ParametricBasisContract, same_bits


def naive_unit(kind, w, b, t):
    if kind in ("tanh", "log_cosh"):
        z = sum((v * s for v, s in zip(w, t)), b)
        return mpmath.tanh(z) if kind == "tanh" else mpmath.log(mpmath.cosh(z))
    z = mpmath.exp(2 * b) * sum((s - v) ** 2 for v, s in zip(w, t))
    return mpmath.exp(-z) if kind == "gaussian" else 1 / (1 + z)


def naive_columns(kinds, weights, biases, x):
    t = [2 * v - 1 for v in x]
    return [
        mpmath.mpf(1),
        *t,
        *(naive_unit(KINDS[k], w, b, t) for k, w, b in zip(kinds, weights, biases)),
    ]


def make_units(kinds, n_features, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((len(kinds), n_features)).astype(np.float32)
    biases = rng.standard_normal(len(kinds)).astype(np.float32)
    kinds = torch.tensor(kinds, dtype=torch.int64)
    return Units(kinds, torch.tensor(weights).double(), torch.tensor(biases).double())


CASES = {
    "all kinds": ([0, 1, 2, 3, 1], 2),
    "one dimension": ([3, 0, 2], 1),
    "none": ([], 2),
}


class TestUnitBasis(BasisContract):
    @pytest.fixture(params=CASES)
    def basis(self, request):
        kinds, d = CASES[request.param]
        return UnitBasis(make_units(kinds, d), d)

    def naive(self, basis, x):
        units = basis.units
        exact = [[mpmath.mpf(v) for v in w] for w in units.weights.tolist()]
        biases = [mpmath.mpf(b) for b in units.biases.tolist()]
        return naive_columns(units.kinds.tolist(), exact, biases, x)

    def test_state_survives_as_arrays(self, basis):
        X = self.points(basis)
        again = UnitBasis.from_arrays(basis.arrays(), X)
        assert same_bits(again.matrix(X), basis.matrix(X))


class TestUnitColumns(ParametricBasisContract):
    @pytest.fixture(params=["all kinds", "one dimension"])
    def case(self, request):
        kinds, d = CASES[request.param]
        X = torch.as_tensor(np.random.default_rng(1).random((5, d)))
        units = make_units(kinds, d)
        return UnitColumns(units.kinds, X), units.theta()

    def naive(self, basis, theta):
        d, kinds = basis.X.shape[1], basis.kinds.tolist()
        weights = [theta[i * d : (i + 1) * d] for i in range(len(kinds))]
        biases = theta[len(kinds) * d :]
        points = [[mpmath.mpf(v) for v in x] for x in basis.X.tolist()]
        return [naive_columns(kinds, weights, biases, x) for x in points]

    def test_rows_are_rows(self, case):
        basis, theta = case
        coef = self.coef(basis, 2)
        some = basis.rows(torch.tensor([3, 1]))
        torch.testing.assert_close(some.matrix(theta), basis.matrix(theta)[[3, 1]])
        expected = basis.jacobian(theta, coef)[[3, 1]]
        torch.testing.assert_close(some.jacobian(theta, coef), expected)


def test_joined_and_selected_units():
    units = make_units([0, 3, 1], 2)
    index = torch.tensor([2, 0])
    joined = units.select(index).join(units.select(torch.tensor([1])))
    assert joined.kinds.tolist() == [1, 0, 3]
    t = torch.as_tensor(np.random.default_rng(2).uniform(-1, 1, (4, 2)))
    torch.testing.assert_close(joined.values(t), units.values(t)[:, [2, 0, 1]])
    again = Units.from_theta(joined.kinds, joined.theta(), 2)
    assert same_bits(again.weights, joined.weights)
