"""One polynomial for few rows where left-out rows hardly tell it from partitions."""

import numpy as np

from skpou import HierarchicalPOURegressor


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_sine_of_twelve_rows_within_three_times_a_gaussian_process():
    """The likeliest Gaussian process of two kernels errs by 6.0e-6 of the rows' rms."""
    rows, points = np.linspace(0, 1, 12)[:, None], np.linspace(0, 1, 1001)[:, None]
    y = np.sin(7 * rows[:, 0])
    mean, std = HierarchicalPOURegressor().fit(rows, y).predict(points, return_std=True)
    error = mean - np.sin(7 * points[:, 0])
    assert rms(error) < 1.8e-5 * rms(y)
    assert np.mean(np.abs(error) <= 3 * std) > 0.97


def test_noise_is_not_met_for_simplicity():
    rng = np.random.default_rng(0)
    X = np.sort(rng.random((40, 1)), 0)
    model = HierarchicalPOURegressor().fit(X, np.sin(7 * X[:, 0]) + 0.1 * rng.standard_normal(40))
    points = np.linspace(0.05, 0.95, 500)[:, None]
    assert rms(model.predict(points) - np.sin(7 * points[:, 0])) < 0.06
