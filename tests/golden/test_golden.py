"""Models that any release has saved are readable, and predict what they predicted then."""

import re
import warnings
import zlib

import joblib
import numpy as np
import pytest
import skops.io

import skpou
from tests.golden.models import FOLDER, POINTS, predictions

SAVED = sorted(FOLDER.glob("*/*.npz"))
PUBLIC = [name for name in skpou.__all__ if name != "__version__"]

each_saved = pytest.mark.parametrize(
    "path", SAVED, ids=[f"{path.parent.name}/{path.stem}" for path in SAVED]
)


def assert_predicts_the_same(model, path):
    """Compare with the saved predictions, relative to the size of each array."""
    saved, predicted = np.load(path, allow_pickle=False), predictions(model)
    np.testing.assert_array_equal(saved["points"], POINTS)
    single = model.get_params().get("dtype") == "float32"
    # Kinds of predictions that came later have no saved values.
    kinds = [file.removeprefix("predicted_") for file in saved.files if "predicted_" in file]
    assert kinds
    for name in kinds:
        value, wanted = predicted[name], saved[f"predicted_{name}"]
        assert value.dtype == wanted.dtype, name
        if wanted.dtype.kind in "US":
            np.testing.assert_array_equal(value, wanted)
            continue
        tolerance = (1e-5 if single else 1e-10) * np.abs(wanted).max()
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance, err_msg=name)


def test_this_release_has_been_saved():
    assert any(path.parent.name == skpou.__version__ for path in SAVED)


@each_saved
def test_saved_models_predict_the_same(path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was pickled by skpou")
        trusted = [f"skpou.{name}" for name in PUBLIC]
        assert_predicts_the_same(skops.io.load(path.with_suffix(".skops"), trusted=trusted), path)
        assert_predicts_the_same(joblib.load(path.with_suffix(".joblib")), path)


@each_saved
def test_saved_models_name_no_file_of_the_package(path):
    """A file may move; the public name of a class may not."""
    data = zlib.decompress(path.with_suffix(".joblib").read_bytes())
    assert b"skpou" in data
    assert not re.search(rb"skpou\.\w", data)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_classes_have_a_stable_name(name):
    cls = getattr(skpou, name)
    assert (cls.__module__, cls.__qualname__) == ("skpou", name)
