"""What equations on pieces leave open is counted, and unknowns at a bound are named."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from skpou.physics import Equation, Unknown

LINE = np.linspace(0, 1, 50)[:, None]


@pytest.mark.parametrize("cls", [HierarchicalPOURegressor, LSGDRegressor])
def test_open_directions_are_counted(cls):
    """Of a beam with one value there are three, of which round-off makes no more."""
    beam = Equation(lambda u, x: u.d(0, 0, 0, 0) - torch.exp(x[:, 0]), LINE)
    with pytest.warns(ConvergenceWarning, match="leave 3 directions of the solution open"):
        model = cls(physics=beam).fit([[0.0]], [1.0])
    _, std = model.predict([[0.9]], return_std="epistemic")
    assert std[0] > 0.1


def test_directions_that_a_constant_hides():
    """One piece of a low degree is enough for a constant, but not for the sines beside it."""
    equation = Equation(lambda u, x: u.d(0, 0, 0) + 49 * u.d(0), LINE)
    with pytest.warns(ConvergenceWarning, match="leave 2 directions of the solution open"):
        model = HierarchicalPOURegressor(physics=equation).fit([[0.0]], [1.0])
    _, std = model.predict([[0.5]], return_std="epistemic")
    assert std[0] > 0.1


def test_few_points_in_pieces_leave_no_direction_open():
    """Two or three points in each of 16 pieces determine their parabolas."""
    points = np.sort(np.random.default_rng(60).random((60, 1)), 0)
    model = POURegressor(physics=Equation(lambda u, x: u.d(0, 0) + 3 * u(), points, points[:, 0]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit([[0.0], [1.0]], [0.0, 1.0])
    assert not any("open" in str(warning.message) for warning in caught)


def test_unknowns_at_a_bound_are_named():
    t = np.linspace(0, 2, 30)[:, None]
    decay = Equation(lambda u, x, p: u.d(0) + p["rate"] * u(), "chebyshev", box=[[0, 2]])
    unknowns = {"rate": Unknown(1.0, bounds=(0.5, 2.0))}
    with pytest.warns(ConvergenceWarning, match="unknowns 'rate' ended at a bound"):
        HierarchicalPOURegressor(physics=decay, unknowns=unknowns).fit(t, np.exp(-2 * t[:, 0]))
