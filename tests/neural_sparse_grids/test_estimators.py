"""Neural sparse grids: encoders, embeddings, solvers, refits, saving, what goes wrong."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skpou import NeuralSparseGridClassifier, NeuralSparseGridRegressor
from skpou.datasets import make_swiss_roll, make_two_moons_3d
from skpou.neural_sparse_grids import fit as neural_fit
from tests.base.test_interoperability import odd_parts
from tests.estimators import kinked, kinked_mean, same_bits
from tests.examples import slow

BOTH = [NeuralSparseGridRegressor, NeuralSparseGridClassifier]
each_class = pytest.mark.parametrize("cls", BOTH)
QUICK = {"hidden_layer_sizes": (6,), "level": 3}


def small_encoder(n_features, n_components):
    """Module as a user would write it, with a layer that draws."""
    layers = [nn.Linear(n_features, 8), nn.Tanh(), nn.Dropout(0.05), nn.Linear(8, n_components)]
    return nn.Sequential(*layers)


def no_module(n_features, n_components):
    """Function that returns something else."""
    return n_features * n_components


def rows(n=120, seed=0):
    """Points and targets, to be rounded to classes."""
    X, y = kinked(n, noise=0.02, seed=seed)
    return X, y


def fit(cls, n=120, **params):
    X, y = rows(n)
    y = y if cls is NeuralSparseGridRegressor else (y > 0.5).astype(int)
    return cls(**QUICK | params).fit(X, y), X, y


# Embedding


@each_class
@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_transform_and_grid(cls, n_components):
    model, X, _ = fit(cls, n_components=n_components, margin=0.05, level=2)
    u = model.transform(X)
    assert u.shape == (len(X), n_components)
    assert ((u > 0.05) & (u < 0.95)).all()
    assert model.grid_points_.shape == (len(model.coef_), n_components)
    assert 0 < model.active_fraction_ <= 1
    names = model.get_feature_names_out()
    assert names.tolist() == [f"{cls.__name__.lower()}{i}" for i in range(n_components)]
    tensor = model.transform(torch.tensor(X))
    assert isinstance(tensor, torch.Tensor)
    assert same_bits(tensor.numpy(), u)


def test_prediction_is_the_grids_function_of_the_embedding():
    model, X, _ = fit(NeuralSparseGridRegressor)
    values = []
    for point in model.transform(X):
        distance = np.abs(model.grid_points_ - point)
        assert distance.shape == (len(model.coef_), 2)
        values.append(point)
    head = model.model_["head"]
    from skpou.sparse_grids.basis.grid import SparseGrid

    grid = SparseGrid(2, head["level"], head["boundary"])
    columns = grid.matrix(torch.tensor(np.array(values))).numpy()
    np.testing.assert_allclose(model.intercept_ + columns @ model.coef_, model.predict(X))
    assert model.active_fraction_ == (columns != 0).any(0).mean()


def test_step_of_a_pipeline():
    X, y = make_two_moons_3d(600, noise=0.1, random_state=0)
    pipeline = make_pipeline(NeuralSparseGridClassifier(level=3), LogisticRegression())
    assert pipeline.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9
    assert pipeline[:-1].get_feature_names_out().tolist() == [
        "neuralsparsegridclassifier0",
        "neuralsparsegridclassifier1",
    ]


@pytest.mark.parametrize("encoder", ["mlp", small_encoder])
def test_embeddings_on_faces_are_told(encoder, monkeypatch):
    monkeypatch.setattr(neural_fit, "share_on_faces", lambda *_: 0.7)
    with pytest.warns(UserWarning, match="70 % of the embeddings lie within 0.02 of a face") as w:
        fit(NeuralSparseGridClassifier, encoder=encoder, coef_solver="gradient", max_iter=20)
    assert [r.filename for r in w if "embeddings" in str(r.message)] == [__file__]


# Solvers


@pytest.mark.parametrize(
    ("solver", "optimizer"),
    [
        ("gradient", "adam"),
        ("direct", "sgd"),
        ("varpro", "adam"),
        *slow(("gradient", "sgd"), ("direct", "adam"), ("varpro", "sgd")),
        *slow(("iterative", "adam"), ("iterative", "sgd")),
    ],
)
def test_solvers_of_a_regression(solver, optimizer):
    params = {"coef_solver": solver, "optimizer": optimizer, "learning_rate": 0.03}
    model, *_ = fit(NeuralSparseGridRegressor, **params, max_iter=200)
    assert model.coef_solver_ == solver
    grid = np.random.default_rng(1).uniform(-1, 1, (500, 2))
    assert np.sqrt(np.mean((model.predict(grid) - kinked_mean(grid)) ** 2)) < 0.25
    again, _, _ = fit(NeuralSparseGridRegressor, **params, max_iter=200)
    assert same_bits(again.predict(grid), model.predict(grid))


@pytest.mark.parametrize(
    ("solver", "method"),
    [
        *itertools.product(["gradient", "varpro"], ["softmax", "one_hot", "density"]),
        # What these solve for does not depend on the method.
        *itertools.product(["direct"], ["one_hot", "density"]),
        *slow(("direct", "softmax")),
        *slow(*itertools.product(["iterative"], ["softmax", "one_hot", "density"])),
    ],
)
@pytest.mark.parametrize("n_classes", [3, *slow(2)])
@pytest.mark.filterwarnings("ignore:.*of the embeddings lie within")
def test_solvers_of_a_classification(solver, method, n_classes):
    X, y = rows(150)
    labels = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    params = {"coef_solver": solver, "method": method, "max_iter": 100}
    model = NeuralSparseGridClassifier(**QUICK | params, learning_rate=0.03).fit(X, labels)
    assert model.score(X, labels) > (0.75 if method == "density" else 0.85)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert model.coef_.shape == (len(model.grid_points_), n_classes)


@each_class
def test_auto_takes_varpro_where_its_matrices_are_small(cls):
    assert fit(cls)[0].coef_solver_ == "varpro"
    large, *_ = fit(cls, hidden_layer_sizes=(100, 100), max_iter=20, learning_rate=1e-3)
    assert large.coef_solver_ == "gradient"


@each_class
def test_early_stopping_holds_rows_out(cls):
    for solver in ("varpro", "gradient"):
        params = {"coef_solver": solver, "early_stopping": True, "validation_fraction": 0.3}
        model, X, y = fit(cls, **params, max_iter=400, n_iter_no_change=5)
        assert model.score(X, y) > 0.8
        # Rows held out are no better for anything that is learnt of noise.
        noise = np.random.default_rng(0).permutation(y)
        assert clone(model).fit(X, noise).n_iter_ < 400


@each_class
def test_rows_are_held_out_by_default_from_ten_thousand_on(cls):
    model = cls(level=3)
    form = model._form()
    assert model._options(form, 9_999).validation_fraction is None
    assert model._options(form, 10_000).validation_fraction == 0.1
    assert cls(early_stopping=False)._options(form, 10_000).validation_fraction is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*used all max_iter")
def test_most_of_the_grid_is_used():
    X, y = make_swiss_roll(1000, random_state=0)
    model = NeuralSparseGridRegressor(level=4, max_iter=20).fit(X, y)
    assert model.level_ == 4
    assert model.active_fraction_ >= 0.6


def test_level_is_kept_low_where_rows_are_few_and_noisy():
    X, y = kinked(60, noise=0.3)
    assert NeuralSparseGridRegressor(level=8).fit(X, y).level_ < 8


@each_class
def test_steps_used_up(cls):
    with pytest.warns(ConvergenceWarning, match=r"all max_iter=3 iterations.*Raise max_iter") as w:
        fit(cls, max_iter=3)
    assert w[0].filename == __file__


@each_class
def test_reports(cls, capsys):
    fit(cls, verbose=1)
    assert f"[{cls.__name__}] level 2, step" in capsys.readouterr().out
    fit(cls, verbose=1, coef_solver="gradient", max_iter=30)
    assert f"[{cls.__name__}] pass 30: loss" in capsys.readouterr().out


@each_class
@pytest.mark.parametrize("solver", ["varpro", "gradient"])
def test_interrupt_leaves_the_best_so_far(cls, solver, monkeypatch):
    calls = []

    def report(line):
        calls.append(line)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(neural_fit.NeuralGridTraining, "report", report, raising=False)
    original = neural_fit.NeuralGridTraining.__init__

    def init(self, rows, encoder, options, rng, _=None, more=None):
        original(self, rows, encoder, options, rng, report, more)

    monkeypatch.setattr(neural_fit.NeuralGridTraining, "__init__", init)
    X, y = rows()
    model = cls(**QUICK, coef_solver=solver)
    with pytest.warns(UserWarning, match="interrupted") as caught, pytest.raises(KeyboardInterrupt):
        model.fit(X, y if cls is NeuralSparseGridRegressor else y > 0.5)
    assert [w.filename for w in caught if "interrupted" in str(w.message)] == [__file__]
    assert np.isfinite(model.predict(X).astype(float)).all()


# The grid fitted again


@each_class
def test_refit_grid_keeps_the_encoder(cls):
    model, X, y = fit(cls)
    before = model.transform(X)
    other = rows(seed=1)
    target = -other[1] if cls is NeuralSparseGridRegressor else (other[1] < 0.5).astype(int)
    assert model.refit_grid(other[0], target) is model
    assert same_bits(model.transform(X), before)
    assert model.score(other[0], target) > 0.9
    first = clone(model).fit(X, y)
    same = pickle.loads(pickle.dumps(first)).refit_grid(X, y, sample_weight=np.ones(len(X)))
    if cls is NeuralSparseGridRegressor:
        np.testing.assert_allclose(same.coef_, first.coef_, atol=1e-6)
    assert same.score(X, y) == pytest.approx(first.score(X, y), abs=0.02)
    with pytest.raises(ValueError, match="X has 1 features, but"):
        model.refit_grid(X[:, :1], y)


# Encoders


@each_class
def test_a_function_for_an_encoder(cls):
    model, X, y = fit(cls, encoder=small_encoder, max_iter=150, learning_rate=0.03)
    assert model.coef_solver_ == "gradient"
    assert model.score(X, y) > 0.8
    assert not odd_parts(model.model_)
    again = pickle.loads(pickle.dumps(model))
    assert same_bits(again.predict(X), model.predict(X))
    twin, *_ = fit(cls, encoder=small_encoder, max_iter=150, learning_rate=0.03)
    assert same_bits(twin.predict(X), model.predict(X))


def test_skops_needs_the_function_to_be_trusted():
    skops = pytest.importorskip("skops.io")
    model, X, _ = fit(NeuralSparseGridRegressor, encoder=small_encoder, max_iter=20)
    data = skops.dumps(model)
    names = skops.get_untrusted_types(data=data)
    assert set(names) == {
        "skpou.NeuralSparseGridRegressor",
        "tests.neural_sparse_grids.test_estimators.small_encoder",
    }
    assert same_bits(skops.loads(data, trusted=names).predict(X), model.predict(X))


@each_class
def test_images(cls):
    rng = np.random.default_rng(0)
    images = rng.random((80, 6, 5))
    y = (images[:, 2, 2] > 0.5).astype(int)
    images[:, 2, 2] = 4 * y
    params = {"encoder": "cnn", "image_shape": (1, 6, 5), "max_iter": 30, "batch_size": 20}
    model = cls(**QUICK | params).fit(images.reshape(80, 30), y)
    assert model.score(images.reshape(80, 30), y) > 0.9
    assert model.transform(images.reshape(80, 30)).shape == (80, 2)


@each_class
@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"encoder": lambda n, d: None}, ValueError, "encoder is a lambda"),
        ({"encoder": nn.Linear(2, 2)}, ValueError, "encoder is a Linear instance"),
        ({"encoder": no_module}, TypeError, "must return a torch.nn.Module"),
        ({"encoder": "transformer"}, ValueError, "'encoder' parameter of"),
        ({"encoder": "cnn"}, ValueError, "needs image_shape"),
        ({"encoder": "cnn", "image_shape": (1, 2)}, ValueError, r"image_shape=\(1, 2\)"),
        ({"encoder": "cnn", "image_shape": (1, 2, 2)}, ValueError, "4 pixels, but X has 2"),
        ({"image_shape": (1, 1, 2)}, ValueError, "goes with encoder='cnn'"),
        ({"margin": 0.5}, ValueError, "'margin' parameter of"),
        ({"encoder": small_encoder, "coef_solver": "varpro"}, ValueError, "needs encoder='mlp'"),
        ({"hidden_layer_sizes": ()}, ValueError, "hidden_layer_sizes must hold"),
        ({"level": 12, "n_components": 6}, ValueError, "grid points, more than"),
    ],
)
def test_parameters_that_cannot_be(cls, params, error, match):
    X, y = rows()
    with pytest.raises(error, match=match):
        cls(**params).fit(X, (y > 0).astype(int))


def too_wide(n_features_in, n_components):
    """Encoder with one column too many."""
    return torch.nn.Linear(n_features_in, n_components + 1)


def test_an_encoder_of_another_width_is_named():
    X, y = np.random.default_rng(0).random((2, 60, 3))
    model = NeuralSparseGridRegressor(encoder=too_wide, level=3)
    with pytest.raises(ValueError, match=r"too_wide must map .* Got \(.*, 3\)"):
        model.fit(X, y[:, 0])


@pytest.mark.parametrize("label", [lambda B: B[:, 0], lambda B: B[:, 0] ^ B[:, 1]])
def test_classes_of_few_distinct_rows(label):
    # Every draw counts: 250 of the same class are no single observation.
    B = np.random.default_rng(0).integers(0, 2, (1000, 2))
    model = NeuralSparseGridClassifier().fit(B, label(B))
    assert model.score(B, label(B)) == 1
    assert model.predict_proba(B).max(1).min() > 0.9
