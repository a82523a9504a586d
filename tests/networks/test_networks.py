"""Networks against naive loops in mpmath, finite differences and automatic differentiation."""

import pickle

import mpmath
import numpy as np
import pytest
import torch

from skpou.networks.architecture import ACTIVATIONS, Network
from skpou.networks.basis import NetworkBasis, NetworkColumns
from tests.contracts import DTYPES, BasisContract, ParametricBasisContract, mp_matrix

CASES = {
    "shallow": Network(2, (4,)),
    "narrow": Network(1, (1, 1), "residual", "relu"),
    "unequal": Network(2, (4, 2, 3), "plain", "tanh"),
    "relu": Network(2, (3, 3), "plain", "relu"),
    "residual": Network(2, (3, 3, 3), "residual", "tanh"),
    "residual-relu": Network(3, (3, 3), "residual", "relu"),
    "sin": Network(1, (3, 2), "plain", "sin"),
    "residual-sin": Network(1, (2, 2, 2), "residual", "sin"),
    "no-features": Network(0, (2, 2)),
}
NAIVE = {"tanh": mpmath.tanh, "relu": lambda z: max(z, mpmath.mpf(0)), "sin": mpmath.sin}


def make_theta(network, n_networks=None, scale=1.0, seed=0):
    """Parameters that float32 holds exactly, so that both precisions mean the same network."""
    leading = () if n_networks is None else (n_networks,)
    values = np.random.default_rng(seed).standard_normal((*leading, network.n_parameters))
    return torch.as_tensor(scale * values).float().double()


def points(n=5, d=2, seed=1):
    return torch.as_tensor(np.random.default_rng(seed).random((n, d)))


def naive_columns(network, theta, x):
    """The constant and the units at one point, one unit and one weight at a time."""
    h, start = list(x), 0
    for depth, width in enumerate(network.hidden_layer_sizes):
        units = []
        biases = start + width * len(h)
        for i in range(width):
            z = theta[biases + i]
            for j in range(len(h)):
                z = z + theta[start + i * len(h) + j] * h[j]
            value = NAIVE[network.activation](z)
            added = network.architecture == "residual" and depth > 0
            units.append(h[i] + value if added else value)
        h, start = units, biases + width
    return [mpmath.mpf(1), *h]


class TestNetworkBasis(BasisContract):
    @pytest.fixture(params=CASES)
    def basis(self, request):
        return NetworkBasis(CASES[request.param], make_theta(CASES[request.param]))

    def naive(self, basis, x):
        theta = [mpmath.mpf(v) for v in basis.theta.tolist()]
        return naive_columns(basis.network, theta, x)


class TestNetworkColumns(ParametricBasisContract):
    @pytest.fixture(params=CASES)
    def case(self, request):
        network = CASES[request.param]
        return NetworkColumns(network, points(d=network.n_features)), make_theta(network)

    def naive(self, basis, theta):
        X = basis.X.tolist()
        rows = [[mpmath.mpf(v) for v in x] for x in X]
        return [naive_columns(basis.network, theta, x) for x in rows]

    @pytest.mark.parametrize("m", [1, 3])
    def test_products_equal_those_of_the_jacobian(self, case, m):
        basis, theta = case
        coef = self.coef(basis, m)
        J = basis.jacobian(theta, coef).reshape(len(basis.X) * m, -1)
        v = torch.as_tensor(np.random.default_rng(5).standard_normal((len(basis.X), m)))
        self.assert_close(basis.gram(theta, coef), (J @ J.T).numpy())
        self.assert_close(basis.gradient(theta, coef, v), (J.T @ v.reshape(-1)).numpy())

    def test_outputs_run_fastest_in_the_gram_matrix(self, case):
        basis, theta = case
        coef = self.coef(basis, 2)
        both = basis.gram(theta, coef)
        for j in range(2):
            alone = basis.gram(theta, coef[:, j : j + 1])
            self.assert_close(both[j::2, j::2], alone.numpy())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations(name):
    activation = ACTIVATIONS[name]
    z = torch.linspace(-3, 3, 41, dtype=torch.float64)[1::2].requires_grad_()
    value = activation.value(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    torch.testing.assert_close(activation.slope(z, value), slope)
    curvature = torch.zeros_like(z)
    if slope.requires_grad and name != "relu":
        (curvature,) = torch.autograd.grad(slope.sum(), z)
    torch.testing.assert_close(activation.curvature(z, value), curvature)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_equal_automatic_ones(name):
    network = CASES[name]
    X, theta = points(d=network.n_features), make_theta(network)
    coef = torch.as_tensor(np.random.default_rng(2).standard_normal((network.n_columns, 2)))
    expected = torch.autograd.functional.jacobian(lambda t: network.forward(t, X) @ coef, theta)
    got = NetworkColumns(network, X).jacobian(theta, coef)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    for j in range(network.n_features):
        direction = torch.zeros_like(X)
        direction[:, j] = 1.0
        _, expected = torch.autograd.functional.jvp(
            lambda X: network.forward(theta, X), X, direction
        )
        torch.testing.assert_close(network.partial(theta, X, j), expected)


@pytest.mark.parametrize("name", CASES)
def test_several_networks_equal_each_alone(name):
    network = CASES[name]
    theta = make_theta(network, 3)
    own = torch.stack([points(d=network.n_features, seed=seed) for seed in range(3)])
    common = own[0]
    for X, of in ((common, lambda g: common), (own, lambda g: own[g])):
        got = network.forward(theta, X)
        assert got.shape == (3, 5, network.n_columns)
        for g in range(3):
            torch.testing.assert_close(got[g], network.forward(theta[g], of(g)))
        for j in range(network.n_features):
            got = network.partial(theta, X, j)
            for g in range(3):
                torch.testing.assert_close(got[g], network.partial(theta[g], of(g), j))
    basis = NetworkBasis(network, theta)
    assert basis.matrix(common).shape == (3, 5, network.n_columns)
    assert basis.matrix(common[:0]).shape == (3, 0, network.n_columns)


def test_gradients_flow_to_several_networks_at_once():
    network = CASES["residual"]
    theta = make_theta(network, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: network.forward(t, points()), (theta,))
    network.forward(theta, points())[0].sum().backward()
    assert theta.grad[0].any() and not theta.grad[1].any()


def test_layout_of_theta():
    network = Network(2, (3, 1), "plain")
    assert network.shapes == [(3, 2), (1, 3)]
    assert (network.n_parameters, network.n_columns) == (3 * 2 + 3 + 3 + 1, 2)
    theta = torch.arange(13.0)
    (W1, b1), (W2, b2) = network.unflatten(theta)
    assert W1.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (b1.tolist(), W2.tolist(), b2.tolist()) == ([6, 7, 8], [[9, 10, 11]], [12])
    W1[0, 0] = -1.0
    assert theta[0] == -1.0, "the parts are views"
    several = network.unflatten(theta.repeat(4, 1))
    assert [(W.shape, b.shape) for W, b in several] == [((4, 3, 2), (4, 3)), ((4, 1, 3), (4, 1))]


def test_first_column_is_the_constant_and_residual_layers_add():
    X = points()
    for network in CASES.values():
        if network.n_features == 2:
            assert (network.forward(make_theta(network), X)[:, 0] == 1).all()
    deep = Network(2, (3, 3), "residual", "tanh")
    theta = make_theta(deep)
    # A second layer of zeros adds nothing in a residual network; a plain one ends in zeros.
    theta[9:] = 0.0
    first = Network(2, (3,)).forward(theta[:9], X)
    assert torch.equal(deep.forward(theta, X), first)
    assert not Network(2, (3, 3)).forward(theta, X)[:, 1:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("m", [1, 2])
def test_no_rows_and_one_row(n, m, dtype):
    network = CASES["residual"]
    theta, X = make_theta(network).to(dtype), points().to(dtype)
    coef = torch.ones((network.n_columns, m), dtype=dtype)
    full, some = NetworkColumns(network, X), NetworkColumns(network, X[:n])
    torch.testing.assert_close(some.matrix(theta), full.matrix(theta)[:n])
    torch.testing.assert_close(some.jacobian(theta, coef), full.jacobian(theta, coef)[:n])
    torch.testing.assert_close(
        some.gram(theta, coef), full.gram(theta, coef)[: n * m, : n * m], rtol=1e-5, atol=1e-5
    )
    gradient = some.gradient(theta, coef, coef.new_ones((n, m)))
    torch.testing.assert_close(
        gradient, some.jacobian(theta, coef).sum((0, 1)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_single_precision_stays_single(name):
    network = CASES[name]
    theta, X = make_theta(network), points(d=network.n_features)
    coef = torch.as_tensor(np.random.default_rng(2).standard_normal((network.n_columns, 2)))
    v = torch.ones((5, 2), dtype=X.dtype)
    double, single = NetworkColumns(network, X), NetworkColumns(network, X.float())
    results = [
        [c.matrix(t), c.jacobian(t, k), c.gram(t, k), c.gradient(t, k, u)]
        for c, t, k, u in (
            (double, theta, coef, v),
            (single, theta.float(), coef.float(), v.float()),
        )
    ]
    for expected, got in zip(*results, strict=True):
        assert got.dtype == torch.float32
        error = (got.double() - expected).abs().max()
        assert error < 1e-5 * max(1, expected.abs().max())


def test_network_describes_itself():
    network = Network(2, [3, np.int64(3)], "residual", "sin")
    assert network == Network(2, (3, 3), "residual", "sin")
    assert len({network, pickle.loads(pickle.dumps(network))}) == 1
    with pytest.raises(AttributeError):
        network.activation = "relu"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, ()), ["hidden_layer_sizes", "()"]),
        ((2, (3, 0)), ["hidden_layer_sizes", "(3, 0)"]),
        ((2, (3, -1)), ["hidden_layer_sizes", "(3, -1)"]),
        ((2, (3, 2.5)), ["hidden_layer_sizes", "2.5"]),
        ((2, (True,)), ["hidden_layer_sizes", "True"]),
        ((2, 20), ["hidden_layer_sizes", "20"]),
        ((2, "33"), ["hidden_layer_sizes", "'33'"]),
        ((2, (3, 4), "residual"), ["hidden_layer_sizes", "equal", "residual", "(3, 4)"]),
        ((-1, (3,)), ["n_features", "-1"]),
        ((1.0, (3,)), ["n_features", "1.0"]),
        ((2, (3,), "dense"), ["architecture", "plain, residual", "'dense'"]),
        ((2, (3,), "plain", "gelu"), ["activation", "tanh, relu, sin", "'gelu'"]),
    ],
)
def test_bad_descriptions(arguments, words):
    with pytest.raises(ValueError) as error:
        Network(*arguments)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("shape", [(12,), (14,), (13, 2), ()])
def test_theta_of_wrong_length(shape):
    with pytest.raises(ValueError, match=r"theta must have 13 entries.*Got shape"):
        Network(2, (3, 1)).forward(torch.zeros(shape), points().float())


def test_naive_columns_agree_with_numpy():
    """The reference itself, against two lines of matrix products."""
    network = CASES["residual"]
    theta, X = make_theta(network), points()
    h = X.numpy()
    for depth, (W, b) in enumerate(network.unflatten(theta)):
        z = np.tanh(h @ W.numpy().T + b.numpy())
        h = h + z if depth else z
    rows = [naive_columns(network, theta.tolist(), x) for x in X.tolist()]
    np.testing.assert_allclose(np.array(mp_matrix(rows).tolist(), float)[:, 1:], h, rtol=1e-13)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_columns_on_the_gpu(name):
    network = CASES[name]
    theta, X = make_theta(network), points(d=network.n_features)
    coef = torch.as_tensor(np.random.default_rng(2).standard_normal((network.n_columns, 2)))
    host, device = NetworkColumns(network, X), NetworkColumns(network, X.cuda())
    for method in ("jacobian", "gram"):
        expected = getattr(host, method)(theta, coef)
        got = getattr(device, method)(theta.cuda(), coef.cuda())
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-12, atol=1e-12)
    basis = NetworkBasis(network, theta)
    torch.testing.assert_close(basis.matrix(X.cuda()).cpu(), basis.matrix(X))
