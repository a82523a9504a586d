"""Bad input is refused by name, before any work, and an earlier fit survives it."""

import contextlib
import datetime
import inspect
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import NotFittedError

import skpou
from skpou import HierarchicalPOURegressor, LSGDRegressor, POURegressor
from tests.estimators import (
    CLASSES,
    ONE_OF_EACH,
    QUERY,
    assert_same_bits,
    each_class,
    each_configuration,
    each_configuration_slowly,
    fitted,
    make,
    no_training,
    predictions,
    stepped,
    watched_training,
)

X, Y = stepped()
N = len(X)
INVALID = (ValueError, TypeError)
#: Of each class the configuration that the tests fit.
NAMES = dict(zip(CLASSES, ONE_OF_EACH, strict=True))
WITH_REFIT = [cls for cls in CLASSES if hasattr(cls, "refit")]
METHODS = ["predict", "predict_gradient", "predict_quantile", "sample_y", "partition_proba"]
METHODS += ["predict_partition"]


def methods_of(model):
    """Those of `METHODS` that the estimator has."""
    return [method for method in METHODS if hasattr(type(model), method)]


def parameters_of(cls, method="__init__"):
    """Names of the parameters of that method, none if the class lacks it."""
    return inspect.signature(getattr(cls, method, lambda: None)).parameters.keys()


@contextlib.contextmanager
def refused(model, error, match, **params):
    """The block must raise before it trains; then the model must be what it was, bit for bit."""
    good, state = model.get_params(), pickle.dumps(vars(model))
    model.set_params(**params)
    with no_training(), pytest.raises(error, match=match):
        yield
    model.set_params(**good)
    assert pickle.dumps(vars(model)) == state


@pytest.fixture
def model(name):
    """Fitted estimator."""
    return fitted(name)


def changed(array, value, where=(3,)):
    array = np.array(array, dtype=type(value) if isinstance(value, complex) else None)
    array[where] = value
    return array


def wide(column):
    """X with a column whose range overflows."""
    result = X.copy()
    result[:2, column] = -1.2e308, 1.2e308
    return result


def frame(column):
    """Data frame with a good column a and a given column b."""
    return pd.DataFrame({"a": X[:, 0], "b": column})


DAYS = pd.date_range("2020-01-01", periods=N)
TENSOR = torch.tensor(X)

BAD_X = {
    "nan": (changed(X, np.nan, (3, 1)), ValueError, "Input X contains NaN"),
    "inf": (changed(X, np.inf, (3, 1)), ValueError, "Input X contains infinity"),
    "frame with NA": (frame(pd.array([1, None] * (N // 2))), ValueError, "X contains NaN"),
    "complex": (changed(X, 1j, (3, 1)), ValueError, "Complex data not supported"),
    "no columns": (X[:, :0], ValueError, r"0 feature\(s\)"),
    "1-D": (X[:, 0], ValueError, "Expected 2D array, got 1D array"),
    "3-D": (X[:, :, None], ValueError, "dim 3"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar"),
    "None": (None, ValueError, "(?i)expected 2D array, got scalar"),
    "strings": ([["a", "b"]] * N, ValueError, "(?i)could not convert string.*encode"),
    "numbers as strings": (X.astype(str), ValueError, "(?i)encode"),
    "frame of strings": (frame(["u"] * N), ValueError, "could not convert string.*'u'.*Encode"),
    "categories": (
        frame(pd.Categorical(["u"] * N)),
        ValueError,
        "'b' of X is categorical.*Encode",
    ),
    "dates": (frame(DAYS), TypeError, "'b' of X holds datetime64.*numbers"),
    "dates with zone": (frame(DAYS.tz_localize("UTC")), TypeError, "'b' of X holds datetime64"),
    "time spans": (frame(DAYS - DAYS[0]), TypeError, "'b' of X holds timedelta64"),
    "periods": (frame(pd.period_range("2020", periods=N, freq="D")), TypeError, "'b' of X"),
    "datetime objects": (
        frame(np.array([datetime.datetime(2020, 1, 1)] * N, dtype=object)),
        TypeError,
        "(?s)X.*(datetime|date)",
    ),
    "array of dates": (np.full((N, 2), np.datetime64("2020-01-01")), TypeError, "X holds datetime"),
    "list of dates": ([[np.datetime64("2020-01-01"), 1]] * N, TypeError, "X.*(datetime|date)"),
    "sparse matrix": (scipy.sparse.csr_matrix(X), TypeError, "Sparse data was passed for X"),
    "sparse array": (scipy.sparse.coo_array(X), TypeError, "Sparse data was passed for X"),
    "masked": (np.ma.masked_array(X, X > 0), TypeError, "X is a masked array"),
    "sparse tensor": (TENSOR.to_sparse(), TypeError, "X must be a dense .*sparse_coo"),
    "meta tensor": (torch.empty(N, 2, device="meta"), TypeError, "X must be .* meta tensor"),
    "nested tensor": (
        torch.nested.nested_tensor([TENSOR[0], TENSOR[1]], layout=torch.jagged),
        INVALID,
        "X",
    ),
    "complex tensor": (TENSOR * 1j, ValueError, "Complex data not supported. X"),
    "tensor with NaN": (TENSOR / 0 * 0, ValueError, "Input X contains NaN"),
    "1-D tensor": (TENSOR[:, 0], ValueError, "Expected 2D array, got 1D array"),
    "overflowing range": (wide(0), ValueError, "range of column 0 of X.*rescale"),
}

# PyTorch says that nested tensors are a prototype; it is no fault of ours.
quiet = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


@quiet
@each_class
@pytest.mark.parametrize("case", BAD_X)
def test_bad_x_in_fit(model, case):
    bad, error, match = BAD_X[case]
    with refused(model, error, match):
        model.fit(bad, Y)


@quiet
@each_class
@pytest.mark.parametrize("case", sorted({*BAD_X} - {"overflowing range"}))
def test_bad_x_in_predict(model, case):
    bad, error, match = BAD_X[case]
    # Names and numbers of columns are compared before the values are looked at.
    if case == "no columns":
        match = r"0 feature\(s\)|has 0 features"
    if isinstance(bad, pd.DataFrame):
        bad = bad.rename(columns={}).set_axis(["a", "b"], axis=1)
        model.feature_names_in_ = np.array(["a", "b"], dtype=object)
    methods = methods_of(model)
    for method in methods if case in ("nan", "dates") else methods[:1]:
        with pytest.raises(error, match=match):
            getattr(model, method)(bad)


@each_class
def test_no_rows(model):
    with refused(model, ValueError, r"0 sample\(s\)"):
        model.fit(X[:0], Y[:0])
    for method in methods_of(model):
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            getattr(model, method)(X[:0])


BAD_Y = {
    "nan": (changed(Y, np.nan), ValueError, "Input y contains NaN"),
    "inf": (changed(Y, -np.inf), ValueError, "Input y contains infinity"),
    "object with None": ([None, *Y[1:]], ValueError, "Input y contains NaN"),
    "all None": ([None] * N, ValueError, "Input y contains NaN"),
    "complex": (changed(Y, 1j), ValueError, "Complex data not supported"),
    "complex tensor": (torch.tensor(Y) * 1j, ValueError, "Complex data not supported. y"),
    "other length": (Y[:-1], ValueError, r"inconsistent numbers of samples: \[60, 59\]"),
    "None": (None, ValueError, "requires y to be passed"),
    "3-D": (Y[:, None, None], ValueError, "dim 3"),
    "no targets": (np.empty((N, 0)), ValueError, r"0 feature\(s\)"),
    "strings": (["a"] * N, ValueError, "y must be numeric.*Encode"),
    "array of strings": (np.array(["a"] * N), ValueError, "y must be numeric.*Encode"),
    "numbers as strings": (["1"] * N, ValueError, "y must be numeric.*Encode"),
    "string objects": (
        np.array(["a"] * N, dtype=object),
        ValueError,
        "(?i)string.*encode.* y |y must",
    ),
    "series of strings": (pd.Series(["a"] * N), ValueError, "y must be numeric.*Encode"),
    "categories": (
        pd.Series(["a"] * N, dtype="category"),
        ValueError,
        "y.* is categorical.*Encode",
    ),
    "dates": (pd.Series(DAYS), TypeError, "y holds datetime64"),
    "sparse": (scipy.sparse.csr_array(Y[:, None]), INVALID, "(?i)sparse"),
    "masked": (np.ma.masked_array(Y), TypeError, "y is a masked array"),
    "meta tensor": (torch.empty(N, device="meta"), TypeError, "y must be .* meta tensor"),
    "too large": (changed(Y, -1e308), ValueError, "y as large as .*1e[+]308.*[Rr]escale"),
}


@each_class
@pytest.mark.parametrize("case", BAD_Y)
def test_bad_y(model, case):
    bad, error, match = BAD_Y[case]
    with refused(model, error, match):
        model.fit(X, bad)


BAD_WEIGHT = {
    "negative": (changed(np.ones(N), -1.0), ValueError, "Negative values.*sample_weight"),
    "all zero": (np.zeros(N), ValueError, "(?i)sample.weight.* at least one non-zero"),
    "nan": (changed(np.ones(N), np.nan), ValueError, "Input sample_weight contains NaN"),
    "inf": (changed(np.ones(N), np.inf), ValueError, "Input sample_weight contains infinity"),
    "short": (np.ones(N - 1), ValueError, r"sample_weight.shape == \(59,\), expected \(60,\)"),
    "2-D": (np.ones((N, 1)), ValueError, "Sample weights must be 1D"),
    "complex": (changed(np.ones(N), 1j), ValueError, "Complex data not supported"),
    "strings": (["a"] * N, ValueError, "sample_weight"),
    "masked": (np.ma.masked_array(np.ones(N)), TypeError, "sample_weight is a masked array"),
    "dates": (np.array(DAYS), TypeError, "sample_weight holds datetime64"),
    "meta tensor": (torch.empty(N, device="meta"), TypeError, "sample_weight must be a dense"),
    "overflowing sum": (np.full(N, 1e308), ValueError, "sample_weight"),
}


@each_class
@pytest.mark.parametrize("case", BAD_WEIGHT)
def test_bad_weight(model, case):
    bad, error, match = BAD_WEIGHT[case]
    with refused(model, error, match):
        model.fit(X, Y, sample_weight=bad)


# Parameter, value, pattern of the message, for each class that has the parameter.
BAD_PARAMETERS = [
    ("alpha", -1, "'alpha' parameter of .* Got -1"),
    ("alpha", "foo", "'alpha' parameter of .*'auto'.* Got 'foo'"),
    ("alpha", np.nan, "'alpha' parameter of .* Got nan"),
    ("alpha", np.inf, "'alpha' parameter of .* Got inf"),
    ("n_partitions", 0, "'n_partitions' parameter of .* Got 0"),
    ("n_partitions", -3, "'n_partitions' parameter of .* Got -3"),
    ("n_partitions", 2.5, "'n_partitions' parameter of .* Got 2.5"),
    ("n_partitions", None, "'n_partitions' parameter of .* Got None"),
    ("degree", -1, "'degree' parameter of .* Got -1"),
    ("degree", 1.5, "'degree' parameter of .* Got 1.5"),
    ("degree", None, "'degree' parameter of .* Got None"),
    ("degree", 100_000, "degree=100000 in 2 dimensions has 5000150001 polynomials.* GB.*Lower"),
    ("hidden_layer_sizes", 0, "'hidden_layer_sizes' parameter of .* Got 0"),
    ("hidden_layer_sizes", None, "'hidden_layer_sizes' parameter of .* Got None"),
    ("architecture", "round", "'architecture' parameter (?=.*'residual').* Got 'round'"),
    ("gate", "cubic", "'gate' parameter (?=.*'linear')(?=.*'quadratic').* Got 'cubic'"),
    ("activation", "step", "'activation' parameter of .*'tanh'.* Got 'step'"),
    ("smoothing", 1, "'smoothing' parameter of .* Got 1"),
    ("learning_rate", 0.0, "'learning_rate' parameter of .* Got 0.0"),
    ("learning_rate", np.inf, "'learning_rate' parameter of .* Got inf"),
    ("noise", "before", "'noise' parameter of .*'after'.* Got 'before'"),
    ("init", "luck", "'init' parameter of .*('data'|'box'|'isomap').* Got 'luck'"),
    ("solver", "simplex", "'solver' parameter of .*('auto'|'varpro').* Got 'simplex'"),
    ("least_change", -1.0, "'least_change' parameter of .* Got -1.0"),
    ("pre_iter", 1001, "pre_iter=1001 are more steps than max_iter=1000"),
    ("tol", -1.0, "'tol' parameter of .* Got -1.0"),
    ("tol", np.nan, "'tol' parameter of .* Got nan"),
    ("max_iter", 0, "'max_iter' parameter of .* Got 0"),
    ("max_iter", 1.5, "'max_iter' parameter of .* Got 1.5"),
    ("n_init", 0, "'n_init' parameter of .* Got 0"),
    ("batch_size", 0, "'batch_size' parameter of .* Got 0"),
    ("warm_start", "yes", "'warm_start' parameter of .* Got 'yes'"),
    ("verbose", -1, "'verbose' parameter of .* Got -1"),
    ("random_state", -1, "'random_state' parameter of .* Got -1"),
    ("random_state", "a", "'random_state' parameter of .* Got 'a'"),
    ("dtype", "int8", "'dtype' parameter (?=.*'float32')(?=.*'float64').* Got 'int8'"),
    ("dtype", "float16", "'dtype' parameter of .* Got 'float16'"),
    ("dtype", np.float64, "'dtype' parameter of .* Got <class"),
    ("level", 0, "'level' parameter of .* Got 0"),
    ("level", 2.5, "'level' parameter of .* Got 2.5"),
    ("level", "high", "'level' parameter of .*('auto'|an int).* Got 'high'"),
    ("level", 31, "'level' parameter of .* Got 31"),
    (
        "level",
        20,
        r"level=20 .* in (n_components=)?2 dimensions has 19922945 grid points, .*\. Lower",
    ),
    ("max_points", 0, "'max_points' parameter of .* Got 0"),
    ("max_points", 48.0, "'max_points' parameter of .* Got 48.0"),
    ("basis", "cubic", "'basis' parameter of .*'linear'.* Got 'cubic'"),
    ("boundary", "none", "'boundary' parameter of .*'modified'.* Got 'none'"),
    ("n_refinements", -1, "'n_refinements' parameter of .* Got -1"),
    ("refine_fraction", 0.0, "'refine_fraction' parameter of .* Got 0.0"),
    ("refine_fraction", 1.5, "'refine_fraction' parameter of .* Got 1.5"),
    ("max_order", 4, "'max_order' parameter of .* Got 4"),
    ("n_splines", 0, "'n_splines' parameter of .* Got 0"),
    ("remainder", "never", "'remainder' parameter of .*'auto'.* Got 'never'"),
    ("density", "flat", "'density' parameter (?=.*'gaussian').* Got 'flat'"),
    ("max_columns", 0, "'max_columns' parameter of .* Got 0"),
    ("transform_columns", 2, "'transform_columns' parameter of .* Got 2"),
    ("device", None, "'device' parameter of .* Got None"),
    ("device", "abacus", "device must be 'auto' or one of .*cpu.* Got 'abacus'"),
    ("device", "cuda:7", "device must be 'auto' or one of .*cpu.* Got 'cuda:7'"),
    ("device", "cuda:x", "device must be 'auto' or one of .*cpu.* Got 'cuda:x'"),
    ("device", "meta", "device must be 'auto' or one of .*cpu.* Got 'meta'"),
]


@pytest.mark.parametrize(
    ("name", "parameter", "value", "match"),
    [(NAMES[c], *case) for c in CLASSES for case in BAD_PARAMETERS if case[0] in parameters_of(c)],
    ids=lambda value: str(value)[:20],
)
def test_bad_parameter(model, parameter, value, match):
    with refused(model, ValueError, match, **{parameter: value}):
        model.fit(X, Y)


# For each class parameter, value, pattern: what other classes accept or refuse in other words.
BAD_FOR_ONE_CLASS = {
    HierarchicalPOURegressor: [
        ("n_partitions", "many", "'n_partitions' parameter of .*'auto'.* Got 'many'"),
        ("n_partitions", (), r"n_partitions must be .* Got \(\)"),
        ("n_partitions", (4, 0), r"n_partitions must be .* Got \(4, 0\)"),
        ("n_partitions", (4, 2.5), r"n_partitions must be .* Got \(4, 2.5\)"),
        ("n_partitions", (4, "auto"), r"n_partitions must be .* Got \(4, 'auto'\)"),
        ("n_partitions", True, "n_partitions must be .* Got True"),
        ("gate", "mlp", "gate='mlp' .*needs solver='em'. Got 'auto'"),
        ("gate", "residual", "gate='residual' .*needs solver='em'. Got 'auto'"),
        ("init", "box", "init='box' needs solver='em' or solver='varpro'. Got solver='auto'"),
        ("hidden_layer_sizes", 10, "'hidden_layer_sizes' parameter of .* Got 10"),
    ],
    LSGDRegressor: [
        ("hidden_layer_sizes", (), r"hidden_layer_sizes must .* Got \(\)"),
        ("hidden_layer_sizes", (4, 0), r"hidden_layer_sizes must .* Got \(4, 0\)"),
        ("hidden_layer_sizes", (4, 2.5), r"hidden_layer_sizes must .* Got \(4, 2.5\)"),
        ("hidden_layer_sizes", True, "hidden_layer_sizes must .* Got"),
        ("hidden_layer_sizes", "many", "'hidden_layer_sizes' .*'auto'.* Got 'many'"),
        ("hidden_layer_sizes", (10**6,) * 2, "hidden_layer_sizes=.* GB.*Lower"),
    ],
    POURegressor: [
        ("n_partitions", (4, 2), r"'n_partitions' parameter of .* Got \(4, 2\)"),
        ("alpha_decay", 1.0, "'alpha_decay' parameter of .* Got 1.0"),
        ("patience", 0, "'patience' parameter of .* Got 0"),
    ],
}


@pytest.mark.parametrize("name", [NAMES[cls] for cls in BAD_FOR_ONE_CLASS])
def test_bad_parameters_of_one_class(model):
    for parameter, value, match in BAD_FOR_ONE_CLASS[type(model)]:
        with refused(model, ValueError, match, **{parameter: value}):
            model.fit(X, Y)


@each_class
def test_cuda_without_cuda(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = r"device must be .*\['cpu'\]. Got 'cuda'. CUDA is not available to torch"
    with refused(model, ValueError, message, device="cuda"):
        model.fit(X, Y)
    model.set_params(device="cuda")
    with pytest.raises(ValueError, match=message):
        model.predict(QUERY)


@each_class
@pytest.mark.gpu
def test_missing_cuda_device_lists_those_present(model):
    with refused(model, ValueError, r"'cuda:0'\]. Got 'cuda:99'", device="cuda:99"):
        model.fit(X, Y)


@each_class
@pytest.mark.gpu
@pytest.mark.parametrize("case", ["nan", "inf", "complex", "1-D", "3-D", "no columns"])
def test_bad_tensor_on_the_gpu(model, case):
    bad, error, match = BAD_X[case]
    with refused(model, error, match.replace("dim 3", "3D array")):
        model.fit(torch.tensor(bad, device="cuda"), torch.tensor(Y, device="cuda"))


@each_configuration
def test_predict_before_fit(name):
    model = make(name)
    calls = [getattr(model, method) for method in methods_of(model)]
    calls += [lambda points: model.log_density(points, Y), lambda points: model.score(points, Y)]
    if hasattr(model, "refit"):
        calls.append(lambda points: model.refit(points, Y))
    for call in calls:
        with pytest.raises(NotFittedError, match=f"This {type(model).__name__} .* not fitted yet"):
            call(X)


@each_class
def test_other_columns_in_predict(name):
    model = fitted(name)
    named = fitted(name).fit(pd.DataFrame(X, columns=["a", "b"]), Y)
    for method in methods_of(model):
        with pytest.raises(ValueError, match=r"X has 1 features, but .* is expecting 2"):
            getattr(model, method)(X[:, :1])
        with pytest.raises(ValueError, match="feature names should match"):
            getattr(named, method)(pd.DataFrame(X, columns=["a", "c"]))
        with pytest.raises(ValueError, match=r"(?s)feature names .*order"):
            getattr(named, method)(pd.DataFrame(X, columns=["b", "a"]))


# Method, arguments after X, pattern of the message: each names the argument.
BAD_ARGUMENTS = [
    ("predict", {"return_std": "total"}, "return_std must be .*'noise'. Got 'total'"),
    ("predict", {"return_std": 1}, "return_std must be .* Got 1"),
    ("predict", {"return_std": None}, "return_std must be .* Got None"),
    ("predict", {"level": -1}, "level must be None or an int between 0 and .* Got -1"),
    ("predict", {"level": 9}, "level must be None or an int between 0 and .* Got 9"),
    ("predict", {"level": 0.0}, "level must be None or an int between 0 and .* Got 0.0"),
    ("predict", {"level": True}, "level must be None or an int between 0 and .* Got True"),
    ("partition_proba", {"level": 9}, "level must be None or an int between 0 and .* Got 9"),
    ("predict_partition", {"level": "a"}, "level must be None or an int .* Got 'a'"),
    ("predict_quantile", {"quantiles": 0}, "quantiles must lie between 0 and 1.* Got 0"),
    ("predict_quantile", {"quantiles": [0.5, 1]}, r"quantiles must lie .* Got \[0.5, 1\]"),
    ("predict_quantile", {"quantiles": [np.nan]}, r"quantiles must lie .* Got \[nan\]"),
    ("predict_quantile", {"quantiles": [[0.5]]}, r"quantiles must lie .* Got \[\[0.5\]\]"),
    ("predict_quantile", {"quantiles": "median"}, "quantiles must .* Got 'median'"),
    ("sample_y", {"n_samples": 0}, "n_samples must be an int of at least 1. Got 0"),
    ("sample_y", {"n_samples": 1.5}, "n_samples must be an int of at least 1. Got 1.5"),
    ("sample_y", {"n_samples": True}, "n_samples must be an int of at least 1. Got True"),
    ("sample_y", {"random_state": "a"}, "random_state"),
    ("sample_y", {"random_state": -1}, "random_state"),
    ("log_density", {"y": Y[:-1]}, r"y must hold \(60, 1\) values .* Got \(59, 1\)"),
    ("log_density", {"y": np.c_[Y, Y]}, r"y must hold \(60, 1\) values .* Got \(60, 2\)"),
    ("log_density", {"y": Y[None]}, r"y must hold \(60, 1\) values .* Got \(1, 60\)"),
    ("log_density", {"y": Y[:, None, None]}, r"y .*(3|\(60, 1, 1\))"),
    ("log_density", {"y": None}, "y "),
    ("log_density", {"y": changed(Y, np.nan)}, "y contains NaN"),
    ("log_density", {"y": Y * 1j}, "(?i)complex"),
    ("log_density", {"y": ["a"] * N}, "y must be numeric"),
    ("refit", {"y": Y, "degree": -1}, "degree must be None or an int of at least 0. Got -1"),
    ("refit", {"y": Y, "degree": 1.5}, "degree must be None or an int of at least 0. Got 1.5"),
    ("refit", {"y": Y, "degree": True}, "degree must be None or an int of .* Got True"),
    ("refit", {"y": Y, "degree": 100_000}, "degree=100000 in 2 dimensions .* GB"),
    ("refit", {"y": changed(Y, np.nan)}, "Input y contains NaN"),
    ("refit", {"y": Y[:-1]}, "inconsistent numbers of samples"),
    ("refit", {"y": Y, "sample_weight": -np.ones(N)}, "Negative values .*sample_weight"),
]


@pytest.mark.parametrize(
    ("name", "method", "arguments", "match"),
    [
        pytest.param(NAMES[cls], method, arguments, match, id=f"{NAMES[cls]}-{method}-{i}")
        for cls in CLASSES
        for i, (method, arguments, match) in enumerate(BAD_ARGUMENTS)
        if parameters_of(cls, method) >= arguments.keys()
    ],
)
def test_bad_argument(model, method, arguments, match):
    with refused(model, ValueError, match):
        getattr(model, method)(X, **arguments)


@each_class
def test_masked_target_of_a_density(model):
    with pytest.raises(TypeError, match="y is a masked array"):
        model.log_density(X, np.ma.masked_array(Y, Y > 0))


@pytest.mark.parametrize("name", [NAMES[cls] for cls in WITH_REFIT])
def test_refit_with_other_columns_or_out_of_range(model):
    with refused(model, ValueError, "X has 1 features, but .* is expecting 2"):
        model.refit(X[:, :1], Y)
    with refused(model, ValueError, "X"):
        model.refit(wide(0), Y)


@each_configuration_slowly
def test_pickle_of_another_version(name):
    model = fitted(name)
    other = make(name)
    match = rf"pickled by skpou 99\.1\.2 and is read by skpou {re.escape(skpou.__version__)}"
    with pytest.warns(UserWarning, match=match):
        other.__setstate__({**model.__getstate__(), "_skpou_version": "99.1.2"})
    assert_same_bits(predictions(other), predictions(model))


@each_class
def test_training_is_watched(name):
    with watched_training() as entered:
        make(name).fit(X[:12], Y[:12])
    assert entered
    with pytest.raises(AssertionError, match="training began"), no_training():
        make(name).fit(X[:12], Y[:12])


@pytest.mark.parametrize("name", [NAMES[cls] for cls in WITH_REFIT])
def test_refit_is_watched(model):
    with watched_training() as entered:
        model.refit(X, Y)
    assert entered
