"""Outputs on encoders and grids of their own."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from skpou import NeuralSparseGridRegressor
from skpou.core import TrainingInterrupted, TrainingResult
from skpou.core.models import leave_out
from skpou.neural_sparse_grids.apart import MOST_APART, GridsApart, fit_apart
from tests.neural_sparse_grids.test_model import fresh, regression

QUICK = {"hidden_layer_sizes": (2,), "level": 3, "n_components": 1}


def table(n=30):
    """Points, and two outputs along directions that have nothing to do with each other."""
    X = np.random.default_rng(0).uniform(-1, 1, (n, 3))
    return X, np.column_stack([np.sin(2 * X[:, 0] + X[:, 1]), np.tanh(3 * (X[:, 1] - X[:, 2]))])


@pytest.fixture(scope="module")
def fitted():
    X, Y = table()
    return NeuralSparseGridRegressor(**QUICK).fit(X, Y)


def of_one(level=3, target=0):
    """Model of one of the targets of `regression`."""
    model, _ = regression(level=level)
    model.head.coef = model.head.coef[:, target : target + 1]
    model.head.noise = model.head.noise[target : target + 1]
    return replace(model, slope=model.slope[target : target + 1])


def test_outputs_are_predicted_as_if_alone(fitted):
    X, Y = table()
    P = np.random.default_rng(1).uniform(-1.2, 1.2, (20, 3))
    alone = NeuralSparseGridRegressor(**QUICK).fit(X, Y[:, 1])
    found, expected = (model.predict(P, return_std=True) for model in (fitted, alone))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[:, 1], other, rtol=1e-12)
    gradient = fitted.predict_gradient(P)[:, 1]
    np.testing.assert_allclose(gradient, alone.predict_gradient(P), atol=1e-12)
    quantiles = [model.predict_quantile(P) for model in (fitted, alone)]
    np.testing.assert_allclose(quantiles[0][:, 1], quantiles[1], rtol=1e-9)
    assert fitted.noise_[1] == pytest.approx(alone.noise_)


def test_coefficients_are_those_of_the_finest_grid(fitted):
    X, _ = table()
    u, grid = fitted.transform(X), fitted._model(torch.zeros(1, dtype=torch.float64)).own
    assert u.shape == (30, 2)
    assert len(fitted.get_feature_names_out()) == 2
    finest = max((one.head.grid for one in grid), key=lambda one: one.level)
    assert fitted.level_ == finest.level
    for k in range(2):
        values = finest.matrix(torch.tensor(u[:, k : k + 1])).numpy() @ fitted.coef_[:, k]
        np.testing.assert_allclose(fitted.intercept_[k] + values, fitted.predict(X)[:, k])
    assert "1 coordinates, one for each output" in fitted.summary()


def test_grids_are_refitted(fitted):
    X, Y = table()
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(X), fitted.predict(X))
    before = again.refit_grid(X, Y).predict(X)
    np.testing.assert_allclose(before, fitted.predict(X), atol=1e-6)
    np.testing.assert_allclose(again.refit_grid(X, 2 * Y + 1).predict(X), 2 * before + 1, atol=1e-6)


def test_encoders_by_name_are_not_imported(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    again.model_["own"][1]["encoder"]["form"]["kind"] = "os:system"
    with pytest.raises(ValueError, match="has an encoder 'os:system'"):
        pickle.loads(pickle.dumps(again))


def test_many_outputs_share_the_encoder():
    X, Y = table(8)
    Y = np.column_stack([Y, Y**2, Y[:, 0] + Y[:, 1]])
    assert Y.shape[1] > MOST_APART
    model = NeuralSparseGridRegressor(**QUICK, max_iter=1)
    with pytest.warns(UserWarning, match="max_iter"):
        model.fit(X, Y)
    assert model.transform(X).shape == (8, 1)


# Fits


def result_of(noise, name="own", **changes):
    """A result whose model leaves this noise."""
    model = of_one()
    model.head.noise = torch.full_like(model.head.noise, noise)
    chosen = {"alpha": noise, "level": 3, "coef_solver": "varpro", "name": name}
    result = TrainingResult(model, noise, 2, [1.0, noise], chosen=chosen)
    return replace(result, **changes)


@pytest.mark.parametrize(
    ("own", "on_others", "again", "trained"),
    [(0.7, 0.6, 0.1, [0, 1]), (0.7, 0.5, 0.3, [0, 1, 0]), (0.9, 0.5, 1.1, [0, 1, None, 0])],
)
def test_an_output_goes_on_from_the_encoder_of_others(own, on_others, again, trained):
    seen, starts = [], []

    def train(output, report, start):
        seen.append(output)
        starts.append(start)
        return result_of(0.2 if output != 0 else own if start is None else again)

    def noise_on(output, model):
        return on_others if output == 0 else 1.0

    found = fit_apart(2, train, noise_on)
    assert seen == trained
    assert all((start is not None) == (k > 1 and seen[k] == 0) for k, start in enumerate(starts))
    kept = min(own, again) if len(seen) > 2 else own
    assert [float(one.head.noise) for one in found.state.own] == pytest.approx([kept, 0.2])
    assert found.chosen["alpha"] == kept
    assert found.curve == pytest.approx([1.0, (kept + 0.2) / 2])


def test_what_is_not_fitted_yet_is_its_mean():
    lines = []

    def train(output, report, start):
        if output == 0:
            return result_of(0.5)
        report("step 1", lambda: result_of(0.1))
        raise TrainingInterrupted(result_of(0.1, code="interrupted", message="Kept."))

    def report(line, result):
        lines.append((line, result()))

    report.takes_models = True
    with pytest.raises(TrainingInterrupted) as stopped:
        fit_apart(3, train, None, report)
    kept = stopped.value.result
    assert (kept.code, kept.message) == ("interrupted", "Kept.")
    assert lines[0][0] == "output 1, step 1"
    for found in (kept, lines[0][1]):
        mean = found.state.mean(fresh())
        assert mean[:, :2].any(0).all()
        assert not mean[:, 2].any()


# The model


def test_each_output_is_that_of_its_model():
    own = of_one(), of_one(level=2, target=1)
    model, X = GridsApart(own), fresh(10)
    for asked in (
        lambda one: one.mean(X),
        lambda one: one.gradient(X),
        lambda one: one.components(X).epistemic,
        lambda one: one.components(X, posterior=False).noise,
        lambda one: one.beyond(X),
        lambda one: one.covariance(X),
    ):
        for k in range(2):
            assert torch.equal(asked(model)[..., k : k + 1], asked(own[k]))
    again = GridsApart.from_arrays(model.arrays(), X)
    assert torch.equal(again.mean(X), model.mean(X))
    flat = model.flattened(torch.tensor([False, True])).mean(X)
    assert torch.equal(flat[:, :1], model.mean(X)[:, :1])
    assert not flat[:, 1].any()


def test_rows_are_left_out_of_each_model():
    own, rows = (of_one(), of_one(level=2, target=1)), regression()[1]
    found = leave_out(GridsApart(own).residual_makers(rows), rows)
    for k, one in enumerate(found):
        expected = leave_out(own[k].residual_makers(rows.of_target(k)), rows.of_target(k))[0]
        assert np.array_equal(one.error, expected.error)
