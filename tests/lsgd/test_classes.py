"""Classification networks: the convex last layer, its projection, solvers, left-out rows."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from skpou.core.classes import left_out_logits
from skpou.core.records import TrainingInterrupted
from skpou.lsgd.class_model import NetworkClasses
from skpou.lsgd.class_problem import ClassProblem
from skpou.lsgd.classes import CLASS_SOLVERS, fit_network_classes
from skpou.lsgd.fit import NetworkOptions
from skpou.networks.architecture import Network
from skpou.networks.basis import NetworkColumns
from skpou.networks.initializations import box
from tests.contracts import TrainingContract
from tests.examples import rows_of, tensor


def disc(n=120, K=2, noise=0.05, seed=0):
    """Points of the square and rings about its middle, some of them mistaken."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 2))
    ring = np.minimum((K * 1.6 * ((X - 0.5) ** 2).sum(1) ** 0.5).astype(int), K - 1)
    wrong = rng.random(n) < noise
    return X, np.where(wrong, rng.integers(K, size=n), ring)


def rows_from(X, labels, K, weight=None):
    return rows_of(X, np.eye(K)[labels], weight)


def fit(rows, sizes=(8,), seed=0, report=None, **options):
    network = Network(rows.n_features, sizes)
    options = NetworkOptions(network, **{"tol": 1e-4, "max_iter": 60} | options)
    return fit_network_classes(rows, options, np.random.default_rng(seed), report)


def cross_entropy(state, X, labels):
    logs = state.log_proba(tensor(X)).numpy()
    return -logs[np.arange(len(labels)), labels].mean()


# The projected problem


def make_problem(K, alpha=0.03, n=40):
    X, labels = disc(n, K, 0.2)
    weight = 1.0 + np.arange(n) % 3
    rows = rows_from(X, labels, K, weight)
    network = Network(2, (3,))
    problem = ClassProblem(NetworkColumns(network, rows.X), rows, alpha)
    return problem, box(network, np.random.default_rng(1), rows.X)


def value_of(problem, theta, coef):
    """Twice the negative log likelihood with both ridges, from its formula."""
    columns = problem.basis.network.forward(theta, problem.rows.X)
    logs = torch.log_softmax(problem.offset + columns @ coef, 1)
    nll = -(problem.rows.weight[:, None] * problem.rows.y * logs).sum()
    ridge = problem.alpha**2 * problem.total * coef.square().sum()
    return 2 * nll + ridge + theta.square().sum() / problem.spread


@pytest.mark.parametrize("K", [1, 2, 3])
def test_coefficients_are_those_of_least_value(K):
    problem, theta = make_problem(K)
    fit = problem.solve(theta)
    coef = fit.coef.clone().requires_grad_()
    value = value_of(problem, theta, coef)
    assert float(value.detach()) == pytest.approx(fit.value)
    (slope,) = torch.autograd.grad(value, coef)
    assert slope.abs().max() < 1e-3 * problem.total


@pytest.mark.parametrize("K", [2, 3])
def test_steps_descend_the_projected_value(K):
    problem, theta = make_problem(K)
    fit = problem.solve(theta)
    model = problem.linearise(fit)
    at = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value_of(problem, at, fit.coef), at)
    torch.testing.assert_close(2 * (model.pull + theta / problem.spread), slope)
    step, promised = model.step(10.0)
    decrease = fit.value - problem.solve(theta + step).value
    assert 0.7 * promised < decrease < 1.3 * promised


def test_parameters_that_are_not_finite():
    problem, theta = make_problem(2)
    assert problem.solve(theta * np.nan).value == np.inf


# Solvers


class TestTraining(TrainingContract):
    def make_rows(self, order=None, times=1, dtype=torch.float64):
        X, labels = disc(60)
        order = np.arange(60) if order is None else order
        # Classes are counted: a row that comes three times has a third of the weight each.
        X, labels = np.repeat(X[order], times, 0), np.repeat(labels[order], times)
        return rows_from(X, labels, 2, np.full(len(X), 1 / times)).to(dtype)

    def run(self, rows, rng, report=None):
        network = Network(rows.n_features, (4,))
        return fit_network_classes(rows, NetworkOptions(network, max_iter=12), rng, report)

    def predict(self, state, X):
        return NetworkClasses.from_arrays(state.arrays(), X).log_proba(X)

    def rebuild(self, state, like):
        return NetworkClasses.from_arrays(pickle.loads(pickle.dumps(state.arrays())), like)

    def test_state_survives_as_arrays(self):
        _, rows, result, _ = self.usual()
        X = self.points(rows)
        again = self.rebuild(result.state, rows.X)
        assert torch.equal(again.log_proba(X), result.state.log_proba(X))


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("solver", CLASS_SOLVERS)
def test_every_solver_learns_rings(solver, K):
    rows = rows_from(*disc(300, K, 0.0), K)
    result = fit(rows, (12,), solver=solver, learning_rate=0.05, max_iter=150)
    X, labels = disc(1000, K, 0.0, seed=1)
    chosen = result.state.log_proba(tensor(X)).argmax(1).numpy()
    assert (chosen == labels).mean() > 0.93
    assert len(result.curve) == result.n_iter


def test_ten_passes_with_newton_are_worth_a_hundred_without():
    rows = rows_from(*disc(300, 3), 3)
    options = {"learning_rate": 5e-3, "alpha": 1e-2}
    descent = fit(rows, (20,), solver="gd", max_iter=100, **options)
    assert min(fit(rows, (20,), solver="lsgd", max_iter=10, **options).curve) < descent.curve[-1]


@pytest.mark.parametrize("solver", CLASS_SOLVERS)
def test_minibatches_and_networks_of_all_kinds(solver):
    rows = rows_from(*disc(60, 3), 3)
    network = Network(2, (4, 4), "residual", "relu")
    options = NetworkOptions(network, "data_box", solver, batch_size=16, max_iter=10, tol=1e-4)
    result = fit_network_classes(rows, options, np.random.default_rng(0))
    assert np.isfinite(result.curve).all()
    assert result.curve[-1] < np.log(3)


def test_noise_is_not_memorised():
    """32 units for fifty rows of no rule: the evidence leaves the shares of the classes."""
    rng = np.random.default_rng(0)
    rows = rows_from(rng.random((50, 2)), rng.integers(3, size=50), 3)
    state = fit(rows, (32,), max_iter=200).state
    fresh = tensor(rng.random((200, 2)))
    shares = rows.y.mean(0).log()
    assert (state.log_proba(fresh) - shares).abs().max() < 0.3


def test_an_interrupt_before_anything_is_known():
    def press(line):
        raise KeyboardInterrupt

    rows = rows_from(*disc(30), 2)
    with pytest.raises(TrainingInterrupted) as stopped:
        fit(rows, report=press)
    assert stopped.value.result is not None
    assert stopped.value.result.code == "interrupted"


# Left-out rows


@pytest.mark.parametrize("K", [2, 3])
def test_left_out_logits_are_those_of_other_fits(K):
    problem, theta = make_problem(K, alpha=0.1, n=30)
    rows, offset = problem.rows, problem.offset
    coef = problem.solve(theta).coef
    Phi = problem.basis.matrix(theta)
    p = Phi.shape[1]

    def jacobian(block):
        return torch.einsum("np,kl->nklp", Phi[block], torch.eye(K).double()).flatten(2)

    some = torch.tensor([0, 7, 20])
    ridge = torch.full((K * p,), problem.strength**2, dtype=torch.float64)
    found = left_out_logits(offset + Phi @ coef, rows.y, rows.weight, jacobian, ridge, some)
    for number, logits in zip(some, found, strict=True):
        kept = torch.arange(rows.n_rows) != number
        other = ClassProblem(problem.basis.rows(kept), rows.subset(kept), 0.1)
        other.alpha *= np.sqrt(problem.total / other.total)  # The same ridge
        other.offset = offset
        expected = offset + Phi[number] @ other.solve(theta).coef
        # They differ by what Newton's second step would change.
        moved = (expected - offset - Phi[number] @ coef).norm()
        assert (logits - expected).norm() < 0.3 * moved


@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_are_calibrated(seed):
    """Classes drawn by known probabilities: those of a network come near them."""
    rng = np.random.default_rng(seed)

    def proba(X):
        return 1 / (1 + np.exp(-3 * np.sin(4 * X[:, 0]) - 2 * (X[:, 1] - 0.5)))

    X = rng.random((300, 2))
    labels = (rng.random(300) < proba(X)).astype(int)
    result = fit(rows_from(X, labels, 2), (16,))
    fresh = rng.random((2000, 2))
    found = result.state.log_proba(tensor(fresh)).exp()[:, 1].numpy()
    assert np.abs(found - proba(fresh)).mean() < 0.07
    drawn = (rng.random(2000) < proba(fresh)).astype(int)
    assert abs(cross_entropy(result.state, fresh, drawn) - result.score) < 0.06


def test_shares_and_points_outside_the_box():
    state = fit(rows_from(*disc(60, 3), 3), max_iter=10).state
    share = tensor([0.2, 0.3, 0.5])
    X = tensor([[0.1, 0.2], [0.9, 0.4]])
    torch.testing.assert_close(state.of_shares(share).log_proba(X), share.log().expand(2, 3))
    assert torch.equal(state.log_proba(tensor([[1.7, 0.5]])), state.log_proba(tensor([[1.0, 0.5]])))
    assert dataclasses.is_dataclass(state)
    assert state.numbers_per_row() > 0
