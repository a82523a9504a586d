"""Callbacks of scikit-learn from version 1.9 on."""

import functools
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skpou import (
    AdditivePOURegressor,
    AutoRegressor,
    HierarchicalPOURegressor,
    LSGDRegressor,
    MultiStageRegressor,
    NeuralSparseGridClassifier,
    NeuralSparseGridRegressor,
    POURegressor,
    SparseGridClassifier,
    SparseGridRegressor,
)
from skpou.base import callbacks

callback = pytest.importorskip("sklearn.callback", reason="callbacks came with 1.9")

REGRESSORS = {
    "pieces": HierarchicalPOURegressor(n_partitions=2, degree=1),
    "em": HierarchicalPOURegressor(2, 1, gate="linear", init="box", solver="em", tol=1e-2),
    "partitions": POURegressor(2, 1, gate="linear"),
    "units": LSGDRegressor(),
    "network": LSGDRegressor((6,), alpha=1e-3),
    "stages": MultiStageRegressor(),
    "grid": SparseGridRegressor(),
    "refined grid": SparseGridRegressor(n_refinements=3, max_points=100),
    "encoder": NeuralSparseGridRegressor(level=3),
    "descent": NeuralSparseGridRegressor(level=3, coef_solver="gradient", max_iter=4),
    "terms": AdditivePOURegressor(),
    "front door": AutoRegressor(["SparseGridRegressor", "SparseGridRegressor"]),
}
#: Trainings that go on to their end: a part of them is no model.
WHOLE = ("grid", "terms")


class Recorder:
    """Notes every hook; wants to stop after so many steps."""

    def __init__(self, most=None):
        self.most, self.hooks, self.lines, self.scored = most, [], [], None

    def setup(self, estimator, context):
        self.hooks.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.hooks.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.hooks.append(f"end {context.task_name}")
        if context.task_name == "fit":
            self.scored = None if fitted_estimator is None else fitted_estimator.score(X, y)
            self.weighted = metadata
            return False
        self.lines.append(metadata["report"])
        return len(self.lines) == self.most

    def teardown(self, estimator, context):
        self.hooks.append("teardown")


def data(n=80, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 2))
    return X, np.abs(X[:, 0]) + np.sin(3 * X[:, 1]) + noise * rng.standard_normal(n)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*converge|.*of the embeddings lie within|.*max_iter")
        yield


#: Few rows, since every regressor is fitted four times.
FEW = data(40)


@functools.cache
def watched(name):
    """The regressor after a fit to its end, and what was told of it."""
    recorder = Recorder()
    return clone(REGRESSORS[name]).set_callbacks(recorder).fit(*FEW), recorder


@pytest.mark.parametrize("name", REGRESSORS)
def test_every_step_is_a_task_and_changes_nothing(name):
    X, y = FEW
    told, recorder = watched(name)
    hooks = recorder.hooks
    assert hooks[:2] == ["setup", "begin fit"]
    assert hooks[-2:] == ["end fit", "teardown"]
    assert set(hooks[2:-2:2]) == {"begin step"}
    assert set(hooks[3:-2:2]) == {"end step"}
    assert all(isinstance(line, str) and line for line in recorder.lines)
    assert recorder.scored == told.score(X, y)
    plain = clone(REGRESSORS[name]).fit(X, y)
    np.testing.assert_array_equal(told.predict(X), plain.predict(X))
    assert set(vars(told)) - set(vars(plain)) == {"_skl_callbacks"}


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("name", REGRESSORS)
def test_a_callback_ends_training_and_the_best_model_is_kept(name, most):
    X, y = FEW
    model, whole, recorder = clone(REGRESSORS[name]), watched(name)[1], Recorder(most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.set_callbacks(recorder).fit(X, y) is model
    if name in WHOLE:
        assert recorder.lines == whole.lines
    elif len(whole.lines) > most:
        # After the end a model may still have to be solved for.
        assert recorder.lines[:most] == whole.lines[:most]
        assert len(recorder.lines) < len(whole.lines) or recorder.lines != whole.lines
    assert recorder.hooks[-1] == "teardown"
    assert np.isfinite(model.predict(X)).all()
    assert recorder.scored == model.score(X, y)


def test_classifiers():
    X, y = data()
    grid, descent = Recorder(most=1), Recorder(most=3)
    model = SparseGridClassifier().set_callbacks(grid).fit(X, y > 0.5)
    assert grid.scored == model.score(X, y > 0.5)
    model = NeuralSparseGridClassifier(level=3, coef_solver="gradient", max_iter=20)
    model.set_callbacks(descent).fit(X, y > 0.5)
    assert len(descent.lines) == 3
    assert descent.scored == model.score(X, y > 0.5)


def test_weights_are_handed_on():
    X, y = data()
    recorder, weight = Recorder(), np.arange(1.0, 81)
    LSGDRegressor((3,)).set_callbacks(recorder).fit(X, y, weight)
    np.testing.assert_array_equal(recorder.weighted["sample_weight"], weight)


def test_a_failed_fit_tears_down_and_keeps_the_earlier_one():
    X, y = data()
    recorder = Recorder()
    model = SparseGridRegressor().set_callbacks(recorder).fit(X, y)
    before = model.predict(X)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, np.where(y > 0, np.nan, y))
    assert recorder.hooks[-1] == "teardown"
    np.testing.assert_array_equal(model.predict(X), before)


def test_progress_bar_and_scores_inside_a_search():
    pytest.importorskip("rich", reason="draws the bar")
    X, y = data()
    scores = callback.ScoringMonitor(scoring="r2")
    model = LSGDRegressor((3,)).set_callbacks(scores)
    search = GridSearchCV(model, {"alpha": [1e-3, 1e-1]}, cv=2)
    search.set_callbacks(callback.ProgressBar()).fit(X, y)
    assert search.best_score_ > 0.3


def test_callbacks_survive_clone_and_pickle():
    X, y = data()
    model = SparseGridRegressor().set_callbacks(Recorder()).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


#: Estimators whose parameters say how many steps there are at most.
COUNTED = {
    "network": LSGDRegressor((3,), max_iter=7, n_init=2, tol=0),
    "descent of a network": LSGDRegressor((3,), solver="lsgd", max_iter=7, n_init=2, tol=0),
    "partitions": POURegressor(2, 1, solver="lsgd", init="box", max_iter=7, tol=0),
    "em": HierarchicalPOURegressor(
        2, 1, gate="linear", init="box", solver="em", max_iter=250, tol=0, n_init=2
    ),
    "encoder": NeuralSparseGridRegressor(level=3, coef_solver="gradient", max_iter=4),
    "iterative": NeuralSparseGridRegressor(level=3, coef_solver="iterative", max_iter=4),
    "front door": AutoRegressor(["SparseGridRegressor", "SparseGridRegressor"]),
}
#: What they announce, where not all of it is needed.
ANNOUNCED = {"network": 28, "em": 250}


class Announced(Recorder):
    """Notes how many steps are announced."""

    def on_fit_task_begin(self, estimator, context):
        super().on_fit_task_begin(estimator, context)
        if context.task_name == "fit":
            self.announced = context.max_subtasks


@pytest.mark.parametrize("name", COUNTED)
def test_the_number_of_steps_is_announced_where_it_is_known(name, capsys):
    X, y = FEW
    recorder = Announced()
    clone(COUNTED[name]).set_params(verbose=1).set_callbacks(recorder).fit(X, y)
    printed = capsys.readouterr().out.splitlines()
    # A line is a task: none was beyond those announced.
    assert len(printed) == len(recorder.lines)
    assert recorder.announced == ANNOUNCED.get(name, len(printed))
    assert len(printed) <= recorder.announced
    for k, line in enumerate(printed, 1):
        assert f" ({k} of at most {recorder.announced}, at most " in line
        assert line.endswith(" to go)")


def test_a_density_announces_its_alphas(capsys):
    X, y = data()
    recorder = Announced()
    SparseGridClassifier(method="density", verbose=1).set_callbacks(recorder).fit(X, y > 0.5)
    assert recorder.announced == len(recorder.lines) == len(capsys.readouterr().out.splitlines())


def test_unknown_numbers_are_not_announced(capsys):
    X, y = data()
    recorder = Announced()
    model = LSGDRegressor(verbose=1).set_callbacks(recorder).fit(X, y)
    assert recorder.announced is None
    assert "to go" not in capsys.readouterr().out
    assert not [key for key in vars(model) if key.startswith("_fit")]


def test_an_interrupt_leaves_no_count(monkeypatch):
    X, y = data()
    model = LSGDRegressor((3,), solver="lsgd", max_iter=50)

    def stop(estimator, stoppable):
        def step(line):
            if line.startswith("pass 3"):
                raise KeyboardInterrupt

        return step

    monkeypatch.setattr("skpou.base.training.step_task", stop)
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.n_iter_ == 3
    assert not [key for key in vars(model) if key.startswith("_fit")]


def test_time_to_go_is_by_the_lines_so_far(monkeypatch):
    now = iter([0.0, 1.0, 4.0, 600.0])
    monkeypatch.setattr(callbacks, "perf_counter", lambda: next(now))
    estimator = SparseGridRegressor()
    with callbacks.counted_lines(estimator, 10):
        remaining = callbacks.Remaining(estimator)
        assert remaining.after_one_more() == " (1 of at most 10, at most 9.0 s to go)"
        assert remaining.after_one_more() == " (2 of at most 10, at most 16 s to go)"
        assert remaining.after_one_more() == " (3 of at most 10, at most 23 min to go)"
    assert vars(estimator) == vars(SparseGridRegressor())


class Watcher(Recorder):
    """Keeps the predictions of the model after every step."""

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        if context.task_name == "step":
            assert metadata["report"]
            self.lines.append(None if fitted_estimator is None else fitted_estimator.score(X, y))
        return len(self.lines) == self.most


ENCODERS = {
    "descent": NeuralSparseGridRegressor(level=3, coef_solver="gradient", max_iter=6),
    "varpro": NeuralSparseGridRegressor(level=3, max_iter=4),
    "classes": NeuralSparseGridClassifier(level=3, coef_solver="gradient", max_iter=6),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_steps_of_an_encoder_are_models_and_change_nothing(name):
    X, y = data()
    y = y > 0.5 if name == "classes" else y
    watcher, model = Watcher(), clone(ENCODERS[name])
    model.set_callbacks(watcher).fit(X, y)
    assert watcher.lines and np.isfinite(watcher.lines).all()
    plain = clone(ENCODERS[name]).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    assert not [key for key in vars(model) if key.startswith("_fit")]


def test_the_model_of_a_step_is_what_a_fit_that_ends_there_leaves():
    X, y = data()
    watcher = Watcher(most=3)
    model = clone(ENCODERS["descent"]).set_callbacks(watcher).fit(X, y)
    assert len(watcher.lines) == 3
    assert watcher.lines[-1] == pytest.approx(model.score(X, y), abs=0.02)


def test_a_monitor_has_a_curve():
    X, y = data()
    scores = callback.ScoringMonitor(scoring="r2")
    clone(ENCODERS["descent"]).set_callbacks(scores).fit(X, y, np.arange(1.0, 81))
    assert len(scores.get_logs().data) == 7
