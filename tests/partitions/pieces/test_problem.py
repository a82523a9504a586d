"""Samples and their neighbours."""

import numpy as np
import torch

from skpou.core import Rows
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.pieces.problem import PieceProblem


def rows_of(x, y):
    X, y = torch.as_tensor(x)[:, None], torch.as_tensor(y)[:, None]
    return Rows(X, y, torch.ones_like(y[:, 0]), torch.zeros_like(y))


def with_gap():
    x = np.sort(np.random.default_rng(0).random(120))
    return x[(x < 0.4) | (x > 0.6)]


def test_samples_beside_a_gap_are_neighbours():
    x = np.random.default_rng(1).permutation(with_gap())
    near = PieceProblem(rows_of(x, np.sin(x)), 1).neighbours.numpy()
    order = np.argsort(x)
    for own, beside in ((order[:-1], order[1:]), (order[1:], order[:-1])):
        assert (near[own] == beside[:, None]).any(1).all()
    assert not (near == np.arange(len(x))[:, None]).any()


def test_kink_in_a_gap_is_where_the_pieces_cross():
    x = with_gap()
    kinked = lambda x: np.abs(x - 0.43)  # noqa: E731
    options = PieceOptions(sizes=(2,), degree=1)
    found = fit_pieces(rows_of(x, kinked(x)), options, np.random.default_rng(0))
    T = np.linspace(0.4, 0.6, 200)
    predicted = found.state.mean(torch.as_tensor(T)[:, None])[:, 0].numpy()
    assert np.abs(predicted - kinked(T)).max() < 1e-12
