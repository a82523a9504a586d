"""Steps in the space of the rows against those in the space of the parameters."""

import numpy as np
import pytest
import torch

from skpou.core.optim.varpro import ProjectedProblem, levenberg_marquardt
from skpou.lsgd.dual import DualProblem
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkColumns
from skpou.networks.initializations import box
from tests.core.optim.test_varpro import Exponentials
from tests.examples import tensor


def problems(n, m, sizes=(6, 7), seed=0):
    rng = np.random.default_rng(seed)
    X = tensor(rng.random((n, 2)))
    y, weight = tensor(rng.standard_normal((n, m))), tensor(rng.integers(1, 4, n))
    network = Network(2, sizes)
    columns = NetworkColumns(network, X)
    theta = box(network, rng, X)
    return [
        cls(columns, y, weight, relative=True) for cls in (ProjectedProblem, DualProblem)
    ], theta


def explicit_step(problem, fit, damping):
    """Step ``-J' (J J' + mu I)^-1 r`` from the Jacobian itself, and what it promises."""
    (n, m), p = fit.residual.shape, fit.A.shape[1]
    J = torch.cat([problem.jacobian(fit), fit.A.new_zeros((p, m, problem.basis.n_parameters))])
    stacked = torch.cat([fit.A, fit.strength * torch.eye(p, dtype=fit.A.dtype)])
    Q = torch.linalg.qr(stacked).Q
    J = (J - torch.einsum("ip,pmk->imk", Q, torch.einsum("ip,imk->pmk", Q, J))).reshape(
        (n + p) * m, -1
    )
    r = torch.cat([fit.residual, fit.strength * fit.coef]).reshape(-1)
    mu = damping * float((J @ J.T).diagonal().max())
    step = -torch.linalg.solve(J.T @ J + mu * torch.eye(J.shape[1], dtype=J.dtype), J.T @ r)
    return step, float(r.square().sum() - (r + J @ step).square().sum())


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("ridge", [1e-2, 1e-8])
@pytest.mark.parametrize("damping", [1.0, 1e-3])
def test_dual_step_is_the_primal_one(m, ridge, damping):
    (_, dual), theta = problems(12, m)
    fit = dual.solve(theta, ridge)
    step, promised = dual.linearise(fit).step(damping)
    expected, decrease = explicit_step(dual, fit, damping)
    torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))
    assert promised >= decrease * (1 - 1e-9)  # It leaves out that the step is damped as well.


def test_solves_are_shared():
    (primal, dual), theta = problems(12, 2)
    fits = [problem.solve(theta, 1e-4) for problem in (primal, dual)]
    assert torch.equal(fits[0].coef, fits[1].coef)


def test_interpolates_with_more_parameters_than_rows():
    (_, dual), theta = problems(20, 1, sizes=(8, 8))
    result = levenberg_marquardt(dual, theta, max_iter=200, tol=1e-10)
    assert result.state.rms() < 1e-8


def test_round_off_that_makes_the_gram_matrix_indefinite():
    (_, dual), theta = problems(40, 1)
    model = dual.linearise(dual.solve(theta, 1e-12))
    step, promised = model.step(1e-30)
    assert model.is_finite()
    assert bool(torch.isfinite(step).all())
    assert promised >= 0


def test_basis_that_cannot():
    basis = Exponentials(tensor([0.0, 1.0]), 3)
    with pytest.raises(TypeError, match="needs gram and gradient of its basis, which Exponentials"):
        DualProblem(basis, tensor([[1.0], [2.0]]), tensor([1.0, 1.0]))
