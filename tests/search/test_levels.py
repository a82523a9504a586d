"""Left-out levels as a part of the choice between families."""

import numpy as np
import pytest

from skpou import LSGDRegressor
from skpou.core.models import Stage
from skpou.core.polynomials import TotalDegreePolynomials
from skpou.search.bases.polyharmonic import PolyharmonicSplines
from skpou.search.candidates import Candidate
from skpou.search.levels import ErrorBetweenLevels
from tests.examples import rows_of, slow, tensor


def grid(n):
    axis = np.linspace(0, 1, n)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def polynomial(rows, degree):
    basis = TotalDegreePolynomials(2, degree)
    A = basis.matrix(rows.X)
    coef = tensor(np.linalg.lstsq(A.numpy(), rows.y.numpy(), rcond=None)[0])
    factor = tensor(np.linalg.qr(A.numpy())[1])
    return Candidate("polynomials", (Stage(basis, coef, factor),), 0.0, 0.0, basis.n_columns, 0.0)


def test_scattered_rows_have_no_levels():
    rng = np.random.default_rng(0)
    rows = rows_of(rng.random((60, 2)), rng.random(60))
    assert ErrorBetweenLevels(rows).of(polynomial(rows, 1)) == 0.0


def test_a_polynomial_predicts_levels_of_a_polynomial():
    X = grid(8)
    rows = rows_of(X, X[:, 0] ** 2 - X[:, 1])
    levels = ErrorBetweenLevels(rows)
    assert levels.of(polynomial(rows, 2)) < 1e-10
    assert levels.of(polynomial(rows, 1)) > 0.05


@pytest.mark.parametrize("power", [1, 3])
def test_splines_are_solved_without_the_level(power):
    X = grid(9)
    rows = rows_of(X, np.sin(3 * X[:, 0]) + X[:, 1])
    basis = PolyharmonicSplines(rows.X, tensor([1.0, 1.0]), power)
    candidate = Candidate("rough", (Stage(basis, tensor(np.zeros((84, 1))), tensor(np.eye(2))),),
                          0.0, 0.0, 81, 0.0)  # fmt: skip
    assert 1e-5 < ErrorBetweenLevels(rows).of(candidate) < 0.1


@pytest.mark.parametrize("seed", [0, *slow(1, 2)])
def test_no_seed_takes_units_that_are_exact_at_the_rows_alone(seed):
    X = grid(12)
    truth = lambda Z: np.cos(6 * Z[:, 0]) + np.sin(5 * Z[:, 1]) ** 2  # noqa: E731
    points = np.random.default_rng(1).random((500, 2))
    model = LSGDRegressor(random_state=seed).fit(X, truth(X))
    assert np.sqrt(np.mean((model.predict(points) - truth(points)) ** 2)) < 1e-3
