"""Networks in stages on equations: gradients, corrections, unknowns, what is refused and said."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import LSGDRegressor, MultiStageRegressor
from skpou.lsgd import EquationNetworkTraining, NetworkOptions
from skpou.multi_stage.joint_descent import EquationDescent
from skpou.networks.architecture import Network
from skpou.networks.derivatives import NetworkDerivatives
from skpou.physics import Equation, Symmetry, Unknown
from tests.estimators import same_bits
from tests.examples import slow, tensor

X = np.linspace(0, 2, 60)[:, None]
FRESH = np.linspace(0, 2, 301)[:, None]
quietly = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")


def forced(u, x):
    return u.d(0) + u() - torch.cos(3 * x[:, 0])


def forced_solution(t):
    return (np.cos(3 * t) + 3 * np.sin(3 * t)) / 10 - 0.1 * np.exp(-t)


def logistic(u, x, p):
    return u.d(0) + p["rate"] * u() ** 2


def make(**params):
    params = {"hidden_layer_sizes": (12,), "physics": Equation(forced, X)} | params
    return MultiStageRegressor(**params)


def error(model, exact=forced_solution):
    return [float(np.abs(mean - exact(FRESH[:, 0])).max()) for mean in model.staged_predict(FRESH)]


# The parts


def test_derivatives_of_a_network_whose_first_layer_is_another():
    network = Network(2, (4, 3), activation="tanh", first_activation="sin")
    rng = np.random.default_rng(0)
    theta, points = tensor(rng.standard_normal(network.n_parameters)), tensor(rng.random((5, 2)))
    found = NetworkDerivatives(network, points, [(0, 1)]).columns(theta)[(0, 1)]
    for i, point in enumerate(points):
        expected = torch.autograd.functional.jacobian(
            lambda x: torch.autograd.functional.jacobian(
                lambda z: network.forward(theta, z[None])[0], x, create_graph=True
            )[:, 0],
            point,
        )[:, 1]
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("unknowns", [{}, {"rate": Unknown(0.6, (0.1, 3.0))}])
@quietly
def test_descent_follows_the_gradient(unknowns):
    """Of later stages, too, by central differences."""
    physics = Equation(logistic if unknowns else forced, X, gradient_weight=0.3)
    first = make(physics=physics, unknowns=unknowns or None, max_iter=2, n_stages=1)
    captured = []
    original = EquationNetworkTraining.__init__

    def kept(self, *args):
        original(self, *args)
        captured.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EquationNetworkTraining, "__init__", kept)
        first.fit([[0.0], [1.0]], [1.0, 0.5])
    last = captured[0]
    stages = last.finished().state.stages
    network = Network(1, (4,), first_activation="sin")
    rng = np.random.default_rng(0)
    theta = tensor(rng.standard_normal(network.n_parameters))
    training = EquationNetworkTraining(
        last.rows, last.equations, NetworkOptions(network), rng, None, stages, theta
    )
    descent = EquationDescent(training, theta, 3.0)
    n = training.base.n_coefficients
    descent.coef[:n, 0] += tensor(rng.standard_normal(n))
    _, by_theta, by_coef = descent.evaluate()
    for variable, gradient in ((descent.variables, by_theta), (descent.coef[:, 0], by_coef[:, 0])):
        for k in range(0, len(variable), 3):
            values = []
            for sign in (1, -1):
                variable[k] += sign * 1e-6
                values.append(descent.evaluate()[0])
                variable[k] -= sign * 1e-6
            slope = (values[0] - values[1]) / 2e-6
            assert float(gradient[k]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


# Stages


@pytest.mark.slow
@quietly
def test_a_second_network_corrects_the_first():
    model = make(solver="adam_lbfgs", max_iter=80, n_stages=2).fit([[0.0]], [0.0])
    errors = error(model)
    assert model.n_stages_ == 2
    assert errors[1] < 0.5 * errors[0] < 0.05
    assert model.scale_factors_[0] == 1 < model.scale_factors_[1]
    assert model.stages_[1]["basis"]["first_activation"] == "sin"
    assert model.equation_residual_ < 1e-2
    assert same_bits(
        make(solver="adam_lbfgs", max_iter=80, n_stages=2).fit([[0.0]], [0.0]).predict(FRESH),
        model.predict(FRESH),
    )


@quietly
def test_variable_projection_hands_over():
    model = make(max_iter=60).fit([[0.0]], [0.0])
    assert error(model)[-1] < 1e-6
    mean, std = model.predict(FRESH, return_std=True)
    assert mean.shape == std.shape == (301,)


@pytest.mark.parametrize("solver", ["varpro", *slow("adam_lbfgs")])
@quietly
def test_unknown_constants_of_nonlinear_equations(solver):
    physics, unknowns = Equation(logistic, X), {"rate": Unknown(0.5, (0.1, 3.0))}
    model = make(
        hidden_layer_sizes=(8,), physics=physics, unknowns=unknowns, solver=solver,
        n_stages=2, max_iter=150,
    ).fit([[0.0], [1.0], [2.0]], [1.0, 1 / 2, 1 / 3])  # fmt: skip
    assert abs(model.unknowns_["rate"] - 1) < 1e-2
    assert error(model, lambda t: 1 / (1 + t))[-1] < 1e-2


def test_scale_factor_that_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(solver="adam_lbfgs", max_iter=60, n_stages=2, scale_factor=7.0)
        model.fit([[0.0]], [0.0])
    assert set(model.scale_factors_) <= {1.0, 7.0}


def even(u, x):
    return u.d(0, 0) + torch.cos(3 * x[:, 0])


@pytest.mark.parametrize("solver", ["varpro", "adam_lbfgs"])
@quietly
def test_a_source_that_is_even_about_the_middle(solver):
    """Units without biases are odd, and no gradient tells them of it."""
    points = np.linspace(-1, 1, 41)[:, None]
    model = make(solver=solver, physics=Equation(even, points), n_stages=1, max_iter=100)
    model.fit([[-1.0], [1.0]], [np.cos(3) / 9] * 2)
    fresh = np.linspace(-1, 1, 301)
    assert np.abs(model.predict(fresh[:, None]) - np.cos(3 * fresh) / 9).max() < 5e-3


@pytest.mark.parametrize("shared", [False, True])
def test_matched_rates_are_those_of_the_losses(shared):
    """Of "balanced" equations, along the steepest descent of the sum of both losses."""
    physics = Equation(forced, X, weight="balanced" if shared else "auto")
    captured = []
    original = EquationDescent.__init__

    def kept(self, *args):
        original(self, *args)
        captured.append(self)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(EquationDescent, "__init__", kept)
        make(physics=physics, solver="adam_lbfgs", max_iter=5, n_stages=1).fit([[0.0]], [0.7])
    descent = captured[0]
    assert descent.balanced == ({1} if shared else set())
    if not shared:
        assert descent.scales == descent.first_scales
        return
    descent._match_rates()
    rates, step = [], 1e-6
    _, *gradients = descent._loss_and_gradients(descent.scales)
    start = descent.variables.clone(), descent.coef.clone()
    for kept_scales in ([descent.scales[0], 0.0], [0.0, descent.scales[1]]):
        losses = []
        for sign in (1, -1):
            descent.variables = start[0] + sign * step * gradients[0]
            descent.coef = start[1] + sign * step * gradients[1]
            losses.append(descent._loss_and_gradients(kept_scales)[0])
        rates.append(np.log(losses[0] / losses[1]))
    assert rates[0] == pytest.approx(rates[1], rel=1e-3)
    assert rates[0] > 0


# What is refused, and what is said


def test_symmetries_and_derivatives_that_are_not_there():
    odd = [Equation(forced, X), Symmetry("odd", 0, center=1.0)]
    with pytest.raises(ValueError, match="property of sine features: it needs hidden_layer_sizes"):
        make(physics=odd).fit([[0.0]], [0.0])
    second = Equation(lambda u, x: u.d(0, 0), X)
    with pytest.raises(ValueError, match="activation='relu' has no derivatives of order 2"):
        make(physics=second, activation="relu").fit([[0.0], [2.0]], [0.0, 1.0])


def test_a_false_solution_is_said_to_be_none():
    """Rectified units may have slopes that are right at the points alone."""
    points = np.linspace(0, 2, 12)[:, None]
    physics = Equation(forced, points)
    model = LSGDRegressor((16, 16), activation="relu", physics=physics, max_iter=30)
    with pytest.warns(ConvergenceWarning, match="not solved: at fresh points their residual is"):
        model.fit([[0.0]], [0.0])
    assert error(MultiStageRegressor(physics=Equation(forced, X)).fit([[0.0]], [0.0]))[-1] < 1e-10


@quietly
def test_an_interrupt_leaves_the_stages_so_far():
    calls = []

    def press(*_, **__):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt

    model = make(solver="adam_lbfgs", max_iter=30, n_stages=2, verbose=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", press)
        with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
            model.fit([[0.0]], [0.0])
    assert np.isfinite(model.predict(FRESH)).all()
