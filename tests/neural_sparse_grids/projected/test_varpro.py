"""The climb from coarse grids to fine ones: levels, rows, what is kept, when it ends."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skpou.core.rows import Rows
from skpou.neural_sparse_grids.encoders.encoder import EncoderDerivatives
from skpou.neural_sparse_grids.encoders.trained import Trained
from skpou.neural_sparse_grids.projected import varpro as encoder_varpro
from skpou.neural_sparse_grids.projected.classes import EncodedClasses
from skpou.neural_sparse_grids.projected.squares import BOLD, CAUTIOUS, EncodedProblem
from skpou.neural_sparse_grids.projected.varpro import (
    VarproOptions,
    VarproTraining,
    least_squares_problem,
    softmax_problem,
)
from skpou.sparse_grids.basis.grid import SparseGrid
from tests.neural_sparse_grids.projected.test_squares import make_encoder, make_rows


class Scripted(VarproTraining):
    """Rounds of given scores; the encoder's parameters are the number of the round."""

    def __init__(self, scores, levels=(2, 4), n=30, held_out=False, rms=1.0, **options):
        rows = make_rows(n, "squares")
        options = {"max_iter": 1000, "tol": 1e-8} | options
        options = VarproOptions(*levels, "modified", **options)
        others = make_rows(9, "squares") if held_out else None
        super().__init__(make_encoder(rows.X), rows, others, None, options, Trained())
        self.scores, self.rms, self.seen = iter(scores), rms, []
        self.problem = SimpleNamespace(
            rms=2.0,
            error=lambda encoder, fit, part: fit.score if part is self.held_out else None,
            head_of=lambda fit: {"chosen": {"round": fit.number}},
        )

    def _first_level(self, rng):
        return self.options.first_level

    def _round(self, derivatives, grid, rows):
        score = next(self.scores)
        self.seen.append((grid.level, rows.n_rows))
        if score is None:
            self.trained.code = "non_finite"
            return None
        self.encoder.body.theta.fill_(len(self.seen))
        self.trained.n_iter += min(
            encoder_varpro.ROUND, self.options.max_iter - self.trained.n_iter
        )
        self.trained.curve.append(abs(score))
        return SimpleNamespace(score=score, rms=lambda: self.rms, number=len(self.seen))

    def climb(self):
        self.run(np.random.default_rng(0))
        return [level for level, _ in self.seen]

    def kept(self):
        """Level and round that were kept."""
        assert bool((self.trained.state["body.theta"] == self.trained.chosen["round"]).all())
        return self.trained.level, self.trained.chosen["round"]


def falling(n, step=100.0):
    """Scores that make progress."""
    return [-step * k for k in range(n)]


# Levels


@pytest.mark.parametrize("held_out", [False, True])
def test_a_round_on_every_level_then_until_rest(held_out):
    scores = [2.0**-k for k in range(6)] if held_out else falling(6)
    training = Scripted([*scores, scores[-1]], held_out=held_out)
    assert training.climb() == [2, 3, 4, 4, 4, 4, 4]
    assert training.trained.code == "converged"
    assert training.kept() == (4, 6)
    assert training.trained.score == scores[-1]


def test_cautious_climb_stays_while_the_evidence_grows():
    training = Scripted([0, -100, -100.5, -200, -300, -300.5, -400, -400], cautious=True)
    assert training.climb() == [2, 2, 2, 3, 3, 3, 4, 4]
    assert training.kept() == (4, 7)


@pytest.mark.parametrize(("score", "rounds"), [(-350, 4), (-250, 8)])
def test_a_climb_that_is_behind_a_rival_after_twice_its_steps_ends(score, rounds):
    scores = [0, -100, -200, -300, -400, -500, -600, -600]
    rival = Trained(score=score, n_iter=2 * encoder_varpro.ROUND)
    training = Scripted(scores, rival=rival)
    assert len(training.climb()) == rounds
    assert training.trained.code == "converged"


def test_levels_that_make_it_worse_end_the_climb():
    training = Scripted([0, -100, 50, 60, -900], levels=(2, 9))
    assert training.climb() == [2, 3, 4, 5]
    assert training.trained.code == "converged"
    assert training.kept() == (3, 2)


def test_progress_is_by_the_row():
    """Of 30 rows a gain of 0.2 * 30 / 230 each counts, of 3000 nearly 0.2 each."""
    for n, share in ((30, 30 / 230), (1800, 0.9)):
        least = 0.2 * share * n
        for gain, rounds in ((1.01 * least, 3), (0.99 * least, 2)):
            training = Scripted([0, -gain, 0], levels=(2, 2), n=n)
            assert len(training.climb()) == rounds


@pytest.mark.parametrize(("rms", "rounds"), [(1.9e-8, 1), (2.1e-8, 2)])
def test_nothing_left_to_explain(rms, rounds):
    training = Scripted([5.0, 5.0], levels=(3, 3), rms=rms)
    assert len(training.climb()) == rounds
    assert training.trained.code == "converged"


@pytest.mark.parametrize("scores", [[0.0] * 6, [1.0, 0.0, 0.0, 0.0, 0.0]])
def test_rows_held_out_without_error(scores):
    training = Scripted(scores, held_out=True)
    training.climb()
    assert training.trained.code == "converged"
    assert training.trained.score == 0


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("scores", [[math.nan] * 5, [math.inf] * 5])
def test_scores_that_are_not_finite_are_not_kept(scores, held_out):
    training = Scripted(scores, held_out=held_out)
    training.climb()
    assert training.trained.state is None


def test_interrupted_by_what_is_not_finite():
    training = Scripted([0, -100, None])
    training.climb()
    assert training.trained.code == "non_finite"
    assert training.kept() == (3, 2)


@pytest.mark.parametrize("max_iter", [1, 5, 7, 12])
def test_steps_used_up(max_iter):
    training = Scripted(falling(9), max_iter=max_iter)
    training.climb()
    assert training.trained.n_iter == max_iter
    assert training.trained.code == "max_iter"


# Some of the rows


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(encoder_varpro, "COARSE_ROWS", 50)
    monkeypatch.setattr(encoder_varpro, "COARSE_ROWS_A_PARAMETER", 0)


@pytest.mark.parametrize(("n", "coarse"), [(75, 75), (76, 50)])
def test_coarse_grids_get_some_of_the_rows(n, coarse, few):
    training = Scripted([*falling(3), 0, -100, -100], n=n)
    training.climb()
    assert training.seen[:3] == [(2, coarse), (3, coarse), (4, n)]


def test_scores_of_some_rows_and_of_all_are_not_compared(few):
    training = Scripted([-900, -1000, 50, 50], n=200)
    assert training.climb() == [2, 3, 4, 4]
    assert training.kept() == (4, 3)
    assert training.trained.score == 50


def test_best_level_of_some_rows_is_that_of_all(few):
    training = Scripted([0, -100, 5, 5, 0, 0], levels=(2, 9), n=200)
    assert training.climb() == [2, 3, 4, 5, 3, 3]
    assert training.seen[-1] == (3, 200)


def test_steps_used_up_after_some_rows_came_to_rest(few):
    """The coarse grids are done with, the last one is not."""
    training = Scripted([-900, -800, -700, *falling(9)], levels=(2, 9), n=200, max_iter=25)
    assert training.climb() == [2, 3, 4, 2, 2]
    assert training.trained.n_iter == 25
    assert training.trained.code == "max_iter"


# The first level


@pytest.mark.parametrize(
    ("unexplained", "expected"),
    [
        ([1.0, 0.7, 0.0, 0.0], 2),  # The next level sees more: the climb will get there.
        ([1.0, 0.9, 0.85, 0.81], 2),  # Noise to all
        ([1.0, 0.95, 0.3, 0.2], 4),  # Nothing below level 4
        ([1.0, 0.95, 0.5, 0.2], 5),
        ([0.0, 0.0, 0.0, 0.0], 2),
    ],
)
def test_first_level_sees_what_finer_ones_see(unexplained, expected):
    rows = make_rows(500, "squares")
    asked = []

    def make(derivatives, grid, part):
        asked.append(part.n_rows)
        return SimpleNamespace(unexplained=lambda theta: unexplained[grid.level - 2])

    options = VarproOptions(2, 5, "modified", 10, 0.0)
    training = VarproTraining(make_encoder(rows.X), rows, None, make, options, Trained())
    assert training._first_level(np.random.default_rng(0)) == expected
    assert set(asked) == {500}


@pytest.mark.parametrize(("n", "levels"), [(4, []), (5, [2]), (17, [2, 3]), (49, [2, 3, 4])])
def test_first_level_is_judged_on_grids_of_fewer_points_than_rows(n, levels):
    rows, asked = make_rows(n, "squares"), []

    def make(derivatives, grid, part):
        asked.append(grid.level)
        return SimpleNamespace(unexplained=lambda theta: 1.0)

    options = VarproOptions(2, 9, "modified", 10, 0.0)
    training = VarproTraining(make_encoder(rows.X), rows, None, make, options, Trained())
    assert training._first_level(np.random.default_rng(0)) == 2
    assert asked == levels


def test_given_first_level_beyond_the_last():
    training = VarproTraining(
        make_encoder(make_rows(9, "squares").X), make_rows(9, "squares"), None,
        least_squares_problem(None, False), VarproOptions(5, 1, "modified", 10, 0.0), Trained(),
    )  # fmt: skip
    assert training._first_level(np.random.default_rng(0)) == 1


def test_a_start_that_uses_up_most_rows_takes_no_round(monkeypatch):
    rows = make_rows(30, "squares")
    for share, code, steps in ((0.0, "memorised", 0), (1.0, "max_iter", 5)):
        monkeypatch.setattr(encoder_varpro, "MEMORISED", share)
        options = VarproOptions(2, 3, "modified", 5, 0.0, yields=True)
        make, trained = least_squares_problem(None, False), Trained()
        VarproTraining(make_encoder(rows.X), rows, None, make, options, trained).run(
            np.random.default_rng(0)
        )
        assert (trained.code, trained.n_iter) == (code, steps)


# Real problems


def test_problems_of_both_kinds():
    rows = make_rows(20, "3")
    encoded = EncoderDerivatives(make_encoder(rows.X), rows.X)
    grid = SparseGrid(2, 2)
    for alpha in (None, 0.3):
        for cautious, (noise, spread) in ((False, BOLD), (True, CAUTIOUS)):
            problem = least_squares_problem(alpha, cautious)(encoded, grid, rows)
            assert isinstance(problem, EncodedProblem)
            assert problem.given == (alpha is not None)
            assert (problem.ridges.noise, problem.ridges.spread) == (noise, spread)
            classes = softmax_problem(alpha, cautious)(encoded, grid, rows)
            assert isinstance(classes, EncodedClasses)
            assert classes.given == problem.given
            # Cross entropy has units of its own: there is no noise to guess.
            assert classes.ridges.noise == 1
            for found in (problem, classes):
                assert alpha in (None, found.ridges.alpha)


@pytest.mark.parametrize("kind", ["squares", "2", "3"])
@pytest.mark.parametrize("judged", [False, True])
def test_state_that_is_kept_is_that_of_its_score(kind, judged):
    rows = make_rows(80, kind)
    z = rows.X[:, :1] + rows.X[:, 1:2]
    if kind == "squares":
        y = torch.cat([torch.sin(3 * z), z**2], 1)
    else:
        y = torch.nn.functional.one_hot((z[:, 0] > 1).long(), int(kind)).double()
    rows = Rows(rows.X, y, rows.weight, 0 * y)
    held_out = rows.subset(torch.arange(20)) if judged else None
    encoder = make_encoder(rows.X, gain=1.0)
    make = (least_squares_problem if kind == "squares" else softmax_problem)(0.01, False)
    trained = Trained()
    options = VarproOptions(2, 3, "modified", 30, 1e-8)
    lines = []
    VarproTraining(encoder, rows, held_out, make, options, trained, lines.append).run(
        np.random.default_rng(0)
    )
    assert len(lines) == len(trained.curve) <= trained.n_iter <= 30
    assert trained.curve[-1] < 0.7 * trained.curve[0]
    encoder.load_state_dict(trained.state)
    encoded = EncoderDerivatives(encoder, rows.X)
    problem = make(encoded, SparseGrid(2, trained.level), rows)
    fit = problem.solve(encoder.body.theta.clone())
    assert min(abs(problem.loss(fit) / loss - 1) for loss in trained.curve) < 1e-3
    if judged:
        assert problem.error(encoder, fit, held_out) == pytest.approx(trained.score, rel=1e-3)
    if kind != "squares":
        torch.testing.assert_close(trained.coef, fit.coef, rtol=0, atol=0.02)
