"""The sparse grid layer inside ordinary torch networks."""

import copy
import pickle

import pytest
import torch
from torch import nn

from skpou.nn import SparseGridLayer


def test_layer_learns_inside_a_network():
    torch.manual_seed(0)
    X = torch.rand(400, 3)
    y = torch.sin(4 * X[:, :1]) + X[:, 1:2] * X[:, 2:]
    network = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), SparseGridLayer(2, 4, 1))
    optimizer = torch.optim.Adam(network.parameters(), 2e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (network(X) - y).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 * float(y.var())
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_leading_axes(shape):
    layer = SparseGridLayer(2, 3, 5)
    x = torch.rand(*shape, 2)
    assert layer(x).shape == (*shape, 5)
    torch.testing.assert_close(layer(x).reshape(-1, 5), layer(x.reshape(-1, 2)))


def test_dtype_and_state():
    layer = SparseGridLayer(3, 3, 2, boundary="zero", dtype=torch.float64)
    x = torch.rand(7, 3, dtype=torch.float64)
    expected = layer.grid.matrix(x) @ layer.coef
    torch.testing.assert_close(layer(x), expected)
    assert list(layer.state_dict()) == ["coef"]
    other = SparseGridLayer(3, 3, 2, boundary="zero", dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), layer(x))
    single = layer.float()(x)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, expected.float(), rtol=1e-5, atol=1e-6)


def test_wrong_width():
    with pytest.raises(ValueError, match=r"last axis of x must have 2 entries.*\(4, 3\)"):
        SparseGridLayer(2, 3, 1)(torch.rand(4, 3))


def test_representation():
    text = repr(SparseGridLayer(2, 3, 1))
    assert "n_components=2, level=3, n_outputs=1, boundary='modified', n_points=17" in text


@pytest.mark.parametrize("d", [2, 4])
def test_second_derivatives_are_refused(d):
    layer = SparseGridLayer(d, 3, 1, dtype=torch.float64)
    x = torch.rand(5, d, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(layer(x.sigmoid()).sum(), x, create_graph=True)


@pytest.mark.parametrize("name", ["n_components", "n_outputs"])
def test_sizes_below_one(name):
    sizes = {"n_components": 2, "level": 3, "n_outputs": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1. Got 0"):
        SparseGridLayer(**sizes)


def test_points_that_are_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        SparseGridLayer(2, 3, 1)(torch.tensor([[0.5, float("nan")]]))
