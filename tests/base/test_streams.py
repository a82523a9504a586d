"""partial_fit and rows on disk: the same model, however the rows come."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skpou import (
    AdditivePOURegressor,
    HierarchicalPOURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
)
from tests.estimators import kinked
from tests.on_disk import OnDisk

X, Y = kinked(240, 3)
X[:, 2] *= 50.0
BOUNDS = [[-1, 1], [-1, 1.5], [-50, 50]]
QUERY = np.random.default_rng(5).uniform(-1, 1, (40, 3)) * [1, 1, 50]
LABELS = np.array(["low", "middle", "high"])[np.searchsorted([0.2, 0.9], Y)]
WEIGHT = np.random.default_rng(6).integers(0, 3, 240)

REGRESSORS = {
    "grid": SparseGridRegressor(level=3, bounds=BOUNDS),
    "given ridge": SparseGridRegressor(level=4, bounds=BOUNDS, alpha=1e-3),
    "mixed grid": SparseGridRegressor(level=2, bounds=BOUNDS, density="mixture"),
    "terms": AdditivePOURegressor(terms=[(0,), (1,), (2,), (0, 1)], n_splines=5, bounds=BOUNDS),
    "main effects": AdditivePOURegressor(1, density="gaussian", bounds=BOUNDS),
}
CLASSIFIERS = {
    "densities": SparseGridClassifier(level=3, bounds=BOUNDS),
    "given smoothing": SparseGridClassifier(level=3, bounds=BOUNDS, alpha=0.1),
    "indicators": SparseGridClassifier(level=3, bounds=BOUNDS, method="one_hot"),
}


def predicted(model):
    if hasattr(model, "classes_"):
        return model.predict_proba(QUERY)
    return np.stack(model.predict(QUERY, return_std=True))


def in_blocks(model, y, seed=0, n_blocks=4):
    """The model after blocks of the rows in a random order, one of them empty but for weight 0."""
    given = {"classes": np.unique(y)} if y is LABELS else {}
    model = clone(model)
    for block in np.array_split(np.random.default_rng(seed).permutation(240), n_blocks):
        model.partial_fit(X[block], y[block], sample_weight=WEIGHT[block], **given)
    return model


@pytest.mark.parametrize("name", [*REGRESSORS, *CLASSIFIERS])
def test_the_order_of_blocks_does_not_matter(name):
    model, y = {**REGRESSORS, **CLASSIFIERS}[name], LABELS if name in CLASSIFIERS else Y
    whole = predicted(in_blocks(model, y, n_blocks=1))
    np.testing.assert_allclose(predicted(in_blocks(model, y)), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["grid", "given ridge", "densities", "indicators"])
def test_sums_give_what_rows_in_memory_give(name):
    """Where no row repeats and nothing is left out; the grids' fits are the same formulas."""
    model, y = {**REGRESSORS, **CLASSIFIERS}[name], LABELS if name in CLASSIFIERS else Y
    there = predicted(clone(model).fit(X, y))
    here = predicted(clone(model).partial_fit(X, y))
    if name in CLASSIFIERS:
        np.testing.assert_allclose(here, there, atol=1e-9)
    else:
        np.testing.assert_allclose(here[0], there[0], atol=1e-9)


@pytest.mark.parametrize("name", ["terms", "given ridge", "densities"])
def test_rows_on_disk(name, tmp_path):
    model, y = {**REGRESSORS, **CLASSIFIERS}[name], LABELS if name in CLASSIFIERS else Y
    np.save(tmp_path / "rows.npy", X)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found = [
        predicted(clone(model).set_params(batch_size=size).fit(rows, y, WEIGHT))
        for size in (7, 100)
    ]
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-9)
    if name != "terms":  # Their knots are those of a sample of the rows.
        whole = predicted(in_blocks(model, y, n_blocks=1))
        np.testing.assert_allclose(found[0], whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        SparseGridRegressor(level=2),
        AdditivePOURegressor(1, dtype="float32", remainder=False),
        SparseGridClassifier(level=2),
    ],
)
def test_no_more_rows_than_a_block_are_read_together(model):
    rows, y = OnDisk(X), OnDisk(LABELS if isinstance(model, SparseGridClassifier) else Y)
    model = clone(model).set_params(batch_size=33).fit(rows, y)
    assert rows.most == y.most == 33
    assert model.score(X, y.values) > 0.6


def test_several_outputs_have_terms_of_their_own():
    rows, both = OnDisk(X), np.stack([X[:, 0] ** 3, np.sin(3 * X[:, 1])], 1)
    model = AdditivePOURegressor(
        1, density="gaussian", transform_columns=False, batch_size=50, remainder=False
    )
    assert model.fit(rows, both).predict(QUERY).shape == (40, 2)
    np.testing.assert_allclose(model.predict(QUERY)[:, 0], QUERY[:, 0] ** 3, atol=0.02)
    np.testing.assert_allclose(model.predict(QUERY)[:, 1], np.sin(3 * QUERY[:, 1]), atol=0.02)


def test_rows_outside_the_first_box_are_counted():
    model = SparseGridRegressor(level=2)
    inside = np.abs(X[:, 0]) < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(X[inside], Y[inside])
    box = np.stack([X[inside].min(0), X[inside].max(0)])
    beyond = ((X < box[0]) | (X > box[1])).any(1) & ~inside
    with pytest.warns(UserWarning, match=f"^{beyond.sum()} rows lie outside") as caught:
        model.partial_fit(X[~inside], Y[~inside])
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(model.scaling_["offset"], box[0])


def test_bounds_are_the_box_of_fit():
    model = SparseGridRegressor(level=2, bounds=BOUNDS).fit(X, Y)
    np.testing.assert_array_equal(model.scaling_["offset"], np.array(BOUNDS)[:, 0])
    with pytest.warns(UserWarning, match="rows lie outside") as caught:
        SparseGridRegressor(level=2, bounds=[[-1, 1], [-1, 1], [-1, 1]]).fit(X, Y)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([[0, 1]], r"shape \(3, 2\). Got shape \(1, 2\)"),
        ([[0, 1], [0, 1], [1, 1]], r"column 2 .* Got \[1.0, 1.0\]"),
        ([[0, 1], [0, np.inf], [0, 1]], r"column 1 .* Got \[0.0, inf\]"),
    ],
)
def test_bad_bounds(bounds, words):
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=words):
            getattr(SparseGridRegressor(bounds=bounds), method)(X, Y)


def test_what_does_not_go_with_earlier_blocks():
    model = in_blocks(REGRESSORS["grid"], Y, n_blocks=1)
    before = predicted(model)
    with pytest.raises(ValueError, match="y has 2 outputs, but 1"):
        model.partial_fit(X, np.stack([Y, Y], 1))
    with pytest.raises(ValueError, match="now ask for 8 columns, but for"):
        clone_of = pickle.loads(pickle.dumps(model)).set_params(level=2)
        clone_of.partial_fit(X, Y)
    np.testing.assert_array_equal(predicted(model), before)
    classes = SparseGridClassifier(level=2).partial_fit(
        X, LABELS, classes=["low", "middle", "high"]
    )
    with pytest.raises(ValueError, match=r"the classes \['other'\], which are not among"):
        classes.partial_fit(X[:2], ["low", "other"])


@pytest.mark.parametrize("model", [SparseGridRegressor(level=2), AdditivePOURegressor(1)])
def test_extremes(model):
    model = clone(model).partial_fit(X, 1e200 * Y)
    assert np.corrcoef(model.predict(X) / 1e200, Y)[0, 1] > 0.8
    with pytest.raises(ValueError, match=r"Values of y as large as 2.*e\+200 overflow"):
        clone(model).set_params(dtype="float32").partial_fit(X, 1e200 * Y)
    model = clone(model).partial_fit(np.ones((5, 3)), np.full(5, 3.7))
    np.testing.assert_allclose(model.predict(X), 3.7)
    assert model.summary()


def test_a_failed_first_block_leaves_nothing():
    model = SparseGridRegressor(level=2)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(np.full_like(X, np.nan), Y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert "_summary" not in vars(model)


def test_the_state_is_saved_and_fit_starts_anew():
    model = clone(REGRESSORS["grid"]).partial_fit(X[:100], Y[:100])
    again = pickle.loads(pickle.dumps(model)).partial_fit(X[100:], Y[100:])
    whole = clone(model).partial_fit(X, Y)
    np.testing.assert_allclose(predicted(again), predicted(whole), rtol=1e-10, atol=1e-10)
    assert "_summary" not in vars(model.fit(X, Y))
    np.testing.assert_array_equal(predicted(model.partial_fit(X, Y)), predicted(whole))


@pytest.mark.parametrize(
    "model",
    [
        SparseGridRegressor(n_refinements=1),
        SparseGridRegressor(solver="iterative"),
        SparseGridClassifier(method="softmax"),
    ],
)
def test_what_is_no_sum_has_no_partial_fit(model):
    assert not hasattr(model, "partial_fit")
    with pytest.raises(ValueError, match="needs all rows in memory"):
        clone(model).set_params(batch_size=50).fit(
            OnDisk(X), LABELS if "method" in model.get_params() else Y
        )


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[240, 239\]"):
        SparseGridRegressor(batch_size=50).fit(OnDisk(X), Y[1:])
    with pytest.raises(ValueError, match="All are zero"):
        SparseGridRegressor(batch_size=50).fit(OnDisk(X), Y, np.zeros(240))


def in_hdf5(folder, X, y):
    file = pytest.importorskip("h5py").File(folder / "rows.h5", "w")
    return [file.create_dataset(name, data=part) for name, part in (("X", X), ("y", y))]


def in_zarr(folder, X, y):
    zarr = pytest.importorskip("zarr")
    stored = [
        zarr.open(str(folder / name), mode="w", shape=part.shape, chunks=50, dtype=part.dtype)
        for name, part in (("X", X), ("y", y))
    ]
    for array, part in zip(stored, (X, y), strict=True):
        array[:] = part
    return stored


@pytest.mark.parametrize("stored", [in_hdf5, in_zarr])
def test_files_of_other_packages(stored, tmp_path):
    """Fitted and predicted as the same rows of a memory map are."""
    rows, y = stored(tmp_path, X, Y)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for model in (REGRESSORS["grid"], HierarchicalPOURegressor(2, 1)):
        here, there = (
            clone(model).set_params(batch_size=60).fit(*given) for given in ((rows, y), (mapped, Y))
        )
        np.testing.assert_array_equal(predicted(here), predicted(there))
    np.testing.assert_array_equal(here.predict(rows), here.predict(X))
