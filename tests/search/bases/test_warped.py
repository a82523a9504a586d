"""Stretched coordinates against naive logarithms, and where they are taken."""

import math

import mpmath
import numpy as np
import pytest
import torch

from skpou import LSGDRegressor
from skpou.core import TotalDegreePolynomials
from skpou.search.bases.warped import WarpedBasis, steps_of, stretched
from skpou.sines import SineFeatures
from tests.contracts import BasisContract, same_bits

STEPS = [0.125, math.inf]


class TestWarpedBasis(BasisContract):
    #: Arguments of the sines reach 15, and those of the partial derivatives have a slope of 4.
    row_atol = 1e-13

    def make_basis(self):
        rng = np.random.default_rng(0)
        frequencies = rng.uniform(-5, 5, (3, 2)).astype(np.float32)
        phases = rng.uniform(0, np.pi, 3).astype(np.float32)
        base = SineFeatures(torch.tensor(frequencies).double(), torch.tensor(phases).double())
        return WarpedBasis(base, torch.tensor(STEPS, dtype=torch.float64))

    def naive(self, basis, x):
        c = mpmath.mpf(STEPS[0])
        bent = mpmath.log(1 + x[0] / c) if x[0] > 0 else x[0] / c
        t = [2 * bent / mpmath.log(1 + 1 / c) - 1, 2 * x[1] - 1]
        unit = mpmath.sqrt(2 * len(basis.base.phases))
        angles = [
            sum((mpmath.mpf(a) * b for a, b in zip(w, t)), mpmath.mpf(p))
            for w, p in zip(basis.base.frequencies.tolist(), basis.base.phases.tolist())
        ]
        sines = [mpmath.sin(a) for a in angles] + [mpmath.cos(a) for a in angles]
        return [unit, *(unit * v for v in t), *sines]

    def test_state_survives_as_arrays(self):
        basis = self.make_basis()
        X = torch.rand((5, 2), dtype=torch.float64)
        again = WarpedBasis.from_arrays(basis.arrays(), X)
        assert same_bits(again.matrix(X), basis.matrix(X))


def test_doses_are_evenly_spaced():
    doses = torch.tensor([0.0, 1, 3, 9, 27, 81, 243], dtype=torch.float64)[:, None] / 243
    moved = stretched(doses, steps_of(doses))[:, 0]
    assert moved[0] == 0
    assert moved[-1] == pytest.approx(1)
    assert float(moved.diff().max() / moved.diff().min()) < 2  # As they are: 162


def test_columns_that_are_not_skewed_stay():
    rng = np.random.default_rng(0)
    X = torch.tensor(np.column_stack([rng.random(50), np.arange(50) % 2]))
    assert steps_of(X) is None
    X[:, 0] = X[:, 0] ** 6
    steps = steps_of(X)
    assert 0 < float(steps[0]) < 0.2
    assert math.isinf(float(steps[1]))


def test_a_dose_response_with_a_zero():
    """A logistic function of the logarithm of a dose."""
    rng = np.random.default_rng(0)
    doses = np.repeat(np.r_[0.0, 2.0 ** np.arange(9)], 4)

    def response(x):
        return 1 / (1 + (x / 9) ** 1.5)

    y = response(doses) + 0.03 * rng.standard_normal(len(doses))
    model = LSGDRegressor().fit(doses[:, None], y)
    between = np.geomspace(1, 250, 200)
    error = model.predict(between[:, None]) - response(between)
    assert np.sqrt(np.mean(error**2)) < 0.03


def test_columns_that_stay_are_saved_as_finite_numbers():
    steps = torch.tensor([0.01, torch.inf], dtype=torch.float64)
    basis = WarpedBasis(TotalDegreePolynomials(2, 2), steps)
    arrays = basis.arrays()
    assert np.isfinite(arrays["steps"]).all()
    assert torch.equal(WarpedBasis.from_arrays(arrays, steps).steps, steps)
