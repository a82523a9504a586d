"""Derivatives of networks along the coordinates of the points, against automatic ones."""

import numpy as np
import pytest
import torch

from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkBasis
from skpou.networks.derivatives import NetworkDerivatives, closure, partitions

ORDERS = [(0,), (1,), (0, 1), (0, 0), (0, 1, 1), (0, 0, 0, 1)]
NETWORKS = [
    Network(2, (4,)),
    Network(2, (3, 5), activation="sin"),
    Network(2, (4, 4, 4), "residual", "tanh"),
    Network(2, (5, 4), activation="relu"),
]
each = pytest.mark.parametrize("network", NETWORKS, ids=str)


def start(network, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.standard_normal(network.n_parameters)), torch.tensor(rng.random((6, 2)))


def automatic(network, theta, X, order):
    """Derivatives of the columns by torch, one after the other."""
    X = X.clone().requires_grad_()
    columns = network.forward(theta, X)
    for j in order:
        options = {"create_graph": True, "allow_unused": True}
        found = [
            torch.autograd.grad(c.sum(), X, **options)[0] if c.requires_grad else None
            for c in columns.unbind(1)
        ]
        columns = torch.stack([0 * X[:, j] if f is None else f[:, j] for f in found], 1)
    return columns


@each
def test_derivatives_of_the_columns(network):
    theta, X = start(network)
    found = NetworkDerivatives(network, X, ORDERS).columns(theta)
    for order in [(), *ORDERS]:
        expected = automatic(network, theta, X, order).detach()
        torch.testing.assert_close(found[order], expected, rtol=1e-11, atol=1e-11)
        got = NetworkBasis(network, theta).derivative(X, order[::-1])
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@each
def test_derivatives_by_the_parameters(network):
    theta, X = start(network)
    rng = np.random.default_rng(3)
    wanted = [(), (0,), (1, 1)]
    slopes = {order: torch.tensor(rng.random((6, network.n_columns))) for order in wanted}
    derivatives = NetworkDerivatives(network, X, wanted)
    theta.requires_grad_()
    values = sum((automatic(network, theta, X, k) * s).sum(1) for k, s in slopes.items())
    expected = torch.stack([torch.autograd.grad(v, theta, retain_graph=True)[0] for v in values])
    theta = theta.detach()
    got = derivatives.chain(theta, slopes)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(derivatives.pull_back(theta, slopes), got.sum(0))


def test_partitions_and_closure():
    assert sum(count for count, _ in partitions((0, 1, 2, 3))) == 15  # Bell's number
    assert dict((b, c) for c, b in partitions((0, 0))) == {((0, 0),): 1, ((0,), (0,)): 1}
    assert closure([(0, 1), (1,)]) == ((), (0,), (1,), (0, 1))
