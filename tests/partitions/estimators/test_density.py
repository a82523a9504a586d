"""Widths of the noise about the mean of pieces: ``HierarchicalPOURegressor(density=...)``."""

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor
from skpou.physics import Equation, Unknown

POINTS = np.linspace(0.02, 0.98, 100)[:, None]


def noise_of(x):
    """It grows tenfold along the line."""
    return 0.02 * 10**x


def step_and_noise(n, seed):
    """Two smooth pieces with a jump between them, in noise that varies within both."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (n, 1))
    mean = np.where(x[:, 0] < 0.5, x[:, 0], 3 - x[:, 0])
    return x, mean + noise_of(x[:, 0]) * rng.standard_normal(n)


@pytest.fixture(scope="module")
def models():
    x, y = step_and_noise(250, 0)
    return {
        density: HierarchicalPOURegressor(density=density).fit(x, y)
        for density in ("auto", "gaussian", "mixture")
    }


def test_bars_follow_noise_that_varies_within_pieces(models):
    ratio = {
        density: model.predict(POINTS, return_std="noise")[1] / noise_of(POINTS[:, 0])
        for density, model in models.items()
    }
    away = np.abs(POINTS[:, 0] - 0.5) > 0.05
    assert len(models["auto"].coef_) > 1
    assert np.all((ratio["auto"] > 0.6) & (ratio["auto"] < 1.7) | ~away)
    off = {density: np.abs(np.log(r[away])).mean() for density, r in ratio.items()}
    assert off["auto"] < 0.7 * off["gaussian"]


def test_left_out_rows_choose_the_law(models):
    assert models["gaussian"].density_ is models["gaussian"]._noise_law is None
    assert models["auto"]._noise_law is not None
    x, y = step_and_noise(2000, 1)
    gain = models["auto"].log_density(x, y) - models["gaussian"].log_density(x, y)
    assert gain.mean() > 0.03


def test_a_law_costs_no_accuracy_and_keeps_the_partitions(models):
    x = POINTS[:, 0]
    away, truth = np.abs(x - 0.5) > 0.05, np.where(x < 0.5, x, 3 - x)
    relative = {
        density: np.sqrt(np.mean(((model.predict(POINTS) - truth) / noise_of(x))[away] ** 2))
        for density, model in models.items()
    }
    for density in ("auto", "mixture"):
        assert relative[density] < 1.01 * relative["gaussian"]
        expected, found = (models[d].predict_partition(POINTS) for d in ("gaussian", density))
        np.testing.assert_array_equal(found[away], expected[away])


def test_the_finest_level_has_the_density(models):
    model = models["auto"]
    finest = len(model.tree_) - 1
    np.testing.assert_array_equal(
        model.predict(POINTS, return_std="noise", level=finest)[1],
        model.predict(POINTS, return_std="noise")[1],
    )


def test_refit_finds_the_noise_of_the_new_targets(models):
    model = HierarchicalPOURegressor(density="mixture").fit(*step_and_noise(200, 2))
    x, y = step_and_noise(200, 3)
    model.refit(x, 100 * y)
    ratio = model.predict(POINTS, return_std="noise")[1] / (100 * noise_of(POINTS[:, 0]))
    assert 0.5 < np.median(ratio) < 2


def test_even_noise_is_that_of_the_pieces():
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 1, (300, 1))
    y = np.sin(6 * x[:, 0]) + 0.1 * rng.standard_normal(300)
    assert HierarchicalPOURegressor().fit(x, y).density_ is None


def test_expectation_maximization_keeps_its_own():
    x, y = step_and_noise(200, 5)
    options = {"n_partitions": 2, "degree": 1, "solver": "em", "tol": 1e-2}
    assert HierarchicalPOURegressor(**options).fit(x, y).density_ is None
    asked = HierarchicalPOURegressor(density="mixture", **options).fit(x, y)
    assert asked.density_ is not None


def test_beside_equations():
    """The mixture on request: an unknown rate, and noise that grows along the line."""
    rng = np.random.default_rng(6)
    x = rng.uniform(0, 1, (300, 1))
    y = np.exp(-1.3 * x[:, 0]) + noise_of(x[:, 0]) * rng.standard_normal(300)
    options = {
        "physics": Equation(
            lambda u, x, p: u.d(0) + p["rate"] * u(), np.linspace(0, 1, 40)[:, None]
        ),
        "unknowns": {"rate": Unknown(1.0)},
    }
    assert HierarchicalPOURegressor(**options).fit(x, y).density_ is None
    model = HierarchicalPOURegressor(density="mixture", **options).fit(x, y)
    low, high = model.predict([[0.05], [0.95]], return_std=True)[1]
    assert 0.013 < low < 0.04
    assert 0.1 < high < 0.26
    with pytest.raises(ValueError, match="X has no rows"):
        HierarchicalPOURegressor(density="mixture", **options).fit(np.empty((0, 1)), [])


def test_what_few_exact_rows_miss_is_no_noise():
    """Forty rows of a square root: all of the error is beside its end, where few rows tell it."""
    x = np.linspace(0, 1, 40)[:, None]
    assert HierarchicalPOURegressor().fit(x, np.sqrt(x[:, 0])).density_ is None
