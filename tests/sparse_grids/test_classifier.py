"""SparseGridClassifier: labels, probabilities, weights, tensors, bad input, saving."""

import inspect
import pickle
from contextlib import nullcontext

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skpou import SparseGridClassifier
from skpou.sparse_grids import classes
from tests.base.test_bad_input import BAD_PARAMETERS, BAD_WEIGHT, BAD_X, quiet
from tests.base.test_interoperability import documented, odd_parts
from tests.estimators import no_training, same_bits
from tests.examples import slow

METHODS = ["density", "one_hot", "softmax"]
RESULTS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]
each_method = pytest.mark.parametrize("method", METHODS)
#: Softmax takes five times as long as the others; some tests show that it is read as they are.
each_quick_method = pytest.mark.parametrize("method", ["density", "one_hot", *slow("softmax")])


def stripes(n=60, n_classes=3, seed=0):
    """Points and the number of the stripe each lies in, blurred."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 5, (n, 2))
    share = (X[:, 0] + 2) / 7
    return X, (n_classes * (0.9 * share + 0.1 * rng.random(n))).astype(int)


X, Y = stripes()
QUERY = np.random.default_rng(1).uniform(-3, 6, (20, 2))


def make(method, **params):
    params = {"level": 3} | params
    return SparseGridClassifier(method=method, **params)


def results(model, X=QUERY):
    """Predictions of every kind as numpy arrays."""
    found = (getattr(model, name)(X) for name in RESULTS)
    return [value.cpu().numpy() if isinstance(value, torch.Tensor) else value for value in found]


def assert_same(first, second):
    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))


# Probabilities


@each_method
@pytest.mark.parametrize("n_classes", [2, 3])
def test_kinds_of_prediction_agree(method, n_classes):
    points, labels = stripes(300, n_classes)
    model = make(method).fit(points, labels)
    label, proba, log_proba, decision = results(model)
    assert proba.shape == (20, n_classes)
    np.testing.assert_allclose(proba.sum(1), 1)
    np.testing.assert_allclose(np.exp(log_proba), proba)
    assert (model.classes_[proba.argmax(1)] == label).all()
    odds = log_proba[:, 1] - log_proba[:, 0] if n_classes == 2 else log_proba
    np.testing.assert_allclose(decision, odds)
    assert model.score(*stripes(1000, n_classes, seed=1)) > 0.85
    assert model.coef_.shape == (len(model.grid_points_), n_classes)
    assert (model.grid_points_ > points.min(0)).all()
    assert (model.grid_points_ < points.max(0)).all()


@each_method
def test_nearest_point_of_the_box_speaks_for_those_outside(method):
    model = make(method).fit(X, Y)
    inside = np.clip(QUERY, X.min(0), X.max(0))
    np.testing.assert_allclose(model.predict_proba(QUERY), model.predict_proba(inside))


@each_method
def test_one_class(method):
    model = make(method).fit(X, np.full(len(X), "only"))
    label, proba, log_proba, decision = results(model)
    assert (label == "only").all()
    assert (proba == 1).all()
    assert proba.shape == log_proba.shape == (20, 1)
    assert (decision == np.zeros(20)).all()


@each_quick_method
@pytest.mark.parametrize(
    "labels",
    [np.array(["low", "mid", "top"]), np.array([-1.0, 2.0, 7.0]), np.array([True, False])],
    ids=str,
)
def test_labels_of_any_kind(method, labels):
    numbers = Y % len(labels)
    model = make(method).fit(X, labels[numbers])
    plain = make(method).fit(X, np.argsort(np.argsort(labels))[numbers])
    assert model.classes_.tolist() == sorted(labels.tolist())
    assert model.predict(QUERY).dtype == labels.dtype
    assert (model.predict(QUERY) == np.sort(labels)[plain.predict(QUERY)]).all()
    assert_same(results(model)[1:], results(plain)[1:])
    if labels.dtype.kind == "U":
        objects = make(method).fit(X, pd.Series(labels[numbers].astype(object)))
        assert (objects.predict(QUERY) == model.predict(QUERY)).all()


@each_method
def test_no_ridge(method):
    model = make(method, alpha=0).fit(X, Y)
    assert model.alpha_ == 0
    assert np.isfinite(model.predict_proba(QUERY)).all()


def test_steps_used_up(monkeypatch):
    monkeypatch.setattr(classes, "MAX_NEWTON", 1)
    with pytest.warns(ConvergenceWarning, match=r"all 1 steps. Raise alpha") as caught:
        make("softmax", alpha=1e-3).fit(X, Y)
    assert caught[0].filename == __file__


# Rows


@each_method
def test_weights_are_frequencies(method):
    weight = np.random.default_rng(2).integers(0, 3, len(X))
    weighted = make(method).fit(X, Y, sample_weight=weight)
    repeated = make(method).fit(np.repeat(X, weight, 0), np.repeat(Y, weight))
    assert_same(results(weighted), results(repeated))
    assert not np.allclose(results(weighted)[1], results(make(method).fit(X, Y))[1])


@each_method
def test_class_without_weight_is_none(method):
    model = make(method).fit(X, Y, sample_weight=Y > 0)
    assert model.classes_.tolist() == [1, 2]
    assert_same(results(model), results(make(method).fit(X[Y > 0], Y[Y > 0])))


@each_method
def test_points_with_several_classes(method):
    points = np.repeat([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], 40, axis=0)
    labels = np.arange(120) % 4 > 0  # 3 of 4 everywhere
    proba = make(method).fit(points, labels).predict_proba(points[::40])[:, 1]
    np.testing.assert_allclose(proba, 0.75, atol=0.03)


@each_quick_method
def test_order_of_rows_and_units_do_not_matter(method):
    model = make(method).fit(X, Y)
    order = np.random.default_rng(3).permutation(len(X))
    assert_same(results(make(method).fit(X[order], Y[order])), results(model))
    scaled = make(method).fit(1024 * X, Y)
    assert_same(results(scaled, 1024 * QUERY), results(model))


@each_method
def test_constant_columns_have_no_part(method):
    wider = np.column_stack([X, np.ones(len(X))])
    model = make(method).fit(wider, Y)
    assert np.isnan(model.grid_points_[:, 2]).all()
    query = np.column_stack([QUERY, np.full(20, 9.0)])
    assert_same(results(model, query), results(make(method).fit(X, Y)))
    flat = make(method).fit(np.ones((len(X), 2)), Y)
    share = np.bincount(Y) / len(Y)
    np.testing.assert_allclose(flat.predict_proba(QUERY[:1])[0], share, atol=0.05)


@each_method
def test_one_row(method):
    assert make(method).fit([[1.0, 2.0]], ["a"]).predict(QUERY).tolist() == ["a"] * 20


@each_method
def test_many_columns_stay_cheap(method):
    rng = np.random.default_rng(4)
    points = rng.random((200, 30))
    labels = points[:, 0] > 0.5
    model = make(method, level="auto").fit(points, labels)
    assert model.level_ == 2
    assert model.score(points, labels) > 0.75


# Precision, tensors, frames


@each_method
def test_float32(method):
    model = make(method, dtype="float32").fit(X, Y)
    assert {model.predict_proba(QUERY).dtype, model.decision_function(QUERY).dtype} == {
        np.dtype("float32")
    }
    exact = make(method).fit(X, Y).predict_proba(QUERY)
    np.testing.assert_allclose(model.predict_proba(QUERY), exact, atol=2e-3)


@each_quick_method
def test_tensors_go_out_as_they_come_in(method):
    model = make(method).fit(torch.tensor(X), torch.tensor(Y))
    plain = make(method).fit(X, Y)
    assert isinstance(model.classes_, np.ndarray)
    query = torch.tensor(QUERY)
    for name in RESULTS:
        result = getattr(model, name)(query)
        assert isinstance(result, torch.Tensor)
        assert isinstance(getattr(model, name)(QUERY), np.ndarray)
    assert_same(results(model, query), results(plain))
    assert model.score(torch.tensor(X), torch.tensor(Y)) == plain.score(X, Y)
    names = np.array(["a", "b", "c"])
    assert isinstance(make(method).fit(torch.tensor(X), names[Y]).predict(query), np.ndarray)


@pytest.mark.gpu
@each_method
def test_gpu(method):
    cpu = make(method).fit(X, Y)
    model = make(method).fit(torch.tensor(X, device="cuda"), torch.tensor(Y, device="cuda"))
    result = model.predict_proba(torch.tensor(QUERY, device="cuda"))
    assert result.is_cuda
    assert model.predict(torch.tensor(QUERY, device="cuda")).is_cuda
    np.testing.assert_allclose(result.cpu(), cpu.predict_proba(QUERY), rtol=1e-4, atol=1e-6)
    moved = pickle.loads(pickle.dumps(model)).set_params(device="cpu")
    np.testing.assert_allclose(moved.predict_proba(QUERY), result.cpu(), rtol=1e-6, atol=1e-9)


def test_frames():
    table = pd.DataFrame(X, columns=["a", "b"])
    model = make("density").fit(table, pd.Series(Y))
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert_same(
        results(model, pd.DataFrame(QUERY, columns=["a", "b"])),
        results(make("density").fit(X, Y)),
    )
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(pd.DataFrame(QUERY, columns=["a", "c"]))


# scikit-learn


@pytest.mark.parametrize("method", ["density", "one_hot", *slow("softmax")])
def test_inside_other_estimators(method):
    pipeline = make_pipeline(StandardScaler(), make(method, level=2)).fit(X, Y)
    assert pipeline.score(X, Y) > 0.85
    proba = cross_val_predict(make(method, level=2), X, Y, cv=3, method="predict_proba")
    assert proba.shape == (len(X), 3)
    search = GridSearchCV(make(method), {"level": [2, 3], "alpha": ["auto", 0.1]}, cv=3)
    assert search.fit(X, Y).best_score_ > 0.7


def test_tags_and_parameters():
    tags = get_tags(SparseGridClassifier())
    assert tags.estimator_type == "classifier"
    assert tags.classifier_tags.multi_class
    assert not tags.target_tags.multi_output
    model = make("softmax").fit(X, Y)
    assert clone(model).get_params() == model.get_params()
    assert "SparseGridClassifier" in model._repr_html_()


def test_documentation():
    cls = SparseGridClassifier
    signature = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    assert documented(cls.__doc__, "Parameters") == signature
    assert set(cls._parameter_constraints) == set(signature)
    model = make("density").fit(pd.DataFrame(X, columns=["a", "b"]), Y)
    public = {key for key in dir(model) if key.endswith("_") and not key.startswith("_")}
    assert set(documented(cls.__doc__, "Attributes")) == public


def test_reports(capsys):
    make("density", verbose=1).fit(X, Y)
    assert "[SparseGridClassifier] alpha" in capsys.readouterr().out


# Saving


@each_method
def test_saving(method, tmp_path):
    model = make(method).fit(X, Y)
    assert not odd_parts(vars(model))
    assert_same(results(pickle.loads(pickle.dumps(model))), results(model))
    joblib.dump(model, tmp_path / "model.joblib")
    assert_same(results(joblib.load(tmp_path / "model.joblib", mmap_mode="r")), results(model))
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(model)
    own = "skpou.SparseGridClassifier"
    assert skops.get_untrusted_types(data=data) == [own]
    assert_same(results(skops.loads(data, trusted=[own])), results(model))


# Bad input


@pytest.fixture
def model():
    """Fitted classifier whose state must not change."""
    model = make("density").fit(X, Y)
    before = results(model)
    yield model
    assert_same(results(model), before)


@quiet
@pytest.mark.parametrize("case", BAD_X)
def test_bad_x(model, case):
    bad, error, match = BAD_X[case]
    with no_training(), pytest.raises(error, match=match):
        model.fit(bad, Y)
    if case in ("nan", "dates", "complex", "1-D", "sparse matrix", "meta tensor"):
        for name in RESULTS:
            with pytest.raises((error, ValueError)):
                getattr(model, name)(bad)


BAD_Y = {
    "nan": (np.where(Y > 1, np.nan, Y), ValueError, "Input y contains NaN"),
    "numbers": (Y + 0.5 * X[:, 0], ValueError, "Unknown label type: continuous"),
    "two columns": (np.column_stack([Y, Y]), ValueError, "y should be a 1d array"),
    "length": (Y[1:], ValueError, "inconsistent numbers of samples"),
    "none": (None, ValueError, "requires y to be passed"),
    "complex": (Y * 1j, ValueError, "Complex data not supported|Unknown label type"),
    "masked": (np.ma.masked_array(Y, Y > 1), TypeError, "y is a masked array"),
    "dates": (np.full(60, np.datetime64("2020-01-01")), TypeError, "y holds datetime64"),
    "sparse": (scipy.sparse.csr_array(Y[:, None]), TypeError, "Sparse data was passed for y"),
    "meta tensor": (torch.empty(60, device="meta"), TypeError, "y must be .* meta tensor"),
}


@pytest.mark.parametrize("case", BAD_Y)
def test_bad_y(model, case):
    bad, error, match = BAD_Y[case]
    with no_training(), pytest.raises(error, match=match):
        model.fit(X, bad)


@pytest.mark.parametrize("case", BAD_WEIGHT)
def test_bad_weight(model, case):
    bad, error, match = BAD_WEIGHT[case]
    with no_training(), pytest.raises(error, match=match):
        model.fit(X, Y, sample_weight=bad)


@pytest.mark.parametrize(
    ("parameter", "value", "match"),
    [
        *(case for case in BAD_PARAMETERS if case[0] in SparseGridClassifier().get_params()),
        ("method", "trees", "'method' parameter of .*'density'.* Got 'trees'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_parameter(model, parameter, value, match):
    good = model.get_params()
    # Too many points are told by the training itself, before any work.
    told_within = (parameter, value) == ("level", 20)
    with nullcontext() if told_within else no_training(), pytest.raises(ValueError, match=match):
        model.set_params(**{parameter: value}).fit(X, Y)
    model.set_params(**good)


def test_not_fitted():
    for name in RESULTS:
        with pytest.raises(NotFittedError, match=r"This SparseGridClassifier .* not fitted yet"):
            getattr(SparseGridClassifier(), name)(X)


def test_categories_are_classes():
    X = np.random.default_rng(0).random((40, 2))
    names = np.where(X[:, 0] > 0.5, "right", "left")
    plain = SparseGridClassifier(level=3).fit(X, names)
    model = SparseGridClassifier(level=3).fit(X, pd.Series(names, dtype="category"))
    assert list(model.classes_) == ["left", "right"]
    assert same_bits(model.predict_proba(X), plain.predict_proba(X))
