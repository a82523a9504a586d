"""Sparse grids behind encoders: values, gradients, densities, state, what of them is used."""

import math

import numpy as np
import pytest
import torch

from skpou.core.models.linear_model import mean_slope
from skpou.neural_sparse_grids import model as neural_grid_model
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderForm
from skpou.neural_sparse_grids.model import NeuralGrid, active_fraction, embedded, share_on_faces
from skpou.sparse_grids.basis.grid import BOUNDARIES, SparseGrid
from skpou.sparse_grids.class_model import GridClasses
from skpou.sparse_grids.solution import GridOptions, fit_on_grid
from tests.neural_sparse_grids.projected.test_squares import make_encoder, make_rows

DOUBLE = torch.float64
SLOPE = torch.tensor([0.7, 2.0], dtype=DOUBLE)


def regression(n=60, level=3, boundary="modified", alpha=0.03):
    """Model of two targets, and its rows."""
    rows = make_rows(n, "squares")
    encoder = make_encoder(rows.X, gain=1.0)
    latent = embedded(encoder, rows)
    grid = SparseGrid(2, level, boundary)
    options = GridOptions(level=level, boundary=boundary, alpha=alpha)
    head = fit_on_grid(latent, grid, None, options, np.random.default_rng(0)).state
    return NeuralGrid(encoder, head, SLOPE), rows


def classes(K=3):
    rows = make_rows(60, str(K))
    grid = SparseGrid(2, 3)
    coef = torch.tensor(np.random.default_rng(1).standard_normal((grid.n_columns, K)))
    offset = torch.log_softmax(torch.arange(float(K), dtype=DOUBLE), 0)
    head = GridClasses(grid, coef, offset, "softmax", 0.01)
    return NeuralGrid(make_encoder(rows.X), head, SLOPE[:1]), rows


def fresh(n=40, low=-0.5, high=1.5):
    return torch.tensor(np.random.default_rng(5).uniform(low, high, (n, 3)))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_mean_and_its_gradient(boundary):
    model, _ = regression(boundary=boundary)
    X, step = fresh(), 1e-6
    expected = model.head.grid.matrix(model.encoder(X)) @ model.head.coef
    torch.testing.assert_close(model.mean(X), expected)
    gradient = model.gradient(X)
    assert gradient.shape == (40, 3, 2)
    assert not gradient.requires_grad
    for feature in range(3):
        move = torch.zeros(3, dtype=DOUBLE)
        move[feature] = step
        difference = (model.mean(X + move) - model.mean(X - move)) / (2 * step)
        torch.testing.assert_close(gradient[:, feature], difference, rtol=1e-5, atol=1e-7)


def test_gradient_of_many_rows_is_that_of_few():
    """Values of many rows are interpolated between nodes."""
    model, _ = regression()
    X = fresh(3000)
    parts = torch.cat([model.gradient(part) for part in X.split(50)])
    torch.testing.assert_close(model.gradient(X), parts, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(model.gradient(X[:50]), parts[:50])


def test_gradient_of_a_constant():
    model, _ = regression(level=1)
    assert not model.gradient(fresh()).any()
    assert model.gradient(fresh()[:0]).shape == (0, 3, 2)


def test_no_columns_of_the_data():
    form = EncoderForm("mlp", 0, 2, (3,))
    nothing = torch.zeros(0, dtype=DOUBLE)
    encoder = Encoder(form, torch.arange(0), nothing, nothing).to(DOUBLE).requires_grad_(False)
    model, _ = regression()
    model = NeuralGrid(encoder, model.head, SLOPE)
    X = torch.zeros(4, 0, dtype=DOUBLE)
    assert model.gradient(X).shape == (4, 0, 2)
    assert model.mean(X).shape == (4, 2)
    assert bool((model.components(X).epistemic > 0).all())


# Densities


def test_variance_is_that_of_the_grid_and_grows_outside():
    model, rows = regression()
    X = fresh()
    inside = X.clamp(0, 1)
    head = model.head
    A = rows.weight.sqrt()[:, None] * head.grid.matrix(model.encoder(rows.X))
    ridge = (0.03 * A.norm(dim=0).max()) ** 2 * 4.0 ** torch.tensor(head.grid.costs()).double()
    phi = head.grid.matrix(model.encoder(inside))
    covariance = torch.linalg.inv(A.T @ A + torch.diag(ridge))
    variance = torch.einsum("ng,gh,nh->n", phi, covariance, phi)
    distance = (X - inside).norm(dim=1)
    expected = variance[:, None] * head.noise + (distance[:, None] * SLOPE) ** 2
    found = model.components(X)
    torch.testing.assert_close(found.epistemic[:, 0], expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.mean[:, 0], model.mean(X))
    assert torch.equal(found.noise, head.noise[None])
    assert float((distance > 0).double().mean()) > 0.5


def test_density_without_a_posterior():
    model, _ = regression()
    found = model.components(fresh(), posterior=False)
    assert not found.epistemic.any()
    torch.testing.assert_close(found.mean[:, 0], model.mean(fresh()))


def test_probabilities():
    model, _ = classes()
    X = fresh()
    logits = model.head.grid.matrix(model.encoder(X)) @ model.head.coef + model.head.offset
    torch.testing.assert_close(model.log_proba(X), torch.log_softmax(logits, 1))


# State


@pytest.mark.parametrize("make", [regression, classes])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_state_gives_the_same_model(make, dtype):
    model, _ = make()
    arrays = model.arrays()
    again = NeuralGrid.from_arrays(arrays, torch.zeros(0, dtype=dtype))
    X = fresh().to(dtype)
    assert type(again.head) is type(model.head)
    assert again.slope.dtype == dtype
    assert torch.equal(again.slope, model.slope.to(dtype))

    def density(model, X):
        return model.log_proba(X) if make is classes else model.components(X).epistemic

    exact = dtype == torch.float64
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if exact else {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(density(again, X).double(), density(model, fresh()), **tolerance)
    twice = NeuralGrid.from_arrays(again.arrays(), X)
    assert torch.equal(density(twice, X), density(again, X))


def test_blocks_are_sized_by_what_a_row_needs():
    model, _ = regression()
    wide = EncoderForm("mlp", 3, 2, (1000, 1000))
    box = torch.zeros(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)
    wide = NeuralGrid(Encoder(wide, torch.arange(3), *box), model.head, SLOPE)
    assert wide.numbers_per_row() - model.numbers_per_row() == 4 * (2000 - 7)
    assert model.numbers_per_row() > model.head.numbers_per_row()


# What of the grid is used


@pytest.mark.parametrize("size", [1, 7, 100])
def test_embedded_rows_are_those_of_the_encoder(size, monkeypatch):
    rows = make_rows(30, "squares")
    rows.within[:] = 0.5
    encoder = make_encoder(rows.X)
    monkeypatch.setattr(neural_grid_model, "rows_within", lambda numbers: size)
    found = embedded(encoder, rows)
    torch.testing.assert_close(found.X, encoder(rows.X))
    for name in ("y", "weight", "within"):
        assert torch.equal(getattr(found, name), getattr(rows, name))


def test_embedded_rows_are_in_double_precision():
    rows = make_rows(30, "squares").to(torch.float32)
    encoder = make_encoder(rows.X).to(torch.float32)
    found = embedded(encoder, rows)
    assert {part.dtype for part in (found.X, found.y, found.weight, found.within)} == {DOUBLE}
    assert torch.equal(found.X, encoder(rows.X).double())


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_share_of_functions_that_are_active(boundary, size, monkeypatch):
    monkeypatch.setattr(neural_grid_model, "rows_within", lambda numbers: size)
    grid = SparseGrid(2, 4, boundary)
    # Some points lie on nodes, where the neighbours vanish.
    points = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.1, 0.33], [0.0, 1.0], [0.6, 0.61]])
    points = points.double()
    expected = (grid.matrix(points).abs() > 1e-9).any(0).double().mean()
    assert active_fraction(grid, points) == pytest.approx(float(expected))
    assert active_fraction(grid, points[:1]) < float(expected) < 1


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_share_of_points_near_a_face(margin):
    near, far = margin + 0.0199, margin + 0.0201
    points = torch.tensor([[near, 0.5], [0.5, 1 - near], [far, 1 - far], [0.5, 0.5]]).double()
    assert share_on_faces(points, margin) == 0.5
    assert share_on_faces(points[2:], margin) == 0
    assert share_on_faces(points[:1], margin) == 1


def test_slope_is_the_root_mean_square_of_the_gradient():
    model, rows = regression()
    squares = model.gradient(rows.X).square().sum(1)
    expected = (rows.weight @ squares / rows.weight.sum()).sqrt()
    torch.testing.assert_close(mean_slope(model, rows.X, rows.weight), expected)
    assert math.isfinite(float(expected.sum()))
