"""Changes that change no bit, all at once: one fit of each solver in place of one a change.

Which of them it was when one fails here, the tests of each say, slow beyond the quickest classes:
those of test_regressor, test_validation and test_torch_settings.
"""

import copy

import numpy as np
import pytest
import torch

from tests.base.test_torch_settings import SETTINGS
from tests.estimators import (
    QUERY,
    each_solver,
    fitted,
    fitted_predictions,
    make,
    same_bits,
    stepped,
)

X, Y = stepped()
#: Units of x and y, in powers of two.
SIZE, UNIT = 2.0**500, 2.0**-60
#: Of the predictions of `predictions`, what is in units of y.
OF_Y = ("mean", "std", "epistemic", "noise")


def widened(points, between):
    """Points in other units with a column more in the middle."""
    return np.column_stack([SIZE * points[:, 0], between, SIZE * points[:, 1]])


def changed_rows():
    """`stepped()` in another order, other units, with a constant column and rows of no weight."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(X))
    points = widened(X[order], np.full(len(X), 0.7))
    ignored = np.array([[1e200, 0.3, -1e200], [0.0, -9.0, 1.0]])
    points, targets = np.vstack([ignored, points]), np.append([1e300, -1.0], UNIT * Y[order])
    weight = np.append([0.0, 0.0], np.ones(len(X)))
    return points, targets, weight


@pytest.fixture
def global_state():
    """Seeded global random numbers, which must be untouched at the end."""
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    yield
    assert same_bits(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert torch.is_grad_enabled()


@each_solver
@pytest.mark.usefixtures("global_state")
def test_a_fit_anew_to_changed_rows_under_other_settings(name):
    # Of a model that was fitted before, in other units: it begins anew.
    model = copy.deepcopy(fitted(name)).set_params(device="cpu")
    if "n_jobs" in make(name).get_params(deep=False):
        model.set_params(n_jobs=2)
    points = widened(QUERY, np.linspace(-9, 9, len(QUERY)))
    with SETTINGS["meta, float16, no grad"]():
        model.fit(*changed_rows())
        found = dict(zip(("mean", "std"), model.predict(points, return_std=True), strict=True))
        for kind in ("epistemic", "noise"):
            found[kind] = model.predict(points, return_std=kind)[1]
        assert not torch.is_grad_enabled()
    expected = fitted_predictions(name)
    other = {
        kind: np.abs(found[kind] - UNIT * expected[kind]).max() / UNIT
        for kind in OF_Y
        if not same_bits(found[kind], (UNIT * expected[kind]).astype(found[kind].dtype))
    }
    assert not other, f"other bits, with largest differences {other}"
