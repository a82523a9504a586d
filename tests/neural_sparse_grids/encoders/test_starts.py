"""First embeddings: whitened, along a manifold, scaled."""

import numpy as np
import pytest
import torch

from skpou.core.rows import merge_rows
from skpou.datasets import make_swiss_roll
from skpou.neural_sparse_grids.encoders.starts import manifold, start_encoder
from tests.neural_sparse_grids.projected.test_squares import make_encoder


def roll(n=1500):
    """Swiss roll in the unit box, and its two coordinates."""
    X, _ = make_swiss_roll(n, random_state=0)
    t = np.hypot(X[:, 0], X[:, 2])
    box = torch.tensor((X - X.min(0)) / np.ptp(X, axis=0))
    return box, np.column_stack([t**2, X[:, 1]])  # The length of the roll grows like t^2.


@pytest.mark.slow
def test_roll_is_unrolled():
    X, truth = roll()
    landmarks, found = manifold(X, 2, np.random.default_rng(0))
    assert found.min() == pytest.approx(0.05)
    assert found.max() == pytest.approx(0.95)
    correlation = np.corrcoef(np.column_stack([found, truth[landmarks]]).T)[:2, 2:]
    assert abs(correlation[0, 0]) > 0.99
    assert abs(correlation[1, 1]) > 0.95


@pytest.mark.parametrize("kind", ["plane", "cube", "few", "two parts"])
def test_no_manifold(kind):
    rng = np.random.default_rng(0)
    X = rng.random((400, 3))
    if kind == "plane":
        X[:, 2] = 0.5 * X[:, 0]
    if kind == "two parts":
        X[200:] += 10
    X = X[:100] if kind == "few" else X
    assert manifold(torch.tensor(X), 2, rng) is None


def rows_of(X):
    n = len(X)
    return merge_rows(X, X[:, :1], torch.ones(n, dtype=torch.float64))


def test_whitened_coordinates_are_uncorrelated():
    X = torch.tensor(np.random.default_rng(1).random((300, 3)))
    encoder = make_encoder(X, gain=1.0)
    assert start_encoder(encoder, rows_of(X), "whiten", np.random.default_rng(0)) == "whiten"
    z = encoder.latent(rows_of(X).X)
    torch.testing.assert_close(z.mean(0), torch.zeros(2).double(), atol=1e-8, rtol=0)
    torch.testing.assert_close(
        torch.cov(z.T, correction=0), torch.eye(2).double(), atol=1e-6, rtol=0
    )


def test_scaled_coordinates_have_unit_variance():
    X = torch.tensor(np.random.default_rng(1).random((300, 3)))
    X[:, 2] = 0
    X[:2, 2] = 1  # A column that hardly varies
    encoder = make_encoder(X, gain=1.0)
    assert start_encoder(encoder, rows_of(X), "scale", np.random.default_rng(0)) == "scale"
    z = encoder.latent(rows_of(X).X)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(2).double(), atol=1e-6, rtol=0)
    assert float(encoder.body.width.min()) == 0.1


def test_an_encoder_learns_the_manifold():
    X, truth = roll(800)
    encoder = make_encoder(X, sizes=(20, 20), gain=1.0)
    assert start_encoder(encoder, rows_of(X), "isomap", np.random.default_rng(0)) == "isomap"
    u = encoder(X).numpy()
    assert np.ptp(u, axis=0).min() > 0.5
    assert abs(np.corrcoef(u[:, 0], truth[:, 0])[0, 1]) > 0.9
