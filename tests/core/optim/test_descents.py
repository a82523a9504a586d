"""First-order descents: Algorithm 1's loss, minibatches, ends."""

import math

import numpy as np
import pytest
import torch

from skpou.core.optim.descents import (
    PATIENCE,
    Descent,
    Iterate,
    Progress,
    descend,
    descend_hidden,
    follow,
    minibatches,
)
from skpou.core.optim.varpro import ProjectedProblem, RidgeSchedule
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkColumns
from skpou.networks.initializations import box
from tests.examples import tensor


def start(width=6, n=80, learning_rate=1e-3, batch_size=None, m=1):
    """Descent of a tanh network on a sine, and its first iterate."""
    rng = np.random.default_rng(0)
    X = tensor(np.linspace(0, 1, n)[:, None])
    y = torch.sin(6 * X) * torch.arange(1, m + 1)
    network = Network(1, (width,))
    columns = NetworkColumns(network, X)
    problem = ProjectedProblem(columns, y, tensor(rng.integers(1, 4, n)), relative=True)
    theta = box(network, rng, X)
    state = Descent(problem, learning_rate, batch_size, rng)
    return state, Iterate(theta, theta.new_zeros((width + 1, m)), math.nan)


def take(iterates, count):
    return [next(iterates) for _ in range(count)]


def test_least_squares_loss_falls_with_small_steps():
    state, first = start(width=3, learning_rate=1e-4)
    losses = [i.loss for i in take(descend_hidden(state, first, RidgeSchedule(1e-12), 1.0), 100)]
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 0.9 * losses[0]


def test_coefficients_are_those_of_least_squares():
    state, first = start(m=2)
    problem = state.problem
    for iterate in take(descend_hidden(state, first, RidgeSchedule(1e-30), 1.0), 3):
        A = (problem.basis.matrix(iterate.theta) * problem.root).numpy()
        expected = np.linalg.lstsq(A, problem.y.numpy(), rcond=None)[0]
        np.testing.assert_allclose(A @ iterate.coef.numpy(), A @ expected, atol=1e-9)


@pytest.mark.parametrize("batch_size", [None, 30])
def test_one_pass_of_all_parameters_follows_the_gradient(batch_size):
    state, first = start(batch_size=batch_size, learning_rate=1e-6)
    problem = state.problem

    def loss(theta, coef):
        residual = problem.basis.network.forward(theta, problem.basis.X) * problem.root @ coef
        return (residual - problem.y).square().sum() / state.count

    before, after = take(descend(state, first), 2)
    theta, coef = before.theta.requires_grad_(), before.coef.requires_grad_()
    value = loss(theta, coef)
    assert before.loss == pytest.approx(float(value.detach()), rel=1e-3 if batch_size else 1e-12)
    slope = torch.autograd.grad(value, coef)[0]
    if batch_size is None:  # Adam's first step is the learning rate against the sign.
        torch.testing.assert_close(after.coef - coef.detach(), -1e-6 * slope.sign())
    assert float(loss(after.theta, after.coef)) < float(value.detach())


def test_all_parameters_reach_a_good_fit():
    state, first = start(learning_rate=0.02)
    losses = [i.loss for i in take(descend(state, first), 1500)]
    assert losses[-1] < 1e-2 * losses[0]


def test_minibatches_hold_every_row_once():
    rng = np.random.default_rng(0)
    parts = list(minibatches(10, 3, rng))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    assert torch.cat(list(minibatches(10, 3, rng))).tolist() != torch.cat(parts).tolist()
    assert list(minibatches(10, 10, rng)) == [slice(None)]


def iterates(losses):
    return (Iterate(tensor([float(i)]), tensor([[0.0]]), loss) for i, loss in enumerate(losses))


@pytest.mark.parametrize(
    ("losses", "code", "best", "length"),
    [
        ([4.0, 1.0, 2.0], "max_iter", 1.0, 3),
        ([4.0, 1.0, math.nan, 0.1], "non_finite", 1.0, 2),
        ([4.0, 1e-6, 0.1], "converged", 1e-6, 2),
        ([4.0] + [1.0] * 400, "converged", 1.0, PATIENCE + 2),
    ],
    ids=["used up", "not finite", "exact", "flat"],
)
def test_ends(losses, code, best, length):
    progress, lines = Progress(), []
    options = {"max_iter": 3 if code == "max_iter" else 1000, "tol": 2e-3, "size": 1.0}
    follow(iterates(losses), progress=progress, report=lines.append, **options)
    assert (progress.code, progress.best.loss, len(progress.curve)) == (code, best, length)
    assert len(lines) == length
