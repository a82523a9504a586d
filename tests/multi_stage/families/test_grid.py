"""Sparse grids as a family of the search in stages."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skpou.core import BASES
from skpou.multi_stage.families import grid as family
from skpou.multi_stage.families.grid import Grids
from skpou.multi_stage.fit import FAMILIES
from skpou.search import AutomaticOptions, fit_automatic
from skpou.sparse_grids import GridOptions, fit_sparse_grid
from tests.examples import rows_of, tensor


def target(X):
    return np.abs(X[:, 0] - 0.5) * X[:, 1] + X[:, 2]


def test_it_is_the_grid_of_the_regressor(monkeypatch):
    monkeypatch.setattr(family, "FEWEST_ROWS", 300)
    monkeypatch.setattr(family, "FEWEST_COLUMNS", 3)
    X = np.random.default_rng(0).random((300, 3))
    y = target(X) + 0.02 * np.random.default_rng(1).standard_normal(300)
    rows = rows_of(X, y - y.mean())
    result = fit_automatic(rows, AutomaticOptions(families=(Grids(),)), np.random.default_rng(0))
    (stage,) = result.state.stages
    assert stage.basis.kind == "sparse_grid"
    options = GridOptions(max_points=300)
    alone = fit_sparse_grid(rows, options, np.random.default_rng(2)).state
    fresh = tensor(np.random.default_rng(3).random((200, 3)))
    torch.testing.assert_close(result.state.mean(fresh), alone.mean(fresh), rtol=1e-9, atol=1e-9)
    variance = stage.solved(fresh).square().sum(0)
    torch.testing.assert_close(variance, alone.variance(fresh), rtol=1e-6, atol=1e-12)
    again = BASES["sparse_grid"].from_arrays(stage.basis.arrays(), fresh)
    assert torch.equal(again.matrix(fresh), stage.basis.matrix(fresh))
    step = 1e-7 * tensor([[0.0, 1.0, 0.0]])
    rate = (stage.basis.matrix(fresh + step) - stage.basis.matrix(fresh - step)) / 2e-7
    assert float((rate - stage.basis.partial(fresh, 1)).abs().median()) < 1e-6
    # What is said of left-out rows is about what fresh ones show.
    error = float(
        (tensor(target(fresh.numpy()) - y.mean()) - alone.mean(fresh)[:, 0]).square().mean()
    )
    assert result.score == pytest.approx((error + 0.02**2) ** 0.5, rel=0.3)


@pytest.mark.parametrize(("n", "d", "tried"), [(1000, 6, False), (5000, 5, False), (5000, 6, True)])
def test_few_rows_and_few_columns_are_left_to_others(n, d, tried):
    X = np.random.default_rng(0).random((n, d))
    task = SimpleNamespace(alpha=None, rows=rows_of(X, np.zeros(n)))
    seen = SimpleNamespace(noise=False, least_calibrated=0.1)
    assert Grids().worth_trying(task, seen) == tried
    assert not Grids().worth_trying(task, SimpleNamespace(noise=True, least_calibrated=0.1))
    assert any(isinstance(one, Grids) for one in FAMILIES)
