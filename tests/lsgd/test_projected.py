"""The projected loss: its gradient by the envelope theorem, its minimisation."""

import math

import numpy as np
import pytest
import torch

from skpou.core.optim.varpro import ProjectedProblem, RidgeSchedule
from skpou.lsgd.projected import ProjectedLoss, minimise_projected
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkColumns
from skpou.networks.initializations import box
from tests.examples import tensor


def problem_of(function, sizes=(5, 4), n=50, d=2, m=2, seed=0):
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((n, d)))
    y = torch.stack([function((k + 1) * X[:, 0] + X[:, -1]) for k in range(m)], 1)
    network = Network(d, sizes)
    problem = ProjectedProblem(
        NetworkColumns(network, X), y, tensor(rng.integers(1, 4, n)), relative=True
    )
    return problem, box(network, rng, X)


@pytest.mark.parametrize("ridge", [1e-2, 1e-6])
def test_gradient_against_finite_differences(ridge):
    problem, theta = problem_of(lambda z: torch.sin(4 * z))
    loss = ProjectedLoss(problem, theta, RidgeSchedule(ridge), lambda iterate: None)
    loss.evaluate()
    gradient = loss.theta.grad.clone()
    direction = tensor(np.random.default_rng(1).standard_normal(len(theta)))
    step = 1e-6
    ahead, behind = (
        problem.solve(theta + s * step * direction, ridge).value / loss.count for s in (1, -1)
    )
    difference = (ahead - behind) / (2 * step)
    assert float(gradient @ direction) == pytest.approx(difference, rel=1e-5)


def test_never_shows_a_worse_iterate_within_a_round_and_meets_a_single_unit():
    problem, theta = problem_of(lambda z: torch.tanh(2 * z - 1), sizes=(1,), d=1, m=1)
    shown = []
    code = minimise_projected(
        problem, theta, max_iter=300, tol=1e-7, ridge=RidgeSchedule(1e-12), show=shown.append
    )
    assert code == "converged"
    assert math.sqrt(shown[-1].loss) < 1e-7


def test_start_that_is_not_finite():
    problem, theta = problem_of(torch.sin)
    options = {"max_iter": 10, "tol": 0.0, "ridge": RidgeSchedule(), "show": lambda i: None}
    assert minimise_projected(problem, math.nan * theta, **options) == "non_finite"
