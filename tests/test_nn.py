"""The sparse grid layer inside ordinary torch networks."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from skpou import NeuralSparseGridClassifier
from skpou.nn import SparseGridLayer, residual_encoder


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


def traced_cases():
    """Layers of all boundaries, and points inside and outside the box, on faces and at kinks."""
    grids = [(1, 5, "modified"), (2, 4, "modified"), (3, 3, "zero"), (2, 2, "full")]
    for d, level, boundary in [*grids, (4, 3, "truncated")]:
        torch.manual_seed(d)
        layer = SparseGridLayer(d, level, 2, boundary=boundary, dtype=torch.float64)
        x = 1.4 * torch.rand(30, d, dtype=torch.float64) - 0.2
        x[:3] = torch.tensor([0.0, 0.5, 1.0])[:, None]
        marks = [] if (d, boundary) == (2, "modified") else [pytest.mark.slow]
        yield pytest.param(layer, x, id=f"{boundary} {d}", marks=marks)


@pytest.mark.parametrize(("layer", "x"), list(traced_cases()))
def test_exported_layer(layer, x):
    """What `torch.export` traces once holds for any number of points."""
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: rows},))
    assert not any("skpou" in str(node.target) for node in program.graph.nodes)
    for points in (x, x[:7]):
        torch.testing.assert_close(program.module()(points), layer(points), rtol=1e-13, atol=1e-14)
    lost = program.module()(torch.full((2, x.shape[1]), torch.nan, dtype=x.dtype))
    assert lost.isnan().all() or (layer.grid.n_subspaces == 1)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "x"), list(traced_cases()))
def test_compiled_layer_has_the_same_gradients(layer, x):
    """One graph without a break; its gradients are those of the layer, at kinks, too."""
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    weight = torch.randn(len(x), 2, dtype=x.dtype)
    found = []
    for function in (layer, compiled):
        points = x.clone().requires_grad_()
        layer.coef.grad = None
        (weight * function(points)).sum().backward()
        found.append((points.grad, layer.coef.grad))
    for own, traced in zip(*found):
        torch.testing.assert_close(traced, own, rtol=1e-12, atol=1e-12)


def test_network_with_a_layer_is_exported_and_saved(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), SparseGridLayer(2, 3, 1))
    x = torch.rand(2, 5, 3)
    torch.export.save(torch.export.export(network, (x,)), tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    torch.testing.assert_close(loaded(x), network(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch in torch
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++")
def test_layer_compiled_to_machine_code():
    layer, x = SparseGridLayer(3, 4, 2), torch.rand(100, 3)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


@pytest.mark.parametrize("side", [1, 3, 8, 9, 28])
def test_residual_encoder_takes_square_images(side):
    torch.manual_seed(0)
    encoder = residual_encoder(side**2, 3)
    images = torch.rand(4, side**2)
    assert encoder(images).shape == (4, 3)
    # Every pixel has a part in it.
    images.requires_grad_()
    encoder.eval()(images).sum().backward()
    assert bool((images.grad.abs().sum(0) > 0).all())
    with pytest.raises(ValueError, match=f"n_features_in={side**2 + 2}, which is no square"):
        residual_encoder(side**2 + 2, 3)


def test_residual_encoder_in_front_of_a_grid():
    X, y = load_digits(return_X_y=True)
    chosen = y < 3
    X, y = X[chosen][:150], y[chosen][:150]
    model = NeuralSparseGridClassifier(
        encoder=residual_encoder, level=2, batch_size=25, max_iter=5, dtype="float32"
    )
    model.fit(X, y)
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
