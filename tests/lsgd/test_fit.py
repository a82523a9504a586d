"""Networks of a given size: solvers, ridge, noise, leave-one-out, interruption."""

import dataclasses

import numpy as np
import pytest
import torch

from skpou.core.optim import ProjectedProblem
from skpou.core.records import TrainingInterrupted
from skpou.lsgd.evident import is_affordable
from skpou.lsgd.fit import (
    SOLVERS,
    NetworkOptions,
    NetworkTraining,
    determined_error,
    fit_network,
    is_dual,
)
from skpou.networks.architecture import Network
from tests.examples import rows_of


def sine(n=100, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 1))
    y = np.sin(6 * X[:, 0]) / np.sqrt(0.5)
    return rows_of(X, y + noise * rng.standard_normal(n))


class FixedColumns:
    """Columns without parameters."""

    n_parameters = 0

    def __init__(self, columns):
        self.columns, self.n_columns = columns, columns.shape[1]

    def matrix(self, theta):
        return self.columns


def fit(rows, sizes=(8,), seed=0, report=None, **options):
    network = Network(rows.n_features, sizes)
    options = NetworkOptions(network, **options)
    return fit_network(rows, options, np.random.default_rng(seed), report)


@pytest.mark.parametrize(
    ("solver", "error"), [("varpro", 1e-7), ("lbfgs", 1e-4), ("lsgd", 1e-2), ("gd", 0.3)]
)
def test_every_solver_fits_a_sine(solver, error):
    rows = sine()
    result = fit(rows, solver=solver, learning_rate=2e-2, max_iter=300)
    residual = result.state.mean(rows.X) - rows.y
    assert float(residual.square().mean().sqrt()) < error
    assert result.curve[0] >= min(result.curve)
    assert len(result.curve) == result.n_iter


def test_all_solvers_are_tested():
    assert set(SOLVERS) == {"varpro", "lbfgs", "lsgd", "gd"}


def test_more_parameters_than_rows_go_the_dual_way():
    rows, sizes = sine(20), (24, 24)
    assert is_dual(Network(1, sizes), rows) and not is_affordable(Network(1, sizes), rows)
    assert not is_dual(Network(1, (4,)), rows)
    result = fit(rows, sizes, max_iter=100)
    assert float((result.state.mean(rows.X) - rows.y).abs().max()) < 1e-5


@pytest.mark.parametrize("alpha", [1e-1, 1e-3])
def test_score_is_the_error_of_refits_without_a_row(alpha):
    rows = sine(30, noise=0.1)
    result = fit(rows, (5,), alpha=alpha, max_iter=20)
    A = result.state.stages[0].basis.matrix(rows.X).numpy()
    ridge = alpha**2 * np.square(A).sum(0).max() * np.eye(A.shape[1])
    y, errors = rows.y[:, 0].numpy(), []
    for i in range(30):
        kept = np.arange(30) != i
        coef = np.linalg.solve(A[kept].T @ A[kept] + ridge, A[kept].T @ y[kept])
        errors.append(y[i] - A[i] @ coef)
    assert result.score == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)


def test_given_ridge_gives_its_coefficients():
    rows = sine(40, noise=0.1)
    result = fit(rows, (5,), alpha=0.1, max_iter=10)
    A = result.state.stages[0].basis.matrix(rows.X)
    ridge = 0.01 * A.square().sum(0).max() * torch.eye(6, dtype=A.dtype)
    torch.testing.assert_close(
        result.state.stages[0].coef, torch.linalg.solve(A.T @ A + ridge, A.T @ rows.y)
    )
    assert result.chosen["alpha"] == 0.1


def test_error_of_coefficients_that_leave_few_digits():
    """The tail of a saturated unit times 1e11 is a column as good as another but for digits."""
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    weight = torch.ones(9, dtype=torch.float64)
    for tail, allowed in ((1e-2, True), (1e-11, False)):
        columns = torch.cat([torch.ones_like(x), 1 + tail * x], 1)
        problem = ProjectedProblem(FixedColumns(columns), x**3, weight)
        fitted = problem.solve(torch.empty(0, dtype=x.dtype), 0.0)
        error = determined_error(fitted)
        assert error == (fitted.leave_one_out() if allowed else np.inf)


@pytest.mark.parametrize("solver", ["varpro", "lsgd"])
def test_noise_level(solver):
    result = fit(sine(500, noise=0.2), solver=solver, max_iter=100)
    assert float(result.state.noise.sqrt()) == pytest.approx(0.2, rel=0.1)


def test_interrupt_hands_over_the_best_so_far():
    lines = []

    def report(line):
        lines.append(line)
        if len(lines) == 12:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as stopped:
        fit(sine(), solver="lsgd", report=report)
    assert stopped.value.result.code == "interrupted"
    assert len(stopped.value.result.curve) == 12


def test_interrupt_before_anything():
    training = NetworkTraining(
        sine(), NetworkOptions(Network(1, (3,))), np.random.default_rng(0), None
    )

    def interrupt():
        raise KeyboardInterrupt

    training.start = interrupt
    with pytest.raises(KeyboardInterrupt):
        training.run()


def test_schedule_keeps_a_given_ridge():
    options = NetworkOptions(Network(1, (3,)), alpha=1e-2)
    schedule = options.schedule()
    schedule.follow(1e-9)
    assert schedule.value == 1e-4
    free = dataclasses.replace(options, alpha=None).schedule()
    free.follow(1e-9)
    assert free.value < 1e-20


@pytest.mark.parametrize("solver", ["varpro", "lsgd", "lbfgs"])
def test_one_row_without_a_ridge(solver):
    """Nothing but the ridge determines most coefficients; the target is met all the same."""
    rows = rows_of([[0.0]], [1.0])
    result = fit(rows, solver=solver, alpha=0.0, max_iter=3)
    assert float(result.state.mean(rows.X)[0, 0]) == pytest.approx(1.0, abs=1e-6)
