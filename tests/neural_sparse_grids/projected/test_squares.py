"""Projected problems behind an encoder: gradients, models, evidence; the climb through levels."""

import math

import numpy as np
import pytest
import torch

from skpou.core.rows import Rows
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderDerivatives, EncoderForm
from skpou.neural_sparse_grids.projected import squares
from skpou.neural_sparse_grids.projected.classes import EncodedClasses
from skpou.neural_sparse_grids.projected.rows import Ridges
from skpou.neural_sparse_grids.projected.squares import EncodedProblem
from skpou.sparse_grids import solution
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.solvers.ridge import KernelProblem

DOUBLE = torch.float64


def make_encoder(X, sizes=(4, 3), gain=1.7):
    form = EncoderForm("mlp", X.shape[1], 2, sizes)
    box = torch.zeros(X.shape[1], dtype=DOUBLE), torch.ones(X.shape[1], dtype=DOUBLE)
    encoder = Encoder(form, torch.arange(X.shape[1]), *box).to(DOUBLE).requires_grad_(False)
    encoder.body.start(X, torch.ones(len(X), dtype=DOUBLE), np.random.default_rng(0))
    encoder.gain = gain  # Some latent coordinates are pulled inwards.
    return encoder


def make_rows(n, kind, seed=0):
    rng = np.random.default_rng(seed)
    X, weight = torch.tensor(rng.random((n, 3))), torch.tensor(rng.random(n) + 0.5)
    if kind == "squares":
        y = torch.tensor(rng.standard_normal((n, 2)))
    else:
        K = int(kind)
        y = torch.softmax(torch.tensor(2 * rng.standard_normal((n, K))), 1)
    return Rows(X, y, weight, torch.zeros_like(y))


def make_problem(kind, n=30, sizes=(4, 3), level=3):
    rows = make_rows(n, kind)
    encoder = make_encoder(rows.X, sizes)
    cls = EncodedProblem if kind == "squares" else EncodedClasses
    ridges = Ridges(0.03, 4.0, 0.5, 2.0)
    encoded = EncoderDerivatives(encoder, rows.X)
    problem = cls(encoded, SparseGrid(2, level), rows, ridges, True)
    return problem, encoder.body.theta.clone()


@pytest.mark.parametrize(
    ("kind", "sizes"), [("squares", (4, 3)), ("squares", (8, 9)), ("2", (4, 3)), ("3", (4, 3))]
)
def test_gradient_of_the_value_against_differences(kind, sizes):
    # With (8, 9) there are more parameters than rows: the dual form.
    problem, theta = make_problem(kind, sizes=sizes)
    model = problem.linearise(problem.solve(theta))
    gradient = 2 * (model.pull + model.weight * theta)
    step, rng = 1e-6, np.random.default_rng(3)
    for _ in range(5):
        direction = torch.tensor(rng.standard_normal(len(theta)))
        after = problem.solve(theta + step * direction).value
        before = problem.solve(theta - step * direction).value
        expected = (after - before) / (2 * step)
        assert math.isclose(float(gradient @ direction), expected, rel_tol=1e-5, abs_tol=1e-5)


def test_primal_and_dual_models_agree():
    problem, theta = make_problem("squares", sizes=(8, 9))
    fit = problem.solve(theta)
    dual = problem.linearise(fit)
    assert dual.rows is not None
    primal = type(dual)(dual.rows.T @ dual.rows, None, dual.pull, theta, dual.weight)
    for a, b in zip(dual.determined(), primal.determined(), strict=True):
        assert math.isclose(a, b, rel_tol=1e-9)
    # The damping is relative to the mean diagonal entry over the parameters in both.
    (first, promise), (second, other) = (m.step(1e-2) for m in (dual, primal))
    torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-9)
    assert math.isclose(promise, other, rel_tol=1e-7)


@pytest.mark.parametrize("kind", ["squares", "2", "3"])
def test_a_damped_step_keeps_its_promise(kind):
    problem, theta = make_problem(kind)
    fit = problem.solve(theta)
    step, promise = problem.linearise(fit).step(1e3)
    decrease = fit.value - problem.solve(theta + step).value
    assert 0.8 < decrease / promise < 1.2


@pytest.mark.parametrize("kind", ["squares", "2", "3"])
def test_parameters_that_are_not_finite(kind):
    problem, theta = make_problem(kind)
    theta[3] = math.nan
    assert problem.solve(theta).value == math.inf


def test_log_evidence_of_a_linear_model():
    """With all slopes zero the score is that of the ridge regression on the grid alone."""
    problem, theta = make_problem("squares")
    fit = problem.adapt(problem.solve(theta))
    n = problem.rows.total_weight
    solution = fit.solution
    model = problem.linearise(fit)
    _, log_det = model.determined()
    assert log_det > 0
    noise = (solution.rss + solution.size) / n
    bare = n * float(noise.log().mean()) + solution.log_det
    assert fit.score > bare  # What the encoder's parameters cost
    assert 0 < fit.determined < len(theta)


def test_ridges_follow_the_noise():
    rng = np.random.default_rng(0)
    found = []
    for noise in (0.03, 0.3):
        rows = make_rows(400, "squares")
        clean = torch.sin(4 * rows.X[:, :1]) + rows.X[:, 1:2]
        y = clean + noise * torch.tensor(rng.standard_normal((400, 1)))
        rows = Rows(rows.X, y, torch.ones(400, dtype=DOUBLE), torch.zeros_like(y))
        encoder = make_encoder(rows.X, gain=1.0)
        encoded = EncoderDerivatives(encoder, rows.X)
        problem = EncodedProblem(encoded, SparseGrid(2, 3), rows, Ridges(1e-3, 4.0, 1e-2), False)
        fit = problem.solve(encoder.body.theta.clone())
        for _ in range(10):
            step, _ = problem.linearise(fit).step(1e-2)
            candidate = problem.solve(fit.theta + step)
            fit = problem.adapt(candidate if candidate.value < fit.value else fit)
        found.append(problem.ridges.noise)
    np.testing.assert_allclose(np.sqrt(found), [0.03, 0.3], rtol=0.25)


def test_finer_grid_starts_from_the_coefficients_of_the_coarse_one():
    problem, theta = make_problem("3", level=2)
    coarse = problem.solve(theta)
    finer = problem.on_grid(problem.encoded, SparseGrid(2, 3), problem.rows)
    assert torch.equal(finer.last[: len(coarse.coef)], coarse.coef)
    assert finer.solve(theta).value <= coarse.value


@pytest.mark.parametrize("sizes", [(4, 3), (8, 9)])
def test_more_grid_points_than_rows(sizes, monkeypatch):
    """By the rows' matrix all is what it is by that of the columns."""
    problem, theta = make_problem("squares", sizes=sizes, level=4)
    fit = problem.solve(theta)
    expected, score, first = problem.linearise(fit), problem.adapt(fit).score, problem.ridges
    problem, _ = make_problem("squares", sizes=sizes, level=4)
    monkeypatch.setattr(solution, "FEW_COLUMNS", 0)
    found = problem.solve(theta)
    assert isinstance(found.problem, KernelProblem)
    assert not isinstance(fit.problem, KernelProblem)
    assert math.isclose(found.value, fit.value, rel_tol=1e-10)
    torch.testing.assert_close(found.coef, fit.coef, rtol=1e-8, atol=1e-10)
    model = problem.linearise(found)
    torch.testing.assert_close(model.gram, expected.gram, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(model.pull, expected.pull, rtol=1e-7, atol=1e-9)
    assert math.isclose(problem.adapt(found).score, score, rel_tol=1e-9)
    assert math.isclose(problem.ridges.noise, first.noise, rel_tol=1e-9)


def test_few_columns_are_projected_off_by_singular_vectors(monkeypatch):
    problem, theta = make_problem("squares", sizes=(8, 9), level=2)
    fit = problem.solve(theta)
    J = torch.tensor(np.random.default_rng(5).standard_normal((30, 4)))
    found = problem._projected(fit, J)
    monkeypatch.setattr(squares, "ROWS_A_COLUMN", 30)
    expected = problem._projected(fit, J)
    assert not torch.allclose(found, expected)  # Another root of the same matrix.
    torch.testing.assert_close(found.T @ found, expected.T @ expected, rtol=1e-10, atol=1e-12)


def test_ridges_are_chosen_with_the_coefficients_they_give(monkeypatch):
    """Slopes at a new ridge are those of its own solution, not of the one before."""
    problem, theta = make_problem("squares")
    problem.given, seen = False, []
    fit = problem.solve(theta)
    linearise = problem.linearise
    monkeypatch.setattr(problem, "linearise", lambda fit: seen.append(fit) or linearise(fit))
    problem.adapt(fit)
    assert seen[0].solution.alpha != fit.solution.alpha
    assert torch.equal(seen[0].coef, seen[0].solution.coef)
