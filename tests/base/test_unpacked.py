"""Models are unpacked once, outside the estimators, and one row takes few steps."""

import copy
import gc
import pickle
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch.overrides import TorchFunctionMode

from skpou import SparseGridClassifier, SparseGridRegressor
from skpou.base import validation
from skpou.base.unpacked import MOST_BYTES, UNPACKED, UnpackedModels
from tests.estimators import (
    QUERY,
    assert_same_bits,
    each_class,
    each_class_with_a_model,
    fitted,
    fitted_predictions,
    make,
    predictions,
    same_bits,
    stepped,
)

X, Y = stepped()


def warm(name):
    """A fitted estimator that has predicted."""
    model = fitted(name)
    model.predict(QUERY, return_std=True)
    return model


@each_class
def test_a_warm_model_predicts_what_a_new_one_does(name):
    assert_same_bits(predictions(warm(name)), fitted_predictions(name))


def test_a_refit_is_noticed():
    model = warm("grid").fit(X, -Y)
    assert same_bits(model.predict(QUERY), make("grid").fit(X, -Y).predict(QUERY))


@pytest.mark.parametrize(
    "replace",
    [
        lambda model: setattr(model, "scaling_", {**model.scaling_, "mean": np.array([7.0])}),
        lambda model: model.scaling_.update(mean=np.array([7.0])),
        lambda model: model.model_.update(coef=2 * model.model_["coef"]),
        lambda model: model.set_params(dtype="float32"),
    ],
)
def test_replaced_parts_are_noticed(replace):
    model, other = warm("grid"), fitted("grid")
    replace(model), replace(other)
    assert same_bits(model.predict(QUERY), other.predict(QUERY))
    assert not same_bits(model.predict(QUERY), fitted("grid").predict(QUERY))


def test_a_replaced_part_of_a_list_is_noticed():
    model, other = warm("pieces"), fitted("pieces")
    for one in (model, other):
        one.mixture_[-1] = {**one.mixture_[-1], "coef": 2 * one.mixture_[-1]["coef"]}
    assert same_bits(model.predict(QUERY), other.predict(QUERY))


def test_a_change_in_place_is_refused():
    model = warm("grid")
    with pytest.raises(ValueError, match="read-only"):
        model.model_["coef"][0] = 7.0


@each_class_with_a_model
def test_nothing_is_kept_in_the_estimator(name):
    model = fitted(name)
    before, names = pickle.dumps(model), list(model.__dict__)
    model.predict(QUERY, return_std=True)
    assert list(model.__dict__) == names
    assert pickle.dumps(model) == before


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: clone(m).fit(X, Y)])
def test_copies_have_their_own(duplicate):
    model = warm("grid")
    other = duplicate(model)
    other.scaling_ = {**other.scaling_, "mean": other.scaling_["mean"] + 1}
    assert not same_bits(model.predict(QUERY), other.predict(QUERY))
    assert same_bits(model.predict(QUERY), fitted("grid").predict(QUERY))


def test_they_go_with_the_estimator_and_are_few():
    memory = UnpackedModels(2)
    models = [fitted("grid") for _ in range(3)]

    def ask(model, value):
        return memory.get(model, ("model_",), "key", lambda: value)

    assert [ask(model, k) for k, model in enumerate(models[:2])] == [0, 1]
    assert ask(models[0], 7) == 0  # and so it was asked for last
    assert ask(models[2], 2) == 2
    assert len(memory) == 2
    assert [ask(models[0], 7), ask(models[2], 7), ask(models[1], 7)] == [0, 2, 7]
    memory.drop(models[1])
    assert ask(models[1], 8) == 8
    models.clear()
    gc.collect()
    assert len(memory) == 0


def test_large_models_are_not_kept_twice():
    memory, model = UnpackedModels(), fitted("grid")
    model.model_["more"] = np.broadcast_to(0.0, MOST_BYTES // 8 + 1)
    values = iter(range(2))
    assert [memory.get(model, ("model_",), "", lambda: next(values)) for _ in range(2)] == [0, 1]
    model.model_["coef"][0] = 7.0  # Nothing was made read-only.


def test_what_changes_during_the_unpacking_is_not_kept():
    memory, model = UnpackedModels(), fitted("grid")

    def unpack():
        model.model_ = dict(model.model_)
        return "of the old state"

    assert memory.get(model, ("model_",), "", unpack) == "of the old state"
    assert memory.get(model, ("model_",), "", lambda: "new") == "new"


@pytest.mark.parametrize("name", ["grid", "pieces", "terms"])
def test_threads_share_a_model(name):
    model, expected = fitted(name), fitted(name).predict(QUERY, return_std=True)
    found, barrier = [], threading.Barrier(4)

    def run():
        barrier.wait()
        found.extend(model.predict(QUERY, return_std=True) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(same_bits(a, b) for pair in found for a, b in zip(pair, expected))


def test_a_forked_process_starts_anew():
    UNPACKED.get(warm("grid"), (), "key", lambda: 1)
    UNPACKED._lock.acquire()
    UNPACKED.forget_all()
    assert len(UNPACKED) == 0
    assert not UNPACKED._lock.locked()


@each_class_with_a_model
def test_a_row_alone_is_predicted_as_among_others(name):
    """Few rows take other ways through splines and grids: same values, and mostly same bits."""
    model = warm(name)
    many = np.tile(QUERY, (5, 1))
    for expected, single in zip(
        model.predict(many, return_std=True),
        zip(*(model.predict(row[None], return_std=True) for row in QUERY)),
    ):
        np.testing.assert_allclose(
            np.concatenate(single), expected[: len(QUERY)], rtol=1e-9, atol=1e-12
        )


class _Count(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


#: Calls of torch for one row, about 2 microseconds each, of the mean and with std: half a
#: millisecond and one. The model that keeps rows may take twice as many.
MEAN_CALLS, STD_CALLS = 250, 500


@each_class_with_a_model
def test_one_row_takes_few_steps(name):
    model = warm(name)
    for options, most in (({}, MEAN_CALLS), ({"return_std": True}, STD_CALLS)):
        with _Count() as count:
            model.predict(QUERY[:1], **options)
        assert count.calls <= most


def test_one_row_of_a_classifier_takes_few_steps():
    model = SparseGridClassifier().fit(X, Y > 0)
    model.predict_proba(QUERY)
    with _Count() as count:
        model.predict_proba(QUERY[:1])
    assert count.calls <= MEAN_CALLS


# The checks of what comes in

BAD = {
    "NaN": [[np.nan, 0.0]],
    "infinity": np.array([[np.inf, 0.0]]),
    "columns": np.zeros((1, 3)),
    "no rows": np.zeros((0, 2)),
    "no table": np.zeros(2),
    "axes": np.zeros((1, 2, 1)),
    "strings": np.array([["a", "b"]]),
    "numbers in strings": np.array([["1", "2"]]),
    "complex": np.array([[1j, 0]]),
    "masked": np.ma.masked_array(np.zeros((1, 2)), [[True, False]]),
    "dates": np.zeros((1, 2), dtype="datetime64[s]"),
}


def outcome(call):
    """Kind and words of the error and the warnings, or the result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call()
        except (ValueError, TypeError) as error:
            result = (type(error), str(error))
    return result, [(one.category, str(one.message)) for one in caught]


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused_is_refused_in_the_same_words(what, monkeypatch):
    model = warm("grid")
    quick = outcome(lambda: model.predict(BAD[what]))
    monkeypatch.setattr(validation, "_is_plain", lambda *_: False)
    assert quick == outcome(lambda: model.predict(BAD[what]))
    assert isinstance(quick[0], tuple)


def test_names_of_columns_are_compared():
    table = pd.DataFrame(X, columns=["a", "b"])
    model = SparseGridRegressor(level=2).fit(table, Y)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(QUERY)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(pd.DataFrame(QUERY, columns=["b", "a"]))
    with pytest.warns(UserWarning, match="has feature names, but"):
        warm("grid").predict(table)


@pytest.mark.parametrize(
    "form",
    [
        np.asfortranarray,
        lambda Q: np.repeat(Q, 2, axis=0)[::2],
        lambda Q: Q[::-1][::-1],
        np.ndarray.tolist,
        pd.DataFrame,
        lambda Q: Q.astype(">f8"),
        lambda Q: torch.tensor(Q),
    ],
)
def test_forms_of_the_same_points_are_the_same(form):
    model = warm("grid")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.predict(form(QUERY))
    assert same_bits(np.asarray(found), model.predict(QUERY))
