"""Central intervals of every regressor, and their calibration by rows set aside."""

import math
import pickle

import numpy as np
import pytest
import torch

from skpou import SparseGridRegressor
from tests.estimators import (
    QUERY,
    each_quick_class,
    fitted,
    kinked,
    make,
    members_of,
    same_bits,
    stepped,
)

#: Share of wild rows among those that calibrate.
WILD = 0.1


def contaminated(n_rows, seed):
    """Fresh rows of `stepped`, a tenth of them far off: the fitted densities know nothing of it."""
    X, y = kinked(n_rows, seed=seed)
    y = y + 2.0 * (X[:, 0] > 0)
    rng = np.random.default_rng(seed)
    wild = rng.random(n_rows) < WILD
    return X, y + 30 * wild * rng.standard_normal(n_rows)


@each_quick_class
def test_interval_is_central(name):
    model = fitted(name)
    ends = model.predict_interval(QUERY, 0.8)
    assert ends.shape == (len(QUERY), 2)
    np.testing.assert_allclose(ends, model.predict_quantile(QUERY, (0.1, 0.9)), rtol=1e-9)
    assert same_bits(model.predict_interval(QUERY), model.predict_interval(QUERY, coverage=0.9))


@each_quick_class
def test_coverage_of_all_ways_to_set_one_row_aside_is_exact(name):
    """Of n + 1 rows, each in turn the new one, as many are covered as the rank says."""
    model, coverage = fitted(name), 0.85
    X, y = contaminated(24, seed=5)
    covered = 0
    for i in range(len(X)):
        rest = np.arange(len(X)) != i
        low, high = model.conformalize(X[rest], y[rest]).predict_interval(X[i : i + 1], coverage)[0]
        covered += low <= y[i] <= high
    assert covered == math.ceil(coverage * len(X))


@each_quick_class
def test_coverage_is_that_of_each_output(name):
    X, y = stepped()
    model = make(name).fit(X, np.column_stack([y, -3 * y]))
    X, y = contaminated(400, seed=1)
    calm = kinked(400, seed=1)[1] + 2.0 * (X[:, 0] > 0)
    model.conformalize(X, np.column_stack([y, -3 * calm]))
    wide, narrow = model.predict_interval(QUERY, 0.95).swapaxes(0, 1)
    assert model.predict_interval(QUERY).shape == (len(QUERY), 2, 2)
    assert (np.diff(wide) > 5 * np.diff(narrow) / 3).all()
    # A shift of the median, of any size, is that of the density: intervals stay central.
    middle = model.predict_quantile(QUERY, [0.5])[..., 0]
    np.testing.assert_allclose(narrow.mean(1), middle[:, 1], atol=0.2 * np.diff(narrow).max())
    X, y = contaminated(2000, seed=2)
    targets = np.column_stack([y, -3 * (kinked(2000, seed=2)[1] + 2.0 * (X[:, 0] > 0))])
    ends = model.predict_interval(X, 0.95)
    held = ((ends[..., 0] <= targets) & (targets <= ends[..., 1])).mean(0)
    # Four standard deviations of the shares of 400 and 2000 rows.
    np.testing.assert_allclose(held, 0.95, atol=4 * np.sqrt(0.95 * 0.05 * (1 / 400 + 1 / 2000)))


@each_quick_class
def test_only_intervals_change_and_a_fit_drops_the_calibration(name):
    model = fitted(name)
    before = model.predict_quantile(QUERY), model.predict_interval(QUERY)
    assert model.conformalize(*contaminated(100, seed=3)) is model
    assert same_bits(model.predict_quantile(QUERY), before[0])
    after = model.predict_interval(QUERY)
    assert not same_bits(after, before[1])
    with pytest.raises(ValueError, match="NaN"):
        model.fit(QUERY, np.full(len(QUERY), np.nan))
    assert same_bits(model.predict_interval(QUERY), after)
    model.fit(*stepped())
    assert same_bits(model.predict_interval(QUERY), before[1])


@each_quick_class
def test_calibration_is_saved(name):
    skops = pytest.importorskip("skops.io")
    model = fitted(name).conformalize(*contaminated(50, seed=4))
    expected = model.predict_interval(QUERY, 0.9)
    assert same_bits(pickle.loads(pickle.dumps(model)).predict_interval(QUERY), expected)
    own = [f"skpou.{type(each).__qualname__}" for each in [model, *members_of(model)]]
    loaded = skops.loads(skops.dumps(model), trusted=own)
    assert same_bits(loaded.predict_interval(QUERY), expected)


def test_refits_of_one_kind_drop_it_too():
    model = fitted("pieces").conformalize(*contaminated(50, seed=4))
    model.refit(*stepped())
    assert same_bits(
        model.predict_interval(QUERY, 0.999), model.predict_quantile(QUERY, (5e-4, 0.9995))
    )


def test_tensors_stay_tensors():
    model = fitted("grid")
    X, y = contaminated(50, seed=4)
    model.conformalize(torch.as_tensor(X), torch.as_tensor(y))
    ends = model.predict_interval(torch.as_tensor(QUERY))
    assert isinstance(ends, torch.Tensor)
    assert same_bits(ends.numpy(), fitted("grid").conformalize(X, y).predict_interval(QUERY))


def test_exact_fits_are_calibrated_as_well():
    rng = np.random.default_rng(0)
    X = rng.random((200, 1))
    model = SparseGridRegressor(level=2).fit(X, 1e-9 * (1 + 2 * X[:, 0]))
    ends = model.conformalize(X, 1e-9 * (1 + 2 * X[:, 0])).predict_interval(X, 0.9)
    assert (np.abs(ends - 1e-9 * (1 + 2 * X)) < 1e-18).all()
    # Targets beyond all that the density knows are covered all the same.
    ends = model.conformalize(X, 1e-9 * (1 + 2 * X[:, 0]) + 1e3).predict_interval(X, 0.9)
    assert (ends[:, 1] > 999).all()


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, True, "0.9", None, [0.9], float("nan")])
def test_bad_coverage(coverage):
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        fitted("grid").predict_interval(QUERY, coverage)


def test_too_few_rows_for_the_coverage():
    X, y = contaminated(18, seed=4)
    model = fitted("grid").conformalize(X, y)
    with pytest.raises(ValueError, match=r"coverage=0.95 needs at least 19 rows .* There were 18"):
        model.predict_interval(QUERY, 0.95)
    assert np.isfinite(model.predict_interval(QUERY, 0.9)).all()


@pytest.mark.parametrize("y", [np.zeros(5), np.zeros((10, 2)), [np.nan] * 10, ["a"] * 10])
def test_bad_rows_leave_the_calibration(y):
    model = fitted("grid").conformalize(*contaminated(50, seed=4))
    before = model.predict_interval(QUERY)
    with pytest.raises(ValueError, match="y"):
        model.conformalize(np.zeros((10, 2)), y)
    assert same_bits(model.predict_interval(QUERY), before)


@pytest.mark.slow
@pytest.mark.parametrize("density", ["gaussian", "mixture"])
def test_coverage_on_measured_tables(shared_data, density):
    """A quarter of the training rows calibrates, on ten standard splits of each table."""
    held = []
    for name in ("yacht", "boston_housing", "energy"):
        with np.load(shared_data / "uci" / f"{name}.npz") as data:
            X, y, masks = (
                data["X"].astype(float),
                data["y"].astype(float).ravel(),
                data["test_mask"],
            )
        for seed, test in enumerate(masks[:10]):
            rest = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
            aside, kept = np.split(rest, [len(rest) // 4])
            model = SparseGridRegressor(density=density).fit(X[kept], y[kept])
            low, high = model.conformalize(X[aside], y[aside]).predict_interval(X[test], 0.9).T
            held.append(np.mean((low <= y[test]) & (y[test] <= high)))
    # Of a split the share varies by some 0.05, half of it by the rows that calibrate; the splits
    # of a table share rows.
    assert 0.87 < np.mean(held) < 0.93
