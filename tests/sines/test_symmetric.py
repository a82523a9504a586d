"""Symmetric sine features: their symmetries, against the naive parts, and all derivatives."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.sines.features import SineFeatures
from skpou.sines.symmetric import Mirror, SymmetricFeatures
from tests.contracts import BasisContract, same_bits
from tests.sines.test_features import ROW_ATOL, features
from tests.sines.test_features import TestSineFeatures as Sines


class TestSymmetricFeatures(BasisContract):
    row_atol = ROW_ATOL

    @pytest.fixture(
        params=[
            (1, [Mirror(0, 0.5, -1)], {}),
            (2, [Mirror(1, 0.25, 1)], {}),
            (2, [Mirror(0, 0.5, -1), Mirror(1, 0.5, 1)], {}),
            (2, [], {0: 0.75}),
            (2, [Mirror(1, 0.5, -1)], {0: 1.0}),
        ],
        ids=str,
    )
    def basis(self, request):
        d, mirrors, periods = request.param
        basis = SymmetricFeatures.draw(features(d, 4), mirrors, periods)
        basis.periods = periods
        return basis

    def naive(self, basis, x, mirrors=None):
        mirrors = basis.mirrors if mirrors is None else mirrors
        if not mirrors:
            all_of = Sines.naive(None, basis.base, x)
            return [all_of[i] for i in basis.columns.tolist()]
        mirror, *others = mirrors
        there = list(x)
        there[mirror.feature] = 2 * mpmath.mpf(mirror.center) - x[mirror.feature]
        pairs = zip(self.naive(basis, x, others), self.naive(basis, there, others))
        return [(a + mirror.sign * b) / 2 for a, b in pairs]

    def test_symmetries_hold(self, basis):
        X = self.points(basis)
        for mirror in basis.mirrors:
            there = X.clone()
            there[:, mirror.feature] = 2 * mirror.center - X[:, mirror.feature]
            torch.testing.assert_close(basis.matrix(there), mirror.sign * basis.matrix(X))
        for feature, period in basis.periods.items():
            there = X.clone()
            there[:, feature] += period
            torch.testing.assert_close(basis.matrix(there), basis.matrix(X), rtol=0, atol=1e-12)

    def test_state_survives_as_arrays(self, basis):
        X = self.points(basis)
        again = SymmetricFeatures.from_arrays(basis.arrays(), X)
        assert same_bits(again.matrix(X), basis.matrix(X))


@pytest.mark.parametrize(
    "coordinates", [(), (0,), (1, 1), (0, 1), (0, 0, 1), (0, 1, 1, 1)], ids=str
)
def test_derivatives_of_any_order(coordinates):
    base = features(2, 3)
    for basis in (base, SymmetricFeatures.draw(base, [Mirror(1, 0.5, -1)], {})):
        X = torch.tensor(np.random.default_rng(1).random((5, 2)), requires_grad=True)
        columns = basis.matrix(X)
        for j in coordinates:
            options = {"create_graph": True, "allow_unused": True}
            found = [torch.autograd.grad(c.sum(), X, **options)[0] for c in columns.unbind(1)]
            columns = torch.stack([0 * X[:, j] if f is None else f[:, j] for f in found], 1)
        got = basis.derivative(X.detach(), coordinates)
        torch.testing.assert_close(got, columns.detach(), rtol=1e-11, atol=1e-9)


def test_bases_without_higher_derivatives_say_so():
    from skpou.core.polynomials import TotalDegreePolynomials

    basis, X = TotalDegreePolynomials(1, 2), torch.rand(3, 1, dtype=torch.float64)
    assert same_bits(basis.derivative(X, (0,)), basis.partial(X, 0))
    with pytest.raises(NotImplementedError, match=r"TotalDegreePolynomials .*order 2"):
        basis.derivative(X, (0, 0))


def test_arrays_are_those_of_the_base():
    basis = SymmetricFeatures.draw(features(1, 2), [Mirror(0, 0.5, 1)], {})
    assert isinstance(basis.base, SineFeatures)
    assert basis.n_columns == 4  # 1, t and one function for each frequency
