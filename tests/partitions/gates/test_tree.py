"""Trees of softmax gates against naive loops."""

import pickle

import mpmath
import numpy as np
import pytest
import torch

from skpou.core.polynomials import TotalDegreePolynomials, count_columns
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkBasis
from skpou.partitions.gates.tree import (
    GateLevel,
    PartitionTree,
    RadialQuadratics,
    coordinate_columns,
    gate_basis,
    log_softmax_among_siblings,
    rank_among_siblings,
)
from tests.contracts import BasisContract

# Parents of each level: unequal numbers of children, an only child, and siblings that do not
# lie side by side.
SHAPES = {
    "one": [[0]],
    "flat": [[0, 0, 0, 0]],
    "two": [[0, 0, 0], [2, 0, 1, 0, 0]],
    "three": [[0, 0], [1, 0, 1, 1], [3, 0, 1, 2, 2, 0, 0]],
}


class TestRadialQuadratics(BasisContract):
    @pytest.fixture(params=[0, 1, 2, 5])
    def basis(self, request):
        return gate_basis(request.param, 2, isotropic=True)

    def naive(self, basis, x):
        t = [2 * v - 1 for v in x]
        return [mpmath.mpf(1), *t, mpmath.fsum((3 * v**2 - 1) / 2 for v in t)]


def test_radial_logits_are_quadratics_with_one_curvature():
    X = points(20, 3)
    full, radial = TotalDegreePolynomials(3, 2), RadialQuadratics(3)
    phi = full.matrix(X)
    columns = {tuple(e): phi[:, i] for i, e in enumerate(full.exponents.tolist())}
    expected = columns[2, 0, 0] + columns[0, 2, 0] + columns[0, 0, 2]
    torch.testing.assert_close(radial.matrix(X)[:, -1], expected, rtol=1e-13, atol=1e-14)


def test_radial_gates_make_a_partition_of_unity_with_the_right_slopes():
    rng, X, h = np.random.default_rng(7), points(), 1e-5
    theta = torch.as_tensor(rng.standard_normal((3, 4)))
    gate = GateLevel(torch.zeros(3, dtype=torch.int64), theta, 2, isotropic=True)
    tree = PartitionTree(2, [gate])
    assert (tree.log_proba(X).exp().sum(1) - 1).abs().max() < 1e-14
    for feature in range(2):
        step = h * torch.eye(2, dtype=X.dtype)[feature]
        expected = (tree.log_proba(X + step) - tree.log_proba(X - step)) / (2 * h)
        got = tree.log_proba_partial(X, feature)
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
    again = PartitionTree.from_arrays(2, tree.arrays(), X)
    assert torch.equal(again.log_proba(X), tree.log_proba(X))


def make_tree(name="three", d=2, sharp=(), scale=3.0, dtype=torch.float64, seed=0):
    rng = np.random.default_rng(seed)
    levels = []
    for depth, parent in enumerate(SHAPES[name]):
        degree = 1 + depth % 2
        theta = scale * rng.standard_normal((len(parent), count_columns(d, degree)))
        levels.append(
            GateLevel(
                torch.tensor(parent), torch.as_tensor(theta).to(dtype), degree, depth in sharp
            )
        )
    return PartitionTree(d, levels)


def points(n=9, d=2, dtype=torch.float64, seed=1):
    return torch.as_tensor(np.random.default_rng(seed).random((n, d))).to(dtype)


def naive_gates(tree, x, depth):
    """Softmax among siblings, one point, one partition at a time."""
    gate = tree.levels[depth]
    phi = TotalDegreePolynomials(tree.n_features, gate.degree).matrix(x[None])[0].numpy()
    logits = [float(phi @ row) for row in gate.theta.numpy()]
    parent = gate.parent.tolist()
    result = []
    for j, p in enumerate(parent):
        siblings = [logits[k] for k in range(len(parent)) if parent[k] == p]
        result.append(np.exp(logits[j]) / sum(np.exp(value) for value in siblings))
    return result


def naive_partitions(tree, x, level):
    """Products of gates along the path from the root, Eq. 22."""
    gates = [naive_gates(tree, x, depth) for depth in range(level + 1)]
    result = []
    for j in range(tree.levels[level].n_partitions):
        node, product = j, 1.0
        for depth in reversed(range(level + 1)):
            product *= gates[depth][node]
            node = int(tree.levels[depth].parent[node])
        result.append(product)
    return result


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("d", [0, 1, 3])
def test_partitions_equal_products_of_naive_gates(name, d):
    tree, X = make_tree(name, d), points(d=d)
    for level in range(len(tree.levels)):
        conditional = tree.log_conditional(X, level).exp().numpy()
        pi = tree.log_proba(X, level).exp().numpy()
        np.testing.assert_allclose(conditional, [naive_gates(tree, x, level) for x in X], 1e-12)
        np.testing.assert_allclose(pi, [naive_partitions(tree, x, level) for x in X], 1e-12)
    assert torch.equal(tree.log_proba(X), tree.log_proba(X, len(tree.levels) - 1))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("harden", [False, True])
def test_partition_of_unity_on_every_level(name, dtype, harden):
    tree, X = make_tree(name, sharp=(1,), dtype=dtype), points(50, dtype=dtype)
    eps = torch.finfo(dtype).eps
    for level in range(len(tree.levels)):
        pi = tree.log_proba(X, level, harden).exp()
        assert pi.dtype == dtype
        assert (pi.sum(1) - 1).abs().max() < 20 * eps
        if level:
            # Children share out what their parent has.
            above = tree.log_proba(X, level - 1, harden).exp()
            parts = torch.zeros_like(above).index_add_(1, tree.levels[level].parent, pi)
            assert (parts - above).abs().max() < 20 * eps


def test_log_softmax_among_siblings_against_a_loop():
    rng = np.random.default_rng(2)
    parent = torch.tensor([2, 0, 2, 1, 0, 2])
    logits = torch.as_tensor(5 * rng.standard_normal((4, 6)))
    got = log_softmax_among_siblings(logits, parent)
    for i in range(4):
        for j in range(6):
            siblings = logits[i][parent == parent[j]]
            expected = logits[i, j] - torch.logsumexp(siblings, 0)
            assert abs(float(got[i, j] - expected)) < 1e-14


@pytest.mark.parametrize("name", ["flat", "two", "three"])
@pytest.mark.parametrize("scale", [1e17, 1e100, 1e300])
def test_huge_logits_neither_overflow_nor_lose_unity(name, scale):
    tree, X = make_tree(name), points(50)
    expected = tree.log_proba(X)
    largest = max(float(gate.theta.abs().max()) for gate in tree.levels)
    for gate in tree.levels:
        gate.theta = gate.theta / largest * scale
    log_pi = tree.log_proba(X)
    assert not torch.isnan(log_pi).any()
    pi = log_pi.exp()
    assert (pi.sum(1) - 1).abs().max() < 1e-14
    assert torch.isin(pi, torch.tensor([0.0, 1.0], dtype=pi.dtype)).all()
    # On a single level the choice is still that of the largest logit.
    if name == "flat":
        assert torch.equal(pi.argmax(1), expected.argmax(1))
    for feature in range(2):
        assert not torch.isnan(tree.log_proba_partial(X, feature)).any()


@pytest.mark.parametrize("name", SHAPES)
def test_partial_against_central_differences(name):
    tree, X, h = make_tree(name, scale=1.5), points(), 1e-5
    for level in range(len(tree.levels)):
        for feature in range(2):
            step = torch.zeros(2, dtype=X.dtype)
            step[feature] = h
            ahead, behind = tree.log_proba(X + step, level), tree.log_proba(X - step, level)
            got = tree.log_proba_partial(X, feature, level)
            torch.testing.assert_close(got, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sharp", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_sharp_levels_count_as_constant_in_partial(sharp):
    tree, X = make_tree(sharp=sharp), points()
    constant = make_tree()
    for depth in sharp:
        constant.levels[depth].theta[:, 1:] = 0.0
    for feature in range(2):
        got = tree.log_proba_partial(X, feature)
        expected = constant.log_proba_partial(X, feature)
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
        assert bool(got.any()) == (len(sharp) < 3)


def test_harden_lets_sharp_levels_choose_the_most_probable_child():
    tree, X = make_tree(sharp=(0, 2)), points(60)
    soft = [tree.log_conditional(X, depth).exp().numpy() for depth in range(3)]
    hard = tree.log_proba(X, harden=True).exp().numpy()
    parents = [gate.parent.numpy() for gate in tree.levels]
    for i in range(len(X)):
        chosen = []
        for depth in (0, 2):
            gate = soft[depth][i].copy()
            for p in np.unique(parents[depth]):
                among = np.flatnonzero(parents[depth] == p)
                best = among[np.argmax(gate[among])]
                gate[among] = 0.0
                gate[best] = 1.0
            chosen.append(gate)
        middle = chosen[0][parents[1]] * soft[1][i]
        expected = middle[parents[2]] * chosen[1]
        np.testing.assert_allclose(hard[i], expected, rtol=1e-13, atol=1e-15)


def test_harden_does_nothing_without_sharp_levels():
    tree, X = make_tree(), points()
    assert torch.equal(tree.log_proba(X, harden=True), tree.log_proba(X))


def test_equal_logits_harden_to_the_first_child():
    gate = GateLevel(torch.zeros(3, dtype=torch.int64), torch.zeros((3, 3)), 1, sharp=True)
    hard = PartitionTree(2, [gate]).log_proba(points(dtype=torch.float32), harden=True).exp()
    assert torch.equal(hard, torch.tensor([[1.0, 0.0, 0.0]]).expand(9, 3))


@pytest.mark.parametrize("name", SHAPES)
def test_no_rows_and_one_row(name):
    tree = make_tree(name, sharp=(0,))
    n_leaves = tree.levels[-1].n_partitions
    X = points()
    for harden in (False, True):
        assert tree.log_proba(X[:0], harden=harden).shape == (0, n_leaves)
        full = tree.log_proba(X, harden=harden)
        one = tree.log_proba(X[4:5], harden=harden)
        torch.testing.assert_close(one, full[4:5], rtol=1e-14, atol=1e-14)
    assert tree.log_proba_partial(X[:0], 0).shape == (0, n_leaves)


def test_levels_that_do_not_exist():
    tree = make_tree()
    assert [tree.depth(level) for level in (None, 0, 1, 2)] == [3, 1, 2, 3]
    for level in (-1, 3):
        with pytest.raises(ValueError, match=r"level must lie between 0 and 2\. Got"):
            tree.log_proba(points(), level)


@pytest.mark.parametrize("name", SHAPES)
def test_state_survives_as_arrays(name):
    tree, X = make_tree(name, sharp=(1,)), points()
    arrays = tree.arrays()
    assert all(isinstance(level["theta"], np.ndarray) for level in arrays)
    again = PartitionTree.from_arrays(2, arrays, X)
    assert torch.equal(again.log_proba(X, harden=True), tree.log_proba(X, harden=True))
    assert [gate.sharp for gate in again.levels] == [gate.sharp for gate in tree.levels]
    # The arrays that were given do not become the tree's own memory.
    expected = again.log_proba(X)
    for level in arrays:
        level["theta"][:] = 0.0
    assert torch.equal(again.log_proba(X), expected)
    single = PartitionTree.from_arrays(2, tree.arrays(), X.float())
    assert single.log_proba(X.float()).dtype == torch.float32


# Gates that are networks


def network_tree(architecture="plain", d=2, scale=2.0):
    """Two levels of networks, one for each parent, with unequal numbers of children."""
    rng = np.random.default_rng(3)
    levels = []
    for parent in ([0, 0, 0], [2, 0, 1, 0, 0]):
        network = Network(d, (4, 4), architecture, "sin")
        G = max(parent) + 1
        hidden = torch.as_tensor(rng.standard_normal((G, network.n_parameters)))
        theta = torch.as_tensor(scale * rng.standard_normal((len(parent), network.n_columns)))
        basis = NetworkBasis(network, hidden)
        levels.append(GateLevel(torch.tensor(parent), theta, 0, network=basis))
    return PartitionTree(d, levels)


@pytest.mark.parametrize("architecture", ["plain", "residual"])
def test_network_gates_equal_one_network_at_a_time(architecture):
    tree, X = network_tree(architecture), points()
    log_above = torch.zeros((len(X), 1)).double()
    for depth, gate in enumerate(tree.levels):
        columns = []
        for j, p in enumerate(gate.parent.tolist()):
            own = NetworkBasis(gate.network.network, gate.network.theta[p]).matrix(X)
            siblings = [k for k, q in enumerate(gate.parent.tolist()) if q == p]
            logits = own @ gate.theta[siblings].T
            columns.append(torch.log_softmax(logits, 1)[:, siblings.index(j)])
        log_gate = torch.stack(columns, 1)
        got = tree.log_conditional(X, depth)
        torch.testing.assert_close(got, log_gate, rtol=1e-12, atol=1e-13)
        log_above = log_above[:, gate.parent] + log_gate
        torch.testing.assert_close(tree.log_proba(X, depth), log_above, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("architecture", ["plain", "residual"])
def test_slopes_of_network_gates(architecture):
    tree, X, h = network_tree(architecture), points(), 1e-6
    for feature in range(2):
        step = h * torch.eye(2, dtype=X.dtype)[feature]
        expected = (tree.log_proba(X + step) - tree.log_proba(X - step)) / (2 * h)
        got = tree.log_proba_partial(X, feature)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


def test_network_gates_survive_as_arrays():
    tree, X = network_tree("residual"), points()
    state = pickle.loads(pickle.dumps(tree.arrays()))
    again = PartitionTree.from_arrays(2, state, X)
    assert torch.equal(again.log_proba(X), tree.log_proba(X))
    assert again.levels[1].network.network == tree.levels[1].network.network
    single = PartitionTree.from_arrays(2, state, X.float()).log_proba(X.float())
    assert single.dtype == torch.float32


def test_choice_and_first_soft_level():
    tree, X = make_tree("three", sharp=(0, 1)), points()
    nodes = tree.choose(X)
    assert torch.equal(nodes[2], tree.log_proba(X, harden=True).argmax(1))
    for depth in (1, 2):
        assert torch.equal(nodes[depth - 1], tree.levels[depth].parent[nodes[depth]])
    assert tree.first_soft == 2
    assert make_tree("three", sharp=(0, 1, 2)).first_soft == 3
    assert make_tree("three").first_soft == 0


def test_rank_among_siblings():
    parent = torch.tensor([1, 0, 1, 1, 2, 0])
    assert rank_among_siblings(parent).tolist() == [0, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("d", [0, 1, 2, 4])
@pytest.mark.parametrize("form", [(1, False), (2, False), (2, True)])
def test_coordinate_columns(d, form):
    basis, X = gate_basis(d, *form), points(d=d)
    torch.testing.assert_close(basis.matrix(X)[:, coordinate_columns(basis)], 2 * X - 1)
