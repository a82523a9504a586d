"""Bases found on some of many rows, coefficients by all."""

import numpy as np
import pytest
import torch

from skpou import LSGDRegressor
from skpou.core import TrainingInterrupted, drawn_and_others
from skpou.core.models import LinearModel, Stage
from skpou.search import AutomaticOptions, automatic, fit_automatic, many_rows
from skpou.search.many_rows import fit_to_blocks
from tests.examples import rows_of


def rows(n=600, noise=0.1, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    y = np.sin(4 * X[:, :1]) * np.arange(1, outputs + 1) + X[:, 1:]
    return rows_of(X, y + noise * rng.standard_normal(y.shape))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(automatic, "MANY_ROWS", 300)
    monkeypatch.setattr(automatic, "SEARCHED", 200)


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_posterior_is_that_of_all_rows(few, outputs):
    """Ridge regression on the basis that was found, its prior that of the search."""
    every = rows(outputs=outputs)
    found = fit_automatic(every, AutomaticOptions(), np.random.default_rng(0)).state
    searched = automatic.drawn_points(every, 200)
    part = every.subset(torch.nonzero(searched).squeeze(1))
    own = automatic.AutomaticSearch(part, AutomaticOptions(), np.random.default_rng(0)).run().state
    assert len(found.stages) == len(own.stages) == 1
    for k in range(outputs):
        first, last = (s.factor if s.factor.ndim == 2 else s.factor[k]
                       for s in (own.stages[0], found.stages[0]))  # fmt: skip
        A_part, A = (found.stages[0].basis.matrix(r.X) for r in (part, every))
        p = A.shape[1]
        prior = (first.T @ first)[:p, :p] - A_part.T @ (part.weight[:, None] * A_part)
        gram = A.T @ (every.weight[:, None] * A) + prior
        torch.testing.assert_close((last.T @ last)[:p, :p], gram, rtol=1e-9, atol=1e-8)
        # The prior's mean is zero: its rows have no targets.
        coef = torch.linalg.solve(gram, A.T @ (every.weight * every.y[:, k]))
        torch.testing.assert_close(found.stages[0].coef[:, k], coef, rtol=1e-6, atol=1e-8)


def test_more_rows_bring_the_mean_closer_and_tell_the_noise(few):
    every = rows(4000)
    options = AutomaticOptions()
    found = fit_automatic(every, options, np.random.default_rng(0)).state
    part = every.subset(torch.nonzero(automatic.drawn_points(every, 200)).squeeze(1))
    own = automatic.AutomaticSearch(part, options, np.random.default_rng(0)).run().state
    truth = rows(3000, noise=0.0, seed=5)
    errors = [float((m.mean(truth.X) - truth.y).square().mean().sqrt()) for m in (found, own)]
    assert errors[0] < 0.6 * errors[1]
    assert float(found.noise.sqrt()) == pytest.approx(0.1, rel=0.05)
    assert (found.epistemic(truth.X) < own.epistemic(truth.X)).all()


def test_exact_rows_stay_exact(few):
    """Every stage is fitted anew to what those before it leave over."""
    every = rows(500, noise=0.0)
    found = fit_automatic(every, AutomaticOptions(), np.random.default_rng(0))
    truth = rows(1000, noise=0.0, seed=5)
    assert float((found.state.mean(truth.X) - truth.y).abs().max()) < 1e-10


def test_rows_that_a_stage_keeps_stay_and_an_interrupt_leaves_the_search(few, monkeypatch):
    every = rows()
    searched = automatic.drawn_points(every, 200)
    part = every.subset(torch.nonzero(searched).squeeze(1))
    found = automatic.AutomaticSearch(part, AutomaticOptions(), np.random.default_rng(0)).run()
    basis = found.state.stages[0].basis
    monkeypatch.setattr(type(basis), "follows_rows", True)
    kept = fit_to_blocks(found, *drawn_and_others(every, searched)).state.stages[0]
    assert isinstance(kept, Stage) and kept is found.state.stages[0]
    monkeypatch.undo()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(many_rows, "_with_more_rows", stop)
    with pytest.raises(TrainingInterrupted) as stopped:
        fit_to_blocks(found, *drawn_and_others(every, searched))
    assert isinstance(stopped.value.result.state, LinearModel)
    assert stopped.value.result.code == "interrupted"


def test_estimators_search_some_of_many_rows_and_repeat_their_bits(few):
    rng = np.random.default_rng(2)
    X = rng.random((900, 2))
    y = np.sin(4 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(900)
    order = rng.permutation(900)
    fits = [LSGDRegressor().fit(X[index], y[index]) for index in (np.arange(900), order)]
    query = rng.random((200, 2))
    mean, std = fits[0].predict(query, return_std=True)
    np.testing.assert_array_equal(fits[1].predict(query), mean)
    assert np.sqrt(np.mean((mean - np.sin(4 * query[:, 0]) - query[:, 1]) ** 2)) < 0.03
    assert 0.09 < std.mean() < 0.12
