"""A few of the fuzzer's seeds, and that the fuzzer sees what is wrong."""

import dataclasses
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from skpou import SparseGridClassifier, SparseGridRegressor
from tests import fuzz
from tests.examples import slow
from tests.fuzz_containers import CONTAINERS
from tests.fuzz_data import (
    ESTIMATORS,
    FIRST_OF_ALL,
    FIRST_WITH_EXPERTS,
    MADE_OF_OTHERS,
    Case,
    draw_case,
)

#: The first of sixty seeds; one before takes more than a minute. All estimators are among them, and
#: among those up to `MORE`.
FIRST, MORE = 11, 41


@pytest.mark.parametrize("seed", [*range(FIRST, MORE), *slow(*range(MORE, FIRST + 60))])
def test_seed(seed):
    outcome = fuzz.run_seed(seed)
    assert not outcome.failures, f"{outcome.text}\n{outcome.trace}"


def plain_case(name="SparseGridRegressor", **changes):
    """A case that nothing is odd about, of 30 rows."""
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 2)), rng.standard_normal(30)
    y = (y > 0).astype(int) if name.endswith("Classifier") else y
    case = Case(0, name, {}, X, rng.random((20, 2)), y, None, "float64", "plain")
    return dataclasses.replace(case, **changes)


class Broken(SparseGridRegressor):
    """A regressor that one thing is wrong with, by the name of its class."""

    def predict(self, X, return_std=False):
        result = super().predict(X, return_std)
        return self.spoil(result) if return_std is False else result

    def spoil(self, mean):
        return mean


class NotANumber(Broken):
    def spoil(self, mean):
        return np.where(np.arange(len(mean)) == 3, np.nan, mean)


class OneRowLess(Broken):
    def spoil(self, mean):
        return mean[:-1]


class OneAxisMore(Broken):
    def spoil(self, mean):
        return mean[:, None]


class WorseThanMean(Broken):
    def spoil(self, mean):
        return -3 * mean


class FarBeyond(Broken):
    def spoil(self, mean):
        return np.where(np.arange(len(mean)) == 0, 1e3, mean)


class Forgetful(Broken):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.spoil = lambda mean: mean + 1e-12


class NegativeStd(SparseGridRegressor):
    def predict(self, X, return_std=False):
        result = super().predict(X, return_std)
        return (result[0], -result[1]) if return_std == "noise" else result


class CrossingQuantiles(SparseGridRegressor):
    def predict_quantile(self, X, quantiles=(0.05, 0.5, 0.95)):
        return super().predict_quantile(X, quantiles)[:, ::-1]


class Nameless(SparseGridRegressor):
    def fit(self, X, y, sample_weight=None):
        raise ValueError("singular matrix")


class BlamesNaN(SparseGridRegressor):
    def fit(self, X, y, sample_weight=None):
        raise ValueError("Input X contains NaN.")


class FailsLater(SparseGridRegressor):
    def predict_gradient(self, X):
        raise ValueError("X is too steep.")


class Warns(SparseGridRegressor):
    def fit(self, X, y, sample_weight=None):
        warnings.warn("overflow in exp", RuntimeWarning, stacklevel=1)
        return super().fit(X, y, sample_weight)


class Slow(SparseGridRegressor):
    def fit(self, X, y, sample_weight=None):
        end = time.process_time() + 0.4
        while time.process_time() < end:
            pass
        return super().fit(X, y, sample_weight)


class HalfProbabilities(SparseGridClassifier):
    def predict_proba(self, X):
        return super().predict_proba(X) / 2


class OtherClasses(SparseGridClassifier):
    def predict(self, X):
        return super().predict(X) + 7


#: What the fuzzer must say of each.
SEEN = {
    NotANumber: "mean at its rows: 1 of 30 not finite",
    OneRowLess: "mean at fresh rows: shape (19,) instead of (20,)",
    OneAxisMore: "mean at its rows: shape (30, 1) instead of (30,)",
    WorseThanMean: "R2 of output 0 is -",
    FarBeyond: "spreads beyond y at fresh rows",
    Forgetful: "mean and 0 more at fresh rows: other bits after pickling",
    NegativeStd: "std noise of -",
    CrossingQuantiles: "quantiles cross at its rows",
    Nameless: "fit: ValueError: singular matrix",
    BlamesNaN: "fit: ValueError: Input X contains NaN",
    FailsLater: "predictions: ValueError: X is too steep",
    Warns: "RuntimeWarning at test_fuzz.py",
    HalfProbabilities: "probabilities from",
    OtherClasses: "classes that are none",
}


@pytest.mark.parametrize("broken", SEEN, ids=lambda broken: broken.__name__)
def test_what_is_wrong_is_seen(broken):
    name = broken.__mro__[1].__name__
    case = plain_case("SparseGridClassifier" if "Classifier" in name else "SparseGridRegressor")
    found = fuzz.run_case(case, broken())
    assert any(SEEN[broken] in failure for failure in found.failures), found


def test_what_a_transform_cannot_hold_may_be_infinite():
    case = plain_case(name="TransformedRegressor")
    for y, said in ((case.y, True), (1e200 * case.y, False)):
        there = dataclasses.replace(case, y=y)
        found = [*fuzz._wrong_array(np.array([1.0, np.inf]), (2,), "std True", there)]
        assert bool(found) == said
        assert [*fuzz._wrong_array(np.array([1.0, np.nan]), (2,), "std True", there)]


def test_outliers_that_were_set_apart_are_not_asked_for():
    case = plain_case(y=np.append(50.0, np.random.default_rng(0).standard_normal(29)))
    mean = np.append(-50.0, case.y[1:])
    for fitted, said in ((np.ones(30, bool), True), (np.arange(30) > 0, False)):
        assert bool([*fuzz._worse_than_mean(mean, case, np.float64, fitted)]) == said


def test_slow_fits_are_seen(monkeypatch):
    monkeypatch.setattr(fuzz, "seconds_allowed", lambda case: 0.3)
    failures = fuzz.run_case(plain_case(), Slow()).failures
    assert any("fit took" in failure for failure in failures)


def test_nothing_is_wrong_with_plain_cases():
    for name in ("SparseGridRegressor", "SparseGridClassifier"):
        outcome = fuzz.run_case(plain_case(name))
        assert outcome.failures == []
        assert outcome.refused == ""


def test_a_refusal_that_names_the_cause_is_right():
    outcome = fuzz.run_case(plain_case(weight=np.zeros(30)))
    assert outcome.failures == []
    assert "eight" in outcome.refused


@pytest.mark.parametrize(("n_blocks", "judged"), [(1, True), (2, False)])
def test_minibatches_may_be_wrong_about_their_rows(n_blocks, judged):
    """Of a network that takes a few steps with each block no more can be asked."""
    case = plain_case("NeuralSparseGridClassifier", n_blocks=n_blocks)
    arrays, model = {"classes": 1 - case.y}, SimpleNamespace(classes_=np.array([0, 1]))
    assert bool([*fuzz.wrong_classes(model, arrays, case.y, case)]) == judged


def test_a_seed_draws_the_same_case():
    for seed in range(30):
        first, second = draw_case(seed), draw_case(seed)
        assert str(first) == str(second)
        assert first.X.tobytes() == second.X.tobytes()
        assert first.y.tobytes() == second.y.tobytes()


def test_containers_hold_the_points():
    X = np.random.default_rng(0).integers(0, 2, (7, 3)).astype(float)
    for name in CONTAINERS:
        case = plain_case(X=X, container=name)
        assert np.array_equal(np.asarray(case.points(X), dtype=float), X), name


def test_every_estimator_is_drawn():
    assert {draw_case(seed).name for seed in range(FIRST, FIRST + 60)} == set(ESTIMATORS)


def test_later_seeds_draw_what_the_quick_ones_leave_out():
    cases = [draw_case(seed) for seed in range(FIRST_OF_ALL, FIRST_OF_ALL + 600)]
    assert {case.name for case in cases} == {*ESTIMATORS, *MADE_OF_OTHERS}
    solved = {case.name for case in cases if "physics" in case.params}
    assert len(solved) == 3
    assert {case.name for case in cases if case.n_blocks > 1} >= {
        *("SparseGridRegressor", "SparseGridClassifier", "AdditivePOURegressor"),
        *("NeuralSparseGridRegressor", "NeuralSparseGridClassifier"),
    }
    assert all(case.n_blocks <= len(case.X) for case in cases)


def test_still_later_seeds_draw_pieces_that_oscillate_and_their_equations():
    cases = [draw_case(seed) for seed in range(FIRST_WITH_EXPERTS, FIRST_WITH_EXPERTS + 600)]
    with_pieces = {"HierarchicalPOURegressor", "POURegressor"}
    assert {case.name for case in cases if "experts" in case.params} == with_pieces
    assert {case.name for case in cases if "physics" in case.params} >= with_pieces


def test_exit_status_says_whether_anything_failed(monkeypatch, capsys):
    good = fuzz.Outcome(1, "A", "seed 1: A()", seconds={"fit": 1.0})
    bad = dataclasses.replace(good, seed=2, failures=["mean at 3 rows: not finite"])
    monkeypatch.setattr(fuzz, "outcomes", lambda *_: iter([good, bad]))
    assert fuzz.main(["--seconds", "1"]) == 1
    assert "1 failed  A: mean at # rows: not finite" in capsys.readouterr().out
    monkeypatch.setattr(fuzz, "outcomes", lambda *_: iter([good]))
    assert fuzz.main(["--seconds", "1"]) == 0
