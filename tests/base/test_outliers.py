"""Regressors set outliers apart: the fit, its noise and its bars are those of the other rows."""

import pickle

import numpy as np
import pytest
from scipy.stats import norm

from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    POURegressor,
    SparseGridRegressor,
)
from skpou.base.outliers import _Judged
from skpou.core.models import OutlierSplit
from tests.estimators import stepped

REGRESSORS = {
    "additive": AdditivePOURegressor(),
    "hierarchical": HierarchicalPOURegressor(),
    "lsgd": LSGDRegressor(),
    "multi-stage": MultiStageRegressor(),
    "pou": POURegressor(2, 2),
    "sparse grid": SparseGridRegressor(),
}
FAR = np.array([11, 47, 90])


def truth(X):
    return np.sin(4 * X[:, 0]) + 0.5 * X[:, 0]


def data(n=120, seed=0):
    """Points, targets, and the same with three far ones."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 1))
    X[FAR, 0] = [0.3, 0.55, 0.8]
    y = truth(X) + 0.05 * rng.standard_normal(n)
    wild = y.copy()
    wild[FAR] += [1.0, -1.2, 1.1]
    return X, y, wild


@pytest.fixture(scope="module", params=REGRESSORS)
def fits(request):
    X, y, wild = data()
    model = REGRESSORS[request.param]
    return type(model)(**model.get_params()).fit(X, wild), X, y, wild


def test_outliers_are_set_apart_and_the_fit_is_that_of_the_others(fits):
    model, X, _, wild = fits
    assert list(model.outliers_) == list(FAR)
    weight = np.ones(len(X))
    weight[FAR] = 0
    others = type(model)(**model.get_params()).fit(X, wild, sample_weight=weight)
    assert not len(others.outliers_)
    T = np.linspace(X.min(), X.max(), 200)[:, None]
    assert model.predict(T) == pytest.approx(others.predict(T), abs=1e-8)
    assert model.noise_ == pytest.approx(others.noise_, rel=1e-6)
    assert np.sqrt(np.mean((model.predict(T) - truth(T)) ** 2)) < 0.03
    std = model.predict(T, return_std="noise")[1]
    assert std == pytest.approx(others.predict(T, return_std="noise")[1], rel=1e-6)
    # What is certain to be no outlier is as likely as it was, less their share.
    loss = others.log_density(T, truth(T)) - model.log_density(T, truth(T))
    assert np.all((loss > 0) & (loss < 2 * len(FAR) / len(X)))
    expected = np.log(len(FAR) / len(X)) + norm.logpdf(1, scale=1.1)  # nearly -200 without them
    assert model.log_density(T, model.predict(T) + 1) == pytest.approx(expected, abs=0.3)


def test_density_integrates_to_one_and_has_the_share_beyond(fits):
    model, X, *_ = fits
    T = np.array([[0.5]])
    far = model.predict_cdf(T, model.predict(T) - 0.5)[0]
    assert 0.2 < 2 * far / (len(FAR) / len(X)) < 1
    draws = model.sample_y(T, 20_000)[0] - model.predict(T)[0]
    assert np.mean(np.abs(draws) > 0.5) == pytest.approx(2 * far, rel=0.3)
    low, high = model.predict_quantile(T, (0.25, 0.75))[0]
    assert 0.9 < (high - low) / (1.349 * model.predict(T, return_std=True)[1][0]) < 1.2


def test_order_and_doubling_of_rows_do_not_matter():
    X, _, wild = data()
    model = SparseGridRegressor().fit(X, wild)
    order = np.random.default_rng(1).permutation(len(X))
    turned = SparseGridRegressor().fit(X[order], wild[order])
    assert set(order[turned.outliers_]) == set(FAR)
    assert np.array_equal(model.predict(X), turned.predict(X))
    twice = SparseGridRegressor().fit(np.r_[X, X], np.r_[wild, wild])
    assert list(twice.outliers_) == [*FAR, *(FAR + len(X))]
    weight = 1 + (np.arange(len(X)) % 2)
    repeated = SparseGridRegressor().fit(np.repeat(X, weight, 0), np.repeat(wild, weight))
    weighted = SparseGridRegressor().fit(X, wild, sample_weight=weight)
    assert np.array_equal(weighted.predict(X), repeated.predict(X))
    assert list(weighted.outliers_) == list(FAR)


def test_a_sentinel_does_not_hide_the_rest():
    X, y, _ = data()
    y[7] = -99_999.0
    model = SparseGridRegressor().fit(X, y)
    assert list(model.outliers_) == [7]
    assert model.noise_ == pytest.approx(0.05, rel=0.3)


def test_a_row_that_is_far_in_one_target_is_left_out_of_all():
    X, y, wild = data()
    model = SparseGridRegressor().fit(X, np.c_[y, wild])
    assert list(model.outliers_) == list(FAR)
    assert np.all(model.noise_ < 0.07)
    T = np.array([[0.5]])
    mean = model.predict(T)
    far = [model.log_density(T, mean + np.array([step])) for step in ([1.0, 0], [0, 1.0])]
    assert far[0] < -30 < far[1]


def test_a_gaussian_stays_one():
    X, _, wild = data()
    model = SparseGridRegressor(density="gaussian").fit(X, wild)
    assert list(model.outliers_) == list(FAR)
    std = model.predict(X, return_std=True)[1]
    low, high = model.predict_interval(X, coverage=0.9999).T
    assert (high - low) == pytest.approx(2 * 3.8906 * std, rel=1e-3)


@pytest.mark.parametrize("height", [1.0, -1.0])
def test_a_peak_of_a_few_rows_stays(height):
    rng = np.random.default_rng(4)
    X = np.sort(rng.random((120, 1)), 0)
    y = 0.3 * X[:, 0] + 0.03 * rng.standard_normal(120)
    y[60:63] += height * np.array([0.6, 1.0, 0.5])
    for model in (SparseGridRegressor(), AdditivePOURegressor()):
        assert not len(model.fit(X, y).outliers_)


def test_rows_beside_a_jump_stay():
    model = LSGDRegressor().fit(*stepped())
    assert not len(model.outliers_)


def test_exact_rows_have_none():
    x = np.linspace(-1, 1, 50)[:, None]
    for y in (np.abs(x[:, 0] - 0.013), np.where(x[:, 0] < 0.2, 0.0, 1.0), np.exp(x[:, 0])):
        assert not len(HierarchicalPOURegressor().fit(x, y).outliers_)


def test_one_wrong_row_among_exact_ones_is_set_apart():
    x = np.linspace(-1, 1, 120)[:, None]
    y = x[:, 0] ** 3 - x[:, 0]
    wrong = y.copy()
    wrong[20] += 3
    model = POURegressor(1, 3, random_state=0).fit(x, wrong)
    assert list(model.outliers_) == [20]
    assert model.predict(x) == pytest.approx(y, abs=1e-12)
    assert model.log_density(x[20:21], wrong[20:21])[0] > -10


def test_a_root_keeps_its_end():
    x = np.linspace(0, 1, 40)[:, None]
    model = HierarchicalPOURegressor(random_state=0).fit(x, np.sqrt(x[:, 0]))
    assert not len(model.outliers_)
    mean, std = model.predict(x[:1], return_std=True)
    assert abs(mean[0]) < 3 * std[0] + 1e-12


def test_another_fit_forgets_them_and_a_copy_does_not(tmp_path):
    X, y, wild = data()
    model = SparseGridRegressor().fit(X, wild)
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.log_density(X, wild), model.log_density(X, wild))
    assert list(copy.outliers_) == list(FAR)
    model.fit(X, y)
    assert not len(model.outliers_)
    assert model.log_density(X[:1], y[:1] + 1) < -50
    copy.partial_fit(X, y)
    assert not hasattr(copy, "outliers_")
    assert copy.log_density(X[:1], y[:1] + 1) < -50


@pytest.mark.parametrize("shared", [False, True])
def test_doubts_that_the_terms_alone_do_not_share_end_there(monkeypatch, shared):
    X = np.random.default_rng(0).random((30, 1))
    one = np.arange(30) == 7
    split = OutlierSplit(0.02, 0.1, 1.0, one, one * 9.0, np.zeros(30))
    doubtful = _Judged([None], False, one, one, np.zeros(30))
    judgments = [doubtful, doubtful._replace(found=[split if shared else None]), None]
    monkeypatch.setattr("skpou.base.outliers.may_hold_outliers", lambda *_: True)
    monkeypatch.setattr("skpou.additive.regressor.MOST_ROWS", 20)
    fits, train = [], AdditivePOURegressor._trained
    monkeypatch.setattr(AdditivePOURegressor, "_judged", lambda *_: judgments.pop(0))
    monkeypatch.setattr(
        AdditivePOURegressor, "_trained", lambda *given: fits.append(1) or train(*given)
    )
    assert not len(
        AdditivePOURegressor(remainder=False, density="gaussian").fit(X, X[:, 0] ** 2).outliers_
    )
    assert len(fits) == (2 if shared else 1) and len(judgments) == (0 if shared else 1)
