"""Sharp pieces as a family of the search in stages."""

import dataclasses

import numpy as np
import pytest
import torch

from skpou import MultiStageRegressor
from skpou.core import BASES
from skpou.multi_stage.families import pieces
from skpou.multi_stage.families.pieces import PieceColumns, SharpPieces, pieces_candidate
from skpou.partitions import PieceOptions, fit_sharp_pieces, have_sharp_pieces
from skpou.search import AutomaticOptions, Candidate, Seen, Stages, Task, fit_automatic
from tests.examples import rows_of, tensor


def fold(X):
    return np.abs(X[:, 0] + X[:, 1] - 1) + 0.3 * X[:, 0]


def pieces_of(n=120, seed=0):
    X = np.random.default_rng(seed).random((n, 2))
    rows = rows_of(X, fold(X) - fold(X).mean())
    found = fit_sharp_pieces(rows, PieceOptions(), np.random.default_rng(seed))
    return rows, PieceColumns(found.state.tree, found.state.degree)


def test_columns_are_each_piece_s_polynomials():
    rows, basis = pieces_of()
    assert basis.n_pieces == 2
    columns = basis.matrix(rows.X).reshape(rows.n_rows, 2, -1)
    own = (rows.X.sum(1) > 1).to(torch.int64)
    filled = columns.abs().sum(2) > 0
    assert bool((filled.sum(1) == 1).all())
    # One leaf is one side of the fold, whichever.
    side = filled.to(torch.int64).argmax(1)
    assert len(set(zip(side.tolist(), own.tolist(), strict=True))) == 2
    again = BASES["pieces"].from_arrays(basis.arrays(), rows.X)
    assert torch.equal(again.matrix(rows.X), basis.matrix(rows.X))
    step = 1e-7 * tensor([[0.0, 1.0]])
    rate = (basis.matrix(rows.X + step) - basis.matrix(rows.X - step)) / 2e-7
    torch.testing.assert_close(rate, basis.partial(rows.X, 1), rtol=1e-6, atol=1e-6)
    coef = torch.linspace(-1, 1, basis.n_columns, dtype=torch.float64, device="cpu")[:, None]
    torch.testing.assert_close(
        basis.evaluate(rows.X, coef), basis.matrix(rows.X) @ coef, rtol=1e-13, atol=1e-13
    )


def test_kinks_are_found_exactly_between_the_rows_and_survive_saving():
    X = np.random.default_rng(0).random((150, 2))
    model = MultiStageRegressor().fit(X, fold(X))
    assert [stage["kind"] for stage in model.stages_] == ["pieces"]
    fresh = np.random.default_rng(1).random((2000, 2))
    error = np.abs(model.predict(fresh) - fold(fresh))
    assert np.median(error) < 1e-14
    assert np.sqrt(np.mean(error**2)) < 1e-10


@pytest.mark.slow
def test_pieces_beside_a_kink_may_join_smoothly():
    X = np.linspace(0, 1, 80)[:, None]

    def bent(X):
        return np.exp(4 * X[:, 0]) + 20 * np.abs(X[:, 0] - 0.413)

    # Of degree 5 two pieces leave 1e-5 of the exponential: it is split once more.
    model = MultiStageRegressor().fit(X, bent(X))
    assert [stage["kind"] for stage in model.stages_] == ["pieces"]
    fresh = np.linspace(0, 1, 1001)[:, None]
    assert np.sqrt(np.mean((model.predict(fresh) - bent(fresh)) ** 2)) < 1e-4


def test_pieces_that_join_smoothly_beside_a_kink_are_blended():
    x = np.linspace(0, 1, 100)[:, None]
    y = 3 * np.abs(x[:, 0] - 0.413) + np.sin(4 * x[:, 0])
    rows = rows_of(x, y - y.mean())
    options = PieceOptions(degree=5)
    found = fit_sharp_pieces(rows, options, np.random.default_rng(0), hopeless=1e-3).state
    assert [level.sharp for level in found.tree.levels] == [True, False]
    basis = PieceColumns(found.tree, found.degree)
    coef = found.experts[-1].coef.flatten(0, 1)
    fresh = tensor(np.random.default_rng(1).random((50, 1)))
    torch.testing.assert_close(basis.evaluate(fresh, coef), found.mean(fresh), rtol=0, atol=1e-12)
    slope = basis.partial(fresh, 0) @ coef
    torch.testing.assert_close(slope, found.gradient(fresh)[:, 0], rtol=1e-9, atol=1e-9)
    assert float((basis.evaluate(rows.X, coef) - rows.y).abs().max()) < 1e-9


def test_kinks_in_noise_are_tried_where_others_follow_the_noise():
    X = np.random.default_rng(0).random((300, 2))
    rows = rows_of(X, fold(X) + 0.02 * np.random.default_rng(1).standard_normal(300))
    candidate = Candidate("rough", (), 0.02, 0.02, 10.0, 0.0)
    seen, task = Seen((candidate,), noise=True), Task(rows, 0, None, 10, 0.0, Stages())
    assert not SharpPieces().worth_trying(task, seen)
    lavish = Seen((dataclasses.replace(candidate, dof=40.0),), noise=True)
    assert SharpPieces().worth_trying(task, lavish)


def test_noise_and_smooth_functions_are_left_to_others():
    lines = []
    rng = np.random.default_rng(0)
    x = np.sort(rng.random((80, 1)), 0)
    for y in (np.sin(20 * x[:, 0]), np.sin(5 * x[:, 0]) + 0.1 * rng.standard_normal(80)):
        rows = rows_of(x, y - y.mean())
        options = AutomaticOptions(families=(*AutomaticOptions.families[:1], SharpPieces()))
        fit_automatic(rows, options, np.random.default_rng(0), lines.append)
    assert not [line for line in lines if line.startswith("pieces")]


def test_hopeless_pieces_end_early():
    x = np.linspace(0, 1, 60)[:, None]
    rows = rows_of(x, np.sin(40 * x[:, 0]))
    rng = np.random.default_rng(0)
    assert fit_sharp_pieces(rows, PieceOptions(), rng, hopeless=1e-8) is None


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_left_out_errors_are_those_of_refits(noise):
    """For fixed pieces, whose edges the handicap stands for."""

    class Task:
        pass

    rows, basis = pieces_of()
    y = rows.y + noise * torch.as_tensor(np.random.default_rng(3).standard_normal(rows.y.shape))
    rows = rows_of(rows.X.numpy(), y[:, 0].numpy())
    Task.rows, Task.probes = rows, rows.X[:10]
    found = pieces_candidate(Task, basis)
    A, square = basis.matrix(rows.X), 0.0
    for i in range(rows.n_rows):
        kept = torch.arange(rows.n_rows) != i
        coef = torch.linalg.pinv(A[kept]) @ rows.y[kept]
        square += float((rows.y[i] - A[i] @ coef).square())
    assert found.leave_one_out == pytest.approx((square / rows.n_rows) ** 0.5, rel=0.02)
    assert found.handicap > 1.1
    assert bool(torch.isfinite(found.mean(tensor([[0.2, 1.3]]))).all())


@pytest.mark.parametrize("some", [False, True], ids=["none", "some"])
def test_all_rows_are_looked_at_only_where_few_have_pieces(some, monkeypatch):
    X = np.random.default_rng(0).random((260, 2))
    rows, looked, candidates = rows_of(X, fold(X) - fold(X).mean()), [], []

    def piloted(rows, *args):
        looked.append(rows.n_rows)
        return some and have_sharp_pieces(rows, *args)

    def fitted(rows, *args):
        looked.append(rows.n_rows)
        return fit_sharp_pieces(rows, *args)

    class Watched(SharpPieces):
        def fit(self, task, seen):
            for found in super().fit(task, seen):
                candidates.append(found.candidates[-1].family)
                yield found

    monkeypatch.setattr(pieces, "PILOT_ROWS", 130)
    monkeypatch.setattr(pieces, "have_sharp_pieces", piloted)
    monkeypatch.setattr(pieces, "fit_sharp_pieces", fitted)
    fit_automatic(rows, AutomaticOptions(families=(Watched(),)), np.random.default_rng(0))
    assert looked == ([130, 260] if some else [130])
    assert candidates == (["pieces"] if some else [])
