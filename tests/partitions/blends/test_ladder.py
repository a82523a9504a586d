"""How many soft pieces: numbers that are compared, and what is kept of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou.partitions.blends.blends import BlendOptions, BlendTrainer
from skpou.partitions.blends.ladder import fit_ladder
from skpou.partitions.gates.tree import GateForm
from tests.contracts import same_bits
from tests.examples import labels_by, problem_of, tensor
from tests.partitions.blends.test_blends import SHORT, all_of, relative_error, values, wave


def quarters(problem):
    return labels_by(problem, lambda X: np.floor(4 * X[:, 0]))


@pytest.mark.parametrize("form", [GateForm(1), GateForm(2), GateForm(2, isotropic=True)])
def test_several_pieces_for_a_smooth_function(form):
    problem = problem_of(wave, 300, degree=3)
    options = BlendOptions(form, max_iter=60, pilot_iter=15)
    blend = fit_ladder(problem, all_of(problem), quarters(problem), options)
    assert blend.n_leaves == len(blend.coef) == len(blend.theta[0]) > 1
    error = relative_error(blend, wave, 3, form)
    assert error < 1e-7, f"relative error {error:.1e}"
    # One cubic alone, and four of them with jumps in between.
    pieces = problem.fit(quarters(problem))
    assert error < 1e-3 * float(pieces.error.min())
    assert blend.result.score < 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_one_piece_where_the_rest_is_noise(seed):
    def parabola(X):
        return 1 - 3 * X[:, 0] + 2 * X[:, 0] ** 2

    problem = problem_of(parabola, 300, degree=2, noise=0.1, seed=seed)
    blend = fit_ladder(problem, all_of(problem), quarters(problem), SHORT)
    assert blend.n_leaves == 1
    assert blend.theta[0].shape == (1, 3)
    A, y = problem.polynomials.numpy(), problem.rows.y.numpy()
    expected = np.linalg.lstsq(A, y, rcond=None)[0]
    np.testing.assert_allclose(blend.coef[0], expected, atol=1e-6)
    assert relative_error(blend, parabola, 2, SHORT.form) < 0.1
    assert 0.08 < blend.result.score < 0.12


def test_a_fit_that_is_far_from_exact_is_repeated_from_other_starts(monkeypatch):
    problem = problem_of(lambda X: np.tanh(12 * (X[:, 0] - 0.4)), 300, degree=2)
    labels = quarters(problem)
    once = fit_ladder(problem, all_of(problem), labels, SHORT)
    descents = []
    descend = BlendTrainer.descend_to_end

    def counted(trainer, *rung):
        descents.append(descend(trainer, *rung))
        return descents[-1]

    monkeypatch.setattr(BlendTrainer, "descend_to_end", counted)
    far = once.result.score / math.sqrt(float(problem.rows.y.square().mean()))
    for threshold, repeated in ((far / 10, True), (10 * far, False)):
        descents.clear()
        options = replace(SHORT, restart_above=threshold)
        blend = fit_ladder(problem, all_of(problem), labels, options)
        assert (len(descents) > 2) == repeated
        assert blend.result.score == min(one.result.score for one in descents)
        assert blend.result.score <= once.result.score


def test_the_best_descent_goes_on_where_it_has_used_all_its_steps():
    problem = problem_of(lambda X: np.tanh(12 * (X[:, 0] - 0.4)), 150, degree=2)
    labels, short = quarters(problem), replace(SHORT, max_iter=3, pilot_iter=3)
    first, further = (
        fit_ladder(problem, all_of(problem), labels, replace(short, further=on), (4,)).result
        for on in (False, True)
    )
    assert first.code == "max_iter"
    assert further.score < first.score / 3


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_pilots_keep_few_rows_where_there_is_no_noise(noise, monkeypatch):
    problem = problem_of(wave, 1500, degree=2, noise=noise)
    seen = []
    descend = BlendTrainer._descend

    def counted(trainer, projected, *others):
        seen.append(len(projected.y))
        return descend(trainer, projected, *others)

    monkeypatch.setattr(BlendTrainer, "_descend", counted)
    blend = fit_ladder(problem, all_of(problem), quarters(problem), SHORT)
    if noise:
        assert set(seen) == {1500}
    else:
        # The last descent, and the experts, are by all rows.
        assert set(seen[:-1]) <= {600, 1500}
        assert seen[0] == 600 and seen[-1] == 1500
        assert relative_error(blend, wave, 2, SHORT.form) < 1e-4


def test_one_piece_that_is_exact_ends_the_ladder():
    problem = problem_of(lambda X: X[:, 0] ** 3, 200, degree=3)
    blend = fit_ladder(problem, all_of(problem), quarters(problem), SHORT)
    assert blend.n_leaves == 1
    assert relative_error(blend, lambda X: X[:, 0] ** 3, 3, SHORT.form) < 1e-9


def test_few_samples_bear_few_pieces():
    problem = problem_of(wave, 20, degree=3)
    blend = fit_ladder(problem, all_of(problem), quarters(problem), SHORT)
    # Two pieces would need twice 2 (4 + 3) samples.
    assert blend.n_leaves == 1


def test_other_samples_do_not_count():
    problem = problem_of(lambda X: np.where(X[:, 0] < 0.5, wave(X), 1e3 * X[:, 0]), 400, degree=2)
    left = torch.nonzero(problem.rows.X[:, 0] < 0.5).squeeze(1)
    labels = labels_by(problem, lambda X: np.floor(8 * X[:, 0]))[left]
    blend = fit_ladder(problem, left, labels, SHORT)
    X = tensor(np.linspace(0.01, 0.49, 100)[:, None])
    error = values(blend, X, 2, SHORT.form) - wave(X.numpy())[:, None]
    assert np.abs(error).max() < 1e-5
    # Samples of the other part may be anything.
    problem.rows.y[~torch.isin(all_of(problem), left)] = 7.0
    again = fit_ladder(problem, left, labels, SHORT)
    assert same_bits(again.coef, blend.coef)
    assert same_bits(again.theta[0], blend.theta[0])


def test_several_outputs_share_the_gates():
    def both(X):
        return np.column_stack([wave(X), np.exp(X[:, 0])])

    problem = problem_of(both, 300, degree=3)
    blend = fit_ladder(problem, all_of(problem), quarters(problem), SHORT)
    assert blend.coef.shape == (blend.n_leaves, 4, 2)
    assert relative_error(blend, both, 3, SHORT.form) < 1e-5
