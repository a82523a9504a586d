"""Equations solved by networks of a given size."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import LSGDRegressor
from skpou.lsgd.equations import EquationColumns, RowSet
from skpou.networks.architecture import Network
from skpou.networks.derivatives import NetworkDerivatives
from skpou.physics import Equation, Symmetry, Unknown
from tests.estimators import no_training
from tests.examples import slow

LINE = np.linspace(0, 1, 40)[:, None]
SIDE = np.linspace(0, 1, 17)


def decay(u, x, p):
    return u.d(0) + u()


def decay_at_a_rate(u, x, p):
    return u.d(0) + p["rate"] * u()


def advection(u, x, p):
    return u.d(1) + u.d(0)


def curvature(u, x, p):
    return u.d(0, 0)


def rotation(u, x, p):
    return torch.stack([u[0].d(0) - u[1](), u[1].d(0) + u[0]()], 1)


def riccati(u, x, p):
    return u.d(0) + u() ** 2


def fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


@pytest.mark.parametrize(
    ("solver", "error"), [("varpro", 1e-8), ("gd", 0.05), *slow(("lsgd", 1e-4), ("lbfgs", 1e-5))]
)
def test_decay(solver, error):
    model = LSGDRegressor(
        (12,), solver=solver, max_iter=300, learning_rate=0.02, physics=Equation(decay, LINE)
    )
    fit(model, [[0.0]], [1.0])
    assert np.abs(model.predict(LINE) - np.exp(-LINE[:, 0])).max() < error
    assert model.basis_ == ["network"]
    assert model.equation_residual_ < 10 * error


def test_advection_of_a_hat_by_rectified_units():
    inner = SIDE[1:-1]
    points = np.stack(np.meshgrid(inner, inner, indexing="ij"), -1).reshape(-1, 2)
    X = np.unique(np.r_[np.c_[SIDE, 0 * SIDE], np.c_[0 * SIDE, SIDE]], axis=0)

    def exact(X):
        return np.maximum(0, 0.2 - abs(X[:, 0] - X[:, 1] - 0.4))

    model = LSGDRegressor(
        (32,), activation="relu", init="box", solver="lsgd", max_iter=500,
        physics=Equation(advection, points),
    )  # fmt: skip
    fit(model, X, exact(X))
    assert min(model.loss_curve_) < 1e-12


def test_system():
    model = fit(
        LSGDRegressor((16,), max_iter=100, physics=Equation(rotation, 3 * LINE)),
        [[0.0]],
        [[0.0, 1.0]],
    )
    exact = np.c_[np.sin(3 * LINE), np.cos(3 * LINE)]
    np.testing.assert_allclose(model.predict(3 * LINE), exact, atol=1e-6)


def test_equation_that_is_not_affine():
    model = fit(
        LSGDRegressor((10,), max_iter=60, physics=Equation(riccati, 2 * LINE)), [[0.0]], [1.0]
    )
    np.testing.assert_allclose(model.predict(2 * LINE), 1 / (1 + 2 * LINE[:, 0]), atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "steps", "error"),
    [
        ("lbfgs", 60, 1e-4),
        *slow(("lsgd", 150, 1e-3), ("gd", 1500, 0.05)),
    ],
)
def test_equation_that_is_not_affine_by_descent(solver, steps, error):
    """With an unknown constant: u' = -p u^2 has the solution 1 / (1 + p t)."""

    def riccati_at_a_rate(u, x, p):
        return u.d(0) + p["rate"] * u() ** 2

    model = LSGDRegressor(
        (10,), solver=solver, learning_rate=0.02, max_iter=steps,
        physics=Equation(riccati_at_a_rate, 2 * LINE),
        unknowns={"rate": Unknown(0.7, (0.1, 1.9))},
    )  # fmt: skip
    X = 2 * LINE[::4]
    fit(model, X, 1 / (1 + X[:, 0]))
    assert abs(model.unknowns_["rate"] - 1) < 2 * error
    np.testing.assert_allclose(model.predict(2 * LINE), 1 / (1 + 2 * LINE[:, 0]), atol=error)


@pytest.mark.slow
def test_minibatches_of_an_equation_that_is_not_affine():
    model = LSGDRegressor(
        (10,), solver="lsgd", batch_size=16, max_iter=100, physics=Equation(riccati, LINE)
    )
    fit(model, [[0.0]], [1.0])
    np.testing.assert_allclose(model.predict(LINE), 1 / (1 + LINE[:, 0]), atol=1e-2)


@pytest.mark.slow
def test_descent_of_several_outputs():
    physics = Equation(rotation, LINE)
    for solver, error in (("gd", 0.1), ("lsgd", 1e-3)):
        model = LSGDRegressor((12,), solver=solver, max_iter=400, learning_rate=0.02,
                              physics=physics)  # fmt: skip
        fit(model, [[0.0]], [[0.0, 1.0]])
        exact = np.c_[np.sin(LINE), np.cos(LINE)]
        np.testing.assert_allclose(model.predict(LINE), exact, atol=error)


@pytest.mark.parametrize("residual", [decay, riccati])
def test_no_more_iterations_than_asked_for(residual):
    physics = Equation(residual, LINE)
    model = fit(LSGDRegressor((12,), max_iter=20, physics=physics), [[0.0]], [1.0])
    assert len(model.loss_curve_) <= model.n_iter_ <= 20


def test_unknown_of_a_deep_network():
    X = 2 * LINE[::4]
    model = LSGDRegressor(
        (6, 6),
        max_iter=60,
        physics=Equation(decay_at_a_rate, 2 * LINE),
        unknowns={"rate": Unknown(1.0)},
    )
    fit(model, X, np.exp(-1.5 * X[:, 0]))
    assert model.unknowns_["rate"] == pytest.approx(1.5, abs=1e-5)


def test_minibatches_of_data_and_equations():
    options = {"solver": "lsgd", "max_iter": 100, "physics": Equation(decay, LINE)}
    model = fit(LSGDRegressor((8,), batch_size=16, **options), [[0.0]], [1.0])
    assert np.abs(model.predict(LINE) - np.exp(-LINE[:, 0])).max() < 1e-2


def test_rows_as_columns_of_a_basis():
    """Matrix, Jacobian and gradient of stacked rows against torch's own derivatives."""
    network = Network(2, (4, 3))
    rng = np.random.default_rng(0)
    X, theta, coef = (
        torch.tensor(rng.standard_normal(shape))
        for shape in ((5, 2), network.n_parameters, (2 * network.n_columns, 1))
    )
    factors = torch.tensor(rng.random((3, 5)))
    sets = [
        RowSet(NetworkDerivatives(network, X, [(0,), ()]),
               {(0, ()): factors[0], (1, (0,)): factors[1]}, factors[0]),
        RowSet(NetworkDerivatives(network, X, [(0, 1)]), {(1, (0, 1)): factors[2]}, factors[1]),
    ]  # fmt: skip
    columns = EquationColumns(network, sets, 2)
    expected = torch.func.jacrev(lambda t: columns.matrix(t) @ coef)(theta)
    torch.testing.assert_close(columns.jacobian(theta, coef), expected)
    v = torch.tensor(rng.random((10, 1)))
    torch.testing.assert_close(
        columns.gradient(theta, coef, v), torch.einsum("nmk,nm->k", expected, v)
    )
    index = torch.tensor([7, 2])
    some = columns.rows(index)
    torch.testing.assert_close(some.matrix(theta), columns.matrix(theta)[index])
    torch.testing.assert_close(some.jacobian(theta, coef), expected[index])
    torch.testing.assert_close(
        some.gradient(theta, coef, v[:2]), torch.einsum("nmk,nm->k", expected[index], v[:2])
    )


@pytest.mark.parametrize(
    ("physics", "options", "match"),
    [
        (Equation(curvature, LINE), {"activation": "relu"},
         "activation='relu' has no derivatives of order 2"),
        ([Equation(decay, LINE), Symmetry("odd", 0)], {}, "Symmetry.* needs hidden_layer_sizes"),
    ],
    ids=["relu", "symmetry"],
)  # fmt: skip
def test_refused(physics, options, match):
    with no_training(), pytest.raises(ValueError, match=match):
        LSGDRegressor((4,), physics=physics, **options).fit([[0.0]], [1.0])


@pytest.mark.slow
def test_too_few_points_for_the_parameters():
    """Once seen to be obeyed at the points alone, the equation is solved at more of them."""

    def wave(u, x):
        return u.d(0, 0) + (4 * np.pi) ** 2 * torch.sin(4 * np.pi * x[:, 0])

    points = np.linspace(-1, 1, 24)[:, None]
    model = LSGDRegressor((16, 16), physics=Equation(wave, points), max_iter=60, random_state=0)
    fit(model, [[-1.0], [1.0]], [0.0, 0.0])
    fresh = np.linspace(-1, 1, 501)[:, None]
    assert np.abs(model.predict(fresh) - np.sin(4 * np.pi * fresh[:, 0])).max() < 0.02
    assert model.n_iter_ <= 60


def test_a_jump_that_no_point_sees_is_said_to_be_none():
    """Rectified units that solve an equation at its points and at fresh ones, and err by a half."""

    def relaxation(u, x):
        return u.d(0) + 3 * u() - torch.exp(-x[:, 0])

    physics = Equation(relaxation, LINE)
    model = LSGDRegressor((24,), activation="relu", physics=physics, max_iter=60, random_state=1)
    with pytest.warns(ConvergenceWarning, match="The equations are not solved"):
        model.fit([[0.0]], [1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        LSGDRegressor(physics=physics).fit([[0.0]], [1.0])
