"""Units of mixed kinds against naive loops in mpmath and finite differences."""

import mpmath
import numpy as np
import pytest
import torch

from skpou import LSGDRegressor
from skpou.search.bases.units import KINDS, UnitBasis, UnitColumns, Units
from tests.contracts import BasisContract, ParametricBasisContract, same_bits
from tests.examples import tensor


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


ONE = tensor([1.0])


def steep(kind, slope=400.0):
    """One unit that bends at t = 0.03, and equidistant points t."""
    units = Units(torch.tensor([kind]), tensor([[slope]]), tensor([-0.03 * slope]))
    return units, tensor(np.linspace(-1, 1, 21))[:, None]


@pytest.mark.parametrize("kind", [0, 1])
def test_gap_of_a_bend_that_no_row_sees(kind):
    units, t = steep(kind)
    gap = units.gaps(t, ONE, 1e-9)
    np.testing.assert_allclose(gap, [[400 * (0 - 0.03), 400 * (0.1 - 0.03)]])
    # Rows that see the bend tell its place.
    assert not steep(kind, 10.0)[0].gaps(t, ONE, 1e-9).any()
    # Beyond the rows there is none.
    assert not units.gaps(t[:5], ONE, 1e-9).any()


def test_a_step_may_be_anywhere_between_two_rows():
    units, t = steep(0)
    gap, x = (
        units.gaps(t, ONE, 1e-9),
        tensor([[0.0], [0.02], [0.031], [0.09], [0.1]]),
    )
    place = np.random.default_rng(0).uniform(0, 0.1, 100_000)
    others = np.where(x.numpy() > place, 1.0, -1.0)
    expected = ((others - units.values(x).numpy()) ** 2).mean(1)
    np.testing.assert_allclose(units.unresolved(x, gap)[:, 0], expected, atol=0.03)
    assert units.unresolved(t, gap).max() < 1e-6


def test_a_kink_may_be_round_or_sharp():
    units, t = steep(1)
    gap, x = (
        units.gaps(t, ONE, 1e-9),
        tensor([[0.03], [0.031], [0.09]]),
    )
    sharp = np.abs(400 * (x.numpy() - 0.03)) - np.log(2)
    found = units.unresolved(x, gap).sqrt()
    np.testing.assert_allclose(found, np.abs(units.values(x).numpy() - sharp), atol=1e-12)


def test_bars_know_of_a_kink_between_rows():
    X, query = np.linspace(-1, 1, 21)[:, None], np.linspace(-1, 1, 2001)[:, None]
    model = LSGDRegressor().fit(X, np.abs(X[:, 0] - 0.23))
    mean, std = model.predict(query, return_std=True)
    error = np.abs(mean - np.abs(query[:, 0] - 0.23))
    assert np.mean(error <= 3 * std + 1e-12) >= 0.97
    assert np.sqrt(np.mean(std**2)) >= np.sqrt(np.mean(error**2)) / 3


def test_values_and_derivatives_of_several_parameters_in_turn():
    kinds, X = torch.tensor([0, 1, 2, 3, 1]), tensor(np.random.default_rng(0).random((20, 2)))
    columns, coef = UnitColumns(kinds, X), torch.ones(8, 1, dtype=torch.float64)
    thetas = [make_units(kinds.tolist(), 2, seed).theta() for seed in (0, 1)]
    for theta in (*thetas, thetas[0]):
        fresh = UnitColumns(kinds, X)
        assert torch.equal(columns.matrix(theta), fresh.matrix(theta))
        assert torch.equal(columns.jacobian(thetas[1], coef), fresh.jacobian(thetas[1], coef))
