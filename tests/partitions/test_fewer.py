"""Exactly so many pieces that are no worse than fewer."""

from dataclasses import replace

import numpy as np
import torch

from skpou.core import Rows
from skpou.partitions.fewer import Judge, fit_again, fit_no_worse, grown_where_better
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.mixtures.experts import fit_experts_to_gates
from skpou.partitions.mixtures.mixture import Mixture


def rows_of(X, y):
    X, y = torch.as_tensor(X), torch.as_tensor(y)[:, None]
    return Rows(X, y, torch.ones(len(X), dtype=X.dtype), torch.zeros_like(y))


def crossed(n):
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    ridge = X[:, 1] - (X[:, 0] - 0.5) ** 2
    return X, np.where(ridge < 0.4, np.cos(3 * X[:, 0]), 3 * ridge)


def test_judges_as_fits_without_the_rows():
    X, y = crossed(120)
    rows = rows_of(X, y)
    options = PieceOptions(sizes=(2,), degree=1, exactly=True, alpha=1e-3)
    found = fit_pieces(rows, options, np.random.default_rng(0))
    judge = Judge(rows)
    columns = found.state.columns(judge.some.X)
    ridge = 1e-3 * float(columns.square().sum(0).max()) ** 0.5
    errors = []
    for fold in judge.fold.unique():
        out = judge.fold == fold
        A, b = columns[~out], judge.some.y[~out]
        normal = A.T @ A + ridge**2 * torch.eye(A.shape[1], dtype=A.dtype)
        errors.append(columns[out] @ torch.linalg.solve(normal, A.T @ b) - judge.some.y[out])
    expected = float(torch.cat(errors).square().mean().sqrt())
    assert abs(judge(found) - expected) < 1e-8 * expected


def test_no_worse_by_left_out_rows_than_fewer():
    rows = rows_of(*crossed(100))
    judge = Judge(rows)
    options = PieceOptions(sizes=(4,), degree=1, exactly=True)
    found = fit_no_worse(rows, options, np.random.default_rng(0))
    assert found.state.n_leaves == 4
    few = PieceOptions(sizes=(2,), degree=1, exactly=True)
    assert judge(found) <= 1.01 * judge(fit_pieces(rows, few, np.random.default_rng(1)))


def test_stops_at_exact_pieces():
    x = np.random.default_rng(0).random((200, 1))
    rows = rows_of(x, np.abs(x[:, 0] - 0.4))
    lines = []
    options = PieceOptions(sizes=(16,), degree=1, exactly=True)
    found = fit_no_worse(rows, options, np.random.default_rng(0), lines.append)
    tried = [line.split()[0] for line in lines if "expected error" in line]
    assert tried == ["16"]
    T = torch.linspace(0.01, 0.99, 500, dtype=torch.float64)[:, None]
    far = (T[:, 0] - 0.4).abs() > 0.01
    assert float((found.state.mean(T)[:, 0] - (T[:, 0] - 0.4).abs())[far].abs().max()) < 1e-12
    assert found.state.n_leaves == 16


def test_goes_on_from_the_pieces_of_hardly_other_rows():
    rng = np.random.default_rng(0)
    X = rng.random((200, 1))
    y = np.sin(9 * X[:, 0]) + 0.05 * rng.standard_normal(200)
    options = PieceOptions(sizes=(3,), degree=2, exactly=True, soft=True)
    rows, some = rows_of(X, y), rows_of(X[3:], y[3:])
    found = fit_no_worse(rows, options, np.random.default_rng(0))
    again = fit_again(some, options, found)
    assert again.state.n_leaves == 3
    judge = Judge(some)
    assert again.score == judge(again)
    assert judge(again) < 1.1 * judge(fit_no_worse(some, options, np.random.default_rng(0)))
    T = torch.linspace(0, 1, 200, dtype=torch.float64)[:, None]
    assert float((again.state.mean(T) - found.state.mean(T)).abs().max()) < 0.1


def test_starts_are_compared_by_what_they_are_judged_by():
    rows = rows_of(*crossed(150))
    options = PieceOptions(sizes=(2,), degree=1, exactly=True)
    found = fit_no_worse(rows, options, np.random.default_rng(0))
    assert found.score == Judge(rows)(found)


def test_wide_polynomials_have_no_more_pieces_than_rows_carry():
    rng = np.random.default_rng(0)
    X = rng.random((250, 14))
    slope = rng.random(14)
    y = X @ slope
    options = PieceOptions(sizes=(6,), degree=2, exactly=True)
    found = fit_no_worse(rows_of(X, y), options, np.random.default_rng(0))
    # 120 columns and a gate of 15: one piece; those that were asked for besides stay empty.
    assert found.state.n_leaves == 6
    assert len(np.unique(found.state.tree.choose(rows_of(X, y).X)[-1].numpy())) == 1
    T = rng.random((500, 14))
    error = found.state.mean(torch.as_tensor(T)).numpy()[:, 0] - T @ slope
    assert np.abs(error).max() < 1e-6


def test_soft_pieces_in_place_of_sharp_ones_where_nothing_is_sharp():
    """Two lines in soft gates are a hyperbolic tangent; in noise the cut stays."""
    x = np.linspace(0, 1, 120)[:, None]
    step = np.tanh(8 * (x[:, 0] - 0.4))
    options = PieceOptions(sizes=(2,), degree=1)
    cut = fit_pieces(rows_of(x, np.abs(x[:, 0] - 0.4)), options, np.random.default_rng(0))
    assert cut.state.tree.first_soft == 1
    for noise in (0, 1):
        rows = rows_of(x, step + noise * np.random.default_rng(1).standard_normal(120))
        experts, alpha = fit_experts_to_gates(rows, cut.state.tree, 1, None, 1)
        chosen = {**cut.chosen, "alpha": alpha}
        sharp = replace(cut, state=Mixture(cut.state.tree, experts, 1, 1), chosen=chosen)
        found, judge = grown_where_better(sharp, rows, options), Judge(rows)
        assert found is sharp if noise else judge(found) < 1e-10 < 0.1 < judge(sharp)
