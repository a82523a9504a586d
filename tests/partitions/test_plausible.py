"""Pieces that leave the range of y between the rows."""

import numpy as np
import pytest
import torch

import skpou.partitions.plausible as module
from skpou.core import Rows, TrainingInterrupted
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.plausible import plausible_pieces, points_between


def lines(seed=0, n_lines=5, n=12):
    rng = np.random.default_rng(seed)
    X = np.stack([np.repeat(np.linspace(0, 1, n_lines), n), rng.random(n_lines * n)], 1)
    y = np.tanh(3 * (X[:, 0] - X[:, 1]))
    X, y = (torch.as_tensor(values, dtype=torch.float64) for values in (X, y[:, None]))
    weight = torch.ones(len(X), dtype=torch.float64)
    return Rows(X, (y - y.mean()) / y.std(), weight, torch.zeros_like(y))


def spoiled(result, height):
    """The result with a bump between the lines of rows that the rows don't see."""
    mixture, mean = result.state, result.state.mean

    def with_bump(X):
        between = torch.sin(4 * np.pi * X[:, :1]).square()
        return mean(X) + height * torch.where(between < 1e-20, 0.0, between)

    mixture.mean = with_bump
    return result


@pytest.fixture
def starts(monkeypatch):
    """Results of fit_pieces in order; those in `heights` get a bump."""
    found = []

    def start(heights):
        def recorded(rows, options, rng, labels=None, report=None):
            result = fit_pieces(rows, options, rng, labels, report)
            if len(found) < len(heights):
                result = spoiled(result, heights[len(found)])
            found.append((options.sizes, result))
            return result

        monkeypatch.setattr(module, "fit_pieces", recorded)
        return found

    return start


@pytest.mark.parametrize(
    "heights, kept", [((0.0,), 0), ((4.0,), 0), ((1e7,), 1), ((1e7, 1e5), 2), ((1e5, 1e7, 1e8), 0)]
)
def test_the_first_that_stays_in_the_range_is_kept(starts, heights, kept):
    found = starts(heights)
    result = plausible_pieces(lines(), PieceOptions(degree=3), np.random.default_rng(0))
    assert result is found[kept][1]
    assert len(found) == (1 if kept == 0 and heights[0] < 1e3 else len(heights) + (kept > 0))
    assert [sizes for sizes, _ in found] == [None, None, (1,)][: len(found)]


def test_no_polynomial_takes_the_place_of_a_number_that_was_asked_for(starts):
    found = starts((1e7, 1e6))
    options = PieceOptions(degree=3, sizes=(2,))
    result = plausible_pieces(lines(), options, np.random.default_rng(0))
    assert [sizes for sizes, _ in found] == [(2,), (2,)]
    assert result is found[1][1]


def test_what_does_not_follow_the_rows_takes_no_place(starts):
    rows = lines()
    found = starts((1e7, 1e7))
    options = PieceOptions(degree=0)
    y = torch.sign(rows.X[:, :1] - 0.4) * torch.sign(rows.X[:, 1:] - 0.5)
    rows = Rows(rows.X, y, rows.weight, rows.within)
    result = plausible_pieces(rows, options, np.random.default_rng(0))
    assert len(found) == 3
    assert result is not found[2][1]


def test_an_interrupt_leaves_the_first_pieces(starts, monkeypatch):
    found = starts((1e7,))
    recorded = module.fit_pieces

    def stopped(*args):
        if found:
            raise TrainingInterrupted(None)
        return recorded(*args)

    monkeypatch.setattr(module, "fit_pieces", stopped)
    with pytest.raises(TrainingInterrupted) as caught:
        plausible_pieces(lines(), PieceOptions(degree=3), np.random.default_rng(0))
    assert caught.value.result.state is found[0][1].state
    assert caught.value.result.code == "interrupted"


def test_points_are_in_the_hull_of_the_rows():
    corner = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corner = corner[corner.sum(1) < 1]
    points = points_between(corner)
    assert points.shape == (module.N_PROBES, 2)
    assert float(points.sum(1).max()) < 1
    assert torch.equal(points, points_between(corner))


@pytest.mark.parametrize("d", [0, 1])
def test_of_one_row_and_of_no_column(d):
    X = torch.zeros(1, d, dtype=torch.float64)
    rows = Rows(
        X,
        torch.zeros(1, 1, dtype=torch.float64),
        torch.ones(1).double(),
        torch.zeros(1, 1).double(),
    )
    result = plausible_pieces(rows, PieceOptions(), np.random.default_rng(0))
    assert torch.equal(result.state.mean(X), torch.zeros(1, 1, dtype=torch.float64))
