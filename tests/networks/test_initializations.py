"""First parameters of networks: the geometry of Box, the moments of He and Glorot."""

import numpy as np
import pytest
import torch

from skpou.networks.architecture import Network
from skpou.networks.initializations import INITIALIZATIONS, box, data_box, glorot, he
from tests.contracts import DTYPES, same_bits

NETWORKS = {
    "shallow": Network(2, (40,), "plain", "relu"),
    "plain": Network(3, (20, 10, 15), "plain", "relu"),
    "tanh": Network(1, (20, 20), "plain", "tanh"),
    "residual": Network(2, (20,) * 5, "residual", "relu"),
    "deep": Network(1, (8,) * 64, "residual", "relu"),
}


def points(n=50, d=2, seed=1):
    return torch.as_tensor(np.random.default_rng(seed).random((n, d)))


def draw(name, initialize, seed=0, dtype=torch.float64):
    network = NETWORKS[name]
    X = points(d=network.n_features).to(dtype)
    return network, X, initialize(network, np.random.default_rng(seed), X)


def boxes(network):
    """Edge of each layer's box and the reach of its units, as `box` documents them."""
    L = len(network.hidden_layer_sizes)
    if network.architecture == "plain":
        return [(1.0, 1.0)] * L
    edges = [1.0, *((1 + 1 / L) ** (layer - 2) for layer in range(2, L + 1))]
    return [(edge, edge / L if i else 1.0) for i, edge in enumerate(edges)]


@pytest.mark.parametrize("name", NETWORKS)
def test_box_cuts_every_box_and_reaches_its_bound(name):
    network, _, theta = draw(name, box)
    for (W, b), (edge, reach) in zip(network.unflatten(theta), boxes(network), strict=True):
        largest = edge * W.clamp_min(0).sum(1) + b
        least = edge * W.clamp_max(0).sum(1) + b
        torch.testing.assert_close(largest, torch.full_like(largest, reach), rtol=1e-12, atol=0)
        # Values of both signs in the box: the cut plane passes through it.
        assert (least < 0).all()


@pytest.mark.parametrize("name", ["residual", "deep"])
def test_images_of_residual_relu_networks_stay_in_the_growing_boxes(name):
    network, _, theta = draw(name, box)
    X = points(400, network.n_features)
    X = torch.cat([X, X.round()])  # the corners, too
    limits = [edge for edge, _ in boxes(network)] + [np.e]
    values = network.layers(theta, X)
    for layer, limit in zip(values, limits[1:], strict=True):
        assert layer.output.min() >= 0
        assert layer.output.max() <= limit * (1 + 1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_data_box_cuts_the_image_and_reaches_its_bound(name):
    network, X, theta = draw(name, data_box)
    L = len(network.hidden_layer_sizes)
    for index, layer in enumerate(network.layers(theta, X)):
        reach = 1 / L if network.adds_input(index) else 1.0
        largest = layer.argument.amax(0)
        torch.testing.assert_close(largest, torch.full_like(largest, reach), rtol=1e-9, atol=0)
        assert (layer.argument.amin(0) < 0).all()


def test_cut_planes_pass_through_points_between_two_images():
    """In one dimension: every breakpoint lies within the data, however small a part that is."""
    network, rng = Network(1, (200,), "plain", "relu"), np.random.default_rng(0)
    X = 0.4 + 0.1 * points(30, 1)
    for initialize, low, high in ((data_box, X.min(), X.max()), (box, 0.0, 1.0)):
        ((W, b),) = network.unflatten(initialize(network, rng, X))
        breaks = -b / W[:, 0]
        assert low <= breaks.min() and breaks.max() <= high
        # and they are spread over it
        assert breaks.max() - breaks.min() > 0.8 * (high - low)


@pytest.mark.parametrize("initialize", [box, data_box])
@pytest.mark.parametrize("network", [Network(1, (32,)), Network(1, (32,) * 32, "residual", "relu")])
def test_box_gives_independent_columns(initialize, network):
    X = points(256, 1)
    ranks = [
        torch.linalg.matrix_rank(
            network.forward(start(network, np.random.default_rng(0), X), X), rtol=1e-10
        )
        for start in (initialize, glorot)
    ]
    assert ranks[0] > 1.5 * ranks[1]


def test_deep_plain_relu_networks_collapse_under_box_and_not_through_the_image():
    network, X = Network(1, (32,) * 32, "plain", "relu"), points(256, 1)
    ranks = [
        int(torch.linalg.matrix_rank(network.forward(start(network, rng, X), X), rtol=1e-10))
        for start in (box, data_box)
        for rng in [np.random.default_rng(0)]
    ]
    assert ranks == [1, 33]


@pytest.mark.parametrize(
    ("initialize", "variance"), [(he, lambda i, o: 2 / i), (glorot, lambda i, o: 2 / (i + o))]
)
def test_moments(initialize, variance):
    network = Network(50, (200, 100), "plain", "relu")
    theta = initialize(network, np.random.default_rng(0), points(1, 50))
    for W, b in network.unflatten(theta):
        n_out, n_in = W.shape
        assert not b.any()
        assert abs(W.mean()) < 4 * (W.var() / W.numel()).sqrt()
        assert W.var() == pytest.approx(variance(n_in, n_out), rel=0.05)
        if initialize is glorot:
            assert W.abs().max() <= np.sqrt(6 / (n_in + n_out))


@pytest.mark.parametrize("initialize", INITIALIZATIONS.values(), ids=INITIALIZATIONS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_seeds_repeat_and_dtypes_are_kept(name, initialize, dtype):
    network, X, theta = draw(name, initialize, dtype=dtype)
    assert theta.shape == (network.n_parameters,)
    assert theta.dtype == dtype
    assert torch.isfinite(theta).all()
    assert same_bits(theta, draw(name, initialize, dtype=dtype)[2])
    assert not same_bits(theta, draw(name, initialize, seed=1, dtype=dtype)[2])
    assert network.forward(theta, X).dtype == dtype


@pytest.mark.parametrize("initialize", [box, he, glorot])
def test_points_do_not_matter(initialize):
    network, X, theta = draw("residual", initialize)
    for other in (X[:0], X[:1] + 7.0):
        assert same_bits(initialize(network, np.random.default_rng(0), other), theta)


@pytest.mark.parametrize("initialize", INITIALIZATIONS.values(), ids=INITIALIZATIONS)
@pytest.mark.parametrize("case", ["one row", "equal rows", "no features"])
@pytest.mark.parametrize("architecture", ["plain", "residual"])
def test_degenerate_points_give_finite_parameters(initialize, case, architecture):
    X = {
        "one row": points(1),
        "equal rows": points(1).repeat(9, 1),
        "no features": points(9, 0),
    }[case]
    network = Network(X.shape[1], (6,) * 4, architecture, "relu")
    theta = initialize(network, np.random.default_rng(0), X)
    assert torch.isfinite(theta).all()
    if initialize is data_box:
        # No unit is steeper than its reach where there is no image to cut.
        assert theta.abs().max() < 10


def test_data_box_needs_rows():
    with pytest.raises(ValueError, match=r"X must have at least one row. Got shape \(0, 2\)"):
        data_box(NETWORKS["shallow"], np.random.default_rng(0), points(0))


@pytest.mark.gpu
@pytest.mark.parametrize("initialize", INITIALIZATIONS.values(), ids=INITIALIZATIONS)
def test_parameters_lie_on_the_device_of_the_points(initialize):
    network, X, theta = draw("residual", initialize)
    got = initialize(network, np.random.default_rng(0), X.cuda())
    assert got.device.type == "cuda"
    torch.testing.assert_close(got.cpu(), theta, rtol=1e-9, atol=1e-9)
