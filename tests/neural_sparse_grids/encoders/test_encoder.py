"""Encoders: derivatives against differences, scaling, forms, functions that can be imported."""

import numpy as np
import pytest
import torch
from torch import nn

from skpou.neural_sparse_grids.encoders.encoder import (
    Encoder,
    EncoderDerivatives,
    EncoderForm,
    LatentScaling,
    imported,
    name_of,
)

DOUBLE = torch.float64


def small_encoder(n_features, n_components):
    """Module of two linear layers, as a user would write it."""
    return nn.Sequential(nn.Linear(n_features, 4), nn.Tanh(), nn.Linear(4, n_components))


def wrong_encoder(n_features, n_components):
    """Module with a column too many."""
    return nn.Linear(n_features, n_components + 1)


def points(n=12, k=3, seed=0):
    return torch.tensor(np.random.default_rng(seed).random((n, k)))


def encoder(kind="mlp", n_components=2, k=3, **params):
    form = EncoderForm(kind, k, n_components, hidden_layer_sizes=(4, 3), **params)
    columns = torch.arange(k)
    box = torch.zeros(k, dtype=DOUBLE), torch.ones(k, dtype=DOUBLE)
    torch.manual_seed(0)
    made = Encoder(form, columns, *box).to(DOUBLE)
    if kind == "mlp":
        made.body.start(points(k=k), torch.ones(12, dtype=DOUBLE), np.random.default_rng(0))
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sin"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_jacobian_against_differences(activation, margin):
    made = encoder(activation=activation, margin=margin)
    made.scaling.measure(made.body(points()), torch.ones(12, dtype=DOUBLE))
    made.gain = 1.3
    parts = EncoderDerivatives(made, points())
    theta = made.body.theta.clone()
    found = parts.embed(theta)
    assert torch.equal(found.u, made(points()))
    slope = torch.tensor(np.random.default_rng(1).standard_normal((12, 2, 2)))
    J = parts.jacobian(theta, found.columns, slope)
    step = 1e-6
    for index in range(len(theta)):
        e = torch.zeros_like(theta)
        e[index] = step
        after, before = parts.embed(theta + e), parts.embed(theta - e)
        change = (after.z - before.z) / (2 * step)
        expected = torch.einsum("nmd,nd->nm", slope, change)
        torch.testing.assert_close(J[:, :, index], expected, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(
            (after.u - before.u) / (2 * step), found.slope * change, atol=1e-7, rtol=1e-6
        )
    pulled = parts.pull_back(theta, found.columns, slope[:, 0])
    torch.testing.assert_close(pulled, J[:, 0].sum(0))
    some = torch.tensor([3, 1])
    part = parts.rows(some).jacobian(theta, found.columns[some], slope[some])
    torch.testing.assert_close(part, J[some])


@pytest.mark.parametrize(
    "kind", ["mlp", "cnn", "tests.neural_sparse_grids.encoders.test_encoder:small_encoder"]
)
def test_embedding_lies_in_the_box_and_state_comes_back(kind):
    shape = (1, 3, 4) if kind == "cnn" else None
    k = 12 if kind == "cnn" else 3
    made = encoder(kind, k=k, margin=0.1, image_shape=shape)
    u = made(points(k=k))
    assert u.shape == (12, 2)
    assert bool(((u > 0.1) & (u < 0.9)).all())
    again = Encoder.from_arrays(made.arrays(), points())
    assert torch.equal(again(points(k=k)), u)
    assert not any(p.requires_grad for p in again.parameters())


def test_images_keep_one_scale_and_constant_columns_their_place():
    columns = torch.tensor([0, 2])
    offset, width = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 2.0])
    form = EncoderForm("tests.neural_sparse_grids.encoders.test_encoder:small_encoder", 3, 2)
    made = Encoder(form, columns, offset, width)
    inputs = made.inputs(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(inputs, torch.tensor([[0.0, 0.0, 0.5], [1.0, 0.0, 1.0]]))


def test_scaling_follows_weighted_minibatches_in_training_alone():
    scaling = LatentScaling(2).to(DOUBLE)
    z, weight = points(20, 2), torch.arange(20, dtype=DOUBLE)
    scaling.eval()
    assert torch.equal(scaling(z), z / np.sqrt(1 + 1e-10))
    scaling.follows = True
    scaling.train()
    out = scaling(z, weight)
    share = (weight / weight.sum())[:, None]
    torch.testing.assert_close((share * out).sum(0), torch.zeros(2, dtype=DOUBLE))
    torch.testing.assert_close((share * out**2).sum(0), torch.ones(2, dtype=DOUBLE))
    assert not torch.equal(scaling.mean, torch.zeros(2, dtype=DOUBLE))
    scaling.measure(z, weight)
    scaling.eval()
    torch.testing.assert_close(scaling(z), out)


def test_functions_that_can_be_imported():
    name = name_of(small_encoder)
    assert imported(name) is small_encoder
    with pytest.raises(ValueError, match="Sequential instance, which fit could not build anew"):
        name_of(small_encoder(2, 1))
    with pytest.raises(ValueError, match=r"a lambda.*could not import"):
        name_of(lambda n, d: small_encoder(n, d))

    def local(n, d):
        return small_encoder(n, d)

    with pytest.raises(ValueError, match=r"a local function.*local, which a saved model could"):
        name_of(local)
    with pytest.raises(ValueError, match=r"must be 'mlp', 'cnn' or a function\. Got 3"):
        name_of(3)


def test_module_of_the_wrong_shape():
    made = encoder("tests.neural_sparse_grids.encoders.test_encoder:wrong_encoder")
    with pytest.raises(ValueError, match=r"must map 12 rows to shape \(12, 2\).*Got \(12, 3\)"):
        made(points())
