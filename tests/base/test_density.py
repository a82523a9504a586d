"""The choice of a density: one Gaussian a point or a fitted mixture, for any model."""

import numpy as np
import torch

from skpou import SparseGridRegressor
from skpou.base.density import ResidueDensityMixin
from skpou.core.models.mixed_residues import MixedResidues, fit_residues
from tests.core.models.test_mixed_residues import linear, noisy
from tests.examples import rows_of, tensor


class Chooser(ResidueDensityMixin):
    """What the mixin asks of an estimator."""

    def __init__(self, density, rows):
        self.density, self.model = density, linear(rows)
        self.density_ = self._fitted_density(self.model, rows)

    def _gaussian_model(self, like):
        return self.model

    def _laws(self, like):
        return None


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


def varying(rows, factor):
    """The same rows with noise that grows along the first column."""
    rng = np.random.default_rng(5)
    x = rows.X[:, 0].numpy()
    noise = 0.3 * np.exp(factor * x)[:, None] * rng.standard_normal(tuple(rows.y.shape))
    return rows_of(rows.X.numpy(), np.sin(3 * x)[:, None] + noise)


def test_auto_is_one_gaussian_where_noise_is_even():
    assert Chooser("auto", varying(noisy(200, 2), 0.0)).density_ is None


def test_auto_is_the_mixture_where_noise_varies():
    chooser = Chooser("auto", varying(noisy(200, 1), 3.0))
    assert len(chooser.density_[0]["variance"]) > 1
    low, high = (
        chooser._model(tensor([[x]])).components(tensor([[x]])).variances()[0].item()
        for x in (0.05, 0.95)
    )
    assert high > 20 * low  # of exp(5.4) = 221


def test_auto_with_equations_is_one_gaussian():
    class Solver(Chooser):
        physics = ()

    assert Solver("auto", varying(noisy(200, 1), 3.0)).density_ is None


def test_default_bars_follow_noise_that_varies():
    """Relative noise over two decades, and what one Gaussian makes of it."""
    rng = np.random.default_rng(1)
    x = 10 ** rng.uniform(0, 2, 400)
    y = x**0.7 * (1 + 0.02 * rng.standard_normal(400))
    points = np.logspace(0.05, 1.95, 100)
    far = {}
    for density in ("auto", "gaussian"):
        model = SparseGridRegressor(density=density).fit(np.log(x)[:, None], y)
        std = model.predict(np.log(points)[:, None], return_std=True)[1]
        far[density] = np.abs(np.log(std / (0.02 * points**0.7))).mean()
    assert far["auto"] < 0.6 * far["gaussian"]
