"""Columns of a partition of unity network against naive loops and exact derivatives."""

import mpmath
import numpy as np
import pytest
import torch

from skpou.core.polynomials import TotalDegreePolynomials
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkColumns
from skpou.partitions.gates.products import (
    FixedLogits,
    LinearLogits,
    NetworkLogits,
    PartitionPolynomials,
)
from skpou.partitions.gates.tree import GateForm, GateLevel, PartitionTree
from tests.contracts import ParametricBasisContract, mp_matrix

# Parents of each level: unequal numbers of children, an only child, and siblings that do not
# lie side by side.
SHAPES = {
    "one": [[0]],
    "flat": [[0, 0, 0]],
    "two": [[0, 0], [1, 0, 1, 1]],
    "three": [[0, 0], [1, 0, 1], [2, 0, 1, 2, 1]],
}
LINEAR, QUADRATIC, RADIAL = GateForm(1), GateForm(2), GateForm(2, isotropic=True)
# Shape of the tree, gates of its levels, degree of the polynomials.
CASES = {
    "one": ("one", [LINEAR], 2),
    "flat": ("flat", [QUADRATIC], 1),
    "unequal": ("two", [LINEAR, LINEAR], 1),
    "mixed": ("two", [QUADRATIC, LINEAR], 0),
    "three": ("three", [LINEAR, LINEAR, LINEAR], 1),
    "radial": ("flat", [RADIAL], 2),
    "radial-two": ("two", [RADIAL, RADIAL], 1),
}


def points(n=5, d=2):
    return torch.as_tensor(np.random.default_rng(1).random((n, d)))


def make_basis(shape, forms, degree, X=None, d=2):
    X = points(d=d) if X is None else X
    features = [form.basis(X.shape[1]).matrix(X) for form in forms]
    phi = TotalDegreePolynomials(X.shape[1], degree).matrix(X)
    parents = [torch.tensor(parent) for parent in SHAPES[shape]]
    return PartitionPolynomials.of_features(phi, features, parents)


def make_theta(basis, scale=2.0, seed=0):
    return torch.as_tensor(scale * np.random.default_rng(seed).standard_normal(basis.n_parameters))


class PartitionPolynomialsContract(ParametricBasisContract):
    def naive(self, basis, theta):
        n, P = basis.polynomials.shape
        phi = mp_matrix(basis.polynomials)
        above, start = [[mpmath.mpf(1)] for _ in range(n)], 0
        for features, parent in zip(
            [part.features for part in basis.logits], basis.parents, strict=True
        ):
            parent, q, x = parent.tolist(), features.shape[1], mp_matrix(features)
            rows = []
            for i in range(n):
                powers = []
                for k in range(len(parent)):
                    own = theta[start + k * q : start + (k + 1) * q]
                    powers.append(mpmath.exp(mpmath.fsum(x[i, j] * own[j] for j in range(q))))
                row = []
                for k, p in enumerate(parent):
                    siblings = mpmath.fsum(powers[s] for s in range(len(parent)) if parent[s] == p)
                    row.append(above[i][p] * powers[k] / siblings)
                rows.append(row)
            above, start = rows, start + len(parent) * q
        return [[pi * phi[i, j] for pi in above[i] for j in range(P)] for i in range(n)]


class TestPartitionPolynomials(PartitionPolynomialsContract):
    @pytest.fixture(params=CASES)
    def case(self, request):
        basis = make_basis(*CASES[request.param])
        return basis, make_theta(basis)


class TestVanishingParent(PartitionPolynomialsContract):
    """One or both of the first level's gates fall below what a number can hold."""

    @pytest.fixture(params=[-700.0, -720.0, -745.0, -2000.0, -1e9])
    def case(self, request):
        basis = make_basis(*CASES["three"])
        theta = make_theta(basis)
        theta[0] = request.param
        return basis, theta

    def test_derivatives_below_the_parent_vanish_with_it(self, case):
        basis, theta = case
        jacobian = basis.jacobian(theta, self.coef(basis))
        first, second, _ = basis.split(torch.arange(basis.n_parameters))
        for dead in (first.reshape(-1), second[basis.parents[1] == 0].reshape(-1)):
            assert jacobian[..., dead].abs().max() < 1e-290
        assert jacobian[..., second[basis.parents[1] == 1].reshape(-1)].abs().max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_partitions_are_those_of_the_tree(name):
    shape, forms, degree = CASES[name]
    basis, X = make_basis(shape, forms, degree), points()
    theta = make_theta(basis)
    gates = [
        GateLevel(parent, part, form.degree, False, form.isotropic)
        for parent, part, form in zip(basis.parents, basis.split(theta), forms, strict=True)
    ]
    tree = PartitionTree(2, gates)
    levels = basis.partitions(theta)
    assert len(levels) == len(gates)
    for depth, pi in enumerate(levels):
        torch.testing.assert_close(pi, tree.log_proba(X, depth).exp(), rtol=1e-13, atol=1e-15)
        assert (pi.sum(1) - 1).abs().max() < 1e-14


def test_theta_holds_levels_and_then_rows():
    basis = make_basis("two", [QUADRATIC, LINEAR], 1)
    assert basis.n_leaves == 4
    assert basis.n_columns == 4 * 3
    assert basis.n_parameters == 2 * 6 + 4 * 3
    first, second = basis.split(torch.arange(24.0))
    assert torch.equal(first, torch.arange(12.0).reshape(2, 6))
    assert torch.equal(second, torch.arange(12.0, 24.0).reshape(4, 3))


@pytest.mark.parametrize("name", CASES)
def test_one_vector_for_all_siblings_changes_nothing(name):
    basis = make_basis(*CASES[name])
    theta, rng = make_theta(basis), np.random.default_rng(3)
    coef = torch.as_tensor(rng.standard_normal((basis.n_columns, 2)))
    matrix, jacobian = basis.matrix(theta), basis.jacobian(theta, coef)
    for depth, parent in enumerate(basis.parents):
        for family in range(int(parent.max()) + 1):
            direction = torch.zeros_like(theta)
            part = basis.split(direction)[depth]  # a view
            common = torch.as_tensor(rng.standard_normal(part.shape[1]))
            part[parent == family] = common
            assert direction.any()
            torch.testing.assert_close(
                basis.matrix(theta + 5 * direction), matrix, rtol=1e-12, atol=1e-13
            )
            assert (jacobian @ direction).abs().max() < 1e-13 * max(1, jacobian.abs().max())


def test_a_column_of_partitions_adds_up_to_its_polynomial():
    basis = make_basis("three", [LINEAR] * 3, 2)
    A = basis.matrix(make_theta(basis)).reshape(5, 5, 6)
    torch.testing.assert_close(A.sum(1), basis.polynomials, rtol=1e-13, atol=1e-14)
    # A common expert for all leaves is a polynomial whatever the gates: nothing to move.
    common = torch.as_tensor(np.random.default_rng(2).standard_normal((6, 1))).repeat(5, 1)
    assert basis.jacobian(make_theta(basis), common).abs().max() < 1e-13


@pytest.mark.parametrize("n", [0, 1])
def test_no_rows_and_one_row(n):
    full, some = (make_basis("two", [LINEAR, RADIAL], 1, points()[:k]) for k in (5, n))
    theta = make_theta(full)
    coef = torch.ones((full.n_columns, 2), dtype=theta.dtype)
    torch.testing.assert_close(some.matrix(theta), full.matrix(theta)[:n])
    torch.testing.assert_close(some.jacobian(theta, coef), full.jacobian(theta, coef)[:n])


def test_single_precision_stays_single():
    double = make_basis("two", [LINEAR, LINEAR], 1)
    single = make_basis("two", [LINEAR, LINEAR], 1, points().float())
    theta = make_theta(double)
    coef = torch.as_tensor(np.random.default_rng(2).standard_normal((double.n_columns, 1)))
    got = single.jacobian(theta.float(), coef.float())
    assert got.dtype == single.matrix(theta.float()).dtype == torch.float32
    torch.testing.assert_close(got.double(), double.jacobian(theta, coef), rtol=1e-4, atol=1e-4)


def with_networks(architecture="plain", activation="tanh", levels=1):
    """Columns whose first level's logits are networks; a second level is linear."""
    X = points(7)
    network = Network(2, (3, 3), architecture, activation)
    phi = TotalDegreePolynomials(2, 1).matrix(X)
    logits = [
        NetworkLogits(NetworkColumns(network, X), 3),
        LinearLogits(LINEAR.basis(2).matrix(X), 4),
    ]
    parents = [torch.tensor([0, 0, 0]), torch.tensor([1, 0, 2, 1])]
    return PartitionPolynomials(phi, logits[:levels], parents[:levels])


def by_autograd(basis, theta, coef):
    return torch.autograd.functional.jacobian(lambda t: basis.matrix(t) @ coef, theta)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "relu", "sin"])
@pytest.mark.parametrize("architecture", ["plain", "residual"])
def test_jacobian_through_networks(architecture, activation, levels):
    basis = with_networks(architecture, activation, levels)
    theta = make_theta(basis, 0.7)
    coef = torch.as_tensor(np.random.default_rng(1).standard_normal((basis.n_columns, 2)))
    expected = by_autograd(basis, theta, coef)
    torch.testing.assert_close(basis.jacobian(theta, coef), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("basis", [with_networks(levels=2), make_basis(*CASES["three"])])
def test_gradient_is_the_transposed_jacobian(basis):
    rng = np.random.default_rng(2)
    theta, n = make_theta(basis, 0.7), len(basis.polynomials)
    coef = torch.as_tensor(rng.standard_normal((basis.n_columns, 2)))
    cotangent = torch.as_tensor(rng.standard_normal((n, 2)))
    expected = torch.einsum("nm,nmk->k", cotangent, basis.jacobian(theta, coef))
    found = basis.gradient(theta, coef, cotangent)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_rows_are_those_of_the_whole():
    basis, index = with_networks(levels=2), torch.tensor([5, 0, 2])
    theta = make_theta(basis)
    whole, part = basis.matrix(theta), basis.rows(index).matrix(theta)
    torch.testing.assert_close(part, whole[index], rtol=1e-14, atol=1e-15)


def test_one_level_is_no_other_case():
    quick = make_basis("flat", [QUADRATIC], 1)
    basis = make_basis("flat", [QUADRATIC], 1)
    basis._flat = False
    theta = make_theta(basis)
    coef = torch.as_tensor(np.random.default_rng(2).standard_normal((basis.n_columns, 2)))
    assert torch.allclose(quick.matrix(theta), basis.matrix(theta), rtol=1e-13, atol=1e-15)
    slopes, expected = quick.jacobian(theta, coef), basis.jacobian(theta, coef)
    assert torch.allclose(slopes, expected, rtol=1e-12, atol=1e-13)


def test_partitions_that_are_kept_follow_parameters_that_change_in_place():
    basis = make_basis("flat", [LINEAR], 1)
    theta = make_theta(basis)
    before = basis.matrix(theta)
    theta += 1.0 + torch.arange(len(theta), dtype=theta.dtype)
    after = basis.matrix(theta)
    assert not torch.allclose(before, after)
    assert torch.equal(after, make_basis("flat", [LINEAR], 1).matrix(theta))


@pytest.mark.parametrize("n_held", [1, 2])
def test_held_logits_stay_and_those_below_move_as_before(n_held):
    free, rng = make_basis(*CASES["three"]), np.random.default_rng(4)
    theta = make_theta(free)
    start = sum(part.n_parameters for part in free.logits[:n_held])
    parts = [part.reshape(-1) for part in free.split(theta)]
    fixed = [
        FixedLogits(logits.values(part))
        for logits, part in zip(free.logits[:n_held], parts[:n_held], strict=True)
    ]
    basis = PartitionPolynomials(free.polynomials, fixed + free.logits[n_held:], free.parents)
    assert basis.n_parameters == free.n_parameters - start
    own, coef = theta[start:], torch.as_tensor(rng.standard_normal((free.n_columns, 2)))
    cotangent = torch.as_tensor(rng.standard_normal((len(free.polynomials), 2)))
    torch.testing.assert_close(basis.matrix(own), free.matrix(theta))
    torch.testing.assert_close(basis.jacobian(own, coef), free.jacobian(theta, coef)[..., start:])
    torch.testing.assert_close(
        basis.gradient(own, coef, cotangent), free.gradient(theta, coef, cotangent)[start:]
    )
    some = torch.tensor([4, 1])
    torch.testing.assert_close(basis.rows(some).matrix(own), free.matrix(theta)[some])
