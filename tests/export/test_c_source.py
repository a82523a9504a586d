import copy
import ctypes
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skpou import HierarchicalPOURegressor, LSGDRegressor, SparseGridClassifier
from skpou.export import to_c
from tests import estimators
from tests.export.exported import REFUSED, each_model, fitted, outputs, spread

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="needs the C compiler gcc")
#: Sums in another order, in units of the rms of y.
ROUND_OFF = 1e-12


def compiled(source, folder):
    """Library of one source; warnings are errors, and nothing beyond C99 is allowed."""
    path = folder / "model.c"
    path.write_text(source)
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([GCC, *flags, path, "-o", folder / "model.so", "-lm"], check=True)
    return ctypes.CDLL(str(folder / "model.so"))


def evaluated(function, X, size):
    """Results (n, size) of a function of the library at the points X (n, d)."""
    pointer = ctypes.POINTER(ctypes.c_double)
    X, result = np.ascontiguousarray(X), np.full((len(X), size + 1), np.pi)
    for x, out in zip(X, result):
        function(x.ctypes.data_as(pointer), out.ctypes.data_as(pointer))
    assert (result[:, size] == np.pi).all(), "wrote past the end"
    return result[:, :size]


@needs_gcc
@each_model()
def test_value_and_gradient_are_those_of_predict(name, tmp_path):
    model, X = fitted(name)
    library = compiled(to_c(model), tmp_path)
    expected, d = outputs(model, X), X.shape[1]
    m = expected.shape[1]
    error = np.abs(evaluated(library.model, X, m) - expected) / spread(model)
    digits = 4 * np.finfo(float).eps * np.abs(expected / spread(model)).max()
    assert error.max() <= ROUND_OFF + digits  # Far from zero y itself has no more digits.
    gradient = model.predict_gradient(X).reshape(-1, m, d)
    found = evaluated(library.model_gradient, X, m * d).reshape(-1, m, d)
    steepest = np.abs(gradient).max((0, 2), keepdims=True)
    assert (np.abs(found - gradient) <= 1e-10 * steepest).all()


@needs_gcc
def test_gradient_across_sharp_gates_is_that_of_the_piece(tmp_path):
    X = np.linspace(-1, 1, 200)[:, None]
    model = HierarchicalPOURegressor().fit(X, np.abs(X[:, 0]))
    library = compiled(to_c(model, name="absolute"), tmp_path)
    near = np.array([[-1e-9], [1e-9]])
    slopes = evaluated(library.absolute_gradient, near, 1)[:, 0]
    np.testing.assert_allclose(slopes, [-1, 1], atol=1e-10)
    np.testing.assert_allclose(evaluated(library.absolute, near, 1)[:, 0], 1e-9, atol=1e-14)


@pytest.mark.parametrize("name", REFUSED)
def test_other_estimators_are_refused(name):
    with pytest.raises(TypeError, match=r"one of HierarchicalPOURegressor, .* Got \w+Regressor"):
        to_c(estimators.make(name))


def test_what_is_no_regressor_is_refused():
    for other in (SparseGridClassifier(), make_pipeline(HierarchicalPOURegressor()), None):
        with pytest.raises(TypeError, match=f"Got {type(other).__name__}"):
            to_c(other)
    with pytest.raises(NotFittedError):
        to_c(HierarchicalPOURegressor())


def test_stages_that_keep_rows_are_refused():
    model = copy.deepcopy(fitted("sines")[0])
    model.model_["stages"][-1]["kind"] = "cubic_splines"
    last = model.n_stages_ - 1
    with pytest.raises(ValueError, match=rf"Stage {last} .* 'cubic_splines', which has a column"):
        to_c(model)


@pytest.mark.parametrize("name", ["", "2x", "a-b", "while", "affine", "v3", None])
def test_names_that_c_cannot_have(name):
    model, _ = fitted("grid")
    with pytest.raises(ValueError, match="name"):
        to_c(model, name=name)


def test_columns_are_named_in_the_comment():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame({"voltage */": np.linspace(0, 2, 30), "one": 1.0})
    source = to_c(HierarchicalPOURegressor().fit(X, X["voltage */"] ** 2))
    comment = source.split("*/")[0]
    assert "voltage __: 0.0 to 2.0" in comment and "one: constant" in comment
    assert comment.count("/*") == 1


def test_a_mean_that_gives_way_is_refused_unless_the_fit_alone_is_asked_for():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 6))
    y = X @ np.arange(6) + 0.3 * np.sin(3 * X[:, 0]) + 0.5 * rng.standard_normal(60)
    model = LSGDRegressor((3,)).fit(X, y)
    with pytest.raises(ValueError, match="fit_alone=True"):
        to_c(model)
    assert "void model_gradient" in to_c(model, fit_alone=True)
