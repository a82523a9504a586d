"""Smooth functions of few rows, and of rows on lines, beside a Gaussian process."""

import pickle

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, POURegressor
from tests.examples import relative_error, slow

#: Volume of the Nile at Aswan from 1871 to 1970, in 1e8 cubic metres: the dam's building began in
#: 1898. Source: Cobb (1978), "The problem of the Nile".
NILE = [
    1120,
    1160,
    963,
    1210,
    1160,
    1160,
    813,
    1230,
    1370,
    1140,
    995,
    935,
    1110,
    994,
    1020,
    960,
    1180,
    799,
    958,
    1140,
    1100,
    1210,
    1150,
    1250,
    1260,
    1220,
    1030,
    1100,
    774,
    840,
    874,
    694,
    940,
    833,
    701,
    916,
    692,
    1020,
    1050,
    969,
    831,
    726,
    456,
    824,
    702,
    1120,
    1100,
    832,
    764,
    821,
    768,
    845,
    864,
    862,
    698,
    845,
    744,
    796,
    1040,
    759,
    781,
    865,
    845,
    944,
    984,
    897,
    822,
    1010,
    771,
    676,
    649,
    846,
    812,
    742,
    801,
    1040,
    860,
    874,
    848,
    890,
    744,
    749,
    838,
    1050,
    918,
    986,
    797,
    923,
    975,
    815,
    1020,
    906,
    901,
    1170,
    912,
    746,
    919,
    718,
    714,
    740,
]


def line(low, high, n):
    return np.linspace(low, high, n)[:, None]


def runge(X):
    return 1 / (1 + 25 * X[:, 0] ** 2)


def sine(X):
    return np.sin(7 * X[:, 0])


def peak(X):
    return np.exp(-200 * (X[:, 0] - 0.45) ** 2)


def packet(X):
    return np.sin(5 * X[:, 0]) * (1 - np.tanh(X[:, 0] ** 2))


# Three times the error of the likeliest Gaussian process of two kernels: 4.2e-4, 1.4e-3, 1.6e-4.
@pytest.mark.parametrize(
    ("rows", "function", "most"),
    [
        (line(-1, 1, 25), runge, 1.3e-3),
        (line(-2, 2, 20), packet, 4.2e-3),
        (line(0, 1, 35), peak, 4.8e-4),
    ],
    ids=["runge", "packet", "peak"],
)
def test_few_rows_of_a_smooth_function(rows, function, most):
    points = line(rows.min(), rows.max(), 1001)
    model = HierarchicalPOURegressor().fit(rows, function(rows))
    mean, std = model.predict(points, return_std=True)
    assert relative_error(mean, function(points)) < most
    assert np.mean(np.abs(mean - function(points)) <= 3 * std) > 0.95


@pytest.mark.parametrize(("degree", "most"), [("auto", 6e-5), (5, 1e-4)])
def test_twelve_rows_of_a_sine(degree, most):
    """A Gaussian process errs by 6e-6, what was there before by 3e-2."""
    rows, points = line(0, 1, 12), line(0, 1, 1001)
    model = HierarchicalPOURegressor(degree=degree).fit(rows, sine(rows))
    assert relative_error(model.predict(points), sine(points)) < most
    assert model.degree_ >= 5


def test_partitions_of_a_given_number_and_degree():
    rows, points = line(-1, 1, 25), line(-1, 1, 1001)
    model = POURegressor(8, 2).fit(rows, runge(rows))
    assert model.coef_.shape == (8, 3)
    assert relative_error(model.predict(points), runge(points)) < 1.3e-3
    assert np.allclose(model.partition_proba(points).sum(1), 1)


@pytest.mark.parametrize(("n_lines", "most"), slow((5, 3e-3), (9, 1e-7)))
def test_rows_on_lines(n_lines, most):
    rng = np.random.default_rng(5)
    X = np.stack([np.repeat(np.linspace(0, 1, n_lines), 20), rng.random(20 * n_lines)], 1)
    points = rng.random((2000, 2))

    def function(X):
        return np.exp(-2 * X[:, 0]) * np.cos(4 * X[:, 1])

    model = HierarchicalPOURegressor().fit(X, function(X))
    mean, std = model.predict(points, return_std=True)
    assert relative_error(mean, function(points)) < most
    assert np.mean(np.abs(mean - function(points)) <= 3 * std) > 0.95


def test_noise_on_few_rows_of_four_columns():
    """Gates that are moved have as many unknowns as a third of the rows: they erred by 0.14."""
    rng = np.random.default_rng(920)
    rows, points = rng.random((80, 4)), rng.random((500, 4))

    def function(X):
        return np.sin(3 * X[:, 0]) + X[:, 1] ** 2 - X[:, 0] * X[:, 3]

    y = function(rows)
    noisy = y + 0.1 * y.std() * rng.standard_normal(80)
    model = POURegressor().fit(rows, noisy)
    error = model.predict(points) - function(points)
    assert np.sqrt(np.mean(error**2)) < 0.09 * y.std()


def test_what_was_asked_for_stays():
    rows = line(0, 1, 12)
    assert HierarchicalPOURegressor(1, 2).fit(rows, sine(rows)).degree_ == 2
    assert len(HierarchicalPOURegressor(3).fit(rows, sine(rows)).coef_) <= 3
    assert HierarchicalPOURegressor(alpha=0.1).fit(rows, sine(rows)).degree_ <= 5


def test_a_kink_stays_a_kink():
    rows, points = line(0, 1, 40), line(0, 1, 1001)
    model = HierarchicalPOURegressor().fit(rows, np.abs(rows[:, 0] - 0.31))
    assert len(model.coef_) == 2
    assert np.abs(model.predict(points) - np.abs(points[:, 0] - 0.31)).max() < 1e-12


def test_a_shift_in_noise_stays_a_shift():
    """Many constants are better there by a part of what the noise may make them be."""
    year, volume = line(1871, 1970, 100), np.array(NILE, dtype=float)
    model = HierarchicalPOURegressor().fit(year, volume)
    assert model.mixture_[-1]["coef"].shape[:2] == (2, 1)
    before = year[:, 0] < 1898.5
    np.testing.assert_allclose(model.predict(year[before]), volume[before].mean(), rtol=1e-2)
    np.testing.assert_allclose(model.predict(year[~before]), volume[~before].mean(), rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_saved_state_predicts_the_same(dtype):
    """The prior is a part of the state: error bars need it."""
    rows, points = line(0, 1, 12), line(-0.1, 1.1, 50)
    model = HierarchicalPOURegressor(dtype=dtype).fit(rows, np.exp(-rows[:, 0] * 3))
    assert model.mixture_[-1]["prior"].shape == model.coef_.shape
    saved = pickle.loads(pickle.dumps(model))
    for one, other in zip(
        model.predict(points, return_std=True), saved.predict(points, return_std=True), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_warm_start_finds_anew_what_has_no_pieces():
    rows = line(0, 1, 12)
    model = HierarchicalPOURegressor(warm_start=True).fit(rows, sine(rows))
    first = model.predict(rows)
    np.testing.assert_array_equal(model.fit(rows, sine(rows)).predict(rows), first)


def test_other_targets_take_the_gates():
    rows, points = line(-1, 1, 25), line(-1, 1, 200)
    model = POURegressor(8, 2).fit(rows, runge(rows)).refit(rows, np.cos(2 * rows[:, 0]))
    assert relative_error(model.predict(points), np.cos(2 * points[:, 0])) < 1e-2
