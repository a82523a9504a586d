"""First-order training: losses and their gradients, schedule, best state."""

import math

import numpy as np
import pytest
import torch

from skpou.neural_sparse_grids.descent import objectives
from skpou.neural_sparse_grids.descent.descent import descend_encoder, one_cycle, pull_inside
from skpou.neural_sparse_grids.descent.objectives import (
    DensityShares,
    DescentOptions,
    IteratedSquares,
    JointSoftmax,
    JointSquares,
    SolvedSquares,
)
from skpou.neural_sparse_grids.encoders.trained import Trained
from skpou.sparse_grids.basis.evaluation import DenseColumns
from skpou.sparse_grids.basis.grid import SparseGrid
from tests.examples import slow
from tests.neural_sparse_grids.projected.test_squares import make_encoder, make_rows


@pytest.mark.parametrize("boundary", ["modified", "zero", "full"])
def test_dense_columns_and_their_gradient(boundary):
    grid = SparseGrid(2, 3, boundary)
    u = torch.tensor(np.random.default_rng(0).random((9, 2)), requires_grad=True)
    K = DenseColumns.apply(u, grid.plan, grid.factors)
    assert torch.equal(K, grid.matrix(u))
    g = torch.tensor(np.random.default_rng(1).standard_normal(K.shape))
    (gradient,) = torch.autograd.grad((K * g).sum(), u)
    for feature in range(2):
        torch.testing.assert_close(gradient[:, feature], (grid.partial(u, feature) * g).sum(1))


@pytest.mark.parametrize(
    "cls", [JointSquares, JointSoftmax, SolvedSquares, IteratedSquares, DensityShares]
)
def test_gradient_of_a_loss_against_differences(cls, monkeypatch):
    # The gradient is that of the fixed point of the steps.
    monkeypatch.setattr(objectives, "INNER_TOL", 1e-12)
    rows = make_rows(40, "3")
    grid = SparseGrid(2, 3)
    u = torch.tensor(np.random.default_rng(5).random((40, 2)), requires_grad=True)
    start = torch.tensor(np.random.default_rng(6).standard_normal((grid.n_columns, 3)))

    def loss(points):
        objective = cls(grid, rows, DescentOptions(alpha=0.1), np.random.default_rng(0))
        if cls is IteratedSquares:
            objective.coef = 0.1 * start
        value = objective.loss(points, rows.y, rows.weight)
        if cls in (SolvedSquares, IteratedSquares):
            # By the envelope theorem the gradient is that of the loss with its ridge.
            value = value + (objective.penalty() * objective.coef**2).sum() / 3
        return value

    (gradient,) = torch.autograd.grad(loss(u), u)
    step, rng = 1e-7, np.random.default_rng(7)
    for _ in range(3):
        v = torch.tensor(rng.standard_normal((40, 2)))
        with torch.no_grad():
            expected = (loss(u + step * v) - loss(u - step * v)) / (2 * step)
        assert math.isclose(float((gradient * v).sum()), float(expected), rel_tol=1e-4)


def test_one_cycle_rises_and_falls_to_nothing():
    rates = [one_cycle(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[30] == 1
    assert (np.diff(rates[:31]) > 0).all()
    assert (np.diff(rates[30:]) < 0).all()
    assert rates[-1] == pytest.approx(1e-4)


def test_pull_acts_on_far_coordinates_alone():
    z = torch.tensor([[0.5, -1.9], [3.0, -4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(pull_inside(z), z)
    assert torch.equal(gradient[0], torch.zeros(2))
    assert gradient[1, 0] > 0 > gradient[1, 1]


def descend(optimizer="adam", held_out=None, **params):
    rows = make_rows(60, "squares")
    rows.y[:] = rows.X[:, :2] ** 2
    encoder = make_encoder(rows.X, gain=1.0)
    options = DescentOptions(optimizer=optimizer, batch_size=20, **params)
    trained = Trained()
    rng = np.random.default_rng(0)
    grid = SparseGrid(2, 2)
    descend_encoder(encoder, grid, rows, held_out, None, options, rng, trained)
    return trained


@pytest.mark.parametrize("solver", ["direct", *slow("gradient", "iterative")])
@pytest.mark.parametrize("optimizer", ["adam", *slow("sgd")])
def test_descents_fit(solver, optimizer):
    trained = descend(optimizer, coef_solver=solver, max_iter=150, learning_rate=0.05)
    assert trained.score < 0.3 * trained.curve[0]
    assert trained.n_iter == len(trained.curve)
    assert trained.coef is not None
    assert trained.score == min(trained.curve)


def test_held_out_rows_end_the_descent():
    other = make_rows(20, "squares", seed=9)  # Nothing to be learned for these
    trained = descend(held_out=other, max_iter=200, n_iter_no_change=3)
    assert trained.code == "converged"
    assert trained.n_iter < 200


def test_a_loss_that_is_not_finite_leaves_the_last_good_state():
    trained = descend("sgd", learning_rate=1e150, max_iter=50)
    assert trained.code == "non_finite"
    assert all(bool(torch.isfinite(v).all()) for v in trained.state.values())
