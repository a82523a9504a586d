"""Models in files: what comes back, what is refused, and what a fault on the way leaves."""

import os
import stat
import sys
import zipfile

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skpou
from skpou import (
    LSGDRegressor,
    NeuralSparseGridRegressor,
    SparseGridClassifier,
    SparseGridRegressor,
    io,
    physics,
)
from tests.estimators import QUERY, each_quick_class, fitted, same_bits, stepped

skops = pytest.importorskip("skops.io")

X, Y = stepped()


def decay(u, x, p):
    return u.d(0) + u()


@each_quick_class
def test_models_come_back_as_they_were(name, tmp_path):
    model = fitted(name).conformalize(X, Y)
    assert io.save(model, tmp_path / "model.skops") is None
    loaded = io.load(str(tmp_path / "model.skops"))
    assert type(loaded) is type(model)
    assert same_bits(loaded.predict(QUERY), model.predict(QUERY))
    assert same_bits(loaded.predict_interval(QUERY), model.predict_interval(QUERY))


def test_classifiers_and_pipelines_come_back(tmp_path):
    path = tmp_path / "model.skops"
    for model in (SparseGridClassifier(level=2), make_pipeline(StandardScaler(), fitted("grid"))):
        targets = Y > 1 if isinstance(model, SparseGridClassifier) else Y
        io.save(model.fit(X, targets), path)
        assert same_bits(io.load(path).predict(QUERY), model.predict(QUERY))
    assert os.listdir(tmp_path) == ["model.skops"]


def test_every_public_class_is_trusted():
    public = {f"skpou.{name}" for name in skpou.__all__ if name[0] != "_"}
    assert set(io._own_types()) - public == {
        f"skpou.physics.{name}" for name in ("Equation", "Symmetry", "Unknown")
    }
    assert all(hasattr(physics, name) for name in io.OF_EQUATIONS)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(FunctionTransformer(os.path.join), SparseGridRegressor()),
        LSGDRegressor(physics=physics.Equation(decay, "chebyshev")),
    ],
)
def test_foreign_types_are_refused_on_both_ways(model, tmp_path):
    path = tmp_path / "model.skops"
    with pytest.raises(ValueError, match=r"holds \['.*(join|decay)'.*\], which load"):
        io.save(model, path)
    assert not os.listdir(tmp_path)
    skops.dump(model, path)
    with pytest.raises(ValueError, match=r"holds \['.*(join|decay)'.*\], which is not skpou's"):
        io.load(path)


@pytest.mark.parametrize("fitted_state", [True, False])
def test_names_in_a_forged_file_are_not_called(fitted_state, tmp_path):
    """A file without foreign types whose encoder is the name of a function, and its arguments."""
    path, made = tmp_path / "model.skops", tmp_path / "made"
    with pytest.warns(ConvergenceWarning):
        model = NeuralSparseGridRegressor(2, level=1, max_iter=1).fit(X, Y)
    model.model_["encoder"]["form"].update(kind="os:makedirs", n_features=str(made), n_components=7)
    if not fitted_state:
        del model.scaling_
    io.save(model, path)
    with pytest.raises(ValueError, match="has an encoder 'os:makedirs', but encoder='mlp'"):
        io.load(path)
    assert not made.exists()


@pytest.mark.parametrize("stage", ["write", "fsync", "replace"])
def test_a_fault_leaves_the_earlier_file(stage, tmp_path, monkeypatch):
    path = tmp_path / "model.skops"
    io.save(fitted("grid"), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    if stage == "write":
        opened = open

        class Full:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def write(self, data):
                self.file.write(data[:100])
                fail()

        monkeypatch.setattr(io, "open", lambda *a: Full(opened(*a)), raising=False)
    else:
        monkeypatch.setattr(os, stage, fail)
    with pytest.raises(OSError, match="no space left"):
        io.save(fitted("pieces"), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.skops"]


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="needs links of POSIX")
def test_links_and_modes_are_kept(tmp_path):
    target, link = tmp_path / "model.skops", tmp_path / "latest.skops"
    io.save(fitted("grid"), target)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    link.symlink_to(target)
    io.save(fitted("pieces"), link)
    assert link.is_symlink()
    assert type(io.load(target)).__name__ == "HierarchicalPOURegressor"


@pytest.mark.parametrize("data", [b"", b"not a model", "half", "other"])
def test_files_that_are_no_models(data, tmp_path):
    path = tmp_path / "model.skops"
    if data == "half":
        io.save(fitted("grid"), path)
        data = path.read_bytes()[:-200]
    if data == "other":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "b")
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=r"path='.*model.skops' holds no model"):
        io.load(path)
    with pytest.raises(FileNotFoundError):
        io.load(tmp_path / "none.skops")


def test_without_skops(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match="needs skops: pip install"):
        io.save(fitted("grid"), tmp_path / "model.skops")
    with pytest.raises(ImportError, match="needs skops"):
        io.load(tmp_path / "model.skops")


def test_arrays_are_compressed(tmp_path):
    io.save(fitted("grid"), tmp_path / "model.skops")
    with zipfile.ZipFile(tmp_path / "model.skops") as file:
        assert {part.compress_type for part in file.infolist()} == {zipfile.ZIP_DEFLATED}
