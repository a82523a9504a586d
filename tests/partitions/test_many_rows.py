"""Pieces found on some of many rows, experts of all."""

import numpy as np
import pytest
import torch

from skpou import HierarchicalPOURegressor
from skpou.core import TrainingInterrupted, drawn_and_others, drawn_points, with_all_targets
from skpou.core.linalg import triangular_factor
from skpou.partitions import many_rows
from skpou.partitions.fit import fit_pieces
from skpou.partitions.many_rows import fit_to_blocks
from skpou.partitions.options import PieceOptions
from tests.examples import rows_of

OPTIONS = PieceOptions(sizes=(2,), degree=1)


def rows(n, noise=0.05, seed=0, kink=False):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    y = np.abs(X[:, 0] - 0.5) if kink else 1.0 * (X[:, 0] > 0.5) - X[:, 0]
    return rows_of(X, y + 0.5 * X[:, 1] + noise * rng.standard_normal(n))


def searched(every, n):
    kept = drawn_points(every, n)
    found = fit_pieces(with_all_targets(every, kept), OPTIONS, np.random.default_rng(0))
    return kept, found


def test_the_posterior_of_sharp_pieces_is_that_of_all_rows():
    every = rows(1500)
    kept, found = searched(every, 300)
    state = fit_to_blocks(found, *drawn_and_others(every, kept)).state
    assert state.first_blended == len(state.tree.levels) and state.n_leaves == 2
    node = state.tree.log_proba(every.X, harden=True).argmax(1)
    old, new = found.state.experts[-1], state.experts[-1]
    for piece in range(2):
        own = node == piece
        more = own & ~kept
        A = torch.cat([old.factor[piece], state.basis.matrix(every.X[more])])
        y = torch.cat([old.factor[piece] @ old.coef[piece], every.y[more]])
        coef = torch.linalg.lstsq(A, y).solution
        torch.testing.assert_close(new.coef[piece], coef, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(new.factor[piece].abs(), triangular_factor(A).abs())
        left = every.y[own] - state.basis.matrix(every.X[own]) @ coef
        expected = left.square().sum(0) / (int(own.sum()) - 3)
        torch.testing.assert_close(new.noise[piece], expected, rtol=1e-2, atol=0)


def test_the_posterior_of_a_blend_is_that_of_all_rows():
    every = rows(1200, kink=True)
    kept, found = searched(every, 300)
    state = fit_to_blocks(found, *drawn_and_others(every, kept)).state
    assert state.first_blended == 0
    pi, phi = state.tree.log_proba(every.X).exp(), state.basis.matrix(every.X)
    columns = (pi[:, :, None] * phi[:, None]).flatten(1)
    old, new = found.state.experts[-1], state.experts[-1]
    A = torch.cat([old.factor[0], columns[~kept]])
    y = torch.cat([old.factor[0] @ old.coef.flatten(0, 1), every.y[~kept]])
    coef = torch.linalg.lstsq(A, y).solution
    torch.testing.assert_close(new.coef.flatten(0, 1), coef, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(new.noise.sqrt().numpy(), 0.05, rtol=0.1)
    truth = rows(3000, 0.0, 7, kink=True)
    errors = [float((m.mean(truth.X) - truth.y).square().mean()) for m in (state, found.state)]
    assert errors[0] < errors[1]  # The gate, which stays, has a part in both.


def test_exact_pieces_stay_and_an_interrupt_leaves_the_search(monkeypatch):
    every = rows(600, 0.0)
    kept, found = searched(every, 300)
    assert fit_to_blocks(found, *drawn_and_others(every, kept)) is found

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(many_rows, "_updated", stop)
    noisy = rows(600)
    kept, found = searched(noisy, 300)
    with pytest.raises(TrainingInterrupted) as stopped:
        fit_to_blocks(found, *drawn_and_others(noisy, kept))
    assert stopped.value.result.code == "interrupted"
    assert stopped.value.result.state is found.state


def test_estimators_search_some_of_many_rows_where_anything_is_free(monkeypatch):
    monkeypatch.setattr(many_rows, "MANY_ROWS", 400)
    monkeypatch.setattr(many_rows, "SEARCHED", 300)
    every = rows(1000, kink=True)
    assert many_rows.searched_points(every, OPTIONS) is None
    assert int(many_rows.searched_points(every, PieceOptions(sizes=(2,))).sum()) == 300
    some = every.subset(np.arange(350))
    assert many_rows.searched_points(some, PieceOptions(sizes=(2,))) is None
    assert int(many_rows.searched_points(some, PieceOptions(sizes=(2,)), True).sum()) == 300
    X, y = every.X.numpy(), every.y[:, 0].numpy()
    order = np.random.default_rng(0).permutation(len(X))
    truth = rows(2000, 0.0, 5, kink=True)
    fits = [HierarchicalPOURegressor(2).fit(X[index], y[index]) for index in (order, order[::-1])]
    mean = fits[0].predict(truth.X.numpy())
    np.testing.assert_array_equal(fits[1].predict(truth.X.numpy()), mean)
    assert np.sqrt(np.mean((mean - truth.y[:, 0].numpy()) ** 2)) < 0.02
    np.testing.assert_allclose(fits[0].noise_, 0.05, rtol=0.1)
