"""Regressors inside scikit-learn, pandas, polars, joblib and skops."""

import inspect
import pickle
import re
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from tests.estimators import (
    CLASSES,
    CONFIGURATIONS,
    ONE_OF_EACH,
    QUERY,
    QUICK,
    assert_same_bits,
    each_class,
    each_configuration_slowly,
    each_quick_class,
    each_solver,
    fitted,
    fitted_predictions,
    make,
    members_of,
    predictions,
    quickest_class,
    same_bits,
    slow_beyond,
    stepped,
    stepped_mean,
)

X, Y = stepped()
#: For each class a grid to search; the first in two processes.
GRIDS = {
    "pieces": {"n_partitions": [1, 2], "degree": [1, 2]},
    "grid": {"level": [2, 3], "alpha": ["auto", 1e-3]},
    "partitions": {"n_partitions": [2, 3]},
    "units": {"alpha": ["auto", 1e-3]},
    "stages": {"n_stages": [1, "auto"]},
    "terms": {"max_order": [1, 2]},
    "neural grid": {"level": [2, 3]},
    "front door": {"n_members": [1, 2]},
}


# scikit-learn


@quickest_class
def test_pipeline(name):
    pipeline = make_pipeline(StandardScaler(), make(name)).fit(X, Y)
    mean, std = pipeline.predict(QUERY, return_std=True)
    assert std.shape == mean.shape == (len(QUERY),)
    assert np.sqrt(np.mean((mean - stepped_mean(QUERY)) ** 2)) < 0.1
    assert pipeline.score(X, Y) > 0.9
    weighted = pipeline.fit(X, Y, **{f"{pipeline.steps[-1][0]}__sample_weight": np.ones(len(X))})
    np.testing.assert_allclose(weighted.predict(QUERY), mean, rtol=1e-9, atol=1e-12)


@each_quick_class
def test_columns_of_other_types_and_scaled_targets(name):
    table = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "kind": ["u", "v"] * (len(X) // 2)})
    encoder = ColumnTransformer(
        [("kind", OneHotEncoder(drop="first"), ["kind"])], remainder="passthrough"
    )
    target = TransformedTargetRegressor(make(name), transformer=StandardScaler())
    model = make_pipeline(encoder, target).fit(table, Y + 0.5 * (table["kind"] == "v"))
    assert model.score(table, Y + 0.5 * (table["kind"] == "v")) > 0.7


def test_every_class_has_a_grid():
    assert set(GRIDS) == set(ONE_OF_EACH)


@quickest_class
def test_grid_search(name):
    # A lambda travels by value: the workers need not import these tests.
    scoring = {"r2": "r2", "threads": lambda model, X, y: float(torch.get_num_threads())}
    n_jobs = 2 if name == next(iter(GRIDS)) else None
    search = GridSearchCV(make(name), GRIDS[name], scoring=scoring, refit="r2", cv=3, n_jobs=n_jobs)
    search.fit(X, Y)
    assert search.best_score_ > 0.6
    assert np.isfinite(search.cv_results_["mean_test_r2"]).all()
    assert (search.cv_results_["mean_test_threads"] <= max(joblib.cpu_count() // 2, 1)).all()
    best = make(name, **search.best_params_).fit(X, Y)
    assert_same_bits(predictions(search.best_estimator_), predictions(best))


@quickest_class
def test_cross_validation(name):
    predicted = cross_val_predict(make(name), X, np.column_stack([Y, -Y]), cv=3)
    assert predicted.shape == (len(X), 2)
    assert np.corrcoef(predicted[:, 0], Y)[0, 1] > 0.8
    scores = cross_val_score(make(name), X, Y, cv=3, scoring="neg_root_mean_squared_error")
    assert (scores < 0).all()
    assert (scores > -0.8).all()


@quickest_class
def test_ensemble(name):
    model = BaggingRegressor(make(name), n_estimators=3, random_state=0).fit(X, Y)
    assert model.score(X, Y) > 0.8


@each_class
def test_inspection(name):
    model = fitted(name)
    importance = permutation_importance(model, X, Y, n_repeats=2, random_state=0)
    assert (importance.importances_mean > 0.1).all()
    result = partial_dependence(model, X, [0], grid_resolution=20)
    slope = np.diff(result["average"][0]) / np.diff(result["grid_values"][0])
    # A continuous function cannot step: it leans before the step and after. Units make up the
    # slopes at the ends from round shapes. Cubic splines ring along the whole column, as does the
    # process that predicts in place of the front door's grid, and short sines are flat where rows
    # are far from each other.
    ends = 1.5 if name in ("terms", "units", "front door") else 0.3
    np.testing.assert_allclose(slope[[0, -1]], [-1, 1], atol=ends)


@each_configuration_slowly
def test_clone_and_parameters(name):
    model = fitted(name)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not vars(copy).keys() - copy.get_params().keys()
    for parameter, value in type(model)().get_params().items():
        assert copy.set_params(**{parameter: value}).get_params()[parameter] is value
    with pytest.raises(ValueError, match="Invalid parameter 'n_pieces'"):
        copy.set_params(n_pieces=3)


@each_configuration_slowly
def test_representations(name):
    for model in (make(name), fitted(name)):
        html = model._repr_html_()
        assert type(model).__name__ in html
        assert "fitted" in html.lower()
        text = repr(model)
        assert text.startswith(f"{type(model).__name__}(")
        assert eval(text, {type(model).__name__: type(model)}).get_params() == model.get_params()


@each_configuration_slowly
def test_tags(name):
    tags = get_tags(make(name))
    assert tags.estimator_type == "regressor"
    assert tags.target_tags.required
    assert tags.target_tags.multi_output
    assert not tags.input_tags.sparse
    assert not tags.input_tags.allow_nan
    assert not tags.non_deterministic
    assert not tags.regressor_tags.poor_score


# One function reads the input of all classes; one of the kinds of estimators transforms.
@slow_beyond((*QUICK, "neural grid"), ONE_OF_EACH)
@pytest.mark.filterwarnings("error")
def test_global_configuration(name):
    with config_context(transform_output="pandas", assume_finite=True):
        assert_same_bits(predictions(make(name).fit(X, Y)), fitted_predictions(name))
        assert fitted(name).score(X, Y) > 0.9


# Data frames


@each_quick_class
def test_pandas(name):
    table = pd.DataFrame(X, columns=["a", "b"], index=np.arange(len(X))[::-1])
    targets = pd.Series(Y, name="height", index=table.index)
    weight = pd.Series(np.ones(len(X)), index=table.index)
    model = make(name).fit(table, targets, sample_weight=weight)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    query = pd.DataFrame(QUERY, columns=["a", "b"])
    assert_same_bits(predictions(model, query), fitted_predictions(name))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.predict(QUERY)
    several = make(name).fit(table, pd.DataFrame({"y": Y, "z": -Y}))
    assert several.predict(query).shape == (len(QUERY), 2)
    model.fit(X, Y)
    assert not hasattr(model, "feature_names_in_")


@each_quick_class
def test_polars(name):
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    model = make(name).fit(table, polars.Series("y", Y))
    assert model.feature_names_in_.tolist() == ["a", "b"]
    query = polars.DataFrame({"a": QUERY[:, 0], "b": QUERY[:, 1]})
    assert_same_bits(predictions(model, query), fitted_predictions(name))


# Saving


def odd_parts(value, path=""):
    """Paths of everything in a state that is no array, string or number, or a list of these.

    Members of a stack are looked into.
    """
    if isinstance(value, dict):
        return [odd for k, v in value.items() for odd in odd_parts(v, f"{path}[{k!r}]")]
    if isinstance(value, list | tuple):
        return [odd for i, v in enumerate(value) for odd in odd_parts(v, f"{path}[{i}]")]
    if isinstance(value, np.ndarray):
        return [path] if value.dtype == object else []
    if type(value) in CLASSES:
        return odd_parts(vars(value), path)
    plain = value is None or isinstance(value, str | bool | int | float | np.number)
    return [] if plain else [f"{path}: {type(value)}"]


def assert_plain(model, hold):
    """Neither the fitted state nor that of a refit to such arrays has odd parts."""
    assert not odd_parts(vars(model))
    assert not odd_parts(model.__getstate__())
    public = {key for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    # Those of the class exist under some parameters only.
    assert not odd_parts({key: getattr(model, key) for key in public if hasattr(model, key)})
    if hasattr(model, "refit"):
        assert not odd_parts(vars(model.refit(hold(X), hold(Y))))


@each_solver
def test_fitted_state_is_plain(name):
    assert_plain(fitted(name), np.array)


# Tensors are read by one function, which all classes share.
@each_quick_class
def test_state_fitted_to_tensors_is_plain(name):
    assert_plain(make(name).fit(torch.tensor(X), torch.tensor(Y)), torch.tensor)


@each_configuration_slowly
def test_skops(name):
    skops = pytest.importorskip("skops.io")
    model = fitted(name)
    data = skops.dumps(model)
    own = sorted({f"skpou.{type(m).__qualname__}" for m in [model, *members_of(model)]})
    assert skops.get_untrusted_types(data=data) == own
    assert_same_bits(predictions(skops.loads(data, trusted=own)), predictions(model))


def test_pickles_in_another_process(tmp_path):
    for name in ONE_OF_EACH:
        (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps(fitted(name)))
    np.save(tmp_path / "query.npy", QUERY)
    script = (
        "import sys, pickle, numpy as np\n"
        "folder, *names = sys.argv[1:]\n"
        "query = np.load(folder + '/query.npy')\n"
        "for name in names:\n"
        "    with open(f'{folder}/{name}.pickle', 'rb') as file:\n"
        "        model = pickle.load(file)\n"
        "    np.save(f'{folder}/{name}.npy', model.predict(query))\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    subprocess.run([*command, *ONE_OF_EACH], check=True)
    for name in ONE_OF_EACH:
        assert same_bits(np.load(tmp_path / f"{name}.npy"), fitted(name).predict(QUERY)), name


@each_solver
def test_read_only_state_predicts(name, tmp_path):
    joblib.dump(fitted(name), tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert_same_bits(predictions(mapped), fitted_predictions(name))
    if hasattr(mapped, "refit"):
        mapped.refit(X, Y)
    if "warm_start" in mapped.get_params():
        mapped.set_params(warm_start=True).fit(X, Y)


# Documentation


def documented(text, section):
    """Names in a section of a numpydoc docstring, in order."""
    lines = inspect.cleandoc(text).splitlines()
    if section not in lines:
        return []
    names = []
    for line in lines[lines.index(section) + 2 :]:
        if re.fullmatch("-+", line):
            return names[:-1] if names and names[-1] == "" else names
        match = re.match(r"(\S.*?)\s*:(\s|$)", line)
        if match:
            names += [part.strip() for part in match[1].split(",")]
    return names


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_and_attributes_are_documented(cls):
    signature = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    assert documented(cls.__doc__, "Parameters") == signature
    assert set(cls._parameter_constraints) == set(signature)
    model = next(fitted(n) for n, e in CONFIGURATIONS.items() if type(e) is cls)
    model.fit(pd.DataFrame(X, columns=["a", "b"]), Y)
    # Those of the class exist under some parameters only.
    keys = {*dir(model), *dir(cls)}
    public = {key for key in keys if key.endswith("_") and not key.startswith("_")}
    assert set(documented(cls.__doc__, "Attributes")) == public


@pytest.mark.parametrize("cls", CLASSES)
def test_methods_document_their_parameters(cls):
    for key, method in inspect.getmembers(cls, inspect.isfunction):
        if key.startswith("_") or not method.__module__.startswith("skpou"):
            continue
        names = [p for p in inspect.signature(method).parameters if p != "self"]
        assert documented(method.__doc__, "Parameters") == names, key
        assert "Returns" in method.__doc__ or "Yields" in method.__doc__, key
