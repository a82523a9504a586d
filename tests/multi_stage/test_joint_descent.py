"""Joint descent: gradients, Adam, L-BFGS, the factor inside of the first activation."""

import numpy as np
import pytest
import torch

from skpou.multi_stage.joint_descent import JointDescent
from skpou.networks.architecture import Network
from skpou.networks.initializations import glorot
from tests.examples import rows_of


def descent(factor=1.0, first=None, seed=0, n=40):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    rows = rows_of(X, np.sin(3 * X[:, 0]) * X[:, 1], weight=rng.integers(1, 4, n))
    network = Network(2, (5, 4), first_activation=first)
    theta = glorot(network, rng, rows.X)
    coef = torch.as_tensor(rng.standard_normal((5, 1)))
    return JointDescent(network, rows, theta, coef, factor)


@pytest.mark.parametrize("first", [None, "sin"])
@pytest.mark.parametrize("factor", [1.0, 7.0])
def test_gradient_equals_that_of_torch(factor, first):
    ours = descent(factor, first)
    loss, by_variables, by_coef = ours.evaluate()
    variables = ours.variables.clone().requires_grad_()
    coef = ours.coef.clone().requires_grad_()
    columns = ours.columns
    mean = columns.network.forward(variables * ours.scale, columns.X) @ coef
    half = 0.5 * (ours.share * (mean - ours.rows.y).square()).sum()
    half.backward()
    assert loss == pytest.approx(half.item())
    torch.testing.assert_close(by_variables, variables.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(by_coef, coef.grad, rtol=1e-9, atol=1e-12)


def test_descents_descend_and_keep_the_best():
    ours = descent()
    ours.adam(200, 1e-2)
    after_adam = ours.least
    assert after_adam < 0.2 * ours.best.curve[0]
    ours.lbfgs(300, 0.0)
    assert ours.least < 0.01 * after_adam
    assert ours.least == min(ours.best.curve)
    mean = ours.columns.matrix(ours.best.theta) @ ours.best.coef
    square = float((ours.share * (mean - ours.rows.y).square()).sum())
    assert square == pytest.approx(ours.least)


def test_tolerance_ends_the_descent():
    ours = descent()
    ours.lbfgs(1000, 0.1)
    evaluations = len(ours.best.curve)
    assert ours.least < 0.01
    ours.lbfgs(1000, 0.1)
    assert len(ours.best.curve) == evaluations
