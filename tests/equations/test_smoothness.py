"""Unknowns that data and equations tell, and those that only smoothness does."""

import math

import numpy as np
import pytest

from skpou import LSGDRegressor
from skpou.physics import Equation, Unknown

POINTS = np.linspace(-1, 1, 60)[:, None]


def power(u, x, p):
    """``|x|^p`` solves it for every p."""
    return x[:, 0] * u.d(0) - p["p"] * u()


def fitted(X, y):
    model = LSGDRegressor(
        physics=Equation(power, POINTS),
        unknowns={"p": Unknown(2.6, bounds=(1.5, 4.5))},
        hidden_layer_sizes=(8,),
        solver="varpro",
        max_iter=20,
        random_state=0,
    )
    return model.fit(X, y)


def test_an_exponent_that_the_ends_leave_open_is_named_and_may_be_anywhere():
    X = np.array([[-1.0], [1.0]])
    with pytest.warns(UserWarning, match="'p' are told by the smoothness"):
        model = fitted(X, [1.0, 1.0])
    assert model.unknowns_std_["p"] > 0.99 * 3 / math.sqrt(12)
    # Another of its solutions is within the bars of the mean.
    other = np.abs(POINTS[:, 0]) ** 2.5
    mean, std = model.predict(POINTS, return_std=True)
    assert np.mean(np.abs(mean - other) < 3 * std) > 0.9


@pytest.mark.filterwarnings("error:.*told by the smoothness")
@pytest.mark.filterwarnings("ignore:.*max_iter")
def test_an_exponent_that_a_value_tells_is_not():
    model = fitted([[-1.0], [0.5], [1.0]], [1.0, 0.25, 1.0])
    assert model.unknowns_["p"] == pytest.approx(2, abs=1e-3)
    assert model.unknowns_std_["p"] < 1e-2
