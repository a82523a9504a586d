"""The choice of a density: one Gaussian a point or a fitted mixture, for any model."""

import numpy as np
import torch

from skpou.base.density import ResidueDensityMixin
from skpou.core.models.mixed_residues import MixedResidues, fit_residues
from tests.core.models.test_mixed_residues import linear, noisy
from tests.examples import tensor


class Chooser(ResidueDensityMixin):
    """What the mixin asks of an estimator."""

    def __init__(self, density, rows):
        self.density, self.model = density, linear(rows)
        self.density_ = self._fitted_density(self.model, rows)

    def _gaussian_model(self, like):
        return self.model


X = tensor(np.linspace(-0.3, 1.3, 11)[:, None])


def same(one, two):
    assert type(one) is type(two)
    assert all(
        torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True)
    )


def test_gaussian_is_that_of_the_model():
    chooser = Chooser("gaussian", noisy(40, 2))
    assert chooser.density_ is None
    assert chooser._gates_per_row() == 0
    assert chooser._model(X) is chooser.model


def test_mixture_is_fitted_to_the_rows():
    rows = noisy(40, 2)
    chooser = Chooser("mixture", rows)
    expected = fit_residues(chooser.model, rows)
    for found, state in zip(chooser.density_, expected, strict=True):
        for name, array in state.items():
            np.testing.assert_array_equal(found[name], array)
    assert chooser._gates_per_row() == 2
    mixture = MixedResidues.from_states(chooser.model, expected, X)
    same(chooser._model(X).components(X), mixture.components(X))


def test_density_does_not_change_the_mean():
    rows = noisy(40, 2)
    one, two = (Chooser(kind, rows)._model(X).components(X) for kind in ("gaussian", "mixture"))
    torch.testing.assert_close(one.expectation(), two.expectation())
